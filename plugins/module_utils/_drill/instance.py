# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The throwaway instance: its folder with a marker, its server, its roles, its end. PRIVATE.

Whatever a killed run leaves is known by the marker; the lock that dies with the run tells that nobody uses it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import typing as t

from .._artifact.pgbackrest_restore import end_workers
from .._clock import Clock, wait_until
from .._command import CommandRunner
from .._errors import HmsError, Refused
from .._files import dump_json, read_json, remove_file, write_atomic
from .._postgres import ConnectionParams, Session, quote_identifier, quote_literal
from .._tools.initdb import InitDb
from .._tools.pg_ctl import PgCtl, end_at_once

MARKER = "hms-restore-drill.json"
SOCKET_LIMIT = 107
"""Bytes that the path of a Unix socket may have."""
GUEST = "hms_drill_application"
"""The role that an application has on a throwaway instance: it may read."""
PORT = 5432
"""A number in the socket's name; nobody listens on a port."""
OWNED = ("data", "tablespaces", "run", "spool", "lock")
PARTS = (*OWNED, "app", "log", "state", "hba.conf", "ident.conf")
_LOG_END = 2000
_THROUGH = 0o710
"""A folder's group gets to what it knows the name of; others don't."""


class Folder:
    """The folder of a throwaway instance."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.data = os.path.join(path, "data")
        self.tablespaces = os.path.join(path, "tablespaces")
        self.sockets = os.path.join(path, "run")
        self.spool = os.path.join(path, "spool")
        self.lock = os.path.join(path, "lock")
        self.app = os.path.join(path, "app")
        self.hba = os.path.join(path, "hba.conf")
        self.ident = os.path.join(path, "ident.conf")
        self.log = os.path.join(path, "log")
        self.state = os.path.join(path, "state")
        self.marker = os.path.join(path, MARKER)

    def check(self, cluster: str) -> bool:
        """Whether an earlier run left something here; raises `Refused` where the folder is not ours to use."""
        if not os.path.isabs(self.path) or os.path.realpath(self.path).count("/") < 2:
            raise _refused(f"{self.path!r} can't be the folder of a throwaway instance.")
        if len(os.path.join(self.sockets, f".s.PGSQL.{PORT}").encode()) > SOCKET_LIMIT:
            raise _refused(f"{self.path} is too long for a socket below it ({SOCKET_LIMIT} bytes with its name).")
        if not os.path.lexists(self.path):
            return False
        if os.path.islink(self.path) or not os.path.isdir(self.path):
            raise _refused(f"{self.path} is no folder.")
        found = os.listdir(self.path)
        if not found:
            return False
        if self._marked_for() != cluster:
            raise _refused(f"{self.path} holds what no drill of {cluster} has made: {', '.join(sorted(found)[:5])}.")
        return True

    def _marked_for(self) -> str | None:
        try:
            found = read_json(self.marker)
        except ValueError:
            return None
        return str(found.get("cluster")) if isinstance(found, dict) else None

    def make(self, owner: str, note: t.Mapping[str, t.Any], *, guest: str = "") -> None:
        """Make it with the marker first, so that whatever is killed is known as ours.

        A `guest` is a user of the system who gets to a socket of his own, and to nothing else.
        """
        entry = pwd.getpwnam(owner)
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            os.chmod(self.path, 0o700)
            write_atomic(self.marker, dump_json(dict(note)))
            os.chown(self.path, entry.pw_uid, entry.pw_gid)
            for name in OWNED:
                part = os.path.join(self.path, name)
                os.mkdir(part, 0o700)
                os.chown(part, entry.pw_uid, entry.pw_gid)
            write_atomic(self.hba, hba_text(owner, guest), owner=owner)
            write_atomic(self.ident, ident_text(guest), owner=owner)
            if guest:
                self._let_through(entry.pw_uid, pwd.getpwnam(guest).pw_gid)
        except OSError as error:
            raise HmsError(
                f"The folder {self.path} of the throwaway instance can't be made: {error.strerror}.",
                reason="no_directory",
                next_step="Name a directory that can be written.",
            ) from error

    def _let_through(self, owner: int, group: int) -> None:
        """Let a group get to the guest's socket; all else in the folder is its owner's alone."""
        os.mkdir(self.app, 0o700)
        for path in (self.app, self.path):
            os.chown(path, owner, group)
            os.chmod(path, _THROUGH)

    def remove(self, clock: Clock) -> None:
        """End the server and remove what is ours, the marker last."""
        if not os.path.isdir(self.path):
            return
        end_workers(self.data)
        end_at_once(self.data, clock=clock)
        # a program of a killed run may still be writing its last file
        wait_until(self._empty, clock=clock, timeout=20.0, interval=0.2)
        left = [name for name in os.listdir(self.path) if name != MARKER]
        if left:
            raise HmsError(
                f"{self.path} can't be removed: {', '.join(sorted(left)[:5])} is left in it.",
                reason="not_removed",
                next_step="Look what it is, remove it, then run again.",
            )
        remove_file(self.marker)
        os.rmdir(self.path)

    def _empty(self) -> bool:
        for name in PARTS:
            path = os.path.join(self.path, name)
            with contextlib.suppress(OSError):
                if os.path.isdir(path) and not os.path.islink(path):
                    shutil.rmtree(path)
                else:
                    os.unlink(path)
        return not any(os.path.lexists(os.path.join(self.path, name)) for name in PARTS)

    def log_end(self, limit: int = _LOG_END) -> str:
        """The end of the server's log."""
        with contextlib.suppress(OSError), open(self.log, "rb") as source:
            source.seek(max(0, os.path.getsize(self.log) - limit))
            return source.read().decode("utf-8", "replace").strip()
        return ""


