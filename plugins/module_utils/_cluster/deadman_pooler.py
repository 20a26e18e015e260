# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent on a bouncer host does alone when the coordinator is gone. PRIVATE."""

from __future__ import annotations

import typing as t

from .._errors import HmsError

if t.TYPE_CHECKING:  # pragma: no cover
    from .agent_pooler import PoolerHandler

PATIENCE = 45.0
"""Seconds for which held clients wait for a primary that proves itself; less than query_wait_timeout (60 s)."""


def act(handler: PoolerHandler) -> None:
    """Let the clients go: to the writable primary, or after `PATIENCE` to where they were led before."""
    if not handler.context.holding:
        return
    clock = handler.context.clock
    deadline = clock.monotonic() + PATIENCE
    while clock.monotonic() < deadline:
        primary = handler.writable_member()
        if primary and _let_go(handler, primary):
            return
        clock.sleep(0.2)
    _let_go(handler, "")


def _let_go(handler: PoolerHandler, primary: str) -> bool:
    """Repoint where needed and resume; returns whether it worked."""
    try:
        if primary and handler.primary_on_file() != primary:
            handler.repoint(primary=primary, operation=handler.context.operation)
        handler.resume()
    except HmsError as error:
        handler.context.note("deadman_failed", lazy=False, error=error.as_dict())
        return False
    handler.context.note("deadman_resumed", lazy=False, primary=primary or handler.primary_on_file())
    return True
