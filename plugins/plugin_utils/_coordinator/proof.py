# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After the change: show that it holds, count what clients felt, hold it against the objectives. PRIVATE."""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._clock import iso, parse_iso
from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import ClusterFacts
from ansible_collections.hms.postgres.plugins.module_utils._cluster.plan import Plan, Request
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError

from . import failover, overview, switchover
from .clients import first_success_after, judge
from .operation import Operation, Requests
from .overview import Site
from .synchrony import exposure

VERIFY_DEADLINE = 20.0


@dataclasses.dataclass(frozen=True)
class Done:
    """What was done, as far as its proof needs it.

    Attributes:
        promoted: the promotion's answer; empty when only an earlier run's work was finished.
        before: the cluster as it was.
        origin: the wall clock, in seconds, at the record's start.
        command: what an operator types before a playbook's name, for the next steps.
    """

    plan: Plan
    request: Request
    site: Site
    promoted: t.Mapping[str, t.Any]
    before: ClusterFacts
    origin: float
    command: str


def write_through(
    operation: Operation, poolers: t.Sequence[str], primary: str, *, deadline: float = VERIFY_DEADLINE
) -> None:
    """A write through every process of these bouncer hosts arrives at the primary."""
    args: dict[str, t.Any] = {"operation": operation.identifier, "deadline": deadline}
    requests: Requests = dict.fromkeys(poolers, ("verify", args))
    title = f"Write through every process to {primary}"
    operation.everywhere("verify", requests, phase="verify", title=title, timeout=deadline * 2)


def stop_probes(operation: Operation, poolers: t.Sequence[str]) -> dict[str, list[list[t.Any]]]:
    """Let the write probes see a moment of what came after, then end them; their samples."""
    operation.pause(switchover.PROBE_AFTER)
    answers = operation.fleet.ask(dict.fromkeys(poolers, ("probe_stop", {})), 30.0)
    samples: dict[str, list[list[t.Any]]] = {}
    for answer in answers.values():
        samples.update(answer.result.get("samples") or {})
    return samples


def probe_rows(operation: Operation, primary: str) -> dict[str, list[int]]:
    """The probes' rows that are there, by source."""
    found: dict[str, list[int]] = operation.one(
        "probe_rows",
        primary,
        "probe_rows",
        phase="verify",
        title="Count the probe's rows",
        timeout=60.0,
        operation=operation.identifier,
    )["present"]
    return found


def as_configured(operation: Operation, poolers: t.Sequence[str]) -> None:
    """What was set for the operation alone is taken back on the bouncers."""
    requests: Requests = dict.fromkeys(poolers, ("finish", {"operation": operation.identifier}))
    operation.everywhere(
        "finish", requests, phase="finish", title="Settings as configured", timeout=15.0, tolerate=True
    )


def prove(operation: Operation, done: Done) -> ClusterFacts:
    """Write through every bouncer, show that the old primary refuses, count what clients felt, write the outcome."""
    plan = done.plan
    write_through(operation, plan.poolers, plan.new_primary)
    if plan.old_primary and plan.poolers:
        _show_refusal(operation, plan)
    samples = stop_probes(operation, plan.poolers)
    losses = _losses(operation, done)
    clients = judge(samples, probe_rows(operation, plan.new_primary), origin=done.origin)
    as_configured(operation, plan.poolers)
    after = overview.observe(operation.fleet, done.site)
    operation.set(after=overview.for_record(after), clients=clients, losses=losses)
    exposed = exposure(after, plan.new_primary)
    if exposed:
        operation.set(exposure=exposed)
    _conclude(operation, done, clients, losses, samples, exposed)
    return after


def _losses(operation: Operation, done: Done) -> dict[str, t.Any]:
    """What was lost, and how that is known."""
    if not done.promoted:
        basis = "this run only finished what an earlier one left undone; that one's record, and the rejoin, tell"
        return {"known": False, "count": None, "bytes": None, "transactions": [], "basis": basis}
    if done.request.operation == "failover":
        return failover.losses(operation, done.plan, done.promoted["base"], done.before)
    basis = "the new primary replayed the old one's shutdown checkpoint before it was promoted"
    return {"known": True, "count": 0, "bytes": 0, "transactions": [], "basis": basis}


