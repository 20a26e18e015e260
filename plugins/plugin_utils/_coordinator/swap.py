# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carrying out a swap of two databases: hold, rename in one transaction, let go. PRIVATE.

Until the renaming transaction has committed every error leads back: clients go on in the database they were in. Whether
it has committed is never guessed: where the answer was lost, the catalog is asked.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._cluster.swap_model import SwapPlan, SwapRequest
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError

from .operation import CRITICAL, Operation, Requests
from .switchover import MARGIN, PROBE_BEFORE, SILENCE, let_clients_go, resume, with_held

COMMIT_MARGIN = 12.0
"""Seconds beyond its deadline that the renaming may take: COMMIT may wait for a standby."""
OUTCOME_TIMEOUT = 15.0


@dataclasses.dataclass
class Swapped:
    """What the critical section found.

    Attributes:
        lsn: where the log stands after the swap: a standby that has replayed it knows of it.
        ended: the sessions that were ended, in words.
        held: bouncer hosts that may hold clients still.
    """

    lsn: str = ""
    ended: tuple[str, ...] = ()
    held: tuple[str, ...] = ()


def arm(operation: Operation, plan: SwapPlan) -> None:
    """Everything slow, while clients work on undisturbed."""
    primary = plan.new_primary
    prepare_pools(operation, plan)
    if plan.support_missing:
        operation.one(
            "prepare_scratch",
            primary,
            "prepare_scratch",
            phase="arm",
            title=f"Give {plan.scratch} what bouncers need",
            timeout=30.0,
            live=plan.database,
            scratch=plan.scratch,
        )
    probing = plan.probe and not plan.missing
    if probing:
        args: dict[str, t.Any] = {"operation": operation.identifier, "rate": 50.0}
        requests: Requests = dict.fromkeys(plan.poolers, ("probe_start", args))
        operation.everywhere("probe", requests, phase="arm", title="Start a write probe", timeout=10.0)
    operation.one("arm_swap", primary, "arm_swap", phase="arm", title="Open the renaming session", timeout=15.0)
    if probing:
        operation.pause(PROBE_BEFORE)


def prepare_pools(operation: Operation, plan: SwapPlan) -> None:
    """Tell the bouncers' agents which of their databases it is about."""
    args: dict[str, t.Any] = {"databases": [plan.database], "primary": plan.new_primary}
    requests: Requests = dict.fromkeys(plan.poolers, ("prepare_swap", args))
    operation.everywhere("prepare_pools", requests, phase="arm", title="Prepare the bouncers", timeout=15.0)


def await_sessions(operation: Operation, plan: SwapPlan, request: SwapRequest) -> None:
    """Let those who are connected past the bouncers end by themselves, before any client is held."""
    routes = operation.fleet.ask(
        {host: ("look_routes", {"databases": [plan.database]}) for host in plan.poolers}, OUTCOME_TIMEOUT
    )
    operation.one(
        "await_sessions",
        plan.new_primary,
        "await_sessions",
        phase="arm",
        title="Wait for sessions past the bouncers",
        timeout=request.sessions_deadline + MARGIN,
        live_oid=plan.live_oid,
        pids=[pid for answer in routes.values() for pid in answer.get()["routes"]["pids"]],
        deadline=request.sessions_deadline,
    )


def execute(operation: Operation, plan: SwapPlan, request: SwapRequest) -> Swapped:
    """The critical section."""
    operation.enter_critical_section()
    try:
        pids = _hold(operation, plan, request)
    except HmsError as error:
        roll_back(operation, plan, error)
        raise
    swapped = _rename(operation, plan, request, pids)
    operation.committed = True
    swapped.held = tuple(_let_go(operation, plan))
    operation.leave_critical_section()
    return swapped


def _hold(operation: Operation, plan: SwapPlan, request: SwapRequest) -> list[int]:
    """Hold the clients of every process on every bouncer host, or none. Returns those of their backends still there."""
    seconds = request.hold_deadline
    requests: Requests = {name: ("hold_swap", {"deadline": seconds}) for name in plan.poolers}
    title = f"Hold the clients of {plan.database}"
    answers = operation.everywhere(
        "hold_pools", requests, phase=CRITICAL, title=title, timeout=2 * seconds + 1.0 + MARGIN
    )
    return sorted({pid for answer in answers.values() for pid in answer.result["pids"]})


