# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups made of a real server. What is in them is judged by gpg, zstd, gunzip, lz4, sha256sum and pg_restore."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import typing as t

import psycopg
import pytest

from ansible_collections.hms.postgres.plugins.module_utils._backup import deep_verify, manager, wishes
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._store.model import FolderSpec
from ansible_collections.hms.postgres.tests.real import backup_site
from ansible_collections.hms.postgres.tests.real.backup_site import PASSPHRASE, ROWS, Site, odd_database
from ansible_collections.hms.postgres.tests.real.lab import Instance, Lab, until

WEIRD = "we'ird = \"db\\ é"


@pytest.fixture(scope="module")
def server(module_lab: Lab) -> Instance:
    """A server with the odd database, which no test changes."""
    instance = module_lab.primary()
    odd_database(instance)
    return instance


@pytest.fixture
def site(server: Instance, tmp_path: pathlib.Path) -> Site:
    """The odd database and a store of the test's own."""
    return Site(server, tmp_path / "site")


@pytest.fixture(autouse=True)
def nothing_stays(server: Instance) -> t.Iterator[None]:
    """No keys in memory, no scratch database, nobody connected."""
    yield
    assert backup_site.remnants_in_memory(os.getpid()) == []
    assert server.sql("SELECT count(*) FROM pg_database WHERE datname LIKE 'hms_verify%'") == "0"
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'hms.postgres%'"
    until(lambda: server.sql(sessions) == "0", "the server's sessions have ended")


def stored(site: Site, manifest: t.Mapping[str, t.Any], role: str) -> pathlib.Path:
    """The file of a member, after sha256sum and the size were compared with the manifest."""
    (member,) = [found for found in manifest["members"] if found["role"] == role]
    path = site.members(manifest["id"]) / str(member["name"])
    assert (backup_site.sha256(path), path.stat().st_size) == (member["sha256"], member["bytes"])
    assert path.stat().st_mode & 0o777 == 0o600
    return path


def test_a_full_backup_to_two_keys_restores_elsewhere(site: Site, server: Instance, tmp_path: pathlib.Path) -> None:
    """Operations and escrow can each read it; the host that made it can't. Everything odd comes back."""
    with backup_site.keys_in(tmp_path) as keys:
        files = [keys.make("ops@example.org"), keys.make("escrow@example.org")]
        encryption = {"recipients": ["ops@example.org", "escrow@example.org"], "key_files": [str(f) for f in files]}
        made = site.backup(encryption=encryption, verify="deep").values["backup"]
        assert [json.loads(json.dumps(made))] == site.manifests()
        assert made["encryption"]["method"] == "public_key"
        assert len(made["encryption"]["recipients"]) == 2
        assert made["verification"]["ok"]
        assert made["verification"]["level"] == "deep"
        assert made["contents"]["rows"] == ROWS
        assert made["contents"]["large_objects"] == 5
        assert made["contents"]["migrations"] == {"auth": "0001_initial", "wards": "0002_beds"}
        path = stored(site, made, "data")
        assert path.name == "data.dump.zst.gpg"
        archive = backup_site.plain(path, lambda data: keys.gpg("--decrypt", stdin=data))
        globals_ = backup_site.plain(stored(site, made, "globals"), lambda data: keys.gpg("--decrypt", stdin=data))
    backup_site.restore(server, archive, "elsewhere")
    try:
        assert backup_site.dump_text(server, "elsewhere") == backup_site.dump_text(server, "hospital")
    finally:
        backup_site.drop(server, "elsewhere")
    assert b"CREATE ROLE postgres" in globals_
    assert b"SCRAM-SHA-256" not in globals_


@pytest.mark.parametrize(("compression", "suffix"), [("gzip", ".gz"), ("lz4", ".lz4"), ("none", ""), ("zstd", ".zst")])
def test_every_compression_with_a_passphrase(
    site: Site, server: Instance, tmp_path: pathlib.Path, compression: str, suffix: str
) -> None:
    made = site.backup(compression=compression, encryption={"passphrase": PASSPHRASE}).values["backup"]
    path = stored(site, made, "data")
    assert path.name == f"data.dump{suffix}.gpg"
    archive = backup_site.plain(path, backup_site.with_passphrase(tmp_path))
    name = f"from_{compression}"
    backup_site.restore(server, archive, name)
    try:
        assert backup_site.dump_text(server, name) == backup_site.dump_text(server, "hospital")
    finally:
        backup_site.drop(server, name)


def test_schema_only_and_data_only(site: Site, server: Instance) -> None:
    schema = site.backup(type="schema_only", verify="deep").values["backup"]
    assert [member["name"] for member in schema["members"]] == [
        "properties.json.zst",
        "globals.sql.zst",
        "schema.dump.zst",
    ]
    backup_site.restore(server, backup_site.plain(stored(site, schema, "schema")), "hull")
    try:
        assert server.sql("SELECT count(*) FROM patients", dbname="hull") == "0"
        assert server.sql("SELECT count(*) FROM pg_class WHERE relname = 'Tab le-é😀'", dbname="hull") == "1"
    finally:
        backup_site.drop(server, "hull")
    data = site.backup(type="data_only").values["backup"]
    assert [member["name"] for member in data["members"]] == ["data.dump.zst"]
    assert data["contents"]["rows"] == ROWS
    with pytest.raises(HmsError) as caught:
        site.backup(type="data_only", verify="deep")
    assert caught.value.reason == "deep_needs_schema"


