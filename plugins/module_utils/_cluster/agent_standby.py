# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent on a database host can do while its instance is a standby: the candidate and its siblings. PRIVATE."""

from __future__ import annotations

import contextlib
import typing as t

from .._errors import HmsError, expect
from .._postgres import PsycopgSession, format_lsn
from .._tools.wal_files import newest_timeline
from . import settings

if t.TYPE_CHECKING:  # pragma: no cover
    from .agent_database import DatabaseHandler

_IN_RECOVERY = "SELECT pg_catalog.pg_is_in_recovery()"
_SLOT = "SELECT pg_catalog.pg_create_physical_replication_slot(%s, true)"
_HAS_SLOT = "SELECT true FROM pg_catalog.pg_replication_slots WHERE slot_name = %s"
_RECEIVERS = "SELECT pid FROM pg_catalog.pg_stat_activity WHERE backend_type = 'walreceiver'"
_REPLAYED = "SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_replay_lsn(), '0/0')::bigint"
_POSITION = (
    "SELECT greatest("
    " pg_catalog.pg_wal_lsn_diff(coalesce(pg_catalog.pg_last_wal_receive_lsn(), '0/0'), '0/0'),"
    " pg_catalog.pg_wal_lsn_diff(coalesce(pg_catalog.pg_last_wal_replay_lsn(), '0/0'), '0/0'))::bigint,"
    " (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()),"
    " pg_catalog.pg_last_xact_replay_timestamp()"
)

RECEIVER_PATIENCE = 0.5
"""Seconds after which a receiver that didn't end by itself is ended: a startup process that sleeps, because replay is
paused or delayed on purpose, doesn't look at its settings."""


