# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is left of an earlier demo, and what its removal may touch."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._command import CommandRunner
from ansible_collections.hms.postgres.plugins.module_utils._errors import Refused
from ansible_collections.hms.postgres.plugins.module_utils._tools.pg_cluster_tools import ListedInstance
from ansible_collections.hms.postgres.plugins.module_utils._workload import site as demo

NOBODY = t.cast("CommandRunner", None)


class World:
    """Instances in a temporary folder instead of Debian's list."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.site = demo.Site(str(root / "hms-postgres-demo"), ("hmsdemo1", "hmsdemo2"))
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
    assert demo.prepare(world.site, NOBODY) == {"reason": "", "removed": [], "exists": False}
    assert (world.root / "hms-postgres-demo" / "unfinished").exists()


def test_a_whole_site_is_kept(world: World) -> None:
    world.add("hmsdemo1")
    world.add("hmsdemo2", standby=True)
    assert demo.prepare(world.site, NOBODY) == {"reason": "", "removed": [], "exists": True}
    assert demo.finish(world.site)
    assert not demo.finish(world.site)


def test_an_interrupted_demo_is_built_anew(world: World) -> None:
    world.add("hmsdemo1")
    world.add("hmsdemo2", standby=True)
    demo.prepare(world.site, NOBODY)
    again = demo.prepare(world.site, NOBODY)
    assert again["reason"] == "the last demo was interrupted"
    assert world.dropped == ["15/hmsdemo1 --stop", "15/hmsdemo2 --stop"]
    assert again["exists"] is False


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
