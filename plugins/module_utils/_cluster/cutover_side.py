# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The side cluster that is to take the live one's place: looked at, promoted, stopped. PRIVATE."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .._errors import ConnectionFailed, HmsError
from .._files import HeldLock, read_bytes
from .._pitr import side
from .._pitr.server import Server
from .._postgres import (
    UNLOGGED,
    PsycopgSession,
    Session,
    connect,
    format_lsn,
    parse_lsn,
    quote_identifier,
    quote_literal,
)
from .._tools.pg_controldata import SHUT_DOWN, ControlData, PgControldata
from .._tools.wal_files import newest_timeline
from . import cutover_files as files
from .cutover_model import Exchange, SideSight
from .member_config import DatabaseHost
from .rejoin_history import local_history

if t.TYPE_CHECKING:  # pragma: no cover
    from .._command import CommandRunner
    from .agent import Context

START_PATIENCE = 600.0
"""Seconds until a side cluster that was down stands at its target again."""
PROMOTE_PATIENCE = 600.0
STATEMENT_TIMEOUT = 600.0

_STATE = """
SELECT pg_catalog.pg_is_in_recovery(),
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_is_wal_replay_paused() ELSE false END,
       pg_catalog.pg_last_wal_replay_lsn()::text
"""
_SUPPORT = "SELECT pg_catalog.to_regclass('hms.write_probe') IS NOT NULL"
_SLOTS = "SELECT slot_name, slot_type FROM pg_catalog.pg_replication_slots ORDER BY slot_name"
_LACKING = """
SELECT pg_catalog.pg_create_physical_replication_slot(name, true) FROM pg_catalog.unnest(%s::text[]) AS name
 WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = name)
"""
_VERIFIERS = "SELECT rolname, coalesce(rolpassword, '') FROM pg_catalog.pg_authid WHERE rolname LIKE 'hms\\_%%'"


def live_path(host: DatabaseHost) -> str:
    """The live data directory, links resolved: a rename of a link would move nothing."""
    return os.path.realpath(host.instance.data_directory)


def default_directory(host: DatabaseHost) -> str:
    """Where pg_pitr puts a side cluster unless told otherwise."""
    return os.path.normpath(host.instance.data_directory) + ".pitr"


