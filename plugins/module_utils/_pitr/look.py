# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is in the recovered side cluster: asked of it, read-only. PRIVATE."""

from __future__ import annotations

import dataclasses
import typing as t

from .._errors import HmsError
from .._postgres import Session, quote_identifier

ROWS_SHOWN = 100


@dataclasses.dataclass(frozen=True)
class Questions:
    """What to look at.

    Attributes:
        count: tables whose rows are counted.
        newest: tables, each with the column whose greatest value is wanted.
        queries: SQL; what it returns is shown, so nothing of it enters a record.
    """

    count: tuple[str, ...] = ()
    newest: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    queries: tuple[str, ...] = ()


def split_name(name: str) -> tuple[str, str]:
    """A table's schema and name; `public` where none is given. Parts may be quoted."""
    parts: list[str] = []
    text = name
    while text:
        if text.startswith('"'):
            end = text.find('"', 1)
            while end != -1 and text[end : end + 2] == '""':
                end = text.find('"', end + 2)
            if end == -1:
                break
            parts.append(text[1:end].replace('""', '"'))
            text = text[end + 1 :]
        else:
            part, dot, rest = text.partition(".")
            parts.append(part)
            text = dot + rest
        if not text:
            break
        if not text.startswith(".") or len(text) == 1:
            parts.append("")
            break
        text = text[1:]
    if not 1 <= len(parts) <= 2 or not all(parts):
        raise HmsError(
            f"{name!r} is no table's name.",
            reason="bad_table",
            state="Nothing was touched.",
            next_step="Write it as table or schema.table; quote parts that hold a dot.",
        )
    return (parts[0], parts[1]) if len(parts) == 2 else ("public", parts[0])


def quoted(name: str) -> str:
    """A table's name, safe inside SQL."""
    return ".".join(quote_identifier(part) for part in split_name(name))


def _count(session: Session, table: str) -> dict[str, t.Any]:
    try:
        return {"rows": session.value(f"SELECT count(*) FROM {quoted(table)}")}
    except HmsError as error:
        return {"rows": None, "error": error.message}


def _newest(session: Session, table: str, column: str) -> str | None:
    sql = f"SELECT max({quote_identifier(column)})::text FROM {quoted(table)}"
    return t.cast(t.Optional[str], session.value(sql))


def look(session: Session, questions: Questions) -> dict[str, t.Any]:
    """The answers, by question. A question that fails is told, and spoils no other."""
    session.execute("SET default_transaction_read_only TO on")
    found: dict[str, t.Any] = {"tables": {}, "newest": {}, "queries": []}
    for table in questions.count:
        found["tables"][table] = _count(session, table)
    for table, column in questions.newest.items():
        try:
            found["newest"][table] = _newest(session, table, column)
        except HmsError as error:
            found["newest"][table] = f"error: {error.message}"
    for sql in questions.queries:
        try:
            rows = session.rows(sql)
            shown = [[None if value is None else str(value) for value in row] for row in rows[:ROWS_SHOWN]]
            found["queries"].append({"query": sql, "rows": shown, "total": len(rows)})
        except HmsError as error:
            found["queries"].append({"query": sql, "rows": [], "total": 0, "error": error.message})
    return found
