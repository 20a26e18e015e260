# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recovery to a point in time where something is missing, full, damaged or killed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._pitr import decide
from ansible_collections.hms.postgres.tests.real.lab import Lab, run, until
from ansible_collections.hms.postgres.tests.real.pgbackrest_site import Site, begin, make_site, own
from ansible_collections.hms.postgres.tests.real.pitr_site import History, Moment, Recovery

pytestmark = pytest.mark.timeout(300)

COUNT = "SELECT count(*) FROM patient"
BIG = "CREATE TABLE big AS SELECT g, repeat(md5(g::text), 30) AS text FROM generate_series(1, 60000) g"


@dataclasses.dataclass
class Told:
    """Three transactions, each in a segment of its own."""

    site: Site
    moments: list[Moment]
    segments: list[str]


@pytest.fixture(scope="module")
def told(module_lab: Lab) -> Told:
    """A backup with a large table, a tablespace and three transactions after it."""
    site = make_site(module_lab)
    begin(site)
    folder = site.instance.folder / "disk2"
    folder.mkdir()
    run("chown", "postgres:", str(folder))
    site.instance.sql(f"CREATE TABLESPACE disk2 LOCATION '{folder}'")
    site.instance.sql("CREATE TABLE patient (id int PRIMARY KEY) TABLESPACE disk2")
    site.instance.sql(BIG)
    site.backup(verify="none")
    history = History(site)
    moments, segments = [], []
    for number in (1, 2, 3):
        moments.append(history.do(f"INSERT INTO patient VALUES ({number})"))
        segments.append(site.switch())
    history.do("CREATE TABLE later ()")
    site.switch()
    until(lambda: not list(site.archive.glob("*/*.tmp")), "nothing is on its way any more")
    return Told(site, moments, segments)


@pytest.fixture
def side(told: Told, lab: Lab) -> t.Iterator[Recovery]:
    """A side cluster of one test."""
    made = Recovery(told.site, lab.folder / "side")
    yield made
    made.close()


@contextlib.contextmanager
def without(told: Told, lab: Lab, number: int, *, cut: bool = False) -> t.Iterator[Recovery]:
    """Recovery from a copy of the repository that lacks a segment, or holds a cut one."""
    twin = told.site.twin()
    (victim,) = (path for path in twin.segments() if path.name.startswith(told.segments[number]))
    if cut:
        victim.write_bytes(victim.read_bytes()[:200])
    else:
        victim.unlink()
    with contextlib.closing(Recovery(twin, lab.folder / "side", flush_wal=False)) as made:
        yield made


def test_a_target_behind_a_missing_segment_is_refused(told: Told, lab: Lab) -> None:
    with without(told, lab, 1) as recovery:
        targets: tuple[dict[str, t.Any], ...] = ({"time": told.moments[2].after}, {"lsn": told.moments[2].lsn_after})
        for given in targets:
            with pytest.raises(Refused, match=told.segments[1]) as refused:
                recovery.to(**given)
            assert refused.value.reason == "wal_missing"
            record = json.loads(pathlib.Path(refused.value.details["record"]).read_text())
            assert record["outcome"]["status"] == "refused"
        with pytest.raises(HmsError, match=told.segments[1]) as failed:
            recovery.to(xid=told.moments[2].xid)
        assert failed.value.reason == "wal_missing"
        assert not recovery.directory.exists()


def test_a_target_before_a_missing_segment_is_reached(told: Told, lab: Lab) -> None:
    with without(told, lab, 2) as recovery:
        made = recovery.to(xid=told.moments[1].xid, inclusive=True)
        assert any(told.segments[2] in warning for warning in made.warnings)
        assert recovery.sql(COUNT) == "2"


def test_a_segment_missing_at_the_target_is_named(told: Told, lab: Lab) -> None:
    """What was committed next is in the missing segment, so recovery can't know that it is at its target."""
    with without(told, lab, 1) as recovery:
        with pytest.raises(HmsError, match=told.segments[1]) as failed:
            recovery.to(time=told.moments[0].after)
        assert failed.value.reason == "wal_missing"
        assert recovery.side.pid is None
        assert told.site.instance.sql(COUNT) == "3"
        made = recovery.to(lsn=told.moments[0].lsn_after, inclusive=False)
        assert made.changed
        assert recovery.sql(COUNT) == "1"


def test_a_damaged_segment_is_told_with_its_cause(told: Told, lab: Lab) -> None:
    with without(told, lab, 1, cut=True) as recovery:
        with pytest.raises(HmsError, match="ended before the target") as failed:
            recovery.to(time=told.moments[1].after)
        assert failed.value.reason == "target_not_reached"
        assert "pgBackRest says" in failed.value.message
        assert failed.value.details["last_segment"] == told.segments[0]


def test_a_tablespace_goes_beside_the_side_cluster(told: Told, side: Recovery) -> None:
    side.to(time=told.moments[0].after)
    place = side.sql("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'disk2'")
    assert place == f"{side.directory}/tablespaces/disk2"
    assert side.sql(COUNT) == "1"
    assert side.absent().changed
    assert told.site.instance.sql(COUNT) == "3"


@contextlib.contextmanager
def small_disk(folder: pathlib.Path, megabytes: int) -> t.Iterator[pathlib.Path]:
    """A filesystem of that size."""
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        run("umount", "-l", str(folder))


def test_a_disk_that_is_too_small_is_refused(told: Told, lab: Lab) -> None:
    with small_disk(lab.folder / "disk", 40) as disk:
        recovery = Recovery(told.site, disk / "side")
        with pytest.raises(Refused, match="needs") as refused:
            recovery.to(time=told.moments[0].after)
        assert refused.value.reason == "no_room"
        assert list(disk.iterdir()) == []


