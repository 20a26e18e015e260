# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A GnuPG home in memory for one run, and the removal of what killed runs left. PRIVATE to the collection."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
import typing as t

from .._errors import Refused

PREFIX = "hms-postgres-"
_PRIVATE = ("private-keys-v1.d", "openpgp-revocs.d")
_YOUNG = 60.0
_IN_MEMORY = ("tmpfs", "ramfs")


def mounted_as(path: str, mounts: str) -> str:
    """The kind of file system that `path` is on, by the text of ``/proc/self/mounts``; '' for none."""
    best, kind = "", ""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = fields[1].encode().decode("unicode_escape")
        if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, fields[2]
    return kind


def places() -> list[str]:
    """Folders in memory where a home may be made, the best first."""
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as source:
        mounts = source.read()
    wanted = ("/run", "/dev/shm") if os.geteuid() == 0 else (f"/run/user/{os.geteuid()}", "/dev/shm")
    return [path for path in wanted if mounted_as(path, mounts) in _IN_MEMORY and os.access(path, os.W_OK)]


class GpgHome:
    """The folder. It is locked as long as its owner lives, so that another run knows whether it may remove it."""

    def __init__(self, path: str, lock: int) -> None:
        self.path = path
        self._lock: int | None = lock

    @classmethod
    def make(cls) -> GpgHome:
        """A new one. What dead runs left is removed before."""
        found = places()
        if not found:
            raise Refused(
                "There is no file system in memory (tmpfs) at /run or /dev/shm; keys must not be written to a disk.",
                reason="no_tmpfs",
                phase="encryption",
                state="Nothing was touched; no backup was made.",
                next_step="Mount a tmpfs at /dev/shm.",
            )
        for place in found:
            sweep(place)
        path = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=found[0])
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return cls(path, lock)

    def remove_private(self) -> None:
        """Remove the private keys; nothing reads the old ones once their agent has ended."""
        for name in _PRIVATE:
            shutil.rmtree(os.path.join(self.path, name), ignore_errors=True)

    def remove(self) -> None:
        """Remove it; harmless when it is gone."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def sweep(place: str, *, now: t.Callable[[], float] = time.time) -> list[str]:
    """Remove the homes below `place` that are ours and whose run is dead; what was removed."""
    removed = []
    with os.scandir(place) as entries:
        candidates = [entry.path for entry in entries if entry.name.startswith(PREFIX)]
    for path in sorted(candidates):
        with contextlib.suppress(OSError):
            if _is_abandoned(path, now()):
                shutil.rmtree(path, ignore_errors=True)
                removed.append(path)
    return removed


def _is_abandoned(path: str, now: float) -> bool:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(handle)
        # one that was made this moment may not be locked yet
        if status.st_uid != os.geteuid() or abs(now - status.st_ctime) < _YOUNG:
            return False
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
