# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keeping the log that a rewind destroys: real copies, synced and compared, before anything is touched. PRIVATE.

What is kept serves twice: as evidence of what was lost, and to finish a rewind that was killed half-way,
which leaves a data directory without its own log.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pwd
import typing as t

from .._errors import HmsError, Refused
from .._files import dump_json, read_json, sync_directory, write_atomic
from .._tools.pg_controldata import ControlData
from .._tools.pg_waldump import segment_start
from .dossier_wal import SEGMENT, CommonCheckpoint

DIVERGED = "diverged"
DOSSIER = "dossier.json"
CONTROL = "pg_control"
WAL = "pg_wal"
SETTINGS = "settings"
SPARE_BYTES = 64 * 1024 * 1024
"""Room left free after copying."""

_CHUNK = 1 << 20
_BIGGEST_SETTINGS_FILE = 1 << 20
_NOT_SETTINGS = frozenset(
    {
        "PG_VERSION", "postmaster.pid", "postmaster.opts", "current_logfiles", "backup_label", "backup_label.old",
        "backup_manifest", "tablespace_map", "tablespace_map.old", "standby.signal", "recovery.signal",
        "pg_internal.init",
    }
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class KeptFile:
    """A copy."""

    name: str
    """Its path below the folder."""
    bytes: int
    sha256: str


def folder(state_directory: str, operation: str) -> str:
    """Where an operation keeps what it found."""
    return os.path.join(state_directory, DIVERGED, operation)


def wal_to_keep(
    data_directory: str, control: ControlData, *, common: CommonCheckpoint | None, end_lsn: int | None
) -> list[str]:
    """The files of the log from the last common checkpoint to its end, and all history files."""
    size = control.wal_segment_size
    first = (common.redo_lsn if common else 0) // size * size
    names = sorted(os.listdir(os.path.join(data_directory, "pg_wal")))
    segments = [
        name
        for name in names
        if SEGMENT.match(name)
        and first <= segment_start(name, size)
        and (end_lsn is None or segment_start(name, size) <= end_lsn)
    ]
    return segments + [name for name in names if name.endswith(".history")]


def settings_files(data_directory: str) -> list[str]:
    """Files at the top of the data directory that hold settings or keys: a rewind replaces them by the source's."""
    found = []
    for entry in os.scandir(data_directory):
        if not entry.is_file(follow_symlinks=False) or entry.name in _NOT_SETTINGS:
            continue
        if entry.stat().st_size <= _BIGGEST_SETTINGS_FILE:
            found.append(entry.name)
    return sorted(found)


def _sources(data_directory: str, names: t.Sequence[str]) -> dict[str, str]:
    """Path below the folder → what is copied there."""
    sources = {os.path.join(WAL, name): os.path.join(data_directory, "pg_wal", name) for name in names}
    sources[CONTROL] = os.path.join(data_directory, "global", "pg_control")
    for name in settings_files(data_directory):
        sources[os.path.join(SETTINGS, name)] = os.path.join(data_directory, name)
    return sources


def check_room(target: str, needed: int) -> None:
    """Refuse before anything is touched when the copies would not fit."""
    existing = target
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing)
    room = os.statvfs(existing)
    free = room.f_bavail * room.f_frsize
    if free < needed + SPARE_BYTES:
        raise Refused(
            f"Keeping the diverged WAL needs {needed + SPARE_BYTES} bytes in {existing}, which has {free} free.",
            reason="no_room",
            state="Nothing was rewound; the old primary's files are as they were.",
            next_step=f"Make room there and run again; older folders in {os.path.dirname(target)} may be moved away.",
            details={"needed": needed + SPARE_BYTES, "free": free, "directory": existing},
        )


