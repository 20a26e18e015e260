# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Drills of pgBackRest's backups for real: restored, recovered, every page read; damage, holes, kills."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils import _drill_work
from ansible_collections.hms.postgres.plugins.module_utils._backup.info import info
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock, parse_iso
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._module import Result
from ansible_collections.hms.postgres.plugins.module_utils._tools.pg_ctl import inhabitants
from ansible_collections.hms.postgres.tests.real import pgbackrest_site, restore_site
from ansible_collections.hms.postgres.tests.real.backup_site import ROOT
from ansible_collections.hms.postgres.tests.real.drill_site import ASLEEP, is_asleep
from ansible_collections.hms.postgres.tests.real.lab import VERSION, Lab, until
from ansible_collections.hms.postgres.tests.real.pgbackrest_site import STANZA, Site

# a restore, a recovery and every page for each
pytestmark = pytest.mark.timeout(300)


class Drills:
    """Drills of one repository."""

    def __init__(self, site: Site) -> None:
        self.site = site
        # in memory, for pgBackRest syncs every file that it restores
        self.place = pathlib.Path("/dev/shm", f"hms-drill-{site.folder.name[-15:]}")

    def params(self, **changes: t.Any) -> dict[str, t.Any]:
        """The module's arguments."""
        # a test has no use for times that a disk would have
        settings = {"fsync": False, **changes.pop("settings", {})}
        return {
            "cluster": "hospital",
            "environment": "development",
            "pgbackrest": {"config": str(self.site.config), "stanza": STANZA},
            "login_host": str(self.site.instance.sockets),
            "login_port": self.site.instance.port,
            "state_dir": str(self.site.folder / "state"),
            "directory": str(self.place),
            "settings": settings,
            "timeout": 200.0,
            **changes,
        }

    def drill(self, *, check_mode: bool = False, **changes: t.Any) -> Result:
        """Drill, in this process."""
        return _drill_work.work(self.params(**changes), check_mode=check_mode)

    def failed(self, **changes: t.Any) -> HmsError:
        """Drill, and see it fail; nothing is left of it."""
        with pytest.raises(HmsError) as caught:
            self.drill(**changes)
        assert not self.place.exists()
        return caught.value

    def listed(self) -> dict[str, dict[str, t.Any]]:
        """The list of backups, as the module gives it, by label."""
        params = {"cluster": "hospital", "pgbackrest": {"config": str(self.site.config), "stanza": STANZA}}
        found = info(params, check_mode=True, runner=SystemRunner(), clock=SystemClock())
        labels = {one.id: str(one.contents["label"]) for one in self.site.listed()}
        return {labels[backup["id"]]: backup for backup in found.values["backups"]}

    def impatient(self) -> Drills:
        """The same with a pgBackRest that does not wait before it tries a file once more."""
        text = self.site.config.read_text().replace("[global]", "[global]\njob-retry=0", 1)
        self.site.config.write_text(text)
        return self

    def annotation(self, label: str) -> dict[str, t.Any]:
        """What pgBackRest itself says is noted of the drill."""
        notes = next(one for one in self.site.info() if one["label"] == label).get("annotation") or {}
        found: dict[str, t.Any] = json.loads(notes.get("hms-restored", "{}"))
        return found


@pytest.fixture(scope="module")
def site(module_lab: Lab) -> Site:
    """A primary with two databases, a full and an incremental backup, and WAL after them."""
    made = pgbackrest_site.make_site(module_lab)
    pgbackrest_site.begin(made)
    # nobody but the tests changes how large a database is
    made.instance.set(autovacuum="off")
    made.instance.sql("CREATE DATABASE hospital")
    made.instance.sql(
        "CREATE TABLE beds (id int PRIMARY KEY, ward text); INSERT INTO beds SELECT n, 'w' || n % 7 "
        "FROM generate_series(1, 3000) n; CREATE EXTENSION amcheck; CREATE TABLE old (n int); "
        "INSERT INTO old VALUES (-1); ALTER TABLE old ADD CONSTRAINT positive CHECK (n > 0) NOT VALID",
        dbname="hospital",
    )
    made.backup("full")
    made.write("between")
    made.backup("incremental")
    made.instance.sql("INSERT INTO beds SELECT n, 'later' FROM generate_series(3001, 4000) n", dbname="hospital")
    made.switch()
    made.instance.sql("INSERT INTO beds SELECT n, 'last' FROM generate_series(4001, 4100) n", dbname="hospital")
    made.switch()
    return made