class SideCluster:
    """The side cluster of a host."""

    def __init__(self, host: DatabaseHost, directory: str, *, runner: CommandRunner, context: Context) -> None:
        self._host = host
        self._runner = runner
        self._context = context
        self.folder = side.Folder(directory or default_directory(host))
        self._lock = HeldLock(os.path.join(host.state_directory, "pitr.lock"))

    def close(self) -> None:
        """Let go of what others wait for."""
        self._lock.release()

    def control(self, data: str) -> ControlData:
        """A control file."""
        instance = self._host.instance
        return PgControldata(self._runner, bin_directory=instance.bin_directory).read(data)

    def _server(self, port: int, version_num: int) -> Server:
        instance = self._host.instance
        return Server(
            self.folder,
            port=port,
            version_num=version_num,
            bin_directory=instance.bin_directory,
            os_user=instance.os_user,
            runner=self._runner,
            clock=self._context.clock,
            connect=connect,
        )

    # -- looking ---------------------------------------------------------------------------------------------------

    def look(self, session: PsycopgSession | None, kept: str) -> SideSight:
        """What is there; `session` is one on the live server, None where it is down."""
        host = self._host
        live = live_path(host)
        sight = SideSight(
            host=host.name,
            directory=self.folder.path,
            live=live,
            exchange=files.read_journal(host.state_directory),
            kept_exists=bool(kept) and os.path.lexists(live + kept),
            mount_point=files.is_mount_point(live),
        )
        marker = side.read_marker(self.folder)
        if marker is None:
            foreign = os.path.lexists(self.folder.path)
            return dataclasses.replace(sight, state="foreign" if foreign else "absent")
        sight = dataclasses.replace(
            sight,
            state="ours",
            cluster=marker.cluster,
            marker_system=marker.system_identifier,
            marker_version=marker.version_num // 10000,
            label=marker.label,
            target=marker.target.describe(),
            stage=marker.stage,
            reached_lsn=parse_lsn(str(marker.reached.get("lsn") or "0/0")),
            reached_timeline=int(marker.reached.get("timeline") or 0),
            last_commit=str(marker.reached.get("last_commit") or ""),
            running=side.postmaster(self.folder) is not None,
        )
        if not os.path.exists(os.path.join(self.folder.data, "global", "pg_control")):
            if sight.exchange is not None and sight.exchange.stage == "done":
                return dataclasses.replace(sight, state="absent")
            return dataclasses.replace(sight, stage="restoring")
        sight = self._on_disk(sight)
        if sight.running:
            sight = self._in_server(sight, marker.port, session)
        return self._against_live(sight, session)

    def _on_disk(self, sight: SideSight) -> SideSight:
        version = (read_bytes(os.path.join(self.folder.data, "PG_VERSION")) or b"0").strip()
        wal = os.path.join(sight.live, "pg_wal")
        return dataclasses.replace(
            sight,
            system_identifier=self.control(self.folder.data).system_identifier,
            version=int(version) if version.isdigit() else 0,
            same_filesystem=os.path.isdir(sight.live) and files.same_filesystem(self.folder.data, sight.live),
            tablespaces=files.tablespaces(self.folder.data, sight.live),
            wal_link=os.path.realpath(wal) if os.path.islink(wal) else "",
        )

    def _in_server(self, sight: SideSight, port: int, live: PsycopgSession | None) -> SideSight:
        try:
            session = self._session(port)
        except ConnectionFailed:
            return sight
        try:
            row = session.row(_STATE) or (False, False, "0/0")
            found = dataclasses.replace(
                sight, open=not row[0], paused=bool(row[1]), lsn=parse_lsn(row[2] or "0/0"), support=self._support(port)
            )
            if live is None:
                return found
            return dataclasses.replace(found, strangers=tuple(sorted(unlike(session, live))))
        finally:
            session.close()

    def _session(self, port: int, database: str = "postgres") -> PsycopgSession:
        where = side.params(self.folder, port, self._host.instance.os_user, database, timeout=STATEMENT_TIMEOUT)
        return connect(where, os_user=self._host.instance.os_user)

    def _support(self, port: int) -> bool:
        """Whether bouncers could log in, and a write be tried."""
        try:
            session = self._session(port, self._host.database)
        except HmsError:
            return False
        try:
            return bool(session.value(_SUPPORT))
        finally:
            session.close()

    def _against_live(self, sight: SideSight, session: PsycopgSession | None) -> SideSight:
        if session is None:
            return sight
        slots = session.rows(_SLOTS)
        lsn = session.value("SELECT pg_catalog.pg_current_wal_lsn()::text") if not _recovering(session) else None
        timeline = self.control(sight.live).timeline
        return dataclasses.replace(
            sight,
            slots=tuple(str(row[0]) for row in slots if row[1] == "physical"),
            logical_slots=tuple(str(row[0]) for row in slots if row[1] != "physical"),
            wal_after=max(0, parse_lsn(lsn) - sight.reached_lsn)
            if lsn and timeline == sight.reached_timeline
            else None,
        )

    # -- promoting -------------------------------------------------------------------------------------------------

    def promote(self, wish: Exchange, verifiers: t.Mapping[str, str], slots: t.Sequence[str]) -> Exchange:
        """Promote it at its target and stop it; what an earlier run did of this is not done again.

        `wish` has the names; the timelines and positions come from what is found afterwards.
        """
        self._be_alone()
        marker = side.read_marker(self.folder)
        if marker is None:
            raise HmsError(f"There is no side cluster at {self.folder.path}.", reason="no_side")
        server = self._server(marker.port, marker.version_num)
        if not self._was_promoted(wish.old_timeline):
            side.write_marker(self.folder, dataclasses.replace(marker, stage="promoted"))
            self._context.note("promoting_side", target=marker.target.describe(), lazy=False)
            if side.postmaster(self.folder) is None:
                server.start()
                self._await_answer(marker.port)
            self._promote(server, marker.port, verifiers, slots)
        server.stop()
        return self._described(wish)

    def _be_alone(self) -> None:
        """Nobody recovers, moves or removes it meanwhile: pg_pitr takes the same lock."""
        if self._lock.held:
            return
        holder = self._lock.acquire({"id": self._context.operation, "by": "a cutover"})
        if holder is not None:
            raise HmsError(
                f"A point-in-time recovery is at work on {self._host.name}: {holder.get('by', 'unknown')}.",
                reason="operation_running",
                state="Nothing was touched.",
                next_step="Wait for it.",
            )

    def _was_promoted(self, old_timeline: int) -> bool:
        control = self.control(self.folder.data)
        down = side.postmaster(self.folder) is None
        return down and control.state == SHUT_DOWN and control.timeline > old_timeline

    def _await_answer(self, port: int) -> None:
        def answers() -> bool:
            try:
                self._session(port).close()
            except HmsError:
                return False
            return True

        self._context.demand(answers, "The side cluster's start", timeout=START_PATIENCE, interval=0.2)

    def _promote(self, server: Server, port: int, verifiers: t.Mapping[str, str], slots: t.Sequence[str]) -> None:
        session = self._session(port)
        try:
            if _recovering(session):
                server.wait(START_PATIENCE)
                # Made before the promotion they hold the WAL that a rewind to this history needs.
                session.rows(_LACKING, (list(slots),))
                session.execute("SELECT pg_catalog.pg_promote(false)")
                self._context.demand(
                    lambda: not _recovering(session),
                    "The side cluster's promotion",
                    timeout=PROMOTE_PATIENCE,
                    interval=0.05,
                )
            session.execute(UNLOGGED)
            for name, verifier in verifiers.items():
                session.execute(f"ALTER ROLE {quote_identifier(name)} PASSWORD {quote_literal(verifier)}")
            session.execute("CHECKPOINT")
        finally:
            session.close()

    def _described(self, wish: Exchange) -> Exchange:
        """The exchange with what the promoted side cluster's files say; refuses what is not as it has to be."""
        control = self.control(self.folder.data)
        newest = max(wish.old_timeline, newest_timeline(wish.live))
        if control.state != SHUT_DOWN or control.system_identifier != wish.system_identifier:
            raise HmsError(
                f"The promoted side cluster is {control.state!r}, and of the system {control.system_identifier}.",
                reason="side_differs",
                state="The live cluster was not touched.",
                next_step=f"Its log is {self.folder.log}. Recover it anew with playbooks/pitr.yml.",
            )
        if control.timeline <= newest:
            raise HmsError(
                f"The side cluster began timeline {control.timeline}, and {newest} is in use: the archive hid it.",
                reason="timeline_taken",
                state="The live cluster was not touched.",
                next_step="See that the archive answers, then recover it anew with playbooks/pitr.yml.",
            )
        parent = local_history(self.folder.data, control.timeline)[-2]
        return dataclasses.replace(
            wish,
            new_timeline=control.timeline,
            checkpoint=control.checkpoint_lsn,
            fork_lsn=parent.end or 0,
            fork_timeline=parent.timeline,
        )


def _recovering(session: Session) -> bool:
    return bool(session.value("SELECT pg_catalog.pg_is_in_recovery()"))


def unlike(there: Session, live: Session) -> dict[str, str]:
    """The collection's own roles that have another password on the live server, with its verifier."""
    wanted = {str(row[0]): str(row[1]) for row in live.rows(_VERIFIERS)}
    found = {str(row[0]): str(row[1]) for row in there.rows(_VERIFIERS)}
    return {name: verifier for name, verifier in wanted.items() if verifier and found.get(name, verifier) != verifier}


def lacking_slots(session: Session, names: t.Sequence[str]) -> list[str]:
    """Make the slots that are not there; returns their names."""
    return [str(row[0]) for row in session.rows(_LACKING, (list(names),))]


def told(exchange: Exchange) -> dict[str, t.Any]:
    """An exchange as a step's evidence."""
    return {
        "timeline": exchange.new_timeline,
        "fork": f"{format_lsn(exchange.fork_lsn)} on timeline {exchange.fork_timeline}",
        "shut_down_at": format_lsn(exchange.checkpoint),
        "kept": exchange.kept,
    }
