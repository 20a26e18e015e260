# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restores of what is damaged, and restores that are killed, starved and met by others, for real.

After each: the live database is the very one that was there, no half-made one is left that looks whole, no process,
no plaintext, and a message that says what it was.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import threading
import typing as t
from unittest import mock

import psycopg
import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact import scratch
from ansible_collections.hms.postgres.plugins.module_utils._postgres import Session
from ansible_collections.hms.postgres.plugins.module_utils._restore import build
from ansible_collections.hms.postgres.tests.real import backup_site, restore_site
from ansible_collections.hms.postgres.tests.real.backup_site import PASSPHRASE, odd_database
from ansible_collections.hms.postgres.tests.real.held import ServerGate
from ansible_collections.hms.postgres.tests.real.lab import BINARIES, Instance, Lab, run, until
from ansible_collections.hms.postgres.tests.real.restore_site import RestoreSite

UNTOUCHED = "The live database was not touched."
NOTHING = "Nothing was touched."
ENCRYPTION = {"passphrase": PASSPHRASE}


@pytest.fixture(scope="module")
def server(module_lab: Lab) -> Instance:
    """The odd database, and one whose restore takes a while."""
    instance = module_lab.primary(shared_buffers="64MB")
    odd_database(instance)
    instance.sql("CREATE DATABASE large")
    backup_site.big_table(instance, "large", megabytes=40)
    instance.sql("CREATE INDEX ON notes (md5(body)); CREATE INDEX ON notes (md5(body || 'x'))", dbname="large")
    gate(instance).before(instance, "large", "notes")
    instance.sql("CREATE ROLE locker LOGIN SUPERUSER")
    return instance


def gate(server: Instance) -> ServerGate:
    """What the rows of the large database have to pass."""
    return ServerGate(server.folder / "gate")


@pytest.fixture
def site(server: Instance, tmp_path: pathlib.Path) -> RestoreSite:
    """The odd database and a store of the test's own."""
    return RestoreSite(server, tmp_path / "site")


@pytest.fixture(autouse=True)
def live_untouched(server: Instance) -> t.Iterator[None]:
    """Whatever a test does, the live databases are the same afterwards, and nobody is left."""
    with restore_site.untouched(server, "datname IN ('hospital', 'large')", "^hms.postgres"):
        yield


def test_an_artifact_cut_short_is_seen_before_anything_is_made(site: RestoreSite, server: Instance) -> None:
    made = site.backup(encryption=ENCRYPTION).values["backup"]
    path = site.data_file(made["id"])
    os.truncate(path, path.stat().st_size - 1000)
    by_path = site.refused(backup=str(path.parent), encryption=ENCRYPTION)
    assert (by_path.reason, by_path.state) == ("artifact_damaged", NOTHING)
    # the catalog counts it as no backup, and says why
    newest = site.refused(encryption=ENCRYPTION)
    assert newest.reason == "no_backup"
    assert "is not whole" in newest.message
    assert restore_site.scratches(server) == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_one_flipped_bit(site: RestoreSite, server: Instance, jobs: int) -> None:
    """The size is right; the hash tells while it is read, and what came of it until then goes."""
    made = site.backup(encryption=ENCRYPTION).values["backup"]
    path = site.data_file(made["id"])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    error = site.refused(encryption=ENCRYPTION, jobs=jobs)
    assert (error.reason, error.state) == ("artifact_damaged", UNTOUCHED)
    assert "SHA-256" in error.message
    assert restore_site.scratches(server) == []


def test_a_swapped_manifest(site: RestoreSite, server: Instance) -> None:
    """Another backup's manifest, as a clumsy copy leaves it: its id tells, and where that was changed its hashes."""
    first = site.backup().values["backup"]
    server.sql("INSERT INTO patients (name) VALUES ('one more')", dbname="hospital")
    second = site.backup().values["backup"]
    server.sql("DELETE FROM patients WHERE name = 'one more'", dbname="hospital")
    folder = site.members(first["id"])
    shutil.copy(site.members(second["id"]) / "manifest.json", folder / "manifest.json")
    error = site.refused(backup=str(folder))
    assert (error.reason, error.state) == ("foreign", NOTHING)
    changed = {**json.loads((folder / "manifest.json").read_text()), "id": first["id"]}
    (folder / "manifest.json").write_text(json.dumps(changed))
    error = site.refused(backup=str(folder))
    assert (error.reason, error.state) == ("artifact_damaged", NOTHING)
    assert restore_site.scratches(server) == []


