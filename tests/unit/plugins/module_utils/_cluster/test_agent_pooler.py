# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A bouncer host's agent over scripted consoles: two-phase holding, and one process that fails keeps no other."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster import agent_pooler, pooler_facts
from ansible_collections.hms.postgres.plugins.module_utils._cluster.agent import Context
from ansible_collections.hms.postgres.plugins.module_utils._cluster.agent_pooler import PoolerHandler
from ansible_collections.hms.postgres.plugins.module_utils._cluster.databases_file import head
from ansible_collections.hms.postgres.plugins.module_utils._cluster.member_config import (
    BouncerHost,
    Login,
    Peer,
    PoolerProcess,
)
from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import PoolerFacts, ProcessFacts
from ansible_collections.hms.postgres.plugins.module_utils._errors import ConnectionFailed, DeadlinePassed, HmsError
from ansible_collections.hms.postgres.tests.unit.plugins.engine_facts import Channel, ScriptedClock

ID = "20261122T154500Z-failover-3fa9"


class Console:
    """One PgBouncer process: what it does, and what it is told."""

    def __init__(self, name: str, told: list[str]) -> None:
        self.name = name
        self.told = told
        self.broken = False
        self.dead = False
        self.paused: set[str] = set()
        self.busy = 0
        self.port = 5431
        self.file_port = 5431
        self.retry = "1"
        self.fails: set[str] = set()

    def _do(self, what: str) -> None:
        if self.dead:
            self.broken = True
            raise HmsError("the connection is closed")
        self.told.append(f"{what}@{self.name}")
        if what in self.fails:
            raise HmsError(f"{what} failed")

    def prepare_pause(self, _names: t.Iterable[str]) -> None:
        return None

    def paused_databases(self) -> set[str]:
        self._do("look")
        return self.paused

    def send_pause(self, database: str) -> None:
        self._do("pause")
        self.paused = {*self.paused, database}

    def busy_servers(self, _names: t.Collection[str]) -> int:
        return self.busy

    def kill(self, _database: str) -> None:
        self._do("kill")
        self.busy = 0

    def reload(self) -> None:
        self._do("reload")
        self.retry, self.port = "1", self.file_port

    def change(self, name: str, value: str) -> None:
        assert name == "server_login_retry"
        self._do("set")
        self.retry = value

    def resume(self, database: str) -> None:
        self._do("resume")
        self.paused = self.paused - {database}

    def drop_pausing_connections(self) -> None:
        return None

    def databases(self) -> list[dict[str, t.Any]]:
        return [{"name": "hospital", "host": "10.0.0.1", "port": str(self.port)}]

    def config(self) -> dict[str, str]:
        self._do("config")
        return {"server_login_retry": self.retry}

    def close(self) -> None:
        return None


