# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restores of scripts, from a bucket, in place, and the removal of what was put aside, on a real server."""

from __future__ import annotations

import gzip
import json
import pathlib
import subprocess
import threading
import typing as t

import psycopg
import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._postgres import PsycopgSession
from ansible_collections.hms.postgres.plugins.module_utils._restore import in_place
from ansible_collections.hms.postgres.plugins.module_utils._restore.in_place import InPlace
from ansible_collections.hms.postgres.plugins.modules import pg_restore_cleanup, pg_restore_safe
from ansible_collections.hms.postgres.tests.real import backup_site, restore_site
from ansible_collections.hms.postgres.tests.real.backup_site import PASSPHRASE, odd_database
from ansible_collections.hms.postgres.tests.real.held import ServerGate
from ansible_collections.hms.postgres.tests.real.lab import BINARIES, Instance, Lab, until
from ansible_collections.hms.postgres.tests.real.restore_site import RestoreSite
from ansible_collections.hms.postgres.tests.real.s3_server import S3Server

ENCRYPTION = {"passphrase": PASSPHRASE}


@pytest.fixture(scope="module")
def server(module_lab: Lab) -> Instance:
    """A server with the odd database."""
    instance = module_lab.primary()
    odd_database(instance)
    instance.sql("CREATE ROLE keeper LOGIN; ALTER DATABASE hospital OWNER TO keeper")
    instance.sql("ALTER DATABASE hospital SET work_mem = '7MB'; REVOKE CONNECT ON DATABASE hospital FROM PUBLIC")
    instance.sql(
        "CREATE FUNCTION odd(a int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN a > 0 THEN 1 ELSE 2 END;"
        " SELECT 3; END; CREATE TABLE texts AS SELECT E'it''s; \\\\! \\n\\\\.\\n' AS body, '$$;' AS other",
        dbname="hospital",
    )
    return instance


@pytest.fixture
def site(server: Instance, tmp_path: pathlib.Path) -> t.Iterator[RestoreSite]:
    """The odd database and a store of the test's own; no scratch database stays."""
    yield RestoreSite(server, tmp_path / "site")
    backup_site.drop(server, *restore_site.scratches(server))


def script(server: Instance, *options: str) -> bytes:
    """A plain dump by pg_dump itself."""
    argv = ["runuser", "-u", "postgres", "--", str(BINARIES / "pg_dump"), *options]
    where = ("-h", str(server.sockets), "-p", str(server.port), "hospital")
    return subprocess.run([*argv, *where], capture_output=True, check=True).stdout


def test_an_old_script_comes_back_whole(site: RestoreSite, server: Instance, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "old.sql.gz"
    path.write_bytes(gzip.compress(script(server)))
    error = site.refused(backup=str(path))
    assert (error.reason, error.state) == ("plain_sql", "Nothing was touched.")
    done = site.restore(backup=str(path), allow_plain_sql=True)
    assert any("verified by manifest: no" in warning for warning in done.warnings)
    assert backup_site.dump_text(server, done.values["scratch"]) == backup_site.dump_text(server, "hospital")
    assert restore_site.properties(server, done.values["scratch"]) == restore_site.properties(server, "hospital")
    inserts = tmp_path / "inserts.sql"
    inserts.write_bytes(script(server, "--inserts"))
    done = site.restore(backup=str(inserts), allow_plain_sql=True)
    assert backup_site.dump_text(server, done.values["scratch"]) == backup_site.dump_text(server, "hospital")
    inserts.write_bytes(inserts.read_bytes()[:-500])
    assert site.refused(backup=str(inserts), allow_plain_sql=True).reason == "artifact_damaged"
    # ours, with a manifest
    site.backup(format="plain", encryption=ENCRYPTION)
    done = site.restore(allow_plain_sql=True, encryption=ENCRYPTION)
    assert "as in the manifest" in done.values["validations"][0]["detail"]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("\\! touch {flag}", "\\!"),
        ("SELECT 1 \\g | touch {flag}", "\\g"),
        ("\\copy patients TO PROGRAM 'touch {flag}'", "\\copy"),
        ("COPY patients TO PROGRAM 'touch {flag}';", "COPY with a program"),
        ("/* ; */ CoPy (SELECT 1)\n  to pRogram 'touch {flag}';", "COPY with a program"),
        ("COPY patients/* */TO--\n PROGRAM $$touch {flag}$$;", "COPY with a program"),
        ("COPY patients FROM $x$/etc/passwd$x$;", "COPY with a file of the server's"),
        ("ALTER SYSTEM SET archive_command = 'touch {flag}';", "ALTER SYSTEM"),
        ("DROP DATABASE hospital;", "databases, roles or tablespaces"),
        ("\\connect hospital", "\\connect"),
        ("COPY patients (name) FROM stdin;\nx\n\\.\n\\! touch {flag}", "\\!"),
    ],
)
def test_a_malicious_script_runs_nothing(
    site: RestoreSite, server: Instance, tmp_path: pathlib.Path, line: str, word: str
) -> None:
    flag = server.folder / "run" / "owned"
    path = tmp_path / "evil.sql"
    path.write_text(f"CREATE TABLE patients (name text);\n{line.format(flag=flag)}\nSELECT 1;\n")
    error = site.refused(backup=str(path), allow_plain_sql=True)
    assert (error.reason, error.state) == ("malicious_sql", "Nothing was touched.")
    assert word in error.message
    assert not flag.exists()
    assert restore_site.scratches(server) == []


