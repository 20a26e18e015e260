# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Evidence first, then pg_rewind, so that it can be killed at any moment and done again. PRIVATE."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .._clock import Clock, iso
from .._command import CommandRunner, find_program
from .._errors import HmsError, defect
from .._files import read_bytes, remove_file
from .._postgres import format_lsn, parse_lsn
from .._tools.pg_controldata import SHUT_DOWN, ControlData
from .._tools.pg_rewind import PgRewind
from .._tools.pg_waldump import PAGE_SIZE, segment_start
from .._tools.postgres_single import PostgresSingle
from .._tools.service import processes_in
from . import dossier, dossier_keep, fencing, rejoin_mark
from .dossier_names import NamesFromOldCatalog, NamesFromServer, RelationNames
from .dossier_wal import SEGMENT
from .member_config import DatabaseHost, Instance
from .rejoin_facts import REPLICATION_DATABASE, RejoinInspector, config_file
from .rejoin_history import Fork
from .rejoin_model import Mark, PrimaryFacts, RejoinFacts

REWIND_TIMEOUT = 6 * 3600.0
RECOVERY_TIMEOUT = 6 * 3600.0
READING_TIMEOUT = 6 * 3600.0
_ATTEMPTS = 3
_PAUSE = 2.0


class RewindJob:
    """What happens to a diverged data directory whose server is down.

    Args:
        operation: the id under which evidence is kept.
    """

    def __init__(
        self, host: DatabaseHost, inspector: RejoinInspector, *, operation: str, runner: CommandRunner, clock: Clock
    ) -> None:
        self._host = host
        self._inspector = inspector
        self._operation = operation
        self._runner = runner
        self._clock = clock
        self._gathered: dossier.Gathered | None = None
        self._recovered = False
        self.folder = dossier_keep.folder(host.state_directory, operation)
        self.losses: dict[str, t.Any] | None = None
        """The record's ``losses``."""

    @property
    def _data(self) -> str:
        return self._host.instance.data_directory

    def _single(self) -> PostgresSingle:
        instance = self._host.instance
        return PostgresSingle(self._runner, bin_directory=instance.bin_directory, os_user=instance.os_user)

    # -- evidence -------------------------------------------------------------------------------------------------

    def list_losses(self, found: RejoinFacts) -> str:
        """Read the log behind the fork. From here on nobody else may start the server."""
        self._bar_starting(found)
        if found.control is None:
            raise defect("control")
        if found.divergence is None:
            raise defect("divergence")
        fork = found.divergence.fork
        if fork is None:  # the history is gone; nothing can be said, and the plan allows only a new copy
            self.losses = {"known": False, "transactions": [], "basis": "no fork could be found"}
            return "unknown: " + (found.divergence.problem.message if found.divergence.problem else "no fork")
        try:
            self._gathered = dossier.gather(self._inspector.wal(found.control), fork, timeout=READING_TIMEOUT)
        except HmsError as error:
            if found.divergence.problem is None:
                raise
            self.losses = {"known": False, "transactions": [], "basis": error.message}
            return f"unknown: {error.message}"
        losses = dossier.conclude(self._gathered, self._names(found))
        self.losses = losses.as_record()
        return f"{losses.count} transactions in {losses.bytes} bytes of log behind {fork}"

    def _names(self, found: RejoinFacts) -> RelationNames:
        if found.primary is None:
            raise defect("primary")
        primary = found.primary.name
        names: RelationNames = NamesFromServer(
            lambda dbname: self._inspector.monitor(primary, dbname), main_database=self._host.database
        )
        if self._recovered:
            names = NamesFromOldCatalog(self._ask_old_catalog, first=names, main_database=self._host.database)
        return names

    def _ask_old_catalog(self, dbname: str, sql: str) -> t.Sequence[str]:
        with self._without_signals():
            return self._single().column(
                self._data, config_file=config_file(self._host), dbname=dbname, sql=sql, timeout=120.0
            )

    def recover(self) -> str:
        """Crash recovery in single-user mode, which refuses to work while standby.signal is there."""
        with self._without_signals():
            self._single().recover(self._data, config_file=config_file(self._host), timeout=RECOVERY_TIMEOUT)
        self._recovered = True
        return "recovered and shut down cleanly"

    def _without_signals(self) -> _WithoutSignals:
        return _WithoutSignals(self._host)

    def keep(self, found: RejoinFacts) -> str:
        """Copy log, control file and settings; the dossier is written last and makes the folder complete."""
        if found.control is None:
            raise defect("control")
        if found.divergence is None:
            raise defect("divergence")
        self._recovered = self._recovered or found.control.state == SHUT_DOWN
        if self._gathered is not None:
            self.losses = dossier.conclude(self._gathered, self._names(found)).as_record()
        control = self._inspector.control()
        fork = found.divergence.fork or Fork(0, 0)
        names = dossier_keep.wal_to_keep(
            self._data, control, common=found.divergence.common, end_lsn=self._end_of_log(control)
        )
        kept = dossier_keep.keep(self._data, names, self.folder)
        head = {
            "schema": 1,
            "operation": self._operation,
            "host": self._host.name,
            "cluster": self._host.cluster,
            "system_identifier": control.system_identifier,
            "kept_at": iso(self._clock.now()),
            "found": {"state": found.control.state, "timeline": found.control.timeline},
            "fork": {"timeline": fork.timeline, "lsn": format_lsn(fork.lsn)},
            "losses": self.losses or {},
        }
        dossier_keep.write_dossier(self.folder, head, kept)
        return f"{len(kept)} files, {sum(item.bytes for item in kept)} bytes in {self.folder}"

    def _end_of_log(self, control: ControlData) -> int | None:
        """Where the log ends; None where that isn't sure, so that every file is kept."""
        if self._gathered is None or self._gathered.doubt:
            return None
        return max(self._gathered.end_lsn, control.checkpoint_lsn, control.min_recovery_lsn) + PAGE_SIZE

    # -- rewinding ------------------------------------------------------------------------------------------------

    def rewind(self, found: RejoinFacts, primary: PrimaryFacts) -> str:
        """The first attempt."""
        if found.divergence is None:
            raise defect("divergence")
        if found.divergence.fork is None:
            raise defect("fork")
        fork = found.divergence.fork
        mark = Mark(
            operation=self._operation,
            source=primary.name,
            source_timeline=primary.answer.timeline,
            fork_timeline=fork.timeline,
            fork_lsn=format_lsn(fork.lsn),
            folder=self.folder,
        )
        rejoin_mark.write(self._host, mark)
        return self._run(mark, primary, archive=bool(found.divergence.restore_command))

    def resume(self, found: RejoinFacts, primary: PrimaryFacts) -> str:
        """Another attempt: pg_rewind may have taken the log it needs away, so that is put back first."""
        if found.mark is None:
            raise defect("mark")
        mark = dataclasses.replace(found.mark, attempts=found.mark.attempts + 1, failure="")
        self.adopt(mark)
        self._bar_starting(found)
        rejoin_mark.write(self._host, mark)
        user = self._host.instance.os_user
        for below in (dossier_keep.WAL, dossier_keep.CONTROL):
            dossier_keep.put_back(mark.folder, self._data, os_user=user, below=below)
        restore = self._single().setting(self._data, config_file=config_file(self._host), name="restore_command")
        return self._run(mark, primary, archive=bool(restore))

    def adopt(self, mark: Mark) -> None:
        """Go on with the evidence of an earlier run."""
        self.folder = mark.folder
        self.losses = (dossier_keep.read_dossier(mark.folder) or {}).get("losses")

    def _bar_starting(self, found: RejoinFacts) -> None:
        """Data that is being looked at or half rewound must not be started by anybody."""
        if found.member.fence and found.start_conf == fencing.DISABLED:
            return
        fencing.mark(
            self._host,
            operation=self._operation,
            new_primary=found.primary.name if found.primary else "",
            reason="it is being rejoined",
            clock=self._clock,
        )

    def _run(self, mark: Mark, primary: PrimaryFacts, *, archive: bool) -> str:
        instance = self._host.instance
        tool = PgRewind(self._runner, bin_directory=instance.bin_directory, os_user=instance.os_user)
        source = self._host.replication.params(self._host.peer(primary.name), dbname=REPLICATION_DATABASE, timeout=10)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                result = tool.rewind(
                    self._data,
                    source,
                    config_file=config_file(self._host),
                    restore_target_wal=archive,
                    timeout=REWIND_TIMEOUT,
                )
                return f"pg_rewind took {result.duration:.1f} s"
            except HmsError as error:
                if error.reason == "connection_failed" and attempt < _ATTEMPTS:
                    self._clock.sleep(_PAUSE)
                    continue
                rejoin_mark.write(self._host, dataclasses.replace(mark, failure=_failure(error)))
                raise _explained(error, mark) from error
        raise AssertionError("the last attempt returns or raises")

    def sync(self) -> str:
        """Make a rewound directory durable; for one whose rewind ended without our seeing it."""
        instance = self._host.instance
        program = find_program("initdb", directory=instance.bin_directory, needed_for="syncing a data directory")
        argv = [program, "--sync-only", "--pgdata", self._data]
        self._runner.run(argv, timeout=3600.0, os_user=instance.os_user).check("Syncing the data directory")
        return "synced"

    def put_settings_back(self) -> str:
        """What pg_rewind replaced by the source's: settings and keys; and older log that the source lacks.

        Replay begins at the last common checkpoint, and the source may have dropped its log from there to the fork.
        """
        user = self._host.instance.os_user
        mark, _state = rejoin_mark.read_state(self._host)
        if mark is not None:
            self.folder = mark.folder
        settings = dossier_keep.put_back(self.folder, self._data, os_user=user, below=dossier_keep.SETTINGS)
        older: list[str] = []
        if mark is not None:
            wanted = _before_fork(mark, self._inspector.control().wal_segment_size)
            older = dossier_keep.put_back(
                self.folder, self._data, os_user=user, below=dossier_keep.WAL, only_missing=wanted
            )
        return f"settings: {', '.join(settings) or 'unchanged'}; {len(older)} older WAL files"


