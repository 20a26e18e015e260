# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After a cutover: show that clients write to the recovered cluster, count what they felt. PRIVATE."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._cluster.cutover_model import (
    CutoverPlan,
    CutoverRequest,
    to_rejoin,
)
from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import ClusterFacts
from ansible_collections.hms.postgres.plugins.module_utils._cluster.plan import leader
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError

from . import cutover, overview
from .clients import judge
from .operation import Operation
from .overview import Site
from .proof import as_configured, probe_rows, stop_probes, write_through
from .synchrony import exposure

VERIFY_DEADLINE = 30.0
BASIS = (
    "what was written after the target is given up by intent and is in {kept}; of the writes after the cutover none is "
    "missing"
)


@dataclasses.dataclass(frozen=True)
class Done:
    """What was done, as far as its proof needs it. `exchanged` is None when only an earlier run's work was finished."""

    plan: CutoverPlan
    request: CutoverRequest
    site: Site
    origin: float
    exchanged: cutover.Exchanged | None
    command: str


def prove(operation: Operation, done: Done) -> ClusterFacts:
    """Write through every process, see the timeline, count what clients felt, write the outcome."""
    plan, exchanged = done.plan, done.exchanged
    # First of all: should the primary be lost now, none of them may be promoted in its place.
    operation.revive([plan.new_primary, *plan.fence])
    cutover.fence(operation, plan)
    hosts = [host for host in plan.poolers if exchanged is None or host not in exchanged.held]
    write_through(operation, hosts, plan.new_primary, deadline=VERIFY_DEADLINE)
    if exchanged is not None and exchanged.held:
        raise HmsError(
            f"The recovered cluster is live. Clients may be held on {', '.join(exchanged.held)}.",
            reason="bouncer_failed",
            phase="critical",
            next_step="Its agent lets them go, or else RESUME on its console; then run it again.",
        )
    clients = _clients(operation, done) if exchanged is not None and plan.poolers else {}
    if exchanged is not None:
        cutover.finish(operation, plan)
    as_configured(operation, plan.poolers)
    after = overview.observe(operation.fleet, done.site)
    operation.set(after=overview.for_record(after))
    if clients:
        operation.set(clients=clients)
    _conclude(operation, done, clients, after)
    return after


def _clients(operation: Operation, done: Done) -> dict[str, t.Any]:
    """Stop the probes; a write that was acknowledged before the cutover is not looked for in what came after it."""
    plan, exchanged = done.plan, done.exchanged
    stilled = exchanged.stilled if exchanged is not None else 0.0
    samples = stop_probes(operation, plan.poolers)
    found = probe_rows(operation, plan.new_primary)
    return judge(samples, present_or_before(samples, found, stilled), origin=done.origin)


def present_or_before(
    samples: t.Mapping[str, t.Sequence[t.Sequence[t.Any]]], found: t.Mapping[str, t.Sequence[int]], stilled: float
) -> dict[str, set[int]]:
    """The rows that are there, and those whose write was over when the clients were held, at `stilled` (wall clock)."""
    present = {source: set(found.get(source, ())) for source in samples}
    for source, items in samples.items():
        for sequence, (sent, latency, _outcome) in enumerate(items, start=1):
            if sent + latency <= stilled:
                present[source].add(sequence)
    return present


def _conclude(operation: Operation, done: Done, clients: t.Mapping[str, t.Any], after: ClusterFacts) -> None:
    plan, exchanged = done.plan, done.exchanged
    primary = leader(after)
    rejoin = to_rejoin(after, primary) if primary is not None else plan.rejoin
    steps = [f"{done.command} playbooks/rejoin.yml -e host={name} -e allow_reclone=true" for name in rejoin]
    if exchanged is None:
        operation.outcome("done", "What an earlier run left undone is done.", next_steps=steps)
        return
    exchange = exchanged.exchange
    operation.set(
        losses={
            "known": True,
            "count": clients.get("lost", 0),
            "bytes": None,
            "transactions": [],
            "basis": BASIS.format(kept=exchange.kept),
        },
        cutover={
            "kept_as": exchange.kept,
            "target": exchange.target,
            "timelines": exchange.story,
            "new_timeline": exchange.new_timeline,
            "old_timeline": exchange.old_timeline,
            "not_archived": list(exchanged.not_archived),
            "rejoin": list(rejoin),
        },
    )
    exposed = exposure(after, plan.new_primary)
    if exposed:
        operation.set(exposure=exposed)
        steps.append(exposed["message"])
    back = f"{done.command} playbooks/pitr.yml {exchange.way_back}, then playbooks/pitr_cutover.yml once more"
    steps.append(f"The way back: {back}")
    steps.append(f"{done.command} playbooks/backup.yml -e engine=pgbackrest -e type=full")
    message = f"{done.site.cluster} is what it was at {exchange.target}. {exchange.story}"
    if exchanged.not_archived:
        message += f" Not archived any more: {', '.join(exchanged.not_archived)}; they are in the kept directory."
    operation.outcome("done", message, next_steps=steps, stall_seconds=clients.get("longest_stall_seconds"))
