# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A server and a database by their own account: what backups and restores both ask before they begin. PRIVATE."""

from __future__ import annotations

import dataclasses
import datetime
import os
import re
import typing as t

from .._clock import parse_iso
from .._errors import ConnectionFailed, HmsError, Refused
from .._postgres import ConnectionParams, Session, quote_identifier

Connect = t.Callable[[ConnectionParams], Session]
"""Opens a session, with the rights of the right operating system's user."""

INVALID_DATABASE = -2
"""pg_database.datconnlimit of a database whose DROP was interrupted."""
_MAINTENANCE = ("postgres", "template1")
_ORDINARY = re.compile(r"[a-z_][a-z0-9_$]*")


@dataclasses.dataclass(frozen=True)
class ServerFacts:
    """The server, by its own account."""

    version_num: int
    version: str
    system_identifier: str
    timeline: int
    is_standby: bool
    lock_slots: int
    """Object locks that fit into its shared memory."""
    data_directory: str = ""

    @property
    def major(self) -> int:
        """15 for 15.18."""
        return self.version_num // 10000


@dataclasses.dataclass(frozen=True)
class DatabaseFacts:
    """A database."""

    name: str
    bytes: int
    encoding: str
    collate: str
    ctype: str
    provider: str
    """c for libc, i for ICU, b for the built-in one."""
    locale: str = ""
    connection_limit: int = -1


@dataclasses.dataclass(frozen=True)
class Relation:
    """A table, a partitioned table or a sequence that a dump reads."""

    oid: int
    schema: str
    name: str
    kind: str
    """pg_class.relkind: r, p or S."""
    unlogged: bool = False
    readable: bool = True
    filtered: bool = False
    """Whether row level security hides rows from this role."""
    extension: bool = False
    """Whether it belongs to an extension, whose own script makes it."""

    @property
    def shown(self) -> str:
        """The name for people and for the manifest, quoted where it would be ambiguous otherwise."""
        parts = (self.schema, self.name)
        return ".".join(part if _ORDINARY.fullmatch(part) else quote_identifier(part) for part in parts)

    @property
    def quoted(self) -> str:
        """The name in SQL."""
        return f"{quote_identifier(self.schema)}.{quote_identifier(self.name)}"


NOW = """pg_catalog.to_char(pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
"""The server's clock, whatever its DateStyle and TimeZone are."""
_SERVER = f"""
SELECT pg_catalog.current_setting('server_version_num')::int, pg_catalog.current_setting('server_version'),
  (pg_catalog.pg_control_system()).system_identifier::text,
  CASE WHEN pg_catalog.pg_is_in_recovery() THEN (pg_catalog.pg_control_checkpoint()).timeline_id
    ELSE ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::int
  END,
  pg_catalog.pg_is_in_recovery(),
  pg_catalog.current_setting('max_locks_per_transaction')::int * (pg_catalog.current_setting('max_connections')::int
    + pg_catalog.current_setting('max_prepared_transactions')::int),
  {NOW}
"""
_DATABASE = """
SELECT datname, pg_catalog.pg_database_size(oid), pg_catalog.pg_encoding_to_char(encoding), datcollate, datctype,
  {provider}, {locale}, datconnlimit
FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()
"""
RELATIONS = """
SELECT c.oid::bigint, n.nspname, c.relname, c.relkind::text, c.relpersistence = 'u',
  coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT'), false),
  c.relkind <> 'S' AND c.relrowsecurity AND pg_catalog.row_security_active(c.oid),
  e.extname IS NOT NULL
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
  AND d.objsubid = 0 AND d.deptype = 'e'
LEFT JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
WHERE c.relkind IN ('r', 'p', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND (e.extname IS NULL OR c.oid = ANY (e.extconfig))
ORDER BY 2, 3
"""


