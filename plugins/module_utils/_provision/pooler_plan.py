# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is to be done about PgBouncer's processes: a pure function of what runs and what its files say. PRIVATE."""

from __future__ import annotations

import contextlib
import typing as t

from .._errors import Refused
from .pooler_model import ProcessAction, ProcessPlan, ProcessState

_OCTAL = ("unix_socket_mode",)


def same_value(name: str, wanted: str, shown: str) -> bool:
    """Whether PgBouncer shows what was written; file modes come back as decimal numbers in some versions."""
    if wanted == shown:
        return True
    if name in _OCTAL:
        with contextlib.suppress(ValueError):
            return int(wanted, 8) in (int(shown, 10), int(shown, 8) if set(shown) <= set("01234567") else -1)
    return False


def differing(state: ProcessState) -> list[str]:
    """The settings in its files that a process does not run with."""
    return [
        name
        for name, value in state.wanted.items()
        if name in state.shown and not same_value(name, value, state.shown[name])
    ]


def unknown(state: ProcessState) -> list[str]:
    """The settings in its files that this version does not know."""
    return [name for name in state.wanted if state.shown and name not in state.shown]


def plan(states: t.Sequence[ProcessState], *, wish: str, restart: str) -> ProcessPlan:
    """The actions for a `wish` of ``started`` or ``stopped``; a restart only where `restart` is ``allowed``."""
    if wish == "stopped":
        stops = tuple(ProcessAction("stop", state.name, "it is not wanted") for state in states if state.running)
        return ProcessPlan(actions=stops)
    actions: list[ProcessAction] = []
    warnings: list[str] = []
    pending: dict[str, t.Sequence[str]] = {}
    for state in states:
        if not state.running:
            actions.append(ProcessAction("start", state.name, "it is wanted running and is down"))
            continue
        _check_reachable(state)
        waiting = [name for name in differing(state) if name in state.restart_only]
        if restart == "allowed" and (waiting or state.binary_replaced):
            why = ", ".join(waiting) or "its program on disk was replaced"
            actions.append(ProcessAction("restart", state.name, f"it is allowed, and needed for: {why}"))
            continue
        actions += _reload(state)
        warnings += _notices(state, waiting)
        if waiting:
            pending[state.name] = waiting
    _check_not_held(states, actions)
    return ProcessPlan(actions=tuple(actions), warnings=tuple(warnings), pending=pending)


def _check_reachable(state: ProcessState) -> None:
    if state.unreachable:
        raise Refused(
            f"PgBouncer process {state.name} (pid {state.pid}) runs, but its console does not answer: "
            f"{state.unreachable}",
            reason="console_unreachable",
            state="Nothing was touched.",
            next_step="The console is on the process's own socket, for its own operating system user. If the process "
            f"hangs, end it by its pid ({state.pid}) and run again.",
        )


def _reload(state: ProcessState) -> list[ProcessAction]:
    changed = [name for name in differing(state) if name not in state.restart_only]
    reasons = [f"{path} changed" for path in state.stale_files]
    reasons += [f"{name} is {state.shown[name]!r}, wanted {state.wanted[name]!r}" for name in changed]
    return [ProcessAction("reload", state.name, "; ".join(reasons))] if reasons else []


def _notices(state: ProcessState, waiting: t.Sequence[str]) -> list[str]:
    notices = []
    if waiting:
        notices.append(
            f"PgBouncer process {state.name} waits for a restart to use new values of: {', '.join(waiting)}. "
            "It was not restarted, because its clients would lose their connections. "
            "Allow it with pgbouncer_restart=allowed."
        )
    if state.binary_replaced:
        notices.append(
            f"PgBouncer process {state.name} still runs a program that was replaced on disk. It was not restarted. "
            "Allow it with pgbouncer_restart=allowed."
        )
    if unknown(state):
        notices.append(f"PgBouncer process {state.name} does not know these settings: {', '.join(unknown(state))}.")
    return notices


def _check_not_held(states: t.Sequence[ProcessState], actions: t.Sequence[ProcessAction]) -> None:
    """A RELOAD takes back what an operation set, so a process whose clients are held is left alone."""
    touched = {action.process for action in actions if action.id != "start"}
    held = [state.name for state in states if state.paused and state.name in touched]
    if held:
        raise Refused(
            f"The clients of PgBouncer process {', '.join(held)} are held: "
            "a switchover or failover is under way, or one was broken off.",
            reason="pool_held",
            state="Nothing was touched.",
            next_step="Look at playbooks/status.yml; run again when the operation has ended.",
        )
