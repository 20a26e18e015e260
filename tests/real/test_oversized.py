# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows that are too large for pg_dump are found before it begins; pg_dump itself says whether that is true."""

from __future__ import annotations

import pathlib
import typing as t

import psycopg
import pytest

from ansible_collections.hms.postgres.plugins.module_utils._backup import oversized
from ansible_collections.hms.postgres.plugins.module_utils._backup.facts import read_relations
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._postgres import ConnectionParams, Session, connect
from ansible_collections.hms.postgres.tests.real.backup_site import Site
from ansible_collections.hms.postgres.tests.real.lab import BINARIES, OS_USER, Instance, Lab, as_postgres

pytestmark = pytest.mark.timeout(400)

SCHEMA = """
CREATE DOMAIN scan AS bytea;
CREATE TABLE scans (id int, note text, "im age" scan, other bytea);
ALTER TABLE scans ALTER note SET STORAGE EXTERNAL, ALTER "im age" SET STORAGE EXTERNAL;
INSERT INTO scans SELECT n, repeat('x', 20000), convert_to(repeat('y', 30000), 'UTF8'), NULL
  FROM generate_series(1, 9) n;
INSERT INTO scans VALUES (10, NULL, convert_to(repeat('y', 50000), 'UTF8'), '\\x00');
CREATE TABLE small (data bytea);
INSERT INTO small VALUES ('\\x00');
CREATE TABLE days (at date, data bytea) PARTITION BY RANGE (at);
CREATE TABLE days_2026 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
ALTER TABLE days_2026 ALTER data SET STORAGE EXTERNAL;
INSERT INTO days VALUES ('2026-05-05', convert_to(repeat('z', 70000), 'UTF8'));
"""
LARGEST = 2 * 50_000 + 3 + 2 * 1 + 3


@pytest.fixture(scope="module")
def instance(module_lab: Lab) -> Instance:
    made = module_lab.primary()
    made.sql("CREATE DATABASE hospital")
    made.sql(SCHEMA, dbname="hospital")
    return made


@pytest.fixture
def session(instance: Instance) -> t.Iterator[Session]:
    params = ConnectionParams(host=str(instance.sockets), port=instance.port, dbname="hospital")
    opened = connect(params, os_user=OS_USER)
    yield opened
    opened.close()


def find(session: Session, **limits: t.Any) -> oversized.Seen:
    return oversized.find(session, read_relations(session), **{"toast_limit": 20_000, **limits})


def test_the_largest_row_is_named_with_its_column(session: Session) -> None:
    found = find(session, row_limit=LARGEST - 1)
    assert found.unseen == ()
    assert sorted(found.found, key=lambda one: one.table) == [
        oversized.Oversized("public.days_2026", "data", 140_003),
        oversized.Oversized("public.scans", "im age", LARGEST),
    ]
    with pytest.raises(Refused, match=r"public\.scans \(column im age: ") as caught:
        oversized.judge(found)
    assert caught.value.reason == "row_too_large"
    assert "pgbackrest" in caught.value.next_step
    assert session.value("SELECT current_setting('statement_timeout')") == "30s"


def test_what_fits_is_no_matter(session: Session) -> None:
    assert find(session, row_limit=140_003) == oversized.Seen()
    assert find(session, row_limit=1, toast_limit=10**9) == oversized.Seen()
    assert oversized.warnings(session, read_relations(session), "full") == ()
    assert oversized.warnings(session, (), "full") == ()


def test_what_can_not_be_looked_at_in_time_is_said(session: Session, instance: Instance) -> None:
    none_left = find(session, row_limit=1, seconds=0.0)
    assert {why for _table, why in none_left.unseen} == {"there was no time left"}
    locker = psycopg.connect(f"host={instance.sockets} port={instance.port} dbname=hospital user=lockers")
    with locker, locker.transaction():
        locker.execute("LOCK TABLE ONLY scans IN ACCESS EXCLUSIVE MODE")
        found = find(session, row_limit=140_002, seconds_each=3.0)
    locker.close()
    assert [one.table for one in found.found] == ["public.days_2026"]
    assert found.unseen == (("public.scans", "that took too long"),)
    assert oversized.judge(oversized.Seen(unseen=found.unseen)) == (
        "Whether public.scans holds a row that is too large for pg_dump was not looked at: that took too long.",
    )


@pytest.fixture(autouse=True, scope="module")
def lockers(instance: Instance) -> None:
    """Somebody who may lock tables, as a migration does."""
    instance.sql("CREATE ROLE lockers LOGIN SUPERUSER")


def test_a_dump_that_must_fail_is_refused_before_it_begins(
    instance: Instance, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance.sql("CREATE DATABASE archive")
    instance.sql(
        "CREATE TABLE films (id int, film bytea); ALTER TABLE films ALTER film SET STORAGE EXTERNAL;"
        " INSERT INTO films SELECT 1, convert_to(repeat('f', 537000000), 'UTF8')",
        dbname="archive",
    )
    site = Site(instance, tmp_path, database="archive")
    with pytest.raises(Refused, match=r"public\.films \(column film: 1074 MB in a dump\)") as caught:
        site.backup()
    assert caught.value.reason == "row_too_large"
    assert list(site.store.rglob("*.*")) == []
    where = ("-h", str(instance.sockets), "-p", str(instance.port))
    told = as_postgres(str(BINARIES / "pg_dump"), "-Fc", *where, "-f", "/dev/null", "archive", check=False)
    assert "invalid memory alloc request size" in told
    with monkeypatch.context() as late:
        late.setattr(oversized, "warnings", lambda *_args: ())  # as if the row came after the look
        with pytest.raises(HmsError) as failed:
            site.backup()
    assert (failed.value.reason, failed.value.phase) == ("stage_failed", "pg_dump")
    assert "films" in failed.value.message
    assert "pgbackrest" in failed.value.next_step
    assert (site.manifests(), site.loose()) == ([], [])
    assert site.backup(type="schema_only", verify="none").changed
    instance.sql("DROP DATABASE archive")
