# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Physical backups against the real pgBackRest: what it makes, and what it keeps quiet about."""

from __future__ import annotations

import fcntl
import os
import pathlib
import re
import signal
import subprocess

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact import pgbackrest_verify
from ansible_collections.hms.postgres.plugins.module_utils._backup import pgbackrest_engine, pgbackrest_retention
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._cluster import facts
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._postgres import ConnectionParams, connect
from ansible_collections.hms.postgres.plugins.module_utils._record import is_id
from ansible_collections.hms.postgres.plugins.module_utils._tools.pgbackrest import PgBackRest
from ansible_collections.hms.postgres.tests.real.lab import OS_USER, Lab, process_alive, run, until
from ansible_collections.hms.postgres.tests.real.pgbackrest_site import (
    PASSPHRASE,
    STANZA,
    Site,
    begin,
    ensure,
    flip,
    make_site,
)

pytestmark = pytest.mark.timeout(300)


def verify(site: Site, label: str = "") -> pgbackrest_verify.Report:
    """The verification that is tested."""
    return pgbackrest_verify.verify(site.driver, clock=SystemClock(), timeout=100, label=label)


def left_of(site: Site) -> list[int]:
    """The living processes of a backup."""
    pattern = f"pgbackrest .*{site.config}.* backup|pgbackrest backup .*{site.config}"
    return [pid for pid in map(int, run("pgrep", "-f", pattern, check=False).split()) if process_alive(pid)]


@pytest.fixture(scope="module")
def site(module_lab: Lab) -> Site:
    """A site with a full, a differential and an incremental backup. Tests that damage something take a twin."""
    made = make_site(module_lab)
    with pytest.raises(Refused) as refused:
        made.driver.info()
    assert refused.value.reason == "no_stanza"
    begin(made)
    again = ensure(made)
    assert not again.changed
    assert again.values["checked"]
    assert made.listed() == []
    for type_, table in (("full", "first"), ("differential", "second"), ("incremental", "third")):
        made.write(table)
        made.backup(type_)
    made.write("fourth")
    return made


class TestWhatIsMade:
    def test_the_catalog_has_one_shape(self, site: Site) -> None:
        manifests = site.listed()
        assert [manifest.type for manifest in manifests] == ["full", "differential", "incremental"]
        assert [manifest.members[0].name for manifest in manifests] == [entry["label"] for entry in site.info()]
        assert [manifest.parent for manifest in manifests] == ["", *(manifest.id for manifest in manifests[:2])]
        assert all(is_id(manifest.id) for manifest in manifests)
        assert sorted(manifest.id for manifest in manifests) == [manifest.id for manifest in manifests]
        full = manifests[0]
        assert (full.engine, full.cluster, full.environment, full.host, full.by) == (
            "pgbackrest",
            "hospital",
            "development",
            "db1",
            "a test",
        )
        assert full.encryption["method"] == "aes-256-cbc"
        assert full.compression == {"method": "zstd", "level": 3}
        assert full.bytes > manifests[2].bytes > 0
        assert full.server["system_identifier"] == site.instance.sql(
            "SELECT system_identifier FROM pg_control_system()"
        )
        assert all(manifest.verification and manifest.verification.ok for manifest in manifests)

    def test_all_of_it_can_be_restored(self, site: Site) -> None:
        with site.restored() as server:
            counts = [server.sql(f"SELECT count(*) FROM {table}") for table in ("first", "second", "third", "fourth")]
        assert counts == ["2000"] * 4

    def test_the_first_one_can_be_restored_alone(self, site: Site) -> None:
        with site.restored(
            f"--set={site.listed()[0].members[0].name}", "--type=immediate", "--target-action=promote"
        ) as server:
            tables = server.sql(
                "SELECT string_agg(relname, ',') FROM pg_class WHERE relnamespace = 2200 AND relkind = 'r'"
            )
        assert tables == "first"

    def test_a_sound_repository_is_called_sound(self, site: Site) -> None:
        report = verify(site)
        assert report.problems == ()
        assert report.ok
        assert len(report.verifications) == 3
        (window,) = report.windows
        assert window.label == site.info()[0]["label"]
        assert window.last == site.segments()[-1].name[:24]

    def test_a_backup_by_hand_is_listed_too(self, site: Site) -> None:
        twin = site.twin()
        with twin.archiving(site):
            twin.program("backup", "--type=incr")
        made, again = twin.listed()[-1], twin.listed()[-1]
        assert is_id(made.id)
        assert made == again
        assert made.verification is None
        assert made.parent == site.listed()[-1].id

    def test_nothing_of_the_passphrase_is_told(self, site: Site) -> None:
        with pytest.raises(HmsError) as refused:
            site.driver.backup("full", annotations={}, options=["--repo1-path=/nowhere/at/all"], timeout=200)
        assert PASSPHRASE not in str(refused.value.as_dict())


