# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is left of an earlier demo, and what its removal may touch."""

from __future__ import annotations

import os
import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._command import CommandRunner
from ansible_collections.hms.postgres.plugins.module_utils._errors import Refused
from ansible_collections.hms.postgres.plugins.module_utils._tools.pg_cluster_tools import ListedInstance
from ansible_collections.hms.postgres.plugins.module_utils._workload import process
from ansible_collections.hms.postgres.plugins.module_utils._workload import site as demo

NOBODY = t.cast("CommandRunner", None)


class World:
    """Instances in a temporary folder instead of Debian's list."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.site = demo.Site(str(root / "hms-postgres-demo"), ("hmsdemo1", "hmsdemo2"), poolers=2)
        self.listed: list[ListedInstance] = []
        self.dropped: list[str] = []

    def add(self, name: str, *, running: bool = True, standby: bool = False) -> None:
        data = self.root / name
        data.mkdir()
        if standby:
            (data / "standby.signal").write_text("")
        self.listed.append(ListedInstance(15, name, 6001, running, str(data), 0, "auto", "/run"))

    def lister(self, _runner: CommandRunner) -> t.Any:
        return self

    def all(self) -> tuple[ListedInstance, ...]:
        return tuple(self.listed)

    def drop(self, *, version: int, name: str, stop: bool) -> None:
        self.dropped.append(f"{version}/{name}{' --stop' if stop else ''}")
        self.listed = [one for one in self.listed if one.name != name]


@pytest.fixture
def world(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> World:
    found = World(tmp_path)
    monkeypatch.setattr(demo, "PgLsClusters", found.lister)
    monkeypatch.setattr(demo, "PgDropCluster", found.lister)
    monkeypatch.setattr(demo, "systemd_runs", lambda: False)
    return found


def test_nothing_there_is_no_problem(world: World) -> None:
    assert demo.prepare(world.site, NOBODY, digest="a") == {"reason": "", "removed": [], "stands": False}
    assert world.site.state() == {"digest": "a", "finished": False, "by": None}
    assert (world.root / "hms-postgres-demo").stat().st_mode & 0o777 == 0o755


def finished(world: World) -> None:
    """A demo that went to its end."""
    demo.prepare(world.site, NOBODY, digest="a")
    demo.finish(world.site)
    world.add("hmsdemo1")
    world.add("hmsdemo2", standby=True)


@pytest.mark.parametrize(
    ("digest", "streaming", "poolers", "stands"),
    [("a", 1, 2, True), ("b", 1, 2, False), ("a", 0, 2, False), ("a", -1, 2, False), ("a", 1, 1, False)],
)
def test_a_whole_site_is_kept_and_built_upon(
    world: World, monkeypatch: pytest.MonkeyPatch, digest: str, streaming: int, poolers: int, stands: bool
) -> None:
    finished(world)
    monkeypatch.setattr(demo, "streaming", lambda _instance: streaming)
    monkeypatch.setattr(demo, "working", lambda _site, _program: [None] * poolers)
    found = demo.prepare(world.site, NOBODY, digest=digest)
    assert found == {"reason": "", "removed": [], "stands": stands}
    assert world.dropped == []


def test_an_interrupted_demo_is_built_anew(world: World) -> None:
    finished(world)
    demo.prepare(world.site, NOBODY)
    again = demo.prepare(world.site, NOBODY)
    assert again["reason"] == "the last demo did not come to a good end"
    assert world.dropped == ["15/hmsdemo1 --stop", "15/hmsdemo2 --stop"]
    assert again["stands"] is False


def test_a_demo_that_is_under_way_is_left_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    own = process.look(os.getpid())
    monkeypatch.setattr(demo, "playbook", lambda: own)
    demo.prepare(world.site, NOBODY)
    assert demo.prepare(world.site, NOBODY)["removed"], "the same playbook may prepare again"
    monkeypatch.setattr(demo, "playbook", lambda: None)
    for step in (demo.prepare, demo.clean):
        with pytest.raises(Refused, match=f"Another demo is under way: process {os.getpid()}"):
            step(world.site, NOBODY)


def test_the_digest_follows_the_code(tmp_path: pathlib.Path) -> None:
    (tmp_path / "roles" / "__pycache__").mkdir(parents=True)
    (tmp_path / "roles" / "main.yml").write_text("a")
    (tmp_path / "site.yml").write_text("b")
    paths = [str(tmp_path / "site.yml"), str(tmp_path / "roles")]
    first = demo.digest_of(paths)
    (tmp_path / "roles" / "__pycache__" / "x.pyc").write_text("c")
    assert demo.digest_of(paths) == first
    (tmp_path / "roles" / "main.yml").write_text("d")
    assert demo.digest_of(paths) != first


@pytest.mark.parametrize(
    ("instances", "reason"),
    [
        ([("hmsdemo1", True, False)], "only 15/hmsdemo1 is there"),
        ([("hmsdemo1", False, False), ("hmsdemo2", True, True)], "15/hmsdemo1 down"),
        ([("hmsdemo1", False, False), ("hmsdemo2", False, True)], "15/hmsdemo1 and 15/hmsdemo2 down"),
        ([("hmsdemo1", True, False), ("hmsdemo2", True, False)], "2 of its instances are primaries"),
        ([("hmsdemo1", True, True), ("hmsdemo2", True, True)], "0 of its instances are primaries"),
    ],
)
def test_a_site_that_is_not_whole_is_known(world: World, instances: list[tuple[str, bool, bool]], reason: str) -> None:
    for name, running, standby in instances:
        world.add(name, running=running, standby=standby)
    assert demo.problem(world.site, NOBODY) == reason


def test_files_without_an_instance_are_known(world: World) -> None:
    (world.root / "hms-postgres-demo").mkdir()
    assert demo.problem(world.site, NOBODY) == "files of an earlier demo are left, but no instance"


def test_cleaning_takes_only_what_bears_the_demo_s_name(world: World) -> None:
    world.add("main")
    world.add("hmsdemo1", running=False)
    folder = world.root / "hms-postgres-demo"
    folder.mkdir()
    assert demo.clean(world.site, NOBODY) == {"removed": ["the instance 15/hmsdemo1", str(folder)]}
    assert [one.name for one in world.listed] == ["main"]
    assert demo.clean(world.site, NOBODY) == {"removed": []}


@pytest.mark.parametrize("folder", ["/var/lib/postgresql", "/", "hms-postgres-demo", "/srv/my-hms-postgres-demo"])
def test_another_folder_is_never_removed(world: World, folder: str) -> None:
    with pytest.raises(Refused, match="not a demo's folder"):
        demo.clean(demo.Site(folder, ("hmsdemo1",)), NOBODY)
    assert world.dropped == []


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        (["pgbouncer", "-d", "/var/lib/hms-postgres-demo/bouncer1/etc/1.ini"], True),
        (["pg_rewind", "--target-pgdata=/var/lib/hms-postgres-demo/db1/data"], True),
        (["python3", "-c", "f=memfd('hms-postgres')", "/var/lib/hms-postgres-demo/db1/etc"], True),
        (["pgbouncer", "-d", "/etc/pgbouncer/pgbouncer.ini"], False),
        (["pgbouncer", "-d", "/var/lib/hms-postgres-demo-2/1.ini"], False),
        (["vi", "/var/lib/hms-postgres-demo/demo.json"], False),
        (["python3", "-m", "module_utils._workload.program", "/var/lib/hms-postgres-demo/writers"], False),
        (["python3", "-c", "print(1)", "/var/lib/hms-postgres-demo/db1/etc"], False),
        (["pgbouncer"], False),
    ],
)
def test_only_our_own_programs_are_ended(words: list[str], ours: bool) -> None:
    site = demo.Site("/var/lib/hms-postgres-demo", ("hmsdemo1",))
    assert demo.is_ours(site, [word.encode() for word in words]) is ours
