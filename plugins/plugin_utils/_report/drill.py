# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A restore drill as a short table for whoever started it. PRIVATE to the collection."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

from .access import flag, integer, mapping, mappings, number, text, texts
from .columns import table
from .units import seconds, size

WIDTH = 132
_HEADS = ("DATABASE", "BACKUP", "CAME BACK", "LOADED", "ANALYZED", "PROVEN", "A SECOND", "ALL", "AT TODAY'S SIZE")
_PLANNED = ("DATABASE", "BACKUP", "IS IN", "STORED", "WOULD TAKE", "POSTGRESQL")
_PROOF = ("validate", "assertions")

Data = Mapping[str, t.Any]


def drill_lines(answer: Data) -> list[str]:
    """The result of the module pg_restore_drill, of a run that failed too, or what it would do."""
    found = mapping(answer.get("details")) if "results" not in answer else answer
    results, planned = list(mappings(found.get("results"))), list(mappings(found.get("planned")))
    if results:
        lines = table(_HEADS, [_result(one) for one in results], WIDTH)
        lines += [f"{text(one.get('id'))}: {'; '.join(texts(one.get('problems')))}" for one in results if _bad(one)]
        return [*lines, *([f"Record: {text(found.get('record'))}"] if found.get("record") else [])]
    if planned:
        lines = table(_PLANNED, [_plan(one) for one in planned], WIDTH)
        return [
            *lines,
            *(f"{text(one.get('id'))}: {text(one.get('problem'))}" for one in planned if one.get("problem")),
        ]
    return [text(answer.get("msg")) or "Nothing was restored."]


def _bad(result: Data) -> bool:
    return flag(result.get("ok")) is not True


def _result(result: Data) -> tuple[str, ...]:
    spent = mapping(result.get("seconds"))
    proven = [number(spent.get(name)) for name in _PROOF if name in spent]
    rate, projected = integer(result.get("bytes_per_second")), number(result.get("projected_rto_seconds"))
    return (
        text(result.get("database")),
        text(result.get("id")),
        "NO" if _bad(result) else "yes",
        _took(number(spent.get("load"))),
        _took(number(spent.get("analyze"))),
        _took(sum(one or 0.0 for one in proven) if proven else None),
        "-" if rate is None else size(rate),
        _took(number(result.get("restore_seconds"))),
        _took(projected),
    )


def _plan(planned: Data) -> tuple[str, ...]:
    return (
        text(planned.get("database")),
        text(planned.get("id")),
        text(planned.get("store")),
        size(integer(planned.get("bytes")) or 0),
        size(integer(planned.get("database_bytes")) or 0),
        str(integer(planned.get("version")) or "-"),
    )


def _took(value: float | None) -> str:
    return "-" if value is None else seconds(value)