class TestRefusals:
    def test_a_standby_is_refused(self, site: Site, module_lab: Lab) -> None:
        standby = module_lab.standby(site.instance)
        with pytest.raises(Refused, match="standby") as refused:
            Site(module_lab, standby, site.repo).backup()
        assert refused.value.reason == "not_primary"

    def test_an_instance_that_archives_nothing_is_refused(self, site: Site, lab: Lab) -> None:
        other = Site(lab, lab.primary(), site.repo)
        with pytest.raises(Refused) as refused:
            other.backup()
        assert refused.value.reason == "archiving_off"

    def test_another_cluster_is_refused(self, site: Site, lab: Lab) -> None:
        other = Site(lab, lab.primary(archive_mode="on", archive_command="/bin/true"), site.repo)
        with pytest.raises(Refused) as refused:
            other.backup()
        assert refused.value.reason == "archiving_elsewhere"
        other.instance.set(archive_command=other.archive_command)
        with pytest.raises(Refused, match="another one runs here") as refused:
            other.backup()
        assert refused.value.reason == "foreign_stanza"

    def test_deep_is_refused(self, site: Site) -> None:
        with pytest.raises(HmsError) as refused:
            site.backup(verify="deep")
        assert refused.value.reason == "bad_config"

    def test_a_second_one_at_the_same_time_is_refused(self, site: Site) -> None:
        before = site.info()
        lock = site.folder / "lock" / f"{STANZA}-backup.lock"
        with lock.open("a") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(Refused) as refused:
                site.backup()
        assert refused.value.reason == "busy"
        assert site.info() == before

    def test_a_wrong_passphrase_is_refused_although_info_ends_with_0(self, site: Site) -> None:
        twin = site.twin(passphrase="not the one that it was made with")
        assert twin.program("info", "--output=json").returncode == 0
        with pytest.raises(Refused) as refused:
            twin.listed()
        assert refused.value.reason == "repository_unreadable"
        assert "not the one" not in str(refused.value.as_dict())


def test_a_backup_that_runs_is_seen_before_a_switchover_would_cut_it(site: Site) -> None:
    twin = site.twin()
    params = ConnectionParams(host=str(site.instance.sockets), port=site.instance.port)
    session = connect(params, os_user=OS_USER)
    argv = ["pgbackrest", f"--config={twin.config}", f"--stanza={STANZA}", "--type=full", "--no-start-fast", "backup"]
    with twin.archiving(site), subprocess.Popen(["runuser", "-u", OS_USER, "--", *argv], cwd="/") as program:
        until(lambda: session.rows(facts.COUNTS)[0][0] == 1, "its session is seen")
        session.execute("CHECKPOINT")
        assert program.wait(timeout=120) == 0
    until(lambda: session.rows(facts.COUNTS)[0][0] == 0, "its session is gone")
    session.close()


def test_a_host_without_pgbackrest_is_told_so(site: Site) -> None:
    driver = PgBackRest(site.runner, config=f"{site.config}.gone", stanza=STANZA)
    with pytest.raises(Refused, match=r"is not set up on this host: there is no .*gone") as refused:
        driver.info()
    assert (refused.value.reason, refused.value.state) == ("no_pgbackrest", "Nothing was touched.")


