# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a database is besides its rows: owner, rights, settings, limits, and where its application stands. PRIVATE."""

from __future__ import annotations

import typing as t

from .._postgres import Session
from .database import DatabaseFacts, Relation

_DATABASE = """
SELECT pg_catalog.pg_get_userbyid(d.datdba), d.datacl::text[], d.datconnlimit, d.datistemplate, s.spcname,
  pg_catalog.shobj_description(d.oid, 'pg_database')
FROM pg_catalog.pg_database d JOIN pg_catalog.pg_tablespace s ON s.oid = d.dattablespace
WHERE d.datname = pg_catalog.current_database()
"""
_SETTINGS = """
SELECT CASE WHEN s.setrole = 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(s.setrole) END, s.setconfig
FROM pg_catalog.pg_db_role_setting s
WHERE s.setdatabase = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
ORDER BY 1
"""
_COLUMNS = """
SELECT pg_catalog.array_agg(attname::text) FROM pg_catalog.pg_attribute
WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped
"""


def read_migrations(session: Session, relations: t.Sequence[Relation]) -> dict[str, str]:
    """Django's newest migration of each application, where the database is one of Django's."""
    for relation in relations:
        if relation.kind == "r" and relation.name == "django_migrations" and relation.readable:
            columns = set(session.value(_COLUMNS, (relation.oid,)) or ())
            if {"id", "app", "name"} <= columns:
                newest = f"SELECT DISTINCT ON (app) app::text, name::text FROM {relation.quoted} ORDER BY app, id DESC"
                return dict(session.rows(newest))
    return {}


def read_properties(session: Session, database: DatabaseFacts) -> dict[str, t.Any]:
    """What belongs to the database itself."""
    owner, acl, limit, template, tablespace, comment = session.rows(_DATABASE)[0]
    return {
        "database": database.name,
        "owner": owner,
        "acl": acl,
        "connection_limit": limit,
        "is_template": template,
        "tablespace": tablespace,
        "comment": comment,
        "encoding": database.encoding,
        "collate": database.collate,
        "ctype": database.ctype,
        "locale_provider": database.provider,
        "locale": database.locale,
        "settings": [{"role": role, "settings": settings} for role, settings in session.rows(_SETTINGS)],
    }
