# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guard's loop over a scripted server and clock: what it does, in which order, and what it survives."""

from __future__ import annotations

import dataclasses
import datetime
import json
import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils import _runner
from ansible_collections.hms.postgres.plugins.module_utils._cluster import sync_guard_loop
from ansible_collections.hms.postgres.plugins.module_utils._cluster.exposure import ExposureFile, exposed_since
from ansible_collections.hms.postgres.plugins.module_utils._cluster.member_config import (
    DatabaseHost,
    Instance,
    Login,
    Peer,
)
from ansible_collections.hms.postgres.plugins.module_utils._cluster.sync_guard_loop import SyncGuard
from ansible_collections.hms.postgres.plugins.module_utils._errors import ConnectionFailed, HmsError
from ansible_collections.hms.postgres.plugins.module_utils._files import HeldLock

NAMES = 'ANY 1 ("db2", "db-3")'


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self.seconds, datetime.timezone.utc)

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class Server:
    """A server as far as the guard knows one; also the session to it."""

    def __init__(self, state: pathlib.Path) -> None:
        self.state = state
        self.up = True
        self.primary = True
        self.names = NAMES
        self.bulletin = ""
        self.streaming: list[str] = ["db2"]
        self.flush = "0/5000000"
        self.order: list[str] = []
        self.connected = 0

    def connect(self, params: t.Any, *, os_user: str) -> Server:
        assert (params.host, params.statement_timeout, os_user) == ("/run/pg", 3.0, "postgres")
        if not self.up:
            raise ConnectionFailed("No connection", reason="connection_failed")
        self.connected += 1
        return self

    def _answer(self) -> None:
        if not self.up:
            raise HmsError("the connection is lost", reason="sql_failed")

    def rows(self, sql: str, params: t.Sequence[t.Any] | None = None) -> list[tuple[t.Any, ...]]:
        self._answer()
        assert "pg_stat_replication" in sql
        assert params is None
        sync = bool(self.names)
        return [(name, True, sync, "0/5000000", self.flush, "now") for name in self.streaming]

    def row(self, sql: str, params: t.Sequence[t.Any] | None = None) -> tuple[t.Any, ...] | None:
        self._answer()
        assert "pg_postmaster_start_time" in sql
        assert params is not None
        assert sorted(params[0]) == ["db2", "db_3"]
        return (self.primary, "once", self.names, "0/5000000", "0/4000000")

    def value(self, sql: str, _params: t.Sequence[t.Any] | None = None) -> t.Any:
        self._answer()
        assert "hms.operation" in sql
        return self.bulletin

    def execute(self, sql: str, _params: t.Sequence[t.Any] | None = None) -> None:
        self._answer()
        opened = bool(ExposureFile(str(self.state)).open_since())
        self.order.append(f"{sql} (interval {'open' if opened else 'closed'})")
        if sql.startswith("ALTER SYSTEM"):
            self.names = sql.partition(" = ")[2].strip("'")

    def close(self) -> None:
        pass


class Scene:
    """A guard, its host, its server, and what it said."""

    def __init__(self, state: pathlib.Path) -> None:
        self.server = Server(state)
        self.clock = Clock()
        self.said: list[str] = []
        self.loud: list[str] = []
        login = Login("u", "/p")
        self.host = DatabaseHost(
            name="db1",
            cluster="hospital",
            environment="staging",
            address="db1",
            state_directory=str(state),
            database="hospital",
            sync_policy="degrade",
            instance=Instance(15, "main", 5432, "/run/pg", "/d", "/c", "/b"),
            replication=login,
            slot_name="db1",
            monitor=login,
            members=tuple(Peer(name, name, 5432, 100, name != "db4") for name in ("db1", "db2", "db-3", "db4")),
        )
        self.guard = SyncGuard(
            lambda: self.host,
            clock=self.clock,
            say=self.say,
            connector=t.cast(t.Any, self.server.connect),
        )
        self.kept = ExposureFile(str(state))

    def say(self, text: str, loud: bool) -> None:
        self.said.append(text)
        if loud:
            self.loud.append(text)

    def watch(self, seconds: int) -> list[str]:
        """What was done in the next seconds, a look each."""
        done = []
        for _second in range(seconds):
            done.append(self.guard.turn().action)
            self.clock.sleep(1.0)
        return [action for action in done if action != "none"]

    def events(self) -> list[str]:
        return [mark["event"] for mark in self.kept.marks()]


@pytest.fixture
def scene(tmp_path: pathlib.Path) -> Scene:
    return Scene(tmp_path)


