# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The side cluster's server: started, stopped, asked. PRIVATE."""

from __future__ import annotations

import os
import typing as t

from .._artifact.recovery_log import ended, fetch_errors, grave, last_commit, last_restored
from .._clock import Clock, iso
from .._command import CommandRunner, find_program
from .._errors import ConnectionFailed, DeadlinePassed, HmsError
from .._postgres import ConnectionParams, Session, parse_lsn
from . import side
from .model import Position

_POLL = 0.2
REACHED = "pausing at the end of recovery"

_POSITION = """
SELECT {paused}, pg_catalog.pg_last_wal_replay_lsn()::text,
       (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()),
       pg_catalog.pg_last_xact_replay_timestamp(), pg_catalog.pg_is_in_recovery()
"""


class Connect(t.Protocol):
    """Opens a session; `_postgres.connect` is one."""

    def __call__(self, params: ConnectionParams, *, os_user: str | None = None) -> Session:
        """A session, as that user."""


def read_position(session: Session, version_num: int) -> Position:
    """How far it is. Before version 14 a pause that is asked for can't be told from one that holds."""
    paused = "pg_catalog.pg_get_wal_replay_pause_state() = 'paused'"
    row = session.row(
        _POSITION.format(paused=paused if version_num >= 140000 else "pg_catalog.pg_is_wal_replay_paused()")
    )
    if row is None or not row[4]:
        raise HmsError(
            "The side cluster is not in recovery any more: somebody promoted it.",
            reason="promoted",
            state="The live cluster was not touched.",
            next_step="Remove it (state: absent) and recover again.",
        )
    return Position(bool(row[0]), parse_lsn(row[1] or "0/0"), int(row[2] or 0), iso(row[3]) if row[3] else "")


class Server:
    """pg_ctl and a session for one side cluster."""

    def __init__(
        self,
        folder: side.Folder,
        *,
        port: int,
        version_num: int,
        bin_directory: str,
        os_user: str,
        runner: CommandRunner,
        clock: Clock,
        connect: Connect,
    ) -> None:
        self.folder = folder
        self.port = port
        self.version_num = version_num
        self._os_user = os_user
        self._runner = runner
        self._clock = clock
        self._connect = connect
        self._program = find_program("pg_ctl", directory=bin_directory, needed_for="the side cluster")

    def start(self) -> None:
        """Start it and don't wait: `wait` does."""
        side.clear_remains(self.folder, self._clock)
        side.keep_log(self.folder)
        argv = [self._program, "--pgdata", self.folder.data, "--log", self.folder.log, "--no-wait", "--silent", "start"]
        result = self._runner.run(argv, timeout=60.0, os_user=self._os_user)
        result.check("Starting the side cluster", state="The live cluster was not touched.")

    def stop(self, *, mode: str = "fast") -> None:
        """Stop it and wait until it is down; nothing when it is."""
        if side.postmaster(self.folder) is None:
            return
        argv = [self._program, "--pgdata", self.folder.data, "--mode", mode, "--no-wait", "--silent", "stop"]
        self._runner.run(argv, timeout=60.0, os_user=self._os_user)
        side.wait_for_end(self.folder, self._clock)

    def session(self, database: str = "postgres", *, timeout: float = 30.0) -> Session:
        """A connection to it."""
        where = side.params(self.folder, self.port, self._os_user, database, timeout=timeout)
        return self._connect(where, os_user=self._os_user)

    def position(self) -> Position:
        """How far it is; raises `ConnectionFailed` while it takes no connections."""
        session = self.session()
        try:
            return read_position(session, self.version_num)
        finally:
            session.close()

    def wait(self, seconds: float) -> Position:
        """Wait until it is paused at its target. Raises with the reason when it ends before that."""
        deadline = self._clock.monotonic() + seconds
        begun = self._clock.monotonic()
        while True:
            alive = side.postmaster(self.folder) is not None
            try:
                position = self.position() if alive else None
            except ConnectionFailed:
                position = None
            log = side.read_log(self.folder)
            if position is not None and position.paused and REACHED in log:
                return position
            if position is not None and position.paused:
                _raise_unless_starting(log)
            if not alive and (ended(log) or self._clock.monotonic() > begun + 10.0):
                raise failure(log, self.folder.log)
            if self._clock.monotonic() >= deadline:
                raise DeadlinePassed(
                    f"The side cluster did not reach its target within {seconds:g} s.",
                    reason="deadline_passed",
                    state="It still recovers; the live cluster was not touched.",
                    next_step="Run again with a longer timeout: it waits on.",
                    details={"last_segment": last_restored(log)},
                )
            self._clock.sleep(_POLL)


def _raise_unless_starting(log: str) -> None:
    """It is paused, and not at its target: a parameter of the primary was raised on the way."""
    if "insufficient parameter settings" not in log:
        return
    raise HmsError(
        "Recovery is held: on the way a setting of the primary was raised above the side cluster's.",
        reason="parameters_too_low",
        state="The side cluster is paused before its target; the live cluster was not touched.",
        next_step="Give the higher value in settings (the log names it) and run again.",
    )


def failure(log: str, path: str) -> HmsError:
    """Why a server ended before it was at its target."""
    errors = grave(log)
    text = " ".join(errors)
    details = {"errors": errors[-5:], "last_segment": last_restored(log), "last_commit": last_commit(log), "log": path}
    state = "The side cluster is down; the live cluster was not touched."
    if "before configured recovery target was reached" in text:
        last = f"; the last transaction there is of {details['last_commit']}" if details["last_commit"] else ""
        why = "".join(f" pgBackRest says {text.rstrip(':')}." for text in fetch_errors(log))
        return HmsError(
            f"The WAL in the archive ended before the target was reached{last}.{why}",
            reason="target_not_reached",
            phase="recover",
            state=state,
            next_step="Choose an earlier target, or see why the WAL isn't in the archive.",
            details=details,
        )
    if "before consistent recovery point" in text:
        return HmsError(
            "The target is before the end of the backup that recovery started from.",
            reason="before_backup",
            phase="recover",
            state=state,
            next_step="Name an older backup by its label, or a later target.",
            details=details,
        )
    if "No space left on device" in log:
        return HmsError(
            f"The disk of the side cluster is full: {os.path.dirname(path)}.",
            reason="disk_full",
            phase="recover",
            state=state,
            next_step="Make room, or name a directory on a larger disk, and run again.",
            details=details,
        )
    return HmsError(
        f"The side cluster's server ended before its target: {text or log.strip()[-500:] or 'it says nothing'}",
        reason="recovery_failed",
        phase="recover",
        state=state,
        next_step=f"Its log is {path}. Mend what it names and run again.",
        details=details,
    )