class Bench:
    """A handler with two scripted processes."""

    def __init__(self, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[str] = []
        self.one, self.two = Console("1", self.told), Console("2", self.told)
        self.opened: list[str] = []
        self.clock = ScriptedClock()
        processes = tuple(PoolerProcess(name, f"/run/{name}", "", "") for name in ("1", "2"))
        login = Login("hms_monitor", "/pass")
        self.file = folder / "databases.ini"
        self.file.write_text("")
        host = BouncerHost(
            name="bouncer1",
            cluster="hospital",
            environment="staging",
            address="10.0.1.1",
            state_directory=str(folder),
            database="hospital",
            os_user="root",
            port=6432,
            databases_file=str(self.file),
            databases=({"name": "hospital", "dbname": "hospital"},),
            processes=processes,
            monitor=login,
            members=(Peer("db1", "10.0.0.1", 5431), Peer("db2", "10.0.0.1", 5432)),
        )
        monkeypatch.setattr(agent_pooler, "PgbouncerConsole", self.open)
        monkeypatch.setattr(agent_pooler, "write_atomic", self.write)
        self.context = Context(t.cast("t.Any", Channel()), self.clock, str(folder))
        self.handler = PoolerHandler(host, self.context)

    def open(self, params: t.Any, *, os_user: str) -> Console:
        assert os_user == "root"
        name = params.host.rpartition("/")[2]
        console = self.one if name == "1" else self.two
        self.opened.append(name)
        if console.dead:
            raise ConnectionFailed("no such socket")
        console.broken = False
        return console

    def write(self, path: str, content: str, **_more: t.Any) -> bool:
        pathlib.Path(path).write_text(content)
        primary = (head(content) or {})["primary"]
        for console in (self.one, self.two):
            console.file_port = 5431 if primary == "db1" else 5432
        return True


@pytest.fixture
def bench(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_all_processes_hold_or_none(bench: Bench) -> None:
    assert bench.handler.hold(deadline=2.0, kill=False)["killed"] == 0
    held = [bench.one.paused, bench.two.paused, bench.context.holding]
    bench.handler.resume()
    gone_on = [bench.one.paused, bench.two.paused, bench.context.holding]
    assert (held, gone_on) == ([{"hospital"}, {"hospital"}, True], [set(), set(), False])
    assert (bench.one.retry, bench.two.retry) == ("0.1", "0.1")


def test_what_was_set_for_the_moment_is_put_back(bench: Bench) -> None:
    bench.handler.resume()
    assert bench.handler.tuned
    bench.handler.finish(operation=ID)
    assert [bench.handler.tuned, bench.one.retry, bench.two.retry] == [False, "1", "1"]


def test_who_holds_already_is_not_told_again(bench: Bench) -> None:
    bench.one.paused = {"hospital"}
    bench.handler.hold(deadline=2.0, kill=False)
    assert "pause@1" not in bench.told
    assert "pause@2" in bench.told


def test_a_transaction_that_doesn_t_end_is_told_where_it_is(bench: Bench) -> None:
    bench.two.busy = 3
    with pytest.raises(DeadlinePassed, match=r"still busy per process: \{'1': 0, '2': 3\}") as caught:
        bench.handler.hold(deadline=2.0, kill=False)
    assert caught.value.reason == "pools_busy"
    assert bench.context.holding, "it holds until it is told to let go"
    assert sum(bench.clock.slept) == pytest.approx(2.0, abs=0.1)


def test_sessions_on_a_dead_server_are_cut(bench: Bench) -> None:
    bench.two.busy = 3
    assert bench.handler.hold(deadline=1.0, kill=True)["killed"] == 3
    assert "kill@1" in bench.told


def test_clients_are_led_over_in_the_file_and_in_every_process(bench: Bench) -> None:
    bench.handler.prepare(operation=ID, candidate="db2")
    bench.handler.repoint(primary="db2", operation=ID)
    assert (bench.one.port, bench.two.port) == (5432, 5432)
    assert bench.told == ["reload@1", "set@1", "reload@2", "set@2"], "a reload forgets what was set"
    assert bench.handler.leads_to("db2")
    assert bench.handler.primary_on_file() == "db2"


def test_only_those_that_lead_there_let_their_clients_go(bench: Bench) -> None:
    bench.handler.hold(deadline=1.0, kill=False)
    bench.one.port, bench.two.port = 5431, 5432
    with pytest.raises(HmsError, match="process 1: it does not lead to db2 yet"):
        bench.handler.resume(only_to="db2")
    assert [bool(bench.one.paused), bool(bench.two.paused), bench.context.holding] == [True, False, True]
    bench.handler.resume()
    assert not bench.one.paused


def test_one_that_hangs_is_not_tried_twice(bench: Bench) -> None:
    calls: list[str] = []

    def hang(console: t.Any) -> None:
        calls.append(console.name)
        console.broken = True
        raise DeadlinePassed("no answer")

    with pytest.raises(HmsError, match="process 1: no answer; process 2: no answer"):
        bench.handler.each(hang, "Trying")
    assert calls == ["1", "2"]


def test_the_file_alone_leads_nobody(bench: Bench) -> None:
    bench.handler.repoint(primary="db2", operation=ID)
    bench.two.port = 5431
    assert not bench.handler.leads_to("db2")


@pytest.mark.parametrize("verb", ["resume", "repoint", "finish"])
def test_a_dead_process_keeps_no_other_from_its_part(bench: Bench, verb: str) -> None:
    bench.handler.hold(deadline=1.0, kill=False)
    bench.one.dead = True
    args = {"resume": {}, "repoint": {"primary": "db2", "operation": ID}, "finish": {"operation": ID}}[verb]
    bench.two.retry = "0.1"
    bench.told.clear()
    with pytest.raises(HmsError, match="on bouncer1 failed: process 1: ") as caught:
        getattr(bench.handler, verb)(**args)
    assert caught.value.reason == "bouncer_failed"
    assert "process 2" not in caught.value.message
    assert any(told.endswith("@2") for told in bench.told)


def test_a_process_that_was_started_anew_is_spoken_to_again(bench: Bench) -> None:
    bench.handler.hold(deadline=1.0, kill=False)
    bench.one.broken = True
    bench.handler.resume()
    assert bench.opened == ["1", "2", "1"]


def test_one_that_breaks_at_this_moment_is_tried_once_more(bench: Bench) -> None:
    bench.handler.open_consoles()
    calls: list[str] = []

    def work(console: t.Any) -> None:
        calls.append(console.name)
        if calls == ["1"]:
            console.broken = True
            raise HmsError("server closed the connection")

    bench.handler.each(work, "Trying")
    assert calls == ["1", "1", "2"]


def test_what_fails_on_a_living_process_is_not_tried_again(bench: Bench) -> None:
    bench.one.fails = {"resume"}
    with pytest.raises(HmsError, match="process 1: resume failed"):
        bench.handler.resume()
    assert bench.told.count("resume@1") == 1
    assert bench.told.count("resume@2") == 1


def test_a_process_that_was_dead_from_the_beginning_is_left_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """That it is dead was refused by a rule; who comes here has overridden it."""
    found = PoolerFacts("bouncer1", processes=(ProcessFacts("1", reachable=False), ProcessFacts("2")))
    monkeypatch.setattr(pooler_facts, "observe", lambda _host: found)
    bench.one.dead = True
    bench.handler.observe()
    bench.handler.hold(deadline=1.0, kill=False)
    bench.handler.resume()
    assert [process.name for process in bench.handler.processes()] == ["2"]
    assert bench.opened == ["2"]


class Session:
    """A connection to a member: answers, refuses, or never says a word."""

    def __init__(self, answer: HmsError | bool) -> None:
        self.answer = answer
        self.asked = ""
        self.closed = False

    def begin(self, sql: str) -> None:
        self.asked = sql

    def done(self) -> bool:
        if isinstance(self.answer, HmsError):
            raise self.answer
        return self.answer

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("answer", "refused", "evidence"),
    [
        (HmsError("cannot execute INSERT in a read-only transaction"), True, "read-only transaction"),
        (False, True, "no acknowledgement within 3 seconds"),
        (True, False, "db1 took a write"),
    ],
)
def test_whether_the_old_primary_takes_a_write(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, answer: HmsError | bool, refused: bool, evidence: str
) -> None:
    session = Session(answer)
    monkeypatch.setattr(agent_pooler, "connect", lambda _params: session)
    found = bench.handler.prove_unreachable(member="db1", operation=ID)
    assert found["refused"] is refused
    assert evidence in found["evidence"]
    assert session.closed
    assert "ON CONFLICT DO NOTHING" in session.asked, "a row of an earlier proof is no refusal"


def test_one_that_can_t_be_connected_to_takes_no_write(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_params: t.Any) -> None:
        raise ConnectionFailed("connection refused")

    monkeypatch.setattr(agent_pooler, "connect", refuse)
    assert bench.handler.prove_unreachable(member="db1", operation=ID) == {
        "refused": True,
        "evidence": "connection refused",
    }


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ({"db1": (False, 1, "s"), "db2": (True, 1, "s")}, "db1"),
        ({"db1": (False, 1, "s"), "db2": (False, 2, "s")}, "db2"),
        ({"db1": None, "db2": (True, 1, "s")}, ""),
    ],
)
def test_who_leads_is_asked_of_the_members(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, roles: dict[str, t.Any], expected: str
) -> None:
    names = {5431: "db1", 5432: "db2"}
    monkeypatch.setattr(agent_pooler, "peer_role", lambda params: roles[names[params.port]])
    assert bench.handler.writable_member() == expected


