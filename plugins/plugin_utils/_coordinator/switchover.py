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

from .fleet import Answer, Pending
from .operation import CRITICAL, Operation, Requests

STOP_DEADLINE = 60.0
CATCH_UP_DEADLINE = 10.0
PROMOTE_DEADLINE = 60.0
PROBE_BEFORE = 0.4
"""Seconds of undisturbed writes that the probe shows before a planned change."""
PROBE_AFTER = 0.6
FOLLOW_DEADLINE = 30.0
MARGIN = 3.0
"""Seconds an answer may take longer than the deadline given to the agent."""
SILENCE = 7.0
"""Seconds without a sign of life after which an agent that waits for something counts as lost. It takes the same
silence for ours after five."""


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
    led = [slot_name(name) for name in (new, *plan.siblings)]
    armed: Requests = {
        new: ("arm_candidate", {"operation": identifier, "slots": slots, "sync_names": sync_names}),
        old: ("arm_primary", {"operation": identifier, "candidate": new, "led": led}),
    }
    operation.everywhere("arm", armed, phase="arm", title="Prepare the change of roles", timeout=15.0)
    operation.pause(PROBE_BEFORE)


def arm_poolers(operation: Operation, plan: Plan) -> None:
    """Consoles open, the new databases file rendered, a write probe running through every process."""
    prepared: dict[str, t.Any] = {"operation": operation.identifier, "candidate": plan.new_primary}
    requests = dict.fromkeys(plan.poolers, ("prepare", prepared))
    operation.everywhere("prepare_pools", requests, phase="arm", title="Prepare the bouncers", timeout=15.0)
    probe: dict[str, t.Any] = {"operation": operation.identifier, "rate": 50.0}
    requests = dict.fromkeys(plan.poolers, ("probe_start", probe))
    operation.everywhere("probe", requests, phase="arm", title="Start a write probe", timeout=10.0)


def hold(operation: Operation, plan: Plan, *, seconds: float, kill: bool) -> None:
    """Hold the clients of every process on every bouncer host, or none."""
    requests = {name: ("hold", {"deadline": seconds, "kill": kill}) for name in plan.poolers}
    operation.everywhere("hold_pools", requests, phase=CRITICAL, title="Hold all clients", timeout=2 * seconds + MARGIN)


def change_over(operation: Operation, plan: Plan, returning: Requests) -> dict[str, t.Any]:
    """Promote; lead bouncers and standbys over while that runs; let the clients go. Returns the promotion's answer.

    The promotion is ordered first. Whoever is led over before could follow one that never leads, should this process
    end in between.
    """
    operation.committed = True
    started = operation.elapsed()
    promotion = operation.fleet.post(plan.new_primary, "promote", deadline=PROMOTE_DEADLINE)
    args = {"primary": plan.new_primary, "operation": operation.identifier}
    repointing = [operation.fleet.post(name, "repoint", **args) for name in plan.poolers]
    following = [operation.fleet.post(host, verb, **more) for host, (verb, more) in returning.items()]
    promoted = _promoted(operation, plan, promotion, started)
    _lead_clients(operation, plan, repointing, started)
    operation.leave_critical_section()
    _write_answers(operation, "follow", following, title=f"Follow {plan.new_primary}")
    return promoted


def _promoted(operation: Operation, plan: Plan, promotion: Pending, started: float) -> dict[str, t.Any]:
    """Wait for the promotion. An agent that was lost meanwhile is started again: it can only be finished."""
    new = plan.new_primary
    title = f"Promote {new}"
    timeout = PROMOTE_DEADLINE + MARGIN
    answer = operation.fleet.collect([promotion], timeout, silence=SILENCE)[new]
    operation.write_answer("promote", answer, phase=CRITICAL, title=title, started=started, host=new)
    if answer.error is not None and not operation.fleet.reachable(new):
        operation.revive([new])
        return operation.one(
            "promote",
            new,
            "promote",
            phase=CRITICAL,
            title=title,
            timeout=timeout,
            silence=SILENCE,
            deadline=PROMOTE_DEADLINE,
        )
    return answer.get()


def _lead_clients(operation: Operation, plan: Plan, repointing: t.Sequence[Pending], started: float) -> None:
    """Let the clients go on each bouncer host that leads to the new primary; one that fails keeps no other waiting."""
    title = f"Lead to {plan.new_primary}"
    answers = operation.fleet.collect(repointing, 10.0)
    for host, answer in answers.items():
        operation.write_answer("repoint_pools", answer, phase=CRITICAL, title=title, started=started, host=host)
    # A host on which one process failed lets the clients of the others go: it resumes only those that lead there.
    reachable = [host for host in answers if operation.fleet.reachable(host)]
    resumed = resume(operation, reachable, phase=CRITICAL, only_to=plan.new_primary)
    missing = [host for host in answers if host not in resumed or answers[host].error or resumed[host].error]
    if not missing:
        return
    operation.revive(missing)
    args = {"primary": plan.new_primary, "operation": operation.identifier}
    operation.everywhere(
        "repoint_pools", dict.fromkeys(missing, ("repoint", args)), phase=CRITICAL, title=title, timeout=10.0
    )
    for answer in resume(operation, missing, phase=CRITICAL, only_to=plan.new_primary).values():
        answer.get()


