# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A backup by pgBackRest on a throwaway instance: restored, recovered, proven, every page read. PRIVATE."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .._artifact import pgbackrest_restore, pgbackrest_wal, recovery_log
from .._artifact.manifest import Verification
from .._artifact.pgbackrest_catalog import NOTE_RESTORED, moment, note_of
from .._artifact.pgbackrest_verify import ARCHIVE
from .._clock import iso
from .._errors import ConnectionFailed, DeadlinePassed, HmsError, ToolFailed
from .._files import write_atomic
from .._pipeline import Pipeline
from .._postgres import Session
from .._tools import pgbackrest_fetch
from .._tools.pg_checksums import PgChecksums
from .._tools.pg_controldata import PgControldata
from .._tools.pg_ctl import postmaster
from . import plan
from .attempt import Attempt, Frame
from .instance import owner_of
from .look import programs_of
from .model import PhysicalTarget

LOG_LIMIT = 1 << 20
STATE = "The databases of this host were not touched."
_POLL = 0.2
_AS_IT_WAS = ("constraints", "indexes")
"""Checks that a copy can't fail by itself: what they find was so in the original."""
_REACHED = """
SELECT pg_catalog.pg_last_wal_replay_lsn()::text, pg_catalog.pg_last_xact_replay_timestamp(),
       (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint())
"""
_DATABASES = "SELECT datname::text FROM pg_catalog.pg_database WHERE datallowconn ORDER BY 1"
_INCONSISTENT = ("before end of online backup", "consistent recovery point", "could not locate", "could not find redo")
"""What a server says that has too little WAL to make a backup whole."""
_CORRUPT = "XX"
"""How the server's codes begin for what can't be read, and what can't be."""
_DAMAGED = (26, 28, 29, 55, 95)
"""pgBackRest's codes for a checksum, a file, a format, a missing file and a cipher that are wrong."""


@dataclasses.dataclass(frozen=True)
class Chain:
    """The WAL that the archive held for a backup before the drill began.

    Attributes:
        last: the segment that recovery must come to, '' where that can't be told.
        problems: holes behind the backup's end.
        incomplete: what the backup lacks of its own WAL, '' for nothing.
    """

    last: str
    problems: tuple[str, ...] = ()
    incomplete: str = ""


def chain_of(target: PhysicalTarget, segment_size: int) -> Chain:
    """What the names in the archive tell."""
    layout = pgbackrest_wal.check_size(segment_size)
    path = f"{ARCHIVE}/{target.stanza.name}/{target.generation.archive_id}"
    archive = pgbackrest_wal.read_archive(target.driver, path, layout=layout, since=target.backup.wal_start)
    found = pgbackrest_wal.judge(archive, [target.backup], layout=layout)
    window = next((one for one in found.windows if one.label == target.backup.label), None)
    problems = (*(hole.describe() for hole in found.holes), *found.problems)
    return Chain(window.last if window else "", problems, found.incomplete.get(target.backup.label, ""))


def judge_wal(chain: Chain, log: str) -> tuple[bool, str]:
    """Whether recovery came to the end of the archive, and what there is to say of it."""
    reached = recovery_log.last_restored(log)
    problems = list(chain.problems)
    if chain.last and reached < chain.last and not problems:
        problems.append(f"recovery ended with segment {reached or 'none'}, and the archive goes on to {chain.last}")
        problems += recovery_log.fetch_errors(log)
    return not problems, "; ".join(problems) or f"replayed to segment {reached}, the end of the archive"


