# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PgBouncer's processes on a host: found, started, stopped, with systemd or without. PRIVATE to the collection."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import typing as t

from .._clock import Clock, wait_until
from .._command import CommandRunner, find_program
from .._errors import DeadlinePassed
from .._files import remove_file
from .service import alive, systemd_runs

NEEDED_FOR = "pooling connections (Debian's package pgbouncer)"
START_TIMEOUT = 20.0
STOP_PATIENCE = 10.0
_VERSION = re.compile(r"PgBouncer\s+(?P<version>[0-9][0-9.]*)")


@dataclasses.dataclass(frozen=True)
class RunningProcess:
    """A process that runs with one of our configuration files."""

    pid: int
    started: float
    """Seconds since the epoch; good to about a second."""
    ticks: int
    """The same in the kernel's own unit since boot: with the pid it names the process for good."""
    deleted: bool
    """Its program on disk was replaced or removed since it started."""


def installed_version(runner: CommandRunner) -> str:
    """What is installed, e.g. ``1.18.0``. Raises `ToolMissing`."""
    program = find_program("pgbouncer", needed_for=NEEDED_FOR)
    result = runner.run([program, "--version"], timeout=10.0).check("Asking PgBouncer for its version")
    found = _VERSION.search(result.stdout)
    return found["version"] if found else ""


def _boot_time() -> float:
    with open("/proc/stat", encoding="ascii") as source:
        for line in source:
            if line.startswith("btime "):
                return float(line.split()[1])
    return 0.0


def describe(pid: int, config_file: str) -> RunningProcess | None:
    """The process `pid`, if it lives and is a PgBouncer with exactly this configuration file."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as source:
            argv = source.read().split(b"\0")
        with open(f"/proc/{pid}/stat", "rb") as source:
            ticks = int(source.read().rpartition(b")")[2].split()[19])
        link = os.readlink(f"/proc/{pid}/exe")
    except (OSError, IndexError, ValueError):
        return None
    if os.path.basename(argv[0]) != b"pgbouncer" or config_file.encode() not in argv or not alive(pid):
        return None
    started = _boot_time() + ticks / os.sysconf("SC_CLK_TCK")
    return RunningProcess(pid=pid, started=started, ticks=ticks, deleted=link.endswith(" (deleted)"))


class PgbouncerProcess:
    """One process of a host: its configuration file, its pidfile, its systemd unit where systemd runs."""

    def __init__(
        self, runner: CommandRunner, *, name: str, config_file: str, pidfile: str, service: str, os_user: str
    ) -> None:
        self._runner = runner
        self._name = name
        self._config_file = config_file
        self._pidfile = pidfile
        self._service = service
        self._os_user = os_user

    @property
    def unit(self) -> str:
        """The systemd unit's name."""
        return f"{self._service}@{self._name}.service"

    def running(self) -> RunningProcess | None:
        """The living process. The pidfile counts only if what it names is a PgBouncer with our configuration."""
        try:
            with open(self._pidfile, encoding="ascii") as source:
                pid = int(source.read().strip())
        except (OSError, ValueError):
            return None
        return describe(pid, self._config_file)

    def start(self, *, clock: Clock) -> RunningProcess:
        """Start it and wait until its pidfile names it."""
        if self.running() is None:
            # a dead process left it; while its pid lives as another's, PgBouncer would not start
            remove_file(self._pidfile)
        if systemd_runs():
            systemctl = find_program("systemctl")
            self._runner.run([systemctl, "reset-failed", self.unit], timeout=10.0)
            argv, user = [systemctl, "start", self.unit], None
        else:
            program = find_program("pgbouncer", needed_for=NEEDED_FOR)
            argv, user = [program, "-d", "-q", self._config_file], self._os_user
        self._runner.run(argv, timeout=START_TIMEOUT, os_user=user).check(
            f"Starting PgBouncer process {self._name}",
            state="It is not running.",
            next_step=f"Read its log or the journal of {self.unit}: it names the setting or the port that stops it.",
        )
        found: list[RunningProcess] = []

        def there() -> bool:
            process = self.running()
            found[:] = [process] if process else []
            return bool(found)

        if not wait_until(there, clock=clock, timeout=START_TIMEOUT, interval=0.05):
            raise DeadlinePassed(
                f"PgBouncer process {self._name} was started, but is not there after {START_TIMEOUT:g} seconds.",
                reason="not_started",
                state="It is not running.",
                next_step=f"Read its log or the journal of {self.unit}.",
            )
        return found[0]

    def stop(self, *, clock: Clock) -> bool:
        """End it: its clients lose their connections. Returns whether it ran."""
        process = self.running()
        if process is None:
            return False
        if systemd_runs():
            argv = [find_program("systemctl"), "stop", self.unit]
            self._runner.run(argv, timeout=STOP_PATIENCE + 30.0).check(f"Stopping {self.unit}")
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._gone(process, number, clock):
                return True
        raise DeadlinePassed(
            f"PgBouncer process {self._name} (pid {process.pid}) survived SIGKILL.",
            reason="kill_failed",
            next_step="It hangs in the kernel; look at the host.",
        )

    def _gone(self, process: RunningProcess, number: signal.Signals, clock: Clock) -> bool:
        if describe(process.pid, self._config_file) is None:
            return True
        os.kill(process.pid, number)
        return wait_until(
            lambda: describe(process.pid, self._config_file) is None,
            clock=clock,
            timeout=STOP_PATIENCE,
            interval=0.05,
        )


def read_ini(path: str, *, depth: int = 0) -> t.Mapping[str, str]:
    """The settings of a process's ``[pgbouncer]`` section, ``%include`` followed as PgBouncer does.

    An included file without a section header goes on in the section in which it is included.
    """
    settings: dict[str, str] = {}
    section = "pgbouncer"
    with open(path, encoding="utf-8") as source:
        for raw in source:
            line = raw.strip()
            if line.startswith("[") and line.endswith("]"):
                section = line[1:-1].strip()
            elif line.startswith("%include") and section == "pgbouncer" and depth < 5:
                settings.update(read_ini(line.split(None, 1)[1].strip(), depth=depth + 1))
            elif section == "pgbouncer" and line and line[0] not in ";#" and "=" in line:
                key, _equals, value = line.partition("=")
                settings[key.strip()] = value.strip()
    return settings
