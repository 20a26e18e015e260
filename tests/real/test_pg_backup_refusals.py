# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a backup refuses before it touches anything: each with the real thing, each named in the message."""

from __future__ import annotations

import contextlib
import pathlib
import time
import typing as t

import psycopg
import pytest

from ansible_collections.hms.postgres.plugins.module_utils._backup.dump import DumpOperation
from ansible_collections.hms.postgres.plugins.module_utils._backup.look import Ports
from ansible_collections.hms.postgres.plugins.module_utils._backup.wishes import wish_from
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._postgres import connect
from ansible_collections.hms.postgres.tests.real import backup_site
from ansible_collections.hms.postgres.tests.real.backup_site import PASSPHRASE, Site
from ansible_collections.hms.postgres.tests.real.lab import VERSION, Instance, Lab, run, until

READER: dict[str, t.Any] = {
    "login_user": "reader",
    "login_host": "127.0.0.1",
    "login_password": "read read read",
    "os_user": "",
}


@pytest.fixture(scope="module")
def server(module_lab: Lab) -> Instance:
    """A server with a database whose tables are not all for everybody."""
    instance = module_lab.primary()
    instance.sql("CREATE DATABASE hospital")
    instance.sql("CREATE ROLE reader LOGIN PASSWORD 'read read read'")
    instance.sql(
        "CREATE TABLE open_one (id int); GRANT SELECT ON open_one TO reader;"
        ' CREATE TABLE shut (id int); CREATE SCHEMA vault; CREATE TABLE vault."in Side" (id int);'
        " GRANT SELECT ON ALL TABLES IN SCHEMA vault TO reader; CREATE SEQUENCE counter",
        dbname="hospital",
    )
    return instance


@pytest.fixture
def site(server: Instance, tmp_path: pathlib.Path) -> t.Iterator[Site]:
    """A store that must still be empty afterwards."""
    made = Site(server, tmp_path / "site")
    yield made
    assert made.loose() == []
    assert made.manifests() == []


def refused(site: Site, **changes: t.Any) -> HmsError:
    """The refusal, in check mode and for real alike."""
    with pytest.raises(HmsError) as planned:
        site.backup(check_mode=True, **changes)
    with pytest.raises(HmsError) as caught:
        site.backup(**changes)
    assert (planned.value.reason, planned.value.message) == (caught.value.reason, caught.value.message)
    assert caught.value.state.startswith("Nothing was touched")
    assert caught.value.next_step
    return caught.value


def test_tables_that_the_role_may_not_read_are_named(site: Site) -> None:
    error = refused(site, **READER)
    assert error.reason == "no_select"
    assert 'public.counter, public.shut, vault."in Side"' in error.message
    assert "open_one" not in error.message
    assert "pg_read_all_data" in error.next_step


def test_row_level_security_hides_nothing_silently(site: Site, server: Instance) -> None:
    server.sql("GRANT pg_read_all_data TO reader; ALTER ROLE reader NOBYPASSRLS")
    server.sql("ALTER TABLE shut ENABLE ROW LEVEL SECURITY", dbname="hospital")
    try:
        error = refused(site, **READER)
        assert (error.reason, "public.shut" in error.message) == ("row_security", True)
        assert "BYPASSRLS" in error.next_step
        server.sql("ALTER ROLE reader BYPASSRLS")
        made = site.backup(**READER).values["backup"]
        assert made["contents"]["tables"] == 3
        backup_site.remove_tree(site.store / "hospital")
    finally:
        server.sql("REVOKE pg_read_all_data FROM reader; ALTER ROLE reader NOBYPASSRLS")
        server.sql("ALTER TABLE shut DISABLE ROW LEVEL SECURITY", dbname="hospital")


def test_large_objects_of_others(site: Site, server: Instance) -> None:
    server.sql("GRANT pg_read_all_data TO reader")
    server.sql("SELECT lo_from_bytea(4711, 'x')", dbname="hospital")
    try:
        error = refused(site, **READER)
        assert (error.reason, "1 large objects" in error.message) == ("no_select", True)
    finally:
        server.sql("SELECT lo_unlink(4711)", dbname="hospital")
        server.sql("REVOKE pg_read_all_data FROM reader")


