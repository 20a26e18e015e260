# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sync guard as a service: looks once a second, lets `sync_guard` decide, does it and writes it down. PRIVATE.

It keeps one session on the local socket, so that clients who wait by the hundred do not keep it out. Losing the
session, a restart of the server and a change of its role are all just something else to see. It holds nothing that
others could have to wait for, and can be ended at any moment.

An exposed interval is opened before ``synchronous_standby_names`` is emptied, which is done by ALTER SYSTEM: what the
file says at a crash is at least as strict as what commits did.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
import typing as t

from .._clock import Clock, SystemClock, iso
from .._errors import DeadlinePassed, HmsError, expect
from .._files import HeldLock
from .._postgres import Session, connect, format_lsn, parse_lsn
from . import member_config, settings
from .agent import LOCK_FILE
from .exposure import ExposureFile, Mark
from .member_config import DatabaseHost
from .sync_guard import Decision, Look, Memory, Standby, decide

INTERVAL = 1.0
TURN_LIMIT = 15
"""Seconds after which a look at a frozen server is broken off."""

SHORTEST = 1.0
SYNC_NAMES = "synchronous_standby_names"

_STATE = """
SELECT NOT pg_catalog.pg_is_in_recovery(),
       pg_catalog.pg_postmaster_start_time()::text,
       pg_catalog.current_setting('synchronous_standby_names'),
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN coalesce(pg_catalog.pg_last_wal_replay_lsn(), '0/0')::text
            ELSE pg_catalog.pg_current_wal_flush_lsn()::text END,
       (SELECT coalesce(max(restart_lsn), '0/0')::text FROM pg_catalog.pg_replication_slots
         WHERE slot_type = 'physical' AND slot_name = ANY(%s))
"""

_STANDBYS = """
SELECT application_name, state = 'streaming', sync_state IN ('sync', 'quorum'),
       coalesce(sent_lsn, '0/0')::text, coalesce(flush_lsn, '0/0')::text, coalesce(reply_time::text, '')
  FROM pg_catalog.pg_stat_replication WHERE state <> 'backup'
"""

Load = t.Callable[[], DatabaseHost]
Connect = t.Callable[..., Session]
Say = t.Callable[[str, bool], None]
"""Takes a sentence, and whether somebody must hear it."""


def see(session: Session, look: Look) -> Look:
    """`look`, with what the server says."""
    slots = [member_config.slot_name(name) for name in look.eligible]
    row = expect(session.row(_STATE, (slots,)), "the row of a SELECT without FROM")
    bulletin, word = settings.read_bulletin(session)
    if word == "disarmed":  # an operation's last word: it is over
        bulletin = ""
    standbys = tuple(
        Standby(row[0], bool(row[1]), bool(row[2]), parse_lsn(row[3]), parse_lsn(row[4]), row[5])
        for row in session.rows(_STANDBYS)
    )
    return dataclasses.replace(
        look,
        primary=bool(row[0]),
        server=row[1],
        names=row[2],
        lsn=parse_lsn(row[3]),
        confirmed_lsn=parse_lsn(row[4]),
        standbys=standbys,
        operation=look.operation or bulletin,
    )


def unseen(host: DatabaseHost, at: float, *, exposed: bool) -> Look:
    """What is known without asking the server."""
    holder = HeldLock(os.path.join(host.state_directory, LOCK_FILE)).look()
    return Look(
        at=at,
        policy=host.sync_policy,
        wanted=member_config.synchronous_standby_names(host.sync_policy, host.name, host.members),
        eligible=frozenset(peer.name for peer in host.members if peer.may_be_primary and peer.name != host.name),
        degrade_after=max(SHORTEST, host.degrade_after_seconds),
        operation=str(holder.get("id") or "unknown") if holder else "",
        exposed=exposed,
    )


