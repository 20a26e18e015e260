# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stalls and curves out of ledgers, in one pass and bounded memory. PRIVATE to the collection."""

from __future__ import annotations

import dataclasses
import typing as t

from .ledger import ACKED, Entry


@dataclasses.dataclass(frozen=True)
class Stall:
    """A time in which no writer was answered with success. `ended` is None when none was afterwards."""

    started: float
    ended: float | None

    @property
    def seconds(self) -> float | None:
        """Its length; None when it did not end."""
        return None if self.ended is None else self.ended - self.started


@dataclasses.dataclass(frozen=True)
class Window:
    """A stretch of the wall clock."""

    since: float
    until: float

    def holds(self, moment: float) -> bool:
        """Whether a moment lies in it."""
        return self.since <= moment <= self.until


@dataclasses.dataclass
class Waits:
    """What writers waited in a window."""

    window: Window
    stall: Stall | None = None
    """The longest time between two acknowledgements, whoever got them."""
    longest_transaction: float = 0.0
    """The longest that one transaction took, answered with success or not."""
    longest_writer_wait: float = 0.0
    """The longest that one writer went from one acknowledgement to its next."""

    def touched_by(self, started: float, ended: float) -> bool:
        """Whether a stretch overlaps the window."""
        return ended >= self.window.since and started <= self.window.until

    def take_gap(self, started: float, ended: float) -> None:
        """Nobody was answered with success in between."""
        if self.touched_by(started, ended) and (self.stall is None or ended - started > (self.stall.seconds or 0.0)):
            self.stall = Stall(started, ended)

    def take_wait(self, started: float, ended: float) -> None:
        """One writer was not."""
        if self.touched_by(started, ended):
            self.longest_writer_wait = max(self.longest_writer_wait, ended - started)

    def take_transaction(self, entry: Entry) -> None:
        """A transaction was answered."""
        if self.touched_by(entry.sent, entry.answered):
            self.longest_transaction = max(self.longest_transaction, entry.latency)


def measure(entries: t.Iterable[Entry], windows: t.Sequence[Window]) -> list[Waits]:
    """The longest waits that touch each window. `entries` come in the order of their answers.

    A stall that touches a window counts whole, also the part of it that lies outside.
    """
    found = [Waits(window) for window in windows]
    ahead = sorted(found, key=lambda waits: waits.window.since, reverse=True)
    active: list[Waits] = []
    last_of: dict[int, float] = {}
    last: float | None = None
    for entry in entries:
        while ahead and ahead[-1].window.since <= entry.answered:
            active.append(ahead.pop())
        for waits in active:
            waits.take_transaction(entry)
        if entry.outcome != ACKED:
            continue
        for waits in active:
            if last is not None:
                waits.take_gap(last, entry.answered)
            if entry.source in last_of:
                waits.take_wait(last_of[entry.source], entry.answered)
        last = last_of[entry.source] = entry.answered
        slowest = min(last_of.values())
        active = [waits for waits in active if slowest <= waits.window.until]
    for waits in found:
        if last is not None and last < waits.window.since:
            waits.stall = Stall(last, None)
    return found


class Sampler:
    """Thins entries to a curve that keeps each peak: of each slice of time, writer and outcome the slowest one."""

    def __init__(self, window: Window, *, limit: int) -> None:
        self._window = window
        self._limit = limit
        self._slices = max(1, limit // 8)
        self._kept: dict[tuple[int, int, str], Entry] = {}

    def add(self, entry: Entry) -> None:
        """Take an entry into account."""
        if not self._window.holds(entry.sent):
            return
        self._keep(entry)
        while len(self._kept) > self._limit and self._slices > 1:
            entries, self._kept = list(self._kept.values()), {}
            self._slices //= 2
            for known in entries:
                self._keep(known)

    def _keep(self, entry: Entry) -> None:
        length = (self._window.until - self._window.since) or 1.0
        part = int((entry.sent - self._window.since) / length * self._slices)
        key = (part, entry.source, entry.outcome)
        known = self._kept.get(key)
        if known is None or entry.latency > known.latency:
            self._kept[key] = entry

    def samples(self, *, origin: float) -> list[list[t.Any]]:
        """``[[seconds since origin, latency, outcome, writer], …]`` in the order in which they were sent."""
        words = {ACKED: "ok"}
        return [
            [
                round(entry.sent - origin, 4),
                round(entry.latency, 5),
                words.get(entry.outcome, entry.outcome),
                f"writer {entry.source}",
            ]
            for entry in sorted(self._kept.values(), key=lambda kept: kept.sent)
        ]
