# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading data of which nothing is promised: a record may end anywhere. PRIVATE to the collection.

Each function takes whatever was found and returns a value of one type, never an exception.
"""

from __future__ import annotations

import json
import math
import typing as t
from collections.abc import Mapping, Sequence

_VISIBLE = dict.fromkeys((*range(32), *range(127, 160), *range(8234, 8239), *range(8294, 8298)), "�")
_VISIBLE.update({ord("\n"): "\n", ord("\t"): " ", ord("\r"): ""})
_LARGEST = 1e18  # beyond it, a number is an accident; comparisons with it also rule out nan and infinity


def clean(value: str) -> str:
    """Text without characters that steer a terminal or a page: controls, reversed writing, halves of a pair."""
    return value.translate(_VISIBLE).encode("utf-8", "replace").decode("utf-8")


def text(value: t.Any) -> str:
    """Any value as text; nothing becomes the empty text."""
    if value is None:
        return ""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:g}" if math.isfinite(value) else "not a number"
    return clean(json.dumps(value, ensure_ascii=False, default=str))


def mapping(value: t.Any) -> Mapping[str, t.Any]:
    """A mapping, or an empty one."""
    return value if isinstance(value, Mapping) else {}


def items(value: t.Any) -> Sequence[t.Any]:
    """A list, or an empty one."""
    return value if isinstance(value, (list, tuple)) else ()


def mappings(value: t.Any) -> list[Mapping[str, t.Any]]:
    """The mappings of a list; whatever else stands in it is passed over."""
    return [item for item in items(value) if isinstance(item, Mapping)]


def texts(value: t.Any) -> tuple[str, ...]:
    """The texts of a list; a lone text counts as a list of one."""
    if isinstance(value, str):
        return (clean(value),) if value.strip() else ()
    return tuple(found for found in map(text, items(value)) if found)


def number(value: t.Any) -> float | None:
    """A number that can be drawn and written out, or nothing."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if abs(found) < _LARGEST else None


def integer(value: t.Any) -> int | None:
    """A whole number, or nothing."""
    found = number(value)
    return None if found is None else int(found)


def flag(value: t.Any) -> bool | None:
    """True, false, or not known."""
    return value if isinstance(value, bool) else None


def position(value: t.Any) -> str:
    """A position in the WAL; 0/0 is none."""
    found = text(value)
    return "" if found == "0/0" else found
