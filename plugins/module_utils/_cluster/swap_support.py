# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What bouncers and probes need inside a database, compared between two of them: the schema ``hms``. PRIVATE.

A backup that was taken elsewhere, or long ago, may lack it: then no client could log in after the swap. What is missing
is made as the live database has it.
"""

from __future__ import annotations

import dataclasses

from .._postgres import Session, quote_identifier

TABLE = "hms.write_probe"
FUNCTION = "hms.pgbouncer_auth(text)"
PUBLIC = "PUBLIC"

_CREATE_TABLE = """\
CREATE TABLE IF NOT EXISTS hms.write_probe (
    operation text NOT NULL,
    source text NOT NULL,
    seq bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (operation, source, seq)
)"""

_OBJECTS = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'hms'),
       pg_catalog.to_regclass('hms.write_probe') IS NOT NULL,
       coalesce(pg_catalog.pg_get_functiondef(pg_catalog.to_regprocedure('hms.pgbouncer_auth(text)')), '')
"""

_GRANTS = """
SELECT g.kind, g.name, coalesce(r.rolname, 'PUBLIC'), x.privilege_type FROM (
    SELECT 'SCHEMA', 'hms', coalesce(nspacl, pg_catalog.acldefault('n', nspowner)), nspowner
      FROM pg_catalog.pg_namespace WHERE nspname = 'hms'
    UNION ALL
    SELECT 'TABLE', 'hms.write_probe', coalesce(relacl, pg_catalog.acldefault('r', relowner)), relowner
      FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass('hms.write_probe')
    UNION ALL
    SELECT 'FUNCTION', 'hms.pgbouncer_auth(text)', coalesce(proacl, pg_catalog.acldefault('f', proowner)), proowner
      FROM pg_catalog.pg_proc WHERE oid = pg_catalog.to_regprocedure('hms.pgbouncer_auth(text)')
    ) AS g (kind, name, acl, owner), pg_catalog.aclexplode(g.acl) AS x
  LEFT JOIN pg_catalog.pg_roles r ON r.oid = x.grantee
 WHERE x.grantee <> g.owner
 ORDER BY 1, 2, 3, 4
"""

Grant = tuple[str, str, str, str]
"""Kind, name, role, privilege."""


@dataclasses.dataclass(frozen=True)
class Support:
    """What a database has of it."""

    schema: bool = False
    table: bool = False
    function: str = ""
    """Its definition; empty when it isn't there."""
    grants: frozenset[Grant] = frozenset()


def read(session: Session) -> Support:
    """What the database has that the session is connected to."""
    schema, table, function = session.rows(_OBJECTS)[0]
    grants = frozenset((str(row[0]), str(row[1]), str(row[2]), str(row[3])) for row in session.rows(_GRANTS))
    return Support(bool(schema), bool(table), str(function), grants)


def missing(live: Support, scratch: Support) -> tuple[str, ...]:
    """What `live` has and `scratch` lacks, in words."""
    found = []
    if live.table and not scratch.table:
        found.append(f"the table {TABLE}")
    if live.function and not scratch.function:
        found.append(f"the function {FUNCTION}")
    lacking = sorted(live.grants - scratch.grants)
    found += [f"{privilege} on {name} for {role}" for _kind, name, role, privilege in lacking if role != PUBLIC]
    return tuple(found)


def statements(live: Support, scratch: Support) -> list[str]:
    """What gives `scratch` the missing."""
    if not missing(live, scratch):
        return []
    work = [] if scratch.schema else ["CREATE SCHEMA hms"]
    if live.table and not scratch.table:
        work.append(_CREATE_TABLE)
    if live.function and not scratch.function:
        work.append(live.function)
        if not any(grant[0] == "FUNCTION" and grant[2] == PUBLIC for grant in live.grants):
            work.append(f"REVOKE ALL ON FUNCTION {FUNCTION} FROM PUBLIC")
    for kind, name, role, privilege in sorted(live.grants - scratch.grants):
        if role != PUBLIC:
            work.append(f"GRANT {privilege} ON {kind} {name} TO {quote_identifier(role)}")
    return work