def test_plain_sql_only_when_asked_for(site: Site) -> None:
    made = site.backup(format="plain", compression="gzip").values["backup"]
    text = backup_site.plain(stored(site, made, "data"))
    assert stored(site, made, "data").name == "data.sql.gz"
    assert b"COPY public.patients" in text
    with pytest.raises(HmsError) as caught:
        site.backup(format="directory")
    assert caught.value.reason == "staging_missing"


def test_the_databases_own_properties(site: Site, server: Instance) -> None:
    server.sql("CREATE ROLE keeper; ALTER DATABASE hospital OWNER TO keeper")
    server.sql("ALTER DATABASE hospital SET work_mem = '7MB'; ALTER ROLE keeper IN DATABASE hospital SET jit = off")
    # how the server writes dates and times is none of a backup's business
    server.sql(
        "ALTER DATABASE hospital SET datestyle = 'German'; ALTER DATABASE hospital SET timezone = 'Asia/Kolkata'"
    )
    server.sql("COMMENT ON DATABASE hospital IS 'the hospital''s'; ALTER DATABASE hospital CONNECTION LIMIT 77")
    try:
        made = site.backup().values["backup"]
        found = json.loads(backup_site.plain(stored(site, made, "properties")))
        assert (found["owner"], found["connection_limit"], found["comment"]) == ("keeper", 77, "the hospital's")
        assert found["settings"] == [
            {"role": "keeper", "settings": ["jit=off"]},
            {"role": None, "settings": ["work_mem=7MB", "DateStyle=German", "TimeZone=Asia/Kolkata"]},
        ]
        assert made["contents"]["roles"] == ["keeper"]
    finally:
        server.sql("ALTER DATABASE hospital OWNER TO postgres")
        server.sql("ALTER DATABASE hospital RESET ALL; ALTER ROLE keeper IN DATABASE hospital RESET ALL")
        server.sql("ALTER DATABASE hospital CONNECTION LIMIT -1; DROP ROLE keeper")


def test_an_odd_name_and_other_encodings(server: Instance, tmp_path: pathlib.Path) -> None:
    odd_database(server, WEIRD)
    try:
        site = Site(server, tmp_path / "weird", database=WEIRD)
        made = site.backup(verify="deep").values["backup"]
        assert made["contents"]["rows"] == ROWS
        backup_site.restore(server, backup_site.plain(stored(site, made, "data")), "tame")
        assert backup_site.dump_text(server, "tame") == backup_site.dump_text(server, WEIRD)
    finally:
        backup_site.drop(server, "tame", WEIRD)
    for encoding in ("LATIN1", "SQL_ASCII"):
        server.sql(f"CREATE DATABASE other ENCODING {encoding} LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        try:
            server.sql("CREATE TABLE t AS SELECT chr(200) AS c", dbname="other")
            made = Site(server, tmp_path / encoding, database="other").backup(verify="deep").values["backup"]
            assert (made["server"]["encoding"], made["contents"]["rows"]) == (encoding, {"public.t": 1})
        finally:
            backup_site.drop(server, "other")


def test_a_dump_that_does_not_restore_is_found_by_deep(site: Site, server: Instance) -> None:
    """A function without a search_path, used by an index: the dump is fine, its restore is not."""
    site.backup()
    before = backup_site.digest_of(site.store)
    server.sql(
        "CREATE FUNCTION first_initial(int) RETURNS text LANGUAGE sql IMMUTABLE AS"
        " $$ SELECT left(name, 1) FROM patients WHERE id = $1 $$;"
        " CREATE TABLE trap AS SELECT 1 AS id; CREATE INDEX trap_index ON trap (first_initial(id))",
        dbname="hospital",
    )
    try:
        site.backup()
        with pytest.raises(HmsError) as caught:
            site.backup(verify="deep")
    finally:
        server.sql("DROP TABLE trap; DROP FUNCTION first_initial", dbname="hospital")
    assert caught.value.reason == "verification_failed"
    assert "does not restore" in caught.value.message
    assert "nothing of it is left" in caught.value.state
    assert len(site.manifests()) == 2
    assert before.items() <= backup_site.digest_of(site.store).items()
    assert site.loose() == []


def test_scratch_databases_of_killed_runs_are_dropped(site: Site, server: Instance) -> None:
    """What a killed verification left is dropped by the next one; one that somebody works with stays."""
    made = site.backup(verify="deep").values["backup"]
    prefix = deep_verify.scratch_prefix("hospital", "hospital")
    server.sql(f"CREATE DATABASE {prefix}dead")
    server.sql(f"CREATE DATABASE {prefix}live")
    where = f"host={server.sockets} port={server.port} user=worker dbname=postgres"
    server.sql("CREATE ROLE worker LOGIN")
    try:
        with psycopg.connect(where, autocommit=True) as worker:
            worker.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (f"{prefix}live",))
            site.backup(verify="deep")
            left = server.sql("SELECT datname FROM pg_database WHERE datname LIKE 'hms_verify%'")
            assert left == f"{prefix}live"
            # the server notices some time later that somebody is gone
            worker.execute("SELECT pg_advisory_unlock_all()")
        site.backup(verify="deep")
        assert server.sql("SELECT count(*) FROM pg_database WHERE datname LIKE 'hms_verify%'") == "0"
        assert made["verification"]["rows_compared"] == len(ROWS)
    finally:
        server.sql("DROP ROLE worker")