def _refused(message: str) -> Refused:
    return Refused(
        message,
        reason="bad_directory",
        phase="look",
        state="Nothing was touched.",
        next_step="Name an absolute path of a folder of its own (directory).",
    )


def owner_of(os_user: str | None) -> str:
    """The system's user that the server runs as."""
    return os_user or pwd.getpwuid(os.geteuid()).pw_name


def hba_text(owner: str, guest: str) -> str:
    """Who may come in: the server's own user over its socket, and the guest as a role without rights to write."""
    return (f"local all {GUEST} peer map=drill\n" if guest else "") + f'local all "{owner}" peer\n'


def ident_text(guest: str) -> str:
    """Which user of the system is which role."""
    return f'drill "{guest}" {GUEST}\n' if guest else ""


def settings_text(folder: Folder, settings: t.Mapping[str, str], more: t.Mapping[str, str] | None = None) -> str:
    """The server's settings: those of a real one as far as they cost time, but reached by its own sockets alone."""
    guests = os.path.isdir(folder.app)
    wanted = {
        "shared_buffers": "128MB",
        "max_wal_size": "2GB",
        "max_connections": "50",
        "shared_preload_libraries": "",
        # in its folder, so that nothing is left elsewhere of a server that was killed
        "dynamic_shared_memory_type": "mmap",
        **settings,
        "listen_addresses": "",
        "port": str(PORT),
        "unix_socket_directories": f"{folder.sockets},{folder.app}" if guests else folder.sockets,
        # the folders around them say who gets to them
        "unix_socket_permissions": "0777" if guests else "0700",
        "hba_file": folder.hba,
        "ident_file": folder.ident,
        "cluster_name": "hms_restore_drill",
        "archive_mode": "off",
        "log_connections": "on",
        "logging_collector": "off",
        "log_destination": "stderr",
        "lc_messages": "C",
        **(more or {}),
    }
    return "".join(f"{name} = {quote_literal(value)}\n" for name, value in sorted(wanted.items()))


class Throwaway:
    """One instance, made for one backup."""

    def __init__(self, folder: Folder, *, os_user: str | None, runner: CommandRunner) -> None:
        self.folder = folder
        self._os_user = os_user
        self._runner = runner

    def make(
        self, bin_directory: str, settings: t.Mapping[str, str], note: t.Mapping[str, t.Any], *, guest: str = ""
    ) -> None:
        """Make and start an empty one."""
        owner, folder = owner_of(self._os_user), self.folder
        folder.make(owner, note, guest=guest)
        InitDb(self._runner, bin_directory=bin_directory, os_user=self._os_user).make(folder.data, superuser=owner)
        self.configure(settings, {})
        try:
            self.control(bin_directory).start(folder.data, log=folder.log)
        except HmsError as error:
            error.message = f"{error.message} Its log ends: {folder.log_end()}"
            raise

    def configure(self, settings: t.Mapping[str, str], more: t.Mapping[str, str]) -> None:
        """Write the settings into the file that has the last word."""
        path = os.path.join(self.folder.data, "postgresql.auto.conf")
        write_atomic(path, settings_text(self.folder, settings, more), owner=owner_of(self._os_user))

    def control(self, bin_directory: str) -> PgCtl:
        """What starts and stops its server."""
        return PgCtl(self._runner, bin_directory=bin_directory, os_user=self._os_user)

    def params(self, database: str, *, timeout: float = 600.0) -> ConnectionParams:
        """How it is reached."""
        user = owner_of(self._os_user)
        return ConnectionParams(
            host=self.folder.sockets, port=PORT, user=user, dbname=database, statement_timeout=timeout
        )


def create_roles(session: Session, roles: t.Mapping[str, bool]) -> list[str]:
    """Make the roles that are missing, none of which can log in."""
    there = {row[0] for row in session.rows("SELECT rolname::text FROM pg_catalog.pg_roles")}
    made = [name for name in roles if name not in there and not name.startswith("pg_")]
    for name in made:
        session.execute(f"CREATE ROLE {quote_identifier(name)} NOLOGIN{' SUPERUSER' if roles[name] else ''}")
    return made
