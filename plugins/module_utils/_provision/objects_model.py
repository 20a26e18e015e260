# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Roles, databases and rights: as wished, as found, and the statements between. PRIVATE to the collection."""

from __future__ import annotations

import dataclasses
import typing as t

PUBLIC = "public"
"""The grantee's name for everybody, as this code writes it; no role can be called that."""


@dataclasses.dataclass(frozen=True)
class RoleWish:
    """A role and what it may do in the whole cluster."""

    name: str
    login: bool = True
    password: str | None = dataclasses.field(default=None, repr=False)
    replication: bool = False
    connection_limit: int = -1
    member_of: tuple[str, ...] = ()
    execute: tuple[str, ...] = ()
    """Functions of the maintenance database that it may call, as ``schema.name(type, type)``."""


@dataclasses.dataclass(frozen=True)
class DatabaseWish:
    """A database, and who may do what in it."""

    name: str
    owner: str
    writers: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()
    schemas: tuple[str, ...] = (PUBLIC,)
    extensions: tuple[str, ...] = ()
    encoding: str = "UTF8"
    locale: str = "C.UTF-8"
    monitor: str | None = None
    """The role that may write probes into the support schema."""
    pooler: str | None = None
    """The role by which PgBouncer asks for verifiers."""


@dataclasses.dataclass(frozen=True)
class ObjectsWish:
    """Everything that is declared."""

    roles: tuple[RoleWish, ...] = ()
    databases: tuple[DatabaseWish, ...] = ()


@dataclasses.dataclass(frozen=True)
class RoleFacts:
    """A role as it is."""

    login: bool
    superuser: bool = False
    createdb: bool = False
    createrole: bool = False
    replication: bool = False
    bypassrls: bool = False
    inherit: bool = True
    connection_limit: int = -1
    verifier: str | None = dataclasses.field(default=None, repr=False)
    member_of: frozenset[str] = frozenset()
    execute: frozenset[str] = frozenset()
    """Of the functions that are wished, those it may call."""


Grant = tuple[str, str]
"""Grantee and privilege."""


@dataclasses.dataclass(frozen=True)
class SchemaFacts:
    """A schema as it is."""

    owner: str
    grants: frozenset[Grant] = frozenset()


@dataclasses.dataclass(frozen=True)
class RelationFacts:
    """A table, view or sequence on which one of the declared roles has no right at all."""

    schema: str
    name: str
    kind: t.Literal["table", "sequence"]
    without: frozenset[str]
    """The roles that have none."""


@dataclasses.dataclass(frozen=True)
class SupportFacts:
    """The support schema as it is."""

    table_definition: tuple[str, ...] = ()
    table_grants: frozenset[Grant] = frozenset()
    function_body: str = ""
    function_options: tuple[str, ...] = ()
    function_grants: frozenset[Grant] = frozenset()
    foreign_owner: str = ""
    """Who owns the schema, where that isn't the superuser we are."""


@dataclasses.dataclass(frozen=True)
class DatabaseFacts:
    """A database as it is."""

    owner: str
    encoding: str = "UTF8"
    locale: str = "C.UTF-8"
    grants: frozenset[Grant] = frozenset()
    schemas: t.Mapping[str, SchemaFacts] = dataclasses.field(default_factory=dict)
    default_grants: frozenset[tuple[str, str, str, str]] = frozenset()
    """Default privileges: who creates, kind of object (r, S, n), grantee, privilege."""
    relations: tuple[RelationFacts, ...] = ()
    extensions: frozenset[str] = frozenset()
    available_extensions: frozenset[str] = frozenset()
    support: SupportFacts = SupportFacts()


@dataclasses.dataclass(frozen=True)
class ObjectsFacts:
    """The cluster as it is."""

    in_recovery: bool = False
    maintenance_database: str = "postgres"
    superuser: str = "postgres"
    """The role we are."""
    roles: t.Mapping[str, RoleFacts] = dataclasses.field(default_factory=dict)
    """Those of all roles that exist."""
    databases: t.Mapping[str, DatabaseFacts] = dataclasses.field(default_factory=dict)
    """Those of the declared databases that exist."""
    missing_functions: frozenset[str] = frozenset()
    """Wished functions that the server doesn't have."""


@dataclasses.dataclass(frozen=True)
class ObjectsAction:
    """One thing to do: statements in one database."""

    id: str
    database: str
    what: str
    why: str
    statements: tuple[str, ...] = dataclasses.field(repr=False)
    secret: bool = False
    """Whether a statement holds a verifier; then it is shown nowhere."""

    def as_dict(self) -> dict[str, t.Any]:
        """The action as plain data, without secrets."""
        return {
            "id": self.id,
            "database": self.database,
            "what": self.what,
            "why": self.why,
            "statements": [] if self.secret else list(self.statements),
        }


@dataclasses.dataclass(frozen=True)
class ObjectsPlan:
    """What is to be done, and what the operator should know."""

    actions: tuple[ObjectsAction, ...] = ()
    warnings: tuple[str, ...] = ()
    skipped: str = ""
    """Why nothing was planned at all."""