class TestDamage:
    def test_a_flipped_bit_is_found_although_verify_ends_with_0(self, site: Site) -> None:
        twin = site.twin()
        full, _differential, incremental = (entry["label"] for entry in twin.info())
        flip(twin.repo / "backup" / STANZA / full / "bundle" / "1", 5000)
        program = twin.program("verify", "--output=text")
        assert program.returncode == 0
        report = verify(twin)
        assert not report.ok
        assert not report.verifications[full].ok
        assert any(full in problem for problem in report.verifications[full].problems)
        assert not report.verifications[incremental].ok, "it refers to files of the full one"
        pgbackrest_verify.store(twin.driver, report)
        assert [manifest.verification.ok for manifest in twin.listed()] == [False, False, False]

    def test_nothing_builds_on_what_failed(self, site: Site) -> None:
        twin = site.twin()
        full = twin.info()[0]["label"]
        (twin.repo / "backup" / STANZA / full / "bundle" / "1").write_bytes(b"")
        pgbackrest_verify.store(twin.driver, verify(twin))
        with twin.archiving(site):
            made = twin.backup("incremental", verify="none")
        assert made.plan.type == made.manifest.type == "full"
        assert "failed its verification" in made.plan.reason
        assert any("failed its verification" in warning for warning in made.warnings)

    def test_a_truncated_file_fails_the_backup_that_needs_it(self, site: Site) -> None:
        twin = site.twin()
        bundle = twin.repo / "backup" / STANZA / twin.info()[0]["label"] / "bundle" / "1"
        # most of what is in it hasn't changed since; of its end alone that can't be said
        bundle.write_bytes(bundle.read_bytes()[:5000])
        with twin.archiving(site), pytest.raises(HmsError) as failed:
            twin.backup("incremental")
        assert failed.value.reason == "verification_failed"
        newest = twin.listed()[-1]
        assert newest.type == "incremental"
        assert newest.verification
        assert not newest.verification.ok

    def test_a_missing_segment_is_found_although_verify_says_ok(self, site: Site) -> None:
        twin = site.twin()
        after = twin.info()[-1]["archive"]["stop"]
        victim = next(path for path in twin.segments() if path.name[:24] > after and path != twin.segments()[-1])
        victim.unlink()
        assert "status: ok" in twin.program("verify", "--output=text", "--verbose").stdout
        report = verify(twin)
        assert not report.ok
        assert [problem for problem in report.problems if victim.name[:24] in problem and "missing" in problem]
        assert all(found.ok for found in report.verifications.values()), "each backup is whole itself"
        assert report.windows[0].end is None
        assert report.windows[0].last < victim.name[:24]

    def test_a_backup_that_lacks_wal_of_its_own_is_not_sound(self, site: Site) -> None:
        twin = site.twin()
        label, needed = twin.info()[1]["label"], twin.info()[1]["archive"]["stop"]
        for path in twin.archive.glob(f"*/{needed}-*"):
            path.unlink()
        report = verify(twin)
        assert not report.verifications[label].ok
        assert needed in "".join(report.verifications[label].problems)
        assert report.verifications[twin.info()[2]["label"]].ok

    def test_a_damaged_segment_is_as_good_as_missing(self, site: Site) -> None:
        twin = site.twin()
        victim = twin.segments()[-2]
        flip(victim, 100)
        report = verify(twin)
        assert any(victim.name[:24] in problem for problem in report.problems)

    def test_a_segment_that_is_there_twice_is_told(self, site: Site) -> None:
        twin = site.twin()
        victim = twin.segments()[-2]
        copy = victim.with_name(victim.name[:25] + "0" * 40 + victim.suffix)
        copy.write_bytes(victim.read_bytes())
        run("chown", f"{OS_USER}:", str(copy))
        assert any("twice" in problem for problem in verify(twin).problems)


class TestFaultsOnTheWay:
    def test_a_killed_backup_is_none_and_the_next_one_succeeds(self, lab: Lab) -> None:
        site = make_site(lab)
        begin(site)
        site.instance.sql("CREATE TABLE big AS SELECT g, repeat(md5(g::text), 20) FROM generate_series(1, 120000) g")
        argv = ["runuser", "-u", OS_USER, "--", "pgbackrest", f"--config={site.config}", f"--stanza={STANZA}", "backup"]
        process = subprocess.Popen([*argv, "--compress-level=19"], cwd="/", start_new_session=True)
        folder = site.repo / "backup" / STANZA
        until(lambda: bool(list(folder.glob("*F/bundle")) + list(folder.glob("*F/pg_data/base"))), "it has begun")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgBackRest%'"
        until(lambda: left_of(site) == [] and site.instance.sql(sessions) == "0", "nothing is left of it")
        assert site.listed() == []
        made = site.backup()
        assert made.manifest.type == "full"
        assert [entry["label"] for entry in site.info()] == [made.manifest.members[0].name]
        with site.restored() as server:
            assert server.sql("SELECT count(*) FROM big") == "120000"

    def test_pages_with_wrong_checksums_fail_the_backup(self, lab: Lab) -> None:
        site = make_site(lab)
        begin(site)
        site.write("victim")
        path = site.instance.data / site.instance.sql("SELECT pg_relation_filepath('victim')")
        site.instance.stop()
        flip(path, 6000)
        site.instance.start()
        with pytest.raises(HmsError, match="wrong checksums") as failed:
            site.backup()
        assert failed.value.reason == "verification_failed"
        assert [manifest.verification.ok for manifest in site.listed()] == [False]

    def test_archiving_that_fails_is_told_and_makes_no_backup(self, lab: Lab) -> None:
        site = make_site(lab)
        begin(site)
        site.instance.set(archive_command=site.archive_command.replace("pgbackrest ", "false ", 1))
        with pytest.raises(HmsError) as failed:
            site.driver.backup("full", annotations={}, options=["--archive-timeout=3"], timeout=200)
        assert failed.value.reason == "tool_failed"
        assert "archive" in failed.value.message
        assert site.listed() == []

    def test_a_deadline_ends_the_program_too(self, lab: Lab) -> None:
        site = make_site(lab)
        begin(site)
        site.instance.set(archive_command=site.archive_command.replace("pgbackrest ", "false ", 1))
        with pytest.raises(HmsError) as failed:
            site.backup(timeout=2.0)
        assert failed.value.reason == "deadline_passed"
        # long before it would have ended by itself
        until(lambda: left_of(site) == [], "the program has ended too", seconds=30)


