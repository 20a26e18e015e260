# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A whole cutover under write load, with a standby and PgBouncer, as psql, pg_controldata and the archive show it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import re
import signal
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._cluster import rejoin
from ansible_collections.hms.postgres.plugins.module_utils._cluster.cutover_model import CutoverPlan
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._errors import Refused
from ansible_collections.hms.postgres.plugins.module_utils._postgres import format_lsn
from ansible_collections.hms.postgres.plugins.module_utils._provision.reclone import reclone
from ansible_collections.hms.postgres.tests.real import pgbackrest_site
from ansible_collections.hms.postgres.tests.real.cutover_site import CutoverSite
from ansible_collections.hms.postgres.tests.real.engine_hosts import PASSWORD, Writer
from ansible_collections.hms.postgres.tests.real.lab import BINARIES, Lab, as_postgres, until
from ansible_collections.hms.postgres.tests.real.pitr_site import Moment

# a cluster is recovered and put in the other one's place
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def site(module_lab: Lab) -> t.Iterator[CutoverSite]:
    """A primary with an archive, a standby, a bouncer host with two processes."""
    with contextlib.closing(CutoverSite(module_lab, policy="degrade")) as made:
        yield made


GIVEN_UP: dict[str, int] = {}


class Harm(t.NamedTuple):
    """What is undone in this file, and what a client had written before it and until now."""

    moment: Moment
    early: set[int]
    late: set[int]


def rows(site: CutoverSite, source: str) -> set[int]:
    """What a writer wrote and is there."""
    return {int(row) for row in site.db1.sql(f"SELECT seq FROM ledger WHERE source = '{source}'").split()}


def given_up(site: CutoverSite, writer: Writer) -> set[int]:
    """Acknowledged writes that are gone. They must be one stretch: from the target to the moment of the cutover."""
    gone = writer.acknowledged() - rows(site, writer.source)
    assert gone
    assert writer.acknowledged() & set(range(min(gone), max(gone) + 1)) == gone
    return gone


@pytest.fixture(scope="module")
def harm(site: CutoverSite) -> Harm:
    """Writes, something that should not have happened, writes; and the cluster from before it beside the live one."""
    writer = site.writer("one")
    early = writer.acknowledged()
    moment = site.harm()
    writer.goes_on()
    writer.stop()
    return Harm(moment, early, writer.acknowledged())


def refused(site: CutoverSite, rule: str, **wishes: t.Any) -> str:
    """It must be refused by this rule, and leave everything as it was; the message."""
    before = site.fingerprint()
    if rule != "wrong_confirm":  # who only looks need not confirm
        assert not site.cutover(check_mode=True, **wishes).changed
    with pytest.raises(Refused) as caught:
        site.cutover(**wishes)
    after = site.fingerprint()
    for found in (before, after):
        for host in found.values():
            host.pop("files", None)
            host.pop("records", None)
    assert after == before
    assert caught.value.reason == rule
    return caught.value.message


def test_without_a_side_cluster_it_is_refused(site: CutoverSite) -> None:
    message = refused(site, "no_side")
    assert message.startswith("The cutover is refused:\n[no_side] There is no side cluster at ")
    site.side.mkdir()
    try:
        assert "it has no marker file" in refused(site, "foreign_directory")
    finally:
        site.side.rmdir()


def test_check_mode_says_what_would_be_given_up_and_touches_nothing(site: CutoverSite, harm: Harm) -> None:
    recovery = site.recover(time=harm.moment.before)
    before, paused = site.fingerprint(), recovery.sql("SELECT pg_last_wal_replay_lsn()")
    report = site.cutover(check_mode=True)
    assert report.changed
    assert site.fingerprint() == before
    assert recovery.sql("SELECT pg_is_wal_replay_paused(), pg_last_wal_replay_lsn()") == f"t|{paused}"
    assert isinstance(report.plan, CutoverPlan)
    assert f"({paused}, last commit " in report.plan.summary
    assert "bytes of WAL were written after the target" in report.plan.warnings[0]
    assert report.plan.rejoin == ("db2",)
    assert [action.id for action in report.plan.actions] == [
        "promote_side",
        "hold_pools",
        "stop_primary",
        "exchange",
        "start_primary",
        "resume_pools",
        "fence",
        "verify",
        "archive",
    ]


