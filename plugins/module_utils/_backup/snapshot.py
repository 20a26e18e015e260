# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The leader: a session that holds every table and lends its snapshot to whoever dumps. PRIVATE.

A snapshot alone isn't enough. TRUNCATE and the ALTER TABLEs that rewrite a table don't honour snapshots: done between
the moment the snapshot is taken and the moment pg_dump locks the table, they make it look empty, without an error. So
the tables are locked first, and only then comes the first query, which takes the snapshot.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import typing as t

from .._errors import DeadlinePassed, HmsError
from .._postgres import PsycopgSession, Session
from .facts import NOW, Relation, countable, read_relations

__all__ = ["ATTEMPTS", "Leader", "RowCounter", "Snapshot", "countable"]

ATTEMPTS = 8
"""How often a new beginning is made where tables come and go while they are being locked."""
_BATCH = 200
_LOCK_NOT_AVAILABLE = "55P03"
_UNDEFINED = {"42P01", "3F000"}
_NOT_A_TABLE = "42809"

_SETTINGS = (
    "SELECT pg_catalog.set_config('statement_timeout', '0', false),"
    " pg_catalog.set_config('idle_in_transaction_session_timeout', '0', false),"
    " pg_catalog.set_config('row_security', 'off', false)"
)
_CHECK_CLIENT = "SET client_connection_check_interval = '2s'"
"""A count that nobody waits for any more ends by itself."""
_SNAPSHOT = f"""
SELECT pg_catalog.pg_export_snapshot(),
  (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
    ELSE pg_catalog.pg_current_wal_insert_lsn() END)::text,
  {NOW}
"""
_HOLDERS = """
SELECT DISTINCT pg_catalog.format('%%I.%%I', n.nspname, c.relname), a.pid, a.usename::text, a.application_name, a.state
FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_class c ON c.oid = l.relation
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.granted AND l.mode = 'AccessExclusiveLock' AND l.relation = ANY (%s::oid[]) AND l.database =
  (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
ORDER BY 1 LIMIT 5
"""


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A moment of the database, as others may take it up."""

    id: str
    lsn: str
    time: str
    relations: tuple[Relation, ...]
    """What is in the database at that moment."""

    def as_dict(self) -> dict[str, str]:
        """For the manifest."""
        return {"id": self.id, "lsn": self.lsn, "time": self.time}


class Leader:
    """Holds ACCESS SHARE on every table, and the snapshot, until it is closed."""

    def __init__(self, session: Session, *, watcher: Session, lock_timeout: float, major: int) -> None:
        self._session = session
        self._watcher = watcher
        self._lock_timeout = lock_timeout
        self._major = major

    def take(self) -> Snapshot:
        """Lock all tables, then take the snapshot; again where a table came or went in between."""
        self._session.execute(_SETTINGS)
        if self._major >= 14:
            with contextlib.suppress(HmsError):  # not every platform has it
                self._session.execute(_CHECK_CLIENT)
        self._session.execute(f"SET lock_timeout = {int(self._lock_timeout * 1000)}")
        for _attempt in range(ATTEMPTS):
            known = tuple(relation for relation in read_relations(self._session) if relation.kind in "rp")
            found = self._try(known)
            if found is not None:
                return found
        raise HmsError(
            f"Tables are created or dropped faster than they can be locked: {ATTEMPTS} attempts found other ones.",
            reason="tables_changing",
            phase="snapshot",
            state="Nothing was written; no lock is held any more.",
            next_step="Run again when no migration or load is at work in this database.",
        )

    def _try(self, known: t.Sequence[Relation]) -> Snapshot | None:
        self._session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            self._lock(known)
        except HmsError as error:
            self._session.execute("ROLLBACK")
            if error.details.get("sqlstate") in (*_UNDEFINED, _NOT_A_TABLE):
                return None
            raise
        identifier, lsn, time = self._session.rows(_SNAPSHOT)[0]
        relations = read_relations(self._session)
        held = {relation.oid for relation in known}
        if any(relation.oid not in held for relation in relations if relation.kind in "rp"):
            self._session.execute("ROLLBACK")
            return None
        return Snapshot(id=identifier, lsn=lsn, time=time, relations=relations)

    def _lock(self, tables: t.Sequence[Relation]) -> None:
        for start in range(0, len(tables), _BATCH):
            batch = tables[start : start + _BATCH]
            names = ", ".join(f"ONLY {table.quoted}" for table in batch)
            try:
                self._session.execute(f"LOCK TABLE {names} IN ACCESS SHARE MODE")
            except HmsError as error:
                if error.details.get("sqlstate") == _LOCK_NOT_AVAILABLE:
                    raise self._blocked(batch) from error
                raise

    def _blocked(self, batch: t.Sequence[Relation]) -> DeadlinePassed:
        """Who holds a table, for the reader on call; a statement's text may hold data and isn't told."""
        holders: list[tuple[t.Any, ...]] = []
        with contextlib.suppress(HmsError):
            holders = self._watcher.rows(_HOLDERS, ([relation.oid for relation in batch],))
        told = [
            f"{table} is held by process {pid} ({user}, {application or 'no application name'}, {state})"
            for table, pid, user, application, state in holders
        ]
        return DeadlinePassed(
            f"Not every table could be locked within {self._lock_timeout:g} s"
            f"{': ' + '; '.join(told) if told else ', and whoever held it is gone'}.",
            reason="table_locked",
            phase="snapshot",
            state="Nothing was written; no lock is held any more.",
            next_step="Let the one who holds it finish, or end it; or wait longer with lock_timeout.",
            details={"holders": [list(map(str, holder)) for holder in holders]},
        )

    @property
    def session(self) -> Session:
        """For more looks at the same moment."""
        return self._session

    def close(self) -> None:
        """Let all tables go."""
        self._session.close()


class RowCounter:
    """Counts the rows of all tables in the leader's snapshot, in a thread, while the dump runs."""

    def __init__(self, session: Session, tables: t.Sequence[Relation]) -> None:
        self._session = session
        self._tables = tables
        self._stop = threading.Event()
        self._rows: dict[str, int] = {}
        self._error: HmsError | None = None
        self._thread = threading.Thread(target=self._count, name="row-counter", daemon=True)
        self._thread.start()

    def _count(self) -> None:
        try:
            for table in self._tables:
                if self._stop.is_set():
                    return
                self._rows[table.shown] = int(
                    self._session.value(f"SELECT pg_catalog.count(*) FROM ONLY {table.quoted}")
                )
        except HmsError as error:
            self._error = error

    def rows(self, timeout: float) -> dict[str, int]:
        """The counts by table, once all are there."""
        self._thread.join(max(0.0, timeout))
        if self._thread.is_alive():
            self.stop()
            raise DeadlinePassed("The rows could not be counted in the time given.", reason="deadline_passed")
        if self._error is not None:
            raise self._error
        return dict(self._rows)

    def stop(self) -> None:
        """End it at once; harmless when it has ended."""
        self._stop.set()
        if self._thread.is_alive():
            if isinstance(self._session, PsycopgSession):
                self._session.cancel()
            self._thread.join(10.0)
