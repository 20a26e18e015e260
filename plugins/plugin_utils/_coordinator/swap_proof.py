# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After a swap: show through every process which database is live, write, count what clients felt. PRIVATE."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import ClusterFacts
from ansible_collections.hms.postgres.plugins.module_utils._cluster.swap_model import SwapPlan, SwapRequest
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._tools.database_rename import sessions_in_words

from . import overview, swap
from .clients import judge
from .operation import Operation, Requests
from .overview import Site
from .proof import stop_probes

VERIFY_DEADLINE = 20.0
COUNTED = "each acknowledged write is in the database that was live at its time: {keep} before, {database} after"
KEPT = "everything that was acknowledged before is in {keep}, whole"


@dataclasses.dataclass(frozen=True)
class Done:
    """What was done, as far as its proof needs it. `swapped` is None when only clients were let go."""

    plan: SwapPlan
    request: SwapRequest
    site: Site
    origin: float
    swapped: swap.Swapped | None
    command: str


def prove(operation: Operation, done: Done) -> ClusterFacts:
    """Ask and write through every process, count what clients felt, write the outcome."""
    plan, swapped = done.plan, done.swapped
    expected = plan.scratch_oid if swapped else plan.live_oid
    hosts = [host for host in plan.poolers if swapped is None or host not in swapped.held]
    args: dict[str, t.Any] = {"operation": operation.identifier, "oid": expected, "write": plan.probe}
    requests: Requests = dict.fromkeys(hosts, ("verify_swap", {**args, "deadline": VERIFY_DEADLINE}))
    title = f"Ask through every process which {plan.database} it is" + (", and write" if plan.probe else "")
    operation.everywhere("verify", requests, phase="verify", title=title, timeout=2 * VERIFY_DEADLINE + 5.0)
    _ask_primary(operation, plan, expected)
    if swapped and swapped.held:
        raise _still_held(plan, swapped)
    probed = swapped and plan.probe and plan.poolers and not plan.missing
    clients = _clients(operation, done) if probed else {}
    swap.settle(operation, plan, done.request, swapped or swap.Swapped())
    after = overview.observe(operation.fleet, done.site)
    operation.set(after=overview.for_record(after))
    if clients:
        operation.set(clients=clients)
    _conclude(operation, done, clients)
    return after


def _ask_primary(operation: Operation, plan: SwapPlan, expected: int) -> None:
    """The catalog's own word, and nobody left behind in the former database."""
    answer = operation.one(
        "verify",
        plan.new_primary,
        "verify_primary",
        phase="verify",
        title=f"Ask the catalog which {plan.database} it is",
        timeout=15.0,
        live=plan.database,
        former=plan.live_oid,
    )
    if answer["oid"] != expected:
        raise HmsError(
            f"{plan.database} has the OID {answer['oid']} on {plan.new_primary}, not {expected}.",
            reason="wrong_database",
            phase="verify",
            next_step="Somebody renamed databases in the same moment: see pg_database.",
        )


def _clients(operation: Operation, done: Done) -> dict[str, t.Any]:
    """Stop the probes and look for their rows in both databases."""
    plan = done.plan
    samples = stop_probes(operation, plan.poolers)
    found = operation.one(
        "probe_rows",
        plan.new_primary,
        "swap_rows",
        phase="verify",
        title=f"Count the probe's rows in {plan.keep} and {plan.database}",
        timeout=60.0,
        operation=operation.identifier,
        databases=[plan.keep, plan.database],
    )["present"]
    present: dict[str, list[int]] = {}
    for rows in found.values():
        for source, sequences in rows.items():
            present.setdefault(source, []).extend(sequences)
    return judge(samples, present, origin=done.origin)


def _words(plan: SwapPlan, swapped: swap.Swapped) -> str:
    """What was done, in a sentence or two."""
    kept = f"the database that clients used until then is kept as {plan.keep}, with all that they wrote to it"
    if plan.missing:
        kept = f"there was no {plan.database}, so nothing is kept and there is no way back"
    ended = f" Ended past the bouncers: {sessions_in_words(len(swapped.ended))}." if swapped.ended else ""
    stopped = ", ".join(service.words for service in plan.stopping)
    meanwhile = f" Stopped meanwhile: {stopped}." if stopped else ""
    return f"{plan.database} is now what {plan.scratch} was; {kept}.{ended}{meanwhile}"


def _still_held(plan: SwapPlan, swapped: swap.Swapped) -> HmsError:
    return HmsError(
        f"{_words(plan, swapped)} Clients may be held on {', '.join(swapped.held)}.",
        reason="bouncer_failed",
        phase="critical",
        next_step="Its agent lets them go, or else RESUME on its console; then run it again.",
    )


def _conclude(operation: Operation, done: Done, clients: t.Mapping[str, t.Any]) -> None:
    plan, swapped = done.plan, done.swapped
    if swapped is None:
        let_go = "; clients that were held are let go" if plan.poolers else ""
        started = ", ".join(service.words for service in plan.starting)
        started = f" Started: {started}." if started else ""
        operation.outcome("done", f"{plan.database} is what was asked for{let_go}.{started}")
        return
    lost = clients.get("lost", 0)
    basis = (COUNTED if clients else KEPT).format(keep=plan.keep, database=plan.database)
    if not plan.missing:
        operation.set(losses={"known": True, "count": lost, "bytes": None, "transactions": [], "basis": basis})
    message = _words(plan, swapped)
    operation.set(swap={"kept_as": plan.keep, "oid": plan.scratch_oid, "ended": list(swapped.ended)})
    rollback = f"{done.command} playbooks/restore_rollback.yml -e database={plan.database} -e scratch={plan.keep}"
    way_back = f"The way back: {rollback}"
    if plan.missing:
        way_back = f"What {plan.database} held after that backup is gone; playbooks/pitr.yml may bring it back."
    operation.outcome("done", message, next_steps=[way_back], stall_seconds=clients.get("longest_stall_seconds"))