@pytest.fixture
def drills(site: Site) -> t.Iterator[Drills]:
    """Drills of the repository; nothing of them is left."""
    made = Drills(site)
    yield made
    assert not made.place.exists()
    assert inhabitants(str(made.place / "data")) == []


QUESTIONS = [
    {"name": "all beds", "database": "hospital", "sql": "SELECT count(*) FROM beds", "expect": 4100},
    {"name": "open", "sql": "SELECT NOT pg_is_in_recovery()"},
]


def test_the_newest_one_comes_back_to_the_end_of_the_archive(drills: Drills) -> None:
    """Every database is proven, every page is read, and it is noted beside the backup for everybody who looks."""
    site = drills.site
    full, incremental = (one["label"] for one in site.info())
    last = site.segments()[-1].name[:24]
    # a restore empties the spool: where the live server's WAL is on its way must be another one
    spooled = site.folder / "spool" / "archive" / STANZA / "out" / "of-the-live-server"
    spooled.touch()
    begun = SystemClock().now()
    done = drills.drill(assertions=QUESTIONS)
    ended = SystemClock().now()
    assert spooled.exists()
    spooled.unlink()
    (result,) = done.values["results"]
    assert (result["ok"], result["label"], result["engine"]) == (True, incremental, "pgbackrest")
    checks = {(check["database"], check["name"]): check for check in result["validations"]}
    assert all(check["ok"] for check in checks.values())
    assert {database for database, _name in checks} == {"", "hospital", "postgres", "template1"}
    assert checks["hospital", "all beds"]["detail"] == "answers 4100"
    assert checks["postgres", "open"]["ok"]
    assert "AS IN THE ORIGINAL: not validated: positive" in checks["hospital", "constraints"]["detail"]
    assert "indexes checked" in checks["hospital", "amcheck"]["detail"]
    assert last in checks["", "wal"]["detail"]
    pages = int(site.instance.sql("SHOW data_checksums") == "on")
    assert ("pages hold" in checks["", "checksums"]["detail"]) == bool(pages)

    assert_times(site, result)

    recovered = result["recovered"]
    assert (recovered["to"], recovered["segment"]) == ("archive_end", last)
    committed = parse_iso(recovered["last_transaction"])
    least, most = ((moment - committed).total_seconds() for moment in (begun, ended))
    assert least - 1 < result["rpo_seconds"] < most + 1

    note = drills.annotation(incremental)
    assert (note["level"], note["ok"]) == ("restored", True)
    assert drills.annotation(full) == {}
    listed = drills.listed()
    assert (listed[incremental]["restored_at"], listed[full]["restored_at"]) == (note["at"], None)
    assert listed[incremental]["proof"]["level"] == "restored"
    assert site.segments(2) == []
    record = json.loads(pathlib.Path(done.values["record"]).read_text())
    assert record["outcome"]["status"] == "done"
    assert record["results"] == json.loads(json.dumps(done.values["results"]))
    assert pgbackrest_site.PASSPHRASE not in json.dumps(record)


def assert_times(site: Site, result: dict[str, t.Any]) -> None:
    """What a real restore takes, in all and in proportion to the size of today."""
    assert {"prepare", "load", "recover", "validate", "checksums"} == set(result["seconds"])
    took = result["seconds"]["load"] + result["seconds"]["recover"]
    assert result["restore_seconds"] == pytest.approx(took, abs=0.002)
    assert result["bytes_per_second"] == pytest.approx(result["bytes"] / result["seconds"]["load"], rel=0.01)
    now = int(site.instance.sql("SELECT sum(pg_database_size(oid)) FROM pg_database"))
    assert result["present_bytes"] == now
    load = result["seconds"]["load"] * now / result["database_bytes"]
    assert result["projected_rto_seconds"] == pytest.approx(load + result["seconds"]["recover"], abs=0.2)


