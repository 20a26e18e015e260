# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A throw-away site with databases to be swapped; what it says comes from SQL and PgBouncer, not from the engine."""

from __future__ import annotations

import contextlib
import datetime
import typing as t

import psycopg
import pytest

from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._cluster.swap_model import SwapRequest
from ansible_collections.hms.postgres.plugins.module_utils._postgres import quote_identifier, quote_literal
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.course import Job, Report
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.swap_run import run_swap
from ansible_collections.hms.postgres.tests.real.engine_hosts import (
    PASSWORD,
    PROCESSES,
    Child,
    Database,
    Writer,
    rows_from,
    rows_of,
)
from ansible_collections.hms.postgres.tests.real.engine_site import HOLD_SECONDS, SCHEMA, EngineSite
from ansible_collections.hms.postgres.tests.real.lab import Lab, process_alive, until

LIVE = "hospital"
SCRATCH = "hospital_restore"


class SwapSite(EngineSite):
    """An `EngineSite` whose database can be swapped. Each database carries a name of its own in the table `label`."""

    def make(self, name: str = SCRATCH, *, label: str = "", schema: bool = True) -> int:
        """A database as a restore leaves it; returns its OID."""
        database = self.primary()
        database.sql(f"CREATE DATABASE {quote_identifier(name)} TEMPLATE template0", dbname="postgres")
        # a comment tells the databases apart, whatever they are called later
        self.inside(name, f"CREATE TABLE label AS SELECT {quote_literal(label or name)}::text AS label")
        self.inside(name, "GRANT SELECT ON label TO PUBLIC")
        if schema:
            self.inside(name, SCHEMA)
        return self.oid(name)

    def drop(self, name: str) -> None:
        """Drop a database, whoever is connected."""
        self.ask(f"DROP DATABASE IF EXISTS {quote_identifier(name)} WITH (FORCE)")

    def inside(self, name: str, statement: str) -> str:
        """SQL as a superuser in one database of the primary."""
        with direct(self.primary(), name, name="") as client:
            pid, found = client.info.backend_pid, rows_from(client, statement)
        until(lambda: not process_alive(pid), "nobody is connected who asked no more")
        return "\n".join("|".join(row.values()) for row in found)

    def ask(self, statement: str) -> str:
        """SQL as a superuser in the maintenance database."""
        return self.primary().sql(statement, dbname="postgres")

    def oids(self) -> dict[str, int]:
        """Every database that is not the server's own."""
        rows = self.ask(
            r"SELECT datname, oid FROM pg_database WHERE datname NOT LIKE 'template_' AND datname <> 'postgres'"
        )
        return {row.rpartition("|")[0]: int(row.rpartition("|")[2]) for row in rows.splitlines()}

    def oid(self, name: str) -> int:
        return self.oids()[name]

    def through(self, entry: str = LIVE) -> set[int]:
        """The OIDs that clients are led to, asked through every process by its own socket."""
        sql = "SELECT oid FROM pg_database WHERE datname = current_database()"
        found = set()
        for bouncer in self.bouncers.values():
            for process in PROCESSES:
                where = (
                    f"host={bouncer.sockets(process)} port={bouncer.port} dbname={entry} user=hospital_app "
                    f"password={PASSWORD}"
                )
                found.add(int(rows_of(where, sql)[0]["oid"]))
        return found

    def connected(self, oid: int) -> list[str]:
        """Who is connected to a database, by OID."""
        whom = f"datid = {oid} AND backend_type = 'client backend'"
        sql = f"SELECT pid, usename, application_name FROM pg_stat_activity WHERE {whom}"
        return self.ask(sql).splitlines()

    def rows(self, source: str) -> set[int]:
        """What a writer wrote, in whatever database it ended up."""
        found: set[int] = set()
        for name in self.oids():
            if self.inside(name, "SELECT to_regclass('ledger') IS NOT NULL") == "True":
                found |= {
                    int(row) for row in self.inside(name, f"SELECT seq FROM ledger WHERE source = '{source}'").split()
                }
        return found

    # -- working -------------------------------------------------------------------------------------------------

    def request(self, **wishes: t.Any) -> SwapRequest:
        """A request; swapping the scratch database in unless told otherwise."""
        stamp = f"{datetime.datetime.now(datetime.timezone.utc):%Y%m%dT%H%M%SZ}"
        base: dict[str, t.Any] = {"state": "swapped", "database": LIVE, "scratch": SCRATCH, "stamp": stamp}
        base["hold_deadline"] = HOLD_SECONDS
        if wishes.get("state") == "rolled_back":
            base["scratch"] = ""
        return SwapRequest(**{**base, **wishes})

    def swap_job(self, **wishes: t.Any) -> Job[SwapRequest]:
        return self.ordered(self.request, wishes)

    def swap(self, *, check_mode: bool = False, **wishes: t.Any) -> Report:
        """Swap in this process."""
        return run_swap(self.swap_job(**wishes), SystemClock(), check_mode=check_mode)

    def swap_child(self, *, moment: str = "", accident: t.Any = None, **wishes: t.Any) -> Child:
        """The same in a process of its own, to which something happens at the `moment` (see engine_child.py)."""
        return self.coordinator("swap_child.py", self.swap_job(**wishes), moment, accident)

    def catalog(self) -> str:
        """What a run that changes nothing must leave as it was: databases with their settings, roles, slots."""
        sql = (
            "SELECT string_agg(concat_ws(',', d.oid, datname, datallowconn, datconnlimit, datacl, setconfig), E'\\n'"
            " ORDER BY d.oid) FROM pg_database d LEFT JOIN pg_db_role_setting ON setdatabase = d.oid"
        )
        return self.ask(sql)