def test_rights_for_passwords_and_for_a_scratch_database(site: Site, server: Instance) -> None:
    server.sql("GRANT pg_read_all_data TO reader")
    try:
        error = refused(site, role_passwords=True, verify="deep", **READER)
        assert [one["rule"] for one in error.details["refusals"]] == ["no_superuser", "no_createdb"]
    finally:
        server.sql("REVOKE pg_read_all_data FROM reader")


def test_a_role_that_may_make_databases_verifies_deep(site: Site, server: Instance) -> None:
    """It need not be a superuser, though it may not ask for a checkpoint."""
    server.sql("GRANT pg_read_all_data TO reader; ALTER ROLE reader CREATEDB")
    try:
        made = site.backup(verify="deep", **READER).values["backup"]
        assert (made["verification"]["level"], made["verification"]["ok"]) == ("deep", True)
        assert server.sql("SELECT count(*) FROM pg_database WHERE datname LIKE 'hms_verify%'") == "0"
    finally:
        backup_site.remove_tree(site.store / "hospital")
        server.sql("REVOKE pg_read_all_data FROM reader; ALTER ROLE reader NOCREATEDB")


def test_a_database_that_is_missing_invalid_or_closed(site: Site, server: Instance) -> None:
    assert refused(site, database="hospitla").reason == "database_missing"
    server.sql("CREATE DATABASE broken")
    try:
        server.sql("UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'broken'")
        assert refused(site, database="broken").reason == "database_invalid"
        server.sql("UPDATE pg_database SET datconnlimit = -1, datallowconn = false WHERE datname = 'broken'")
        assert refused(site, database="broken").reason == "database_closed"
    finally:
        server.sql("UPDATE pg_database SET datconnlimit = -1, datallowconn = true WHERE datname = 'broken'")
        server.sql("DROP DATABASE broken")


def test_a_server_that_is_down_or_refuses_the_password(site: Site, lab: Lab) -> None:
    assert refused(site, login_port=lab.port()).reason == "connection_failed"
    error = refused(site, **{**READER, "login_password": "wrong wrong wrong"})
    assert error.reason == "connection_failed"
    assert "wrong wrong" not in error.full_text() + str(error.details)


def test_a_store_that_cannot_take_it(site: Site, tmp_path: pathlib.Path) -> None:
    error = refused(site, store={"folder": str(tmp_path / "not mounted")})
    assert (error.reason, "not mounted" in error.message) == ("no_store", True)
    with small_store(tmp_path / "readonly", "size=1m,ro") as folder:
        assert refused(site, store={"folder": str(folder)}).reason == "store_failed"
    with small_store(tmp_path / "tiny", "size=64k") as folder:
        error = refused(site, store={"folder": str(folder)})
        assert error.reason == "store_full"
        assert str(folder) in error.message


@contextlib.contextmanager
def small_store(folder: pathlib.Path, options: str) -> t.Iterator[pathlib.Path]:
    """A tmpfs."""
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", options, "hmstest", str(folder))
    try:
        yield folder
    finally:
        run("umount", str(folder))


def test_keys_and_passphrases(site: Site, tmp_path: pathlib.Path) -> None:
    with backup_site.keys_in(tmp_path) as keys:
        good, short = keys.make("good@example.org"), keys.make("short@example.org", expires="seconds=1")
        time.sleep(2)
        both = {"key_files": [str(good), str(short)]}
        expired = refused(site, encryption={"recipients": ["good@example.org", "short@example.org"], **both})
        assert (expired.reason, "short@example.org" in expired.message) == ("recipient_expired", True)
        unknown = refused(site, encryption={"recipients": ["nobody@example.org"], **both})
        assert (unknown.reason, "nobody@example.org" in unknown.message) == ("recipient_unknown", True)
    missing = refused(site, encryption={"passphrase_file": str(tmp_path / "none")})
    assert missing.reason == "passphrase_missing"
    exposed = tmp_path / "passphrase"
    exposed.write_text(PASSPHRASE)
    exposed.chmod(0o644)
    error = refused(site, encryption={"passphrase_file": str(exposed)})
    assert error.reason == "passphrase_exposed"
    assert PASSPHRASE not in error.full_text() + str(error.details)