def test_a_statement_that_fails_is_named(site: RestoreSite, server: Instance, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "wrong.sql"
    path.write_text("CREATE TABLE t (a int);\nCOPY t FROM stdin;\n1\ntwo\n\\.\nSELECT 1;\n")
    error = site.refused(backup=str(path), allow_plain_sql=True)
    assert (error.reason, error.state) == ("restore_failed", "The live database was not touched.")
    assert "invalid input syntax" in error.message
    assert error.details["line"] == 5
    assert restore_site.scratches(server) == []


def test_a_bucket_that_no_store_is_names_those_that_are(site: RestoreSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    error = site.refused(backup="s3://nobucket/old.dump")
    assert (error.reason, error.state) == ("store_denied", "Nothing was touched.")
    assert error.next_step.endswith(f" The stores of this host's policy: {site.store}.")


def test_from_a_bucket(server: Instance, site: RestoreSite, s3_server: S3Server) -> None:
    bucket = s3_server.bucket("far")
    store = {"s3": s3_server.settings("far")}
    made = site.backup(store=store, encryption=ENCRYPTION).values["backup"]
    done = site.restore(store=store, encryption=ENCRYPTION)
    assert backup_site.dump_text(server, done.values["scratch"]) == backup_site.dump_text(server, "hospital")
    folder = f"s3://far/hospital/hospital/{made['id']}"
    for address in (folder, f"{folder}/manifest.json", f"{folder}/data.dump.zst.gpg"):
        assert not site.restore(store=store, encryption=ENCRYPTION, backup=address).changed
    (bucket / "old.dump").write_bytes(script(server, "-Fc"))
    s3_server.forget()
    done = site.restore(store=store, backup="s3://far/old.dump")
    assert done.values["ready"]
    assert site.refused(store=store, backup="s3://far/nothing.dump").reason == "no_backup"
    path = bucket / "hospital" / "hospital" / made["id"] / "data.dump.zst.gpg"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    s3_server.forget()
    asked = [{"name": "anew", "sql": "SELECT true"}]
    assert site.refused(store=store, encryption=ENCRYPTION, assertions=asked).reason == "artifact_damaged"


def change(server: Instance) -> None:
    """What is done after the backup, and is lost or kept by a restore."""
    server.sql("DELETE FROM django_migrations; UPDATE patients SET name = 'later'", dbname="hospital")


def test_in_place(site: RestoreSite, server: Instance) -> None:
    """The live one is backed up, dropped, and its name given to what was proven; nobody's session is ended unasked."""
    before = restore_site.properties(server, "hospital")
    wanted = backup_site.dump_text(server, "hospital")
    made = site.backup(encryption=ENCRYPTION).values["backup"]
    change(server)
    changed = backup_site.dump_text(server, "hospital")
    how: dict[str, t.Any] = {"strategy": "in_place", "encryption": ENCRYPTION, "backup": made["id"]}
    with psycopg.connect(f"host={server.sockets} port={server.port} user=keeper dbname=hospital"):
        assert site.refused(**how).reason == "sessions"
        error = site.refused(**how, sessions="wait", wait_seconds=0.5)
        assert (error.reason, error.state) == ("sessions", "The live database was not touched.")
        assert backup_site.dump_text(server, "hospital") == changed
        done = site.restore(**how, sessions="terminate")
    assert (done.values["restored"], done.values["ready"]) == (True, False)
    assert backup_site.dump_text(server, "hospital") == wanted
    assert restore_site.properties(server, "hospital") == before
    assert restore_site.scratches(server) == []
    assert len(site.manifests()) == 3, "the backup before the restore, once for each time that it came so far"
    assert not (site.state / "restore-hospital.json").exists()


def test_in_place_goes_back_by_itself(site: RestoreSite, server: Instance) -> None:
    made = site.backup(encryption=ENCRYPTION).values["backup"]
    server.sql("INSERT INTO patients (name) VALUES ('newer')", dbname="hospital")
    before, properties = backup_site.dump_text(server, "hospital"), restore_site.properties(server, "hospital")
    how: dict[str, t.Any] = {"strategy": "in_place", "encryption": ENCRYPTION, "backup": made["id"]}
    restore_site.left_alone(server, "hospital")
    error = site.refused(**how, assertions=[{"name": "never", "sql": "SELECT false"}])
    assert error.reason == "validation_failed"
    assert "hospital is back as it was before" in error.state
    assert backup_site.dump_text(server, "hospital") == before
    assert restore_site.properties(server, "hospital") == properties
    # damage is found before anything goes
    path = site.data_file(made["id"])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    oid = server.sql("SELECT oid FROM pg_database WHERE datname = 'hospital'")
    restore_site.left_alone(server, "hospital")
    error = site.refused(**how)
    assert (error.reason, error.state) == ("artifact_damaged", "The live database was not touched.")
    assert server.sql("SELECT oid FROM pg_database WHERE datname = 'hospital'") == oid
    server.sql("DELETE FROM patients WHERE name = 'newer'", dbname="hospital")


def test_in_place_killed_and_run_again(lab: Lab, tmp_path: pathlib.Path) -> None:
    """SIGKILL when the live one is gone: there is none of its name until the next run has finished."""
    server = lab.primary()
    server.sql("CREATE ROLE keeper")
    server.sql("CREATE DATABASE hospital OWNER keeper CONNECTION LIMIT 42")
    backup_site.big_table(server, "hospital", megabytes=30)
    server.sql("CREATE INDEX ON notes (md5(body)); CREATE INDEX ON notes (md5(body || 'x'))", dbname="hospital")
    gate = ServerGate(server.folder / "gate")
    gate.before(server, "hospital", "notes")
    site = RestoreSite(server, tmp_path / "site")
    made = site.backup().values["backup"]
    before = restore_site.properties(server, "hospital")
    there = "SELECT count(*) FROM pg_database WHERE datname = 'hospital'"
    restore_site.left_alone(server, "hospital")
    with gate.closed():
        process = site.start_restore(strategy="in_place")
        until(lambda: server.sql(there) == "0" or process.poll() is not None, "it is dropped", seconds=60)
        assert process.poll() is None, site.module_output()
        restore_site.kill(process)
    assert server.sql(there) == "0"
    kept = json.loads((site.state / "restore-hospital.json").read_text())
    assert kept["in_place"]["backup"] == the_other(site, made)
    done = site.restore(strategy="in_place", backup=made["id"])
    assert done.values["restored"]
    assert server.sql("SELECT count(*) FROM notes", dbname="hospital") == str(30 * 1024)
    assert restore_site.properties(server, "hospital") == before
    assert len(site.manifests()) == 2


def the_other(site: RestoreSite, made: dict[str, t.Any]) -> str:
    """The backup beside one that was made; both may be of the same second, so their ids don't tell which came first."""
    (found,) = {manifest["id"] for manifest in site.manifests()} - {made["id"]}
    return str(found)


def test_in_place_awaits_who_is_leaving_and_refuses_who_stays(
    site: RestoreSite, server: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever read the database for the backup that is made before may still be on the way out when it is dropped."""
    made = site.backup().values["backup"]
    restore_site.left_alone(server, "hospital")
    really = InPlace._back_up
    connected: list[psycopg.Connection[t.Any]] = []

    def backing_up(self: InPlace) -> str:
        identifier = really(self)
        connected.append(psycopg.connect(f"host={server.sockets} port={server.port} user=keeper dbname=hospital"))
        if len(connected) > 1:
            threading.Timer(1.0, connected[-1].close).start()
        return identifier

    monkeypatch.setattr(InPlace, "_back_up", backing_up)
    error = site.refused(strategy="in_place", backup=made["id"])
    assert (error.reason, error.state) == ("sessions", "The live database was not touched.")
    connected[0].close()
    restore_site.left_alone(server, "hospital")
    monkeypatch.setattr(in_place, "_LEAVING", 60.0)
    assert site.restore(strategy="in_place", backup=made["id"]).values["restored"]
    assert [connection.closed for connection in connected] == [True, True]


@pytest.mark.parametrize("lost", ["DROP DATABASE", "ALTER DATABASE"])
def test_in_place_goes_on_when_an_answer_got_lost(
    lost: str, site: RestoreSite, server: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server did it and the connection broke: what leads on is remembered."""
    made = site.backup().values["backup"]
    before, wanted = restore_site.properties(server, "hospital"), backup_site.dump_text(server, "hospital")
    how: dict[str, t.Any] = {"strategy": "in_place", "backup": made["id"]}
    restore_site.left_alone(server, "hospital")
    really = PsycopgSession.execute

    def breaking(self: PsycopgSession, sql: str, params: t.Sequence[t.Any] | None = None) -> None:
        really(self, sql, params)
        if sql.startswith(lost) and ("RENAME" in sql or lost.startswith("DROP")) and '"hospital"' in sql:
            self.close()
            raise HmsError("the connection broke", reason="connection_failed")

    with monkeypatch.context() as breaks:
        breaks.setattr(PsycopgSession, "execute", breaking)
        error = site.refused(**how)
    assert error.reason == "connection_failed"
    assert (server.sql("SELECT count(*) FROM pg_database WHERE datname = 'hospital'") == "0") is (lost[0] == "D")
    kept = json.loads((site.state / "restore-hospital.json").read_text())
    assert kept["in_place"]["backup"] == the_other(site, made)
    restore_site.left_alone(server, "hospital")
    if lost[0] == "A":
        assert error.state.startswith("hospital is restored and proven")
    assert site.restore(**how).values["restored"]
    assert backup_site.dump_text(server, "hospital") == wanted
    assert restore_site.properties(server, "hospital") == before
    assert restore_site.scratches(server) == []


def test_the_removal_of_what_was_put_aside(server: Instance, tmp_path: pathlib.Path) -> None:
    where: dict[str, t.Any] = {"login_host": str(server.sockets), "login_port": server.port}
    arguments = {
        **where,
        "cluster": "hospital",
        "environment": "production",
        "database": "hospital",
        "state_dir": str(tmp_path / "state"),
    }
    today = server.sql("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD\"T\"HH24MISS\"Z\"')")
    young, old, used = (
        f"hospital_before_{today}",
        "hospital_before_20200101T000000Z",
        "hospital_before_20200102T000000Z",
    )
    unmarked = "hospital_before_20200103T000000Z"
    others = ["hospital_before_dinner", "hospitals_before_20200101T000000Z", unmarked]
    for name in (young, old, used, *others):
        server.sql(f'CREATE DATABASE "{name}"')
        if name != unmarked:
            server.sql(f"ALTER DATABASE \"{name}\" SET hms.swapped = '20200101T000000Z-swap-3fa9 hospital'")

    def run(*, check_mode: bool = False, **changes: t.Any) -> t.Any:
        return pg_restore_cleanup.work({**arguments, **changes}, check_mode=check_mode)

    try:
        with psycopg.connect(f"host={server.sockets} port={server.port} user=keeper dbname={used}"):
            planned = run(check_mode=True)
            assert {one["name"]: one["drop"] for one in planned.values["plan"]} == {
                young: False,
                old: True,
                used: False,
            }
            for confirm in (None, "hospitl"):
                with pytest.raises(HmsError, match="confirmed"):
                    run(confirm=confirm)
            done = run(confirm="hospital")
            assert (done.changed, done.after) == (True, [used, young])
            assert json.loads(pathlib.Path(done.values["record"]).read_text())["outcome"]["status"] == "done"
            assert not run(confirm="hospital").changed
            for name in ("hospital", *others, old):
                with pytest.raises(HmsError) as caught:
                    run(confirm="hospital", names=[name])
                assert caught.value.reason == "unknown_name"
            assert run(confirm="hospital", names=[used], with_sessions=True).changed
        left = server.sql("SELECT datname FROM pg_database WHERE datname LIKE 'hospital%' ORDER BY 1").split()
        assert left == sorted(["hospital", young, *others])
    finally:
        backup_site.drop(server, young, old, used, *others)


def test_as_the_hosts_own_file_says(server: Instance, tmp_path: pathlib.Path) -> None:
    """Server, stores, passphrase and environment come from backup.json, and so does the backup before."""
    server.sql("CREATE DATABASE ward TEMPLATE template0")
    server.sql("CREATE TABLE beds AS SELECT 1 AS n", dbname="ward")
    site = RestoreSite(server, tmp_path / "ward", database="ward")
    secret = site.folder / "passphrase"
    secret.write_text(PASSPHRASE)
    secret.chmod(0o600)
    encryption = {"passphrase_file": str(secret)}
    policy = site.arguments(
        encryption=encryption, retention={"keep_last": 1}, schedule={"daily": {"cron": "0 2 * * *"}}
    )
    (site.folder / "backup.json").write_text(json.dumps(policy))
    asked: dict[str, t.Any] = {"config_directory": str(site.folder), "database": "ward"}
    try:
        first = site.backup(encryption=encryption).values["id"]
        found = pg_restore_safe.work(asked, check_mode=False).values
        assert (found["ready"], found["plan"]["artifact"]["name"]) == (True, first)
        restore_site.left_alone(server, "ward")
        done = pg_restore_safe.work({**asked, "strategy": "in_place", "backup": first}, check_mode=False)
        assert done.values["restored"]
        assert len(site.manifests()) == 2
        assert server.sql("SELECT n FROM beds", dbname="ward") == "1"
        assert pg_restore_cleanup.work(asked, check_mode=True).values["plan"] == []
    finally:
        backup_site.drop(server, "ward", *restore_site.scratches(server))
