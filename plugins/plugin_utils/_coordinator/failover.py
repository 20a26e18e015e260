# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carrying out an unplanned failover: hold, fence with proof, freeze, compare, promote. PRIVATE.

Clients are held first, so that they wait instead of failing. Nothing is promoted before a proof stands in the
record that the old primary takes no more writes, or the operator has named that rule in ``force``.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import tempfile
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._clock import iso
from ansible_collections.hms.postgres.plugins.module_utils._cluster.member_config import slot_name
from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import ClusterFacts, MemberFacts
from ansible_collections.hms.postgres.plugins.module_utils._cluster.plan import Plan, Request, in_chain
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._postgres import format_lsn

from .operation import CRITICAL, Operation
from .switchover import SILENCE, change_over, hold, lead_siblings, let_clients_go, undo, with_held

FENCE_DEADLINE = 20.0
COMMAND_DEADLINE = 60.0
RECEIVER_DEADLINE = 10.0


def execute(
    operation: Operation, plan: Plan, request: Request, facts: ClusterFacts, sync_names: t.Callable[[str], str]
) -> tuple[Plan, dict[str, t.Any]]:
    """The critical section. Returns the plan with the candidate that was chosen, and the promotion's answer."""
    operation.enter_critical_section()
    try:
        hold(operation, plan, seconds=request.hold_seconds, kill=True)
        fence(operation, plan, request, facts)
        positions = freeze(operation, plan)
        plan, base = choose(operation, plan, request, facts, positions)
        slots = [slot_name(name) for name in (plan.old_primary, *plan.siblings) if name]
        operation.one(
            "arm_candidate",
            plan.new_primary,
            "arm_candidate",
            phase=CRITICAL,
            title="Slots for the others, who will be synchronous",
            timeout=15.0,
            operation=operation.identifier,
            slots=slots,
            sync_names=sync_names(plan.new_primary),
        )
    except HmsError as error:
        let_go(operation, plan, error)
        raise
    promoted = change_over(operation, plan, lead_siblings(plan))
    return plan, {**promoted, "base": base}


def fence(operation: Operation, plan: Plan, request: Request, facts: ClusterFacts) -> None:
    """Make sure that the old primary takes no more writes, and write down how that is known."""
    old = facts.member(plan.old_primary) if plan.old_primary else None
    vouched = "no_fence_proof" in request.force
    if old is not None and operation.fleet.reachable(old.name):
        proven = _fence_by_stopping(operation, plan, old, vouched=vouched)
    elif request.fence_command:
        proven = _fence_by_command(operation, plan, request)
    elif facts.sync_policy == "strict" and not vouched:
        proven = _fence_by_receivers(operation, plan, facts)
    else:
        proven = {"method": "none", "proofs": [_vouched(operation, plan)]}
    operation.set(fence={"host": plan.old_primary, **proven}, lazy=True)


def _vouched(operation: Operation, plan: Plan) -> dict[str, t.Any]:
    return {
        "claim": f"{plan.old_primary or 'the old primary'} is down or cut off",
        "evidence": "no proof: the operator vouches for it (force: no_fence_proof)",
        "at": iso(operation.clock.now()),
        "holds": False,
    }


def _fence_by_stopping(operation: Operation, plan: Plan, old: MemberFacts, *, vouched: bool) -> dict[str, t.Any]:
    operation.fenced = old.name
    answer = operation.one(
        "fence",
        old.name,
        "fence",
        phase=CRITICAL,
        title=f"Mark and stop {old.name}, and prove it",
        timeout=FENCE_DEADLINE,
        operation=operation.identifier,
        new_primary=plan.new_primary,
        reason=f"failover {operation.identifier}",
        unless_alive=not old.running,
    )
    missing = [proof["claim"] for proof in answer["proofs"] if not proof["holds"]]
    if missing and not vouched:
        raise Refused(
            f"{old.name} could not be fenced; these don't hold: {'; '.join(missing)}.",
            reason="fence_failed",
            phase=CRITICAL,
            next_step="Power its host off, then run again with force=no_fence_proof: you vouch for it.",
        )
    proofs = answer["proofs"] + ([_vouched(operation, plan)] if missing else [])
    return {"method": "stop", "stopped_by": answer["stopped_by"], "proofs": proofs}


