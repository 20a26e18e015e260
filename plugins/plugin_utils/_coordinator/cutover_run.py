# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A cutover from a request to a finished record: look, plan, do, prove. PRIVATE."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._clock import Clock
from ansible_collections.hms.postgres.plugins.module_utils._cluster.cutover_model import (
    KEPT,
    CutoverPlan,
    CutoverRequest,
    SideSight,
    sight_from,
)
from ansible_collections.hms.postgres.plugins.module_utils._cluster.cutover_plan import plan_cutover
from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import ClusterFacts
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError

from . import cutover, overview
from .cutover_proof import Done, prove
from .fleet import Fleet
from .line import LineSpec
from .operation import CRITICAL, Operation
from .overview import Site
from .run import Report, begin, end, end_failed, observe_settled, open_fleet, refuse_if_blocked, take_lead
from .switchover import resume

LOOK_TIMEOUT = 60.0


@dataclasses.dataclass(frozen=True)
class CutoverJob:
    """Everything a run needs to know."""

    request: CutoverRequest
    site: Site
    lines: tuple[LineSpec, ...]
    bundle: bytes
    by: str
    records_directory: str
    parameters: t.Mapping[str, t.Any]
    version: str
    command: str = "ansible-playbook"
    """What the operator types before a playbook's name."""
    greet_seconds: float = 6.0


def look(fleet: Fleet, facts: ClusterFacts, request: CutoverRequest) -> tuple[SideSight, ...]:
    """What is beside the live data directory, on every database host that can be asked."""
    args = {"directory": request.directory, "kept": KEPT + request.stamp}
    hosts = [member.name for member in facts.members if member.reachable and fleet.reachable(member.name)]
    answers = fleet.ask(dict.fromkeys(hosts, ("look_cutover", args)), LOOK_TIMEOUT)
    return tuple(sight_from(answer.get()["sight"]) for answer in answers.values())


def run_cutover(job: CutoverJob, clock: Clock, *, check_mode: bool) -> Report:
    """Look, plan, and, unless in check mode, do and prove."""
    fleet = open_fleet(job.lines, job.bundle, job.site, clock, job.greet_seconds)
    try:
        facts = observe_settled(fleet, job.site, clock, wait=not check_mode)
        request = dataclasses.replace(job.request, check_only=check_mode)
        plan = plan_cutover(facts, look(fleet, facts, request), request)
        if check_mode or not (plan.changed or plan.blocked):
            fleet.goodbye()
            return Report(changed=plan.changed and not plan.blocked, plan=plan, facts=facts)
        return _carry_out(job, request, plan, facts, fleet, clock)
    finally:
        fleet.abandon()


def _carry_out(
    job: CutoverJob, request: CutoverRequest, plan: CutoverPlan, facts: ClusterFacts, fleet: Fleet, clock: Clock
) -> Report:
    operation = begin(job, request.operation, plan, facts, fleet, clock)
    origin = clock.now().timestamp() - operation.elapsed()
    try:
        take_lead(operation, plan)
        changed = bool(plan.settle)
        if plan.settle:
            cutover.settle_killed(operation, plan)
        plan, facts = _look_again(operation, job.site, request, plan)
        changed = changed or plan.changed
        exchanged = _do(operation, plan, request)
        ended = prove(operation, Done(plan, request, job.site, origin, exchanged, job.command))
        report = dataclasses.replace(end(operation, plan, ended), changed=changed)
    except HmsError as error:
        _failed(operation, plan, error)
        raise
    finally:
        operation.journal.close()
    fleet.goodbye()
    return report


def _look_again(
    operation: Operation, site: Site, request: CutoverRequest, plan: CutoverPlan
) -> tuple[CutoverPlan, ClusterFacts]:
    """What holds now that nobody else can change it: the plan stands, or another one replaces it."""
    facts = overview.observe(operation.fleet, site)
    again = plan_cutover(facts, look(operation.fleet, facts, request), request)
    if again != plan:
        operation.set(plan=again.as_record(), before=overview.for_record(facts))
        refuse_if_blocked(again)
    return again, facts


def _do(operation: Operation, plan: CutoverPlan, request: CutoverRequest) -> cutover.Exchanged | None:
    """The cutover, or only what an earlier run left undone."""
    if not plan.finishing:
        exchange = cutover.arm(operation, plan)
        return cutover.execute(operation, plan, request, exchange)
    if plan.poolers:
        for answer in resume(operation, plan.poolers, phase=CRITICAL).values():
            answer.get()
    return None


def _failed(operation: Operation, plan: CutoverPlan, error: HmsError) -> None:
    """Write down how it failed: until the recovered cluster runs nothing has changed, then there is only forward."""
    if not error.phase and not operation.committed:
        error.phase = "arm"
        error.state = error.state or "No client was held; the live cluster is as it was."
    status = "refused" if error.phase in ("plan", "arm") else "rolled_back"
    if operation.committed:
        error.state = (
            error.state or f"The recovered cluster is live on {plan.new_primary}; what came after is not proven."
        )
        error.next_step = error.next_step or "Run it again: it finishes from what it sees."
        status = "incomplete"
    end_failed(operation, status, error)


__all__ = ("CutoverJob", "run_cutover")
