# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent on a database host can do for a swap of two databases. PRIVATE.

The dead-man's rule: before COMMIT was sent, hang up, and the server takes everything back; after it, wait for its
answer. So the catalog says whether it happened, and whoever asks next reads it there.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .._errors import DeadlinePassed, HmsError
from .._postgres import ConnectionParams, PsycopgSession, connect
from .._tools import database_rename as renaming
from .._tools.database_rename import CLIENTS, HELPERS, Attached
from . import swap_support
from .swap_model import Inside
from .swap_rules import BACKUPS, OWN

if t.TYPE_CHECKING:  # pragma: no cover
    from .agent_database import DatabaseHandler

RENAMER = "hms.postgres.swap"
"""How the session that renames introduces itself, so that a later agent finds it."""
COMMIT_PATIENCE = 10.0
"""Seconds for COMMIT's answer: under synchronous replication it comes from a standby."""
ABANDONED_PATIENCE = 6.0
"""Seconds in which the server notices that the session of a killed agent has gone; it looks ten times a second."""
LOCK_NOT_AVAILABLE, OBJECT_IN_USE = "55P03", "55006"
AGAIN = 0.05
"""Seconds between two signals to a backend that was told to end."""

_LEFT_OVER = (
    "SELECT pid, coalesce(wait_event, '') FROM pg_catalog.pg_stat_activity"
    f" WHERE application_name = '{RENAMER}' AND pid <> pg_catalog.pg_backend_pid()"
)


