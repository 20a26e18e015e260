# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restores beside the live database, on a real server. What came back is judged by pg_dump and psql."""

from __future__ import annotations

import json
import os
import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.tests.real import backup_site, restore_site
from ansible_collections.hms.postgres.tests.real.backup_site import PASSPHRASE, ROWS, odd_database
from ansible_collections.hms.postgres.tests.real.lab import Instance, Lab, until
from ansible_collections.hms.postgres.tests.real.restore_site import RestoreSite

WEIRD = 'weird "name; drop'


@pytest.fixture(scope="module")
def server(module_lab: Lab) -> Instance:
    """A server with the odd database, which has properties of every kind."""
    instance = module_lab.primary()
    odd_database(instance)
    instance.sql("CREATE ROLE keeper; CREATE ROLE clerk; ALTER DATABASE hospital OWNER TO keeper")
    instance.sql("ALTER DATABASE hospital SET work_mem = '7MB'; ALTER ROLE clerk IN DATABASE hospital SET jit = off")
    instance.sql("""ALTER DATABASE hospital SET search_path = "$user", public, "We ird.""S"; """)
    instance.sql("ALTER DATABASE hospital SET default_transaction_read_only = on")
    instance.sql("REVOKE CONNECT ON DATABASE hospital FROM PUBLIC; GRANT CONNECT ON DATABASE hospital TO clerk")
    instance.sql("COMMENT ON DATABASE hospital IS 'the hospital''s'; ALTER DATABASE hospital CONNECTION LIMIT 77")
    return instance


@pytest.fixture
def site(server: Instance, tmp_path: pathlib.Path) -> RestoreSite:
    """The odd database and a store of the test's own."""
    return RestoreSite(server, tmp_path / "site")


@pytest.fixture(autouse=True)
def live_untouched(server: Instance) -> t.Iterator[None]:
    """Whatever a test does, the live database is the same afterwards, and nobody is left."""
    oid = server.sql("SELECT oid FROM pg_database WHERE datname = 'hospital'")
    before = restore_site.properties(server, "hospital")
    yield
    assert server.sql("SELECT oid FROM pg_database WHERE datname = 'hospital'") == oid
    assert restore_site.properties(server, "hospital") == before
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'hms.postgres%'"
    until(lambda: server.sql(count) == "0", "the server's sessions have ended", seconds=60)
    assert backup_site.remnants_in_memory(os.getpid()) == []
    backup_site.drop(server, *restore_site.scratches(server))


def test_the_newest_backup_comes_to_life_beside_the_live_one(
    site: RestoreSite, server: Instance, tmp_path: pathlib.Path
) -> None:
    """Everything odd comes back, with all that belongs to the database itself; the private key is needed and stays."""
    with backup_site.keys_in(tmp_path) as keys:
        public = keys.make("ops@example.org")
        private = tmp_path / "private.asc"
        private.write_bytes(keys.gpg("--armor", "--export-secret-keys", "ops@example.org"))
        made = site.backup(encryption={"recipients": ["ops@example.org"], "key_files": [str(public)]}).values["backup"]
        nothing = site.refused()
        assert (nothing.reason, nothing.state) == ("no_key", "Nothing was touched.")
        encryption = {"key_files": [str(private)]}
        planned = site.restore(check_mode=True, encryption=encryption)
        assert (planned.changed, planned.values["ready"], planned.values["record"]) == (True, False, None)
        assert restore_site.scratches(server) == []
        (refusal,) = site.state.glob("records/*-restore-*.json")
        assert site.record(str(refusal))["outcome"]["status"] == "refused"
        done = site.restore(encryption=encryption)
    found = done.values
    assert (found["ready"], found["live"], found["scratch"]) == (True, "hospital", planned.values["scratch"])
    assert found["before_name"].startswith("hospital_before_20")
    assert restore_site.scratches(server) == [found["scratch"]]
    assert backup_site.dump_text(server, found["scratch"]) == backup_site.dump_text(server, "hospital")
    assert restore_site.properties(server, found["scratch"]) == restore_site.properties(server, "hospital")
    shown = restore_site.comment(server, found["scratch"]).splitlines()
    assert shown[0] == "the hospital's"
    assert made["id"] in shown[1]
    checks = {check["name"]: check for check in found["validations"]}
    assert all(check["ok"] for check in checks.values())
    assert f"{len(ROWS)} tables, {sum(ROWS.values())} rows, 5 large objects" in checks["contents"]["detail"]
    assert "wards 0002_beds" in checks["migrations"]["detail"]
    record = site.record(found["record"])
    assert record["outcome"]["status"] == "done"
    assert [step["id"] for step in record["steps"]] == ["create", "load", "analyze", "validate", "properties"]


