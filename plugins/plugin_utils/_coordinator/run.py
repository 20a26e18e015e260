# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A switchover or failover from a request to a finished record. PRIVATE."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._clock import Clock
from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import ClusterFacts
from ansible_collections.hms.postgres.plugins.module_utils._cluster.plan import (
    Plan,
    Refusal,
    Request,
    idle_slots,
    leader,
    plan_failover,
    plan_switchover,
)
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError

from . import failover, switchover
from .course import Course, Job, Report, status_of
from .fleet import Fleet
from .operation import Operation
from .proof import Done, prove
from .synchrony import names_for


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


class ChangeOfRoles(Course[Request, Plan]):
    """Another member becomes the primary."""

    def plan(self, _fleet: Fleet, facts: ClusterFacts) -> Plan:
        return make_plan(facts, self.request)

    def tried(self, fleet: Fleet, plan: Plan) -> Plan:
        return try_paths(fleet, plan, self.request)

    def stands(self, plan: Plan, again: Plan) -> bool:
        """What the paths told is not asked again, and lags differ from one moment to the next."""
        return (again.old_primary, again.new_primary, again.actions) == (
            plan.old_primary,
            plan.new_primary,
            plan.actions,
        )

    def begun(self, operation: Operation) -> None:
        operation.set(objectives={"rto_seconds": self.request.rto_seconds, "rpo_seconds": self.request.rpo_seconds})

    def do(self, operation: Operation, plan: Plan, facts: ClusterFacts) -> tuple[Plan, ClusterFacts]:
        promoted: dict[str, t.Any] = {}
        if plan.finishing:
            _finish_only(operation, plan, facts)
        else:
            plan, promoted = _do(operation, plan, self.request, facts)
        job = self.job
        return plan, prove(operation, Done(plan, self.request, job.site, promoted, facts, self.origin, job.command))

    def failed(self, operation: Operation, plan: Plan, error: HmsError) -> str:
        """Past the point of no return the agents' dead-men finish, else nothing changed."""
        if operation.committed:
            error.state = (
                error.state or f"The promotion of {plan.new_primary} was ordered; the agents finish what they can."
            )
            error.next_step = error.next_step or "Run the same playbook again: it finishes from what it sees."
        return status_of(operation, error)


def run(job: Job[Request], clock: Clock, *, check_mode: bool) -> Report:
    """Look, plan, and, unless in check mode, do and prove."""
    return ChangeOfRoles(job, dataclasses.replace(job.request, check_only=check_mode), clock).run()


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
    returned = [plan.old_primary] if request.operation == "switchover" else []
    late = [member.name for member in facts.standbys if member.apply_delay]
    standbys = [*plan.siblings, *returned]
    switchover.settle(operation, standbys, plan.new_primary, promoted["timeline"], late=late)
    return plan, promoted


def _finish_only(operation: Operation, plan: Plan, facts: ClusterFacts) -> None:
    """What an earlier run left undone."""
    primary = leader(facts)
    idle = {member.name: idle_slots(member, facts, primary) for member in facts.standbys if primary is not None}
    verbs: dict[str, tuple[str, dict[str, t.Any]]] = {
        "repoint_pools": ("repoint", {"primary": plan.new_primary, "operation": operation.identifier}),
        "resume_pools": ("resume", {}),
        "follow": ("follow", {"upstream": plan.new_primary}),
    }
    for action in plan.actions:
        verb, args = verbs.get(action.id) or ("drop_slots", {"names": idle[action.host]})
        operation.everywhere(
            action.id, {action.host: (verb, args)}, phase=action.phase, title=action.what, timeout=15.0
        )
    followers = [action.host for action in plan.actions if action.id == "follow"]
    if followers:
        switchover.settle(operation, followers, plan.new_primary, 1)


__all__ = ("make_plan", "run", "try_paths")