def clear_stale_locks(instance: Instance) -> list[str]:
    """Remove the lock files of a dead server, when no process works in its data directory; returns their paths.

    The server program respects them as long as any process has the number in them: a zombie that nobody has
    reaped, or another program that was given it since.
    """
    if processes_in(instance.data_directory):
        return []
    locks = [os.path.join(instance.data_directory, "postmaster.pid")]
    socket_lock = os.path.join(instance.socket_directory, f".s.PGSQL.{instance.port}.lock")
    content = (read_bytes(socket_lock) or b"").decode("utf-8", "surrogateescape").splitlines()
    if len(content) > 1 and os.path.realpath(content[1]) == os.path.realpath(instance.data_directory):
        locks.append(socket_lock)
    return [path for path in locks if remove_file(path)]


def _before_fork(mark: Mark, segment_size: int) -> t.Callable[[str], bool]:
    """Whole files before the one that holds the fork are the same on both sides."""
    fork_segment = parse_lsn(mark.fork_lsn) // segment_size * segment_size
    return lambda name: (
        SEGMENT.match(name) is not None
        and int(name[:8], 16) <= mark.fork_timeline
        and segment_start(name, segment_size) < fork_segment
    )


def _failure(error: HmsError) -> str:
    return "" if error.reason == "rewind_killed" else error.reason


def _explained(error: HmsError, mark: Mark) -> HmsError:
    error.phase = error.phase or "rewind"
    error.state = (
        "The server is down and barred from starting: its data directory may be between two states. "
        f"What it held is kept in {mark.folder}."
    )
    error.next_step = "Remove the cause and run the same again: the rewind is repeated from what was kept."
    if error.reason in ("wal_missing", "no_common_history", "rewind_unprepared"):
        error.next_step = "pg_rewind cannot work here. Run again with -e allow_reclone=true for a new copy."
    return error


class _WithoutSignals:
    """standby.signal and recovery.signal taken away for a moment. The fence (start.conf) stays all the while."""

    def __init__(self, host: DatabaseHost) -> None:
        self._host = host

    def __enter__(self) -> None:
        clear_stale_locks(self._host.instance)
        for name in ("standby.signal", "recovery.signal"):
            remove_file(os.path.join(self._host.instance.data_directory, name))

    def __exit__(self, *_exception: object) -> None:
        fencing.write_standby_signal(self._host)
