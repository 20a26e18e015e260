# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recovery to a point in time, into a side cluster, by the real pgBackRest. psql asks both clusters what they hold."""

from __future__ import annotations

import dataclasses
import datetime
import json
import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._pitr.look import Questions
from ansible_collections.hms.postgres.tests.real.lab import Lab, process_alive
from ansible_collections.hms.postgres.tests.real.pgbackrest_site import Site, begin, make_site
from ansible_collections.hms.postgres.tests.real.pitr_site import History, Moment, Recovery

pytestmark = pytest.mark.timeout(300)

COUNT = "SELECT count(*), count(*) FILTER (WHERE name = 'nobody') FROM patient"
ALL, AFTER_DELETE, AFTER_UPDATE = "100|0", "10|0", "10|10"


@dataclasses.dataclass
class Told:
    """The live cluster and what happened to it."""

    site: Site
    history: History
    admitted: Moment
    deleted: Moment
    renamed: Moment
    late: Moment


@pytest.fixture(scope="module")
def told(module_lab: Lab) -> Told:
    """Two backups with known transactions after each."""
    site = make_site(module_lab)
    begin(site)
    site.instance.sql("CREATE TABLE patient (id int PRIMARY KEY, name text, seen timestamptz DEFAULT now())")
    site.backup(verify="none")
    history = History(site)
    admitted = history.do("INSERT INTO patient SELECT g, 'p' || g FROM generate_series(1, 100) g")
    deleted = history.do("DELETE FROM patient WHERE id > 10")
    site.instance.sql("SELECT pg_create_restore_point('before the update')")
    renamed = history.do("UPDATE patient SET name = 'nobody'")
    site.switch()
    site.backup("incremental", verify="none")
    late = history.do("INSERT INTO patient SELECT g, 'late' FROM generate_series(201, 205) g")
    return Told(site, history, admitted, deleted, renamed, late)


@pytest.fixture(scope="module")
def recovery(told: Told, module_lab: Lab) -> t.Iterator[Recovery]:
    """One side cluster, moved from test to test."""
    made = Recovery(told.site, module_lab.folder / "side")
    yield made
    made.close()


def label(told: Told, number: int) -> str:
    """The label of a backup, the oldest first."""
    return str(told.site.info()[number]["label"])


class TestTargets:
    """Each reaches its target by the shortest way; the rows say whether it is the right one."""

    def test_check_mode_tells_and_touches_nothing(self, told: Told, recovery: Recovery) -> None:
        planned = recovery.to(time=told.admitted.after, check_mode=True)
        assert planned.changed
        assert planned.values["backup"] == label(told, 0)
        assert "restore: there is no side cluster" in planned.values["plan"][0]
        assert not recovery.directory.exists()

    def test_between_two_transactions_by_time(self, told: Told, recovery: Recovery) -> None:
        questions = Questions(("patient",), {"patient": "seen"}, ("SELECT max(id) FROM patient", "DELETE FROM patient"))
        made = recovery.to(time=told.admitted.after, questions=questions)
        assert made.changed
        assert recovery.sql(COUNT) == ALL
        assert told.site.instance.sql(COUNT) == "15|10", "the live cluster is as it was"
        assert made.values["found"]["tables"] == {"patient": {"rows": 100}}
        greatest, refused = made.values["found"]["queries"]
        assert greatest["rows"] == [["100"]]
        assert "read-only" in refused["error"]
        assert made.values["reached"]["paused"] is True
        assert set(made.values["seconds"]) >= {"look", "restore", "start", "recover"}

    def test_a_second_run_changes_nothing(self, told: Told, recovery: Recovery) -> None:
        pid = recovery.side.pid
        again = recovery.to(time=told.admitted.after)
        assert not again.changed
        assert recovery.side.pid == pid
        assert again.values["plan"] == []

    def test_a_server_that_went_down_is_started(self, told: Told, recovery: Recovery) -> None:
        recovery.side.kill()
        again = recovery.to(time=told.admitted.after)
        assert again.values["plan"] == ["start: the side cluster is down"]
        assert recovery.sql(COUNT) == ALL

    def test_forward_by_lsn_without_a_restore(self, told: Told, recovery: Recovery) -> None:
        made = recovery.to(lsn=told.renamed.lsn_before)
        assert [action.partition(":")[0] for action in made.values["plan"]] == ["advance"]
        assert "restore" not in made.values["seconds"]
        assert recovery.sql(COUNT) == AFTER_DELETE

    def test_back_to_just_before_a_transaction(self, told: Told, recovery: Recovery) -> None:
        made = recovery.to(xid=told.deleted.xid)
        assert [action.partition(":")[0] for action in made.values["plan"]] == ["restore"]
        assert made.values["backup"] == label(told, 0), "the newer backup is after the transaction"
        assert recovery.sql(COUNT) == ALL

    def test_with_the_transaction_where_that_is_said(self, told: Told, recovery: Recovery) -> None:
        made = recovery.to(xid=told.deleted.xid, inclusive=True)
        assert [action.partition(":")[0] for action in made.values["plan"]] == ["advance"]
        assert recovery.sql(COUNT) == AFTER_DELETE

    def test_to_a_restore_point(self, recovery: Recovery) -> None:
        assert recovery.to(name="before the update").changed
        assert recovery.sql(COUNT) == AFTER_DELETE

    def test_to_now_from_the_newest_backup(self, told: Told, recovery: Recovery) -> None:
        """What was written a moment ago is not in the archive: its segment is closed, and a later commit made."""
        made = recovery.to(time=told.late.after)
        assert recovery.sql("SELECT count(*) FROM patient") == "15"
        assert made.values["plan"][0].startswith("advance")

    def test_to_the_end_of_a_backup(self, told: Told, recovery: Recovery) -> None:
        assert recovery.to(immediate=True).values["backup"] == label(told, 1)
        assert recovery.sql(COUNT) == AFTER_UPDATE

    def test_nothing_is_archived_and_nobody_is_followed(self, recovery: Recovery) -> None:
        shown = "SELECT string_agg(setting, '|' ORDER BY name) FROM pg_settings WHERE name IN "
        assert recovery.sql(shown + "('archive_mode', 'listen_addresses', 'primary_conninfo')") == "off||"
        assert (recovery.directory / "data").stat().st_mode & 0o077 == 0

    def test_the_record_tells_it(self, told: Told) -> None:
        records = [json.loads(path.read_text()) for path in (told.site.folder / "records").glob("*-pitr-*.json")]
        # several ids may be of one second
        document = min(records, key=lambda record: str(record["asked"]["at"]))
        assert document["operation"] == "pitr"
        assert document["outcome"]["status"] == "done"
        assert [step["id"] for step in document["steps"]] == ["look", "stop", "restore", "start", "recover", "inspect"]

    def test_it_is_removed(self, told: Told, recovery: Recovery) -> None:
        assert recovery.absent(check_mode=True).changed
        assert recovery.side.pid is not None
        pid = recovery.side.pid
        assert recovery.absent().changed
        assert not recovery.directory.exists()
        assert not process_alive(pid)
        assert not recovery.absent().changed
        assert told.site.instance.sql(COUNT) == "15|10"