def test_what_can_not_be_done_is_refused_before_anything_is_touched(site: CutoverSite, harm: Harm) -> None:
    assert harm.late
    assert "confirm is 'clinic'" in refused(site, "wrong_confirm", confirm="clinic")
    message = refused(site, "standby_unreachable", lines=site.out_of_reach("db2"))
    assert message.endswith("Override: force=standby_unreachable.")
    folder = pgbackrest_site.own(pgbackrest_site._made(site.folder / "space"))
    site.db1.sql(f"CREATE TABLESPACE space LOCATION '{folder}'")
    try:
        assert "There are tablespaces (" in refused(site, "tablespaces")
    finally:
        site.db1.sql("DROP TABLESPACE space")
    marker = site.side / "hms-pitr.json"
    text = marker.read_text()
    marker.write_text(text.replace('"cluster": "hospital"', '"cluster": "clinic"'))
    try:
        assert "holds the cluster clinic" in refused(site, "other_system")
    finally:
        marker.write_text(text)


def test_a_side_cluster_that_is_down_is_refused_and_recovered_again(site: CutoverSite, harm: Harm) -> None:
    recovery = site.recoveries[0]
    as_postgres(str(BINARIES / "pg_ctl"), "-D", str(recovery.side.data), "-s", "-w", "-m", "fast", "stop")
    assert "is down" in refused(site, "side_not_paused")
    recovery.to(time=harm.moment.before)


def test_a_recovered_cluster_becomes_the_live_one(site: CutoverSite, harm: Harm) -> None:
    db1 = site.db1
    db1.sql(f"ALTER ROLE hms_monitor PASSWORD '{PASSWORD}'")  # the same, by another verifier than at the target
    side_log = talkative(site)
    with site.writing("two") as writer:
        writer.goes_on()
        late = writer.acknowledged()
        left = db1.sql("SELECT pg_current_wal_lsn()")
        report = site.cutover()
        writer.goes_on()
        gone = given_up(site, writer)
    GIVEN_UP["two"] = max(gone)
    assert report.changed
    assert report.record is not None
    assert report.record["outcome"]["status"] == "done"
    assert report.record["clients"]["lost"] == 0
    assert writer.count("failed") + writer.count("unknown") == 0
    assert late <= gone
    assert harm.early <= rows(site, "one")
    assert max(harm.late) not in rows(site, "one")
    assert not site.has_harm()
    assert site.timeline() == 2
    # no commit waits for a standby that can't follow
    assert db1.setting("synchronous_standby_names") == ""
    assert report.record["exposure"]["host"] == "db1"
    # the old data directory, whole
    [kept] = site.kept()
    control = as_postgres(str(BINARIES / "pg_controldata"), str(kept))
    assert re.search(r"Database cluster state: +shut down\n", control)
    assert re.search(r"Latest checkpoint's TimeLineID: +1\n", control)
    end = re.search(r"Latest checkpoint location: +(\S+)", control)
    assert end is not None
    assert db1.sql(f"SELECT '{end[1]}'::pg_lsn > '{left}'::pg_lsn") == "True"
    assert not site.side.exists()
    assert site.paused() == []
    # a verifier is as good as a password to whoever reads logs
    told = side_log.read_text()
    assert "pg_promote" in told
    assert "SCRAM-SHA-256" not in told
    assert db1.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'hms_monitor'") not in told


def talkative(site: CutoverSite) -> pathlib.Path:
    """The side cluster's log, into which all its statements are written from now on; it outlives the cluster."""
    recovery = site.recoveries[-1]
    with (recovery.side.data / "postgresql.conf").open("a") as settings:
        settings.write("log_statement = 'all'\n")
    recovery.sql("SELECT pg_reload_conf()")
    until(lambda: recovery.sql("SHOW log_statement") == "all", "it tells all")
    kept = site.folder / "side.log"
    os.link(site.side / "log", kept)
    return kept


