# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Quantities in words: seconds, bytes, counts and times of day. PRIVATE to the collection."""

from __future__ import annotations

import datetime

from ansible_collections.hms.postgres.plugins.module_utils._clock import parse_iso

_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


def seconds(value: float) -> str:
    """A span for a reader: ``4 ms``, ``0.31 s``, ``41.2 s``, ``5 min``, ``1 h 2 min``."""
    if value < 0:
        return "-" + seconds(-value)
    if value == 0:
        return "0 s"
    if value < 0.0995:
        return milliseconds(value)
    if value < 9.995:
        return f"{value:.2f} s"
    if value < 59.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return _two(whole, "min", "s")
    return _two(round(value / 60), "h", "min")


def milliseconds(value: float) -> str:
    """A short span: ``< 0.1 ms``, ``3.2 ms``, ``291 ms``."""
    thousandth = value * 1000
    if thousandth == 0:
        return "0 ms"
    if thousandth < 0.1:
        return "< 0.1 ms"
    return f"{thousandth:.1f} ms".replace(".0 ms", " ms") if thousandth < 9.95 else f"{thousandth:.0f} ms"


def span(value: float) -> str:
    """How long a step took: milliseconds below a second, seconds with two places above."""
    return milliseconds(value) if 0 <= value < 0.9995 else seconds(value)


def _two(total: int, large: str, small: str) -> str:
    high, low = divmod(total, 60)
    return f"{high} {large} {low} {small}" if low else f"{high} {large}"


def offset(value: float) -> str:
    """A moment after the record's start: ``+1.234 s``."""
    return f"{value:+.3f} s"


def size(value: float) -> str:
    """Bytes for a reader: ``0 bytes``, ``312 bytes``, ``16.4 MiB``."""
    if abs(value) < 1024:
        return count(round(value), "byte")
    amount, unit = value / 1024, "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        if abs(amount) >= 1023.95:
            amount, unit = amount / 1024, larger
    return f"{amount:.1f} {unit}"


def count(value: int, noun: str, plural: str = "") -> str:
    """A number with its noun: ``1 transaction``, ``1,204 transactions``."""
    return f"{value:,} {noun if value == 1 else plural or noun + 's'}"


def moment(text: str) -> datetime.datetime | None:
    """A time as the record writes it, in UTC; nothing if it can't be read."""
    try:
        return parse_iso(text).astimezone(datetime.timezone.utc)
    except (ValueError, OverflowError):
        return None


def clock(when: datetime.datetime) -> str:
    """The time of day: ``03:12:07 UTC``."""
    return f"{when:%H:%M:%S} UTC"


def stamp(when: datetime.datetime) -> str:
    """Date and time to the millisecond: ``22 November 2026, 03:12:07.412 UTC``."""
    return f"{day(when)}, {when:%H:%M:%S}.{when.microsecond // 1000:03d} UTC"


def day(when: datetime.datetime) -> str:
    """The date: ``22 November 2026``."""
    return f"{when.day} {_MONTHS[when.month - 1]} {when.year}"


def stamp_text(text: str) -> str:
    """A time of the record as `stamp` writes it, or as it was found."""
    when = moment(text)
    return stamp(when) if when else text
