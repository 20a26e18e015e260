# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A cutover from a request to a finished record: look, plan, do, prove. PRIVATE."""

from __future__ import annotations

import dataclasses

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

from . import cutover
from .course import Course, Job, Report, status_of
from .cutover_proof import Done, prove
from .fleet import Fleet
from .operation import CRITICAL, Operation
from .switchover import resume

LOOK_TIMEOUT = 60.0


def look(fleet: Fleet, facts: ClusterFacts, request: CutoverRequest) -> tuple[SideSight, ...]:
    """What is beside the live data directory, on every database host that can be asked."""
    args = {"directory": request.directory, "kept": KEPT + request.stamp}
    hosts = [member.name for member in facts.members if member.reachable and fleet.reachable(member.name)]
    answers = fleet.ask(dict.fromkeys(hosts, ("look_cutover", args)), LOOK_TIMEOUT)
    return tuple(sight_from(answer.get()["sight"]) for answer in answers.values())


class Cutover(Course[CutoverRequest, CutoverPlan]):
    """A recovered cluster takes the live one's place."""

    def plan(self, fleet: Fleet, facts: ClusterFacts) -> CutoverPlan:
        return plan_cutover(facts, look(fleet, facts, self.request), self.request)

    def look_again(self, operation: Operation, plan: CutoverPlan) -> tuple[CutoverPlan, ClusterFacts]:
        """What a killed run left is put in order first."""
        if plan.settle:
            cutover.settle_killed(operation, plan)
            self.mended = True
        return super().look_again(operation, plan)

    def do(self, operation: Operation, plan: CutoverPlan, _facts: ClusterFacts) -> tuple[CutoverPlan, ClusterFacts]:
        exchanged = _do(operation, plan, self.request)
        job = self.job
        return plan, prove(operation, Done(plan, self.request, job.site, self.origin, exchanged, job.command))

    def failed(self, operation: Operation, plan: CutoverPlan, error: HmsError) -> str:
        """Until the recovered cluster runs nothing has changed, then there is only forward."""
        if operation.committed:
            live = f"The recovered cluster is live on {plan.new_primary}; what came after is not proven."
            error.state = error.state or live
            error.next_step = error.next_step or "Run it again: it finishes from what it sees."
        elif not error.phase:
            error.phase = "arm"
            error.state = error.state or "No client was held; the live cluster is as it was."
        return status_of(operation, error)


def run_cutover(job: Job[CutoverRequest], clock: Clock, *, check_mode: bool) -> Report:
    """Look, plan, and, unless in check mode, do and prove."""
    return Cutover(job, dataclasses.replace(job.request, check_only=check_mode), clock).run()


def _do(operation: Operation, plan: CutoverPlan, request: CutoverRequest) -> cutover.Exchanged | None:
    """The cutover, or only what an earlier run left undone."""
    if not plan.finishing:
        exchange = cutover.arm(operation, plan)
        return cutover.execute(operation, plan, request, exchange)
    if plan.poolers:
        for answer in resume(operation, plan.poolers, phase=CRITICAL).values():
            answer.get()
    return None


__all__ = ("run_cutover",)
