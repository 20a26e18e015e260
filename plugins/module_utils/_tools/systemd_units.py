# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""systemctl: how a unit is, have it stopped, have it started. PRIVATE to the collection.

Jobs are queued and not waited for, so that whoever asks can watch, and notice meanwhile that nobody listens any more.
"""

from __future__ import annotations

import dataclasses
import re

from .._command import CommandRunner, find_program
from .service import systemd_runs

SHOW_TIMEOUT = 10.0
QUEUE_TIMEOUT = 15.0

_NAME = re.compile(r"[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]*\.(service|timer|socket|path)")
_LONGEST = 255
_PROPERTIES = "LoadState,ActiveState,SubState,Result,Job,NRestarts"
_RUNS = frozenset({"active", "activating", "reloading", "refreshing"})
_RESTS = frozenset({"inactive", "failed"})


@dataclasses.dataclass(frozen=True)
class UnitState:
    """A unit at one moment.

    Attributes:
        job: something is being done to it, or will be.
        restarts: how often systemd started it again by itself since it was last started.
    """

    unit: str
    load: str = ""
    active: str = ""
    sub: str = ""
    result: str = ""
    job: bool = False
    restarts: int = 0

    @property
    def known(self) -> bool:
        """Whether systemd could start it."""
        return self.load == "loaded"

    @property
    def runs(self) -> bool:
        """Whether it runs, or is about to."""
        return self.active in _RUNS

    @property
    def rests(self) -> bool:
        """Whether it doesn't run and nothing is going to start it."""
        return self.active in _RESTS and not self.job

    @property
    def up(self) -> bool:
        """Whether it is started, through and through."""
        return self.active == "active" and not self.job

    @property
    def gave_up(self) -> bool:
        """Whether a start came to its end without success."""
        return self.active in _RESTS and not self.job

    @property
    def words(self) -> str:
        """The state for people: ``failed (exit-code)``."""
        why = self.result if self.active == "failed" else self.sub
        return f"{self.active} ({why})" if why and why != self.active else self.active or "in no known state"


def is_unit(name: str) -> bool:
    """Whether `name` is a unit that can be stopped and started for good: no pattern, no option, its ending given."""
    return bool(_NAME.fullmatch(name)) and len(name) <= _LONGEST


def parse(unit: str, output: str) -> UnitState:
    """What ``systemctl show`` says of one unit."""
    found = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    restarts = found.get("NRestarts", "")
    return UnitState(
        unit,
        load=found.get("LoadState", ""),
        active=found.get("ActiveState", ""),
        sub=found.get("SubState", ""),
        result=found.get("Result", ""),
        job=found.get("Job", "0") not in ("", "0"),
        restarts=int(restarts) if restarts.isdigit() else 0,
    )


class Systemctl:
    """The program, one method per sub-command; `program` is another one that does as it does."""

    def __init__(self, runner: CommandRunner, program: str = "") -> None:
        self._runner = runner
        self._program = program

    @property
    def there(self) -> bool:
        """Whether this host has units at all."""
        return bool(self._program) or systemd_runs()

    def _argv(self, *words: str) -> list[str]:
        return [self._program or find_program("systemctl"), *words]

    def show(self, unit: str) -> UnitState:
        """How a unit is; one that doesn't exist is ``not-found``."""
        argv = self._argv("show", "--no-pager", f"--property={_PROPERTIES}", "--", unit)
        result = self._runner.run(argv, timeout=SHOW_TIMEOUT).check(f"Asking systemd for {unit}")
        return parse(unit, result.stdout)

    def stop(self, unit: str) -> None:
        """Have it stopped; doesn't wait."""
        argv = self._argv("stop", "--no-block", "--", unit)
        self._runner.run(argv, timeout=QUEUE_TIMEOUT).check(f"Stopping {unit}")

    def start(self, unit: str) -> None:
        """Have it started, even if it failed too often before; doesn't wait."""
        self._runner.run(self._argv("reset-failed", "--", unit), timeout=QUEUE_TIMEOUT)
        argv = self._argv("start", "--no-block", "--", unit)
        self._runner.run(argv, timeout=QUEUE_TIMEOUT).check(f"Starting {unit}")