def test_a_later_verification_does_not_take_the_drill_away(drills: Drills) -> None:
    """Verification and drill have a note each."""
    drills.drill(recover_to="consistent")
    label = drills.site.info()[-1]["label"]
    drills.site.driver.annotate(label, {"hms-verification": json.dumps(dict(VERIFIED, at="2099-01-01T00:00:00.000Z"))})
    assert drills.listed()[label]["restored_at"] == drills.annotation(label)["at"]
    assert drills.listed()[label]["proof"]["level"] == "restored"


VERIFIED = {"level": "read", "ok": True, "seconds": 1.0, "problems": [], "partial": ""}


def test_to_the_end_of_the_backup_alone(drills: Drills) -> None:
    """What was written after it is not there. An answer that is not the expected one spares the backup."""
    asked = [
        {"name": "beds", "database": "hospital", "sql": "SELECT count(*) FROM beds", "expect": 3000},
        {"name": "old", "database": "hospital", "sql": "SELECT count(*) FROM old", "expect": 2},
    ]
    (result,) = drills.failed(assertions=asked, recover_to="consistent").details["results"]
    assert (result["reason"], result["noted"], result["recovered"]["to"]) == ("validation_failed", False, "consistent")
    assert result["problems"] == ("What came back is not as it should be: old in hospital: answers 1 in place of 2.",)
    assert "wal" not in {check["name"] for check in result["validations"]}


def test_check_mode_and_what_is_not_asked_for(drills: Drills) -> None:
    found = drills.drill(check_mode=True)
    (planned,) = found.values["planned"]
    assert (planned["engine"], planned["problem"], planned["version"]) == ("pgbackrest", "", VERSION)
    assert not (drills.site.folder / "state" / "records").exists() or found.values["record"] is None
    with pytest.raises(HmsError, match="no store with backups by pg_dump"):
        drills.drill(engines=["pg_dump"])
    with pytest.raises(HmsError, match="under hospital; those here are under no database") as caught:
        drills.drill(databases=["hospital"])
    assert caught.value.reason == "no_backup"


def test_a_repository_that_can_not_be_read_is_said(drills: Drills) -> None:
    with pytest.raises(HmsError, match="there is no /nonexistent/"):
        drills.drill(pgbackrest={"config": "/nonexistent/pgbackrest.conf", "stanza": STANZA})


def test_the_patients_of_production_stay_there(drills: Drills) -> None:
    twin = Drills(drills.site.twin())
    twin.site.driver.annotate(twin.site.info()[-1]["label"], {"hms-environment": "production"})
    (result,) = twin.failed(environment="staging").details["results"]
    assert (result["reason"], result["noted"]) == ("production_data", False)
    assert result["seconds"] == {}