def _show_refusal(operation: Operation, plan: Plan) -> None:
    """A write attempted at the old primary, and its refusal."""
    args = {"member": plan.old_primary, "operation": operation.identifier}
    answers = operation.everywhere(
        "prove_unreachable",
        dict.fromkeys(plan.poolers, ("prove_unreachable", args)),
        phase="verify",
        title=f"Try to write at {plan.old_primary}",
        timeout=20.0,
        tolerate=True,
    )
    taken = [host for host, answer in answers.items() if answer.error is None and not answer.result["refused"]]
    if taken:
        raise HmsError(
            f"{plan.old_primary} took a write from {', '.join(taken)} after {plan.new_primary} was promoted.",
            reason="two_primaries",
            phase="verify",
            state=f"{plan.new_primary} is primary and the bouncers lead to it, but {plan.old_primary} is writable too.",
            next_step=f"Stop {plan.old_primary} now, then run rejoin.yml -e host={plan.old_primary}.",
        )


def _conclude(
    operation: Operation,
    done: Done,
    clients: t.Mapping[str, t.Any],
    losses: t.Mapping[str, t.Any],
    samples: t.Mapping[str, list[list[t.Any]]],
    exposed: t.Mapping[str, t.Any],
) -> None:
    """RTO and RPO against the objectives, and the outcome."""
    plan, request = done.plan, done.request
    rto: float | None = clients.get("longest_stall_seconds")
    rpo: float | None = 0.0
    message = f"{plan.new_primary} is primary; what an earlier run left undone is done."
    next_steps = []
    if done.promoted:
        message = f"{plan.new_primary} took over from {plan.old_primary}; {_lost_words(losses, clients)}."
    if done.promoted and request.operation == "failover":
        rto, rpo = _outage(operation, done.promoted, losses, samples)
        next_steps.append(f"{done.command} playbooks/rejoin.yml -e host={plan.old_primary}")
    if exposed:
        next_steps.append(exposed["message"])
    operation.outcome(
        "done",
        message,
        next_steps=next_steps,
        lost_transactions=_lost(losses, clients) if losses["known"] else None,
        rto_seconds=rto,
        rpo_seconds=rpo,
        rto_met=None if rto is None else rto <= request.rto_seconds,
        rpo_met=None if rpo is None else rpo <= request.rpo_seconds,
    )


def _lost(losses: t.Mapping[str, t.Any], clients: t.Mapping[str, t.Any]) -> int:
    """How many acknowledged transactions are gone. A write of the probe may stand in both counts."""
    return max(int(losses["count"] or 0), int(clients["lost"]))


def _lost_words(losses: t.Mapping[str, t.Any], clients: t.Mapping[str, t.Any]) -> str:
    if not losses["known"]:
        return "what never replicated is not known yet"
    count = _lost(losses, clients)
    return "nothing acknowledged was lost" if count == 0 else f"{count} transactions were lost (listed in the record)"


def _outage(
    operation: Operation,
    promoted: t.Mapping[str, t.Any],
    losses: t.Mapping[str, t.Any],
    samples: t.Mapping[str, list[list[t.Any]]],
) -> tuple[float | None, float | None]:
    """From the last commit known to the first write acknowledged again; and how much of it never replicated."""
    last_here = promoted["base"].get("last_commit_at") or ""
    last_there = max((item.get("committed_at") or "" for item in losses["transactions"]), default="")
    started = max(last_here, last_there, key=lambda text: parse_iso(text).timestamp() if text else 0.0)
    basis = (
        "the last commit in the old primary's WAL" if last_there else "the last commit that the new primary replayed"
    )
    begun = parse_iso(started).timestamp() if started else None
    ended = first_success_after(samples, begun or 0.0)
    operation.set(
        outage={
            "started_at": iso(parse_iso(started)) if started else None,
            "ended_at": iso(_moment(ended)) if ended else None,
            "basis": basis + "; without writes before the failure it is an upper bound",
        }
    )
    rto = round(ended - begun, 3) if ended and begun else None
    if not losses["known"]:
        return rto, None
    if not losses["count"] or not last_there or not last_here:
        return rto, 0.0
    return rto, round(parse_iso(last_there).timestamp() - parse_iso(last_here).timestamp(), 3)


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