class TestRefusals:
    """Nothing is made."""

    @pytest.fixture(autouse=True)
    def nothing_made(self, told: Told, tmp_path: pathlib.Path) -> t.Iterator[None]:
        """Neither a directory nor a row."""
        self.recovery = Recovery(told.site, told.site.lab.folder / f"refused-{tmp_path.name}")
        yield
        assert not self.recovery.directory.exists()

    def refused(self, reason: str, match: str, **given: t.Any) -> HmsError:
        with pytest.raises(Refused, match=match) as refused:
            self.recovery.to(**given)
        assert refused.value.reason == reason
        assert refused.value.next_step
        return refused.value

    @staticmethod
    def recorded(error: HmsError) -> None:
        """A record on disk says that it was refused, and why."""
        outcome = json.loads(pathlib.Path(error.details["record"]).read_text())["outcome"]
        assert (outcome["status"], outcome["message"]) == ("refused", error.message)

    def test_a_time_without_a_zone(self, told: Told) -> None:
        self.refused("no_zone", "says no time zone", time=told.admitted.after.replace("+00", ""))

    def test_before_the_end_of_the_oldest_backup(self, told: Told) -> None:
        error = self.refused("before_backup", "the earliest possible is", time="2020-01-01 00:00:00+02")
        self.recorded(error)
        stop = told.site.info()[0]["timestamp"]["stop"] + 1
        assert error.details["earliest"].startswith(
            datetime.datetime.fromtimestamp(stop, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        )

    def test_an_lsn_before_the_oldest_backup(self) -> None:
        self.refused("before_backup", "the earliest possible is", lsn="0/1000000")

    def test_the_future(self) -> None:
        self.recorded(self.refused("in_the_future", "is in the future: it is now", time="2099-01-01 00:00:00Z"))

    def test_a_transaction_that_never_was(self) -> None:
        self.refused("not_found", "nowhere in the archive", xid="4000000000")

    def test_production_without_a_word(self, told: Told) -> None:
        order = dataclasses.replace(self.recovery.order, environment="production")
        self.refused("no_confirm", "This is production", time=told.admitted.after, order=order)
        order = dataclasses.replace(order, confirm="hopsital")
        self.refused("wrong_confirm", "hopsital", time=told.admitted.after, order=order)

    def test_a_port_in_use(self, told: Told) -> None:
        order = dataclasses.replace(self.recovery.order, port=told.site.instance.port)
        self.refused("port_in_use", "is in use", time=told.admitted.after, order=order)

    def test_a_path_too_long_for_a_socket(self, told: Told) -> None:
        order = dataclasses.replace(self.recovery.order, directory=f"{self.recovery.directory}/{'x' * 90}")
        self.refused("bad_directory", "longer than a socket", time=told.admitted.after, order=order)


def test_a_directory_that_is_somebody_elses_stays(told: Told, lab: Lab) -> None:
    theirs = lab.folder / "theirs"
    theirs.mkdir()
    (theirs / "precious").write_text("do not touch")
    recovery = Recovery(told.site, theirs)
    with pytest.raises(Refused, match="not empty and isn't a side cluster of ours") as refused:
        recovery.to(time=told.admitted.after)
    assert refused.value.reason == "foreign_directory"
    with pytest.raises(Refused, match="not empty and isn't a side cluster of ours"):
        recovery.absent()
    assert [path.name for path in theirs.iterdir()] == ["precious"]
