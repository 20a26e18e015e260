# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The support schema ``hms`` of a managed database: the write probe and the pooler's login. PRIVATE."""

from __future__ import annotations

SCHEMA = "hms"
TABLE = "hms.write_probe"
FUNCTION = "hms.pgbouncer_auth(text)"

TABLE_COLUMNS = (
    "operation text not null",
    "source text not null",
    "seq bigint not null",
    "at timestamp with time zone not null default clock_timestamp()",
    "PRIMARY KEY (operation, source, seq)",
)
"""The table as the facts describe it: columns in order, then the key."""

CREATE_TABLE = """\
CREATE TABLE IF NOT EXISTS hms.write_probe (
    operation text NOT NULL,
    source text NOT NULL,
    seq bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (operation, source, seq)
)"""

FUNCTION_BODY = """
  SELECT r.rolname, r.rolpassword
    FROM pg_catalog.pg_authid r
   WHERE r.rolname = p_user
     AND r.rolcanlogin
     AND NOT r.rolsuper
     AND NOT r.rolreplication
     AND NOT r.rolbypassrls
     AND (r.rolvaliduntil IS NULL OR r.rolvaliduntil > pg_catalog.now())
     AND pg_catalog.has_database_privilege(r.oid, pg_catalog.current_database(), 'CONNECT')
"""

FUNCTION_OPTIONS = ("sql", "stable", "security definer", "search_path=pg_catalog, pg_temp")
"""The function as the facts describe it: language, volatility, security, settings."""

CREATE_FUNCTION = (
    "CREATE OR REPLACE FUNCTION hms.pgbouncer_auth(p_user text) RETURNS TABLE(usename name, passwd text)\n"
    "LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp\n"
    f"AS $hms${FUNCTION_BODY}$hms$"
)

PROBE_PRIVILEGES = ("SELECT", "INSERT", "DELETE")