def test_keys_that_do_not_fit(site: RestoreSite, server: Instance, tmp_path: pathlib.Path) -> None:
    made = site.backup(encryption=ENCRYPTION).values["backup"]
    for encryption, reason in (({"passphrase": "wrong"}, "bad_passphrase"), (None, "no_key")):
        error = site.refused(encryption=encryption)
        assert (error.reason, error.state) == (reason, NOTHING)
        assert "Zw" not in error.full_text() + json.dumps(error.details)
    lonely = tmp_path / "old.dump.zst.gpg"
    shutil.copy(site.data_file(made["id"]), lonely)
    for encryption, reason in (({"passphrase": "wrong"}, "bad_passphrase"), (None, "no_key")):
        error = site.refused(backup=str(lonely), encryption=encryption)
        assert (error.reason, error.state) == (reason, NOTHING)
    done = site.restore(backup=str(lonely), encryption=ENCRYPTION, jobs=2)
    assert any("verified by manifest: no" in warning for warning in done.warnings)
    assert backup_site.dump_text(server, done.values["scratch"]) == backup_site.dump_text(server, "hospital")
    with backup_site.keys_in(tmp_path) as keys:
        public, other = keys.make("ops@example.org"), keys.make("other@example.org")
        site.backup(encryption={"recipients": ["ops@example.org"], "key_files": [str(public)]})
        private = tmp_path / "other.private"
        private.write_bytes(keys.gpg("--armor", "--export-secret-keys", "other@example.org"))
        assert other.exists()
        error = site.refused(encryption={"key_files": [str(private)]})
    assert (error.reason, error.state) == ("no_key", NOTHING)


def dumped(server: Instance, path: pathlib.Path, *options: str) -> pathlib.Path:
    """A dump by pg_dump itself, as people made them before."""
    argv = ["runuser", "-u", "postgres", "--", str(BINARIES / "pg_dump"), *options]
    with open(path, "wb") as target:
        subprocess.run(
            [*argv, "-h", str(server.sockets), "-p", str(server.port), "hospital"], stdout=target, check=True
        )
    return path


def test_a_dump_of_a_newer_postgresql(site: RestoreSite, server: Instance, tmp_path: pathlib.Path) -> None:
    path = dumped(server, tmp_path / "new.dump", "-Fc", "-Z0")
    assert site.restore(backup=str(path), check_mode=True).changed
    version = server.sql("SHOW server_version").encode()
    data = path.read_bytes()
    assert data[:4096].count(version) >= 2
    path.write_bytes(data[:4096].replace(version, b"99" + version[2:]) + data[4096:])
    error = site.refused(backup=str(path))
    assert (error.reason, error.state) == ("dump_newer", NOTHING)
    path.write_bytes(data[:6] + b"\x63" + data[7:])
    assert site.refused(backup=str(path)).reason == "not_an_archive"
    path.write_bytes(b"no archive at all")
    assert site.refused(backup=str(path)).reason == "not_an_archive"


def test_no_room_for_the_staged_archive(site: RestoreSite, server: Instance, tmp_path: pathlib.Path) -> None:
    site.backup(encryption=ENCRYPTION)
    work = tmp_path / "small"
    work.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(work))
    try:
        error = site.refused(encryption=ENCRYPTION, jobs=2, work_dir=str(work))
        assert list(work.rglob("*")) == []
    finally:
        run("umount", "--lazy", str(work))
    assert (error.reason, error.state) == ("no_room", UNTOUCHED)
    assert restore_site.scratches(server) == []