def test_a_damaged_backup_is_told_and_counts_no_more(drills: Drills) -> None:
    """One bit of the files that a backup consists of."""
    twin = Drills(drills.site.twin()).impatient()
    label = twin.site.info()[-1]["label"]
    bundle = max(
        (twin.site.repo / "backup" / STANZA / label[:16]).rglob("bundle/*"), key=lambda one: one.stat().st_size
    )
    pgbackrest_site.flip(bundle, bundle.stat().st_size // 2)
    error = twin.failed()
    (result,) = error.details["results"]
    assert (error.reason, result["ok"], result["reason"], result["noted"]) == (
        "drill_failed",
        False,
        "artifact_damaged",
        True,
    )
    assert label in result["problems"][0]
    assert twin.annotation(label)["ok"] is False
    assert twin.listed()[label]["verified"] is False
    assert json.loads(pathlib.Path(error.details["record"]).read_text())["outcome"]["status"] == "failed"


def test_a_hole_in_the_archive_fails_the_drill_and_spares_the_backup(drills: Drills) -> None:
    """The backup itself can be brought back; the way from there to now is broken, and that is said."""
    twin = Drills(drills.site.twin())
    label = twin.site.info()[-1]["label"]
    gone = twin.site.segments()[-2]
    gone.unlink()
    error = twin.failed()
    (result,) = error.details["results"]
    assert (result["reason"], result["noted"]) == ("wal_missing", False)
    assert gone.name[:24] in result["problems"][0]
    assert twin.annotation(label) == drills.annotation(label)


def test_a_segment_that_can_not_be_read_ends_recovery_too_early(drills: Drills) -> None:
    """The server takes a damaged segment for the end of the archive and opens; the drill does not."""
    twin = Drills(drills.site.twin())
    broken = twin.site.segments()[-2]
    pgbackrest_site.flip(broken, broken.stat().st_size // 2)
    (result,) = twin.failed().details["results"]
    assert result["reason"] == "wal_missing"
    assert f"goes on to {twin.site.segments()[-1].name[:24]}" in result["problems"][0]


def test_a_backup_without_its_own_wal_is_none(drills: Drills) -> None:
    twin = Drills(drills.site.twin())
    newest = twin.site.info()[-1]
    for segment in twin.site.segments():
        if segment.name[:24] == newest["archive"]["stop"]:
            segment.unlink()
    (result,) = twin.failed().details["results"]
    assert (result["reason"], result["noted"]) == ("backup_incomplete", True)
    assert newest["archive"]["stop"] in result["problems"][0]
    assert twin.listed()[newest["label"]]["verified"] is False


def test_what_a_killed_drill_left_goes_with_the_next_one(drills: Drills) -> None:
    """SIGKILL while the server is being asked: it lives on, and the next run ends and removes it."""
    asleep = [{"name": "asleep", "database": "hospital", "sql": ASLEEP}]
    given = json.dumps({"ANSIBLE_MODULE_ARGS": drills.params(assertions=asleep)})
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".collections")}
    process = subprocess.Popen(
        [sys.executable, "-m", "ansible_collections.hms.postgres.plugins.modules.pg_restore_drill"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=environment,
        cwd=ROOT,
    )
    try:
        assert process.stdin is not None
        process.stdin.write(given.encode())
        process.stdin.close()
        until(lambda: is_asleep(drills.place), "it is asked", seconds=90)
    finally:
        restore_site.kill(process)
    assert inhabitants(str(drills.place / "data"))
    done = drills.drill(recover_to="consistent")
    assert (done.values["leftovers"], done.values["results"][0]["ok"]) == (True, True)


def test_no_room(drills: Drills) -> None:
    """A disk that fills up is this host's fault, not the backup's."""
    place = drills.site.lab.folder / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(place)], check=True)
    try:
        with pytest.raises(HmsError) as caught:
            Drills(drills.site.twin()).impatient().drill(directory=str(place / "drill"))
        (result,) = caught.value.details["results"]
        assert (result["reason"], result["noted"]) == ("disk_full", False)
        assert not (place / "drill").exists()
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        place.rmdir()


def test_recovery_follows_the_cluster_to_its_newest_timeline(drills: Drills) -> None:
    """After a failover the newest backup may still be of the timeline before."""
    live = drills.site.instance
    live.stop()
    pgbackrest_site.own(_touched(live.data / "standby.signal"))
    live.start()
    live.sql("SELECT pg_promote()")
    live.sql("INSERT INTO beds SELECT n, 'after' FROM generate_series(4101, 4150) n", dbname="hospital")
    drills.site.switch()
    asked = [{"name": "beds", "database": "hospital", "sql": "SELECT count(*) FROM beds", "expect": 4150}]
    (result,) = drills.drill(assertions=asked).values["results"]
    assert result["ok"]
    assert result["recovered"]["segment"] == drills.site.segments(2)[-1].name[:24]
    assert result["recovered"]["segment"].startswith("00000002")
    assert result["recovered"]["timeline"] == 3, "its own, which is thrown away with it"


def _touched(path: pathlib.Path) -> pathlib.Path:
    path.touch()
    return path


def test_pages_that_were_damaged_already_when_the_backup_was_made(drills: Drills) -> None:
    """The repository holds them faithfully; nobody reads the table; the drill reads every page."""
    site = drills.site
    path = site.instance.data / site.instance.sql("SELECT pg_relation_filepath('between')")
    site.instance.stop()
    data = bytearray(path.read_bytes())
    # in the second page's free space: no row is touched
    data[8192 + 8000] ^= 1
    path.write_bytes(bytes(data))
    site.instance.start()
    site.backup("full", verify="none")
    (result,) = drills.failed(recover_to="consistent").details["results"]
    assert (result["reason"], result["noted"]) == ("validation_failed", True)
    assert "1 of " in result["problems"][0]
    assert "pages are damaged: base/" in result["problems"][0]
