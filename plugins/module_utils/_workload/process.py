# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes by their id, and never the wrong one. PRIVATE to the collection.

An id is always taken together with its start time, so that a later process with the same id is not mistaken for it.
"""

from __future__ import annotations

import dataclasses
import os
import signal

from .._clock import Clock, SystemClock, wait_until


@dataclasses.dataclass(frozen=True)
class Process:
    """A process as /proc shows it."""

    pid: int
    started: int
    """Clock ticks since boot; a later process with the same id has another."""
    parent: int
    state: str

    @property
    def runs(self) -> bool:
        """Whether it still does anything: a zombie only waits to be reaped."""
        return self.state not in ("Z", "X")


def look(pid: int) -> Process | None:
    """The process with this id, or None."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as source:
            fields = source.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Process(pid=pid, started=int(fields[19]), parent=int(fields[1]), state=fields[0])


def alive(pid: int, started: int) -> bool:
    """Whether this very process still runs."""
    found = look(pid)
    return found is not None and found.started == started and found.runs


def send(pid: int, number: signal.Signals) -> bool:
    """Signal a process; returns whether it was there."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def end(pid: int, started: int, *, patience: float, clock: Clock | None = None) -> bool:
    """SIGTERM, and SIGKILL after `patience` seconds; returns whether the process was there and ours."""
    clock = clock or SystemClock()
    if not alive(pid, started):
        return False
    send(pid, signal.SIGTERM)
    if not wait_until(lambda: not alive(pid, started), clock=clock, timeout=patience, interval=0.02):
        send(pid, signal.SIGKILL)
        wait_until(lambda: not alive(pid, started), clock=clock, timeout=5.0, interval=0.02)
    return True
