# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guard of a staging folder: makes it, and removes it when whoever asked for it is done, or dead. PRIVATE.

It runs as a process of its own, from this file's text alone, so it imports nothing of ours. Its parent holds the other
end of its standard input. When that is closed, by the parent or by the kernel after a kill -9, it ends the programs
that still work in the folder (pg_dump's workers outlive a pg_dump that was killed) and removes the folder. It holds a
lock on the folder meanwhile; one that nobody holds is a dead run's, whose guard was killed too, and goes with the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import tempfile
import time

PREFIX = "hms-staging-"
PROGRAMS = ("pg_dump", "pg_restore", "tar")
_IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)
_ATTEMPTS = 10
_PATIENCE = 120.0
_PAUSE = 0.05


def take(path: str, how: int) -> int | None:
    """A lock on a folder, as a descriptor; None where somebody else's is in the way, or the folder is gone."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), os.lstat(path)):
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(handle)
    return None


def workers(path: str) -> list[int]:
    """The processes of the dump programs that have something below `path` among their arguments."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            program = os.path.basename(os.readlink(f"/proc/{name}/exe").replace(" (deleted)", ""))
            if program not in PROGRAMS:
                continue
            with open(f"/proc/{name}/cmdline", "rb") as source:
                if os.fsencode(path) in source.read():
                    found.append(int(name))
    return found


def remove(path: str, *, patience: float = _PATIENCE) -> bool:
    """End who works in a staging folder and remove it; whether it is gone."""
    deadline = time.monotonic() + patience
    while True:
        busy = workers(path)
        for pid in busy:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(path, ignore_errors=True)
        if not busy and not os.path.lexists(path):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)


def sweep(directory: str) -> tuple[list[str], list[str]]:
    """Remove what dead runs left in a directory; the names of what went, and of what could not be removed."""
    gone: list[str] = []
    left: list[str] = []
    for name in sorted(os.listdir(directory)):
        path = os.path.join(directory, name)
        if not name.startswith(PREFIX) or os.path.islink(path) or not os.path.isdir(path):
            continue
        if os.lstat(path).st_uid != os.geteuid():
            continue
        handle = take(path, fcntl.LOCK_EX)
        if handle is None:
            continue
        try:
            (gone if remove(path, patience=10.0) else left).append(name)
        finally:
            os.close(handle)
    return gone, left


def make(directory: str, identifier: str) -> str:
    """A new folder, locked as long as this process lives."""
    for _attempt in range(_ATTEMPTS):
        path = tempfile.mkdtemp(prefix=f"{PREFIX}{identifier}-", dir=directory)
        if take(path, fcntl.LOCK_SH) is not None:
            return path
    raise OSError(0, "somebody removes it as soon as it is made", directory)


def become(uid: int, gid: int, groups: list[int]) -> None:
    """Give up the rights of root for those of the user that dumps."""
    if os.geteuid() != uid:
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)


def answer(**found: object) -> None:
    """One line for the parent, and no other."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(found).encode() + b"\n")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    os.close(nothing)


def main(argv: list[str]) -> int:
    """Guard a folder in ``argv[0]`` whose name tells of ``argv[1]``, as user ``argv[2]``, group and groups behind."""
    directory, identifier = argv[:2]
    uid, gid, *groups = map(int, argv[2:])
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    os.umask(0o077)
    try:
        become(uid, gid, groups)
        gone, left = sweep(directory)
        path = make(directory, identifier)
    except OSError as error:
        answer(error=f"{error.strerror or error}")
        return 2
    answer(path=path, gone=gone, left=left)
    sys.stdin.buffer.read()
    return 0 if remove(path) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
