# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The side cluster on disk: its folder, its marker, its settings. PRIVATE."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
import shutil
import typing as t

from .._artifact.pgbackrest_restore import end_workers
from .._clock import Clock, wait_until
from .._errors import DeadlinePassed, HmsError, Refused
from .._files import dump_json, read_json, remove_file, sync_directory, write_atomic
from .._postgres import ConnectionParams, quote_literal
from .model import MARKER, Marker, Target

SCHEMA = 1
SOCKET_LIMIT = 107
"""Bytes that the path of a Unix socket may have."""
OURS = ("data", "tablespaces", "run", "spool", "lock", "log", "hba.conf", "ident.conf", "log.before")
HALF_WRITTEN = ".hms-"
"""How the names of files begin that a killed run was about to put in place."""
APPLICATION = "hms_pitr"


@dataclasses.dataclass(frozen=True)
class Folder:
    """The parts of a side directory."""

    path: str

    @property
    def data(self) -> str:
        """The data directory."""
        return os.path.join(self.path, "data")

    @property
    def tablespaces(self) -> str:
        """Where tablespaces go, each in a folder of its name."""
        return os.path.join(self.path, "tablespaces")

    @property
    def sockets(self) -> str:
        """The folder of the socket."""
        return os.path.join(self.path, "run")

    @property
    def log(self) -> str:
        """The server's log since its last start."""
        return os.path.join(self.path, "log")

    @property
    def marker(self) -> str:
        """The file that makes it ours."""
        return os.path.join(self.path, MARKER)

    def part(self, name: str) -> str:
        """Any other part."""
        return os.path.join(self.path, name)


def params(folder: Folder, port: int, os_user: str, database: str, *, timeout: float = 30.0) -> ConnectionParams:
    """How the side cluster is reached: by its own socket alone."""
    return ConnectionParams(
        host=folder.sockets, port=port, user=os_user, dbname=database, statement_timeout=timeout, connect_timeout=3
    )


def marker_data(marker: Marker) -> dict[str, t.Any]:
    """A marker as plain data."""
    return {"schema": SCHEMA, **dataclasses.asdict(marker)}


def marker_from(data: t.Any) -> Marker | None:
    """The inverse; None for what isn't one."""
    try:
        values = {field.name: data[field.name] for field in dataclasses.fields(Marker)}
        return Marker(**{**values, "target": Target(**values["target"])})
    except (TypeError, KeyError):
        return None


def read_marker(folder: Folder) -> Marker | None:
    """The marker, None where there is none."""
    try:
        return marker_from(read_json(folder.marker))
    except ValueError:
        return None


def write_marker(folder: Folder, marker: Marker) -> None:
    """Replace the marker durably."""
    write_atomic(folder.marker, dump_json(marker_data(marker)))


def make(folder: Folder, os_user: str, marker: Marker) -> None:
    """Make the directory with the marker first, so that a killed run leaves nothing that isn't known as ours."""
    entry = pwd.getpwnam(os_user)
    try:
        os.makedirs(folder.path, mode=0o700, exist_ok=True)
        os.chown(folder.path, entry.pw_uid, entry.pw_gid)
        os.chmod(folder.path, 0o700)
        write_marker(folder, marker)
        for part in (folder.data, folder.tablespaces, folder.sockets, folder.part("spool"), folder.part("lock")):
            os.makedirs(part, mode=0o700, exist_ok=True)
            os.chown(part, entry.pw_uid, entry.pw_gid)
        sync_directory(folder.path)
    except OSError as error:
        raise HmsError(
            f"The side directory {folder.path} can't be made: {error.strerror}.",
            reason="no_directory",
            phase="restore",
            state="The live cluster was not touched.",
            next_step="Name a directory that can be written.",
        ) from error


def prepare_data(folder: Folder) -> bool:
    """Whether files of an earlier restore can be built on; what can't be is cleared."""
    known = any(os.path.exists(os.path.join(folder.data, name)) for name in ("PG_VERSION", "backup.manifest"))
    if known:
        return True
    for place in (folder.data, folder.tablespaces):
        for name in os.listdir(place):
            _remove(os.path.join(place, name))
    return False


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        remove_file(path)


def remove(folder: Folder) -> list[str]:
    """Remove what is ours, the marker last; returns the names of what isn't, which stays."""
    for name in os.listdir(folder.path):
        if name in OURS or name.startswith(HALF_WRITTEN):
            _remove(folder.part(name))
    left = sorted(name for name in os.listdir(folder.path) if name != MARKER)
    remove_file(folder.marker)
    if not left:
        os.rmdir(folder.path)
        sync_directory(os.path.dirname(folder.path))
    return left


def check_path(folder: Folder, port: int) -> None:
    """Refuse a path that can't hold the socket, or that isn't absolute."""
    socket = os.path.join(folder.sockets, f".s.PGSQL.{port}")
    if not os.path.isabs(folder.path) or os.path.realpath(folder.path) in ("/", "/var", "/var/lib", "/etc", "/home"):
        raise Refused(
            f"{folder.path!r} can't be the directory of a side cluster.",
            reason="bad_directory",
            phase="plan",
            state="Nothing was touched.",
            next_step="Name an absolute path of a directory of its own.",
        )
    if len(socket.encode()) > SOCKET_LIMIT:
        raise Refused(
            f"{socket} is longer than a socket's path may be ({SOCKET_LIMIT} bytes).",
            reason="bad_directory",
            phase="plan",
            state="Nothing was touched.",
            next_step="Name a directory with a shorter path.",
        )


