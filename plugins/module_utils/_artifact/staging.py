# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A folder for plaintext that must not outlive the run, whatever becomes of the run. PRIVATE to the collection.

``pg_dump --format=directory`` writes its files itself, so they lie on a disk for a while. A guard, a process of its
own, makes the folder and removes it: when we are done, when we fail, and when we are killed (see `staging_guard`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import pwd
import select
import stat
import subprocess
import sys
import time
import types
import typing as t

from .._command import clean_environment, identity
from .._errors import HmsError, Refused
from . import staging_guard
from .gpg_home import mounted_as

_BOOT = "import sys; n = int(sys.argv.pop(1)); exec(compile(sys.stdin.buffer.read(n), 'staging_guard', 'exec'))"
_ANSWER = 180.0
"""Seconds for the guard to begin: it removes what dead runs left first."""
_REMOVAL = 150.0
_ELSEWHERE = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "lustre", "beegfs", "afs", "glusterfs", "ocfs2"}
_ELSEWHERE |= {f"fuse.{name}" for name in ("sshfs", "glusterfs", "s3fs", "ceph", "rclone", "curlftpfs")}


@dataclasses.dataclass(frozen=True)
class StagingFacts:
    """The place where the directory format is written before it is encrypted.

    Attributes:
        free: bytes left there.
        problem: why it can't be used.
        beside_server: whether the server keeps its data on the same disk.
    """

    path: str
    free: int | None = None
    problem: Refused | None = None
    beside_server: bool = False


def look_at(directory: str, os_user: str | None, server_directory: str) -> StagingFacts:
    """What there is of a place for staging; nothing is made."""
    try:
        found = os.lstat(directory)
    except OSError as error:
        return StagingFacts(directory, problem=_unusable(directory, f"{error.strerror}", os_user))
    uid = os.geteuid() if os_user is None else pwd.getpwnam(os_user).pw_uid
    wrong = _wrong(directory, found, uid)
    if wrong:
        return StagingFacts(directory, problem=_unusable(directory, wrong, os_user))
    room = os.statvfs(directory)
    return StagingFacts(
        directory, free=room.f_bavail * room.f_frsize, beside_server=_same_disk(found, server_directory)
    )


def _wrong(directory: str, found: os.stat_result, uid: int) -> str:
    if not stat.S_ISDIR(found.st_mode):
        return "it is no folder"
    if found.st_uid != uid:
        return f"it belongs to {_name(found.st_uid)}"
    if found.st_mode & 0o077:
        return f"others can reach into it (mode {stat.S_IMODE(found.st_mode):04o})"
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as source:
        kind = mounted_as(os.path.realpath(directory), source.read())
    return f"it is not on this host ({kind})" if kind in _ELSEWHERE else ""


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user id {uid}"


def _same_disk(found: os.stat_result, server_directory: str) -> bool:
    with contextlib.suppress(OSError):
        return bool(server_directory) and os.stat(server_directory).st_dev == found.st_dev
    return False


def _unusable(directory: str, why: str, os_user: str | None) -> Refused:
    owner = os_user or _name(os.geteuid())
    return Refused(
        f"The staging_dir {directory} can't be used: {why}.",
        reason="staging_unusable",
        phase="look",
        state="Nothing was touched.",
        next_step=f"Give a folder on this host that is {owner}'s alone: install -d -m 0700 -o {owner} {directory}",
    )


class Staging:
    """The folder of one run, within `with`. It is gone behind it, or an error says that it isn't."""

    def __init__(self, directory: str, identifier: str, *, os_user: str | None) -> None:
        self._directory = directory
        self._identifier = identifier
        self._os_user = os_user
        self._lock: int | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._lifeline: int | None = None
        self.path = ""
        self.gone: tuple[str, ...] = ()
        """Folders of dead runs that were removed before."""

    def __enter__(self) -> Staging:
        try:
            self._start()
        except BaseException:
            self._let_go()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if self._let_go():
            return
        before = f" Before that: {error}" if error is not None else ""
        raise HmsError(
            f"The plaintext of this run in {self.path} could not be removed.{before}",
            reason="staging_left",
            phase="staging",
            next_step=f"Remove {self.path} now: it holds the database, unencrypted. Then find out why it stayed.",
        ) from error

    def _start(self) -> None:
        source = _source()
        reader, self._lifeline = os.pipe()
        try:
            # whoever else we start doesn't inherit the lifeline, so it breaks when we die
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _BOOT, str(len(source)), self._directory, self._identifier]
                + [str(number) for number in _numbers(self._os_user)],
                stdin=reader,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=clean_environment(),
                cwd="/",
                start_new_session=True,
            )
        finally:
            os.close(reader)
        os.write(self._lifeline, source)
        answer = self._answer(self._guard)
        if "path" not in answer:
            raise self._failed(str(answer.get("error") or "the process that would guard it did not start"))
        self.path, self.gone = str(answer["path"]), tuple(answer["gone"])
        if answer["left"]:
            raise self._failed(f"{', '.join(answer['left'])}, which holds plaintext of a dead run, can't be removed")
        # also when the guard is killed: the next run sees that somebody works here
        self._lock = staging_guard.take(self.path, fcntl.LOCK_SH)

    @staticmethod
    def _answer(guard: subprocess.Popen[bytes]) -> dict[str, t.Any]:
        output = t.cast(t.IO[bytes], guard.stdout)
        deadline, text = time.monotonic() + _ANSWER, b""
        with output:
            while not text.endswith(b"\n"):
                ready = select.select([output], [], [], max(0.0, deadline - time.monotonic()))[0]
                data = os.read(output.fileno(), 65536) if ready else b""
                if not data:
                    return {}
                text += data
        found: dict[str, t.Any] = json.loads(text)
        return found

    def _failed(self, why: str) -> HmsError:
        return HmsError(
            f"No folder for the dump could be made in {self._directory}: {why}.",
            reason="staging_unusable",
            phase="staging",
            next_step=f"See that {self._os_user or 'the user that runs this'} can write there, then run again.",
        )

    def _let_go(self) -> bool:
        """Have the guard remove it, or remove it where the guard is dead; whether it is gone."""
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
        if self._guard is not None:
            try:
                self._guard.wait(_REMOVAL)
            except subprocess.TimeoutExpired:
                self._guard.kill()
                self._guard.wait()
        clean = not self.path or not os.path.lexists(self.path) or staging_guard.remove(self.path)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        return clean


def _source() -> bytes:
    """The guard's text, from wherever this code is run: a folder or a zip file."""
    loader: t.Any = staging_guard.__loader__
    return str(loader.get_source(staging_guard.__name__)).encode()


def _numbers(os_user: str | None) -> list[int]:
    """User, group and further groups that the guard runs with."""
    other = identity(os_user)
    if not other:
        return [os.geteuid(), os.getegid()]
    return [other["user"], other["group"], *other["extra_groups"]]
