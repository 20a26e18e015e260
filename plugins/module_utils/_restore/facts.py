# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restore has to know of the server and of the live database, before anything is touched. PRIVATE."""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from .._artifact.database import (
    Connect,
    DatabaseFacts,
    ServerFacts,
    free_space,
    one_row,
    open_source,
    read_database,
    read_server,
)
from .._artifact.properties import read_properties
from .._artifact.running import backup_lock
from .._errors import Refused
from .._files import HeldLock
from .._postgres import ConnectionParams, Session
from .model import Order
from .names import scratch_prefix

_ROLE = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"
_OID = "SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = %s"
_SESSIONS = """
SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity
WHERE datname = %s AND pid <> pg_catalog.pg_backend_pid() AND backend_type = 'client backend'
  AND application_name <> %s
"""
_SLOTS = "SELECT slot_name::text FROM pg_catalog.pg_replication_slots WHERE database = %s ORDER BY 1"
_SUBSCRIPTIONS = """
SELECT subname::text FROM pg_catalog.pg_subscription
WHERE subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = %s) ORDER BY 1
"""
_PREPARED = "SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = %s ORDER BY 1"
_CRON = "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'cron.database_name'"
_EXTENSIONS = "SELECT name::text, default_version FROM pg_catalog.pg_available_extensions"
_LEFT = """
SELECT datname::text FROM pg_catalog.pg_database WHERE pg_catalog.starts_with(datname::text, %s) ORDER BY 1
"""


@dataclasses.dataclass(frozen=True)
class LiveFacts:
    """The database that is to be replaced.

    Attributes:
        properties: owner, rights, settings, limits and so on, as `read_properties` gives them.
        sessions: of others.
    """

    oid: int
    database: DatabaseFacts
    properties: t.Mapping[str, t.Any]
    sessions: int = 0
    slots: tuple[str, ...] = ()
    subscriptions: tuple[str, ...] = ()
    prepared: tuple[str, ...] = ()
    cron: bool = False


@dataclasses.dataclass(frozen=True)
class TargetFacts:
    """The server, at one look.

    Attributes:
        live: None where there is no such database.
        extensions: what could be installed, with the version that would be.
        free: bytes left where its data is; None when this host can't see it.
        leftovers: scratch databases of earlier restores of this database.
        backup: who backs the database up at this moment, None for nobody.
    """

    now: datetime.datetime
    server: ServerFacts
    superuser: bool
    live: LiveFacts | None
    roles: frozenset[str] = frozenset()
    tablespaces: frozenset[str] = frozenset()
    extensions: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    free: int | None = None
    leftovers: tuple[str, ...] = ()
    backup: t.Mapping[str, t.Any] | None = None


def _names(session: Session, sql: str, *params: t.Any) -> tuple[str, ...]:
    return tuple(row[0] for row in session.rows(sql, params or None))


def count_sessions(maintenance: Session, params: ConnectionParams) -> int:
    """How many others are connected to a database."""
    return int(maintenance.value(_SESSIONS, (params.dbname, params.application_name)))


def read_live(params: ConnectionParams, connect: Connect, maintenance: Session, major: int) -> LiveFacts | None:
    """The live database; None where there is none. One that is there and lets nobody in is a refusal."""
    try:
        session = open_source(params, connect)
    except Refused as refused:
        if refused.reason == "database_missing":
            return None
        raise
    try:
        database = read_database(session, major)
        properties = read_properties(session, database)
    finally:
        session.close()
    name = params.dbname
    return LiveFacts(
        oid=int(maintenance.value(_OID, (name,))),
        database=database,
        properties=properties,
        sessions=count_sessions(maintenance, params),
        slots=_names(maintenance, _SLOTS, name),
        subscriptions=_names(maintenance, _SUBSCRIPTIONS, name),
        prepared=_names(maintenance, _PREPARED, name),
        cron=maintenance.value(_CRON) == name,
    )


def read_target(order: Order, connect: Connect, maintenance: Session) -> TargetFacts:
    """Everything about the server that the plan asks for."""
    server, now = read_server(maintenance)
    (superuser,) = one_row(maintenance, _ROLE)
    local = order.connection.host.startswith("/") and bool(server.data_directory)
    return TargetFacts(
        now=now,
        server=server,
        superuser=superuser,
        live=read_live(order.connection, connect, maintenance, server.major),
        roles=frozenset(_names(maintenance, "SELECT rolname::text FROM pg_catalog.pg_roles")),
        tablespaces=frozenset(_names(maintenance, "SELECT spcname::text FROM pg_catalog.pg_tablespace")),
        extensions=dict(maintenance.rows(_EXTENSIONS)),
        free=free_space(server.data_directory) if local else None,
        leftovers=_names(maintenance, _LEFT, scratch_prefix(order.cluster, order.database)),
        backup=HeldLock(backup_lock(order.state_dir, order.database)).look(),
    )
