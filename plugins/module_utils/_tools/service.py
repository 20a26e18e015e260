# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Starting an instance the way Debian does, with systemd or without. PRIVATE to the collection."""

from __future__ import annotations

import contextlib
import os
import signal

from .._clock import Clock, wait_until
from .._command import CommandRunner, find_program, spawn_detached
from .._errors import DeadlinePassed


def systemd_runs() -> bool:
    """Whether systemd is this machine's init."""
    return os.path.isdir("/run/systemd/system")


def process_state(pid: int) -> str:
    """The letter in /proc/PID/stat, or '' when there is no such process. Z is a zombie: dead, not yet reaped."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as source:
            return source.read().rpartition(b")")[2].split()[0].decode()
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return ""


def alive(pid: int) -> bool:
    """Whether a process lives; a zombie doesn't."""
    return process_state(pid) not in ("", "Z", "X")


def frozen(pid: int) -> bool:
    """Whether a process was stopped by a signal, so that it hears no other than SIGKILL."""
    return process_state(pid) in ("T", "t")


SERVER_PROGRAMS = ("postgres", "postmaster")


def program_of(pid: int) -> str:
    """The program's name, or '' when there is no such process."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8") as source:
            return source.read().strip()
    except OSError:
        return ""


def working_directory_of(pid: int) -> str | None:
    """Where a process works, or None when even root may not know (a container without the right to trace)."""
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except PermissionError:
        return None


def unknown_servers() -> list[int]:
    """PostgreSQL processes of which it can't be known in which data directory they work: no proof goes past them."""
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return [pid for pid in pids if program_of(pid) in SERVER_PROGRAMS and _hidden(pid) and alive(pid)]


def _hidden(pid: int) -> bool:
    try:
        return working_directory_of(pid) is None
    except OSError:
        return False


def postmaster_pid(data_directory: str) -> int | None:
    """The postmaster of a data directory, if it lives.

    The pid in postmaster.pid counts only if that process works in this directory: pids are used again.
    """
    try:
        with open(os.path.join(data_directory, "postmaster.pid"), encoding="utf-8") as source:
            pid = int(source.readline())
        working_directory = working_directory_of(pid)
    except (FileNotFoundError, ValueError, ProcessLookupError, NotADirectoryError, PermissionError):
        return None
    if working_directory is None:  # it can't be looked at: a server of somebody's, so better taken for this one
        return pid if program_of(pid) in SERVER_PROGRAMS and alive(pid) else None
    if os.path.realpath(working_directory) != os.path.realpath(data_directory):
        return None
    return pid if alive(pid) else None


def processes_in(data_directory: str) -> list[int]:
    """All living processes that work in a data directory: the postmaster and its children, orphans included."""
    wanted = os.path.realpath(data_directory)
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            here = os.readlink(f"/proc/{entry}/cwd") in (wanted, wanted + " (deleted)")
        except OSError:
            continue
        if here and alive(int(entry)) and int(entry) != os.getpid():
            found.append(int(entry))
    return sorted(found)


class InstanceService:
    """One instance's service: Debian's pg_ctlcluster, which hands over to systemd where it runs."""

    def __init__(self, runner: CommandRunner, *, version: int, instance: str, data_directory: str) -> None:
        self._runner = runner
        self._version = version
        self._instance = instance
        self._data_directory = data_directory

    @property
    def unit(self) -> str:
        """The systemd unit's name."""
        return f"postgresql@{self._version}-{self._instance}.service"

    def start(self, *, timeout: float) -> None:
        """Start it and wait until pg_ctlcluster, or systemd, says it runs."""
        systemctl = systemd_runs()
        if systemctl:
            self._forget_failure()
        self._runner.run(self._start_argv(systemctl=systemctl), timeout=timeout).check(
            f"Starting the instance {self._version}/{self._instance}",
            state="The instance is down.",
            next_step="Read its log in /var/log/postgresql and the journal of its unit.",
        )

    def start_soon(self) -> None:
        """Have it started and don't wait: pg_ctlcluster itself takes two seconds longer than the server."""
        systemctl = systemd_runs()
        if systemctl:
            self._forget_failure()
        spawn_detached(self._start_argv(systemctl=systemctl))

    def _forget_failure(self) -> None:
        self._runner.run([find_program("systemctl"), "reset-failed", self.unit], timeout=10.0)

    def _start_argv(self, *, systemctl: bool) -> list[str]:
        if systemctl:
            return [find_program("systemctl"), "start", self.unit]
        return [find_program("pg_ctlcluster"), str(self._version), self._instance, "start"]

    def signal_postmaster(self, number: int) -> int | None:
        """Send a signal to the postmaster; returns its pid, or None when there is none."""
        pid = postmaster_pid(self._data_directory)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pid

    def kill_all(self, *, clock: Clock, timeout: float) -> list[int]:
        """SIGKILL for every process of the data directory; returns their pids once all are gone."""
        killed: list[int] = []

        def none_left() -> bool:
            for pid in processes_in(self._data_directory):
                killed.append(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not processes_in(self._data_directory)

        if not wait_until(none_left, clock=clock, timeout=timeout, interval=0.02):
            raise DeadlinePassed(
                f"Processes of {self._data_directory} survived SIGKILL for {timeout:g} seconds: "
                f"{processes_in(self._data_directory)}",
                reason="kill_failed",
                next_step="They hang in the kernel (a dead disk?). Power the host off and name it as the fence.",
            )
        return sorted(set(killed))
