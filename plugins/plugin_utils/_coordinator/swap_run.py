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

from . import services, swap
from .course import Course, Job, Report, status_of
from .fleet import Fleet
from .operation import CRITICAL, Operation
from .swap_look import look
from .swap_proof import Done, prove
from .switchover import resume


class Swap(Course[SwapRequest, SwapPlan]):
    """Two databases change their names."""

    def plan(self, fleet: Fleet, facts: ClusterFacts) -> SwapPlan:
        return plan_swap(facts, look(fleet, facts, self.request), self.request)

    def do(self, operation: Operation, plan: SwapPlan, _facts: ClusterFacts) -> tuple[SwapPlan, ClusterFacts]:
        swapped, idle = _do(operation, plan, self.request)
        done = Done(plan, self.request, self.job.site, self.origin, swapped, self.job.command)
        return plan, _prove(operation, done, idle)

    def failed(self, operation: Operation, plan: SwapPlan, error: HmsError) -> str:
        """Before the commit nothing has changed, after it the rest can be finished."""
        if operation.committed:
            error.state = error.state or f"{plan.scratch} is {plan.database} now; what came after is not proven."
            error.next_step = error.next_step or "Run it again: it finishes from what it sees."
        elif not error.phase:
            error.phase = "arm"
            error.state = error.state or "No client was held and nothing was renamed."
        return status_of(operation, error)


def run_swap(job: Job[SwapRequest], clock: Clock, *, check_mode: bool) -> Report:
    """Look, plan, and, unless in check mode, do and prove."""
    return Swap(job, dataclasses.replace(job.request, check_only=check_mode), clock).run()


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
        swap.arm(operation, plan)
        services.stop(operation, plan, request)  # from here on the services' users wait
        if request.sessions == "wait":
            swap.await_sessions(operation, plan, request)
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


__all__ = ("run_swap",)