def test_a_restore_that_fails_names_the_entry(site: RestoreSite, server: Instance) -> None:
    server.sql(
        "CREATE FUNCTION first_initial(int) RETURNS text LANGUAGE sql IMMUTABLE AS"
        " $$ SELECT left(name, 1) FROM patients WHERE id = $1 $$;"
        " CREATE TABLE trap AS SELECT 1 AS id; CREATE INDEX trap_index ON trap (first_initial(id))",
        dbname="hospital",
    )
    try:
        site.backup()
    finally:
        server.sql("DROP TABLE trap; DROP FUNCTION first_initial", dbname="hospital")
    error = site.refused()
    assert (error.reason, error.state) == ("restore_failed", UNTOUCHED)
    assert error.details["failed_entry"].startswith("CREATE INDEX trap_index")
    assert restore_site.scratches(server) == []


def test_what_the_server_lacks_is_said_before(site: RestoreSite, server: Instance) -> None:
    server.sql("CREATE ROLE gone; GRANT SELECT ON patients TO gone", dbname="hospital")
    made = site.backup().values["backup"]
    server.sql("DROP OWNED BY gone; DROP ROLE gone", dbname="hospital")
    error = site.refused()
    assert (error.reason, 'CREATE ROLE "gone"' in error.next_step) == ("missing_roles", True)
    path = site.members(made["id"]) / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["contents"]["roles"] = []
    manifest["contents"]["extensions"] = {"pg_nothing": "1.0"}
    manifest["contents"]["tablespaces"] = ["fast"]
    manifest["contents"]["database_bytes"] = 10**18
    manifest["server"] |= {"system_identifier": "1", "encoding": "LATIN1"}
    path.write_text(json.dumps(manifest))
    error = site.refused(check_mode=True)
    rules = {refusal["rule"] for refusal in error.details["refusals"]}
    assert rules == {"other_system", "missing_extensions", "missing_tablespaces", "no_room", "encoding_differs"}
    forced = ["missing_tablespaces", "no_room", "encoding_differs"]
    error = site.refused(force=forced, allow_other_system=True)
    assert [refusal["rule"] for refusal in error.details["refusals"]] == ["missing_extensions"]


def test_obstacles_to_the_swap_are_said_before(site: RestoreSite, lab: Lab, tmp_path: pathlib.Path) -> None:
    busy = lab.primary(wal_level="logical", max_prepared_transactions="2")
    odd_database(busy)
    here = RestoreSite(busy, tmp_path / "busy")
    here.backup()
    busy.sql("SELECT pg_create_logical_replication_slot('feed', 'pgoutput')", dbname="postgres")
    busy.sql("BEGIN; DELETE FROM parent; PREPARE TRANSACTION 'half'", dbname="hospital")
    try:
        assert here.refused().reason == "prepared_transactions"
    finally:
        busy.sql("ROLLBACK PREPARED 'half'", dbname="hospital")
    busy.sql("SELECT pg_create_logical_replication_slot('mine', 'pgoutput')", dbname="hospital")
    error = here.refused()
    assert (error.reason, "mine" in error.message, "feed" in error.message) == ("logical_slots", True, False)
    assert here.restore(force=["logical_slots"], check_mode=True).values["plan"]["forced"] == ("logical_slots",)
    assert site.refused(force=["no_such_rule"]).reason in ("no_backup", "bad_config")


def test_killed_in_the_middle_and_run_again(server: Instance, tmp_path: pathlib.Path) -> None:
    """SIGKILL while rows are loaded: nothing looks whole, and the next run drops the rest and finishes."""
    site = RestoreSite(server, tmp_path / "site", database="large")
    site.backup(encryption=ENCRYPTION)
    left = ""
    for jobs in (1, 2):
        with gate(server).closed():
            process = site.start_restore(encryption=ENCRYPTION, jobs=jobs, work_dir=str(tmp_path / "work"))
            _wait_for_rows(server, site, process)
            restore_site.kill(process)
        assert backup_site.descendants(process.pid) == set()
        assert [path for path in (tmp_path / "work").rglob("*") if path.is_file()] == []
        (left,) = restore_site.scratches(server)
        assert "hms.postgres restored" not in restore_site.comment(server, left)
    # as if another artifact had been restored then
    until(lambda: _sessions(server, left) == "0", "the killed run's sessions are gone", seconds=60)
    server.sql(f"ALTER DATABASE {left} RENAME TO {left[:-6]}old123")
    done = site.restore(encryption=ENCRYPTION)
    assert (done.changed, restore_site.scratches(server)) == (True, [done.values["scratch"]])
    assert server.sql("SELECT count(*) FROM notes", dbname=done.values["scratch"]) == str(40 * 1024)


