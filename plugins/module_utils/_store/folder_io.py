# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files in the making and files being read: the two ends of a folder store. PRIVATE to the collection."""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import os
import secrets

from .._errors import HmsError
from .._files import sync_directory
from . import common
from .model import StoredObject

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What file systems without hard links answer (CIFS, exFAT, some FUSE).
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_REASON = {errno.ENOENT: "no_store", errno.ENOTDIR: "no_store"}
_NEXT = {
    errno.EACCES: "Give the account that runs the backup write access to the folder.",
    errno.EPERM: "Give the account that runs the backup write access to the folder.",
    errno.EROFS: "The file system is mounted read-only: look in the kernel's log why, and mount it read-write.",
    errno.ENOENT: "Create the folder, or mount the file system that it is on.",
    errno.ENOTDIR: "Something in the path is not a folder.",
    errno.EIO: "The disk reports errors: look in the kernel's log.",
    errno.ESTALE: "The network file system lost its server: mount it again.",
}


def folder_error(store: str, key: str, what: str, error: OSError) -> HmsError:
    """An error of the operating system, told for the reader on call."""
    number = error.errno or 0
    full = number in _FULL
    where = f"{store}/{key}" if key else store
    return HmsError(
        f"Cannot {what} {where}: {os.strerror(number) if number else error}.",
        reason="store_full" if full else _REASON.get(number, "store_failed"),
        state=common.state_after(what),
        next_step=(
            "Make room there, or let retention remove more; then run it again."
            if full
            else _NEXT.get(number, "Look at the folder and at the kernel's log, then run it again.")
        ),
        details={"store": store, "key": key, "errno": errno.errorcode.get(number, str(number))},
    )


def utc(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)


def stored_object(key: str, status: os.stat_result) -> StoredObject:
    tag = f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"
    return StoredObject(key=key, size=status.st_size, modified=utc(status.st_mtime), tag=tag)


def is_locked(path: str) -> bool:
    """Whether a living writer has this file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        # a file system that knows no locks can't tell: age alone must decide there
        return error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
    finally:
        os.close(handle)
    return False


class FolderReader:
    """A file being read."""

    def __init__(self, store: str, key: str, path: str) -> None:
        self._store, self._key = store, key
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise common.not_found(store, key) from error
        except OSError as error:
            raise folder_error(store, key, "read", error) from error
        with contextlib.suppress(OSError):
            os.posix_fadvise(self._handle, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def read(self, size: int) -> bytes:
        """At most `size` bytes, b"" at the end."""
        try:
            return os.read(self._handle, size)
        except OSError as error:
            raise folder_error(self._store, self._key, "read", error) from error

    def size(self) -> int:
        """How large it is now."""
        return os.fstat(self._handle).st_size

    def close(self) -> None:
        """Let go."""
        if self._handle >= 0:
            with contextlib.suppress(OSError):
                os.close(self._handle)
            self._handle = -1


class FolderWriter:
    """A file in the making."""

    def __init__(self, root: str, key: str, *, replace: bool = False) -> None:
        self._root, self._key, self._replace = root, key, replace
        self._path = os.path.join(root, key)
        self._folder, name = os.path.split(self._path)
        self._temporary = os.path.join(self._folder, f".{name}.{secrets.token_hex(8)}.part")
        self._handle = -1
        try:
            self._start()
        except OSError as error:
            self.abort()
            raise folder_error(root, key, "write", error) from error

    def _start(self) -> None:
        if not self._replace and os.path.lexists(self._path):
            raise common.exists(self._root, self._key)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        for attempt in range(5):
            self._make_folders()
            try:
                self._handle = os.open(self._temporary, flags, 0o600)
                break
            except FileNotFoundError:
                # somebody removed the last object beside us, and the empty folder with it
                if attempt == 4:
                    raise
        os.fchmod(self._handle, 0o600)
        with contextlib.suppress(OSError):
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _make_folders(self) -> None:
        """Make the folders below the root; the root itself may be a mount that is missing, so it is never made."""
        made = self._root
        for part in self._key.split("/")[:-1]:
            parent, made = made, os.path.join(made, part)
            try:
                os.mkdir(made, 0o700)
            except FileExistsError:
                continue
            sync_directory(parent)

    def write(self, data: bytes) -> None:
        """Add bytes."""
        if self._handle < 0:
            raise HmsError(f"{self._root}/{self._key} was written to after its end.", reason="defect")
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._handle, rest) :]
        except OSError as error:
            self.abort()
            raise folder_error(self._root, self._key, "write", error) from error

    def commit(self) -> StoredObject:
        """Make it visible, whole and durable."""
        if self._handle < 0:
            raise HmsError(f"{self._root}/{self._key} was ended before it was whole.", reason="defect")
        visible = False
        try:
            os.fsync(self._handle)
            self._make_visible()
            visible = True
            status = os.fstat(self._handle)
            sync_directory(self._folder)
        except FileExistsError as error:
            raise common.exists(self._root, self._key) from error
        except OSError as error:
            if visible and not self._replace:
                # visible, but perhaps gone after the next power cut: that is not what was promised
                with contextlib.suppress(OSError):
                    os.unlink(self._path)
            raise folder_error(self._root, self._key, "complete", error) from error
        finally:
            self.abort()
        return stored_object(self._key, status)

    def _make_visible(self) -> None:
        if self._replace:
            os.replace(self._temporary, self._path)
            return
        try:
            os.link(self._temporary, self._path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if os.path.lexists(self._path):
                raise FileExistsError(errno.EEXIST, "exists", self._path) from error
            os.rename(self._temporary, self._path)

    def abort(self) -> None:
        """Leave nothing."""
        if self._handle >= 0:
            with contextlib.suppress(OSError):
                os.close(self._handle)
            self._handle = -1
        with contextlib.suppress(OSError):
            os.unlink(self._temporary)
