# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A swap of two databases from a request to a finished record: look, plan, do, prove. PRIVATE."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._clock import Clock
from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import ClusterFacts
from ansible_collections.hms.postgres.plugins.module_utils._cluster.swap_model import Service, SwapPlan, SwapRequest
from ansible_collections.hms.postgres.plugins.module_utils._cluster.swap_plan import plan_swap
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError

from . import overview, services, swap
from .fleet import Fleet
from .line import LineSpec
from .operation import CRITICAL, Operation
from .overview import Site
from .run import Report, begin, end, end_failed, observe_settled, open_fleet, refuse_if_blocked, take_lead
from .swap_look import look
from .swap_proof import Done, prove
from .switchover import resume


@dataclasses.dataclass(frozen=True)
class SwapJob:
    """Everything a run needs to know."""

    request: SwapRequest
    site: Site
    lines: tuple[LineSpec, ...]
    bundle: bytes
    by: str
    records_directory: str
    parameters: t.Mapping[str, t.Any]
    version: str
    greet_seconds: float = 6.0


def run_swap(job: SwapJob, clock: Clock, *, check_mode: bool) -> Report:
    """Look, plan, and, unless in check mode, do and prove."""
    fleet = open_fleet(job.lines, job.bundle, job.site, clock, job.greet_seconds)
    try:
        facts = observe_settled(fleet, job.site, clock, wait=not check_mode)
        request = dataclasses.replace(job.request, check_only=check_mode)
        plan = plan_swap(facts, look(fleet, facts, request), request)
        if check_mode or not (plan.changed or plan.blocked):
            fleet.goodbye()
            return Report(changed=plan.changed and not plan.blocked, plan=plan, facts=facts)
        return _carry_out(job, request, plan, facts, fleet, clock)
    finally:
        fleet.abandon()


def _carry_out(
    job: SwapJob, request: SwapRequest, plan: SwapPlan, facts: ClusterFacts, fleet: Fleet, clock: Clock
) -> Report:
    operation = begin(job, request.operation, plan, facts, fleet, clock)
    origin = clock.now().timestamp() - operation.elapsed()
    try:
        take_lead(operation, plan)
        plan, facts = _look_again(operation, job.site, request, plan)
        swapped, idle = _do(operation, plan, request)
        ended = _prove(operation, Done(plan, request, job.site, origin, swapped), idle)
        report = end(operation, plan, ended)
    except HmsError as error:
        _failed(operation, plan, error)
        raise
    finally:
        operation.journal.close()
    fleet.goodbye()
    return report


def _look_again(
    operation: Operation, site: Site, request: SwapRequest, plan: SwapPlan
) -> tuple[SwapPlan, ClusterFacts]:
    """What holds now that nobody else can change it: the plan stands, or another one replaces it."""
    facts = overview.observe(operation.fleet, site)
    again = plan_swap(facts, look(operation.fleet, facts, request), request)
    if again != plan:
        operation.set(plan=again.as_record(), before=overview.for_record(facts))
        refuse_if_blocked(again)
    return again, facts


def _do(operation: Operation, plan: SwapPlan, request: SwapRequest) -> tuple[swap.Swapped | None, dict[Service, str]]:
    """The swap, or only what an earlier run left undone; and which services don't run."""
    if plan.finishing:
        if plan.poolers:
            swap.prepare_pools(operation, plan)
            for answer in resume(operation, plan.poolers, phase=CRITICAL).values():
                answer.get()
        operation.committed = True
        return None, services.start(operation, plan, request)
    try:
        services.stop(operation, plan, request)
        swap.arm(operation, plan, request)
        swapped = swap.execute(operation, plan, request)
    except HmsError as error:
        services.after_failure(operation, plan, request, error)
        raise
    return swapped, services.start(operation, plan, request)


def _prove(operation: Operation, done: Done, idle: t.Mapping[Service, str]) -> ClusterFacts:
    """Prove what holds; a service that doesn't run is told whatever else is."""
    try:
        ended = prove(operation, done)
    except HmsError as error:
        if idle:
            error.state = f"{error.state} Not started again: {services.words(idle)}.".strip()
        raise
    plan = done.plan
    services.demand(plan, idle, done=f"{plan.scratch} is {plan.database} now, and proven." if done.swapped else "")
    return ended


def _failed(operation: Operation, plan: SwapPlan, error: HmsError) -> None:
    """Write down how it failed: before the commit nothing has changed, after it the rest can be finished."""
    if not error.phase and not operation.committed:
        error.phase = "arm"
        error.state = error.state or "No client was held and nothing was renamed."
    status = "refused" if error.phase in ("plan", "arm") else "rolled_back"
    if operation.committed:
        error.state = error.state or f"{plan.scratch} is {plan.database} now; what came after is not proven."
        error.next_step = error.next_step or "Run it again: it finishes from what it sees."
        status = "incomplete"
    end_failed(operation, status, error)


__all__ = ("SwapJob", "run_swap")
