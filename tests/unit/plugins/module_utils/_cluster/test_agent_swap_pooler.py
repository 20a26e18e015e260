# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a bouncer host's agent does for a swap, over scripted consoles: one database is held, pools are emptied."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster import agent_pooler, agent_swap_pooler
from ansible_collections.hms.postgres.plugins.module_utils._cluster.agent import Context
from ansible_collections.hms.postgres.plugins.module_utils._cluster.agent_pooler import PoolerHandler
from ansible_collections.hms.postgres.plugins.module_utils._cluster.member_config import (
    BouncerHost,
    Login,
    Peer,
    PoolerProcess,
)
from ansible_collections.hms.postgres.plugins.module_utils._errors import DeadlinePassed, HmsError
from ansible_collections.hms.postgres.tests.unit.plugins.engine_facts import Channel, ScriptedClock


class Console:
    """One process with three databases: two names for the live one, one of them on a standby, and another database."""

    broken = False

    def __init__(self) -> None:
        self.told: list[str] = []
        self.rows = [
            self.row("hospital", "10.0.0.1"),
            self.row("hospital_ro", "10.0.0.2"),
            self.row("clinic", "10.0.0.1", database="clinic"),
            self.row("hms_path_db1", "10.0.0.1"),
        ]
        self.connections: list[dict[str, t.Any]] = []
        self.busy = 0

    @staticmethod
    def row(name: str, host: str, *, database: str = "hospital") -> dict[str, t.Any]:
        pool = {"pool_mode": None, "min_pool_size": "0", "paused": "0"}
        return {"name": name, "host": host, "port": "5432", "database": database, **pool}

    def databases(self) -> list[dict[str, t.Any]]:
        return self.rows

    def servers(self) -> list[dict[str, t.Any]]:
        return self.connections

    def config(self) -> dict[str, str]:
        return {"pool_mode": "transaction", "min_pool_size": "3"}

    def prepare_pause(self, _names: t.Iterable[str]) -> None:
        return None

    def drop_pausing_connections(self) -> None:
        return None

    def paused_databases(self) -> set[str]:
        return {row["name"] for row in self.rows if row["paused"] == "1"}

    def _paused(self, database: str, value: str) -> None:
        for row in self.rows:
            if row["name"] == database:
                row["paused"] = value

    def send_pause(self, database: str) -> None:
        self.told.append(f"pause {database}")
        self._paused(database, "1")

    def resume(self, database: str) -> None:
        self.told.append(f"resume {database}")
        self._paused(database, "0")

    def reconnect(self, database: str) -> None:
        self.told.append(f"reconnect {database}")

    def change(self, _name: str, _value: str) -> None:
        return None

    def busy_servers(self, _names: t.Collection[str]) -> int:
        return self.busy

    def close(self) -> None:
        return None


class Bench:
    """A handler with one scripted process."""

    def __init__(self, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.console = Console()
        self.clock = ScriptedClock()
        host = BouncerHost(
            name="bouncer1",
            cluster="hospital",
            environment="staging",
            address="10.0.1.1",
            state_directory=str(folder),
            database="hospital",
            os_user="root",
            port=6432,
            databases_file=str(folder / "databases.ini"),
            databases=({"name": "hospital", "dbname": "hospital"}, {"name": "clinic", "dbname": "clinic"}),
            processes=(PoolerProcess("1", "/run/1", "", ""),),
            monitor=Login("hms_monitor", "/pass"),
            members=(Peer("db1", "10.0.0.1", 5432), Peer("db2", "10.0.0.2", 5432)),
        )
        monkeypatch.setattr(agent_pooler, "PgbouncerConsole", lambda *_args, **_more: self.console)
        self.handler = PoolerHandler(host, Context(t.cast("t.Any", Channel()), self.clock, str(folder)))
        self.verbs = self.handler.verbs()


@pytest.fixture
def bench(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path, monkeypatch)
    made.verbs["prepare_swap"](databases=["hospital"], primary="db1")
    return made


def test_entries_are_found_by_the_database_that_they_lead_to(bench: Bench) -> None:
    bench.console.connections = [
        {"database": "hospital", "state": "idle", "remote_pid": "11"},
        {"database": "clinic", "state": "idle", "remote_pid": "12"},
        {"database": "hms_path_db1", "state": "idle", "remote_pid": "13"},
    ]
    routes = bench.verbs["look_routes"](databases=["hospital"])["routes"]
    assert [(entry["name"], entry["target"]) for entry in routes["entries"]] == [
        ("hospital", "10.0.0.1:5432"),
        ("hospital_ro", "10.0.0.2:5432"),
    ]
    assert {entry["pool_mode"] for entry in routes["entries"]} == {"transaction"}
    assert routes["pids"] == (11, 13)


def test_only_clients_of_that_database_are_held_and_let_go(bench: Bench) -> None:
    assert bench.handler.held == ["hospital", "hospital_ro"], "the one to the primary first: a write goes there"
    bench.verbs["hold_swap"](deadline=2.0)
    assert bench.console.paused_databases() == {"hospital", "hospital_ro"}
    bench.verbs["resume"]()
    assert bench.console.told == ["pause hospital", "pause hospital_ro", "resume hospital", "resume hospital_ro"]


def test_pools_are_emptied_and_what_is_left_of_ours_is_named(bench: Bench) -> None:
    bench.console.connections = [
        {"database": "hms_path_db1", "state": "idle", "remote_pid": "13"},
        {"database": "hospital", "state": "login", "remote_pid": "14"},
    ]
    found = bench.verbs["hold_swap"](deadline=2.0)
    assert (found["emptied"], found["pids"]) == (False, [13, 14])
    bench.console.connections = bench.console.connections[:1]
    assert bench.verbs["hold_swap"](deadline=2.0)["emptied"]


def test_who_does_not_come_to_rest_is_told_by_the_argument_s_name(bench: Bench) -> None:
    bench.console.busy = 1
    with pytest.raises(DeadlinePassed) as caught:
        bench.verbs["hold_swap"](deadline=1.0)
    assert "hold_deadline" in caught.value.next_step


class Session:
    """A client's session through a process, in the database `oid`."""

    oid = "2"

    def records(self, _sql: str, *, timeout: float) -> list[dict[str, str]]:
        assert timeout > 0
        return [{"oid": self.oid, "name": "hospital"}]

    def close(self) -> None:
        return None


def test_a_process_that_leads_elsewhere_is_found(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_swap_pooler, "connect", lambda _params: Session())
    asked: dict[str, t.Any] = {"operation": "x", "write": False, "deadline": 2.0}
    assert bench.verbs["verify_swap"](oid=2, **asked)["seen"]["1"]["oid"] == "2"
    with pytest.raises(HmsError, match="leads to the database with OID 2") as caught:
        bench.verbs["verify_swap"](oid=3, **asked)
    assert caught.value.reason == "wrong_database"


def test_a_login_that_fails_at_first_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [HmsError("server login has been failing"), HmsError("once more")]

    def opened(_params: t.Any) -> Session:
        if errors:
            raise errors.pop()
        return Session()

    monkeypatch.setattr(agent_swap_pooler, "connect", opened)
    found = bench.verbs["verify_swap"](operation="x", oid=2, write=False, deadline=2.0)
    assert found["seen"]["1"]["seconds"] == pytest.approx(0.1, abs=0.02)


def test_entries_on_standbys_connect_anew(bench: Bench) -> None:
    assert bench.verbs["reconnect"](primary="db1") == {"reconnected": ["1/hospital_ro"]}
    assert bench.console.told == ["reconnect hospital_ro"]