class PhysicalAttempt(Attempt):
    """One backup by pgBackRest."""

    def __init__(self, frame: Frame, target: PhysicalTarget) -> None:
        super().__init__(frame, target)
        self.target = target
        self._programs = ""
        self._chain = Chain("")

    def work(self) -> None:
        target = self.target
        self._check_environment()
        self.timed("prepare", self._prepare, "Make a folder for a throwaway instance")
        self.timed("load", self._load, f"Restore {target.backup.label} with pgBackRest")
        to = "the end of the archive" if self.order.recover_to == "archive_end" else "the end of the backup"
        self.timed("recover", self._recover, f"Recover to {to}")
        self.timed("validate", self._validate, "Prove every database")
        self.ask_application(target.database)
        self.timed("checksums", self._checksums, "Read every page")
        self.refuse_what_fails()

    def _check_environment(self) -> None:
        made_in, here = self.target.entry.manifest.environment, self.order.environment
        if made_in == "production" and here != made_in and not self.order.allow_phi:
            raise HmsError(
                f"{self.target.entry.id} holds production's data, and this host is of {here or 'no environment'}.",
                reason="production_data",
                phase="prepare",
                next_step="Drill on a host of production, or say allow_phi if that data may come here.",
            )

    def _prepare(self) -> str:
        self._programs = programs_of(self.target)
        self.frame.folder.make(owner_of(self.order.os_user), self.note(), guest=self.guest)
        return f"PostgreSQL {self.target.major} in {self.frame.folder.path}"

    def _load(self) -> str:
        target, folder = self.target, self.frame.folder
        stage = target.driver.restore_stage(
            data=folder.data,
            label=target.backup.label,
            tablespaces=folder.tablespaces,
            spool_path=folder.spool,
            lock_path=folder.lock,
            processes=self.order.processes,
            delta=False,
        )
        deadline = self.ports.clock.monotonic() + self.frame.left()
        pipeline = Pipeline([stage], deadline=deadline, what=f"Restoring {target.backup.label}", state=STATE)
        try:
            pgbackrest_restore.restore(pipeline, folder.data, otherwise="Mend what the message names and run again.")
        except ToolFailed as error:
            if error.reason not in ("busy", "disk_full") and error.details.get("rc") in _DAMAGED:
                error.reason = "artifact_damaged"
                tail = str(error.details.get("stderr_tail", "")).strip()
                error.message = f"{target.backup.label} is damaged or not whole in the repository: {tail[-600:]}"
            raise
        return f"{target.bytes} bytes of the repository"

    def _recover(self) -> str:
        folder, target = self.frame.folder, self.target
        read = PgControldata(self.ports.runner, bin_directory=self._programs, os_user=self.order.os_user)
        self._chain = chain_of(target, read.read(folder.data).wal_segment_size)
        self._configure(read.limits(folder.data))
        self.instance.control(self._programs).begin(folder.data, log=folder.log)
        session = self._wait()
        try:
            row = session.row(_REACHED)
        finally:
            session.close()
        self._take_position(row)
        return f"open at {self.recovered['lsn']}, last transaction of {self.recovered['last_transaction']}"

    def _configure(self, limits: t.Mapping[str, int]) -> None:
        """In place of whatever configuration the backup brought along."""
        folder, owner = self.frame.folder, owner_of(self.order.os_user)
        command = pgbackrest_fetch.for_recovery(
            self.target.driver, data=folder.data, spool_path=folder.spool, lock_path=folder.lock
        )
        recovery = {"recovery_target": "immediate"} if self.order.recover_to == "consistent" else {}
        more = {
            **{name: str(value) for name, value in limits.items()},
            # nobody may come in before it is proven how far it came
            "hot_standby": "off",
            "primary_conninfo": "",
            "restore_command": command,
            "recovery_target_timeline": "latest",
            "recovery_target_action": "promote",
            "log_timezone": "UTC",
            "log_line_prefix": "%m [%p] ",
            "ssl": "off",
            **recovery,
        }
        write_atomic(os.path.join(folder.data, "postgresql.conf"), "", owner=owner)
        self.instance.configure(self.order.settings, more)
        write_atomic(os.path.join(folder.data, "recovery.signal"), "", owner=owner)

    def _wait(self) -> Session:
        """A session as soon as recovery is over; raises with the reason where the server ends before."""
        folder, clock = self.frame.folder, self.ports.clock
        deadline, begun = clock.monotonic() + self.frame.left(), clock.monotonic()
        while True:
            alive = postmaster(folder.data) is not None
            try:
                return self.ports.connect(self.instance.params("postgres"))
            except ConnectionFailed:
                log = folder.log_end(LOG_LIMIT)
            if not alive and (recovery_log.ended(log) or clock.monotonic() > begun + 10.0):
                raise self._not_recovered(log)
            if clock.monotonic() >= deadline:
                raise DeadlinePassed(
                    f"{self.target.backup.label} was not recovered in time; the last segment that came was "
                    f"{recovery_log.last_restored(log) or 'none'}.",
                    reason="deadline_passed",
                )
            clock.sleep(_POLL)

    def _not_recovered(self, log: str) -> HmsError:
        told = " ".join(recovery_log.grave(log)) or log.strip()[-500:] or "it says nothing"
        fetch = "".join(f" pgBackRest says {text.rstrip(':.')}." for text in recovery_log.fetch_errors(log))
        if self._chain.incomplete or any(words in told for words in _INCONSISTENT):
            lacks = self._chain.incomplete or f"the server says: {told}"
            return HmsError(
                f"{self.target.backup.label} can't be made whole: {lacks}.{fetch}",
                reason="backup_incomplete",
                phase="recover",
                next_step="Bring the WAL back from another repository, or make a new backup.",
            )
        return HmsError(
            f"The server of {self.target.backup.label} ended before it was recovered: {told}.{fetch}",
            reason="recovery_failed",
            phase="recover",
            next_step="Mend what the message names and run the drill again.",
        )

    def _take_position(self, row: t.Sequence[t.Any] | None) -> None:
        lsn, last, timeline = row or (None, None, None)
        log = self.frame.folder.log_end(LOG_LIMIT)
        self.recovered = {
            "to": self.order.recover_to,
            "lsn": str(lsn or self.target.backup.lsn_stop),
            "timeline": int(timeline or 0),
            "segment": recovery_log.last_restored(log),
            # none since the backup began: what it shows is the cluster at its end
            "last_transaction": iso(last or moment(self.target.backup.stop)),
        }
        if self.order.recover_to == "archive_end":
            ok, detail = judge_wal(self._chain, log)
            self.validations.append({"name": "wal", "database": "", "ok": ok, "detail": detail})

    def _validate(self) -> str:
        session = self._session("postgres")
        try:
            names = [str(row[0]) for row in session.rows(_DATABASES)]
        finally:
            session.close()
        for name in names:
            self.validations += self._prove(name)
        return f"{len(names)} databases"

    def _session(self, database: str) -> Session:
        return self.ports.connect(self.instance.params(database, timeout=self.frame.left()))

    def _prove(self, database: str) -> list[dict[str, t.Any]]:
        try:
            session = self._session(database)
        except ConnectionFailed as error:
            return [{"name": "connection", "database": database, "ok": False, "detail": error.message}]
        session.close()
        if database == "template1":
            return [{"name": "connection", "database": database, "ok": True, "detail": "it can be connected to"}]
        try:
            found = self.ports.prove(lambda: self._session(database), database, self.frame.deadline)
        except HmsError as error:
            if not str(error.details.get("sqlstate") or "").startswith(_CORRUPT):
                raise
            return [{"name": "contents", "database": database, "ok": False, "detail": error.message}]
        return [{**check, "database": database, **_as_it_was(check)} for check in found]

    def _checksums(self) -> str:
        folder, runner, os_user = self.frame.folder, self.ports.runner, self.order.os_user
        self.instance.control(self._programs).stop(folder.data, timeout=self.frame.left())
        control = PgControldata(runner, bin_directory=self._programs, os_user=os_user).read(folder.data)
        ok, detail = True, "the cluster has no checksums of its pages, so whether one is damaged can't be seen"
        if control.checksums:
            program = PgChecksums(runner, bin_directory=self._programs, os_user=os_user)
            found = program.check(folder.data, timeout=self.frame.left())
            names = ", ".join(os.path.relpath(path, folder.data) for path in found.files[:5])
            ok = found.bad == 0
            detail = f"{found.blocks} pages hold" if ok else f"{found.bad} of {found.blocks} pages are damaged: {names}"
        self.validations.append({"name": "checksums", "database": "", "ok": ok, "detail": detail})
        return detail

    def spent(self) -> dict[str, float]:
        return dict(self.seconds)

    def restore_seconds(self) -> float:
        return round(self.seconds.get("load", 0.0) + self.seconds.get("recover", 0.0), 3)

    def projected(self, now: int | None) -> float | None:
        load, recover = self.seconds.get("load", 0.0), self.seconds.get("recover", 0.0)
        return plan.projected_physical(load, recover, self.target.database_bytes, now)

    def moment(self) -> str:
        return str(self.recovered["last_transaction"])

    def write_note(self, found: Verification) -> None:
        self.target.driver.annotate(self.target.backup.label, {NOTE_RESTORED: note_of(found)})


def _as_it_was(check: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    if check.get("ok") or check.get("name") not in _AS_IT_WAS:
        return {}
    return {"ok": True, "detail": f"AS IN THE ORIGINAL: {check.get('detail')}"}
