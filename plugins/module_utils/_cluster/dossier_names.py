# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Turning the file numbers of a log into the names of tables. PRIVATE.

The log names files; a server's catalog says whose they are. The successor's catalog is asked over SQL. A file
that was made behind the fork is unknown to it, or worse, its number stands for another table there; so such
files are only named from the old server's own catalog, and otherwise by their path.
"""

from __future__ import annotations

import typing as t

from .._errors import HmsError
from .._postgres import Session
from .dossier_collect import DEFAULT_TABLESPACE, GLOBAL_TABLESPACE, Relation

_DATABASES = "SELECT oid::bigint, datname FROM pg_catalog.pg_database WHERE datallowconn"

# A TOAST table and an index are their table's.
_OWNER = """
  JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.pg_filenode_relation(f.space, f.number)
  LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
  LEFT JOIN pg_catalog.pg_class p ON p.reltoastrelid = coalesce(i.indrelid, c.oid)
  JOIN pg_catalog.pg_class o ON o.oid = coalesce(p.oid, i.indrelid, c.oid)
  JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace
"""
_NAMES = f"""
SELECT f.space::bigint, f.number::bigint, n.nspname || '.' || o.relname
  FROM ROWS FROM (
       pg_catalog.unnest(%s::bigint[]::oid[]), pg_catalog.unnest(%s::bigint[]::oid[])) AS f (space, number)
{_OWNER}"""

Named = t.Mapping[Relation, str]


class RelationNames(t.Protocol):
    """Names for relations."""

    def resolve(self, relations: t.Collection[Relation], *, created_after_fork: t.Collection[tuple[int, int]]) -> Named:
        """A name for every one of them; the path of its file where none is known."""


def path_of(relation: Relation) -> str:
    """The file of a relation, for one that has no name."""
    space, database, number = relation
    if space == GLOBAL_TABLESPACE:
        return f"file global/{number}"
    if space == DEFAULT_TABLESPACE:
        return f"file base/{database}/{number}"
    return f"file {number} of database {database} in tablespace {space}"


class Unnamed:
    """When nobody can be asked."""

    def resolve(self, relations: t.Collection[Relation], *, created_after_fork: t.Collection[tuple[int, int]]) -> Named:
        return {
            relation: path_of(relation) + (" (made after the fork)" if relation[1:] in created_after_fork else "")
            for relation in relations
        }


class NamesFromServer:
    """Asks a running server, in each database that occurs.

    Args:
        open_session: connects to a database of that server.
        main_database: its tables are named without the database.
    """

    def __init__(self, open_session: t.Callable[[str], Session], *, main_database: str) -> None:
        self._open_session = open_session
        self._main_database = main_database

    def resolve(self, relations: t.Collection[Relation], *, created_after_fork: t.Collection[tuple[int, int]]) -> Named:
        named = dict(Unnamed().resolve(relations, created_after_fork=created_after_fork))
        known = [relation for relation in relations if relation[1:] not in created_after_fork]
        if not known:
            return named
        try:
            databases = self._databases()
        except HmsError:
            return named  # names are a courtesy; without them the files' paths stand
        for database, name in databases.items():
            wanted = [relation for relation in known if relation[1] == database]
            if name == self._main_database:
                wanted += [relation for relation in known if relation[1] == 0]
            if wanted:
                named.update(self._in_database(name, wanted))
        return named

    def _databases(self) -> dict[int, str]:
        session = self._open_session(self._main_database)
        try:
            return {int(oid): str(name) for oid, name in session.rows(_DATABASES)}
        finally:
            session.close()

    def _in_database(self, database: str, relations: t.Sequence[Relation]) -> Named:
        by_file = {(space, number): (space, base, number) for space, base, number in relations}
        try:
            session = self._open_session(database)
        except HmsError:
            return {}
        try:
            rows = session.rows(_NAMES, ([space for space, _n in by_file], [number for _s, number in by_file]))
        except HmsError:
            return {}
        finally:
            session.close()
        prefix = "" if database == self._main_database else f"{database}: "
        return {by_file[int(space), int(number)]: prefix + str(name) for space, number, name in rows}


class NamesFromOldCatalog:
    """Asks the stopped server's own catalog about the files that its successor cannot name.

    Args:
        ask: runs a query in a database of the stopped server; returns the first column.
        first: names what it can before.
        main_database: its tables are named without the database.
    """

    LIMIT = 2000

    def __init__(
        self, ask: t.Callable[[str, str], t.Sequence[str]], *, first: RelationNames, main_database: str
    ) -> None:
        self._ask = ask
        self._first = first
        self._main_database = main_database

    def resolve(self, relations: t.Collection[Relation], *, created_after_fork: t.Collection[tuple[int, int]]) -> Named:
        named = dict(self._first.resolve(relations, created_after_fork=created_after_fork))
        paths = Unnamed().resolve(relations, created_after_fork=created_after_fork)
        unnamed = sorted(relation for relation in relations if named[relation] == paths[relation])[: self.LIMIT]
        if not unnamed:
            return named
        try:
            databases = dict(_pairs(self._ask("template1", _OLD_DATABASES)))
            for database in sorted({relation[1] for relation in unnamed}):
                name = databases.get(str(database))
                if name is not None:
                    wanted = [relation for relation in unnamed if relation[1] == database]
                    named.update(self._in_database(name, wanted))
        except HmsError:
            return named  # names are a courtesy; without them the files' paths stand
        return named

    def _in_database(self, database: str, relations: t.Sequence[Relation]) -> dict[Relation, str]:
        files = ", ".join(f"({space}::oid, {number}::oid)" for space, _database, number in relations)
        answers = dict(_pairs(self._ask(database, _OLD_NAMES.format(files=files, owner=_OWNER))))
        prefix = "" if database == self._main_database else f"{database}: "
        return {
            relation: prefix + answers[f"{relation[0]}/{relation[2]}"]
            for relation in relations
            if f"{relation[0]}/{relation[2]}" in answers
        }


_OLD_DATABASES = "SELECT oid || ' ' || datname FROM pg_catalog.pg_database WHERE datallowconn"
_OLD_NAMES = """
SELECT f.space || '/' || f.number || ' ' || n.nspname || '.' || o.relname FROM (VALUES {files}) AS f (space, number)
{owner}"""


def _pairs(lines: t.Iterable[str]) -> t.Iterator[tuple[str, str]]:
    for line in lines:
        key, separator, value = line.partition(" ")
        if separator:
            yield key, value