def _fence_by_command(operation: Operation, plan: Plan, request: Request) -> dict[str, t.Any]:
    """Run the operator's command on the controller; agents are kept awake meanwhile."""
    argv = list(request.fence_command)
    with operation.step("fence", phase=CRITICAL, host="controller", title=f"Cut {plan.old_primary} off") as step:
        code, output = _run_command(operation, argv)
        if code != 0:
            raise Refused(
                f"The fence command ended with {code}, so {plan.old_primary} does not count as cut off: "
                f"{output[-500:]}",
                reason="fence_failed",
                phase=CRITICAL,
                next_step="Make sure by other means that it is down, and run again.",
            )
        step.evidence = {"argv0": argv[0], "exit_code": 0, "output": output}
    proof = {
        "claim": f"{plan.old_primary} is cut off",
        "evidence": f"{argv[0]} ended with 0 and said: {output or '(nothing)'}",
        "at": iso(operation.clock.now()),
        "holds": True,
    }
    return {"method": "command", "proofs": [proof]}


def _run_command(operation: Operation, argv: t.Sequence[str]) -> tuple[int, str]:
    """Exit code and the beginning of the output. It goes through a file: what is left running can't hold us."""
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            raise Refused(f"The fence command {argv[0]!r} can't be run: {error}", reason="fence_failed") from error
        deadline = operation.clock.monotonic() + COMMAND_DEADLINE
        while process.poll() is None:
            if operation.clock.monotonic() > deadline:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise Refused(f"The fence command did not end within {COMMAND_DEADLINE:g} s.", reason="fence_failed")
            operation.fleet.keep_alive()
            operation.clock.sleep(0.02)
        output.seek(0)
        return process.returncode, output.read(4000).decode("utf-8", "replace").strip()


def _fence_by_receivers(operation: Operation, plan: Plan, facts: ClusterFacts) -> dict[str, t.Any]:
    """Under strict synchrony a primary without receivers acknowledges nothing: take all of them away."""
    wanted = [member.name for member in facts.members if member.name != plan.old_primary and member.may_be_primary]
    # A receiver is known to be gone where one is detached next, or where no server runs that could have one, and not
    # to be the old primary's where it gets its WAL from a standby.
    detached = {plan.new_primary, *plan.siblings}
    idle = {member.name for member in facts.members if member.reachable and not member.running}
    fed = {member.name for member in facts.standbys if in_chain(member, facts)}
    missing = [name for name in wanted if name not in detached | idle | fed or not operation.fleet.reachable(name)]
    if missing:
        raise Refused(
            f"{plan.old_primary} can't be reached, and of {', '.join(missing)} it can't be shown that no WAL receiver "
            "is left there: together they might still acknowledge writes.",
            reason="fence_failed",
            phase=CRITICAL,
            next_step="Power the old primary's host off and give that as fence_command.",
        )
    return {
        "method": "receivers",
        "proofs": [
            {
                "claim": f"{plan.old_primary} can acknowledge no synchronous write",
                "evidence": f"policy strict; no WAL receiver is left on {', '.join(wanted)} (steps detach_receiver)",
                "at": iso(operation.clock.now()),
                "holds": True,
            }
        ],
    }


def freeze(operation: Operation, plan: Plan) -> dict[str, dict[str, t.Any]]:
    """Stop every receiver, then read positions: only now are they comparable."""
    requests = {
        name: ("detach_receiver", {"deadline": RECEIVER_DEADLINE}) for name in (plan.new_primary, *plan.siblings)
    }
    answers = operation.everywhere(
        "detach_receiver",
        requests,
        phase=CRITICAL,
        title="Stop receiving WAL and read the position",
        timeout=RECEIVER_DEADLINE + 3.0,
        silence=SILENCE,
    )
    return {name: answer.result for name, answer in answers.items()}


