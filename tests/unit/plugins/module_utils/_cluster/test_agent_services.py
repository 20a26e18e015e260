# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Units in an agent's hands: noted before they are stopped, started again when nobody says so."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster.agent import Context
from ansible_collections.hms.postgres.plugins.module_utils._cluster.agent_services import ServiceHandler, ServiceVerbs
from ansible_collections.hms.postgres.plugins.module_utils._errors import DeadlinePassed, HmsError
from ansible_collections.hms.postgres.plugins.module_utils._tools.systemd_units import UnitState
from ansible_collections.hms.postgres.tests.unit.plugins.engine_facts import Channel, ScriptedClock

ID = "20261122T154500Z-swap-3fa9"


class Units:
    """systemd, as a table. Orders take effect after `takes` questions; some units never do what they are told."""

    def __init__(self, **active: str) -> None:
        self.active = {name.replace("_", "-") + ".service": state for name, state in active.items()}
        self.there = True
        self.orders: list[str] = []
        self.stubborn: set[str] = set()
        self.deaf = False
        self.restarts = 0
        self.failing: dict[str, int] = {}
        """How often a start of it fails."""

    def show(self, unit: str) -> UnitState:
        state = self.active.get(unit)
        return UnitState(unit, "loaded" if state else "not-found", state or "inactive", restarts=self.restarts)

    def stop(self, unit: str) -> None:
        self.orders.append(f"stop {unit}")
        self.active[unit] = "deactivating" if unit in self.stubborn else "inactive"

    def start(self, unit: str) -> None:
        self.orders.append(f"start {unit}")
        if self.deaf:
            return
        left = self.failing.get(unit, 0)
        self.failing[unit] = left - 1
        self.active[unit] = "failed" if left > 0 else "active"


class World:
    def __init__(self, directory: pathlib.Path, **active: str) -> None:
        self.units = Units(**active)
        self.clock = ScriptedClock()
        self.context = Context(t.cast(t.Any, Channel()), self.clock, str(directory / "state"))
        self.context.operation = ID
        self.verbs = ServiceVerbs(self.context, t.cast(t.Any, self.units))
        self._path = directory / "state" / "services.json"

    def note(self) -> list[str]:
        return list(json.loads(self._path.read_text())["units"]) if self._path.exists() else []


@pytest.fixture
def world(tmp_path: pathlib.Path) -> World:
    return World(tmp_path, web="active", worker="active", beat="inactive")


ALL = ("web.service", "worker.service", "beat.service")


def test_what_runs_is_noted_and_stopped_and_started(world: World) -> None:
    assert world.verbs.stop_units(units=ALL, deadline=5.0)["before"]["beat.service"] == "inactive"
    assert world.units.orders == ["stop web.service", "stop worker.service"]
    assert world.note() == ["web.service", "worker.service"]
    assert (world.context.holding, world.context.in_hand) == (False, True), "silence counts now"
    found = world.verbs.start_units(units=["worker.service", "web.service"], deadline=5.0)
    assert found["failed"] == {}
    assert (world.note(), world.context.in_hand) == (["web.service", "worker.service"], True), "it may end at once"
    assert world.verbs.settle_units(restarts=found["restarts"]) == {"failed": {}}
    assert (world.note(), world.context.in_hand) == ([], False)
    assert world.verbs.start_units(units=["web.service"], deadline=5.0)["failed"] == {}
    assert world.units.orders[2:] == ["start worker.service", "start web.service"], "what is up is left alone"


def test_one_that_does_not_stop_is_told(world: World) -> None:
    world.units.stubborn = {"worker.service"}
    with pytest.raises(DeadlinePassed, match=r"worker.service is deactivating still, 5 seconds after") as caught:
        world.verbs.stop_units(units=ALL, deadline=5.0)
    assert caught.value.reason == "unit_stays"
    assert world.note() == ["web.service", "worker.service"], "both are to be started"


def test_one_that_does_not_start_stays_noted_and_is_not_the_dead_man_s(world: World) -> None:
    world.verbs.stop_units(units=ALL, deadline=5.0)
    world.units.failing = {"web.service": 99}
    found = world.verbs.start_units(units=["worker.service", "web.service"], deadline=5.0)
    assert found["failed"] == {"web.service": "it is failed"}
    world.verbs.settle_units(restarts=found["restarts"])
    assert world.note() == ["web.service"]
    assert not world.context.units_down
    world.verbs.alone()
    assert world.units.orders.count("start web.service") == 1
    seen = world.verbs.look_units(units=["worker.service"])
    assert (seen["left"], seen["left_by"]) == (["web.service"], ID)
    assert seen["units"] == [dataclasses.asdict(world.units.show("worker.service"))]


def test_one_that_ends_after_its_start_stays_noted(world: World) -> None:
    world.verbs.stop_units(units=ALL, deadline=5.0)
    found = world.verbs.start_units(units=["worker.service", "web.service"], deadline=5.0)
    world.units.active["web.service"] = "failed"
    world.units.restarts = 2
    told = world.verbs.settle_units(restarts=found["restarts"])["failed"]
    assert told == {
        "worker.service": "1 s after its start it is active, started again by systemd",
        "web.service": "1 s after its start it is failed, started again by systemd",
    }
    assert world.note() == ["web.service", "worker.service"]
    assert not world.context.units_down


def test_one_that_starts_for_ever_is_given_up(world: World) -> None:
    world.units.active["web.service"] = "activating"
    world.units.deaf = True
    found = world.verbs.start_units(units=["web.service"], deadline=5.0)
    assert found["failed"] == {"web.service": "it is activating still, after 5 seconds"}


def test_alone_it_starts_what_it_stopped_and_tries_again(world: World) -> None:
    world.verbs.stop_units(units=ALL, deadline=5.0)
    world.context.alone = True
    world.units.failing = {"web.service": 2}
    world.verbs.alone()
    starts = [order for order in world.units.orders if order.startswith("start")]
    assert starts == ["start worker.service", "start web.service", "start web.service", "start web.service"]
    assert world.note() == []


def test_alone_it_ends_trying(world: World) -> None:
    world.verbs.stop_units(units=ALL, deadline=5.0)
    world.context.alone = True
    world.units.failing = {"web.service": 99}
    world.verbs.alone()
    assert world.units.orders.count("start web.service") == 5
    assert world.note() == ["web.service"]


def test_without_a_note_on_disk_nothing_is_stopped(world: World, tmp_path: pathlib.Path) -> None:
    (tmp_path / "state").write_text("in the way")
    with pytest.raises(HmsError, match=r"could not be noted in .* So it was not stopped"):
        world.verbs.stop_units(units=ALL, deadline=5.0)
    assert world.units.orders == []


def test_a_note_that_cannot_be_read_is_told(world: World, tmp_path: pathlib.Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "services.json").write_text('{"units": [')
    with pytest.raises(HmsError, match=r"services.json is damaged") as caught:
        world.verbs.look_units(units=ALL)
    assert caught.value.reason == "bad_note"


def test_no_systemd_no_units(world: World) -> None:
    world.units.there = False
    with pytest.raises(HmsError) as caught:
        world.verbs.look_units(units=ALL)
    assert caught.value.reason == "no_systemd"


def test_a_host_without_a_role_has_nothing_else() -> None:
    handler = ServiceHandler()
    handler.channel_lost()
    handler.close()
    assert (dict(handler.verbs()), handler.observe()) == ({}, {"facts": {}})