def fill(path: pathlib.Path, size: int) -> None:
    """Take that much of a disk."""
    with path.open("wb") as taken:
        os.posix_fallocate(taken.fileno(), 0, size)


def test_a_disk_that_fills_up_is_told_and_can_be_cleared(told: Told, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    size = told.site.info()[0]["info"]["size"] // 2**20
    with small_disk(lab.folder / "disk", size + 300) as disk:
        recovery = Recovery(told.site, disk / "side")
        hog = disk / "hog"
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        # somebody else fills it after it was looked at
        monkeypatch.setattr(decide, "check_room", lambda *_facts: fill(hog, free - size // 2 * 2**20))
        with pytest.raises(HmsError) as failed:
            recovery.to(time=told.moments[0].after)
        assert failed.value.reason == "disk_full", failed.value.message
        monkeypatch.undo()
        hog.unlink()
        assert recovery.to(time=told.moments[0].after).changed
        assert recovery.sql(COUNT) == "1"
        recovery.absent()


class Child:
    """A run of its own, to be killed; or it does that itself, once it told the side cluster's server to start."""

    def __init__(self, recovery: Recovery, time: str, *, die: bool = False) -> None:
        order = json.dumps({"order": dataclasses.asdict(recovery.order), "time": time, "die": die})
        here = pathlib.Path(__file__).resolve()
        environment = {**os.environ, "PYTHONPATH": str(here.parents[2] / ".collections")}
        argv = [sys.executable, str(here.with_name("pitr_child.py")), order]
        self.process = subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, cwd="/")

    def kill(self) -> None:
        """As the kernel does when there is no memory."""
        self.process.send_signal(signal.SIGKILL)
        self.end()

    def end(self) -> int:
        """Wait for its end; its exit code, negative where a signal ended it."""
        self.process.communicate(timeout=200)
        return self.process.returncode


def working_at(place: pathlib.Path) -> bool:
    """Whether a pgBackRest restores there."""
    found = run("pgrep", "-af", f"^/usr/bin/pgbackrest .*--pg1-path={place}", check=False)
    return any(re.search(r"\srestore(:local)?(\s|$)", line) for line in found.splitlines())


class Stuck:
    """A repository whose largest file is a FIFO until it is let go: no restore from it comes to its end."""

    def __init__(self, told: Told, lab: Lab) -> None:
        self.site = told.site.twin()
        files = (self.site.repo / "backup").rglob("pg_data/base/*/*")
        self._file = max((path for path in files if path.is_file()), key=lambda path: path.stat().st_size)
        self._kept = self._file.rename(lab.folder / "largest")
        os.mkfifo(self._file)
        own(self._file)

    def let_go(self) -> None:
        """The file is back; whoever waits at the FIFO waits for ever."""
        self._kept.replace(self._file)


@pytest.fixture
def stuck(told: Told, lab: Lab) -> Stuck:
    """A copy of the repository, for one test."""
    return Stuck(told, lab)


@pytest.fixture
def stuck_side(stuck: Stuck, lab: Lab) -> t.Iterator[Recovery]:
    """A side cluster from it."""
    with contextlib.closing(Recovery(stuck.site, lab.folder / "side")) as made:
        yield made


def test_killed_during_the_restore_it_goes_on(told: Told, stuck: Stuck, stuck_side: Recovery) -> None:
    side = stuck_side
    child = Child(side, told.moments[0].after)
    until((side.directory / "data" / "backup.manifest").exists, "the restore has begun", seconds=60)
    child.kill()
    stuck.let_go()
    assert json.loads((side.directory / "hms-pitr.json").read_text())["stage"] == "restoring"
    assert not (side.directory / "data" / "global" / "pg_control").exists(), "nobody can start it by mistake"
    made = side.to(time=told.moments[0].after)
    assert not working_at(side.directory / "data"), "its workers would write on"
    assert made.values["plan"] == ["restore: an earlier restore did not come to its end"]
    assert side.sql(COUNT) == "1"


@pytest.mark.parametrize("server_too", [False, True])
def test_killed_during_the_recovery_it_goes_on(told: Told, side: Recovery, server_too: bool) -> None:
    assert Child(side, told.moments[1].after, die=True).end() == -signal.SIGKILL
    until(lambda: (side.directory / "data" / "postmaster.pid").exists() and side.side.pid is not None, "it recovers")
    if server_too:
        side.side.kill()
    made = side.to(time=told.moments[1].after)
    assert made.values["plan"][0].partition(":")[0] == ("start" if server_too else "wait")
    assert side.sql(COUNT) == "2"
    assert not side.to(time=told.moments[1].after).changed


def test_a_second_one_at_the_same_time_is_refused(told: Told, stuck_side: Recovery) -> None:
    side = stuck_side
    child = Child(side, told.moments[0].after)
    try:
        until((side.directory / "data").exists, "the first one is at work", seconds=60)
        with pytest.raises(Refused, match="Another point-in-time recovery is at work") as refused:
            side.to(time=told.moments[1].after)
        assert refused.value.reason == "busy"
    finally:
        child.kill()


def test_without_the_live_server_it_works_all_the_same(told: Told, side: Recovery) -> None:
    """The directory has to be named then; WAL that was not archived is lost to it."""
    dead = dataclasses.replace(side.order.connection, host="/nonexistent")
    order = dataclasses.replace(side.order, connection=dead, data_directory=str(told.site.instance.data))
    assert side.to(time=told.moments[1].after, order=order).changed
    assert side.sql(COUNT) == "2"
    with pytest.raises(Refused, match="in the future: the newest WAL in the archive was stored at"):
        side.to(time="2099-01-01 00:00:00+00", order=order)
