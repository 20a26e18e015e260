# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carrying out a rejoin's plan, one action at a time. PRIVATE."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import typing as t

from .._clock import Clock, wait_until
from .._command import CommandRunner
from .._errors import DeadlinePassed, HmsError, defect
from .._files import remove_file
from .._postgres import Session, connect
from .._tools import auto_conf, pg_rewind
from .._tools.service import InstanceService, postmaster_pid
from . import fencing, rejoin_mark, settings
from .member_config import DatabaseHost
from .model import Slot
from .rejoin_facts import RejoinInspector
from .rejoin_log import last_complaints, log_file
from .rejoin_model import Action, PrimaryFacts, RejoinFacts
from .rejoin_peers import Connect, ask
from .rejoin_plan import stale_slots
from .rejoin_rewind import RewindJob, clear_stale_locks

CHECKPOINT_PATIENCE = 330.0
"""A little more than PostgreSQL's default checkpoint_timeout, after which a checkpoint comes by itself."""
STOP_PATIENCE = 60.0
ORPHAN_PATIENCE = 6 * 3600.0
_POLL = 0.1

KEEP, HOLD = "wal_keep_size", "1TB"

_STANDBY_ONLY = (settings.BULLETIN, settings.RETRY_INTERVAL, "recovery_target_timeline")
"""Left by operations in postgresql.auto.conf; a standby starts without them."""

_RECEIVER = "SELECT status, coalesce(received_tli, 0), coalesce(slot_name, '') FROM pg_catalog.pg_stat_wal_receiver"
_SENDER = """
SELECT state FROM pg_catalog.pg_stat_replication WHERE application_name = %s ORDER BY state = 'streaming' DESC
"""
_OWN_SLOTS = """
SELECT slot_name, active, coalesce(wal_status, '') FROM pg_catalog.pg_replication_slots WHERE slot_type = 'physical'
"""
_SLOT_ACTIVE = "SELECT active FROM pg_catalog.pg_replication_slots WHERE slot_name = %s"
_DROP_SLOT = "SELECT pg_catalog.pg_drop_replication_slot(%s)"
_CREATE_SLOT = "SELECT slot_name FROM pg_catalog.pg_create_physical_replication_slot(%s, true)"