class StandbyVerbs:
    """Verbs for a standby. Every verb checks what already holds, so that it can be given twice."""

    def __init__(self, handler: DatabaseHandler) -> None:
        self._handler = handler
        self._host = handler.host
        self._context = handler.context
        self.made_slots: list[str] = []

    def verbs(self) -> dict[str, t.Callable[..., dict[str, t.Any]]]:
        """Verb → method."""
        return {
            "arm_candidate": self.arm_candidate,
            "await_shutdown_checkpoint": self.await_shutdown_checkpoint,
            "detach_receiver": self.detach_receiver,
            "position": self.position,
            "promote": self.promote,
            "follow": self.follow,
            "await_streaming": self.await_streaming,
        }

    def arm_candidate(self, *, operation: str, slots: t.Sequence[str], sync_names: str) -> dict[str, t.Any]:
        """Get ready to be promoted: slots for the others, who will be synchronous, no long sleep on the way.

        A promotion asks the archive several times; one that can't be reached would hold it up.
        """
        handler = self._handler
        session = handler.session()
        made = [name for name in slots if not session.value(_HAS_SLOT, (name,))]
        handler.note_before(session, settings.RETRY_INTERVAL, settings.RESTORE_COMMAND, "synchronous_standby_names")
        handler.state = "armed_candidate"
        self._context.holding = True
        self.made_slots = made
        for name in made:
            session.execute(_SLOT, (name,))
        settings.alter_system(
            session,
            {
                settings.RETRY_INTERVAL: settings.ARMED_RETRY_INTERVAL,
                settings.RESTORE_COMMAND: "",
                "synchronous_standby_names": sync_names,
                settings.BULLETIN: f"{operation}:armed",
            },
        )
        self._context.note("armed_candidate", slots=made, sync_names=sync_names, lazy=False)
        return {"slots_created": made}

    def await_shutdown_checkpoint(self, *, lsn: int, deadline: float) -> dict[str, t.Any]:
        """Wait until the record at `lsn`, the old primary's shutdown checkpoint, has been replayed here.

        A replay position beyond the record's start means that this record was replayed: records have no gaps.
        """
        session = self._handler.session()
        seen = 0

        def replayed() -> bool:
            nonlocal seen
            seen = int(session.value(_REPLAYED) or 0)
            return seen > lsn

        if not self._context.wait_for(replayed, timeout=deadline):
            raise HmsError(
                f"{self._host.name} has replayed up to {format_lsn(seen)}, but the old primary's last record is at "
                f"{format_lsn(lsn)}.",
                reason="candidate_behind",
            )
        return {"replay_lsn": seen}

    def detach_receiver(self, *, deadline: float) -> dict[str, t.Any]:
        """Stop receiving WAL and show that no receiver is left: what is compared next can't grow any more.

        Nor may it grow by what the archive has.
        """
        handler = self._handler
        session = handler.session()
        handler.note_before(session, "primary_conninfo", settings.RETRY_INTERVAL, settings.RESTORE_COMMAND)
        handler.state = "detached"
        self._context.holding = True
        settings.alter_system(
            session,
            {
                "primary_conninfo": "",
                settings.RESTORE_COMMAND: "",
                settings.RETRY_INTERVAL: settings.ARMED_RETRY_INTERVAL,
            },
        )
        asked = self._context.clock.monotonic()

        def gone() -> bool:
            left = [row[0] for row in session.rows(_RECEIVERS)]
            if left and self._context.clock.monotonic() - asked > RECEIVER_PATIENCE:
                self._end_receivers(session, left)
            return not left

        self._context.demand(gone, f"The end of the WAL receiver of {self._host.name}", timeout=deadline)
        self._context.note("receiver_detached", lazy=True)
        return self.position()

    @staticmethod
    def _end_receivers(session: PsycopgSession, pids: t.Sequence[int]) -> None:
        for pid in pids:
            session.execute("SELECT pg_catalog.pg_terminate_backend(%s)", (pid,))

    def position(self) -> dict[str, t.Any]:
        """Timeline and the last position that is safely here."""
        row = expect(self._handler.session().row(_POSITION), "the answer")
        return {
            "lsn": int(row[0]),
            "timeline": max(int(row[1] or 0), newest_timeline(self._host.instance.data_directory)),
            "last_commit_at": row[2].isoformat() if row[2] else "",
        }

    def promote(self, *, deadline: float) -> dict[str, t.Any]:
        """Promote this standby. Once this verb has begun there is only forward."""
        clock = self._context.clock
        started = clock.monotonic()
        self._handler.state = "promoted"
        self._context.holding = True
        self._context.note("promoting", lazy=True)
        self.order_promotion()
        session = self._handler.session()
        self._context.demand(
            lambda: session.value(_IN_RECOVERY) is False,
            f"The promotion of {self._host.name}",
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

    def order_promotion(self) -> None:
        """Ask for the promotion, unless it has happened; asking twice does no harm."""
        session = self._handler.session()
        if not session.value(_IN_RECOVERY):
            return
        try:
            session.execute("SELECT pg_catalog.pg_promote(false)")
        except HmsError:
            if session.value(_IN_RECOVERY):  # one that was ordered a moment ago may end between the two statements
                raise

    def follow(self, *, upstream: str) -> dict[str, t.Any]:
        """Stream from `upstream` from now on."""
        conninfo = self._host.primary_conninfo(self._host.peer(upstream))
        session = self._handler.session()
        self._handler.note_before(session, settings.RETRY_INTERVAL)
        settings.alter_system(
            session,
            {
                "primary_conninfo": conninfo,
                "primary_slot_name": self._host.slot_name,
                settings.RETRY_INTERVAL: settings.ARMED_RETRY_INTERVAL,  # under strict synchrony writes wait for it
                settings.BULLETIN: None,
            },
        )
        self._handler.state = "following"
        self._context.note("following", upstream=upstream)
        return {}

    def await_streaming(self, *, timeline: int, deadline: float) -> dict[str, t.Any]:
        """Wait until this standby streams on `timeline`."""
        started = self._context.clock.monotonic()
        sql = "SELECT status, received_tli FROM pg_catalog.pg_stat_wal_receiver"

        def streams() -> bool:
            with contextlib.suppress(HmsError):  # it starts at this moment
                row = self._handler.session().row(sql)
                return row is not None and row[0] == "streaming" and (row[1] or 0) >= timeline
            return False

        self._context.demand(streams, f"Streaming of {self._host.name}", timeout=deadline, interval=0.05)
        return {"seconds": round(self._context.clock.monotonic() - started, 4)}