class SyncGuard:
    """Looks, decides, acts; one `turn` at a time."""

    def __init__(self, load: Load, *, clock: Clock, say: Say, connector: Connect = connect) -> None:
        self._load = load
        self._clock = clock
        self._say = say
        self._connect = connector
        self._session: Session | None = None
        self._memory = Memory()
        self._said = ""

    def turn(self) -> Decision:
        """One look and what follows from it. What goes wrong is said, and seen again next time."""
        try:
            return self._turn()
        except (HmsError, OSError) as error:
            self.close()
            text = error.full_text() if isinstance(error, HmsError) else str(error)
            self._tell(f"Nothing can be seen or done now: {text}", loud=True)
            return Decision("none", text, self._memory)

    def _turn(self) -> Decision:
        host = self._load()
        exposure = ExposureFile(host.state_directory)
        look = unseen(host, self._clock.monotonic(), exposed=bool(exposure.open_since()))
        error = ""
        if look.policy == "degrade":
            try:
                look = see(self._open(host), look)
            except HmsError as failure:
                self.close()
                error = f" {failure.message}"
        decision = decide(look, self._memory)
        self._memory = decision.memory
        if decision.action == "none":
            self._tell(decision.why + error, loud=bool(error) or (look.primary is True and not look.names))
        else:
            self._act(host, exposure, look, decision)
        return decision

    def _open(self, host: DatabaseHost) -> Session:
        if self._session is None:
            params = dataclasses.replace(
                host.instance.local(statement_timeout=3.0), application_name="hms.postgres sync-guard", lock_timeout=2.0
            )
            self._session = self._connect(params, os_user=host.instance.os_user)
        return self._session

    def close(self) -> None:
        """Let go of the session; the next turn opens another."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _tell(self, text: str, *, loud: bool = False) -> None:
        """Say what is new."""
        if text != self._said:
            self._said = text
            self._say(text, loud)

    def _act(self, host: DatabaseHost, exposure: ExposureFile, look: Look, decision: Decision) -> None:
        if decision.action in ("degrade", "open") and not look.exposed:
            self._write(exposure, Mark("started", "", look.lsn, decision.why, look.confirmed_lsn))
        if decision.action == "degrade":
            settings.alter_system(self._open(host), {SYNC_NAMES: ""})
            self._tell(
                f"DEGRADED: {decision.why}. Writes on {host.name} go on WITHOUT a standby from {format_lsn(look.lsn)} "
                "on; if this host is lost now, they are lost. Bring a standby back.",
                loud=True,
            )
        elif decision.action == "open":
            self._tell(f"EXPOSED: {decision.why}. Writes on {host.name} need be on no standby.", loud=True)
        elif decision.action == "restore":
            settings.alter_system(self._open(host), {SYNC_NAMES: look.wanted})
            self._tell(f"RESTORED: {decision.why}. Commits wait for {look.wanted} again.", loud=True)
        else:
            self._write(exposure, Mark("ended", "", look.lsn, decision.why))
            self._tell(f"The exposed interval has ended at {format_lsn(look.lsn)}: {decision.why}.", loud=True)

    def _write(self, exposure: ExposureFile, mark: Mark) -> None:
        """Write an end of an interval down. Where that fails, commits that wait are let go all the same."""
        try:
            exposure.append(dataclasses.replace(mark, at=iso(self._clock.now())))
        except OSError as error:
            self._tell(f"{exposure.path} can't be written ({error}); the {mark.event} mark is lost.", loud=True)


def _speak(text: str, loud: bool) -> None:
    """To standard error; the journal gets a priority in front, which systemd takes off."""
    level = ("<2>" if loud else "<5>") if os.environ.get("JOURNAL_STREAM") else ""
    sys.stderr.write(f"{level}hms-postgres sync-guard: {text}\n")
    sys.stderr.flush()


def _load_host(config_directory: str) -> DatabaseHost:
    host = member_config.load(config_directory)
    if not isinstance(host, DatabaseHost):
        raise HmsError(f"{host.name} is not a database host; there is nothing to guard.", reason="not_a_database_host")
    return host


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _break_off(_number: int, _frame: t.Any) -> None:
    raise DeadlinePassed(f"The server did not answer within {TURN_LIMIT} s.", reason="deadline_passed")


@contextlib.contextmanager
def _limited() -> t.Iterator[None]:
    signal.signal(signal.SIGALRM, _break_off)
    signal.alarm(TURN_LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)


def main(config_directory: str, *, once: bool = False) -> int:
    """Guard the instance described in `config_directory`, for ever or for one look. 0 unless a single look failed.

    It ends by itself when its program file was replaced; systemd starts the new one.
    """
    clock = SystemClock()
    guard = SyncGuard(lambda: _load_host(config_directory), clock=clock, say=_speak)
    program = os.path.abspath(sys.argv[0])
    started_from = _identity(program)
    try:
        if once:
            with _limited():
                decision = guard.turn()
            sys.stdout.write(json.dumps({"action": decision.action, "why": decision.why}) + "\n")
            return 0 if decision.memory.server[1] is not None else 1
        while _identity(program) == started_from:
            with _limited():
                guard.turn()
            clock.sleep(INTERVAL)
    finally:
        guard.close()
    _speak("The program was replaced; the new one is started.", False)
    return 0
