# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The live database was dropped: the newest backup comes back under its name, and clients that waited go on."""

from __future__ import annotations

import contextlib
import json
import signal
import typing as t

import psycopg
import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.tests.real import restore_site
from ansible_collections.hms.postgres.tests.real.engine_hosts import PASSWORD, rows_of
from ansible_collections.hms.postgres.tests.real.lab import Lab, run, until
from ansible_collections.hms.postgres.tests.real.restore_site import RestoreSite
from ansible_collections.hms.postgres.tests.real.swap_site import LIVE, SwapSite, direct

FORCED = ("no_database",)


@pytest.fixture(scope="module")
def site(module_lab: Lab) -> t.Iterator[SwapSite]:
    """A primary, a standby, a bouncer host."""
    with contextlib.closing(SwapSite(module_lab, databases=2, bouncers=1)) as made:
        yield made


@pytest.fixture
def backups(site: SwapSite) -> t.Iterator[RestoreSite]:
    """A backup of a database with settings and rights of its own, which is dropped after it."""
    made = RestoreSite(site.primary().instance, site.folder / "backups", database=LIVE)
    site.inside(LIVE, "INSERT INTO ledger SELECT 'before', n FROM generate_series(1, 100) n ON CONFLICT DO NOTHING")
    for statement in (
        "CREATE ROLE hospital_owner",
        f"ALTER DATABASE {LIVE} OWNER TO hospital_owner",
        f"ALTER DATABASE {LIVE} SET work_mem = '5MB'",
        f"ALTER DATABASE {LIVE} CONNECTION LIMIT 55",
        f"REVOKE TEMPORARY ON DATABASE {LIVE} FROM PUBLIC",
    ):
        with contextlib.suppress(psycopg.errors.DuplicateObject):
            site.ask(statement)
    made.backup()
    yield made
    for name in site.oids():
        if name != LIVE:
            site.drop(name)


def write(site: SwapSite, source: str) -> None:
    """As the application does, through the bouncer."""
    port = site.bouncers["bouncer1"].port
    where = f"host=127.0.0.1 port={port} dbname={LIVE} user=hospital_app password={PASSWORD} connect_timeout=5"
    rows_of(where, f"INSERT INTO ledger VALUES ('{source}', 1) RETURNING seq")


def test_a_dropped_database_comes_back_and_serves(site: SwapSite, backups: RestoreSite) -> None:
    server = site.primary().instance
    wanted = restore_site.properties(server, LIVE)
    site.drop(LIVE)
    with pytest.raises(psycopg.OperationalError):
        write(site, "in vain")

    done = backups.restore().values
    assert (done["ready"], done["live_exists"], done["before_name"]) == (True, False, None)
    oid = site.oid(done["scratch"])
    planned = site.swap(check_mode=True, scratch=done["scratch"], force=FORCED)
    assert planned.changed
    assert planned.plan.summary == f"{done['scratch']} becomes {LIVE}; there is none now, so nothing is kept."
    report = site.swap(scratch=done["scratch"], force=FORCED)
    assert report.changed
    assert site.oids() == {LIVE: oid}
    assert site.through() == {oid}
    assert site.paused() == []
    write(site, "after")
    assert site.inside(LIVE, "SELECT count(*) FROM ledger WHERE source IN ('before', 'after')") == "101"
    assert restore_site.properties(server, LIVE).replace("hms.swapped", "").startswith(wanted.split("{")[0])
    assert site.ask(f"SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = '{LIVE}'") == "hospital_owner"
    assert site.inside(LIVE, "SHOW work_mem") == "5MB"
    assert report.record is not None
    message = report.record["outcome"]["message"]
    assert f"there was no {LIVE}, so nothing is kept and there is no way back" in message
    standby = site.standby()
    until(lambda: standby.ask(f"SELECT oid FROM pg_database WHERE datname = '{LIVE}'") == str(oid), "standbys follow")

    assert not site.swap(scratch=done["scratch"], force=FORCED).changed
    again = backups.restore()
    assert (again.changed, again.values["live_already"]) == (False, True)
    write(site, "later")


