# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carrying out a standby's plan. PRIVATE.

A copy is made in a directory beside the data directory and renamed into its place when it is complete,
synced and set up as a standby: whatever kills it before, nothing looks like a data directory that isn't one.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import typing as t

from .._clock import Clock, wait_until
from .._cluster import settings
from .._cluster.member_config import DatabaseHost
from .._command import CommandRunner
from .._errors import DeadlinePassed, HmsError, ToolFailed, expect
from .._files import remove_file, sync_directory, write_atomic
from .._postgres import Session, parse_lsn
from .._tools import auto_conf
from .._tools.pg_basebackup import PgBasebackup
from .._tools.pg_cluster_tools import PgCtlCluster
from .._tools.pgbackrest_standby import PgBackRestStandby
from .standby_inspect import CLONE_MARK, copies_into, inspect_upstream, upstream_params
from .standby_model import Backup, LocalFacts, StandbyPlan, StandbyWish

ASIDE_MARK = ".before-reclone-"
SIGNAL_FILE = "standby.signal"

LocalConnect = t.Callable[[], Session]
"""Opens a session on the local socket."""


class StandbyApplier:
    """Does what a plan says, in its order."""

    def __init__(
        self,
        host: DatabaseHost,
        wish: StandbyWish,
        *,
        upstream: Session,
        connect_local: LocalConnect,
        runner: CommandRunner,
        clock: Clock,
        clone_timeout: float,
        pgbackrest: PgBackRestStandby | None = None,
    ) -> None:
        self._host = host
        self._wish = wish
        self._upstream = upstream
        self._connect_local = connect_local
        self._runner = runner
        self._clock = clock
        self._clone_timeout = clone_timeout
        self._pgbackrest = pgbackrest
        self._unfinished = ""
        self.kept_directory = ""
        """Where the old data directory was kept, if it was."""
        self.warnings: list[str] = []

    def apply(self, plan: StandbyPlan, local: LocalFacts) -> None:
        """Carry the plan out."""
        steps: dict[str, t.Callable[[], None]] = {
            "create_slot": self._create_slot,
            "create_idle_slot": lambda: self._create_slot(keep_wal=False),
            "drop_slot": self._drop_slot,
            "stop": self._stop,
            "set_aside": self._set_aside,
            "reuse": self._reuse,
            "clone": lambda: self._clone(plan.backup),
            "signal": lambda: self._write_signal(self._wish.data_directory),
            "point": lambda: self._set(self._pointers(), running=local.member.running),
            "fetch": lambda: self._set(self._fetcher(), running=local.member.running),
        }
        for path in local.leftovers if plan.clones else ():
            self._end_copies(path)
            if plan.has("resume") and path == local.resumable:
                self._unfinished = path
            else:
                shutil.rmtree(path)
        if local.orphans:
            self._wait_slot_free()
        for action in plan.actions:
            if action.id in steps:
                steps[action.id]()

    def _stamp(self) -> str:
        return f"{self._clock.now():%Y%m%dT%H%M%SZ}"

    def _create_slot(self, *, keep_wal: bool = True) -> None:
        sql = "SELECT slot_name FROM pg_catalog.pg_create_physical_replication_slot(%s, %s)"
        self._upstream.execute(sql, (self._wish.slot, keep_wal))

    def _drop_slot(self) -> None:
        self._upstream.execute("SELECT pg_catalog.pg_drop_replication_slot(%s)", (self._wish.slot,))

    def _stop(self) -> None:
        instance = self._host.instance
        PgCtlCluster(self._runner, version=instance.version, name=instance.instance).stop()

    def _set_aside(self) -> None:
        self.kept_directory = self._wish.data_directory.rstrip("/") + ASIDE_MARK + self._stamp()
        os.rename(self._wish.data_directory, self.kept_directory)
        sync_directory(os.path.dirname(self.kept_directory))

    def _reuse(self) -> None:
        """Give the old data directory the name of an unfinished copy: from here on it is none."""
        self._unfinished = self._wish.data_directory.rstrip("/") + CLONE_MARK + self._stamp()
        os.rename(self._wish.data_directory, self._unfinished)
        sync_directory(os.path.dirname(self._unfinished))
        # that of a server that crashed; pgBackRest restores nothing where one lies
        remove_file(os.path.join(self._unfinished, "postmaster.pid"))

    def _end_copies(self, path: str) -> None:
        """End a copy that still fills a directory although nobody waits for it."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in copies_into(path):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            if wait_until(lambda: not copies_into(path), clock=self._clock, timeout=5.0, interval=0.1):
                break
        else:
            raise DeadlinePassed(
                f"A copy is still written into {path} (pids {copies_into(path)}) and does not end.",
                reason="orphan_copy",
                state="No data directory was touched.",
                next_step="End these processes by their pids and run again.",
            )

    def _wait_slot_free(self) -> None:
        """A slot stays in use for a moment after its user was ended."""

        def free() -> bool:
            slots = inspect_upstream(self._wish.upstream, self._upstream, with_size=False).slots
            return self._wish.slot not in slots or not slots[self._wish.slot].active

        wait_until(free, clock=self._clock, timeout=20.0, interval=0.2)

    def _clone(self, backup: Backup | None) -> None:
        data = self._wish.data_directory.rstrip("/")
        os.makedirs(os.path.dirname(data), mode=0o755, exist_ok=True)
        side = self._restore(backup) if backup is not None else ""
        if not side:
            side = self._new_side()
            self._copy(side)
        self._prepare(side)
        os.rename(side, data)
        sync_directory(os.path.dirname(data))

    def _new_side(self) -> str:
        side = self._wish.data_directory.rstrip("/") + CLONE_MARK + self._stamp()
        os.mkdir(side, mode=0o700)
        entry = pwd.getpwnam(self._host.instance.os_user)
        os.chown(side, entry.pw_uid, entry.pw_gid)
        return side

    def _copy(self, side: str) -> None:
        instance = self._host.instance
        tool = PgBasebackup(self._runner, bin_directory=instance.bin_directory, os_user=instance.os_user)
        tool.clone(
            upstream_params(self._host, self._wish.upstream),
            target=side,
            slot=self._wish.slot,
            label=f"hms.postgres standby {self._wish.member}",
            timeout=self._clone_timeout,
        )

    def _restore(self, backup: Backup) -> str:
        """Restore the backup; returns where, or '' where that failed and the upstream is to be copied instead."""
        tool = expect(self._pgbackrest, "pgBackRest")
        side = self._unfinished or self._new_side()
        try:
            tool.restore_standby(backup.label, target=side, resume=bool(self._unfinished), timeout=self._clone_timeout)
        except ToolFailed as error:
            if not self._wish.clone_fallback:
                raise
            self.warnings.append(f"{self._wish.member} was copied by pg_basebackup, for this failed: {error.message}")
            shutil.rmtree(side)
            return ""
        return side

    def _prepare(self, side: str) -> None:
        """Make the copy a standby before it gets its name."""
        # the restore_command that pgBackRest wrote there names the directory that it restored into
        changes = {**self._pointers(), **(self._fetcher() if self._wish.restore_command else {})}
        auto_conf.update(side, changes, owner=self._host.instance.os_user, remove=auto_conf.NODE_SETTINGS)
        self._write_signal(side)

    def _write_signal(self, directory: str) -> None:
        write_atomic(os.path.join(directory, SIGNAL_FILE), b"", mode=0o600, owner=self._host.instance.os_user)

    def _pointers(self) -> dict[str, str]:
        return {"primary_conninfo": self._wish.conninfo, "primary_slot_name": self._wish.slot}

    def _fetcher(self) -> dict[str, str]:
        return {"restore_command": self._wish.restore_command}

    def _set(self, values: t.Mapping[str, str], *, running: bool) -> None:
        if not running:
            auto_conf.update(self._wish.data_directory, values, owner=self._host.instance.os_user)
            return
        session = self._connect_local()
        try:
            settings.alter_system(session, values)
        finally:
            session.close()


def wait_streaming(
    host: DatabaseHost,
    wish: StandbyWish,
    *,
    connect_local: LocalConnect,
    clock: Clock,
    timeout: float,
    longest: float = 0.0,
) -> dict[str, t.Any]:
    """Wait until the standby streams from its upstream; returns what its receiver says.

    One that gets on with WAL from the archive is given another `timeout` each time, up to `longest` in all.
    """
    peer = host.peer(wish.upstream)
    seen: dict[str, t.Any] = {}
    begun = clock.monotonic()

    def streams() -> bool:
        seen.clear()
        seen.update(_receiver(connect_local))
        there = (seen.get("sender_host"), seen.get("sender_port")) == (peer.address, peer.port)
        return there and seen.get("status") == "streaming"

    while True:
        before = _replayed(connect_local)
        if wait_until(streams, clock=clock, timeout=timeout, interval=0.2):
            return dict(seen)
        gets_on = bool(wish.restore_command) and _replayed(connect_local) > before
        if not gets_on or clock.monotonic() - begun >= longest:
            break
    log = f"/var/log/postgresql/postgresql-{host.instance.version}-{host.instance.instance}.log"
    raise DeadlinePassed(
        f"{wish.member} does not stream from {wish.upstream} after {clock.monotonic() - begun:.0f} seconds: "
        f"{seen.get('error') or 'its receiver is ' + str(seen.get('status', 'not running'))}.",
        reason="not_streaming",
        state="The standby is set up, but "
        + ("still reads WAL from the archive." if gets_on else "does not receive WAL."),
        next_step=f"Read its log, {log}: it names what the upstream refused. If the upstream lacks the WAL, "
        f"allow a new copy: -e replication_allow_reclone={wish.member}.",
        details=dict(seen),
    )


def _replayed(connect_local: LocalConnect) -> int:
    """How far replay has come; 0 where that can't be asked."""
    try:
        session = connect_local()
    except HmsError:
        return 0
    try:
        return parse_lsn(str(session.value("SELECT pg_catalog.pg_last_wal_replay_lsn()") or "0/0"))
    except HmsError:
        return 0
    finally:
        session.close()


def _receiver(connect_local: LocalConnect) -> dict[str, t.Any]:
    try:
        session = connect_local()
    except HmsError as error:
        return {"error": error.message}
    try:
        row = session.row(
            "SELECT status, sender_host, sender_port, slot_name, received_tli FROM pg_catalog.pg_stat_wal_receiver"
        )
    except HmsError as error:
        return {"error": error.message}
    finally:
        session.close()
    if row is None:
        return {"status": "not running"}
    return dict(zip(("status", "sender_host", "sender_port", "slot_name", "timeline"), row))
