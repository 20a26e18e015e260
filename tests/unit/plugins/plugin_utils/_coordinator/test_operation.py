# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One operation: what it writes down, how it takes votes, how it brings lost agents back."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import ConnectionFailed, HmsError, Refused
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.operation import Asked, Operation
from ansible_collections.hms.postgres.tests.unit.plugins.engine_facts import ScriptedClock
from ansible_collections.hms.postgres.tests.unit.plugins.plugin_utils._coordinator.scripted_fleet import (
    ID,
    Say,
    ScriptedFleet,
    Told,
    operation,
)

HOSTS = ("db2", "bouncer1", "db1")


class Site:
    """An operation over scripted hosts."""

    def __init__(self, directory: pathlib.Path, say: Told) -> None:
        self.clock = ScriptedClock()
        self.fleet = ScriptedFleet(HOSTS, say, self.clock)
        self.operation = operation(self.fleet, directory, self.clock)

    def steps(self) -> list[tuple[str, str, str]]:
        return [(step["id"], step["host"], step["result"]) for step in self.operation.journal.document()["steps"]]


def nobody(_host: str, verb: str, _args: dict[str, t.Any]) -> Say:
    return {"holder": None} if verb == "lock" else {}


@pytest.fixture
def make(tmp_path: pathlib.Path) -> t.Iterator[t.Callable[[Told], Site]]:
    made: list[Site] = []

    def site(say: Told = nobody) -> Site:
        made.append(Site(tmp_path, say))
        return made[-1]

    yield site
    for each in made:
        each.operation.journal.close()


Make = t.Callable[..., Site]


def test_every_step_is_written_when_it_begins_and_when_it_ends(make: Make) -> None:
    site = make()
    with site.operation.step("choose", phase="critical", host="controller", title="Compare") as step:
        assert site.steps() == [("choose", "controller", "running")]
        site.clock.seconds += 0.25
        step.detail = "db2"
    (written,) = site.operation.journal.document()["steps"]
    assert (written["started"], written["ended"], written["result"], written["detail"]) == (0.0, 0.25, "ok", "db2")
    with pytest.raises(HmsError, match="no"), site.operation.step("fence", phase="critical", host="x", title="t"):
        raise HmsError("no", details={"why": 1})
    assert site.operation.journal.document()["steps"][1]["evidence"] == {"why": 1}


def test_the_first_error_of_many_hosts_is_raised_and_all_are_written(make: Make) -> None:
    site = make(lambda host, _verb, _args: HmsError(f"{host} is busy") if host != "db1" else {"ok": 1})
    requests: dict[str, tuple[str, dict[str, t.Any]]] = {host: ("hold", {}) for host in HOSTS}
    with pytest.raises(HmsError, match="db2 is busy"):
        site.operation.everywhere("hold", requests, phase="critical", title="t", timeout=3.0)
    assert site.steps() == [("hold", "db2", "failed"), ("hold", "bouncer1", "failed"), ("hold", "db1", "ok")]
    answers = site.operation.everywhere("hold", requests, phase="critical", title="t", timeout=3.0, tolerate=True)
    assert [host for host, answer in answers.items() if answer.error] == ["db2", "bouncer1"]


def test_votes_are_taken_in_one_order_for_all(make: Make) -> None:
    site = make()
    site.operation.lock(HOSTS, patience=1.0)
    assert site.fleet.told == ["lock@bouncer1", "lock@db1", "lock@db2"]
    assert site.operation.journal.document()["steps"][0]["detail"] == "3 of 3 votes"


def test_a_second_operator_is_refused_by_name_at_once(make: Make) -> None:
    holder = {"id": "theirs", "by": "them@there", "since": "noon"}
    site = make(lambda host, _verb, _args: {"holder": holder if host == "db1" else None})
    with pytest.raises(Refused) as caught:
        site.operation.lock(HOSTS, patience=60.0)
    assert caught.value.message == ("Another operation is at work: theirs, started by them@there at noon, holds db1.")
    assert (caught.value.reason, caught.value.phase) == ("operation_running", "arm")
    assert site.clock.slept == []


@pytest.mark.parametrize(("ends_after", "refused"), [(10.0, False), (1e9, True)])
def test_agents_that_put_things_in_order_are_waited_for(make: Make, ends_after: float, refused: bool) -> None:
    holder = {"id": "theirs", "by": "them", "winding_up": True}
    site = make()
    site.fleet._say = lambda *_told: {"holder": holder if site.clock.seconds < 1000 + ends_after else None}
    if refused:
        with pytest.raises(Refused, match="whose controller is gone, are still putting things in order on bouncer1"):
            site.operation.lock(HOSTS, patience=30.0)
        assert 30.0 <= sum(site.clock.slept) < 32.0
    else:
        site.operation.lock(HOSTS, patience=30.0)
        assert 10.0 <= sum(site.clock.slept) < 12.0
    assert site.fleet.kept_alive >= len(site.clock.slept)


def dying(host: str, verb: str, _args: dict[str, t.Any]) -> Say:
    if verb == "lock":
        return {"holder": None}
    return None if host == "db1" and verb == "stop" else {}


def test_a_lost_agent_is_started_again_and_votes_again(make: Make) -> None:
    site = make(dying)
    site.operation.lock(HOSTS, patience=1.0)
    with pytest.raises(ConnectionFailed):
        site.operation.one("stop", "db1", "stop", phase="critical", title="t", timeout=1.0)
    site.fleet.revives = {"db1"}
    site.operation.revive(["db1", "db2"])
    assert site.fleet.told[-2:] == ["reopen@db1", "lock@db1"]
    assert site.fleet.reachable("db1")


def test_one_that_acts_alone_is_left_to_it(make: Make) -> None:
    """Its line broke, it lives: its vote is still taken, and two of them at work on one host would be one too many."""
    site = make(dying)
    site.operation.lock(HOSTS, patience=1.0)
    site.fleet.ask({"db1": ("stop", {})}, 1.0)
    site.fleet.revives = {"db1"}
    site.fleet._say = lambda *_told: {"holder": {"id": ID, "winding_up": True}}
    site.operation.revive(["db1"])
    assert not site.fleet.reachable("db1")


def test_only_those_that_were_there_are_started_again(make: Make) -> None:
    """A host that was out of reach from the beginning would cost its whole patience while clients wait."""
    site = make(dying)
    site.operation.lock(["db2"], patience=1.0)
    site.fleet.ask({"db1": ("stop", {})}, 1.0)
    site.operation.revive(HOSTS)
    assert "reopen@db1" not in site.fleet.told


def test_time_passes_with_a_word_now_and_then(make: Make) -> None:
    site = make()
    site.operation.pause(1.0)
    assert sum(site.clock.slept) == pytest.approx(1.0, abs=0.1)
    assert site.fleet.kept_alive >= 10


def test_a_record_that_can_t_be_written_is_said_before_anything_is_touched(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    clock = ScriptedClock()
    fleet = ScriptedFleet(HOSTS, nobody, clock)
    with pytest.raises(HmsError, match="record can't be written to") as caught:
        Operation(
            identifier=ID,
            kind="failover",
            directory=str(tmp_path / "file" / "records"),
            asked=Asked("me", "hospital", "staging", {}),
            fleet=fleet,
            clock=clock,
        )
    assert caught.value.reason == "no_record"
    assert fleet.told == []
