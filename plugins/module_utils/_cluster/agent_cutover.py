# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent on the primary's host can do for a cutover to a recovered side cluster. PRIVATE.

The dead-man's rule: the journal says what was begun, the directories say how far it is. Before the recovered cluster
was told to start, everything is put back and the old one started; after that it is brought up, and only where it can't
be and has never run is the old one put back.
"""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .._clock import Clock, iso
from .._errors import HmsError
from .._pitr import side
from .._postgres import PsycopgSession, parse_lsn
from .._tools.service import postmaster_pid, processes_in
from . import cutover_files as files
from . import cutover_side, fencing
from .cutover_model import Exchange
from .cutover_side import SideCluster, told

if t.TYPE_CHECKING:  # pragma: no cover
    from .agent_database import DatabaseHandler

START_DEADLINE = 60.0
NO_SERVER_PATIENCE = 10.0
"""Seconds after which a start without a server process has failed; the start guard asks the other members first."""
ORPHANS_DEADLINE = 5.0
ARCHIVER_PATIENCE = 10.0
"""Seconds that the archiver gets for the last segments after the shutdown checkpoint. What it doesn't get away stays in
the data directory that is kept."""
_ARCHIVING = """
SELECT pg_catalog.current_setting('archive_mode') <> 'off',
       pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn())