class SwapVerbs:
    """Verbs for a swap. Every verb checks what already holds, so that it can be given twice."""

    def __init__(self, handler: DatabaseHandler) -> None:
        self._handler = handler
        self._host = handler.host
        self._context = handler.context
        self._renamer: PsycopgSession | None = None
        self._told: dict[int, float] = {}
        """When each backend was last told to end."""
        self._ended: dict[int, str] = {}
        self._spared: frozenset[str] = BACKUPS
        """Application names whose sessions are never ended, whatever the policy."""

    def verbs(self) -> dict[str, t.Callable[..., dict[str, t.Any]]]:
        """Verb → method."""
        return {
            "list_databases": self.list_databases,
            "look_inside": self.look_inside,
            "count_readers": self.count_readers,
            "prepare_scratch": self.prepare_scratch,
            "arm_swap": self.arm_swap,
            "await_sessions": self.await_sessions,
            "swap": self.swap,
            "swap_outcome": self.swap_outcome,
            "verify_primary": self.verify_primary,
            "swap_rows": self.swap_rows,
            "end_readers": self.end_readers,
            "finish_swap": self.finish_swap,
        }

    # -- looking -------------------------------------------------------------------------------------------------

    def _session(self) -> PsycopgSession:
        return self._handler.session()

    def _into(self, database: str) -> ConnectionParams:
        return self._host.instance.local(database)

    def _attached(self, oids: t.Sequence[int]) -> list[Attached]:
        """Who is connected, without the collection's own role: its sessions are ended without a question."""
        found = renaming.attached(self._session(), oids)
        return [one for one in found if one.user != self._host.monitor.user]

    def list_databases(self) -> dict[str, t.Any]:
        """All databases with their marks."""
        return {"databases": [dataclasses.asdict(one) for one in renaming.databases(self._session())]}

    def look_inside(self, *, live: str, scratch: str) -> dict[str, t.Any]:
        """Sessions, obstacles and rights of both databases."""
        session = self._session()
        oids = self._oids()
        found = Inside(
            attached=tuple(self._attached([oids[name] for name in (live, scratch) if name in oids])),
            live=renaming.obstacles(session, live),
            scratch=renaming.obstacles(session, scratch),
            shut_out=renaming.shut_out(session, oids[live], oids[scratch]) if live in oids else (),
        )
        return {"inside": dataclasses.asdict(self._with_support(found, live if live in oids else scratch, scratch))}

    def _with_support(self, found: Inside, live: str, scratch: str) -> Inside:
        try:
            there = self._support(scratch)
        except HmsError as error:
            return dataclasses.replace(found, scratch_error=error.message)
        wanted = there if live == scratch else self._support(live)
        lacking = swap_support.missing(wanted, there)
        return dataclasses.replace(found, support_live=wanted.table, support_missing=lacking)

    def _support(self, database: str) -> swap_support.Support:
        session = connect(self._into(database), os_user=self._host.instance.os_user)
        try:
            return swap_support.read(session)
        finally:
            session.close()

    def count_readers(self, *, oid: int) -> dict[str, t.Any]:
        """Client sessions in one database: on a standby they stay where they are when it is renamed."""
        return {"sessions": sum(one.kind == "client backend" for one in self._attached([oid]))}

    # -- arming --------------------------------------------------------------------------------------------------

    def prepare_scratch(self, *, live: str, scratch: str) -> dict[str, t.Any]:
        """Give scratch what it lacks of the schema that bouncers and probes use, as the live database has it."""
        work = swap_support.statements(self._support(live), self._support(scratch))
        session = connect(self._into(scratch), os_user=self._host.instance.os_user)
        try:
            with_transaction = ["BEGIN", *work, "COMMIT"] if work else []
            for statement in with_transaction:
                session.execute(statement)
        finally:
            session.close()
        return {"statements": len(work)}

    def arm_swap(self) -> dict[str, t.Any]:
        """Open the session that will rename; from now on a silent coordinator is a dead one."""
        self._open_renamer(10.0)
        self._context.holding = True
        return {}

    def _open_renamer(self, deadline: float) -> PsycopgSession:
        session = self._renamer
        if session is None or session.connection.closed:
            params = self._host.instance.local(statement_timeout=deadline)
            params = dataclasses.replace(params, application_name=RENAMER, lock_timeout=deadline)
            session = connect(params, os_user=self._host.instance.os_user)
            # Should this agent be killed, the server gives up the rename at once and not when it would be through.
            session.execute("SET client_connection_check_interval = '100ms'")
            self._renamer = session
        session.execute(f"SET statement_timeout = {int((deadline + 1.0) * 1000)}")
        session.execute(f"SET lock_timeout = {int(deadline * 1000)}")
        return session

    def await_sessions(self, *, live_oid: int, pids: t.Sequence[int], deadline: float) -> dict[str, t.Any]:
        """Wait until nobody past the bouncers is connected; clients go on meanwhile."""
        begun = self._context.clock.monotonic()

        def gone() -> bool:
            return not self._strangers([live_oid], pids)

        if not self._context.wait_for(gone, timeout=deadline, interval=0.1):
            raise self._still_there(self._strangers([live_oid], pids), deadline)
        return {"seconds": round(self._context.clock.monotonic() - begun, 3)}

    def _strangers(self, oids: t.Sequence[int], pids: t.Collection[int]) -> list[Attached]:
        """Client sessions that are neither the pools' nor ours."""
        return [one for one in self._attached(oids) if self._foreign(one, pids)]

    @staticmethod
    def _foreign(one: Attached, pids: t.Collection[int]) -> bool:
        return one.kind in CLIENTS and one.pid not in pids and one.application_name not in OWN

    @staticmethod
    def _still_there(left: t.Sequence[Attached], deadline: float) -> HmsError:
        words = "; ".join(one.words for one in left[:5])
        return DeadlinePassed(
            f"Still connected after {deadline:g} seconds: {renaming.sessions_in_words(len(left))}: {words}.",
            reason="sessions_connected",
            next_step="End them, raise sessions_deadline, or say sessions: terminate.",
            details={"sessions": [one.words for one in left]},
        )

    # -- while clients wait ------------------------------------------------------------------------------------

    def swap(
        self,
        *,
        operation: str,
        live: str,
        scratch: str,
        keep: str,
        live_oid: int,
        scratch_oid: int,
        open_scratch: bool,
        policy: str,
        end_backups: bool,
        pids: t.Sequence[int],
        deadline: float,
    ) -> dict[str, t.Any]:
        """End what is connected, as the policy allows, and rename both in one transaction."""
        clock = self._context.clock
        begun = clock.monotonic()
        if self._oids().get(live) == scratch_oid:
            return self._done(begun, 0.0)
        self._handler.state = "renaming"
        self._context.note("swapping", live=live, scratch=scratch, keep=keep)
        self._told, self._ended = {}, {}
        self._spared = frozenset() if end_backups else BACKUPS
        oids = [live_oid, scratch_oid] if keep else [scratch_oid]
        end = clock.monotonic() + deadline
        try:
            self._clear(oids, live, policy, pids, deadline)
            cleared = clock.monotonic() - begun
            session = self._open_renamer(max(1.0, end - clock.monotonic()))
            work = renaming.statements(
                live=live, scratch=scratch, keep=keep, operation=operation, open_scratch=open_scratch
            )

            def finish(statement: str) -> None:
                self._finish(session, statement, lambda: self._tell_to_end(oids, live, policy, pids), deadline)

            expected = {live: scratch_oid, keep: live_oid} if keep else {live: scratch_oid}
            renaming.rename(session, work, oids=expected, finish=finish)
        except HmsError as error:
            who = self._in_the_way(oids, error)
            if self._handler.state == "renaming":
                self._hang_up()
            raise who or error from error
        self._context.note("swapped", live=live, keep=keep)
        return self._done(begun, cleared)

    def _done(self, begun: float, cleared: float) -> dict[str, t.Any]:
        self._handler.state = "idle"
        lsn = self._session().value("SELECT pg_catalog.pg_current_wal_lsn()::text")
        seconds = self._context.clock.monotonic() - begun
        ended = sorted(self._ended.values())
        return {"seconds": round(seconds, 6), "clear_seconds": round(cleared, 6), "lsn": lsn, "ended": ended}

    def _oids(self) -> dict[str, int]:
        return {one.name: one.oid for one in renaming.databases(self._session())}

    def _clear(self, oids: t.Sequence[int], live: str, policy: str, pids: t.Sequence[int], deadline: float) -> None:
        """Until nobody is connected to either database."""

        def empty() -> bool:
            self._tell_to_end(oids, live, policy, pids)
            return not renaming.attached(self._session(), oids)

        if not self._context.wait_for(empty, timeout=deadline):
            raise self._still_there(renaming.attached(self._session(), oids), deadline)

    def _tell_to_end(self, oids: t.Sequence[int], live: str, policy: str, pids: t.Collection[int]) -> None:
        """Tell those to end that may be ended. Those that may not are waited for, or make it fail at once."""
        now = self._context.clock.monotonic()
        for one in renaming.attached(self._session(), oids):
            ours = one.user == self._host.monitor.user or not self._foreign(one, pids)
            spared = one.application_name in self._spared
            if not ours and (spared or (one.database == live and policy != "terminate")):
                if spared or policy == "refuse":
                    raise self._refused(one)
                continue
            if now - self._told.get(one.pid, float("-inf")) >= AGAIN:
                self._told[one.pid] = now
                self._session().execute("SELECT pg_catalog.pg_terminate_backend(%s)", (one.pid,))
                if not ours and one.kind not in HELPERS:
                    self._ended[one.pid] = one.words

    @staticmethod
    def _refused(one: Attached) -> HmsError:
        return HmsError(
            f"A session is connected past the bouncers: {one.words}.",
            reason="sessions_connected",
            next_step="End it, or say sessions: terminate or wait.",
        )

    def _finish(
        self, session: PsycopgSession, statement: str, meanwhile: t.Callable[[], None], deadline: float
    ) -> None:
        """Run one statement to its end without falling deaf to the coordinator."""
        committing = statement == "COMMIT"
        if committing:
            self._handler.state = "committing"

        def done() -> bool:
            if session.done():
                return True
            if not committing:
                meanwhile()
            return False

        session.begin(statement)
        if self._context.wait_for(done, timeout=COMMIT_PATIENCE if committing else deadline + 2.0):
            return
        if committing:
            raise DeadlinePassed(
                f"The swap's commit was not answered within {COMMIT_PATIENCE:g} seconds: it waits for a standby.",
                reason="commit_waits",
                next_step="Bring the synchronous standby back; then run it again: it reads what holds.",
            )
        raise DeadlinePassed(f"{statement} took longer than {deadline:g} seconds.", reason="deadline_passed")

    def _in_the_way(self, oids: t.Sequence[int], error: HmsError) -> HmsError | None:
        """Who kept the server from renaming, when that is what its error says."""
        if error.details.get("sqlstate") == OBJECT_IN_USE:
            return self._still_there(renaming.attached(self._session(), oids), 5.0)
        if error.details.get("sqlstate") != LOCK_NOT_AVAILABLE:
            return None
        found = renaming.lockers(self._session(), oids, but=RENAMER)
        words = "; ".join(one.words for one in found) or "it has ended meanwhile"
        return HmsError(
            f"Another session works on one of the two databases themselves: {words}.",
            reason="database_locked",
            next_step="Let it end (ALTER DATABASE, COMMENT ON DATABASE, CREATE DATABASE … TEMPLATE), and run it again.",
        )

    def _hang_up(self) -> None:
        """The server takes back what was not committed."""
        self.close()
        self._handler.state = "idle"

    def swap_outcome(self, *, live: str, live_oid: int, scratch_oid: int) -> dict[str, t.Any]:
        """Whether it happened, once no session of an agent that was killed can change that any more."""
        if self._handler.state != "committing":
            self._hang_up()
        self._context.wait_for(self._nobody_renames, timeout=ABANDONED_PATIENCE, interval=0.02)
        idle, oids = self._nobody_renames(), self._oids()
        found = oids.get(live, 0)
        decided = idle and (found == live_oid or scratch_oid in oids.values())
        return {"decided": decided, "swapped": found == scratch_oid, "oid": found}

    def _nobody_renames(self) -> bool:
        """No session that renames is left; one that lost its agent is ended, one that commits is waited for."""
        left = self._session().rows(_LEFT_OVER)
        for pid, event in left:
            if event != "SyncRep":
                self._session().execute("SELECT pg_catalog.pg_terminate_backend(%s)", (pid,))
        return not left

    # -- afterwards --------------------------------------------------------------------------------------------------

    def verify_primary(self, *, live: str, former: int) -> dict[str, t.Any]:
        """The live database's OID, and who is connected to the one that was live before."""
        left = [one.words for one in renaming.attached(self._session(), [former] if former else [])]
        return {"oid": self._oids().get(live), "in_the_former": left}

    def swap_rows(self, *, operation: str, databases: t.Sequence[str]) -> dict[str, t.Any]:
        """The write probe's rows in each of these databases: per source, the sequence numbers."""
        present: dict[str, dict[str, list[int]]] = {}
        for database in databases:
            session = connect(self._into(database), os_user=self._host.instance.os_user)
            try:
                rows = session.rows(
                    "SELECT source, pg_catalog.array_agg(seq ORDER BY seq) FROM hms.write_probe"
                    " WHERE operation = %s GROUP BY source",
                    (operation,),
                )
                session.execute("DELETE FROM hms.write_probe WHERE operation <> %s", (operation,))
            finally:
                session.close()
            present[database] = {row[0]: [int(seq) for seq in row[1]] for row in rows}
        return {"present": present}

    def end_readers(self, *, oid: int, lsn: str, deadline: float, end: bool) -> dict[str, t.Any]:
        """On a standby: once it has replayed the swap, end who reads the former database still."""
        reached = self._context.wait_for(lambda: self._replayed(lsn), timeout=deadline, interval=0.02)
        left = [one for one in renaming.attached(self._session(), [oid]) if one.kind == "client backend"]
        for one in left if end else ():
            self._session().execute("SELECT pg_catalog.pg_terminate_backend(%s)", (one.pid,))
        return {"replayed": reached, "sessions": len(left), "ended": end}

    def _replayed(self, lsn: str) -> bool:
        sql = "SELECT coalesce(pg_catalog.pg_last_wal_replay_lsn() >= %s::pg_lsn, true)"
        return bool(self._session().value(sql, (lsn,)))

    def finish_swap(self) -> dict[str, t.Any]:
        """Nothing is held any more."""
        self._hang_up()
        self._context.holding = False
        return {}

    def close(self) -> None:
        """Let go of the connection."""
        if self._renamer is not None:
            self._renamer.close()
            self._renamer = None

    def alone(self) -> None:
        """The dead-man: what was not committed is taken back, what is being committed is waited for."""
        session = self._renamer
        if self._handler.state == "committing" and session is not None:
            done = self._context.wait_for(session.done, timeout=60.0)
            self._context.note("deadman_swap_committed" if done else "deadman_swap_waits", lazy=False)
        else:
            self._hang_up()
            self._context.note("deadman_swap_taken_back", lazy=False)
        self._handler.state = "idle"
        self._context.holding = False