def server_settings(
    folder: Folder,
    *,
    port: int,
    limits: t.Mapping[str, int],
    libraries: t.Sequence[str],
    more: t.Mapping[str, str],
) -> dict[str, str]:
    """The side cluster's settings: reached by its own socket alone, archiving nothing, following nobody."""
    return {
        "shared_buffers": "128MB",
        **{name: str(value) for name, value in limits.items()},
        **more,
        "port": str(port),
        "listen_addresses": "",
        "unix_socket_directories": folder.sockets,
        "unix_socket_permissions": "0700",
        "hba_file": folder.part("hba.conf"),
        "ident_file": folder.part("ident.conf"),
        "cluster_name": APPLICATION,
        "archive_mode": "off",
        "archive_command": "",
        "primary_conninfo": "",
        "primary_slot_name": "",
        "hot_standby": "on",
        "shared_preload_libraries": ",".join(libraries),
        "restart_after_crash": "off",
        "ssl": "off",
        "logging_collector": "off",
        "log_destination": "stderr",
        "log_min_messages": "warning",
        "log_line_prefix": "%m [%p] ",
        "log_timezone": "UTC",
        "lc_messages": "C",
    }


def settings_text(settings: t.Mapping[str, str]) -> str:
    """Settings as a file."""
    lines = "".join(f"{name} = {quote_literal(value)}\n" for name, value in sorted(settings.items()))
    return "# Written by hms.postgres.pg_pitr for a side cluster.\n" + lines


def write_settings(folder: Folder, os_user: str, settings: t.Mapping[str, str]) -> None:
    """Replace whatever configuration the backup brought along."""
    write_atomic(os.path.join(folder.data, "postgresql.conf"), settings_text(settings), owner=os_user)
    write_atomic(folder.part("hba.conf"), f"local all {os_user} peer\n", owner=os_user)
    write_atomic(folder.part("ident.conf"), "", owner=os_user)


def write_recovery(folder: Folder, os_user: str, target: Target, restore_command: str) -> None:
    """What to recover from and to: in the file that has the last word, in place of all that ALTER SYSTEM had set."""
    settings = {"restore_command": restore_command, **target.settings()}
    write_atomic(os.path.join(folder.data, "postgresql.auto.conf"), settings_text(settings), owner=os_user)
    write_atomic(os.path.join(folder.data, "recovery.signal"), "", owner=os_user)


def postmaster(folder: Folder) -> int | None:
    """The living server's process id."""
    try:
        with open(os.path.join(folder.data, "postmaster.pid"), encoding="utf-8") as source:
            pid = abs(int(source.readline()))
        os.kill(pid, 0)
        where = os.readlink(f"/proc/{pid}/cwd")
    except (OSError, ValueError):
        return None
    return pid if where == os.path.realpath(folder.data) else None


def lives_in(folder: Folder) -> bool:
    """Whether any process works in the data directory: a killed server's children outlive it for a moment."""
    data = os.path.realpath(folder.data)
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{entry.name}/cwd") == data:
                        return True
    return False


def clear_remains(folder: Folder, clock: Clock, seconds: float = 20.0) -> None:
    """Remove what a killed server left: its number may be another process's by now, and would stop the next one."""
    end_workers(folder.data)
    if not wait_until(lambda: not lives_in(folder), clock=clock, timeout=seconds, interval=0.1):
        raise HmsError(
            f"Processes of a server that is gone still work in {folder.data}.",
            reason="not_stopped",
            state="The live cluster was not touched.",
            next_step=f"End them (fuser -v {folder.data}) and run again.",
        )
    remove_file(os.path.join(folder.data, "postmaster.pid"))
    for name in os.listdir(folder.sockets):
        remove_file(os.path.join(folder.sockets, name))


def keep_log(folder: Folder) -> None:
    """Begin a new log; the one before is kept."""
    with contextlib.suppress(FileNotFoundError):
        os.replace(folder.log, folder.part("log.before"))


def read_log(folder: Folder, limit: int = 1 << 20) -> str:
    """The end of the log of this start."""
    try:
        with open(folder.log, "rb") as source:
            size = source.seek(0, os.SEEK_END)
            source.seek(max(0, size - limit))
            return source.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def wait_for_end(folder: Folder, clock: Clock, seconds: float = 60.0) -> None:
    """Wait until the server is down."""
    if not wait_until(lambda: postmaster(folder) is None, clock=clock, timeout=seconds, interval=0.1):
        raise DeadlinePassed(
            f"The side cluster in {folder.data} did not stop within {seconds:g} s.",
            reason="not_stopped",
            state="The live cluster was not touched.",
            next_step=f"See what it does: {folder.log}; end it, then run again.",
        )


def occupied(path: str) -> int:
    """Bytes on disk below a folder, without following links."""
    total = 0
    for where, _folders, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(where, name)).st_blocks * 512
    return total
