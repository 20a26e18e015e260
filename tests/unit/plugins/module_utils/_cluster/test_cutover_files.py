# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The exchange of two data directories on disk: where it is, forward, back, and what is never overwritten."""

from __future__ import annotations

import dataclasses
import os
import pathlib

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster import cutover_files as files
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._tools.pg_controldata import ControlData
from ansible_collections.hms.postgres.tests.unit.plugins.engine_facts import exchange

ROOT = "root"


class World:
    """Two data directories; their control files are texts: ``state timeline checkpoint``."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        places = {name: str(folder / name) for name in ("live", "side", "kept")}
        self.exchange = exchange(**places, system_identifier="7", checkpoint=500, fork_lsn=400, sync_names="")
        self.data("live", "in production", 1, 900)
        self.data("side/data", "shut down", 2, 500)

    def data(self, name: str, state: str, timeline: int, checkpoint: int) -> pathlib.Path:
        folder = self.folder / name
        (folder / "global").mkdir(parents=True, exist_ok=True)
        (folder / "pg_wal" / "archive_status").mkdir(parents=True, exist_ok=True)
        (folder / "global" / "pg_control").write_text(f"{state};{timeline};{checkpoint}")
        return folder

    @staticmethod
    def read(folder: str) -> ControlData:
        state, timeline, checkpoint = (pathlib.Path(folder) / "global" / "pg_control").read_text().split(";")
        return ControlData(state, int(checkpoint), 0, int(timeline), "7", "", True, True, 0, 0, 16777216)

    def where(self) -> str:
        return files.where(self.exchange, self.read)

    def tree(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.folder)) for path in self.folder.glob("**/pg_control") if "hms" not in path.name
        )


@pytest.fixture
def world(tmp_path: pathlib.Path) -> World:
    return World(tmp_path)


BEFORE = ["live/global/pg_control", "side/data/global/pg_control"]
AFTER = ["kept/global/pg_control", "live/global/pg_control"]


def test_forward_and_back_from_every_place(world: World) -> None:
    assert world.where() == "old"
    files.put_back(world.exchange, world.read)
    assert world.tree() == BEFORE
    files.put_in(world.exchange, world.read)
    assert (world.where(), world.tree()) == ("new", AFTER)
    files.put_in(world.exchange, world.read)
    assert world.tree() == AFTER
    os.rename(world.folder / "live", world.folder / "side" / "data")
    assert world.where() == "between"
    files.put_in(world.exchange, world.read)
    assert world.where() == "new"
    files.put_back(world.exchange, world.read)
    assert (world.where(), world.tree()) == ("old", BEFORE)
    os.rename(world.folder / "live", world.folder / "kept")
    files.put_back(world.exchange, world.read)
    assert (world.where(), world.tree()) == ("old", BEFORE)


@pytest.mark.parametrize("control", [("in production", 2, 500), ("shut down", 2, 800), ("shut down", 3, 500)])
def test_what_has_run_in_its_new_place_is_never_taken_out(world: World, control: tuple[str, int, int]) -> None:
    files.put_in(world.exchange, world.read)
    world.data("live", *control)
    assert world.where() == "ran"
    with pytest.raises(HmsError) as caught:
        files.put_back(world.exchange, world.read)
    assert caught.value.reason == "committed"
    assert world.tree() == AFTER


def test_nothing_is_overwritten_and_nothing_is_guessed(world: World) -> None:
    (world.folder / "kept").mkdir()
    with pytest.raises(HmsError) as caught:
        files.put_in(world.exchange, world.read)
    assert caught.value.reason == "name_taken"
    assert world.tree() == BEFORE
    (world.folder / "kept").rmdir()
    os.rename(world.folder / "live", world.folder / "lost")
    with pytest.raises(HmsError) as caught:
        world.where()
    assert caught.value.reason == "data_missing"


def test_the_journal_is_read_as_it_was_written(world: World) -> None:
    state = str(world.folder)
    assert files.read_journal(state) is None
    written = files.write_journal(state, world.exchange, "exchanging")
    assert files.read_journal(state) == written == dataclasses.replace(world.exchange, stage="exchanging")
    assert os.stat(files.journal_path(state)).st_mode & 0o777 == 0o600
    pathlib.Path(files.journal_path(state)).write_text("torn {")
    assert files.read_journal(state) is None


def test_settings_are_those_of_the_live_cluster(world: World) -> None:
    live, side = world.folder / "live", world.folder / "side" / "data"
    live.chmod(0o750)
    (live / "postgresql.auto.conf").write_text(
        "archive_command = 'push'\nrecovery_target_timeline = '3'\nhms.operation = 'x:armed'\n"
        "synchronous_standby_names = 'ANY 1 (db2)'\n"
    )
    (live / "pg_hba.conf").write_text("local all all peer\n")
    (side / "postgresql.conf").write_text("archive_mode = off\n")
    (side / "pg_hba.conf").write_text("of the side\n")
    (side / "postgresql.auto.conf").write_text("recovery_target_time = 'noon'\n")
    (side / "recovery.signal").touch()
    (side / ".hms-half").touch()
    files.align(world.exchange, ROOT)
    assert (side / "postgresql.auto.conf").read_text().splitlines()[2:] == [
        "archive_command = 'push'",
        "synchronous_standby_names = ''",
    ]
    assert (side / "pg_hba.conf").read_text() == "local all all peer\n"
    assert not (side / "postgresql.conf").exists()
    assert not (side / "recovery.signal").exists()
    assert not (side / ".hms-half").exists()
    assert side.stat().st_mode & 0o777 == 0o750
    files.align(dataclasses.replace(world.exchange, sync_names=None), ROOT)
    assert "ANY 1 (db2)" in (side / "postgresql.auto.conf").read_text()


def test_the_new_timeline_is_archived_from_its_beginning(world: World) -> None:
    wal = world.folder / "live" / "pg_wal"
    first, second, third = (f"00000002000000000000000{number}" for number in (3, 4, 5))
    for name in ("00000002.history", "000000010000000000000003", first, second, third):
        (wal / name).touch()
    (wal / "archive_status" / f"{second}.done").touch()
    marked = files.mark_for_archive(str(world.folder / "live"), 2, third, ROOT)
    assert marked == ["00000002.history", first]
    assert sorted(path.name for path in (wal / "archive_status").glob("*.ready")) == [
        "00000002.history.ready",
        f"{first}.ready",
    ]
    assert files.mark_for_archive(str(world.folder / "live"), 2, third, ROOT) == []


def test_tablespaces_and_filesystems(world: World) -> None:
    live, side = str(world.folder / "live"), str(world.folder / "side" / "data")
    assert files.tablespaces(live, side) == ()
    os.makedirs(os.path.join(side, "pg_tblspc"))
    os.symlink("/elsewhere", os.path.join(side, "pg_tblspc", "16390"))
    assert files.tablespaces(live, side) == ("16390",)
    assert files.same_filesystem(side, live)
    assert not files.same_filesystem("/proc", live)
    assert not files.is_mount_point(live)
    assert files.is_mount_point("/proc")


def test_nothing_is_moved_under_a_process(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "processes_in", lambda folder: [4711] if folder.endswith("live") else [])
    with pytest.raises(HmsError) as caught:
        files.put_in(world.exchange, world.read)
    assert caught.value.reason == "not_stopped"
    assert world.tree() == BEFORE