def test_from_a_lost_standby_to_its_return(scene: Scene) -> None:
    assert scene.watch(5) == []
    scene.server.streaming = []
    assert scene.watch(11) == ["degrade"]
    assert scene.server.order == [
        """ALTER SYSTEM SET "synchronous_standby_names" = '' (interval open)""",
        "SELECT pg_catalog.pg_reload_conf() (interval open)",
    ]
    assert any("WITHOUT a standby from 0/5000000" in text for text in scene.loud)
    assert scene.kept.marks()[0]["confirmed_lsn"] == "0/4000000"
    assert exposed_since(scene.host) == scene.kept.marks()[0]["at"]
    assert scene.watch(60) == []

    scene.server.streaming = ["db-3"]
    assert scene.watch(3) == ["restore"]
    assert scene.server.names == NAMES
    assert scene.events() == ["started"], "not closed before it is proven"
    assert scene.watch(10) == ["close"]
    assert scene.events() == ["started", "ended"]
    assert exposed_since(scene.host) == ""


def test_it_says_what_is_new_and_nothing_twice(scene: Scene) -> None:
    scene.watch(30)
    scene.server.streaming = []
    scene.watch(60)
    assert len(scene.said) == len(set(scene.said)) <= 5


def test_a_lost_connection_is_opened_again(scene: Scene) -> None:
    assert scene.watch(3) == []
    scene.server.up = False
    assert scene.watch(3) == []
    assert scene.loud
    scene.server.up = True
    scene.server.streaming = []
    assert scene.watch(11) == ["degrade"]
    assert scene.server.connected == 2


def test_a_held_lock_keeps_its_hands_off(scene: Scene, tmp_path: pathlib.Path) -> None:
    lock = HeldLock(str(tmp_path / "operation.lock"))
    assert lock.acquire({"id": "20260101T000000Z-failover-0000"}) is None
    scene.server.streaming = []
    assert scene.watch(40) == []
    assert any("failover-0000" in text for text in scene.said)
    lock.release()
    assert scene.watch(11) == ["degrade"]


@pytest.mark.parametrize(
    ("bulletin", "expected"), [("op:armed", []), ("op:promoted", []), ("op:disarmed", ["degrade"]), ("", ["degrade"])]
)
def test_an_announced_operation_keeps_its_hands_off(scene: Scene, bulletin: str, expected: list[str]) -> None:
    scene.server.bulletin = bulletin
    scene.server.streaming = []
    assert scene.watch(11) == expected


@pytest.mark.parametrize("policy", ["async", "strict"])
def test_another_policy_is_not_even_looked_at(scene: Scene, policy: str) -> None:
    scene.host = dataclasses.replace(scene.host, sync_policy=policy)
    scene.server.streaming = []
    assert scene.watch(40) == []
    assert scene.server.connected == 0


def test_a_policy_that_changes_counts_at_once(scene: Scene) -> None:
    scene.server.streaming = []
    scene.watch(9)
    scene.host = dataclasses.replace(scene.host, sync_policy="strict")
    assert scene.watch(40) == []
    assert exposed_since(scene.host) == ""


def test_what_a_failover_left_empty_is_written_down(scene: Scene) -> None:
    scene.server.names = ""
    scene.server.streaming = []
    assert scene.watch(5) == ["open"]
    assert scene.kept.marks()[0]["reason"] == "synchronous_standby_names was found empty"


def test_what_somebody_else_set_again_is_closed(scene: Scene) -> None:
    scene.server.names = ""
    assert scene.watch(1) == ["open"]
    scene.server.names = NAMES
    assert scene.watch(10) == ["close"]


def test_a_disk_that_takes_no_record_does_not_stop_the_hospital(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_self: ExposureFile, _mark: t.Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ExposureFile, "append", full)
    scene.server.streaming = []
    assert scene.watch(11) == ["degrade"]
    assert any("No space left" in text for text in scene.loud)
    assert scene.watch(60) == ["open"]
    scene.server.streaming = ["db2"]
    assert scene.watch(3) == ["restore"]


def test_a_member_file_that_cannot_be_read_is_said(scene: Scene) -> None:
    def broken() -> DatabaseHost:
        raise HmsError("member.json is not JSON", reason="bad_member_config")

    guard = SyncGuard(broken, clock=scene.clock, say=scene.say)
    assert guard.turn().action == "none"
    assert "member.json is not JSON" in scene.loud[0]


def test_the_shortest_time_is_more_than_one_look(scene: Scene) -> None:
    scene.host = dataclasses.replace(scene.host, degrade_after_seconds=0.0)
    scene.server.streaming = []
    assert scene.guard.turn().action == "none"
    scene.clock.sleep(1.0)
    assert scene.guard.turn().action == "degrade"


def test_the_command_line(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _runner.main(["sync-guard", "--config", str(tmp_path), "--once"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["action"] == "none"
    assert "not set up as a member" in printed.err


def test_it_ends_when_its_program_was_replaced(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "hms-postgres.pyz"
    program.write_text("old")
    monkeypatch.setattr("sys.argv", [str(program)])
    monkeypatch.setattr(sync_guard_loop, "INTERVAL", 0.0)
    turns = []

    def turn(_self: SyncGuard) -> None:
        turns.append(1)
        if len(turns) == 3:
            replacement = tmp_path / "new"
            replacement.write_text("new")
            replacement.replace(program)

    monkeypatch.setattr(SyncGuard, "turn", turn)
    assert sync_guard_loop.main(str(tmp_path)) == 0
    assert len(turns) == 3
