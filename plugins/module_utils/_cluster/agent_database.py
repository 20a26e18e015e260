# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent on a database host can do, whatever its role. PRIVATE.

The dead-man's rules here, by what was last ordered:

* armed: put the settings back, and say on the bulletin that no promotion will come (*disarmed*);
* stopped, not committed: start the primary again, nothing happened;
* committed (never primary again unless the candidate says *disarmed*): ask the candidate, then follow it or roll back;
* promoted: finish, there is only forward;
* renaming a database: take back what was not committed, wait for what is being committed;
* exchanging the data directory: put the old one back, unless the other one was told to start.
"""

from __future__ import annotations

import typing as t

from .._command import SystemRunner
from .._postgres import PsycopgSession, connect
from .._tools import auto_conf
from .._tools.service import InstanceService, postmaster_pid
from . import facts, settings
from .agent import Context
from .agent_cutover import CutoverVerbs
from .agent_primary import PrimaryVerbs
from .agent_standby import StandbyVerbs
from .agent_swap import SwapVerbs
from .exposure import exposed_since
from .member_config import DatabaseHost
from .model import as_dict

_DROP_SLOTS = (
    "SELECT slot_name, pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots"
    " WHERE slot_name = ANY(%s) AND slot_type = 'physical' AND NOT active"
)


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
        self.promised = False
        """Whether this host's bulletin says that it will not be promoted."""
        self.led: tuple[str, ...] = ()
        """Slots of members that are led to another host: idle here, they would keep WAL until the disk is full."""
        self.restore_values: dict[str, str | None] = {}
        self.primary = PrimaryVerbs(self)
        self.standby = StandbyVerbs(self)
        self.swap = SwapVerbs(self)
        self.cutover = CutoverVerbs(self)

    def verbs(self) -> t.Mapping[str, t.Callable[..., dict[str, t.Any]]]:
        return {
            **self.primary.verbs(),
            **self.standby.verbs(),
            **self.swap.verbs(),
            **self.cutover.verbs(),
            "observe": self.observe,
            "checkpoint": self.checkpoint,
            "disarm": self.disarm,
            "drop_slots": self.drop_slots,
            "losses": self.losses,
            "probe_rows": self.probe_rows,
            "finish": self.finish,
        }

    def session(self) -> PsycopgSession:
        """The open local session; opened again when the server was restarted meanwhile."""
        if self._session is None or self._session.connection.closed or self._session.connection.broken:
            self.close()
            self._session = connect(self.host.instance.local(), os_user=self.host.instance.os_user)
        return self._session

    def close(self) -> None:
        self.swap.close()
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
            self.restore_values.setdefault(name, settings.own_value(session, name))

    def checkpoint(self) -> dict[str, t.Any]:
        """CHECKPOINT (a restartpoint on a standby), so that the one at shutdown is short."""
        started = self.context.clock.monotonic()
        session = connect(self.host.instance.local(statement_timeout=600.0), os_user=self.host.instance.os_user)
        try:
            session.execute("CHECKPOINT")
        finally:
            session.close()
        return {"seconds": round(self.context.clock.monotonic() - started, 4)}

    def disarm(self, *, promise: bool = False) -> dict[str, t.Any]:
        """Put every setting back that arming changed.

        With `promise` the bulletin says so: no promotion will come in this operation. An old primary that nobody can
        reach any more may be waiting for this word. The short retry interval stays until `finish`, because the
        standby has to find a primary again that was stopped and started.
        """
        kept = {
            name: value for name, value in self.restore_values.items() if promise and name == settings.RETRY_INTERVAL
        }
        if self.restore_values and postmaster_pid(self.host.instance.data_directory):
            back = {name: value for name, value in self.restore_values.items() if name not in kept}
            word = f"{self.context.operation}:disarmed" if promise else None
            settings.alter_system(self.session(), {**back, settings.BULLETIN: word})
            self.promised = promise
            self.restore_values = kept
            self._drop(self.standby.made_slots)
            self.standby.made_slots = []
        self.state = "following" if kept else "idle"
        self.context.holding = False
        self.context.note("disarmed", lazy=False)
        return {}

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
        if exposed_since(self.host):  # commits may have been acknowledged alone
            waited_for = ""
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

    def finish(self, *, role: str) -> dict[str, t.Any]:
        """Take back what was only for the operation. A new primary checkpoints, so that others can rewind to it.

        A promise on the bulletin stays when the coordinator is gone: somebody may not have read it yet.
        """
        if postmaster_pid(self.host.instance.data_directory) is not None:
            kept = {"synchronous_standby_names", "primary_conninfo", "primary_slot_name"}
            temporary = {name: value for name, value in self.restore_values.items() if name not in kept}
            if not (self.promised and self.context.alone):
                temporary[settings.BULLETIN] = None
            settings.alter_system(self.session(), temporary)
            if role == "primary":
                self.checkpoint()
            else:
                self._drop(self.led)
        self.restore_values = {}
        self.state = "idle"
        self.context.holding = False
        return {}

    def drop_slots(self, *, names: t.Sequence[str]) -> dict[str, t.Any]:
        """Drop those of these slots that nobody uses."""
        return {"dropped": self._drop(names)}

    def _drop(self, names: t.Sequence[str]) -> list[str]:
        return [str(row[0]) for row in self.session().rows(_DROP_SLOTS, (list(names),))]

    def channel_lost(self) -> None:
        from .deadman_database import act

        act(self)