def test_what_is_in_force_afterwards_is_what_the_live_cluster_had(site: CutoverSite) -> None:
    db1, db2 = site.databases["db1"], site.databases["db2"]
    # settings and slots are those of the live cluster, nothing of the recovery is left
    assert db1.setting("port") == str(db1.port)
    assert db1.setting("archive_command") == site.archive.archive_command
    assert (db1.setting("restore_command"), db1.setting("recovery_target_time")) == ("", "")
    assert not [name for name in os.listdir(db1.data) if name.endswith((".signal", ".conf")) and "auto" not in name]
    assert set(db1.slots()) == {"db2"}
    # the new timeline is archived from its beginning
    history = (db1.data / "pg_wal" / "00000002.history").read_text()
    assert history.split()[0] == "1"
    site.archived("00000002.history")
    site.archived(f"00000002{history.split()[1].split('/')[0]:0>8}")
    # the standby holds the history that was left: it is stopped and marked
    assert db2.role() == "down"
    assert json.loads((db2.state / "fence.json").read_text())["new_primary"] == "db1"


def test_run_again_it_has_nothing_to_do(site: CutoverSite) -> None:
    before = site.fingerprint()
    for check_mode in (True, False):
        report = site.cutover(check_mode=check_mode)
        assert not report.changed
        assert report.plan.summary.startswith("It is done: Timeline 2 left timeline 1 at 0/")
        assert isinstance(report.plan, CutoverPlan)
        assert report.plan.rejoin == ("db2",)
    assert site.fingerprint() == before


def test_the_standby_comes_back_on_the_new_timeline(site: CutoverSite) -> None:
    db1, db2 = site.databases["db1"], site.databases["db2"]
    runner, clock = SystemRunner(), SystemClock()
    recloner = functools.partial(reclone, runner=runner, clock=clock)
    request = rejoin.Request(str(db2.config), by="test", allow_reclone=True)
    rejoin.Rejoin(request, recloner=recloner, runner=runner, clock=clock).ensure(check_mode=False)
    site.standbys_stream()
    db1.sql("CREATE TABLE afterwards AS SELECT 1")
    until(lambda: db2.has(db1.sql("SELECT pg_current_wal_lsn()")), "db2 has it")
    assert db2.sql("SELECT to_regclass('afterwards')") == "afterwards"
    assert db2.sql("SELECT to_regclass('harm')", dbname="postgres") == ""
    report = site.cutover()
    assert not report.changed
    assert isinstance(report.plan, CutoverPlan)
    assert report.plan.rejoin == ()


def test_what_was_given_up_can_be_recovered_beside_along_its_own_timeline(site: CutoverSite) -> None:
    recovery = site.recover(lsn=format_lsn(site.journal()["left_lsn"]), timeline=1)
    assert recovery.sql("SELECT to_regclass('harm')") == "harm"
    rows = site.recoveries[-1].side.sql("SELECT count(*) FROM ledger WHERE source = 'two'", dbname="hospital")
    assert int(rows) >= GIVEN_UP["two"]


def test_a_full_backup_of_the_new_timeline_can_be_made(site: CutoverSite) -> None:
    site.archive.backup("full")
    newest = site.archive.info()[-1]
    assert newest["type"] == "full"
    assert newest["archive"]["start"].startswith("00000002")


def test_the_way_back_is_the_same_road(site: CutoverSite) -> None:
    """The side cluster at the end of the old timeline takes the live one's place; its standby is lost on the way."""
    db2 = site.databases["db2"]
    child = site.cutover_child(moment="before:fence")
    assert child.end() == -signal.SIGKILL
    site.agents_end()
    assert site.has_harm()
    assert GIVEN_UP["two"] in rows(site, "two")
    assert site.timeline() == 3
    assert site.db1.sql("SELECT to_regclass('afterwards')") == ""
    # a run that was killed left the standby on the history that is left now
    assert db2.role() == "standby"
    assert site.cutover().changed
    assert db2.role() == "down"
    assert len(site.kept()) == 2
    assert not site.cutover().changed
