# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files as transactions: written aside, synced, renamed. PRIVATE to the collection."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import json
import os
import pwd
import tempfile
import time
import typing as t

_ATTEMPTS = 5
_BETWEEN_ATTEMPTS = 0.05


def sync_directory(path: str) -> None:
    """Make renames and creations in `path` durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_bytes(path: str) -> bytes | None:
    """The content, or None where there is no such file."""
    try:
        with open(path, "rb") as source:
            return source.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_json(path: str) -> t.Any:
    """The parsed content, or None where there is no such file. Raises ValueError when it isn't JSON."""
    content = read_bytes(path)
    return None if content is None else json.loads(content)


def _ids(owner: str | None, group: str | None) -> tuple[int, int]:
    uid = pwd.getpwnam(owner).pw_uid if owner else -1
    if group:
        return uid, grp.getgrnam(group).gr_gid
    return uid, pwd.getpwnam(owner).pw_gid if owner else -1


def same_file(path: str, data: bytes, *, mode: int, owner: str | None = None, group: str | None = None) -> bool:
    """Whether `path` already has this content, mode and owner."""
    if read_bytes(path) != data:
        return False
    status = os.stat(path)
    uid, gid = _ids(owner, group)
    return status.st_mode & 0o7777 == mode and uid in (-1, status.st_uid) and gid in (-1, status.st_gid)


def write_atomic(
    path: str, data: bytes | str, *, mode: int = 0o600, owner: str | None = None, group: str | None = None
) -> bool:
    """Make `path` hold `data`: temporary file beside it, fsync, rename, fsync of the folder.

    Returns whether anything was changed. The old content survives every failure.
    """
    content = data.encode() if isinstance(data, str) else data
    if same_file(path, content, mode=mode, owner=owner, group=group):
        return False
    directory = os.path.dirname(os.path.abspath(path))
    handle, temporary = tempfile.mkstemp(prefix=".hms-", dir=directory)
    try:
        with os.fdopen(handle, "wb") as target:
            target.write(content)
            os.fchmod(target.fileno(), mode)
            uid, gid = _ids(owner, group)
            if (uid, gid) != (-1, -1):
                os.fchown(target.fileno(), uid, gid)
            target.flush()
            os.fsync(target.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_directory(directory)
    return True


def remove_file(path: str) -> bool:
    """Remove `path` durably; returns whether it was there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    sync_directory(os.path.dirname(os.path.abspath(path)))
    return True


def dump_json(data: t.Any) -> str:
    """JSON as we write it to disk: sorted, indented, one newline at the end."""
    return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


class HeldLock:
    """A lock that dies with its process (flock), with a note about who holds it.

    The kernel releases it when the holder ends, however it ends, so there is no stale lock to clear.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._handle: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._handle is not None

    def acquire(self, note: t.Mapping[str, t.Any]) -> dict[str, t.Any] | None:
        """Take the lock and leave `note`; returns None, or the note of the one who has it."""
        handle = self._open()
        if not self._take(handle):
            os.close(handle)
            return self.holder() or {"id": "unknown", "by": "unknown"}
        self._handle = handle
        self.leave_note(note)
        return None

    def _open(self) -> int:
        """The lock file; where the disk has no room for one, the folder it would be in: that can be locked as well."""
        folder = os.path.dirname(self.path)
        os.makedirs(folder, mode=0o755, exist_ok=True)
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise
            return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    @staticmethod
    def _take(handle: int) -> bool:
        """Lock it, trying for a moment: somebody may only be looking, or be about to let go."""
        for _attempt in range(_ATTEMPTS):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            time.sleep(_BETWEEN_ATTEMPTS)
        return False

    def look(self) -> dict[str, t.Any] | None:
        """The note of the one who has the lock now, or None; changes nothing."""
        if self.held:
            return None
        for _attempt in range(_ATTEMPTS):
            if not self._taken():
                return None
            note = self.holder()
            if note:
                return note
            time.sleep(_BETWEEN_ATTEMPTS)  # he is about to leave his note, or has wiped it to let go
        return {"id": "unknown", "by": "unknown"}

    def _taken(self) -> bool:
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def leave_note(self, note: t.Mapping[str, t.Any]) -> None:
        """Replace the note of a lock that is held; one that can't be written leaves the lock as good as it is."""
        if self._handle is not None:
            data = dump_json(dict(note)).encode()
            with contextlib.suppress(OSError):
                os.pwrite(self._handle, data, 0)
                os.ftruncate(self._handle, len(data))

    def add_to_note(self, **more: t.Any) -> None:
        """Add to the note of whoever has the lock: he reads it when he likes. Nothing where there is no note."""
        note = self.holder()
        if not note:
            return
        data = dump_json({**note, **more}).encode()
        with contextlib.suppress(OSError):
            handle = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(handle, data, 0)
                os.ftruncate(handle, len(data))
            finally:
                os.close(handle)

    def holder(self) -> dict[str, t.Any] | None:
        """The note in the lock file, whoever wrote it last."""
        try:
            note = read_json(self.path)
        except ValueError:
            return None
        return note if isinstance(note, dict) else None

    def release(self) -> None:
        """Let it go; harmless when it isn't held."""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, 0)
            os.close(self._handle)
            self._handle = None
