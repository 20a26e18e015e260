# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pg_ctl: a server that Debian's tools know nothing of, started, and ended by the process that is really its own.

PRIVATE to the collection. The number in postmaster.pid may be another process's by now, so ending asks /proc first.
"""

from __future__ import annotations

import contextlib
import os
import signal

from .._clock import Clock, wait_until
from .._command import CommandRunner, find_program
from .._errors import DeadlinePassed


def postmaster(data_directory: str) -> int | None:
    """The living server's process id."""
    try:
        with open(os.path.join(data_directory, "postmaster.pid"), encoding="utf-8") as source:
            pid = abs(int(source.readline()))
        where = os.readlink(f"/proc/{pid}/cwd")
    except (OSError, ValueError):
        return None
    return pid if where == os.path.realpath(data_directory) else None


def inhabitants(data_directory: str) -> list[int]:
    """The processes that work in the data directory: a killed server's children outlive it for a moment."""
    data, found = os.path.realpath(data_directory), []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{entry.name}/cwd") == data:
                    found.append(int(entry.name))
    return found


def end_at_once(data_directory: str, *, clock: Clock, timeout: float = 20.0) -> None:
    """End the server as a crash would, and wait until nothing of it is left. Only for data that is thrown away."""
    pid = postmaster(data_directory)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGQUIT)
    for patience in (timeout, 5.0):
        if wait_until(lambda: not inhabitants(data_directory), clock=clock, timeout=patience, interval=0.05):
            return
        for left in inhabitants(data_directory):
            with contextlib.suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)
    raise DeadlinePassed(
        f"Processes of a server still work in {data_directory}.",
        reason="not_stopped",
        next_step=f"End them (fuser -v {data_directory}) and run again.",
    )


class PgCtl:
    """pg_ctl of one major version."""

    def __init__(self, runner: CommandRunner, *, bin_directory: str, os_user: str | None) -> None:
        self._runner = runner
        self._program = find_program("pg_ctl", directory=bin_directory, needed_for="throwaway instances")
        self._os_user = os_user

    def start(self, data_directory: str, *, log: str, timeout: int = 60) -> None:
        """Start the server and wait until it takes connections."""
        argv = [self._program, "--pgdata", data_directory, "--log", log, "--wait", f"--timeout={timeout}", "--silent"]
        self._runner.run([*argv, "start"], timeout=timeout + 10.0, os_user=self._os_user).check(
            f"Starting the server of {data_directory}"
        )

    def begin(self, data_directory: str, *, log: str) -> None:
        """Start the server and wait for nothing: recovery may take hours."""
        argv = [self._program, "--pgdata", data_directory, "--log", log, "--no-wait", "--silent", "start"]
        self._runner.run(argv, timeout=60.0, os_user=self._os_user).check(f"Starting the server of {data_directory}")

    def stop(self, data_directory: str, *, timeout: float) -> None:
        """Stop the server properly and wait until it is down."""
        seconds = max(1, int(timeout))
        argv = [self._program, "--pgdata", data_directory, "--mode=fast", "--wait", f"--timeout={seconds}", "--silent"]
        self._runner.run([*argv, "stop"], timeout=seconds + 10.0, os_user=self._os_user).check(
            f"Stopping the server of {data_directory}"
        )