def test_what_was_proven_is_used_again(site: RestoreSite, server: Instance) -> None:
    """The second run finds the proven one, and brings up to date what was changed on the live one meanwhile."""
    site.backup(encryption={"passphrase": PASSPHRASE})
    first = site.restore(encryption={"passphrase": PASSPHRASE})
    oid = server.sql(f"SELECT oid FROM pg_database WHERE datname = '{first.values['scratch']}'")
    server.sql("ALTER DATABASE hospital CONNECTION LIMIT 66")
    try:
        second = site.restore(encryption={"passphrase": PASSPHRASE})
        assert (first.changed, second.changed, second.values["ready"]) == (True, False, True)
        assert second.values["validations"] == first.values["validations"]
        assert [step.split(",")[0] for step in second.values["plan"]["steps"]] == [f"give {first.values['scratch']}"]
        assert server.sql(f"SELECT oid FROM pg_database WHERE datname = '{first.values['scratch']}'") == oid
        assert restore_site.properties(server, first.values["scratch"]) == restore_site.properties(server, "hospital")
    finally:
        server.sql("ALTER DATABASE hospital CONNECTION LIMIT 77")
    third = site.restore(encryption={"passphrase": PASSPHRASE}, assertions=[{"name": "yes", "sql": "SELECT true"}])
    assert third.changed
    assert server.sql(f"SELECT oid FROM pg_database WHERE datname = '{third.values['scratch']}'") != oid


def test_what_was_swapped_in_is_not_restored_again_unless_asked(site: RestoreSite, server: Instance) -> None:
    """A run that was killed when all was done, run again: what was written since must not be put aside."""
    site.backup()
    first = site.restore()
    assert (first.changed, first.values["live_already"]) == (True, False)
    scratch = first.values["scratch"]

    def rename(*pairs: tuple[str, str]) -> None:
        for old, new in pairs:
            server.sql(f"ALTER DATABASE {old} RENAME TO {new}")

    rename(("hospital", "hospital_aside"), (scratch, "hospital"))
    try:
        planned, second = site.restore(check_mode=True), site.restore()
        for run in (planned, second):
            assert (run.changed, run.values["ready"], run.values["live_already"]) == (False, False, True)
            assert list(run.values["plan"]["steps"]) == []
        assert restore_site.scratches(server) == []
        assert site.record(str(second.values["record"]))["outcome"]["status"] == "nothing_to_do"
        assert site.restore(check_mode=True, again=True).changed
        rename(("hospital", scratch), ("hospital_aside", "hospital"))
        # after the way back it is a scratch database that was proven, as before
        third = site.restore()
        assert (third.changed, third.values["ready"], third.values["live_already"]) == (False, True, False)
    finally:
        if server.sql("SELECT count(*) FROM pg_database WHERE datname = 'hospital_aside'") == "1":
            rename(("hospital", scratch), ("hospital_aside", "hospital"))


def test_several_jobs_leave_no_plaintext(site: RestoreSite, server: Instance, tmp_path: pathlib.Path) -> None:
    site.backup(encryption={"passphrase": PASSPHRASE}, compression="gzip")
    work = tmp_path / "work"
    done = site.restore(encryption={"passphrase": PASSPHRASE}, jobs=3, work_dir=str(work))
    assert list(work.rglob("*")) == []
    assert any("without a name" in warning for warning in done.warnings)
    assert backup_site.dump_text(server, done.values["scratch"]) == backup_site.dump_text(server, "hospital")


def test_by_path_by_id_and_without_a_live_database(site: RestoreSite, server: Instance) -> None:
    """The database was dropped by mistake: its owner, rights and settings come from the backup."""
    made = site.backup().values["backup"]
    folder = site.members(made["id"])
    by_path = site.restore(backup=str(folder))
    assert by_path.values["plan"]["artifact"]["name"] == made["id"]
    again = site.restore(backup=made["id"])
    assert not again.changed
    assert not site.restore(backup=str(site.data_file(made["id"]))).changed
    gone = site.restore(database="lost", backup=made["id"], allow_other_database=True)
    assert (gone.values["live_exists"], gone.values["before_name"]) == (False, None)
    assert restore_site.properties(server, gone.values["scratch"]) == restore_site.properties(server, "hospital")


def test_a_name_that_is_sql(server: Instance, tmp_path: pathlib.Path) -> None:
    odd_database(server, WEIRD)
    try:
        site = RestoreSite(server, tmp_path / "weird", database=WEIRD)
        site.backup()
        found = site.restore().values
        assert backup_site.dump_text(server, found["scratch"]) == backup_site.dump_text(server, WEIRD)
        assert restore_site.properties(server, found["scratch"]) == restore_site.properties(server, WEIRD)
        assert found["before_name"].startswith(WEIRD + "_before_")
    finally:
        backup_site.drop(server, WEIRD)


def test_masks_and_assertions(site: RestoreSite, server: Instance, tmp_path: pathlib.Path) -> None:
    """Production's data come to another environment masked, or by name, or not at all."""
    site.backup(environment="production")
    assert site.refused().reason == "production_data"
    assert site.restore(check_mode=True, allow_phi=True).changed
    mask = tmp_path / "mask.sql"
    mask.write_text("UPDATE patients SET name = 'patient; ' || id; -- nobody's name\nDELETE FROM blobs;\n")
    asked = [
        {"name": "no name is left", "sql": "SELECT count(*) FROM patients WHERE name LIKE 'patient %'", "expect": 0},
        {"name": "patients are there", "sql": "SELECT count(*) = 1000 FROM patients"},
    ]
    found = site.restore(mask=[str(mask)], assertions=asked).values
    assert server.sql("SELECT name FROM patients WHERE id = 7", dbname=found["scratch"]) == "patient; 7"
    assert {check["name"]: check["ok"] for check in found["validations"]}["no name is left"]
    mask.write_text("\\! touch /tmp/owned\n")
    assert site.refused(mask=[str(mask)]).reason == "bad_mask"
    mask.write_text("UPDATE patients SET name = 1/0;\n")
    error = site.refused(mask=[str(mask)])
    assert "division by zero" in error.message
    assert restore_site.scratches(server) == []


def test_an_assertion_that_fails_hands_nothing_over(site: RestoreSite, server: Instance) -> None:
    site.backup()
    asked = [{"name": "nobody", "sql": "SELECT count(*) FROM patients", "expect": 0}]
    error = site.refused(assertions=asked)
    assert (error.reason, error.state) == ("validation_failed", "The live database was not touched.")
    assert "nobody: answers 1000 in place of 0" in error.message
    assert restore_site.scratches(server) == []
    error = site.refused(assertions=asked, keep_failed=True)
    (kept,) = restore_site.scratches(server)
    assert error.details["scratch"] == kept
    assert "hms.postgres restored" not in restore_site.comment(server, kept)
    assert server.login(f"host={server.sockets} port={server.port} user=clerk dbname={kept}") != "clerk"
    written = [json.loads(path.read_text()) for path in site.state.glob("records/*-restore-*.json")]
    assert {one["outcome"]["status"] for one in written} == {"failed"}
    writing = [{"name": "writes", "sql": "DELETE FROM patients RETURNING true"}]
    assert "read-only transaction" in site.refused(assertions=writing).message
    assert restore_site.scratches(server) == []


def test_production_wants_its_name(site: RestoreSite) -> None:
    site.backup(environment="production")
    error = site.refused(environment="production")
    assert (error.reason, "confirm=hospital" in error.next_step) == ("not_confirmed", True)
    assert site.refused(environment="production", confirm="hospitl").reason == "not_confirmed"
    planned = site.restore(environment="production", check_mode=True)
    assert any("confirm=hospital" in warning for warning in planned.warnings)
    assert site.restore(environment="production", confirm="hospital").values["ready"]
