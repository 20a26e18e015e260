# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows that no dump can hold, found before it begins. PRIVATE to the collection.

The server writes a row as one text of less than 1 GB, a bytea as two digits for each byte. pg_dump runs into a larger
one wherever it stands, perhaps after hours. Only tables that keep much beside them (TOAST) are looked at. The lengths
of bytea and text are known without reading the values, so it costs a scan of the table itself, for seconds at most.
"""

from __future__ import annotations

import dataclasses
import time
import typing as t

from .._errors import HmsError, Refused
from .._postgres import Session, quote_identifier
from .facts import Relation

ROW_LIMIT = 0x3FFFFFFF
"""Bytes that the server can have in one piece of memory; a row's text is one."""
TOAST_LIMIT = 256 * 1024 * 1024
"""A table with less than this beside it is not looked at."""
SECONDS_EACH = 5.0
SECONDS = 20.0
_SHOWN = 5
_NOT_NOW = {
    "57014": "that took too long",
    "55P03": "somebody has locked it",
    "42501": "the role may not read it",
    "42P01": "it was dropped meanwhile",
    "42703": "it was altered meanwhile",
}
_CANDIDATES = """
SELECT c.oid::bigint, a.attname, b.oid = 'pg_catalog.bytea'::pg_catalog.regtype
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
JOIN pg_catalog.pg_type b ON b.oid = coalesce(nullif(y.typbasetype, 0), y.oid)
WHERE c.oid = ANY (%s::pg_catalog.oid[]) AND c.relkind = 'r' AND c.reltoastrelid <> 0
  AND pg_catalog.pg_relation_size(c.reltoastrelid) >= %s
  AND b.oid IN ('pg_catalog.bytea'::pg_catalog.regtype, 'pg_catalog.text'::pg_catalog.regtype,
    'pg_catalog.varchar'::pg_catalog.regtype)
  AND a.attgenerated = ''
ORDER BY pg_catalog.pg_relation_size(c.reltoastrelid) DESC, c.oid, a.attnum
"""


@dataclasses.dataclass(frozen=True)
class Column:
    """A column whose values may be large."""

    name: str
    binary: bool

    @property
    def text_length(self) -> str:
        """SQL for the bytes that its value has in a dump, which is known without reading it."""
        length = f"pg_catalog.octet_length({quote_identifier(self.name)})::bigint"
        return f"coalesce({f'2 * {length} + 3' if self.binary else length}, 0)"


@dataclasses.dataclass(frozen=True)
class Oversized:
    """The largest row of a table, when it is too large."""

    table: str
    column: str
    bytes: int


@dataclasses.dataclass(frozen=True)
class Seen:
    """What was found, and which tables could not be looked at, with the reason."""

    found: tuple[Oversized, ...] = ()
    unseen: tuple[tuple[str, str], ...] = ()


def warnings(session: Session, relations: t.Iterable[Relation], type_: str) -> tuple[str, ...]:
    """What could not be looked at, as warnings; raises `Refused` when a row is too large for any dump."""
    return () if type_ == "schema_only" else judge(find(session, relations))


def judge(seen: Seen) -> tuple[str, ...]:
    """The warnings, or the refusal."""
    if seen.found:
        told = ", ".join(
            f"{one.table} (column {one.column}: {one.bytes / 1e6:.0f} MB in a dump)" for one in seen.found[:_SHOWN]
        )
        raise Refused(
            f"A row is too large for pg_dump, which can write up to {ROW_LIMIT / 1e6:.0f} MB of text for each: {told}.",
            reason="row_too_large",
            phase="look",
            state="Nothing was touched.",
            next_step="Back this database up with engine pgbackrest, which copies files; or move such values out of"
            " the table, e.g. into large objects or files. A bytea takes twice its size.",
            details={"rows": [dataclasses.asdict(one) for one in seen.found]},
        )
    return tuple(
        f"Whether {table} holds a row that is too large for pg_dump was not looked at: {why}."
        for table, why in seen.unseen
    )


def find(
    session: Session,
    relations: t.Iterable[Relation],
    *,
    row_limit: int = ROW_LIMIT,
    toast_limit: int = TOAST_LIMIT,
    seconds: float = SECONDS,
    seconds_each: float = SECONDS_EACH,
) -> Seen:
    """Look at the tables that may hold such rows, those with most beside them first."""
    tables = {relation.oid: relation for relation in relations if relation.kind == "r" and relation.readable}
    columns: dict[int, list[Column]] = {}
    found: list[Oversized] = []
    unseen: list[tuple[str, str]] = []
    deadline = time.monotonic() + seconds
    try:
        for oid, name, binary in session.rows(_CANDIDATES, (list(tables), toast_limit)) if tables else ():
            columns.setdefault(int(oid), []).append(Column(name, bool(binary)))
    except HmsError as error:
        return Seen(unseen=(("a table", _why_not(error)),))
    try:
        for oid, wanted in columns.items():
            left = min(seconds_each, deadline - time.monotonic())
            try:
                largest = _largest(session, tables[oid], wanted, left) if left > 0 else None
            except HmsError as error:
                unseen.append((tables[oid].shown, _why_not(error)))
                continue
            if largest is None:
                unseen.append((tables[oid].shown, "there was no time left"))
            elif largest.bytes > row_limit:
                found.append(largest)
    finally:
        if columns:
            session.execute("RESET statement_timeout")
    return Seen(tuple(found), tuple(unseen))


def _why_not(error: HmsError) -> str:
    """Why a table can't be looked at; raises what is no reason for that."""
    why = _NOT_NOW.get(str(error.details.get("sqlstate")))
    if why is None:
        raise error
    return why


def _largest(session: Session, table: Relation, columns: t.Sequence[Column], seconds: float) -> Oversized:
    """The largest row, and the column that has the largest value."""
    session.execute("SELECT pg_catalog.set_config('statement_timeout', %s, false)", (str(max(1, int(seconds * 1000))),))
    each = [column.text_length for column in columns]
    # a partition, a child: each table is looked at for itself
    row = session.row(f"SELECT max({' + '.join(each)}), max({'), max('.join(each)}) FROM ONLY {table.quoted}")
    values = [int(value or 0) for value in row or ()] or [0, 0]
    widest = max(range(len(columns)), key=lambda number: values[number + 1])
    return Oversized(table.shown, columns[widest].name, values[0])
