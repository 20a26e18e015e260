# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a dump has to know of a server, a database and a role before it begins. PRIVATE."""

from __future__ import annotations

import dataclasses
import datetime

from .._artifact.database import (
    INVALID_DATABASE,
    NOW,
    RELATIONS,
    Connect,
    DatabaseFacts,
    Relation,
    ServerFacts,
    countable,
    free_space,
    one_row,
    open_source,
    read_database,
    read_relations,
    read_server,
)
from .._postgres import Session

__all__ = [
    "INVALID_DATABASE",
    "NOW",
    "RELATIONS",
    "Connect",
    "DatabaseFacts",
    "Relation",
    "RoleFacts",
    "ServerFacts",
    "SourceFacts",
    "countable",
    "free_space",
    "open_source",
    "read_database",
    "read_relations",
    "read_server",
    "read_source",
]


@dataclasses.dataclass(frozen=True)
class RoleFacts:
    """Who dumps."""

    name: str
    superuser: bool
    createdb: bool


@dataclasses.dataclass(frozen=True)
class SourceFacts:
    """All of it, at one look."""

    now: datetime.datetime
    """The server's clock."""
    server: ServerFacts
    database: DatabaseFacts
    role: RoleFacts
    relations: tuple[Relation, ...]
    large_objects: int = 0
    unreadable_large_objects: int = 0

    @property
    def tables(self) -> tuple[Relation, ...]:
        """What is locked: tables and partitioned tables."""
        return tuple(relation for relation in self.relations if relation.kind in "rp")


_ROLE = """
SELECT rolname, rolsuper, rolcreatedb FROM pg_catalog.pg_roles WHERE rolname = current_user
"""
_LARGE_OBJECTS = """
SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE NOT (
  pg_catalog.pg_has_role(lomowner, 'USAGE') OR EXISTS (SELECT FROM pg_catalog.aclexplode(lomacl) a
    WHERE a.privilege_type = 'SELECT' AND (a.grantee = 0 OR pg_catalog.pg_has_role(a.grantee, 'USAGE')))))
FROM pg_catalog.pg_largeobject_metadata
"""


def read_source(session: Session) -> SourceFacts:
    """The look at a database, over one session to it."""
    server, now = read_server(session)
    role = RoleFacts(*one_row(session, _ROLE))
    large, unreadable = one_row(session, _LARGE_OBJECTS)
    return SourceFacts(
        now=now,
        server=server,
        database=read_database(session, server.major),
        role=role,
        relations=read_relations(session),
        large_objects=large,
        unreadable_large_objects=0 if role.superuser else unreadable,
    )