@pytest.fixture(scope="module")
def followed(module_lab: Lab) -> Site:
    """The new primary's side of a repository that the old one had begun."""
    old = make_site(module_lab)
    begin(old)
    old.write("before")
    old.backup()
    standby = module_lab.standby(old.instance, start=False)
    new = Site(module_lab, standby, old.repo)
    settings = {"archive_mode": "on", "archive_command": new.archive_command}
    module_lab.configure(standby, **settings)
    # what ALTER SYSTEM set at the old one was copied
    (standby.data / "postgresql.auto.conf").write_text(
        re.sub("archive_command.*\n", "", (standby.data / "postgresql.auto.conf").read_text())
    )
    standby.start()
    until(lambda: standby.sql("SELECT count(*) FROM pg_stat_wal_receiver") == "1", "it streams")
    old.write("between")
    old.switch()
    old.instance.sql("CREATE TABLE last AS SELECT 1 AS n")
    until(
        lambda: standby.sql("SELECT pg_last_wal_replay_lsn()") == old.instance.sql("SELECT pg_current_wal_lsn()"),
        "the standby has all",
    )
    old.instance.kill()
    standby.promote()
    until(lambda: standby.sql("SELECT pg_is_in_recovery()") == "f", "it leads")
    new.write("after")
    return new


class TestFailover:
    def test_the_backup_follows_the_primary(self, followed: Site) -> None:
        made = followed.backup("incremental")
        assert made.manifest.server["timeline"] == 2
        assert made.manifest.verification
        assert made.manifest.verification.ok
        report = verify(followed)
        assert report.problems == ()
        (window,) = report.windows
        assert window.label == followed.info()[0]["label"]
        assert window.last.startswith("00000002")

    def test_recovery_crosses_the_switch(self, followed: Site) -> None:
        with followed.restored(f"--set={followed.info()[0]['label']}") as server:
            assert server.sql("SELECT count(*) FROM after") == "2000"
            assert server.sql("SELECT n FROM last") == "1"

    @pytest.mark.parametrize("timeline", [1, 2])
    def test_a_hole_on_either_side_is_found(self, followed: Site, timeline: int) -> None:
        twin = followed.twin()
        first = twin.info()[0]["archive"]["stop"]
        candidates = [path for path in twin.segments(timeline) if path.name[8:24] > first[8:]]
        victim = candidates[-1] if timeline == 1 else candidates[0]
        victim.unlink()
        assert any(victim.name[:24] in problem for problem in verify(twin).problems)

    def test_a_missing_history_is_found(self, followed: Site) -> None:
        twin = followed.twin()
        (twin.archive / "00000002.history").unlink()
        assert any("00000002.history" in problem for problem in verify(twin).problems)


class TestRetention:
    def test_what_is_removed_is_gone_with_its_wal(self, site: Site) -> None:
        twin = site.twin()
        with twin.archiving(site):
            twin.program("backup", "--type=full")
        old = [manifest.id for manifest in twin.listed()[:3]]
        kept = twin.info()[3]
        assert pgbackrest_retention.remove(twin.driver, old, timeout=200) == old[::-1]
        assert [entry["label"] for entry in twin.info()] == [kept["label"]]
        assert twin.segments()[0].name[:24] == kept["archive"]["start"]
        assert verify(twin).ok
        assert pgbackrest_retention.remove(twin.driver, old, timeout=200) == []

    def test_what_another_needs_is_refused(self, site: Site) -> None:
        twin = site.twin()
        before = twin.info()
        with pytest.raises(Refused, match="builds on it"):
            pgbackrest_retention.remove(twin.driver, [twin.listed()[0].id], timeout=200)
        assert twin.info() == before

    def test_one_at_the_end_of_the_chain_goes_alone(self, site: Site) -> None:
        twin = site.twin()
        segments = twin.segments()
        last = twin.listed()[-1].id
        assert pgbackrest_retention.remove(twin.driver, [last], timeout=200) == [last]
        assert len(twin.info()) == 2
        oldest = twin.info()[0]["archive"]["start"]
        assert twin.segments() == [path for path in segments if path.name[:24] >= oldest]

    def test_the_program_itself_removes_nothing(self, site: Site) -> None:
        twin = site.twin()
        before = (twin.info(), twin.segments())
        for _number in range(3):
            twin.program("expire")
        assert (twin.info(), twin.segments()) == before


def test_pgbackrest_is_one_that_we_know(site: Site) -> None:
    assert site.driver.version() >= pgbackrest_engine.OLDEST
    assert pathlib.Path(site.config).stat().st_mode & 0o077 == 0