def _rename(operation: Operation, plan: SwapPlan, request: SwapRequest, pids: t.Sequence[int]) -> Swapped:
    """The renaming transaction; where its answer is an error or lost, what the catalog says decides."""
    try:
        answer = operation.one(
            "swap",
            plan.new_primary,
            "swap",
            phase=CRITICAL,
            title=f"Rename {plan.database} to {plan.keep} and {plan.scratch} to {plan.database}"
            if plan.keep
            else f"Rename {plan.scratch} to {plan.database}",
            timeout=2 * request.sessions_deadline + COMMIT_MARGIN + MARGIN,
            silence=SILENCE,
            operation=operation.identifier,
            live=plan.database,
            scratch=plan.scratch,
            keep=plan.keep,
            live_oid=plan.live_oid,
            scratch_oid=plan.scratch_oid,
            open_scratch=plan.open_scratch,
            policy=request.sessions,
            end_backups="backup_running" in request.force,
            pids=list(pids),
            deadline=request.sessions_deadline,
        )
    except HmsError as error:
        if _happened(operation, plan, error):
            return Swapped()
        roll_back(operation, plan, error)
        raise
    return Swapped(lsn=str(answer["lsn"]), ended=tuple(answer["ended"]))


def _happened(operation: Operation, plan: SwapPlan, error: HmsError) -> bool:
    """Whether the swap was committed although its answer is an error. Says so in the error when nobody can tell."""
    primary = plan.new_primary
    operation.revive([primary])
    args = {"live": plan.database, "live_oid": plan.live_oid, "scratch_oid": plan.scratch_oid}
    if operation.fleet.reachable(primary):
        answer = operation.everywhere(
            "swap_outcome",
            {primary: ("swap_outcome", args)},
            phase=CRITICAL,
            title="Ask the catalog which database is live",
            timeout=OUTCOME_TIMEOUT,
            tolerate=True,
        )[primary]
        if answer.error is None and answer.result["decided"]:
            return bool(answer.result["swapped"])
    error.state = (
        f"Whether {plan.scratch} became {plan.database} could not be asked on {primary}. Both renames are one "
        "transaction, so one of the two databases is live and whole; the clients go on in it."
    )
    if error.reason == "commit_waits":
        error.state = (
            f"The swap is written on {primary} and waits for a synchronous standby, as every write does now; logins to "
            f"{plan.database} wait with it. It is done when one is back, unless another host is promoted first."
        )
    error.next_step = error.next_step or "Run it again: it reads from the catalog what holds, and does what is missing."
    return False


def _let_go(operation: Operation, plan: SwapPlan) -> list[str]:
    """Let the clients go on; returns the hosts where some may be held still."""
    answers = resume(operation, [host for host in plan.poolers if operation.fleet.reachable(host)], phase=CRITICAL)
    missing = [host for host in plan.poolers if host not in answers or answers[host].error is not None]
    return _again(operation, plan, missing) if missing else []


def _again(operation: Operation, plan: SwapPlan, missing: t.Sequence[str]) -> list[str]:
    operation.revive(missing)
    reachable = [host for host in missing if operation.fleet.reachable(host)]
    args: dict[str, t.Any] = {"databases": [plan.database], "primary": plan.new_primary}
    requests: Requests = dict.fromkeys(reachable, ("prepare_swap", args))
    title = "Prepare the bouncers"
    operation.everywhere("prepare_pools", requests, phase=CRITICAL, title=title, timeout=10.0, tolerate=True)
    answers = resume(operation, reachable, phase=CRITICAL)
    return [host for host in missing if host not in answers or answers[host].error is not None]


def roll_back(operation: Operation, plan: SwapPlan, error: HmsError) -> None:
    """Nothing was renamed: let the clients go on where they were."""
    held = let_clients_go(operation, plan)
    operation.leave_critical_section()
    state = f"{plan.database} is the database that it was; the clients go on there. Nothing was changed."
    if plan.missing:
        state = f"{plan.scratch} is called that still. Nothing was changed."
    error.state = with_held(error.state or state, held)
    error.phase = error.phase or CRITICAL


def settle(operation: Operation, plan: SwapPlan, request: SwapRequest, swapped: Swapped) -> None:
    """After the clients went on: standbys have replayed it, nobody reads the former database there."""
    if plan.standbys and swapped.lsn and not plan.missing:
        args: dict[str, t.Any] = {"oid": plan.live_oid, "lsn": swapped.lsn, "deadline": 10.0}
        end = {**args, "end": request.sessions == "terminate"}
        requests: Requests = dict.fromkeys(plan.standbys, ("end_readers", end))
        title = f"No session reads what is {plan.keep} now"
        operation.everywhere("end_readers", requests, phase="finish", title=title, timeout=15.0, tolerate=True)
    again: Requests = dict.fromkeys(plan.poolers, ("reconnect", {"primary": plan.new_primary}))
    title = "Entries that lead to standbys connect anew"
    operation.everywhere("reconnect", again, phase="finish", title=title, timeout=15.0, tolerate=True)
    done: Requests = {plan.new_primary: ("finish_swap", {})}
    done.update(dict.fromkeys(plan.poolers, ("finish", {"operation": operation.identifier})))
    operation.everywhere("finish", done, phase="finish", title="Settings as configured", timeout=15.0, tolerate=True)