def _wait_for_rows(server: Instance, site: RestoreSite, process: subprocess.Popen[bytes]) -> None:
    loading = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'hms_restore%' AND application_name LIKE"
        " 'hms.postgres%' AND (query LIKE 'COPY%' OR query LIKE 'CREATE INDEX%')"
    )
    until(lambda: server.sql(loading) != "0" or process.poll() is not None, "it loads", seconds=60)
    assert process.poll() is None, site.module_output()


def _sessions(server: Instance, name: str) -> str:
    return server.sql(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'")


def test_two_at_once_and_a_backup_at_work(server: Instance, tmp_path: pathlib.Path) -> None:
    site = RestoreSite(server, tmp_path / "site", database="large")
    site.backup()
    with gate(server).closed():
        first = site.start_restore()
        lock = site.state / "restore-large.lock"
        until(lambda: lock.exists() and lock.stat().st_size > 0, "it has begun", seconds=60)
        for check_mode in (False, True):
            error = site.refused(check_mode=check_mode)
            assert (error.reason, error.phase) == ("busy", "lock")
    assert first.wait(60) == 0, site.module_output()
    assert restore_site.scratches(server) == [site.module_output()["scratch"]]
    with psycopg.connect(f"host={server.sockets} port={server.port} user=locker dbname=large") as locking:
        locking.execute("LOCK TABLE notes IN ACCESS EXCLUSIVE MODE")
        backup = site.start_module(lock_timeout=60.0)
        lock = site.state / "backup-large.lock"
        until(lambda: lock.exists() and lock.stat().st_size > 0, "the backup has begun", seconds=60)
        error = site.refused()
        assert error.reason == "backup_running"
    assert backup.wait(60) == 0


@pytest.mark.parametrize("leaves", [True, False])
def test_the_session_of_a_run_before_is_awaited_and_no_other(
    site: RestoreSite, server: Instance, *, leaves: bool
) -> None:
    """The server notices a moment later that a run has ended; until then the name is held that the next one takes."""
    site.backup(encryption=ENCRYPTION)
    name = site.restore(check_mode=True, encryption=ENCRYPTION).values["scratch"]
    where = f"host={server.sockets} port={server.port} user=locker dbname=postgres"
    with psycopg.connect(where, autocommit=True) as before:
        before.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (name,))
        if leaves:

            def take(session: Session, wanted: str) -> None:
                threading.Timer(1.0, before.close).start()  # while the other one waits already
                scratch.take_name(session, wanted)

            with mock.patch.object(build, "take_name", take), mock.patch.object(scratch, "_LEAVING", 60.0):
                assert site.restore(encryption=ENCRYPTION).values["ready"]
        else:
            error = site.refused(encryption=ENCRYPTION)
            assert (error.reason, error.state) == ("busy", UNTOUCHED)


def test_it_ends_in_time(server: Instance, tmp_path: pathlib.Path) -> None:
    site = RestoreSite(server, tmp_path / "site", database="large")
    site.backup()
    with gate(server).closed():
        error = site.refused(timeout=2.0)
    assert error.reason == "deadline_passed"
    assert error.state in (UNTOUCHED, NOTHING)
    assert restore_site.scratches(server) == []


def test_told_to_end(server: Instance, tmp_path: pathlib.Path) -> None:
    """SIGTERM: it cleans up, says so, and leaves a record."""
    site = RestoreSite(server, tmp_path / "site", database="large")
    site.backup()
    with gate(server).closed():
        process = site.start_restore()
        _wait_for_rows(server, site, process)
        process.terminate()
        assert process.wait(60) == 1
    found = site.module_output()
    assert (found["reason"], found["state"]) == ("interrupted", UNTOUCHED)
    assert restore_site.scratches(server) == []
    (record,) = site.state.glob("records/*-restore-*.json")
    assert site.record(str(record))["outcome"]["status"] == "failed"
