# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A folder as a store: written aside, synced, linked into place. PRIVATE to the collection.

While it is written, an object is ``.<name>.<random>.part`` beside its final name, locked by its writer: a lock ends
with its process, so debris and work in progress are told apart without asking how old they are.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import secrets
import typing as t

from .._files import sync_directory
from . import common
from .folder_io import FolderReader, FolderWriter, folder_error, is_locked, stored_object, utc
from .model import Debris, FolderSpec, StoredObject


class FolderStore:
    """A folder of this host, or a mounted one."""

    def __init__(self, spec: FolderSpec) -> None:
        self._root = os.path.normpath(spec.path)
        self.name = self._root

    def _path(self, key: str) -> str:
        return os.path.join(self._root, common.check_key(key))

    def check(self) -> None:
        """Whether it can be written, read and listed now; raises `Refused`."""
        probe = os.path.join(self._root, f".probe.{secrets.token_hex(8)}.part")
        try:
            with os.scandir(self._root):
                pass
            handle = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.write(handle, b"hms")
                os.fsync(handle)
                os.pread(handle, 3, 0)
            finally:
                os.close(handle)
                os.unlink(probe)
        except OSError as error:
            raise common.as_refused(folder_error(self._root, "", "use the folder", error)) from error

    def free_bytes(self) -> int | None:
        """Room left for whoever is not root."""
        try:
            status = os.statvfs(self._root)
        except OSError:
            return None
        return status.f_bavail * status.f_frsize

    def create(
        self,
        key: str,
        *,
        size_hint: int | None = None,
        lock_until: datetime.datetime | None = None,
    ) -> FolderWriter:
        """Start an object. A file needs no sizes of parts, and folders can't lock: the bucket's options do nothing."""
        del size_hint, lock_until
        return FolderWriter(self._root, common.check_key(key))

    def put(
        self,
        key: str,
        data: bytes,
        *,
        replace: bool = False,
        lock_until: datetime.datetime | None = None,
    ) -> None:
        """Store a small object at once; folders can't lock it."""
        del lock_until
        writer = FolderWriter(self._root, common.check_key(key), replace=replace)
        writer.write(data)
        writer.commit()

    def open(self, key: str) -> FolderReader:
        """Read an object as a stream."""
        return FolderReader(self._root, key, self._path(key))

    def get(self, key: str, *, limit: int = 64 * 1024 * 1024) -> bytes:
        """A small object whole."""
        reader = self.open(key)
        try:
            if reader.size() > limit:
                raise common.too_large(self._root, key, reader.size(), limit)
            return b"".join(iter(lambda: reader.read(1024 * 1024), b""))
        finally:
            reader.close()

    def list(self, prefix: str = "") -> t.Iterator[StoredObject]:
        """All objects under a prefix, by key."""
        for key, status in self._walk(prefix):
            if not common.TEMPORARY.match(os.path.basename(key)):
                yield stored_object(key, status)

    def _walk(self, prefix: str) -> t.Iterator[tuple[str, os.stat_result]]:
        """Every file whose key starts with `prefix`, in the order of keys: a folder sorts as its name with a slash."""
        start = prefix.rpartition("/")[0]
        folders = [start + "/" if start else ""]
        while folders:
            relative = folders.pop()
            if not relative or relative.endswith("/"):
                names = self._names(relative)
                folders += [relative + name for name in reversed(names) if _reachable(relative + name, prefix)]
                continue
            with contextlib.suppress(FileNotFoundError):
                yield relative, os.lstat(os.path.join(self._root, relative))

    def _names(self, relative: str) -> t.Sequence[str]:
        try:
            with os.scandir(os.path.join(self._root, relative)) as entries:
                found = [
                    entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)
                ]
        except FileNotFoundError as error:
            if relative:
                return []
            raise folder_error(self._root, "", "list", error) from error
        except NotADirectoryError:
            return []
        except OSError as error:
            raise folder_error(self._root, relative.rstrip("/"), "list", error) from error
        return sorted(name for name in found if relative or name != "lost+found/")

    def locked_until(self, key: str) -> datetime.datetime | None:
        """A folder locks nothing."""
        common.check_key(key)
        return None

    def remove(self, keys: t.Sequence[str]) -> None:
        """Remove objects, and the folders that they leave empty."""
        problems: dict[str, str] = {}
        touched: set[str] = set()
        for key in keys:
            path = self._path(key)
            try:
                os.unlink(path)
                touched.add(os.path.dirname(path))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                problems[key] = os.strerror(error.errno) if error.errno else str(error)
        for folder in touched:
            self._tidy(folder)
        if problems:
            raise common.not_removed(self._root, problems)

    def _tidy(self, folder: str) -> None:
        """Remove a folder and those above it as far as they are empty; make the removals durable."""
        while folder != self._root:
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                pass
            except OSError:
                break
            folder = os.path.dirname(folder)
        with contextlib.suppress(OSError):
            sync_directory(folder)

    def debris(self, prefix: str = "") -> t.Sequence[Debris]:
        """What interrupted writers left; not what a living one has."""
        found = []
        start = prefix.rpartition("/")[0]
        for path, status in self._walk(start + "/" if start else ""):
            folder, name = os.path.split(path)
            match = common.TEMPORARY.match(name)
            if not match or is_locked(os.path.join(self._root, path)):
                continue
            key = os.path.join(folder, match["name"])
            if key.startswith(prefix):
                found.append(Debris(key=key, upload=path, started=utc(status.st_mtime), size=status.st_size))
        return found

    def sweep(self, found: t.Sequence[Debris]) -> None:
        """Remove debris, unless a writer has come back to life."""
        problems: dict[str, str] = {}
        for item in found:
            path = os.path.normpath(os.path.join(self._root, item.upload))
            if not common.TEMPORARY.match(os.path.basename(path)) or not path.startswith(self._root + "/"):
                problems[item.upload] = "not a name that a writer gives"
                continue
            try:
                if not is_locked(path):
                    os.unlink(path)
            except FileNotFoundError:
                pass
            except OSError as error:
                problems[item.upload] = os.strerror(error.errno) if error.errno else str(error)
            self._tidy(os.path.dirname(path))
        if problems:
            raise common.not_removed(self._root, problems)


def _reachable(key: str, prefix: str) -> bool:
    """Whether `key`, or what is in that folder, can start with `prefix`."""
    return key.startswith(prefix) or (key.endswith("/") and prefix.startswith(key))
