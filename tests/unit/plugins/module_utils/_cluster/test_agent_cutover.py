# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a killed cutover is brought to, by its journal, by what lies where, and by what runs. Hosts are scripted."""

from __future__ import annotations

import dataclasses
import pathlib
import types
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster import agent_cutover, cutover_files
from ansible_collections.hms.postgres.plugins.module_utils._cluster.agent_cutover import CutoverVerbs
from ansible_collections.hms.postgres.plugins.module_utils._cluster.cutover_model import Exchange
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.tests.unit.plugins.engine_facts import ScriptedClock, exchange

EXCHANGE = exchange()


class Host:
    """A database host in the middle of a cutover; every act is written down."""

    def __init__(self, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.acts: list[str] = []
        self.places: list[str] = ["old"]
        self.processes: list[int] = []
        self.starts = True
        self.writable = False
        self.state = "cutover"
        self.holding = True
        self.clock = ScriptedClock()
        self.host = self.context = self.primary = self.service = self.runner = self
        self.name = "db1"
        self.state_directory = str(folder)
        self.instance = types.SimpleNamespace(data_directory=str(folder / "data"), os_user="root")
        self.verbs = CutoverVerbs(t.cast("t.Any", self))
        monkeypatch.setattr(cutover_files, "where", self._where)
        monkeypatch.setattr(cutover_files, "put_back", lambda *_args: self.acts.append("put back"))
        monkeypatch.setattr(agent_cutover, "processes_in", lambda _data: self.processes)
        monkeypatch.setattr(self.verbs, "_bring_up", self._bring_up)
        monkeypatch.setattr(self.verbs, "_finish", lambda _exchange: self.acts.append("finish"))
        monkeypatch.setattr(self.verbs, "_writable", lambda: self.writable)

    def begin(self, stage: t.Any) -> None:
        cutover_files.write_journal(self.state_directory, EXCHANGE, stage)

    @property
    def stage(self) -> str:
        found = cutover_files.read_journal(self.state_directory)
        assert found is not None
        return found.stage

    def _where(self, _exchange: Exchange, _read: t.Any) -> str:
        return self.places.pop(0) if len(self.places) > 1 else self.places[0]

    def _bring_up(self, _deadline: float) -> int:
        self.acts.append("bring up")
        if not self.starts:
            raise HmsError("it did not start")
        return 2

    def close(self) -> None:
        self.acts.append("close")

    def note(self, event: str, **_more: t.Any) -> None:
        self.acts.append(f"note {event}")

    def wait_for(self, condition: t.Callable[[], bool], **_more: t.Any) -> bool:
        return condition()

    def kill_all(self, **_more: t.Any) -> None:
        self.acts.append("kill all")
        self.processes = []

    def restart_primary(self, *, deadline: float) -> None:
        assert deadline >= 60.0
        assert self.state == "stopped", "its end is waited for"
        self.acts.append("start the old one")


@pytest.fixture
def host(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def acts(host: Host) -> list[str]:
    return [act for act in host.acts if not act.startswith(("note", "close"))]


def test_where_nothing_was_begun_nothing_is_done(host: Host) -> None:
    assert host.verbs.settle() == {"outcome": "nothing"}
    for stage in ("promoted", "done"):
        host.begin(stage)
        assert host.verbs.settle() == {"outcome": "nothing"}
    assert acts(host) == []


@pytest.mark.parametrize("place", ["old", "between", "new"])
def test_before_the_start_was_ordered_it_is_put_back(host: Host, place: str) -> None:
    host.begin("exchanging")
    host.places = [place]
    assert host.verbs.settle()["outcome"] == "old"
    assert acts(host) == ["put back", "start the old one"]
    assert (host.stage, host.state, host.holding) == ("promoted", "idle", False)


def test_an_old_one_that_takes_writes_and_was_not_told_to_stop_is_left_alone(host: Host) -> None:
    host.begin("exchanging")
    host.writable = True
    assert host.verbs.settle()["outcome"] == "old"
    assert acts(host) == ["put back"]


def test_once_the_start_was_ordered_it_is_seen_through(host: Host) -> None:
    host.begin("starting")
    host.places = ["new"]
    assert host.verbs.settle() == {"outcome": "new", "timeline": 2}
    assert acts(host) == ["bring up", "finish"]


def test_a_server_that_something_else_has_started_is_seen_through(host: Host) -> None:
    host.begin("exchanging")
    host.places, host.processes = ["new"], [4711]
    assert host.verbs.settle()["outcome"] == "new"
    assert acts(host) == ["bring up", "finish"]


def test_what_can_not_start_and_never_ran_is_taken_out(host: Host) -> None:
    host.begin("starting")
    host.places, host.starts, host.processes = ["new"], False, [4711]
    assert host.verbs.settle()["outcome"] == "old"
    assert acts(host) == ["bring up", "kill all", "put back", "start the old one"]


def test_a_start_that_failed_is_not_tried_twice(host: Host) -> None:
    host.begin("starting")
    host.places = ["new"]
    assert host.verbs.settle(forward=False)["outcome"] == "old"
    assert acts(host) == ["put back", "start the old one"]


def test_one_that_ran_before_it_could_be_ended_goes_forward(host: Host) -> None:
    host.begin("starting")
    host.places = ["new", "ran"]
    assert host.verbs.settle(forward=False)["outcome"] == "new"
    assert acts(host) == ["bring up", "finish"]


def test_what_has_run_only_goes_forward(host: Host) -> None:
    host.begin("exchanging")
    host.places, host.starts = ["ran"], False
    with pytest.raises(HmsError):
        host.verbs.settle(forward=False)
    assert acts(host) == ["bring up"]
    assert host.stage == "exchanging"


def test_one_that_follows_another_by_now_is_done(host: Host, tmp_path: pathlib.Path) -> None:
    host.begin("starting")
    host.places = ["ran"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "standby.signal").touch()
    assert host.verbs.settle()["outcome"] == "new"
    assert acts(host) == []
    assert host.stage == "done"


def test_the_dead_man_settles(host: Host) -> None:
    host.begin("exchanging")
    host.verbs.alone()
    assert host.acts[-1] == "note deadman_cutover_old"


def test_without_a_journal_there_is_nothing_to_finish(host: Host) -> None:
    with pytest.raises(HmsError) as caught:
        host.verbs.finish()
    assert caught.value.reason == "no_journal"
    host.begin("done")
    assert host.verbs.finish() == {"kept": "/data.before"}


def test_a_start_without_a_server_fails_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, pids = ScriptedClock(), [4711, None, None]
    monkeypatch.setattr(agent_cutover, "postmaster_pid", lambda _data: pids.pop(0))
    attempt = agent_cutover._Attempt("/data", clock)
    clock.seconds += 60.0
    assert not attempt.failed()
    clock.seconds += 5.0
    assert not attempt.failed()
    clock.seconds += 6.0
    with pytest.raises(HmsError, match="there is no server in /data"):
        attempt.failed()


def test_an_exchange_says_how_to_go_back() -> None:
    exchange = dataclasses.replace(EXCHANGE, left_lsn=0x5000148)
    assert exchange.way_back == "-e timeline=1 -e target_lsn=0/5000148"