def test_the_way_back_says_that_there_is_none(site: SwapSite, backups: RestoreSite) -> None:
    site.make("hospital_before_20250101T000000Z")  # of a swap long ago
    site.drop(LIVE)
    done = backups.restore(again=True).values
    site.swap(scratch=done["scratch"], force=FORCED)
    before = site.oids()
    with pytest.raises(HmsError) as caught:
        site.swap(state="rolled_back")
    assert caught.value.reason == "nothing_kept"
    assert f"Nothing from before {site_operation(site)}, which made {LIVE} of {done['scratch']}" in caught.value.message
    assert "hospital_before_20250101T000000Z" in caught.value.message
    assert site.oids() == before


def site_operation(site: SwapSite) -> str:
    """The newest swap that was done, as its record tells."""
    records = [json.loads(path.read_text()) for path in site.records.glob("*-swap-*.json")]
    return str(max(record["id"] for record in records if record["outcome"]["status"] == "done"))


def test_an_old_dump_that_knows_no_owner_gets_the_declared_one(site: SwapSite, backups: RestoreSite) -> None:
    server = site.primary().instance
    path = site.folder / "old.dump"
    argv = [
        "pg_dump",
        "-Fc",
        "-h",
        "127.0.0.1",
        "-p",
        str(site.primary().port),
        "-U",
        "postgres",
        "-f",
        str(path),
        LIVE,
    ]
    run(*argv)
    site.drop(LIVE)
    done = backups.restore(backup=str(path), again=True).values
    owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = '{}'"
    assert server.sql(owner.format(done["scratch"])) == "hospital_owner"
    site.swap(scratch=done["scratch"], force=FORCED)
    assert server.sql(owner.format(LIVE)) == "hospital_owner"
    write(site, "from an old dump")


@pytest.mark.usefixtures("backups")
def test_a_name_that_nobody_has_is_refused_unless_said(site: SwapSite) -> None:
    site.make()
    before = site.catalog()
    with pytest.raises(HmsError) as caught:
        site.swap(database="hospitol")
    assert caught.value.reason == "no_database"
    assert "hospital_restore would get its name, and nothing would be kept" in caught.value.message
    with pytest.raises(HmsError, match=r"neither a database 'hospitol' nor 'nobody'") as caught:
        site.swap(database="hospitol", scratch="nobody", force=FORCED)
    assert caught.value.reason == "nothing_live"
    with pytest.raises(HmsError, match=r"none that could become it was named"):
        site.swap(database="hospitol", state="rolled_back", force=FORCED)
    assert site.catalog() == before


def test_killed_in_the_middle_the_next_run_ends_it(site: SwapSite, backups: RestoreSite) -> None:
    site.drop(LIVE)
    done = backups.restore(again=True).values
    assert site.swap_child(moment="after:swap", scratch=done["scratch"], force=FORCED).end() == -signal.SIGKILL
    site.agents_end()
    assert site.paused() == []
    assert set(site.oids()) <= {LIVE, done["scratch"]}
    assert len(site.oids()) == 1
    site.swap(scratch=done["scratch"], force=FORCED)
    write(site, "after all")
    assert not site.swap(scratch=done["scratch"], force=FORCED).changed


def test_one_that_is_made_anew_meanwhile_is_not_lost(site: SwapSite, backups: RestoreSite) -> None:
    """Between the look and the rename somebody makes a new database of that name."""
    site.drop(LIVE)
    done = backups.restore(again=True).values
    statement = f"CREATE DATABASE {LIVE}"
    argv = ["psql", "-X", "-h", "127.0.0.1", "-p", str(site.primary().port), "-U", "postgres", "-c", statement]
    child = site.swap_child(moment="before:swap", accident={"run": argv}, scratch=done["scratch"], force=FORCED)
    assert child.end() == 3
    assert child.result()["state"] == f"{done['scratch']} is called that still. Nothing was changed."
    assert set(site.oids()) == {LIVE, done["scratch"]}
    assert site.paused() == []
    site.agents_end()
    site.swap(scratch=done["scratch"])
    with contextlib.closing(direct(site.primary())) as session:
        assert session.execute("SELECT count(*) FROM ledger WHERE source = 'before'").fetchall() == [(100,)]
