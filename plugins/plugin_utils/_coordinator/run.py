# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From a request to a finished record: look, plan, do, prove. PRIVATE."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._clock import Clock, iso, parse_iso
from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import ClusterFacts
from ansible_collections.hms.postgres.plugins.module_utils._cluster.plan import (
    Plan,
    Refusal,
    Request,
    plan_failover,
    plan_switchover,
)
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._files import dump_json
from ansible_collections.hms.postgres.plugins.module_utils._record import new_id

from . import failover, overview, switchover
from .clients import first_success_after, judge
from .fleet import Fleet
from .line import LineSpec
from .operation import Asked, Operation
from .overview import Site
from .synchrony import names_for

LOCK_PATIENCE = 90.0
"""Seconds to wait for agents of a run that was killed and is being wound up; a living operator is not waited for."""

VERIFY_DEADLINE = 20.0


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything a run needs to know."""

    request: Request
    site: Site
    lines: tuple[LineSpec, ...]
    bundle: bytes
    by: str
    records_directory: str
    parameters: t.Mapping[str, t.Any]
    version: str
    greet_seconds: float = 6.0


@dataclasses.dataclass(frozen=True)
class Report:
    """What a run found or did."""

    changed: bool
    plan: Plan
    facts: ClusterFacts
    record: dict[str, t.Any] | None = None
    record_path: str = ""


def open_fleet(job_lines: t.Sequence[LineSpec], bundle: bytes, site: Site, clock: Clock, seconds: float) -> Fleet:
    """Open every line and check that each agent is one of this cluster."""
    fleet = Fleet(job_lines, bundle, clock)
    for host, hello in fleet.greet(seconds).items():
        if (hello["name"], hello["cluster"]) != (host, site.cluster):
            fleet.abandon()
            raise Refused(
                f"{host} says it is {hello['name']!r} of cluster {hello['cluster']!r}, not of {site.cluster!r}.",
                reason="wrong_cluster",
                state="Nothing was touched.",
                next_step="Correct the inventory, or run playbooks/site.yml for this host.",
            )
    return fleet


def make_plan(facts: ClusterFacts, request: Request) -> Plan:
    """The plan for what was asked."""
    return plan_switchover(facts, request) if request.operation == "switchover" else plan_failover(facts, request)


def try_paths(fleet: Fleet, plan: Plan, request: Request) -> Plan:
    """Try the real login path from every bouncer process to the candidate, before anything is touched."""
    if plan.finishing or plan.blocked or not plan.actions:
        return plan
    requests = {name: ("try_path", {"member": plan.new_primary}) for name in plan.poolers}
    refusals = list(plan.refusals)
    for host, answer in fleet.ask(requests, 15.0).items():
        if answer.error is not None:
            refusals.append(
                Refusal(
                    "login_path",
                    f"From {host} there is no login to {plan.new_primary}: {answer.error.message}",
                    "Check pg_hba, TLS and password there; clients would fail after the switch.",
                    overridden="login_path" in request.force,
                )
            )
    return dataclasses.replace(plan, refusals=tuple(refusals))


def refuse_if_blocked(plan: Plan) -> None:
    """Raise `Refused` with every rule that forbids the plan."""
    if not plan.blocked:
        return
    lines = []
    for refusal in plan.blocked:
        way = f" Override: force={refusal.rule}." if refusal.overridable else ""
        lines.append(f"[{refusal.rule}] {refusal.message} {refusal.next_step}{way}".strip())
    raise Refused(
        f"The {plan.operation} is refused. " + " ".join(lines),
        reason=plan.blocked[0].rule,
        phase="plan",
        state="Nothing was touched.",
        details={"refusals": [dataclasses.asdict(refusal) for refusal in plan.blocked]},
    )


def run(job: Job, clock: Clock, *, check_mode: bool) -> Report:
    """Look, plan, and, unless in check mode, do and prove."""
    fleet = open_fleet(job.lines, job.bundle, job.site, clock, job.greet_seconds)
    try:
        facts = overview.observe(fleet, job.site)
        request = dataclasses.replace(job.request, check_only=check_mode)
        plan = try_paths(fleet, make_plan(facts, request), request)
        if check_mode:
            fleet.goodbye()
            return Report(changed=plan.changed and not plan.blocked, plan=plan, facts=facts)
        refuse_if_blocked(plan)
        if not plan.changed:
            fleet.goodbye()
            return Report(changed=False, plan=plan, facts=facts)
        return _carry_out(job, request, plan, facts, fleet, clock)
    finally:
        fleet.abandon()


def _carry_out(job: Job, request: Request, plan: Plan, facts: ClusterFacts, fleet: Fleet, clock: Clock) -> Report:
    operation = Operation(
        identifier=new_id(request.operation, clock),
        kind=request.operation,
        directory=job.records_directory,
        asked=Asked(job.by, job.site.cluster, job.site.environment, job.parameters),
        fleet=fleet,
        clock=clock,
    )
    origin = clock.now().timestamp() - operation.elapsed()
    control = next((member.control for member in facts.members if member.control), None)
    operation.set(
        system_identifier=control.system_identifier if control else "",
        software=overview.software(facts, job.version),
        objectives={"rto_seconds": request.rto_seconds, "rpo_seconds": request.rpo_seconds},
        plan=plan.as_record(),
        before=overview.for_record(facts),
    )
    try:
        operation.lock([host for host in fleet.lines if fleet.reachable(host)], patience=LOCK_PATIENCE)
        if plan.finishing:
            _finish_only(operation, plan)
            ended = _prove(operation, job, plan, {}, facts, origin, request)
        else:
            plan, promoted = _do(operation, plan, request, facts)
            ended = _prove(operation, job, plan, promoted, facts, origin, request)
    except HmsError as error:
        _failed(operation, plan, error)
        raise
    path = operation.journal.finish()
    document = operation.journal.document()
    _keep_copies(operation, document)
    fleet.goodbye()
    return Report(changed=True, plan=plan, facts=ended, record=document, record_path=path)


def _do(operation: Operation, plan: Plan, request: Request, facts: ClusterFacts) -> tuple[Plan, dict[str, t.Any]]:
    def sync_names(primary: str) -> str:
        return names_for(facts, plan, primary)

    if request.operation == "switchover":
        switchover.arm(operation, plan, sync_names(plan.new_primary))
        promoted = switchover.execute(operation, plan, request)
    else:
        switchover.arm_poolers(operation, plan)
        plan, promoted = failover.execute(operation, plan, request, facts, sync_names)
    operation.set(plan=plan.as_record())
    switchover.settle(operation, plan, promoted["timeline"])
    return plan, promoted


def _finish_only(operation: Operation, plan: Plan) -> None:
    """What an earlier run left undone."""
    verbs: dict[str, tuple[str, dict[str, t.Any]]] = {
        "repoint_pools": ("repoint", {"primary": plan.new_primary, "operation": operation.identifier}),
        "resume_pools": ("resume", {}),
        "follow": ("follow", {"upstream": plan.new_primary}),
    }
    for action in plan.actions:
        verb, args = verbs[action.id]
        operation.everywhere(
            action.id, {action.host: (verb, args)}, phase=action.phase, title=action.what, timeout=15.0
        )


def _prove(
    operation: Operation,
    job: Job,
    plan: Plan,
    promoted: t.Mapping[str, t.Any],
    facts: ClusterFacts,
    origin: float,
    request: Request,
) -> ClusterFacts:
    """Write through every bouncer, show that the old primary refuses, count what clients felt, write the outcome."""
    args: dict[str, t.Any] = {"operation": operation.identifier, "deadline": VERIFY_DEADLINE}
    operation.everywhere(
        "verify",
        dict.fromkeys(plan.poolers, ("verify", args)),
        phase="verify",
        title=f"Write through every process to {plan.new_primary}",
        timeout=VERIFY_DEADLINE * 2,
    )
    if plan.old_primary and plan.poolers:
        _show_refusal(operation, plan)
    operation.pause(switchover.PROBE_AFTER)
    samples = _stop_probes(operation, plan)
    losses: dict[str, t.Any] = {"known": True, "count": 0, "bytes": 0, "transactions": [], "basis": ""}
    if promoted and request.operation == "failover":
        losses = failover.losses(operation, plan, promoted["base"], facts)
    elif promoted:
        losses["basis"] = "the new primary replayed the old one's shutdown checkpoint before it was promoted"
    present = operation.one(
        "probe_rows",
        plan.new_primary,
        "probe_rows",
        phase="verify",
        title="Count the probe's rows",
        timeout=60.0,
        operation=operation.identifier,
    )["present"]
    clients = judge(samples, present, origin=origin)
    operation.everywhere(
        "finish",
        {name: ("finish", {"operation": operation.identifier}) for name in plan.poolers},
        phase="finish",
        title="Settings as configured",
        timeout=15.0,
        tolerate=True,
    )
    after = overview.observe(operation.fleet, job.site)
    operation.set(after=overview.for_record(after), clients=clients, losses=losses)
    _conclude(operation, plan, clients, losses, promoted, request, samples)
    return after


def _show_refusal(operation: Operation, plan: Plan) -> None:
    """A write attempted at the old primary, and its refusal."""
    answers = operation.everywhere(
        "prove_unreachable",
        {name: ("prove_unreachable", {"member": plan.old_primary}) for name in plan.poolers},
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


def _stop_probes(operation: Operation, plan: Plan) -> dict[str, list[list[t.Any]]]:
    answers = operation.fleet.ask({name: ("probe_stop", {}) for name in plan.poolers}, 30.0)
    samples: dict[str, list[list[t.Any]]] = {}
    for answer in answers.values():
        samples.update(answer.result.get("samples") or {})
    return samples


def _conclude(
    operation: Operation,
    plan: Plan,
    clients: t.Mapping[str, t.Any],
    losses: t.Mapping[str, t.Any],
    promoted: t.Mapping[str, t.Any],
    request: Request,
    samples: t.Mapping[str, list[list[t.Any]]],
) -> None:
    """RTO and RPO against the objectives, and the outcome."""
    rto: float | None = clients.get("longest_stall_seconds")
    rpo: float | None = 0.0
    if promoted and request.operation == "failover":
        rto, rpo = _outage(operation, promoted, losses, samples)
    lost = (losses["count"] or 0) + clients["lost"]
    message = f"{plan.new_primary} is primary."
    if plan.old_primary and promoted:
        message = f"{plan.new_primary} took over from {plan.old_primary}; {_lost_words(losses, clients)}."
    next_steps = []
    if request.operation == "failover" and plan.old_primary and promoted:
        next_steps.append(f"playbooks/rejoin.yml -e host={plan.old_primary}")
    operation.outcome(
        "done",
        message,
        next_steps=next_steps,
        lost_transactions=lost if losses["known"] else None,
        rto_seconds=rto,
        rpo_seconds=rpo,
        rto_met=None if rto is None else rto <= request.rto_seconds,
        rpo_met=None if rpo is None else rpo <= request.rpo_seconds,
    )


def _lost_words(losses: t.Mapping[str, t.Any], clients: t.Mapping[str, t.Any]) -> str:
    if not losses["known"]:
        return "what never replicated is not known yet"
    count = losses["count"] + clients["lost"]
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


def _moment(seconds: float) -> t.Any:
    import datetime

    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)


def _failed(operation: Operation, plan: Plan, error: HmsError) -> None:
    """Write down how it failed; past the point of no return the agents' dead-men finish, else nothing changed."""
    if operation.committed:
        error.state = (
            error.state or f"The promotion of {plan.new_primary} was ordered; the agents finish what they can."
        )
        error.next_step = error.next_step or "Run the same playbook again: it finishes from what it sees."
        status = "incomplete"
    else:
        status = "refused" if error.reason == "operation_running" else "rolled_back"
    operation.outcome(status, error.full_text(), next_steps=[error.next_step] if error.next_step else [])
    operation.journal.finish()
    error.details.setdefault("record", os.path.join(operation.journal.directory, operation.identifier + ".json"))


def _keep_copies(operation: Operation, document: t.Mapping[str, t.Any]) -> None:
    """A copy of the record on every host, without the probe's series: any of them may be all that is left."""
    clients = {key: value for key, value in (document.get("clients") or {}).items() if key != "samples"}
    text = dump_json({**document, "clients": clients})
    hosts = [host for host in operation.fleet.lines if operation.fleet.reachable(host)]
    requests = {host: ("store_record", {"operation": operation.identifier, "record": text}) for host in hosts}
    operation.fleet.ask(requests, 15.0)


__all__ = ("Job", "Report", "make_plan", "open_fleet", "run")