def keep(data_directory: str, names: t.Sequence[str], target: str) -> tuple[KeptFile, ...]:
    """Copy log, control file and settings into `target`; every copy is synced and read back. Can be repeated."""
    sources = _sources(data_directory, names)
    check_room(target, sum(os.path.getsize(path) for path in sources.values()))
    for directory in (os.path.dirname(target), target, os.path.join(target, WAL), os.path.join(target, SETTINGS)):
        os.makedirs(directory, mode=0o700, exist_ok=True)
    kept = tuple(_copy(source, target, name) for name, source in sorted(sources.items()))
    for directory in (os.path.join(target, WAL), os.path.join(target, SETTINGS), target, os.path.dirname(target)):
        sync_directory(directory)
    return kept


def _copy(source: str, target: str, name: str) -> KeptFile:
    path = os.path.join(target, name)
    digest = hashlib.sha256()
    size = 0
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(source, "rb") as reader, open(handle, "wb") as writer:
        while chunk := reader.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
        with contextlib.suppress(OSError):  # so that reading back reads the disk; not every filesystem can
            os.posix_fadvise(writer.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    copy = KeptFile(name, size, digest.hexdigest())
    if fingerprint(path) != copy.sha256:
        raise HmsError(
            f"The copy {path} differs from {source}.",
            reason="copy_differs",
            state="Nothing was rewound; the old primary's files are as they were.",
            next_step="Check the disk that holds the copies.",
        )
    return copy


def fingerprint(path: str) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as source:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_dossier(target: str, dossier: t.Mapping[str, t.Any], kept: t.Sequence[KeptFile]) -> str:
    """Write dossier.json, which makes the folder complete; returns its path."""
    path = os.path.join(target, DOSSIER)
    write_atomic(path, dump_json({**dossier, "files": [dataclasses.asdict(item) for item in kept]}))
    return path


def read_dossier(target: str) -> dict[str, t.Any] | None:
    """The dossier of a complete folder."""
    found = read_json(os.path.join(target, DOSSIER))
    return found if isinstance(found, dict) else None


def put_back(
    target: str,
    data_directory: str,
    *,
    os_user: str,
    below: str,
    only_missing: t.Callable[[str], bool] | None = None,
) -> list[str]:
    """Copy kept files back (`below`: ``pg_wal``, ``settings`` or ``pg_control``), checked; returns their names.

    With `only_missing`, files that are there are left alone, and of the others only those it wants are restored.
    """
    dossier = read_dossier(target) or {"files": []}
    places = {WAL: os.path.join(data_directory, "pg_wal"), SETTINGS: data_directory}
    restored = []
    for item in dossier["files"]:
        name = str(item["name"])
        if name.split("/", maxsplit=1)[0] != below:
            continue
        path = os.path.join(places.get(below, os.path.join(data_directory, "global")), os.path.basename(name))
        if not _to_restore(path, str(item["sha256"]), only_missing):
            continue
        if fingerprint(os.path.join(target, name)) != item["sha256"]:
            raise HmsError(
                f"The kept file {os.path.join(target, name)} is not what was kept.",
                reason="kept_file_damaged",
                state="The data directory is between two states.",
                next_step="Rejoin with allow_reclone=true.",
            )
        _install(os.path.join(target, name), path, os_user)
        restored.append(os.path.basename(name))
    return restored


def _to_restore(path: str, sha256: str, only_missing: t.Callable[[str], bool] | None) -> bool:
    if only_missing is not None:
        return only_missing(os.path.basename(path)) and not os.path.exists(path)
    return not os.path.exists(path) or fingerprint(path) != sha256


def _install(source: str, path: str, os_user: str) -> None:
    owner = pwd.getpwnam(os_user)
    temporary = path + ".hms"
    with open(source, "rb") as reader, open(temporary, "wb") as writer:
        while chunk := reader.read(_CHUNK):
            writer.write(chunk)
        os.fchmod(writer.fileno(), 0o600)
        os.fchown(writer.fileno(), owner.pw_uid, owner.pw_gid)
        writer.flush()
        os.fsync(writer.fileno())
    os.replace(temporary, path)
    sync_directory(os.path.dirname(path))
