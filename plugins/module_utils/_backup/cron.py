# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a cron expression says about how often something runs. PRIVATE to the collection.

Nothing is started from here: cron does that. A policy is checked with it, and how old a backup may be is derived.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
import typing as t

_NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, t.Mapping[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    ("day of the week", 0, 7, {name: number for number, name in enumerate(_DAYS)}),
)
_ITEM = re.compile(r"(?P<first>\*|\w+)(-(?P<last>\w+))?(/(?P<step>\d+))?")
# five years hold a leap day and every meeting of dates and weekdays that matters
_START, _LENGTH = datetime.date(2024, 1, 1), 5 * 366


@dataclasses.dataclass(frozen=True)
class Cron:
    """A parsed expression."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool
    """Both kinds of day are given: then either will do, as cron has it."""

    def on(self, day: datetime.date) -> bool:
        """Whether it runs on a day."""
        if day.month not in self.months:
            return False
        date, weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (date or weekday) if self.either_day else (date and weekday)

    def longest_gap(self) -> datetime.timedelta | None:
        """The longest time between two runs; None when it never runs twice."""
        within = [hour * 60 + minute for hour in self.hours for minute in self.minutes]
        inside = max((later - earlier for earlier, later in zip(within, within[1:])), default=0)
        days = [number for number in range(_LENGTH) if self.on(_START + datetime.timedelta(days=number))]
        if len(days) < 2:
            return None
        between = max(later - earlier for earlier, later in zip(days, days[1:])) * 1440 - within[-1] + within[0]
        return datetime.timedelta(minutes=max(inside, between))


def parse_cron(text: str) -> Cron:
    """The expression; raises ValueError that says what is wrong with it."""
    fields = _NAMED.get(text.strip().lower(), text).split()
    if len(fields) != len(_FIELDS):
        raise ValueError(f"{text!r} has {len(fields)} fields, not five: minute, hour, day, month, day of the week")
    minutes, hours, days, months, weekdays = (_values(field, *about) for field, about in zip(fields, _FIELDS))
    return Cron(
        tuple(sorted(minutes)),
        tuple(sorted(hours)),
        frozenset(days),
        frozenset(months),
        frozenset(day % 7 for day in weekdays),
        either_day=not fields[2].startswith("*") and not fields[4].startswith("*"),
    )


def _values(field: str, name: str, low: int, high: int, names: t.Mapping[str, int]) -> set[int]:
    found: set[int] = set()
    for item in field.lower().split(","):
        match = _ITEM.fullmatch(item)
        if not match:
            raise ValueError(f"{item!r} is no {name}")
        first, last, step = match["first"], match["last"], int(match["step"] or 1)
        if first == "*":
            start, end = low, high
        else:
            start = _number(first, name, names)
            end = _number(last, name, names) if last else (high if match["step"] else start)
        if step < 1 or not low <= start <= end <= high:
            raise ValueError(f"{item!r} is no {name} from {low} to {high}")
        found.update(range(start, end + 1, step))
    return found


def _number(text: str, name: str, names: t.Mapping[str, int]) -> int:
    if text in names:
        return names[text]
    if not text.isdigit():
        raise ValueError(f"{text!r} is no {name}")
    return int(text)