def read_relations(session: Session) -> tuple[Relation, ...]:
    """Everything whose rows or values a dump reads."""
    return tuple(
        Relation(
            oid=int(oid),
            schema=schema,
            name=name,
            kind=kind,
            unlogged=unlogged,
            readable=readable,
            filtered=filtered,
            extension=extension,
        )
        for oid, schema, name, kind, unlogged, readable, filtered, extension in session.rows(RELATIONS)
    )


def countable(relations: t.Sequence[Relation], *, is_standby: bool) -> tuple[Relation, ...]:
    """The tables whose rows a dump holds as they are: no partitioned parents, nothing that an extension filters."""
    return tuple(
        relation
        for relation in relations
        if relation.kind == "r" and not relation.extension and not (is_standby and relation.unlogged)
    )


def one_row(session: Session, sql: str) -> tuple[t.Any, ...]:
    """The one row that a query always gives."""
    row = session.row(sql)
    if row is None:
        raise HmsError("The server's catalogs answered with nothing.", reason="sql_failed", phase="look")
    return row


def read_server(session: Session) -> tuple[ServerFacts, datetime.datetime]:
    """The server and its clock."""
    number, version, identifier, timeline, standby, slots, now = one_row(session, _SERVER)
    # for superusers and members of pg_read_all_settings; others do without the check of the room left
    folder = session.value("SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory'")
    facts = ServerFacts(number, version.split()[0], identifier, timeline, standby, slots, folder or "")
    return facts, parse_iso(now)


def read_database(session: Session, major: int) -> DatabaseFacts:
    """The database that the session is connected to."""
    provider = "datlocprovider::text" if major >= 15 else "'c'"
    locale = "''"
    if major >= 15:
        locale = f"coalesce({'datlocale' if major >= 17 else 'daticulocale'}, '')"
    return DatabaseFacts(*one_row(session, _DATABASE.format(provider=provider, locale=locale)))


def open_source(params: ConnectionParams, connect: Connect) -> Session:
    """A session to the database; when there is none, a refusal that says why."""
    try:
        return connect(params)
    except ConnectionFailed as error:
        explained = _explain(params, connect)
        if explained is None:
            error.phase = "look"
            error.state = "Nothing was touched."
            error.next_step = "Make sure that the server runs and lets this role in, then run again."
            raise
        raise explained from error


def _explain(params: ConnectionParams, connect: Connect) -> Refused | None:
    """Why a database can't be connected to, asked from another one; None when nobody there knows."""
    for name in _MAINTENANCE:
        try:
            session = connect(dataclasses.replace(params, dbname=name))
        except HmsError:
            continue
        try:
            row = session.row(
                "SELECT datconnlimit, datallowconn FROM pg_catalog.pg_database WHERE datname = %s", (params.dbname,)
            )
        finally:
            session.close()
        return _judge(params, row)
    return None


def _judge(params: ConnectionParams, row: tuple[t.Any, ...] | None) -> Refused | None:
    where = f"{params.host}:{params.port}"
    if row is None:
        return _refused(
            "database_missing", f"The server at {where} has no database {params.dbname!r}.", "Correct the name."
        )
    limit, allowed = row
    if limit == INVALID_DATABASE:
        return _refused(
            "database_invalid",
            f"The database {params.dbname!r} at {where} is invalid: a DROP DATABASE of it was interrupted.",
            "Finish dropping it; it can neither be used nor dumped. An earlier backup brings it back.",
        )
    if not allowed:
        return _refused(
            "database_closed",
            f"The database {params.dbname!r} at {where} takes no connections (ALLOW_CONNECTIONS false).",
            "Open it if it should be backed up; a database that was put aside by a restore stays closed.",
        )
    return None


def _refused(reason: str, message: str, next_step: str) -> Refused:
    return Refused(message, reason=reason, phase="look", state="Nothing was touched.", next_step=next_step)


def free_space(path: str) -> int | None:
    """Bytes left where `path` is; None when this host can't see it."""
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize
