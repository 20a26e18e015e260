# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore drills for real: throwaway instances beside a server that must not notice, damage, kills, leftovers."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import signal
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._backup.info import info
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._tools.pg_ctl import inhabitants
from ansible_collections.hms.postgres.tests.real import backup_site, restore_site
from ansible_collections.hms.postgres.tests.real.backup_site import PASSPHRASE, ROWS, odd_database
from ansible_collections.hms.postgres.tests.real.drill_site import ASLEEP, ENCRYPTION, DrillSite, is_asleep, workers
from ansible_collections.hms.postgres.tests.real.lab import Instance, Lab, until

# a drill makes a server, and Ansible is started several times
pytestmark = pytest.mark.timeout(600)

PHASES = ["analyze", "create", "load", "look", "prepare", "properties", "validate"]


@pytest.fixture(scope="module")
def server(module_lab: Lab) -> Instance:
    """A server with the odd database, another one, and roles of its own."""
    # nobody but the tests changes how large a database is
    instance = module_lab.primary(autovacuum="off")
    odd_database(instance)
    instance.sql('CREATE ROLE keeper; CREATE ROLE "odd ""clerk" LOGIN PASSWORD \'secret\'')
    instance.sql("ALTER DATABASE hospital OWNER TO keeper")
    instance.sql('ALTER TABLE patients OWNER TO keeper; GRANT SELECT ON blobs TO "odd ""clerk"', dbname="hospital")
    instance.sql("CREATE DATABASE second")
    instance.sql("CREATE TABLE beds AS SELECT generate_series(1, 500) AS id", dbname="second")
    shutil.chown(instance.folder, "postgres")
    return instance


@pytest.fixture
def site(server: Instance, tmp_path: pathlib.Path) -> DrillSite:
    """The databases, and a store of the test's own."""
    return DrillSite(server, tmp_path / "site")


@pytest.fixture(autouse=True)
def nothing_left(server: Instance, site: DrillSite) -> t.Iterator[None]:
    """Whatever a test does: no throwaway instance is left, no key, and the server has the databases that it had."""
    ask = "SELECT string_agg(datname || oid, ',' ORDER BY oid) FROM pg_database"
    roles = "SELECT string_agg(rolname, ',' ORDER BY oid) FROM pg_roles"
    before = server.sql(ask), server.sql(roles)
    yield
    assert not site.place.exists()
    assert workers(site.place) == []
    assert (server.sql(ask), server.sql(roles)) == before
    assert backup_site.remnants_in_memory(os.getpid()) == []


def test_the_newest_backups_come_back_and_it_is_noted(site: DrillSite, server: Instance) -> None:
    """Each database on an instance of its own, owners and all; the result stands beside the backup, and in the list."""
    older = site.backup(encryption=ENCRYPTION).values["backup"]
    made = site.backup(encryption=ENCRYPTION, environment="production").values["backup"]
    other = site.backup(database="second", encryption=ENCRYPTION, environment="production").values["backup"]
    server.sql("INSERT INTO blobs SELECT n, repeat('x', 900)::bytea FROM generate_series(1, 3000) n", dbname="hospital")
    questions = [
        {"name": "patients", "database": "hospital", "sql": "SELECT count(*) FROM patients", "expect": 1000},
        {
            "name": "owner",
            "database": "hospital",
            "sql": "SELECT tableowner FROM pg_tables WHERE tablename = 'patients'",
            "expect": "keeper",
        },
        {
            "name": "logins",
            "sql": "SELECT count(*) FROM pg_authid WHERE rolcanlogin OR rolpassword IS NOT NULL",
            "expect": 1,
        },
    ]
    refused = site.failed(assertions=questions, databases=["second"])
    assert refused.reason == "drill_failed"
    assert {result["reason"] for result in refused.details["results"]} == {"production_data"}
    assert (site.noted(made["id"]), site.noted(other["id"])) == ([], [])

    done = site.drill(assertions=questions, allow_phi=True, settings={"shared_buffers": "32MB", "jit": False})
    first, second = done.values["results"]
    assert (first["database"], first["id"], first["ok"]) == ("hospital", made["id"], True)
    assert (second["database"], second["id"], second["ok"]) == ("second", other["id"], True)
    assert [check["ok"] for check in first["validations"][-3:]] == [True, True, True]
    assert sorted(first["seconds"]) == sorted([*PHASES, "assertions"])
    assert first["bytes"] == site.data_file(made["id"]).stat().st_size
    assert first["bytes_per_second"] == pytest.approx(first["bytes"] / first["seconds"]["load"], rel=0.01)
    now = int(server.sql("SELECT pg_database_size('hospital')"))
    assert (first["present_bytes"], first["present_bytes"] > first["database_bytes"]) == (now, True)
    growth = now / first["database_bytes"]
    assert first["projected_rto_seconds"] == pytest.approx(first["restore_seconds"] * growth, abs=0.06)

    (proof,) = site.noted(made["id"])
    assert (proof["level"], proof["ok"], proof["rows_compared"]) == ("restored", True, len(ROWS))
    assert site.noted(older["id"]) == []
    record = site.record(done.values["record"])
    assert record["outcome"]["status"] == "done"
    assert [step["id"] for step in record["steps"]][:4] == [
        "prepare hospital",
        "restore hospital",
        "remove hospital",
        "prepare second",
    ]
    assert record["results"] == json.loads(json.dumps(done.values["results"]))
    assert PASSPHRASE not in json.dumps(record)
    listed = site.listed()
    assert {name: bool(found["restored_at"]) for name, found in listed.items()} == {
        older["id"]: False,
        made["id"]: True,
        other["id"]: True,
    }
    assert (listed[made["id"]]["restored_at"], listed[made["id"]]["proof"]["level"]) == (proof["at"], "restored")


def test_check_mode_says_what_would_come_back(site: DrillSite) -> None:
    made = site.backup(encryption=ENCRYPTION).values["backup"]
    found = site.drill(check_mode=True)
    (planned,) = found.values["planned"]
    assert (found.changed, found.values["results"], found.values["record"]) == (True, [], None)
    assert (planned["database"], planned["id"], planned["problem"]) == ("hospital", made["id"], "")
    assert not list(site.state.glob("records/*-drill-*"))
    assert site.noted(made["id"]) == []


def test_damage_is_told_recorded_and_held_against_the_backup(site: DrillSite) -> None:
    """The damaged one fails, the other one of the same drill comes back all the same."""
    broken = site.backup(encryption=ENCRYPTION).values["backup"]
    whole = site.backup(database="second", encryption=ENCRYPTION).values["backup"]
    path = site.data_file(broken["id"])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    error = site.failed()
    first, second = error.details["results"]
    assert (error.reason, first["id"], first["ok"], first["reason"]) == (
        "drill_failed",
        broken["id"],
        False,
        "artifact_damaged",
    )
    assert "SHA-256 differs" in first["problems"][0]
    assert (second["id"], second["ok"], first["projected_rto_seconds"]) == (whole["id"], True, None)
    record = site.record(error.details["record"])
    assert record["outcome"]["status"] == "failed"
    assert "SHA-256 differs" in record["outcome"]["message"]
    assert [(one["level"], one["ok"]) for one in site.noted(broken["id"])] == [("restored", False)]
    listed = site.listed()
    assert (listed[broken["id"]]["verified"], listed[broken["id"]]["restored_at"]) == (False, None)
    assert listed[whole["id"]]["restored_at"]


def test_a_repository_that_can_not_be_read_does_not_keep_dumps_from_coming_back(site: DrillSite) -> None:
    made = site.backup(database="second").values["backup"]
    error = site.failed(pgbackrest={"config": "/nonexistent/pgbackrest.conf"})
    lost, dump = error.details["results"]
    assert (lost["engine"], lost["ok"], lost["reason"]) == ("pgbackrest", False, "no_pgbackrest")
    assert "there is no /nonexistent/pgbackrest.conf" in lost["problems"][0]
    assert (dump["id"], dump["ok"], site.record(error.details["record"])["outcome"]["status"]) == (
        made["id"],
        True,
        "failed",
    )
    assert [one["ok"] for one in site.noted(made["id"])] == [True]


def test_a_database_that_has_no_backup_is_told_and_nothing_comes_back(site: DrillSite) -> None:
    """Neither for a wrong name alone, nor beside a right one; and it is told where else one looked."""
    made = site.backup(database="second").values["backup"]
    for databases in (["secnod"], ["second", "secnod"]):
        error = site.failed(databases=databases)
        assert (error.reason, error.state) == ("no_backup", "Nothing was touched.")
        assert error.message == f"There is no full backup of secnod by pg_dump in {site.store}."
        assert "playbooks/backups.yml" in error.next_step
    error = site.failed(databases=["secnod"], pgbackrest={"config": "/nonexistent/pgbackrest.conf"})
    assert error.message.endswith("No pgBackRest repository is listed under secnod; those here are under no database.")
    assert site.noted(made["id"]) == []
    assert list(site.state.glob("records/*drill*")) == []


def test_one_database_by_pg_dump_and_another_by_pgbackrest(site: DrillSite) -> None:
    """Each is looked for where it is, and the loss of one keeps the other from nothing."""
    made = site.backup(database="second").values["backup"]
    site.write_policy()
    path = site.folder / "backup.json"
    policy = json.loads(path.read_text())
    policy["schedule"]["physical"] = {
        "type": "full",
        "engine": "pgbackrest",
        "database": "hospital",
        "pgbackrest": {"config": "/nonexistent/pgbackrest.conf"},
    }
    path.write_text(json.dumps(policy))
    asked: dict[str, t.Any] = {"config_directory": str(site.folder), "store": None, "cluster": None}
    lost, dump = site.failed(databases=["second", "hospital"], **asked).details["results"]
    assert (lost["database"], lost["engine"], lost["reason"]) == ("hospital", "pgbackrest", "no_pgbackrest")
    assert (dump["id"], dump["ok"]) == (made["id"], True)
    assert site.failed(databases=["hospital"], **asked).reason == "no_pgbackrest"
    error = site.failed(databases=["hospital", "archive"], **asked)
    assert error.reason == "no_backup"
    assert "is listed under archive; those here are under hospital." in error.message


