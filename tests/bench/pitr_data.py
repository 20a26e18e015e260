# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""WAL to recover: many small transactions after a backup, and the rows that were there at a moment near their end."""

from __future__ import annotations

import time

import psycopg

from ansible_collections.hms.postgres.tests.real.lab import Instance, as_postgres, until
from ansible_collections.hms.postgres.tests.real.pgbackrest_site import Site
from ansible_collections.hms.postgres.tests.real.pitr_site import History

TIMEOUT = 3600.0
DATABASE = "hospital"
APART = 0.2
"""Seconds between the target and the transaction after it."""
PATIENTS = 50_000
CHECKED = 50
CHANGES = (
    "UPDATE notes SET author = 'dr' || %(number)s %% 89, at = at + interval '1 minute' WHERE patient = %(patient)s",
    "INSERT INTO labs SELECT n, 'L' || n %% 400, n / 97.0 FROM generate_series(1, 200) n",
)
HARM = "DELETE FROM notes WHERE patient < 10"
HELD = """
SELECT (SELECT count(*) || ' notes ' || coalesce(sum(hashtextextended(n::text, 0)), 0) FROM notes n) || ', '
  || (SELECT count(*) || ' labs ' || coalesce(sum(hashtextextended(l::text, 0)), 0) FROM labs l)
"""


def ask(server: Instance, statement: str, *, database: str = DATABASE, check: bool = True) -> str:
    """What psql answers, however long it takes."""
    where = ("-h", str(server.sockets), "-p", str(server.port))
    options = ("-XqAt", "-v", "ON_ERROR_STOP=1")
    return as_postgres("psql", *options, *where, "-c", statement, database, timeout=TIMEOUT, check=check).strip()


def change(site: Site, gigabytes: float) -> None:
    """Small transactions until about that much WAL is written."""
    wanted = gigabytes * 1e9
    conninfo = site.instance.conninfo("postgres", dbname=DATABASE, password="bench of the lab")
    with psycopg.connect(conninfo, autocommit=True) as connection:
        begun = connection.execute("SELECT pg_current_wal_lsn()").fetchone()
        assert begun
        number = 0
        while True:
            row = connection.execute("SELECT pg_current_wal_lsn() - %s::pg_lsn", begun).fetchone()
            if row and row[0] >= wanted:
                return
            for _each in range(CHECKED):
                number += 1
                with connection.transaction():
                    for statement in CHANGES:
                        connection.execute(statement, {"number": number, "patient": number * 7919 % PATIENTS})


def history(site: Site, gigabytes: float) -> tuple[str, str]:
    """WAL of about that size; the target between two transactions near its end, and the rows at it."""
    past = History(site)
    change(site, gigabytes * 0.98)
    rows = ask(site.instance, HELD)
    target = past.clock()
    time.sleep(APART)
    site.instance.sql(HARM, dbname=DATABASE)
    change(site, gigabytes * 0.02)
    last = site.instance.sql("SELECT pg_walfile_name(pg_switch_wal())")
    until(lambda: any(site.archive.glob(f"*/{last}-*")), f"{last} is archived", seconds=TIMEOUT)
    return target, rows