def test_check_mode_touches_nothing_and_tells_all(site: Site) -> None:
    first = site.backup(check_mode=True)
    assert (first.changed, first.values["backup"], first.values["record"]) == (True, None, None)
    assert first.values["plan"]["estimate"]["based_on"] is None
    assert list(site.folder.rglob("*")) == [site.store]
    made = site.backup().values["backup"]
    before = backup_site.digest_of(site.folder)
    planned = site.backup(check_mode=True, retention={"keep_last": 1})
    estimate = planned.values["plan"]["estimate"]
    assert estimate["based_on"] == made["id"]
    assert 0.5 < estimate["bytes"] / sum(member["bytes"] for member in made["members"]) < 2
    assert [one["id"] for one in planned.values["removed"]] == [made["id"]]
    assert planned.after == {str(site.store): [planned.values["id"]]}
    assert backup_site.digest_of(site.folder) == before
    done = site.backup(retention={"keep_last": 1})
    assert [one["id"] for one in done.values["removed"]] == [made["id"]]
    assert [found["id"] for found in site.manifests()] == [done.values["id"]]
    assert site.loose() == []


def test_the_record(site: Site) -> None:
    made = site.backup(encryption={"passphrase": PASSPHRASE})
    text = pathlib.Path(made.values["record"]).read_text(encoding="utf-8")
    record = json.loads(text)
    assert (record["id"], record["operation"]) == (made.values["id"], "backup")
    assert record["outcome"]["status"] == "done"
    assert [step["id"] for step in record["steps"]] == [
        "dump properties",
        "dump globals",
        "snapshot",
        "dump schema",
        "dump data",
        "verify read",
        "manifest",
        "retention",
    ]
    assert {step["result"] for step in record["steps"]} == {"ok"}
    assert "Zw" not in text


def test_two_stores_at_once(site: Site, tmp_path: pathlib.Path) -> None:
    """Here two folders stand for a folder and a bucket; either both have it or none."""
    second = tmp_path / "second"
    second.mkdir()
    wish = wishes.wish_from(site.arguments())
    wish = dataclasses.replace(wish, stores=(*wish.stores, FolderSpec(str(second))))
    manager.backup(wish, check_mode=False, runner=SystemRunner(), clock=SystemClock())
    assert backup_site.digest_of(site.store) == backup_site.digest_of(second)
    assert len(site.manifests()) == 1
    backup_site.remove_tree(second)
    with pytest.raises(HmsError) as caught:
        manager.backup(wish, check_mode=False, runner=SystemRunner(), clock=SystemClock())
    assert caught.value.reason == "no_store"
    assert len(site.manifests()) == 1


def test_a_standby_can_be_backed_up(lab: Lab, tmp_path: pathlib.Path) -> None:
    primary = lab.primary()
    odd_database(primary)
    standby = lab.standby(primary)
    site = Site(standby, tmp_path / "site")
    result = site.backup()
    made = result.values["backup"]
    assert made["server"]["is_standby"]
    assert "public.scratchpad" not in made["contents"]["rows"]
    assert any("unlogged" in warning for warning in result.warnings)
    backup_site.restore(primary, backup_site.plain(stored(site, made, "data")), "copy")
    assert primary.sql("SELECT count(*) FROM patients", dbname="copy") == "1000"
    with pytest.raises(HmsError) as caught:
        site.backup(verify="deep")
    assert caught.value.reason == "deep_needs_primary"


def test_the_module_itself(site: Site) -> None:
    process = site.start_module(encryption={"passphrase": PASSPHRASE}, retention={"days": 30, "keep_last": 2})
    assert process.wait(100) == 0, site.module_output()
    assert backup_site.remnants_in_memory(process.pid) == []
    found = site.module_output()
    assert found["changed"]
    assert found["backup"]["verification"]["ok"]
    assert [found["backup"]["id"]] == [manifest["id"] for manifest in site.manifests()]
    process = site.start_module(database="nowhere")
    assert process.wait(100) == 1
    assert site.module_output()["reason"] == "database_missing"
