# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Programs are run from argv lists, with a deadline and bounded output. PRIVATE to the collection."""

from __future__ import annotations

import dataclasses
import grp
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import typing as t

from ._errors import DeadlinePassed, ToolFailed, ToolMissing

OUTPUT_LIMIT = 4 * 1024 * 1024
"""Bytes of output kept of one program; what exceeds it is cut from the front of stderr and the end of stdout."""

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclasses.dataclass(frozen=True)
class CommandResult:
    """What a program left: exit code, output as text, seconds it took."""

    argv: tuple[str, ...]
    rc: int
    stdout: str
    stderr: str
    duration: float

    def check(self, what: str, *, state: str = "", next_step: str = "") -> CommandResult:
        """Raise `ToolFailed` unless the exit code is 0."""
        if self.rc == 0:
            return self
        tail = self.stderr.strip()[-4096:] or self.stdout.strip()[-4096:]
        raise ToolFailed(
            f"{what} failed: {os.path.basename(self.argv[0])} ended with {self.rc}: {tail}",
            reason="tool_failed",
            state=state,
            next_step=next_step,
            details={"argv": list(self.argv), "rc": self.rc, "stderr_tail": tail},
        )


class CommandRunner(t.Protocol):
    """Runs a program to its end."""

    def run(
        self,
        argv: t.Sequence[str],
        *,
        timeout: float,
        env: t.Mapping[str, str] | None = None,
        input_data: bytes | None = None,
        os_user: str | None = None,
    ) -> CommandResult:
        """Run `argv` for at most `timeout` seconds, as `os_user` where given."""


def find_program(name: str, *, directory: str | None = None, needed_for: str = "") -> str:
    """The absolute path of a program, or `ToolMissing` that says what needs it."""
    if directory:
        path = os.path.join(directory, name)
        if os.access(path, os.X_OK):
            return path
    found = shutil.which(name, path=SEARCH_PATH)
    if found:
        return found
    purpose = f" It is needed for {needed_for}." if needed_for else ""
    raise ToolMissing(
        f"The program {name} is not installed on this host.{purpose}",
        reason="tool_missing",
        state="Nothing was touched.",
        next_step="Install it, or run playbooks/site.yml for this host.",
    )


def clean_environment(extra: t.Mapping[str, str] | None = None) -> dict[str, str]:
    """A small, fixed environment: the caller's variables cannot steer the program."""
    env = {"PATH": SEARCH_PATH, "LC_ALL": "C", "LANG": "C", "TZ": "UTC", "HOME": "/nonexistent"}
    env.update(extra or {})
    return env


def identity(os_user: str | None) -> dict[str, t.Any]:
    """Popen's arguments that make the child run as `os_user`; nothing when it is ours already."""
    if os_user is None:
        return {}
    entry = pwd.getpwnam(os_user)
    if os.geteuid() == entry.pw_uid:
        return {}
    groups = [group.gr_gid for group in grp.getgrall() if os_user in group.gr_mem]
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}


def _bounded(stream: t.IO[bytes], *, keep_end: bool) -> str:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - OUTPUT_LIMIT) if keep_end else 0)
    return stream.read(OUTPUT_LIMIT).decode("utf-8", "replace")


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the whole process group, SIGKILL after two seconds."""
    for number, patience in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(patience)
            return
        except subprocess.TimeoutExpired:
            continue


class SystemRunner:
    """Runs programs on this machine. Output goes through files, so a daemon that keeps them open cannot hang us."""

    def run(
        self,
        argv: t.Sequence[str],
        *,
        timeout: float,
        env: t.Mapping[str, str] | None = None,
        input_data: bytes | None = None,
        os_user: str | None = None,
    ) -> CommandResult:
        started = time.monotonic()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as source:
            source.write(input_data or b"")
            source.seek(0)
            try:
                process = subprocess.Popen(
                    list(argv),
                    stdin=source,
                    stdout=out,
                    stderr=err,
                    env=clean_environment(env),
                    cwd="/",
                    start_new_session=True,
                    **identity(os_user),
                )
            except FileNotFoundError as error:
                raise ToolMissing(
                    f"The program {argv[0]} is not installed on this host.",
                    reason="tool_missing",
                    next_step="Install it, or run playbooks/site.yml for this host.",
                ) from error
            try:
                rc = process.wait(timeout)
            except subprocess.TimeoutExpired as error:
                _end_group(process)
                raise DeadlinePassed(
                    f"{os.path.basename(argv[0])} did not end within {timeout:g} seconds and was ended.",
                    reason="deadline_passed",
                    details={"argv": list(argv), "stderr_tail": _bounded(err, keep_end=True)[-4096:]},
                ) from error
            except BaseException:
                _end_group(process)
                raise
            return CommandResult(
                argv=tuple(argv),
                rc=rc,
                stdout=_bounded(out, keep_end=False),
                stderr=_bounded(err, keep_end=True),
                duration=time.monotonic() - started,
            )


def spawn_detached(argv: t.Sequence[str]) -> None:
    """Start a program that outlives us and whose end somebody else sees. Its parent is not this process."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=clean_environment(),
            cwd="/",
            start_new_session=True,
        )
    finally:
        os._exit(0)