Recloner = t.Callable[[DatabaseHost, str], tuple[str, str]]
"""Puts a new copy of the named member in the data directory's place; tells what it did and where the old one is."""


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long things may take, in seconds."""

    stream: float = 120.0
    checkpoint: float = CHECKPOINT_PATIENCE


class RejoinApplier:
    """Does one action; each checks or repeats harmlessly what already holds."""

    def __init__(
        self,
        host: DatabaseHost,
        inspector: RejoinInspector,
        job: RewindJob,
        *,
        runner: CommandRunner,
        clock: Clock,
        connector: Connect,
        recloner: Recloner,
        patience: Patience,
    ) -> None:
        self._host = host
        self._inspector = inspector
        self._job = job
        self._runner = runner
        self._clock = clock
        self._connector = connector
        self._recloner = recloner
        self._patience = patience
        instance = host.instance
        self._service = InstanceService(
            runner, version=instance.version, instance=instance.instance, data_directory=instance.data_directory
        )
        self.kept_directory = ""
        """The old data directory, where a new copy took its place."""

    def do(self, action: Action, facts: RejoinFacts) -> str:
        """Carry out one action; returns what came of it."""
        if facts.primary is None:
            raise defect("primary")
        primary = facts.primary
        work: dict[str, t.Callable[[], str]] = {
            "await_rewind": self._await_rewind,
            "stop": self._stop,
            "create_slot": lambda: self._create_slot(primary, renew=False),
            "renew_slot": lambda: self._create_slot(primary, renew=True),
            "list_losses": lambda: self._job.list_losses(facts),
            "recover": self._job.recover,
            "keep_wal": lambda: self._job.keep(facts),
            "await_checkpoint": lambda: self._await_checkpoint(primary),
            "rewind": lambda: self._job.rewind(facts, primary),
            "resume_rewind": lambda: self._job.resume(facts, primary),
            "sync": self._job.sync,
            "reclone": lambda: self._reclone(primary),
            "configure": lambda: self._configure(primary),
            "point": lambda: self._point(primary),
            "signal": self._signal,
            "unfence": self._unfence,
            "start": self._start,
            "verify": lambda: self._verify(primary),
            "drop_stale_slots": lambda: self._drop_stale_slots(facts, primary),
        }
        return work[action.id]()

    @property
    def _data(self) -> str:
        return self._host.instance.data_directory

    def _local(self) -> Session:
        instance = self._host.instance
        return connect(instance.local(), os_user=instance.os_user)

    # -- getting it down ------------------------------------------------------------------------------------------

    def _await_rewind(self) -> str:
        """A pg_rewind left behind by a killed run is not ours to kill: half a rewind is worse than a whole one."""
        if not wait_until(
            lambda: not pg_rewind.running_on(self._data), clock=self._clock, timeout=ORPHAN_PATIENCE, interval=0.5
        ):
            raise DeadlinePassed(
                f"A pg_rewind of an earlier run still works on {self._data}: {pg_rewind.running_on(self._data)}.",
                reason="orphan_rewind",
                state="The server is down.",
                next_step="End that process by its pid and run again; the rewind is then repeated.",
            )
        return "it has ended"

    def _stop(self) -> str:
        """A fast shutdown, for which the log is held: its checkpoint would drop what a rewind reads."""
        started = self._clock.monotonic()
        before = self._hold_log()
        for number, patience in ((signal.SIGINT, STOP_PATIENCE), (signal.SIGQUIT, 10.0)):
            self._service.signal_postmaster(number)
            if wait_until(
                lambda: postmaster_pid(self._data) is None, clock=self._clock, timeout=patience, interval=0.05
            ):
                self._release_log(before)
                return f"stopped after {self._clock.monotonic() - started:.1f} s"
        raise DeadlinePassed(
            f"The server on {self._host.name} did not stop.",
            reason="stop_failed",
            state="It still runs.",
            next_step="Stop it by hand, then run again.",
        )

    def _hold_log(self) -> str | None:
        """Let no checkpoint drop WAL; returns what ALTER SYSTEM had set before."""
        session = self._local()
        try:
            before = settings.own_value(session, KEEP)
            settings.alter_system(session, {KEEP: HOLD})
            wait_until(
                lambda: session.value("SELECT pg_catalog.pg_size_bytes(current_setting(%s)) >= 1e12", (KEEP,)) is True,
                clock=self._clock,
                timeout=2.0,
                interval=0.05,
            )
        finally:
            session.close()
        return None if before == HOLD else before

    def _release_log(self, before: str | None) -> None:
        changes = {} if before is None else {KEEP: before}
        remove = (KEEP,) if before is None else ()
        auto_conf.update(self._data, changes, owner=self._host.instance.os_user, remove=remove)

    # -- the new primary ------------------------------------------------------------------------------------------

    def _create_slot(self, primary: PrimaryFacts, *, renew: bool) -> str:
        session = self._inspector.replication(primary.name)
        try:
            if renew:
                session.execute(_DROP_SLOT, (self._host.slot_name,))
            session.execute(_CREATE_SLOT, (self._host.slot_name,))
        finally:
            session.close()
        return f"{self._host.slot_name} holds WAL on {primary.name} from now on"

    def _await_checkpoint(self, primary: PrimaryFacts) -> str:
        """Ask for a checkpoint if the replication role may (pg_checkpoint), and wait for it in any case."""
        peer = self._host.peer(primary.name)
        with contextlib.suppress(HmsError):
            session = self._inspector.replication(primary.name)
            try:
                session.execute("CHECKPOINT")
            finally:
                session.close()

        def checkpointed() -> bool:
            params = self._host.monitor.params(peer, dbname=self._host.database)
            answer = ask(peer, params, self._connector)
            return answer.control_timeline >= primary.answer.timeline

        if not wait_until(checkpointed, clock=self._clock, timeout=self._patience.checkpoint, interval=0.5):
            raise DeadlinePassed(
                f"{primary.name} has made no checkpoint on timeline {primary.answer.timeline} within "
                f"{self._patience.checkpoint:g} seconds, so pg_rewind would compare with its old timeline.",
                reason="no_checkpoint",
                state="Nothing was rewound.",
                next_step=f"Run CHECKPOINT on {primary.name}, then run again.",
            )
        return f"{primary.name} has made a checkpoint on timeline {primary.answer.timeline}"

    # -- the data directory ---------------------------------------------------------------------------------------

    def _reclone(self, primary: PrimaryFacts) -> str:
        """A copy beside the old data directory, which is kept under a dated name."""
        detail, self.kept_directory = self._recloner(self._host, primary.name)
        rejoin_mark.remove(self._host)
        return detail

    def _configure(self, primary: PrimaryFacts) -> str:
        """Everything a standby needs before it starts; then the mark of an unfinished rewind goes."""
        host = self._host
        fencing.write_standby_signal(host)
        mark, mark_state = rejoin_mark.read_state(host)
        detail = self._job.put_settings_back() if mark is not None and mark_state != "stale" else "settings unchanged"
        remove_file(os.path.join(self._data, "recovery.signal"))
        left = (KEEP,) if auto_conf.read(self._data).get(KEEP) == HOLD else ()
        auto_conf.update(
            self._data,
            {
                "primary_conninfo": host.primary_conninfo(host.peer(primary.name)),
                "primary_slot_name": host.slot_name,
            },
            owner=host.instance.os_user,
            remove=(*_STANDBY_ONLY, *left),
        )
        rejoin_mark.remove(host)
        return detail

    def _point(self, primary: PrimaryFacts) -> str:
        session = self._local()
        try:
            settings.alter_system(
                session,
                {
                    "primary_conninfo": self._host.primary_conninfo(self._host.peer(primary.name)),
                    "primary_slot_name": self._host.slot_name,
                },
            )
        finally:
            session.close()
        return f"primary_conninfo leads to {primary.name}"

    def _signal(self) -> str:
        fencing.write_standby_signal(self._host)
        return "written"

    # -- bringing it up -------------------------------------------------------------------------------------------

    def _unfence(self) -> str:
        fencing.unmark(self._host, keep_standby_signal=True)
        return f"start.conf says {fencing.start_conf(self._host)}; standby.signal stays"

    def _start(self) -> str:
        clear_stale_locks(self._host.instance)
        self._service.start_soon()
        return "being started"

    def _seen(self, primary: PrimaryFacts) -> dict[str, t.Any]:
        """Both sides of the stream; empty values where nothing is seen yet."""
        seen: dict[str, t.Any] = {"receiver": "", "timeline": 0, "sender": "", "slot_active": False, "error": ""}
        try:
            session = self._local()
        except HmsError as error:
            return {**seen, "error": error.message}
        try:
            row = session.row(_RECEIVER)
            if row is not None:
                seen.update(receiver=row[0] or "", timeline=int(row[1]))
        except HmsError as error:
            return {**seen, "error": error.message}
        finally:
            session.close()
        try:
            session = self._inspector.monitor(primary.name)
        except HmsError as error:
            return {**seen, "error": error.message}
        try:
            seen["sender"] = str(session.value(_SENDER, (self._host.name,)) or "")
            seen["slot_active"] = bool(session.value(_SLOT_ACTIVE, (self._host.slot_name,)))
        finally:
            session.close()
        return seen

    def _verify(self, primary: PrimaryFacts) -> str:
        started = self._clock.monotonic()
        seen: dict[str, t.Any] = {}
        wanted = {"receiver": "streaming", "sender": "streaming", "slot_active": True}

        def streams() -> bool:
            seen.update(self._seen(primary))
            if postmaster_pid(self._data) is None and self._clock.monotonic() - started > 10.0:
                return True  # it has died; the check below tells
            return self._holds(seen, wanted, primary)

        wait_until(streams, clock=self._clock, timeout=self._patience.stream, interval=_POLL)
        if not self._holds(seen, wanted, primary):
            raise self._not_streaming(seen, primary)
        took = self._clock.monotonic() - started
        return f"streams on timeline {seen['timeline']}, slot {self._host.slot_name} active, after {took:.1f} s"

    @staticmethod
    def _holds(seen: t.Mapping[str, t.Any], wanted: t.Mapping[str, t.Any], primary: PrimaryFacts) -> bool:
        return all(seen.get(key) == value for key, value in wanted.items()) and (
            seen.get("timeline", 0) >= primary.answer.timeline
        )

    def _not_streaming(self, seen: t.Mapping[str, t.Any], primary: PrimaryFacts) -> HmsError:
        running = postmaster_pid(self._data) is not None
        log = log_file(self._host)
        complaints = last_complaints(log)
        sides = f"its receiver is {seen.get('receiver') or 'absent'}, its sender {seen.get('sender') or 'absent'}"
        said = f" Its log says: {complaints[-1]}" if complaints else ""
        return DeadlinePassed(
            f"{self._host.name} does not stream from {primary.name}: {seen.get('error') or sides}.{said}",
            reason="not_streaming",
            phase="verify",
            state=f"It {'runs' if running else 'is down'}; it is set up as a standby and cannot become writable.",
            next_step=f"Read its log, {log}. If the primary no longer has the WAL it asks for, run again with "
            "-e allow_reclone=true; if it was only slow, run again as it is.",
            details={**seen, "log": complaints},
        )

    def _drop_stale_slots(self, facts: RejoinFacts, primary: PrimaryFacts) -> str:
        """Slots of when it was a primary would hold back WAL here for ever."""
        others = {answer.name for answer in facts.answers}
        session = self._local()
        try:
            own = [Slot(row[0], bool(row[1]), row[2], 0) for row in session.rows(_OWN_SLOTS)]
            stale = stale_slots(own, primary, others)
            for name in stale:
                session.execute(_DROP_SLOT, (name,))
        finally:
            session.close()
        return f"dropped {', '.join(stale)}" if stale else "none"
