# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stands beside the rows: the manifest's contents, and the properties of the database as a whole. PRIVATE.

Without ``-C`` pg_dump leaves out owner, rights, settings and limits of the database itself. They are kept as a member
of their own, as data and not as statements: a restore decides what of it to carry over.
"""

from __future__ import annotations

import typing as t

from .._artifact import properties
from .._artifact.properties import read_migrations
from .._postgres import Session
from .facts import Relation, SourceFacts, countable

_EXTENSIONS = "SELECT extname, extversion FROM pg_catalog.pg_extension ORDER BY 1"
_ROLES = """
WITH this AS (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
SELECT pg_catalog.pg_get_userbyid(refobjid) FROM pg_catalog.pg_shdepend, this
WHERE refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
  AND (dbid = this.oid OR (classid = 'pg_catalog.pg_database'::pg_catalog.regclass AND objid = this.oid))
UNION SELECT pg_catalog.pg_get_userbyid(setrole) FROM pg_catalog.pg_db_role_setting, this
WHERE setdatabase = this.oid AND setrole <> 0
ORDER BY 1
"""
_TABLESPACES = """
SELECT DISTINCT s.spcname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_tablespace s ON s.oid = c.reltablespace
WHERE s.spcname <> 'pg_global' ORDER BY 1
"""
_LARGE_OBJECTS = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata"
_PUBLISHING = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_publication"


def read_contents(session: Session, source: SourceFacts, relations: t.Sequence[Relation]) -> dict[str, t.Any]:
    """The manifest's ``contents``, at the session's snapshot; row counts come later."""
    return {
        "database_bytes": source.database.bytes,
        "tables": sum(relation.kind == "r" for relation in relations),
        "restorable_tables": len(countable(relations, is_standby=False)),
        "sequences": sum(relation.kind == "S" for relation in relations),
        "large_objects": session.value(_LARGE_OBJECTS),
        "extensions": dict(session.rows(_EXTENSIONS)),
        "roles": [row[0] for row in session.rows(_ROLES)],
        "tablespaces": [row[0] for row in session.rows(_TABLESPACES)],
        "publications": session.value(_PUBLISHING),
        "migrations": read_migrations(session, relations),
    }


def read_properties(session: Session, source: SourceFacts) -> dict[str, t.Any]:
    """What belongs to the database itself."""
    return properties.read_properties(session, source.database)