"""


class _Attempt:
    """A start that was ordered, as far as the processes show."""

    def __init__(self, data: str, clock: Clock) -> None:
        self._data = data
        self._clock = clock
        self._alive = clock.monotonic()

    def failed(self) -> bool:
        """Raise when for a while there has been no server; never true."""
        now = self._clock.monotonic()
        if postmaster_pid(self._data) is not None:
            self._alive = now
        elif now - self._alive > NO_SERVER_PATIENCE:
            raise HmsError(
                f"The recovered cluster did not start: there is no server in {self._data}.",
                reason="start_failed",
                next_step="Its log in /var/log/postgresql and the journal of its unit say why.",
            )
        return False


class CutoverVerbs:
    """Verbs for a cutover. Every verb checks what already holds, so that it can be given twice."""

    def __init__(self, handler: DatabaseHandler) -> None:
        self._handler = handler
        self._host = handler.host
        self._context = handler.context
        self._side: SideCluster | None = None
        self._told_to_stop = False
        """Whether this agent told the old cluster to stop: it may still be at it, however alive it looks."""

    def verbs(self) -> dict[str, t.Callable[..., dict[str, t.Any]]]:
        """Verb → method."""
        return {
            "look_cutover": self.look,
            "promote_side": self.promote_side,
            "cutover_stop": self.stop,
            "cutover_exchange": self.exchange,
            "cutover_start": self.start,
            "cutover_settle": self.settle,
            "cutover_finish": self.finish,
        }

    def close(self) -> None:
        """Let go of the lock."""
        if self._side is not None:
            self._side.close()
            self._side = None

    def _cluster(self, directory: str) -> SideCluster:
        if self._side is None:
            self._side = SideCluster(self._host, directory, runner=self._handler.runner, context=self._context)
        return self._side

    def _read(self) -> Exchange | None:
        return files.read_journal(self._host.state_directory)

    def _require(self) -> Exchange:
        found = self._read()
        if found is None:
            raise HmsError(f"There is no journal of a cutover on {self._host.name}.", reason="no_journal")
        return found

    def _write(self, exchange: Exchange, stage: t.Any) -> Exchange:
        self._context.note("cutover_" + stage, lazy=False)
        return files.write_journal(self._host.state_directory, exchange, stage)

    def _control(self) -> files.ReadControl:
        return self._cluster("").control

    def _live(self) -> PsycopgSession | None:
        if postmaster_pid(self._host.instance.data_directory) is None:
            return None
        try:
            return self._handler.session()
        except HmsError:
            return None

    # -- looking and preparing -------------------------------------------------------------------------------------

    def look(self, *, directory: str, kept: str) -> dict[str, t.Any]:
        """The side cluster, the place that it is to take, and the journal."""
        self.close()
        sight = self._cluster(directory).look(self._live(), kept)
        self.close()
        return {"sight": dataclasses.asdict(sight)}

    def promote_side(
        self,
        *,
        directory: str,
        kept: str,
        target: str,
        last_commit: str,
        slots: t.Sequence[str],
        strangers: t.Sequence[str],
        sync_names: str | None,
    ) -> dict[str, t.Any]:
        """Promote the side cluster, stop it, and write down what is to be exchanged. The live one works on."""
        cluster = self._cluster(directory)
        live = cutover_side.live_path(self._host)
        control = cluster.control(live)
        wish = Exchange(
            operation=self._context.operation,
            stage="promoted",
            live=live,
            side=cluster.folder.path,
            kept=kept,
            system_identifier=control.system_identifier,
            old_timeline=control.timeline,
            new_timeline=0,
            checkpoint=0,
            fork_lsn=0,
            fork_timeline=0,
            target=target,
            last_commit=last_commit,
            slots=tuple(slots),
            sync_names=sync_names,
            at=iso(self._context.clock.now()),
        )
        exchange = cluster.promote(wish, self._verifiers(strangers), slots)
        files.align(exchange, self._host.instance.os_user)
        self._write(exchange, "promoted")
        return {**told(exchange), "exchange": dataclasses.asdict(exchange)}

    def _verifiers(self, names: t.Sequence[str]) -> dict[str, str]:
        """What the live server checks the passwords of these roles against."""
        if not names:
            return {}
        sql = (
            "SELECT rolname, rolpassword FROM pg_catalog.pg_authid WHERE rolname = ANY(%s) AND rolpassword IS NOT NULL"
        )
        return {str(row[0]): str(row[1]) for row in self._handler.session().rows(sql, (list(names),))}

    # -- while clients wait ----------------------------------------------------------------------------------------

    def stop(self, *, deadline: float) -> dict[str, t.Any]:
        """Stop the live cluster, until nothing of it works any more; that it was by us is written down before."""
        exchange = self._require()
        self._context.holding = True
        left = self._last_position()
        self._told_to_stop = True
        self._write(dataclasses.replace(exchange, left_lsn=left), "exchanging")
        try:
            found = self._handler.primary.stop_primary(deadline=deadline)
        finally:
            self._handler.state = "cutover"
        self._context.wait_for(self._gone, timeout=ARCHIVER_PATIENCE)
        self._handler.primary.wait_for_exit(deadline)
        self._clear_out(exchange.live)
        status = os.path.join(exchange.live, "pg_wal", "archive_status")
        waiting = sorted(name for name in os.listdir(status) if name.endswith(".ready"))
        return {**found, "left_lsn": left, "not_archived": waiting}

    def _last_position(self) -> int:
        """Up to where recovery along the old timeline has everything that was written: the way back's target.

        A transaction that changes nothing comes behind it, so that there is something to stop at.
        """
        session = self._handler.session()
        lsn = parse_lsn(str(session.value("SELECT pg_catalog.pg_current_wal_insert_lsn()::text")))
        session.execute("SET synchronous_commit TO local")
        session.execute("SELECT pg_catalog.pg_current_xact_id()")
        return lsn

    def _clear_out(self, data: str) -> None:
        """No process works in a data directory any more: what a server leaves there is an archive command at most."""
        if not self._context.wait_for(lambda: not processes_in(data), timeout=ORPHANS_DEADLINE, interval=0.02):
            self._handler.service.kill_all(clock=self._context.clock, timeout=ORPHANS_DEADLINE)

    def _gone(self) -> bool:
        return postmaster_pid(self._host.instance.data_directory) is None

    def exchange(self) -> dict[str, t.Any]:
        """The two renames."""
        begun = self._context.clock.monotonic()
        self._handler.state = "cutover"
        exchange = self._require()
        if files.where(exchange, self._control()) == "old":
            files.align(exchange, self._host.instance.os_user)
        files.put_in(exchange, self._control())
        self._context.note("cutover_exchanged", lazy=False)
        return {"seconds": round(self._context.clock.monotonic() - begun, 6), "kept": exchange.kept}

    def start(self, *, deadline: float) -> dict[str, t.Any]:
        """Start the recovered cluster in its new place, and wait until it takes writes."""
        begun = self._context.clock.monotonic()
        self._handler.state = "cutover"
        exchange = dataclasses.replace(self._require(), at=iso(self._context.clock.now()))
        exchange = self._write(exchange, "starting")
        timeline = self._bring_up(deadline)
        seconds = round(self._context.clock.monotonic() - begun, 6)
        return {"seconds": seconds, "timeline": timeline, "story": exchange.story}

    def _bring_up(self, deadline: float) -> int:
        """Have the instance started, and wait until it takes writes; its timeline."""
        handler = self._handler
        with fencing.known_to_lead(self._host):
            if postmaster_pid(self._host.instance.data_directory) is None:
                handler.close()
                handler.service.start_soon()
            attempt = _Attempt(self._host.instance.data_directory, self._context.clock)
            self._context.demand(
                lambda: self._writable() or attempt.failed(),
                "The start of the recovered cluster",
                timeout=deadline,
                interval=0.02,
            )
        name = str(handler.session().value("SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn())"))
        return int(name[:8], 16)

    def _writable(self) -> bool:
        if postmaster_pid(self._host.instance.data_directory) is None:
            return False
        try:
            return self._handler.session().value("SELECT pg_catalog.pg_is_in_recovery()") is False
        except HmsError:
            self._handler.close()
            return False

    # -- back, or forward ------------------------------------------------------------------------------------------

    def settle(self, *, forward: bool = True, deadline: float = START_DEADLINE) -> dict[str, t.Any]:
        """Whatever was begun is brought to an end: the old cluster runs, or the new one. Says which.

        Without `forward` a start that was ordered is taken back, as long as the recovered cluster has never run.
        """
        exchange = self._read()
        if exchange is None or exchange.stage not in ("exchanging", "starting"):
            return {"outcome": "nothing"}
        place = files.where(exchange, self._control())
        if place == "ran" and os.path.exists(fencing.standby_signal_path(self._host)):
            self._write(exchange, "done")  # it has led since, and follows another one by now
            return {"outcome": "new", "timeline": exchange.new_timeline}
        if place in ("new", "ran") and self._goes_forward(exchange, place, forward=forward, deadline=deadline):
            self._finish(exchange)
            return {"outcome": "new", "timeline": exchange.new_timeline}
        self._go_back(exchange, deadline)
        return {"outcome": "old", "timeline": exchange.old_timeline}

    def _goes_forward(self, exchange: Exchange, place: files.Place, *, forward: bool, deadline: float) -> bool:
        """Bring the recovered cluster up, where it was told to start or has run; whether it is."""
        begun = place == "ran" or exchange.stage == "starting" or bool(processes_in(exchange.live))
        if not begun:
            return False
        if place == "ran":
            self._bring_up(deadline)
            return True
        try:
            if forward:
                self._bring_up(deadline)
                return True
        except HmsError as error:
            self._context.note("cutover_start_failed", lazy=False, error=error.as_dict())
        self._clear_out(exchange.live)
        if files.where(exchange, self._control()) == "ran":
            self._bring_up(deadline)
            return True
        return False

    def _go_back(self, exchange: Exchange, deadline: float) -> None:
        """Everything where it was, the old cluster started."""
        self._handler.close()
        files.put_back(exchange, self._control())
        if self._told_to_stop or not self._writable():
            self._handler.state = "stopped"  # it may still be at its end: that is waited for
            self._handler.primary.restart_primary(deadline=deadline)
        self._told_to_stop = False
        self._handler.state = "idle"
        self._write(exchange, "promoted")
        self._context.holding = False
        self._context.note("cutover_taken_back", lazy=False)

    # -- afterwards --------------------------------------------------------------------------------------------------

    def finish(self) -> dict[str, t.Any]:
        """Archive the new timeline from its beginning, hold WAL for those who come back, clear the side directory."""
        exchange = self._require()
        return self._finish(exchange) if exchange.stage != "done" else {"kept": exchange.kept}

    def _finish(self, exchange: Exchange) -> dict[str, t.Any]:
        session = self._handler.session()
        made = cutover_side.lacking_slots(session, exchange.slots)
        archives, current = session.row(_ARCHIVING) or (False, "")
        marked: list[str] = []
        if archives:
            data, owner = self._host.instance.data_directory, self._host.instance.os_user
            marked = files.mark_for_archive(data, exchange.new_timeline, current, owner)
            session.execute("SELECT pg_catalog.pg_switch_wal()")  # the archiver looks at once
        left = self._clear(exchange)
        self._write(exchange, "done")
        self._handler.state = "idle"
        self._context.holding = False
        return {"kept": exchange.kept, "slots_made": made, "to_archive": marked, "left": left, "story": exchange.story}

    def _clear(self, exchange: Exchange) -> list[str]:
        """The side directory without its data: marker, settings and log are of no use any more."""
        folder = side.Folder(exchange.side)
        if side.read_marker(folder) is None:
            return []
        if os.path.lexists(folder.data):
            return [folder.data]
        return side.remove(folder)

    def alone(self) -> None:
        """The dead-man."""
        found = self.settle()
        self._context.note("deadman_cutover_" + str(found["outcome"]), lazy=False)
