# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent on a database host can do. PRIVATE.

The dead-man's rules here, by what was last ordered:

* armed: put the settings back, and say on the bulletin that no promotion will come (*disarmed*);
* stopped, not committed: start the primary again, nothing happened;
* committed (never primary again unless the candidate says *disarmed*): ask the candidate, then follow it or roll back;
* promoted: finish, there is only forward.
"""

from __future__ import annotations

import signal
import typing as t

from .._command import SystemRunner
from .._errors import HmsError, expect
from .._postgres import PsycopgSession, connect, format_lsn
from .._tools import auto_conf, pg_controldata
from .._tools.pg_controldata import PgControldata
from .._tools.service import InstanceService, postmaster_pid
from .._tools.wal_files import newest_timeline
from . import facts, fencing, settings
from .agent import Context
from .member_config import DatabaseHost, slot_name, synchronous_standby_names
from .model import as_dict

_SLOT = "SELECT pg_catalog.pg_create_physical_replication_slot(%s, true)"
_HAS_SLOT = "SELECT true FROM pg_catalog.pg_replication_slots WHERE slot_name = %s"


class DatabaseHandler:
    """Verbs of a database host. Every verb checks what already holds, so that it can be given twice."""

    def __init__(self, host: DatabaseHost, context: Context) -> None:
        self.host = host
        self.context = context
        self.runner = SystemRunner()
        instance = host.instance
        self.service = InstanceService(
            self.runner, version=instance.version, instance=instance.instance, data_directory=instance.data_directory
        )
        self._session: PsycopgSession | None = None
        self.state = "idle"
        self.candidate = ""
        self.restore_values: dict[str, str | None] = {}
        self.made_slots: list[str] = []

    def verbs(self) -> t.Mapping[str, t.Callable[..., dict[str, t.Any]]]:
        return {
            "observe": self.observe,
            "checkpoint": self.checkpoint,
            "arm_candidate": self.arm_candidate,
            "arm_primary": self.arm_primary,
            "disarm": self.disarm,
            "stop_primary": self.stop_primary,
            "restart_primary": self.restart_primary,
            "await_shutdown_checkpoint": self.await_shutdown_checkpoint,
            "commit_demotion": self.commit_demotion,
            "start_standby": self.start_standby,
            "detach_receiver": self.detach_receiver,
            "position": self.position,
            "promote": self.promote,
            "follow": self.follow,
            "await_streaming": self.await_streaming,
            "fence": self.fence,
            "losses": self.losses,
            "set_sync_names": self.set_sync_names,
            "probe_rows": self.probe_rows,
            "finish": self.finish,
        }

    # -- looking ---------------------------------------------------------------------------------------------

    def session(self) -> PsycopgSession:
        """The open local session; opened again when the server was restarted meanwhile."""
        if self._session is None or self._session.connection.closed or self._session.connection.broken:
            self.close()
            self._session = connect(self.host.instance.local(), os_user=self.host.instance.os_user)
        return self._session

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def observe(self) -> dict[str, t.Any]:
        """The facts of this host, with its sync policy."""
        found = as_dict(facts.observe(self.host, runner=self.runner))
        return {"facts": found, "sync_policy": self.host.sync_policy}

    def note_before(self, session: PsycopgSession, *names: str) -> None:
        """Remember what ALTER SYSTEM had set, once: what is noted first is the state before the operation."""
        for name in names:
            value = None if name == settings.BULLETIN else settings.own_value(session, name)
            self.restore_values.setdefault(name, value)

    # -- arming: everything slow ---------------------------------------------------------------------------

    def checkpoint(self) -> dict[str, t.Any]:
        """CHECKPOINT (a restartpoint on a standby), so that the one at shutdown is short."""
        started = self.context.clock.monotonic()
        session = connect(self.host.instance.local(statement_timeout=600.0), os_user=self.host.instance.os_user)
        try:
            session.execute("CHECKPOINT")
        finally:
            session.close()
        return {"seconds": round(self.context.clock.monotonic() - started, 4)}

    def arm_candidate(self, *, operation: str, slots: t.Sequence[str], sync_names: str) -> dict[str, t.Any]:
        """Get ready to be promoted: slots for the others, who will be synchronous, no long sleep on the way."""
        session = self.session()
        made = [name for name in slots if not session.value(_HAS_SLOT, (name,))]
        for name in made:
            session.execute(_SLOT, (name,))
        self.made_slots = made
        self.note_before(session, settings.RETRY_INTERVAL, "synchronous_standby_names", settings.BULLETIN)
        settings.alter_system(
            session,
            {
                settings.RETRY_INTERVAL: settings.ARMED_RETRY_INTERVAL,
                "synchronous_standby_names": sync_names,
                settings.BULLETIN: f"{operation}:armed",
            },
        )
        self.state = "armed_candidate"
        self.context.holding = True
        self.context.note("armed_candidate", slots=made, sync_names=sync_names, lazy=False)
        return {"slots_created": made}

    def arm_primary(self, *, operation: str, candidate: str) -> dict[str, t.Any]:
        """Write down whom this primary will follow as a standby; without effect while it is primary."""
        session = self.session()
        self.candidate = candidate
        self.note_before(session, "primary_conninfo", "primary_slot_name", settings.BULLETIN)
        settings.alter_system(
            session,
            {
                "primary_conninfo": self.host.primary_conninfo(self.host.peer(candidate)),
                "primary_slot_name": self.host.slot_name,
                settings.BULLETIN: f"{operation}:armed",
            },
        )
        self.state = "armed_primary"
        self.context.holding = True
        self.context.note("armed_primary", candidate=candidate, lazy=False)
        return {}

    def disarm(self) -> dict[str, t.Any]:
        """Put every setting back that arming changed. What is promised by it: no promotion in this operation."""
        if self.restore_values and postmaster_pid(self.host.instance.data_directory):
            settings.alter_system(self.session(), self.restore_values)
            self.restore_values = {}
            self.drop_idle_slots(self.made_slots)
            self.made_slots = []
        self.state = "idle"
        self.context.holding = False
        self.context.note("disarmed", lazy=False)
        return {}

    # -- the old primary, planned ----------------------------------------------------------------------------

    def stop_primary(self, *, deadline: float) -> dict[str, t.Any]:
        """Fast shutdown; done as soon as pg_control says so, not when the last process has gone.

        Archiver and hung WAL senders may linger for a minute; they write nothing any more.
        """
        clock = self.context.clock
        started = clock.monotonic()
        data = self.host.instance.data_directory
        self.state = "stopped"
        self.context.note("stopping", lazy=True)
        self.service.signal_postmaster(signal.SIGINT)
        self.context.demand(
            lambda: self._control_state() == pg_controldata.SHUT_DOWN, "The primary's shutdown", timeout=deadline
        )
        quick = pg_controldata.quick_read(data)
        control = quick or self._controldata()
        return {
            "checkpoint_lsn": control.checkpoint_lsn,
            "timeline": control.timeline,
            "state": control.state,
            "seconds": round(clock.monotonic() - started, 6),
        }

    def _control_state(self) -> str:
        quick = pg_controldata.quick_read(self.host.instance.data_directory)
        return quick.state if quick else self._controldata().state

    def _controldata(self) -> pg_controldata.ControlData:
        tool = PgControldata(self.runner, bin_directory=self.host.instance.bin_directory)
        return tool.read(self.host.instance.data_directory)

    def commit_demotion(self) -> dict[str, t.Any]:
        """The point of no return on this side: from now on it can only come up as a standby."""
        fencing.write_standby_signal(self.host)
        self.state = "committed"
        self.context.note("committed_demotion", lazy=True)
        return {}

    def restart_primary(self, *, deadline: float) -> dict[str, t.Any]:
        """The way back before the point of no return: be the primary again."""
        clock = self.context.clock
        started = clock.monotonic()
        data = self.host.instance.data_directory
        fencing.remove_standby_signal(self.host)
        if self._control_state() in (pg_controldata.SHUT_DOWN, "shutting down"):
            self.wait_for_exit(deadline)
        if postmaster_pid(data) is None:
            self.service.start(timeout=deadline)
        self.state = "armed_primary"
        return {"seconds": round(clock.monotonic() - started, 4)}

    def wait_for_exit(self, deadline: float) -> None:
        """A postmaster that has shut down but not ended gets a moment, then SIGQUIT: pg_control is final already."""
        data = self.host.instance.data_directory
        clock = self.context.clock
        for number, patience in ((None, 1.0), (signal.SIGQUIT, 2.0), (signal.SIGKILL, deadline)):
            if number is not None:
                self.service.signal_postmaster(number)
            end = clock.monotonic() + patience
            while postmaster_pid(data) is not None and clock.monotonic() < end:
                clock.sleep(0.005)
            if postmaster_pid(data) is None:
                return

    def start_standby(self, *, deadline: float) -> dict[str, t.Any]:
        """Start the demoted instance as a standby of the candidate; *committed* it stays until the operation ends."""
        fencing.write_standby_signal(self.host)
        if self._control_state() == pg_controldata.SHUT_DOWN:
            self.wait_for_exit(deadline)
        if postmaster_pid(self.host.instance.data_directory) is None:
            self.service.start_soon()
        return {}

    # -- the candidate and its siblings -----------------------------------------------------------------------

    def await_shutdown_checkpoint(self, *, lsn: int, deadline: float) -> dict[str, t.Any]:
        """Wait until the record at `lsn`, the old primary's shutdown checkpoint, has been replayed here.

        A replay position beyond the record's start means that this record was replayed: records have no gaps.
        """
        session = self.session()
        sql = "SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_replay_lsn(), '0/0')::bigint"
        seen = 0

        def replayed() -> bool:
            nonlocal seen
            seen = int(session.value(sql) or 0)
            return seen > lsn

        if not self.context.wait_for(replayed, timeout=deadline):
            raise HmsError(
                f"{self.host.name} has replayed up to {format_lsn(seen)}, but the old primary's last record is at "
                f"{format_lsn(lsn)}.",
                reason="candidate_behind",
            )
        return {"replay_lsn": seen}

    def detach_receiver(self, *, deadline: float) -> dict[str, t.Any]:
        """Stop receiving WAL and show that no receiver is left: what is compared next can't grow any more."""
        session = self.session()
        self.note_before(session, "primary_conninfo", settings.RETRY_INTERVAL, settings.BULLETIN)
        self.context.holding = True
        self.state = "detached"
        settings.alter_system(session, {"primary_conninfo": "", settings.RETRY_INTERVAL: settings.ARMED_RETRY_INTERVAL})
        self.context.demand(
            lambda: not session.value("SELECT count(*) FROM pg_catalog.pg_stat_wal_receiver WHERE pid IS NOT NULL"),
            f"The end of the WAL receiver of {self.host.name}",
            timeout=deadline,
        )
        self.context.note("receiver_detached", lazy=True)
        return self.position()

    def position(self) -> dict[str, t.Any]:
        """Timeline and the last position that is safely here."""
        row = expect(
            self.session().row(
                "SELECT greatest("
                " pg_catalog.pg_wal_lsn_diff(coalesce(pg_catalog.pg_last_wal_receive_lsn(), '0/0'), '0/0'),"
                " pg_catalog.pg_wal_lsn_diff(coalesce(pg_catalog.pg_last_wal_replay_lsn(), '0/0'), '0/0'))::bigint,"
                " (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()),"
                " pg_catalog.pg_last_xact_replay_timestamp()"
            ),
            "the answer",
        )
        return {
            "lsn": int(row[0]),
            "timeline": max(int(row[1] or 0), newest_timeline(self.host.instance.data_directory)),
            "last_commit_at": row[2].isoformat() if row[2] else "",
        }

    def promote(self, *, deadline: float) -> dict[str, t.Any]:
        """Promote this standby. Once this verb has begun there is only forward."""
        clock = self.context.clock
        started = clock.monotonic()
        session = self.session()
        self.state = "promoted"
        self.context.note("promoting", lazy=True)
        if session.value("SELECT pg_catalog.pg_is_in_recovery()"):
            session.execute("SELECT pg_catalog.pg_promote(false)")
        self.context.demand(
            lambda: session.value("SELECT pg_catalog.pg_is_in_recovery()") is False,
            f"The promotion of {self.host.name}",
            timeout=deadline,
        )
        row = expect(
            session.row(
                "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()),"
                " pg_catalog.pg_current_wal_lsn()::text"
            ),
            "the answer",
        )
        return {
            "timeline": int(row[0][:8], 16),
            "lsn": row[1],
            "seconds": round(clock.monotonic() - started, 6),
        }

    def follow(self, *, upstream: str) -> dict[str, t.Any]:
        """Stream from `upstream` from now on."""
        session = self.session()
        self.note_before(session, settings.RETRY_INTERVAL)
        settings.alter_system(
            session,
            {
                "primary_conninfo": self.host.primary_conninfo(self.host.peer(upstream)),
                "primary_slot_name": self.host.slot_name,
                settings.RETRY_INTERVAL: settings.ARMED_RETRY_INTERVAL,  # under strict synchrony writes wait for it
                settings.BULLETIN: None,
            },
        )
        self.state = "following"
        self.context.note("following", upstream=upstream)
        return {}

    def await_streaming(self, *, timeline: int, deadline: float) -> dict[str, t.Any]:
        """Wait until this standby streams on `timeline`."""
        started = self.context.clock.monotonic()

        def streams() -> bool:
            try:
                row = self.session().row("SELECT status, received_tli FROM pg_catalog.pg_stat_wal_receiver")
            except HmsError:
                return False
            return row is not None and row[0] == "streaming" and (row[1] or 0) >= timeline

        self.context.demand(streams, f"Streaming of {self.host.name}", timeout=deadline, interval=0.05)
        return {"seconds": round(self.context.clock.monotonic() - started, 4)}

    def set_sync_names(self, *, primary: str, streaming: t.Sequence[str]) -> dict[str, t.Any]:
        """synchronous_standby_names as policy wants it, given which standbys stream."""
        wanted = synchronous_standby_names(self.host.sync_policy, primary, self.host.members)
        if self.host.sync_policy == "degrade" and not streaming:
            wanted = ""
        session = self.session()
        if session.value("SELECT pg_catalog.current_setting('synchronous_standby_names')") == wanted:
            return {"changed": False, "value": wanted}
        settings.alter_system(session, {"synchronous_standby_names": wanted})
        return {"changed": True, "value": wanted}

    # -- the old primary, unplanned ---------------------------------------------------------------------------

    def fence(self, *, operation: str, new_primary: str, reason: str) -> dict[str, t.Any]:
        """Mark, stop and prove: this instance takes no write any more, not even after a reboot."""
        note = fencing.mark(
            self.host, operation=operation, new_primary=new_primary, reason=reason, clock=self.context.clock
        )
        stopped = fencing.stop_hard(self.host, self.service, self.context.clock)
        self.close()
        self.state = "fenced"
        found = fencing.proofs(self.host, self.runner, self.context.clock)
        self.context.note("fenced", **stopped, lazy=True)
        return {"marker": note, "proofs": found, **stopped}

    def losses(self, *, timeline: int, lsn: int) -> dict[str, t.Any]:
        """What this stopped instance's WAL holds past `lsn`: the transactions that never replicated."""
        from .dossier import losses_since

        found = losses_since(
            data_directory=self.host.instance.data_directory,
            bin_directory=self.host.instance.bin_directory,
            timeline=timeline,
            lsn=lsn,
            runner=self.runner,
            os_user=self.host.instance.os_user,
        )
        waited_for = auto_conf.read(self.host.instance.data_directory).get("synchronous_standby_names", "")
        return {**found.as_record(), "waited_for": waited_for}

    def probe_rows(self, *, operation: str) -> dict[str, t.Any]:
        """Which of the write probe's rows are really here: per source, the sequence numbers."""
        session = connect(self.host.instance.local(self.host.database), os_user=self.host.instance.os_user)
        try:
            rows = session.rows(
                "SELECT source, pg_catalog.array_agg(seq ORDER BY seq) FROM hms.write_probe"
                " WHERE operation = %s GROUP BY source",
                (operation,),
            )
            session.execute("DELETE FROM hms.write_probe WHERE operation <> %s", (operation,))
        finally:
            session.close()
        return {"present": {row[0]: [int(seq) for seq in row[1]] for row in rows}}

    # -- afterwards ---------------------------------------------------------------------------------------------

    def finish(self, *, role: str) -> dict[str, t.Any]:
        """Take back what was only for the operation. A new primary checkpoints, so that others can rewind to it."""
        if postmaster_pid(self.host.instance.data_directory) is not None:
            session = self.session()
            kept = {"synchronous_standby_names", "primary_conninfo", "primary_slot_name"}
            temporary = {name: value for name, value in self.restore_values.items() if name not in kept}
            temporary.setdefault(settings.BULLETIN, None)
            settings.alter_system(session, temporary)
            if role == "primary":
                self.checkpoint()
            else:
                self.drop_idle_slots([slot_name(peer.name) for peer in self.host.members])
        self.restore_values = {}
        self.state = "idle"
        self.context.holding = False
        return {}

    def drop_idle_slots(self, names: t.Sequence[str]) -> list[str]:
        """Drop slots of members that stream from elsewhere now: an idle one keeps WAL until the disk is full."""
        rows = self.session().rows(
            "SELECT slot_name, pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots"
            " WHERE slot_name = ANY(%s) AND slot_type = 'physical' AND NOT active",
            (list(names),),
        )
        return [str(row[0]) for row in rows]

    def channel_lost(self) -> None:
        from .deadman_database import act

        act(self)
