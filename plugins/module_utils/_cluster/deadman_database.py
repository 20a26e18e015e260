# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent on a database host does alone when the coordinator is gone. PRIVATE.

One host decides: the candidate. Before its promotion was ordered it promises on its bulletin that none will
come in this operation (*disarmed*); the old primary, once committed, takes the lead again only after having
read that promise. So at no moment can both be writable, whoever was cut off from whom.
"""

from __future__ import annotations

import contextlib
import signal
import typing as t

from .._errors import HmsError
from .._postgres import connect
from .._tools.service import postmaster_pid
from . import fencing, settings
from .facts import peer_role

if t.TYPE_CHECKING:  # pragma: no cover
    from .agent_database import DatabaseHandler

PATIENCE = 120.0
"""Seconds for which a committed old primary looks for the candidate's word before it stays down."""

START_DEADLINE = 120.0
STREAM_DEADLINE = 15.0
SETTLED = 1.0


def act(handler: DatabaseHandler) -> None:
    """Do what the last order implies, or nothing when nothing was ordered."""
    actions: dict[str, t.Callable[[DatabaseHandler], None]] = {
        "armed_candidate": _promise_not_to_promote,
        "detached": _promise_not_to_promote,
        "armed_primary": _put_settings_back,
        "stopped": _lead_again,
        "committed": _ask_candidate,
        "following": _settle,
        "promoted": _finish_promotion,
        "renaming": _end_swap,
        "committing": _end_swap,
        "cutover": _end_cutover,
    }
    action = actions.get(handler.state)
    if action is not None:
        action(handler)


def _promise_not_to_promote(handler: DatabaseHandler) -> None:
    """Put settings back, receivers included, and publish the promise."""
    handler.disarm(promise=True)
    handler.context.note("deadman_disarmed", lazy=False)
    handler.context.clock.sleep(SETTLED)  # a receiver that is about to lose its primary looks as if it streamed
    _settle(handler)


def _put_settings_back(handler: DatabaseHandler) -> None:
    handler.disarm()


def _lead_again(handler: DatabaseHandler) -> None:
    """Stopped for a switchover that didn't pass its point of no return: be the primary again."""
    handler.primary.restart_primary(deadline=START_DEADLINE)
    handler.disarm()
    handler.context.note("deadman_restarted_primary", lazy=False)


def _candidate_word(handler: DatabaseHandler) -> str:
    """``promoted``, ``disarmed`` or ``''`` (not known yet)."""
    host = handler.host
    params = host.monitor.params(host.peer(handler.candidate), dbname=host.database)
    role = peer_role(params)
    if role is None:
        return ""
    if role[0] is False:
        return "promoted"
    try:
        session = connect(params)
    except HmsError:
        return ""
    try:
        identifier, word = settings.read_bulletin(session)
    except HmsError:
        return ""
    finally:
        session.close()
    return word if identifier == handler.context.operation and word == "disarmed" else ""


def _ask_candidate(handler: DatabaseHandler) -> None:
    clock = handler.context.clock
    deadline = clock.monotonic() + PATIENCE
    while clock.monotonic() < deadline:
        word = _candidate_word(handler)
        if word == "promoted":
            return _follow_candidate(handler)
        if word == "disarmed":
            handler.service.signal_postmaster(signal.SIGINT)  # it may run as a standby already
            handler.primary.wait_for_exit(START_DEADLINE)
            return _lead_again(handler)
        clock.sleep(0.25)
    fencing.mark(
        handler.host,
        operation=handler.context.operation,
        new_primary=handler.candidate,
        reason="the coordinator was lost and the candidate could not be asked",
        clock=clock,
    )
    handler.context.note("deadman_stays_down", lazy=False)
    return None


def _follow_candidate(handler: DatabaseHandler) -> None:
    if postmaster_pid(handler.host.instance.data_directory) is None:
        handler.primary.start_standby(deadline=START_DEADLINE)
    handler.context.note("deadman_follows_candidate", lazy=False)
    _settle(handler)


def _settle(handler: DatabaseHandler) -> None:
    """A standby: take back what was temporary, once it streams or doesn't in time. What it promised stays."""
    with contextlib.suppress(HmsError):
        handler.standby.await_streaming(timeline=1, deadline=STREAM_DEADLINE)
    handler.finish(role="standby")
    handler.context.note("deadman_settled", lazy=False)


def _finish_promotion(handler: DatabaseHandler) -> None:
    """The old primary is fenced or bound to come up as a standby: there is only forward."""
    handler.standby.order_promotion()
    handler.finish(role="primary")
    handler.context.note("deadman_finished_promotion", lazy=False)


def _end_swap(handler: DatabaseHandler) -> None:
    """Both renames are one transaction, so the catalog says how it ended; nothing else has to be put in order."""
    handler.swap.alone()


def _end_cutover(handler: DatabaseHandler) -> None:
    """The journal and the directories say how far it is."""
    handler.cutover.alone()
