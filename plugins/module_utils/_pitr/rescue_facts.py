# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tables on both sides of a rescue: their columns, keys and references. PRIVATE."""

from __future__ import annotations

import dataclasses
import typing as t

from .._errors import Refused
from .._postgres import Session, quote_identifier
from .look import quoted, split_name

_COLUMNS = """
SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attgenerated <> ''
  FROM pg_catalog.pg_attribute a
 WHERE a.attrelid = %s::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_KEY = """
SELECT a.attname FROM pg_catalog.pg_index i
  JOIN LATERAL pg_catalog.unnest(i.indkey) WITH ORDINALITY AS k(attnum, place) ON true
  JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
 WHERE i.indrelid = %s::pg_catalog.regclass AND i.indisprimary ORDER BY k.place
"""
_REFERENCES = """
SELECT c.confrelid FROM pg_catalog.pg_constraint c
 WHERE c.contype = 'f' AND c.conrelid = %s::pg_catalog.regclass AND c.confrelid <> c.conrelid
"""


@dataclasses.dataclass(frozen=True)
class Table:
    """One table in one cluster. `columns` maps names to types, without those that are generated."""

    name: str
    oid: int
    columns: t.Mapping[str, str]
    key: tuple[str, ...]
    comment: str = ""
    references: tuple[int, ...] = ()

    @property
    def sql(self) -> str:
        """Its name, safe inside SQL."""
        return quoted(self.name)


def read_table(session: Session, name: str) -> Table | None:
    """A table; None where there is none of that name."""
    sql = quoted(name)
    row = session.row(
        "SELECT c.oid, coalesce(pg_catalog.obj_description(c.oid, 'pg_class'), '') FROM pg_catalog.pg_class c "
        "WHERE c.oid = pg_catalog.to_regclass(%s) AND c.relkind IN ('r', 'p')",
        [sql],
    )
    if row is None:
        return None
    return Table(
        name=name,
        oid=int(row[0]),
        columns={column: kind for column, kind, generated in session.rows(_COLUMNS, [sql]) if not generated},
        key=tuple(column for (column,) in session.rows(_KEY, [sql])),
        comment=row[1],
        references=tuple(int(oid) for (oid,) in session.rows(_REFERENCES, [sql])),
    )


def refused(message: str, reason: str, next_step: str) -> Refused:
    """What forbids a rescue."""
    return Refused(message, reason=reason, phase="rescue", state="The live database is as it was.", next_step=next_step)


def needed(session: Session, name: str, where: str) -> Table:
    """A table that has to be there."""
    found = read_table(session, name)
    if found is None:
        raise refused(f"There is no table {name} in {where}.", "no_table", "See its schema and name, and the target.")
    return found


def columns_sql(columns: t.Iterable[str]) -> str:
    """Names of columns, safe inside SQL."""
    return ", ".join(map(quote_identifier, columns))


def parents_first(tables: t.Sequence[Table]) -> list[Table]:
    """Tables in an order in which rows that are referred to come first; a circle stays as it was given."""
    left, done = list(tables), list[Table]()
    while left:
        waiting = {table.oid for table in left}
        free = [table for table in left if not waiting & (set(table.references) - {table.oid})] or left[:1]
        done += free
        left = [table for table in left if table not in free]
    return done


def copy_name(name: str, position: str) -> str:
    """Where a copy goes: the table's name with the position it is of, in the table's schema, at most 63 bytes."""
    schema, table = split_name(name)
    ending = "_rescued_" + position.replace("/", "_").lower()
    kept = table.encode()[: 63 - len(ending)].decode("utf-8", "ignore")
    return f"{quote_identifier(schema)}.{quote_identifier(kept + ending)}"