def choose(
    operation: Operation,
    plan: Plan,
    request: Request,
    facts: ClusterFacts,
    positions: t.Mapping[str, t.Mapping[str, t.Any]],
) -> tuple[Plan, dict[str, t.Any]]:
    """The most advanced standby that may lead, timeline first; another only if it was asked for and overridden."""

    def rank(name: str) -> tuple[int, int, bool]:
        position = positions[name]
        return position["timeline"], position["lsn"], name == plan.new_primary

    with operation.step("choose", phase=CRITICAL, host="controller", title="Compare timelines, then positions") as step:
        eligible = {member.name for member in facts.standbys if member.may_be_primary and not member.apply_delay}
        best = max((name for name in positions if name in eligible | {plan.new_primary}), key=rank)
        here, there = positions[plan.new_primary], positions[best]
        if best != plan.new_primary and (here["timeline"], here["lsn"]) < (there["timeline"], there["lsn"]):
            if not request.candidate:
                others = tuple(name for name in (plan.new_primary, *plan.siblings) if name != best)
                plan = dataclasses.replace(plan, new_primary=best, siblings=others)
            elif "not_most_advanced" not in request.force:
                raise Refused(
                    f"{best} has {there['lsn'] - here['lsn']} bytes more than {plan.new_primary}.",
                    reason="not_most_advanced",
                    phase=CRITICAL,
                    next_step=f"Leave candidate out, name {best}, or add not_most_advanced to force.",
                )
        base = dict(positions[plan.new_primary])
        step.detail = f"{plan.new_primary} at {format_lsn(base['lsn'])}, timeline {base['timeline']}"
        step.evidence = {name: format_lsn(position["lsn"]) for name, position in positions.items()}
    return plan, base


def let_go(operation: Operation, plan: Plan, error: HmsError) -> None:
    """Nothing was promoted: receivers get their upstream back, clients go on to where they were led."""
    for name in (plan.new_primary, *plan.siblings):
        undo(operation, name, "disarm")
    held = let_clients_go(operation, plan)
    operation.leave_critical_section()
    state = "Nothing was promoted; the bouncers lead where they led before."
    if operation.fenced and error.reason != "primary_alive":
        state = (
            f"Nothing was promoted, but {operation.fenced} is fenced: it is stopped, or about to be, and can't start "
            "as a primary. Nobody takes writes."
        )
        error.next_step = error.next_step or "Remove the cause and run the failover again; nothing else brings writes."
    error.state = error.state or with_held(state, held)
    error.phase = error.phase or CRITICAL


def acknowledged_only(found: dict[str, t.Any]) -> dict[str, t.Any]:
    """What the old primary alone holds counts as lost only if it was acknowledged.

    A primary that waits for a synchronous standby acknowledges nothing before that standby has it, so what no standby
    has was not acknowledged; its client got no answer.
    """
    if not found.get("waited_for") or not found["count"]:
        return found
    basis = (
        f"{found['basis']}: {found['count']} transactions that no standby has, none of them acknowledged, because the "
        f"old primary waited for {found['waited_for']} (a session that weakened synchronous_commit aside)"
    )
    return {**found, "count": 0, "transactions": [], "unacknowledged": found["transactions"], "basis": basis}


def losses(operation: Operation, plan: Plan, base: t.Mapping[str, t.Any], facts: ClusterFacts) -> dict[str, t.Any]:
    """What the old primary had acknowledged and the new one doesn't hold: exactly, when its disk can be read."""
    old = plan.old_primary
    if old and operation.fleet.reachable(old):
        answers = operation.everywhere(
            "losses",
            {old: ("losses", {"timeline": base["timeline"], "lsn": base["lsn"]})},
            phase="finish",
            title=f"Read what {old} holds past {format_lsn(base['lsn'])}",
            timeout=300.0,
            tolerate=True,
        )
        if answers[old].error is None:
            return acknowledged_only(answers[old].result)
    if facts.sync_policy == "strict":
        basis = f"{old or 'the old primary'} can't be read; under the policy strict every acknowledged write is here"
        return {"known": True, "count": 0, "bytes": 0, "transactions": [], "basis": basis}
    basis = f"{old or 'the old primary'} can't be read; its rejoin will list what never replicated"
    return {"known": False, "count": None, "bytes": None, "transactions": [], "basis": basis}
