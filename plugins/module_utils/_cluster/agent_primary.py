# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent on a database host can do while its instance is the primary: step down, or be fenced. PRIVATE."""

from __future__ import annotations

import contextlib
import signal
import typing as t

from .._errors import HmsError, Refused
from .._postgres import connect
from .._tools import pg_controldata
from .._tools.pg_controldata import PgControldata
from .._tools.service import postmaster_pid
from . import fencing, settings

if t.TYPE_CHECKING:  # pragma: no cover
    from .agent_database import DatabaseHandler

EXIT_PATIENCE = 15.0
"""Seconds a shutdown that was asked for gets to write its checkpoint, before it is cut short."""
LINGER_PATIENCE = 1.0
"""Seconds a postmaster gets to end after its shutdown checkpoint: archiver and hung WAL senders may keep it."""


class PrimaryVerbs:
    """Verbs for a primary that steps down. Every verb checks what already holds, so that it can be given twice."""

    def __init__(self, handler: DatabaseHandler) -> None:
        self._handler = handler
        self._host = handler.host
        self._context = handler.context
        self._data = handler.host.instance.data_directory

    def verbs(self) -> dict[str, t.Callable[..., dict[str, t.Any]]]:
        """Verb → method."""
        return {
            "arm_primary": self.arm_primary,
            "stop_primary": self.stop_primary,
            "restart_primary": self.restart_primary,
            "commit_demotion": self.commit_demotion,
            "start_standby": self.start_standby,
            "fence": self.fence,
        }

    def arm_primary(self, *, operation: str, candidate: str, led: t.Sequence[str]) -> dict[str, t.Any]:
        """Write down whom this primary will follow as a standby; without effect while it is primary.

        `led` are the slots of those who will stream from the candidate too.
        """
        handler = self._handler
        session = handler.session()
        conninfo = self._host.primary_conninfo(self._host.peer(candidate))
        handler.candidate = candidate
        handler.led = tuple(led)
        handler.note_before(session, "primary_conninfo", "primary_slot_name")
        handler.state = "armed_primary"
        self._context.holding = True
        settings.alter_system(
            session,
            {
                "primary_conninfo": conninfo,
                "primary_slot_name": self._host.slot_name,
                settings.BULLETIN: f"{operation}:armed",
            },
        )
        self._context.note("armed_primary", candidate=candidate, lazy=False)
        return {}

    def stop_primary(self, *, deadline: float) -> dict[str, t.Any]:
        """Fast shutdown; done as soon as pg_control says so, not when the last process has gone.

        Archiver and hung WAL senders may linger for a minute; they write nothing any more.
        """
        clock = self._context.clock
        started = clock.monotonic()
        self._handler.state = "stopped"
        self._handler.close()
        self._context.note("stopping", lazy=True)
        self._handler.service.signal_postmaster(signal.SIGINT)
        self._context.demand(
            lambda: self._control_state() == pg_controldata.SHUT_DOWN, "The primary's shutdown", timeout=deadline
        )
        control = pg_controldata.quick_read(self._data) or self._controldata()
        return {
            "checkpoint_lsn": control.checkpoint_lsn,
            "timeline": control.timeline,
            "state": control.state,
            "seconds": round(clock.monotonic() - started, 6),
        }

    def _control_state(self) -> str:
        quick = pg_controldata.quick_read(self._data)
        return quick.state if quick else self._controldata().state

    def _controldata(self) -> pg_controldata.ControlData:
        tool = PgControldata(self._handler.runner, bin_directory=self._host.instance.bin_directory)
        return tool.read(self._data)

    def commit_demotion(self) -> dict[str, t.Any]:
        """The point of no return on this side: from now on it can only come up as a standby."""
        fencing.write_standby_signal(self._host)
        self._handler.state = "committed"
        self._context.note("committed_demotion", lazy=True)
        return {}

    def restart_primary(self, *, deadline: float) -> dict[str, t.Any]:
        """The way back before the point of no return: be the primary again.

        A postmaster that was asked to stop will stop, however alive it looks: its end is waited for first. The start
        guard need not find the others: a candidate that died on the way here must not keep the primary down too.
        """
        handler = self._handler
        clock = self._context.clock
        started = clock.monotonic()
        fencing.remove_standby_signal(self._host)
        asked_to_stop = handler.state in ("stopped", "committed")
        if asked_to_stop or self._control_state() in (pg_controldata.SHUT_DOWN, "shutting down"):
            self.wait_for_exit(deadline)
        if postmaster_pid(self._data) is None:
            handler.close()
            with fencing.known_to_lead(self._host):
                handler.service.start(timeout=deadline)
        handler.state = "armed_primary" if handler.restore_values else "idle"
        return {"seconds": round(clock.monotonic() - started, 4)}

    def wait_for_exit(self, deadline: float) -> None:
        """Wait for a postmaster that was told to stop; one that lingers is ended, its pg_control is final already."""
        self._await_exit(EXIT_PATIENCE, linger=LINGER_PATIENCE)
        if postmaster_pid(self._data) is not None:
            self._handler.service.signal_postmaster(signal.SIGQUIT)
            self._await_exit(2.0, linger=2.0)
        if postmaster_pid(self._data) is not None:
            self._handler.service.kill_all(clock=self._context.clock, timeout=deadline)

    def _await_exit(self, patience: float, *, linger: float) -> None:
        """Until it has gone, at most for `patience`, and for `linger` after its control file said shut down."""
        clock = self._context.clock
        end = clock.monotonic() + patience
        final = (pg_controldata.SHUT_DOWN, pg_controldata.SHUT_DOWN_IN_RECOVERY)
        written = False
        while postmaster_pid(self._data) is not None and clock.monotonic() < end:
            if not written and self._control_state() in final:
                written = True
                end = min(end, clock.monotonic() + linger)
            clock.sleep(0.005)

    def start_standby(self, *, deadline: float) -> dict[str, t.Any]:
        """Start the demoted instance as a standby of the candidate; *committed* it stays until the operation ends."""
        fencing.write_standby_signal(self._host)
        if self._control_state() == pg_controldata.SHUT_DOWN:
            self.wait_for_exit(deadline)
        if postmaster_pid(self._data) is None:
            self._handler.service.start_soon()
        return {}

    def fence(self, *, operation: str, new_primary: str, reason: str, unless_alive: bool = False) -> dict[str, t.Any]:
        """Mark, stop and prove: this instance takes no write any more, not even after a reboot.

        With `unless_alive` it was seen down: one that takes writes by now was started again by itself, and stays.
        """
        if unless_alive and self._leads():
            raise Refused(
                f"{self._host.name} was down and takes writes again: something has started it.",
                reason="primary_alive",
                next_step="See why it fell. To move away from it all the same, switch over, or run the failover again.",
            )
        self._handler.state = "fenced"
        note = self._mark(operation=operation, new_primary=new_primary, reason=reason)
        self._handler.close()
        stopped = fencing.stop_hard(self._host, self._handler.service, self._context.clock)
        found = fencing.proofs(self._host, self._handler.runner, self._context.clock)
        self._context.note("fenced", **stopped, lazy=True)
        return {"marker": note, "proofs": found, **stopped}

    def _mark(self, *, operation: str, new_primary: str, reason: str) -> dict[str, t.Any]:
        """Leave the marks; on a broken or full disk those that can be left. It is stopped in any case."""
        try:
            return fencing.mark(
                self._host, operation=operation, new_primary=new_primary, reason=reason, clock=self._context.clock
            )
        except (OSError, ValueError) as error:
            with contextlib.suppress(OSError):
                fencing.write_standby_signal(self._host)
            return {"incomplete": str(error)}

    def _leads(self) -> bool:
        """Whether it runs and takes writes now."""
        if postmaster_pid(self._data) is None:
            return False
        try:
            session = connect(self._host.instance.local(statement_timeout=2.0), os_user=self._host.instance.os_user)
        except HmsError:
            return False
        try:
            return session.value("SELECT pg_catalog.pg_is_in_recovery()") is False
        except HmsError:
            return False
        finally:
            session.close()
