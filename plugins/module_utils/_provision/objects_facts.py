# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading roles, databases and rights from a server. PRIVATE to the collection."""

from __future__ import annotations

import typing as t

from .._postgres import Session
from . import support_schema
from .objects_model import (
    PUBLIC,
    DatabaseFacts,
    DatabaseWish,
    Grant,
    ObjectsFacts,
    ObjectsWish,
    RelationFacts,
    RoleFacts,
    SchemaFacts,
    SupportFacts,
)

Opener = t.Callable[[str], Session]
"""Opens a session in a database."""

_ROLES = """
SELECT rolname, rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, rolinherit,
       rolconnlimit, rolpassword,
       ARRAY(SELECT g.rolname::text FROM pg_catalog.pg_auth_members m
               JOIN pg_catalog.pg_authid g ON g.oid = m.roleid WHERE m.member = r.oid)
  FROM pg_catalog.pg_authid r
"""
_FUNCTIONS = "SELECT f FROM pg_catalog.unnest(%s::text[]) f WHERE pg_catalog.to_regprocedure(f) IS NULL"
_EXECUTE = """
SELECT r.rolname, f FROM pg_catalog.unnest(%s::text[]) f, pg_catalog.pg_authid r
 WHERE r.rolname = ANY (%s::text[])
   AND pg_catalog.has_function_privilege(r.oid, pg_catalog.to_regprocedure(f), 'EXECUTE')
"""
_DATABASES = """
SELECT d.datname, pg_catalog.pg_get_userbyid(d.datdba), pg_catalog.pg_encoding_to_char(d.encoding), d.datcollate
  FROM pg_catalog.pg_database d WHERE d.datname = ANY (%s::text[])
"""
_GRANTEE = "CASE x.grantee WHEN 0 THEN %s ELSE pg_catalog.pg_get_userbyid(x.grantee) END"
_DATABASE_GRANTS = f"""
SELECT {_GRANTEE}, x.privilege_type
  FROM pg_catalog.pg_database d,
       pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) x
 WHERE d.datname = pg_catalog.current_database()
"""
_SCHEMAS = f"""
SELECT n.nspname, pg_catalog.pg_get_userbyid(n.nspowner), {_GRANTEE}, x.privilege_type
  FROM pg_catalog.pg_namespace n,
       pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) x
"""
_DEFAULT_GRANTS = f"""
SELECT pg_catalog.pg_get_userbyid(d.defaclrole), d.defaclobjtype::text, {_GRANTEE}, x.privilege_type
  FROM pg_catalog.pg_default_acl d, pg_catalog.aclexplode(d.defaclacl) x WHERE d.defaclnamespace = 0
"""
_RELATIONS = """
SELECT n.nspname, c.relname, c.relkind = 'S',
       ARRAY(SELECT pg_catalog.pg_get_userbyid(x.grantee)::text FROM pg_catalog.aclexplode(c.relacl) x)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = ANY (%s::text[]) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
   AND pg_catalog.pg_get_userbyid(c.relowner) = %s
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
 ORDER BY 1, 2
"""
_EXTENSIONS = "SELECT extname FROM pg_catalog.pg_extension"
_AVAILABLE = "SELECT name FROM pg_catalog.pg_available_extensions WHERE name = ANY (%s::text[])"
_SUPPORT_OWNER = """
SELECT r.rolname FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_authid r ON r.oid = n.nspowner
 WHERE n.nspname = %s AND NOT r.rolsuper
"""
_SUPPORT_COLUMNS = """
SELECT a.attname || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod)
       || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END
       || coalesce(' default ' || pg_catalog.pg_get_expr(e.adbin, e.adrelid), '')
  FROM pg_catalog.pg_attribute a
  LEFT JOIN pg_catalog.pg_attrdef e ON e.adrelid = a.attrelid AND e.adnum = a.attnum
 WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attnum
"""
_SUPPORT_KEY = """
SELECT pg_catalog.pg_get_constraintdef(oid) FROM pg_catalog.pg_constraint
 WHERE conrelid = pg_catalog.to_regclass(%s) AND contype = 'p'
"""
_TABLE_GRANTS = f"""
SELECT {_GRANTEE}, x.privilege_type FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) x
 WHERE c.oid = pg_catalog.to_regclass(%s)
"""
_FUNCTION = """
SELECT p.prosrc, l.lanname, p.provolatile::text, p.prosecdef, coalesce(p.proconfig, '{}')
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
 WHERE p.oid = pg_catalog.to_regprocedure(%s)
"""
_FUNCTION_GRANTS = f"""
SELECT {_GRANTEE}, x.privilege_type
  FROM pg_catalog.pg_proc p,
       pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) x
 WHERE p.oid = pg_catalog.to_regprocedure(%s)
"""
_VOLATILITY = {"i": "immutable", "s": "stable", "v": "volatile"}


