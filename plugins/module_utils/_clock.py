# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Time as a port, so that tests script it. PRIVATE to the collection."""

from __future__ import annotations

import datetime
import time
import typing as t


class Clock(t.Protocol):
    """What code that waits or stamps may ask of time."""

    def monotonic(self) -> float:
        """Seconds that only ever grow; for durations and deadlines."""

    def now(self) -> datetime.datetime:
        """The wall clock in UTC; for stamps only, never for decisions."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The machine's clock."""

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> datetime.datetime:
        return datetime.datetime.now(datetime.timezone.utc)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def iso(moment: datetime.datetime) -> str:
    """UTC with milliseconds, e.g. ``2026-11-22T15:45:00.123Z``."""
    text = moment.astimezone(datetime.timezone.utc).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def parse_iso(text: str) -> datetime.datetime:
    """The inverse of `iso`; also takes PostgreSQL's ISO output with an offset."""
    value = text.strip().replace("Z", "+00:00").replace(" UTC", "+00:00")
    if len(value) >= 3 and value[-3] in "+-":  # PostgreSQL writes +02 for +02:00
        value += ":00"
    moment = datetime.datetime.fromisoformat(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)


def wait_until(
    condition: t.Callable[[], bool],
    *,
    clock: Clock,
    timeout: float,
    interval: float,
) -> bool:
    """Poll `condition` every `interval` seconds until it holds or `timeout` seconds passed."""
    deadline = clock.monotonic() + timeout
    while True:
        if condition():
            return True
        if clock.monotonic() >= deadline:
            return False
        clock.sleep(interval)