@pytest.mark.parametrize(("major", "relation"), [(VERSION - 1, "newer"), (VERSION + 2, "older")])
def test_programs_of_another_version(site: Site, tmp_path: pathlib.Path, major: int, relation: str) -> None:
    """Stand-ins that say they are of another version, and that nobody may get to run."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("pg_dump", "pg_dumpall", "pg_restore"):
        (folder / name).write_text(f"#!/bin/sh\n[ $1 = --version ] && echo '{name} (PostgreSQL) {major}.3 (Debian)'\n")
        (folder / name).chmod(0o755)
    wish = wish_from(site.arguments())
    ports = Ports(
        runner=SystemRunner(),
        clock=SystemClock(),
        connect=lambda params: connect(params, os_user="postgres"),
        host="here",
        by="test",
        directories=(str(folder),),
    )
    with pytest.raises(HmsError) as caught:
        DumpOperation(wish, ports).run(check_mode=False)
    assert caught.value.reason == "version_mismatch"
    assert f"{relation} than" in caught.value.message
    assert f"postgresql-client-{VERSION}" in caught.value.next_step


def test_everything_wrong_is_told_at_once(site: Site) -> None:
    error = refused(site, format="directory", encryption={"passphrase_file": "/none"}, **READER)
    assert [one["rule"] for one in error.details["refusals"]] == [
        "staging_missing",
        "no_select",
        "passphrase_missing",
    ]


def test_another_backup_is_refused_or_waited_for(site: Site, server: Instance, tmp_path: pathlib.Path) -> None:
    """The first one waits for a table that somebody holds."""
    other = Site(server, tmp_path / "first")
    other.folder = site.folder  # the same host: the same state, but its own store
    with holding(server, "open_one"):
        first = other.start_module(lock_timeout=90.0)
        waiting = "application_name LIKE 'hms.postgres%' AND wait_event_type = 'Lock'"
        count = f"SELECT count(*) FROM pg_stat_activity WHERE {waiting}"
        until(lambda: server.sql(count) == "1", "the first one, at work, waits for the table")
        with pytest.raises(HmsError) as caught:
            site.backup()
        assert caught.value.reason == "busy"
        assert f"process {first.pid}" in caught.value.message
        assert any("at work now" in warning for warning in site.backup(check_mode=True).warnings)
        with pytest.raises(HmsError) as waited:
            site.backup(if_busy="wait", wait_seconds=1.0)
        assert waited.value.reason == "busy"
        assert first.poll() is None
    assert first.wait(100) == 0, other.module_output()
    assert len(other.manifests()) == 1
    made = site.backup(if_busy="wait", wait_seconds=30.0).values["backup"]
    assert [manifest["id"] for manifest in site.manifests()] == [made["id"]]
    backup_site.remove_tree(site.store / "hospital")


@contextlib.contextmanager
def holding(server: Instance, table: str) -> t.Iterator[int]:
    """Somebody who holds a table, as a migration does; his process id in the server."""
    where = f"host={server.sockets} port={server.port} user=reader dbname=hospital application_name=migrate"
    server.sql(f"ALTER TABLE {table} OWNER TO reader", dbname="hospital")
    with psycopg.connect(where) as connection:
        connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield connection.info.backend_pid
        connection.rollback()
    server.sql(f"ALTER TABLE {table} OWNER TO postgres; GRANT SELECT ON {table} TO reader", dbname="hospital")


def test_a_table_that_somebody_holds_is_named_with_him(site: Site, server: Instance) -> None:
    with holding(server, "open_one") as pid, pytest.raises(HmsError) as caught:
        site.backup(lock_timeout=1.0)
    assert caught.value.reason == "table_locked"
    assert f"public.open_one is held by process {pid} (reader, migrate" in caught.value.message