def read_objects(wish: ObjectsWish, *, opener: Opener, maintenance_database: str, superuser: str) -> ObjectsFacts:
    """Everything the plan needs to know; on a standby only that it is one."""
    session = opener(maintenance_database)
    try:
        if session.value("SELECT pg_catalog.pg_is_in_recovery()"):
            return ObjectsFacts(in_recovery=True, maintenance_database=maintenance_database, superuser=superuser)
        functions = sorted({function for role in wish.roles for function in role.execute})
        missing = frozenset(str(row[0]) for row in session.rows(_FUNCTIONS, [functions])) if functions else frozenset()
        roles = _read_roles(session, wish, [name for name in functions if name not in missing])
        rows = session.rows(_DATABASES, [[database.name for database in wish.databases]])
    finally:
        session.close()
    known = {str(name): (str(owner), str(encoding), str(locale)) for name, owner, encoding, locale in rows}
    databases = {
        database.name: _read_database(database, known[database.name], opener)
        for database in wish.databases
        if database.name in known
    }
    return ObjectsFacts(
        maintenance_database=maintenance_database,
        superuser=superuser,
        roles=roles,
        databases=databases,
        missing_functions=missing,
    )


def _read_roles(session: Session, wish: ObjectsWish, functions: t.Sequence[str]) -> dict[str, RoleFacts]:
    declared = [role.name for role in wish.roles]
    may_call: dict[str, set[str]] = {}
    for role, function in session.rows(_EXECUTE, [list(functions), declared]) if functions else []:
        may_call.setdefault(str(role), set()).add(str(function))
    found = {}
    for name, *attributes, verifier, groups in session.rows(_ROLES):
        login, superuser, createdb, createrole, replication, bypassrls, inherit, connection_limit = attributes
        found[str(name)] = RoleFacts(
            login=login,
            superuser=superuser,
            createdb=createdb,
            createrole=createrole,
            replication=replication,
            bypassrls=bypassrls,
            inherit=inherit,
            connection_limit=connection_limit,
            verifier=verifier if name in declared else None,
            member_of=frozenset(groups),
            execute=frozenset(may_call.get(str(name), ())),
        )
    return found


def _grants(session: Session, sql: str, *params: t.Any) -> frozenset[Grant]:
    return frozenset((str(grantee), str(privilege)) for grantee, privilege in session.rows(sql, [PUBLIC, *params]))


def _read_database(wish: DatabaseWish, head: tuple[str, str, str], opener: Opener) -> DatabaseFacts:
    owner, encoding, locale = head
    session = opener(wish.name)
    try:
        return DatabaseFacts(
            owner=owner,
            encoding=encoding,
            locale=locale,
            grants=_grants(session, _DATABASE_GRANTS),
            schemas=_read_schemas(session),
            default_grants=frozenset(
                (str(creator), str(kind), str(grantee), str(privilege))
                for creator, kind, grantee, privilege in session.rows(_DEFAULT_GRANTS, [PUBLIC])
            ),
            relations=_read_relations(session, wish),
            extensions=frozenset(str(row[0]) for row in session.rows(_EXTENSIONS)),
            available_extensions=frozenset(str(row[0]) for row in session.rows(_AVAILABLE, [list(wish.extensions)])),
            support=_read_support(session),
        )
    finally:
        session.close()


def _read_schemas(session: Session) -> dict[str, SchemaFacts]:
    owners: dict[str, str] = {}
    grants: dict[str, set[Grant]] = {}
    for name, owner, grantee, privilege in session.rows(_SCHEMAS, [PUBLIC]):
        owners[str(name)] = str(owner)
        grants.setdefault(str(name), set()).add((str(grantee), str(privilege)))
    return {name: SchemaFacts(owner, frozenset(grants[name])) for name, owner in owners.items()}


def _read_relations(session: Session, wish: DatabaseWish) -> tuple[RelationFacts, ...]:
    users = frozenset((*wish.writers, *wish.readers)) - {wish.owner}
    found = []
    for schema, name, is_sequence, grantees in session.rows(_RELATIONS, [list(wish.schemas), wish.owner]):
        without = users - frozenset(grantees)
        if without:
            found.append(RelationFacts(str(schema), str(name), "sequence" if is_sequence else "table", without))
    return tuple(found)


def _read_support(session: Session) -> SupportFacts:
    table, function = support_schema.TABLE, support_schema.FUNCTION
    columns = [str(row[0]) for row in session.rows(_SUPPORT_COLUMNS, [table])]
    key = session.value(_SUPPORT_KEY, [table])
    body = ""
    options: tuple[str, ...] = ()
    row = session.row(_FUNCTION, [function])
    if row is not None:
        source, language, volatility, definer, settings = row
        body = str(source)
        security = "security definer" if definer else "security invoker"
        options = (str(language), _VOLATILITY.get(volatility, volatility), security, *settings)
    return SupportFacts(
        table_definition=(*columns, str(key)) if columns else (),
        table_grants=_grants(session, _TABLE_GRANTS, table),
        function_body=body,
        function_options=options,
        function_grants=_grants(session, _FUNCTION_GRANTS, function),
        foreign_owner=str(session.value(_SUPPORT_OWNER, [support_schema.SCHEMA]) or ""),
    )
