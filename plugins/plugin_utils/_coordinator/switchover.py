# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carrying out a planned switchover: one critical section with nothing slow in it. PRIVATE.

Before the point of no return every error leads back to the old primary; after it there is only forward.
"""

from __future__ import annotations

import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._cluster.member_config import slot_name
from ansible_collections.hms.postgres.plugins.module_utils._cluster.plan import Plan, Request
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._postgres import format_lsn

from .fleet import Pending
from .operation import CRITICAL, Operation, Requests

STOP_DEADLINE = 60.0
CATCH_UP_DEADLINE = 10.0
PROMOTE_DEADLINE = 60.0
PROBE_BEFORE = 0.4
"""Seconds of undisturbed writes that the probe shows before a planned change."""
PROBE_AFTER = 0.6
MARGIN = 3.0
"""Seconds an answer may take longer than the deadline given to the agent."""


def arm(operation: Operation, plan: Plan, sync_names: str) -> None:
    """Everything slow, while clients work on undisturbed."""
    old, new = plan.old_primary, plan.new_primary
    arm_poolers(operation, plan)
    operation.everywhere(
        "checkpoint",
        {old: ("checkpoint", {}), new: ("checkpoint", {})},
        phase="arm",
        title="Checkpoint, so that the one at shutdown is short",
        timeout=600.0,
    )
    identifier = operation.identifier
    slots = [slot_name(name) for name in (old, *plan.siblings)]
    armed: Requests = {
        new: ("arm_candidate", {"operation": identifier, "slots": slots, "sync_names": sync_names}),
        old: ("arm_primary", {"operation": identifier, "candidate": new}),
    }
    operation.everywhere("arm", armed, phase="arm", title="Prepare the change of roles", timeout=15.0)
    operation.pause(PROBE_BEFORE)


def arm_poolers(operation: Operation, plan: Plan) -> None:
    """Consoles open, the new databases file rendered, a write probe running through every process."""
    prepared: dict[str, t.Any] = {
        "operation": operation.identifier,
        "candidate": plan.new_primary,
        "current": plan.old_primary,
    }
    requests = dict.fromkeys(plan.poolers, ("prepare", prepared))
    operation.everywhere("prepare_pools", requests, phase="arm", title="Prepare the bouncers", timeout=15.0)
    probe: dict[str, t.Any] = {"operation": operation.identifier, "rate": 50.0}
    requests = dict.fromkeys(plan.poolers, ("probe_start", probe))
    operation.everywhere("probe", requests, phase="arm", title="Start a write probe", timeout=10.0)


def hold(operation: Operation, plan: Plan, *, seconds: float, kill: bool) -> None:
    """Hold the clients of every process on every bouncer host, or none."""
    requests = {name: ("hold", {"deadline": seconds, "kill": kill}) for name in plan.poolers}
    operation.everywhere("hold_pools", requests, phase=CRITICAL, title="Hold all clients", timeout=2 * seconds + MARGIN)


def repoint_and_resume(operation: Operation, plan: Plan, promote: t.Callable[[], dict[str, t.Any]]) -> dict[str, t.Any]:
    """Lead the bouncers over while the promotion runs, then let the clients go."""
    posted = [
        operation.fleet.post(name, "repoint", primary=plan.new_primary, operation=operation.identifier)
        for name in plan.poolers
    ]
    started = operation.elapsed()
    promoted = promote()
    answers = operation.fleet.collect(posted, 10.0)
    for name, answer in answers.items():
        with operation.step("repoint_pools", phase=CRITICAL, host=name, title=f"Lead to {plan.new_primary}") as step:
            step.evidence = {**answer.get(), "started_with_promotion_at": started}
    requests: dict[str, tuple[str, dict[str, t.Any]]] = {name: ("resume", {}) for name in plan.poolers}
    operation.everywhere("resume_pools", requests, phase=CRITICAL, title="Let the clients go on", timeout=10.0)
    return promoted


def promote(operation: Operation, plan: Plan) -> dict[str, t.Any]:
    """The point of no return."""
    operation.committed = True
    return operation.one(
        "promote",
        plan.new_primary,
        "promote",
        phase=CRITICAL,
        title=f"Promote {plan.new_primary}",
        timeout=PROMOTE_DEADLINE + MARGIN,
        deadline=PROMOTE_DEADLINE,
    )


def execute(operation: Operation, plan: Plan, request: Request) -> dict[str, t.Any]:
    """The critical section of a switchover. Returns what the promotion answered."""
    old, new = plan.old_primary, plan.new_primary
    operation.enter_critical_section()
    try:
        hold(operation, plan, seconds=request.hold_seconds, kill=False)
        stopped = operation.one(
            "stop_primary",
            old,
            "stop_primary",
            phase=CRITICAL,
            title=f"Fast shutdown of {old}",
            timeout=STOP_DEADLINE + MARGIN,
            deadline=STOP_DEADLINE,
        )
        operation.one(
            "prove_caught_up",
            new,
            "await_shutdown_checkpoint",
            phase=CRITICAL,
            title=f"Prove that {new} has replayed {format_lsn(stopped['checkpoint_lsn'])}",
            timeout=CATCH_UP_DEADLINE + MARGIN,
            lsn=stopped["checkpoint_lsn"],
            deadline=CATCH_UP_DEADLINE,
        )
        operation.one(
            "commit_demotion",
            old,
            "commit_demotion",
            phase=CRITICAL,
            title=f"{old} can only come back as a standby",
            timeout=10.0,
        )
    except HmsError as error:
        roll_back(operation, plan, error)
        raise
    # A standby may start streaming from one that is being promoted: it follows onto the new timeline by itself.
    returning = [operation.fleet.post(old, "start_standby", deadline=120.0), *lead_siblings(operation, plan)]
    promoted = repoint_and_resume(operation, plan, lambda: promote(operation, plan))
    operation.leave_critical_section()
    write_answers(operation, "start_standby", returning, title=f"Follow {new}")
    return {**promoted, "shutdown_checkpoint": stopped["checkpoint_lsn"], "old_timeline": stopped["timeline"]}


def lead_siblings(operation: Operation, plan: Plan) -> list[Pending]:
    """Tell the other standbys whom to follow; nobody waits for their answers here."""
    return [operation.fleet.post(name, "follow", upstream=plan.new_primary) for name in plan.siblings]


def write_answers(operation: Operation, identifier: str, posted: t.Sequence[Pending], *, title: str) -> None:
    """Collect what was posted in the critical section; a host that failed is told by status, not by an abort."""
    started = operation.elapsed()
    for host, answer in operation.fleet.collect(posted, 125.0).items():
        operation.write_answer(identifier, answer, phase="finish", title=title, started=started, host=host)


def roll_back(operation: Operation, plan: Plan, error: HmsError) -> None:
    """Back to the old primary: start it if it was stopped, put settings back, let the clients go on."""
    old, new = plan.old_primary, plan.new_primary
    steps: list[tuple[str, str, str, dict[str, t.Any], float]] = [
        ("disarm", new, "disarm", {}, 15.0),
        ("restart_primary", old, "restart_primary", {"deadline": 120.0}, 125.0),
        ("disarm", old, "disarm", {}, 15.0),
    ]
    steps += [("resume_pools", name, "resume", {}, 10.0) for name in plan.poolers]
    for identifier, host, verb, args, timeout in steps:
        if operation.fleet.reachable(host):
            operation.everywhere(
                identifier,
                {host: (verb, args)},
                phase="rollback",
                title=f"Roll back: {verb.replace('_', ' ')}",
                timeout=timeout,
                tolerate=True,
            )
    operation.leave_critical_section()
    error.state = error.state or f"{old} leads as before; the clients go on there. Nothing was changed."
    error.phase = error.phase or CRITICAL


def settle(operation: Operation, plan: Plan, timeline: int) -> None:
    """After the clients went on: the standbys stream, temporary settings go, others can rewind to the new primary."""
    new = plan.new_primary
    streaming = list(plan.siblings)
    if operation.kind == "switchover":
        streaming.append(plan.old_primary)
    finish: Requests = {name: ("finish", {"role": "standby"}) for name in streaming}
    finish[new] = ("finish", {"role": "primary"})
    awaited = {name: ("await_streaming", {"timeline": timeline, "deadline": 30.0}) for name in streaming}
    operation.everywhere(
        "await_streaming", awaited, phase="finish", title=f"Stream on timeline {timeline}", timeout=35.0, tolerate=True
    )
    operation.everywhere(
        "finish", finish, phase="finish", title="Take back what was temporary", timeout=630.0, tolerate=True
    )