def resume(operation: Operation, hosts: t.Iterable[str], *, phase: str, only_to: str = "") -> dict[str, Answer]:
    """Let the clients go on; errors come inside the answers."""
    args = {"only_to": only_to} if only_to else {}
    requests: Requests = dict.fromkeys(hosts, ("resume", args))
    title = "Let the clients go on"
    return operation.everywhere("resume_pools", requests, phase=phase, title=title, timeout=10.0, tolerate=True)


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
            silence=SILENCE,
            deadline=STOP_DEADLINE,
        )
        operation.one(
            "prove_caught_up",
            new,
            "await_shutdown_checkpoint",
            phase=CRITICAL,
            title=f"Prove that {new} has replayed {format_lsn(stopped['checkpoint_lsn'])}",
            timeout=CATCH_UP_DEADLINE + MARGIN,
            silence=SILENCE,
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
    returning: Requests = {old: ("start_standby", {"deadline": 120.0}), **lead_siblings(plan)}
    promoted = change_over(operation, plan, returning)
    return {**promoted, "shutdown_checkpoint": stopped["checkpoint_lsn"], "old_timeline": stopped["timeline"]}


def lead_siblings(plan: Plan) -> Requests:
    """Tell the other standbys whom to follow."""
    return {name: ("follow", {"upstream": plan.new_primary}) for name in plan.siblings}


def _write_answers(operation: Operation, identifier: str, posted: t.Sequence[Pending], *, title: str) -> None:
    """Collect what was posted in the critical section; a host that failed is told by status, not by an abort."""
    started = operation.elapsed()
    for host, answer in operation.fleet.collect(posted, FOLLOW_DEADLINE).items():
        operation.write_answer(identifier, answer, phase="finish", title=title, started=started, host=host)


def roll_back(operation: Operation, plan: Plan, error: HmsError) -> None:
    """Back to the old primary: start it if it was stopped, put settings back, let the clients go on."""
    old, new = plan.old_primary, plan.new_primary
    operation.revive([old, new])
    undo(operation, new, "disarm", promise=True)
    restarted = undo(operation, old, "restart_primary", timeout=125.0, deadline=120.0)
    undo(operation, old, "disarm")
    held = let_clients_go(operation, plan)
    undo(operation, new, "finish", role="standby")
    operation.leave_critical_section()
    state = f"{old} leads as before; the clients go on there. Nothing was changed."
    if restarted is None:
        state = f"The line to {old} is lost; where it was stopped, its agent starts it again as the primary."
    elif restarted.error is not None:
        state = f"{old} was stopped and could not be started again: {restarted.error.message}"
        error.next_step = f"Start {old}; it leads, nobody else was promoted."
    error.state = error.state or with_held(state, held)
    error.phase = error.phase or CRITICAL


def undo(operation: Operation, host: str, verb: str, *, timeout: float = 15.0, **args: t.Any) -> Answer | None:
    """One step back; None where the host can't be reached."""
    if not operation.fleet.reachable(host):
        return None
    title = f"Roll back: {verb.replace('_', ' ')}"
    return operation.everywhere(
        verb, {host: (verb, args)}, phase="rollback", title=title, timeout=timeout, tolerate=True
    )[host]


def let_clients_go(operation: Operation, plan: Plan) -> list[str]:
    """Resume on every bouncer host, those first whose agents are there; returns where clients are held still."""
    reachable = [name for name in plan.poolers if operation.fleet.reachable(name)]
    answers = resume(operation, reachable, phase="rollback")
    missing = [name for name in plan.poolers if name not in answers or answers[name].error is not None]
    operation.revive(missing)
    again = resume(operation, [name for name in missing if operation.fleet.reachable(name)], phase="rollback")
    return [name for name in missing if name not in again or again[name].error is not None]


def with_held(state: str, held: t.Sequence[str]) -> str:
    """What is said of the state, with the bouncers that still hold their clients."""
    if not held:
        return state
    names = ", ".join(held)
    return f"{state} Clients may be held on {names}: its agent lets them go, or else RESUME on its console."


def settle(
    operation: Operation, standbys: t.Sequence[str], new: str, timeline: int, *, late: t.Collection[str] = ()
) -> None:
    """After the clients went on: the standbys stream, temporary settings go, others can rewind to the new primary.

    Those that come `late`, because they delay replay on purpose, are not waited for.
    """
    finish: Requests = {name: ("finish", {"role": "standby"}) for name in standbys}
    finish[new] = ("finish", {"role": "primary"})
    args = {"timeline": timeline, "deadline": 30.0}
    awaited: Requests = {name: ("await_streaming", args) for name in standbys if name not in late}
    operation.everywhere(
        "await_streaming", awaited, phase="finish", title=f"Stream on timeline {timeline}", timeout=35.0, tolerate=True
    )
    operation.everywhere(
        "finish", finish, phase="finish", title="Take back what was temporary", timeout=630.0, tolerate=True
    )
