# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent on a bouncer host does alone when the coordinator is gone. PRIVATE."""

from __future__ import annotations

import typing as t

from .._errors import HmsError

if t.TYPE_CHECKING:  # pragma: no cover
    from .agent_pooler import PoolerHandler

PATIENCE = 20.0
"""Seconds for which held clients wait for a primary that proves itself; less than query_wait_timeout (60 s)."""

RETRY = 0.3

SETTLE = 2.0
"""Seconds for which pools may log in again quickly before their settings are as configured."""


def act(handler: PoolerHandler) -> None:
    """Let the clients go: to the writable primary, or after `PATIENCE` to where they were led before.

    An operator who runs it again isn't kept waiting for a primary that only his operation will make.
    """
    if handler.context.holding:
        _hold_nobody(handler)
    if handler.tuned:
        handler.context.clock.sleep(0.0 if handler.context.hurried() else SETTLE)
        handler.finish(operation=handler.context.operation)


def _hold_nobody(handler: PoolerHandler) -> None:
    clock = handler.context.clock
    deadline = clock.monotonic() + PATIENCE
    gone = False
    while not gone and clock.monotonic() < deadline and not handler.context.hurried():
        primary = handler.writable_member()
        gone = bool(primary) and _let_go(handler, primary)
        if not gone:
            clock.sleep(RETRY)
    if not gone:
        _let_go(handler, "")


def _let_go(handler: PoolerHandler, primary: str) -> bool:
    """Repoint where needed and resume, each process that can be; returns whether it worked for all."""
    errors = []
    try:
        if primary and not handler.leads_to(primary):
            handler.repoint(primary=primary, operation=handler.context.operation)
    except HmsError as error:
        errors.append(error)
    try:
        handler.resume()
    except HmsError as error:
        errors.append(error)
    for found in errors:
        handler.context.note("deadman_failed", lazy=False, error=found.as_dict())
    if not errors:
        handler.context.note("deadman_resumed", lazy=False, primary=primary or handler.primary_on_file())
    return not errors