class Way:
    """A login through a bouncer that fails a few times."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch, *, error: str, times: int) -> None:
        self._error = error
        self._times = times
        self.asked = 0
        monkeypatch.setattr(bench.handler, "_log_in", self.log_in)

    def log_in(self, _process: PoolerProcess, _member: str) -> None:
        self.asked += 1
        if self.asked <= self._times:
            raise ConnectionFailed(self._error)


REMEMBERED = "server login has been failing, try again later (server_login_retry)"


def test_a_process_that_only_remembers_a_failed_login_is_asked_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = Way(bench, monkeypatch, error=REMEMBERED, times=5)
    waits = bench.handler.try_path(member="db2")["seconds"]
    assert way.asked == 7
    assert waits == {"1": pytest.approx(0.5), "2": 0.0}


def test_one_that_remembers_for_ever_has_no_way(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    Way(bench, monkeypatch, error=REMEMBERED, times=1000)
    with pytest.raises(ConnectionFailed, match="server_login_retry"):
        bench.handler.try_path(member="db2")
    assert sum(bench.clock.slept) == pytest.approx(agent_pooler.LOGIN_MEMORY, abs=0.3)


def test_a_refused_login_is_not_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    way = Way(bench, monkeypatch, error="password authentication failed", times=1)
    with pytest.raises(ConnectionFailed, match="password"):
        bench.handler.try_path(member="db2")
    assert (way.asked, bench.clock.slept) == (1, [])