def direct(database: Database, dbname: str = LIVE, *, name: str = "reporting") -> psycopg.Connection[t.Any]:
    """A client past the bouncers."""
    return psycopg.connect(
        host="127.0.0.1",
        port=database.port,
        user="postgres",
        dbname=dbname,
        autocommit=True,
        application_name=name,
    )


RENAMERS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hms.postgres.swap'"


@pytest.fixture(scope="module")
def two_bouncers(module_lab: Lab) -> t.Iterator[SwapSite]:
    """One database host, two bouncer hosts with two processes each."""
    with contextlib.closing(SwapSite(module_lab, databases=1, bouncers=2)) as made:
        yield made


@pytest.fixture(scope="module")
def two_writers(site: SwapSite) -> list[Writer]:
    """A client on each bouncer host, for all tests of a file."""
    return [site.writer("one", "bouncer1", rate=50), site.writer("two", "bouncer2", rate=50)]


@pytest.fixture
def swapped_without_loss(site: SwapSite, writers: t.Sequence[Writer]) -> t.Iterator[tuple[int, int]]:
    """The live database and one to swap in. Nobody may see an error; nothing acknowledged may be lost."""
    failed = [writer.count("failed") + writer.count("unknown") for writer in writers]
    old, new = site.oid(LIVE), site.make()
    yield old, new
    site.agents_end()
    until(lambda: site.ask(RENAMERS) == "0", "no session renames")
    assert site.paused() == []
    assert site.through() == {new}
    until(lambda: site.connected(old) == [], "nobody stays in the former database")
    for writer in writers:
        writer.goes_on()
        assert writer.acknowledged() - site.rows(writer.source) == set()
    assert [writer.count("failed") + writer.count("unknown") for writer in writers] == failed
    # what the writers wrote stays with them; the kept database goes
    kept = min(name for name in site.oids() if name != LIVE)
    site.inside(LIVE, "CREATE TABLE IF NOT EXISTS earlier (source text, seq bigint)")
    rows = site.inside(kept, "SELECT string_agg(format('(%L,%s)', source, seq), ',') FROM ledger")
    if rows:
        site.inside(LIVE, f"INSERT INTO ledger SELECT * FROM (VALUES {rows}) AS v ON CONFLICT DO NOTHING")
    site.drop(kept)


def settled(site: SwapSite, pair: tuple[int, int]) -> bool:
    """Nobody is held, and all are led to one of the two. In the middle of it a login may fail."""
    with contextlib.suppress(psycopg.Error):
        return not site.paused() and len(found := site.through()) == 1 and found <= set(pair)
    return False


def run_again(site: SwapSite, pair: tuple[int, int]) -> None:
    """A second run ends it, a third has nothing to do."""
    done = site.oid(LIVE) == pair[1]
    assert site.swap().changed is not done
    assert site.oid(LIVE) == pair[1]
    assert not site.swap().changed