def test_an_answer_that_is_not_the_expected_one_spares_the_backup(site: DrillSite) -> None:
    """The operator's own question fails the drill; whether the bytes are bad it does not say."""
    made = site.backup(database="second").values["backup"]
    error = site.failed(assertions=[{"name": "beds", "sql": "SELECT count(*) FROM beds", "expect": 501}])
    (result,) = error.details["results"]
    assert (result["reason"], result["noted"]) == ("validation_failed", False)
    assert "answers 500 in place of 501" in result["problems"][0]
    assert site.noted(made["id"]) == []
    assert site.listed()[made["id"]]["verified"]


def test_what_a_killed_drill_left_goes_with_the_next_one(site: DrillSite) -> None:
    """SIGKILL while the backup is being proven: the server lives on, and the next run ends and removes it."""
    made = site.backup(database="second").values["backup"]
    process = site.start_restore(module="pg_restore_drill", assertions=[{"name": "asleep", "sql": ASLEEP}])
    try:
        until(lambda: is_asleep(site.place), "the question is being asked", seconds=90)
        with pytest.raises(HmsError, match="Another restore drill is at work"):
            site.drill()
    finally:
        restore_site.kill(process)
    assert inhabitants(str(site.place / "data"))
    assert site.drill(check_mode=True).values["leftovers"]
    done = site.drill()
    assert (done.values["leftovers"], done.values["results"][0]["ok"]) == (True, True)
    assert [one["ok"] for one in site.noted(made["id"])] == [True]
    record = site.record(done.values["record"])
    assert record["steps"][0]["id"] == "leftovers"


def test_told_to_end_it_leaves_nothing(site: DrillSite) -> None:
    site.backup(database="second")
    process = site.start_restore(module="pg_restore_drill", assertions=[{"name": "asleep", "sql": ASLEEP}])
    try:
        until(lambda: is_asleep(site.place), "the question is being asked", seconds=90)
        os.kill(process.pid, signal.SIGTERM)
        process.wait(60)
    finally:
        restore_site.kill(process)
    assert b'"reason": "interrupted"' in (site.folder / "module.out").read_bytes()


def test_a_folder_of_somebody_else_is_refused(site: DrillSite) -> None:
    site.backup(database="second")
    site.place.mkdir()
    (site.place / "letters.txt").write_text("mine")
    error = site.failed()
    assert (error.reason, error.state) == ("bad_directory", "Nothing was touched.")
    assert "letters.txt" in error.message
    assert (site.place / "letters.txt").read_text() == "mine"
    shutil.rmtree(site.place)


def play(site: DrillSite, *options: str, rc: int = 0, **variables: t.Any) -> str:
    """Run playbooks/restore_drill.yml; what it printed, as one line."""
    site.write_policy()
    given = {"directory": str(site.place), "settings": {"fsync": False}, **variables}
    return site.play("restore_drill", *options, rc=rc, **given)


def test_the_playbook_shows_a_table_and_satisfies_the_policy(site: DrillSite) -> None:
    """A job that demands a drill is not satisfied by a verified backup before it, and is afterwards."""
    made = site.backup(database="second").values["backup"]
    assert "WOULD TAKE" in play(site, "--check")
    before = fresh(site)
    assert (before["ok"], before["restored_age"]) == (False, None)
    assert "was ever restored by a drill" in before["what"]
    printed = play(site, host="db1")
    assert f"second {made['id']} yes" in printed
    assert "AT TODAY'S SIZE" in printed
    (page,) = (site.folder / "kept").glob("*.html")
    (record,) = (site.folder / "kept").glob("*.json")
    assert record.read_bytes() == (site.state / "records" / record.name).read_bytes()
    assert (page.stat().st_mode & 0o77, record.stat().st_mode & 0o77) == (0, 0)
    shown = page.read_text(encoding="utf-8")
    assert made["id"] in shown
    assert hashlib.sha256(record.read_bytes()).hexdigest() in shown
    assert f"Report: {page}" in printed
    after = fresh(site)
    assert (after["ok"], after["restored_age"] < 600) == (True, True)
    path = site.data_file(made["id"])
    path.write_bytes(path.read_bytes()[:-5] + b"xxxxx")
    printed = play(site, rc=2)
    assert f"second {made['id']} NO" in printed
    assert "1 of 1 backups did not come back" in printed
    assert not fresh(site)["ok"]
    assert "host is one of db1" in play(site, rc=2, host="db7")


def fresh(site: DrillSite) -> dict[str, t.Any]:
    """What the policy makes of it."""
    params = {"config_directory": str(site.folder)}
    found = info(params, check_mode=True, runner=SystemRunner(), clock=SystemClock())
    (verdict,) = found.values["freshness"]
    return dict(verdict)
