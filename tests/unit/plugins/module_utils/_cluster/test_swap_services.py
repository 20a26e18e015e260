# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which services are stopped and started around a swap, and what forbids it."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster import swap_services
from ansible_collections.hms.postgres.plugins.module_utils._cluster.swap_model import (
    HostUnits,
    Names,
    Service,
    Sight,
    SwapRequest,
)
from ansible_collections.hms.postgres.plugins.module_utils._cluster.swap_plan import plan_swap
from ansible_collections.hms.postgres.plugins.module_utils._tools.database_rename import Database
from ansible_collections.hms.postgres.plugins.module_utils._tools.systemd_units import UnitState
from ansible_collections.hms.postgres.tests.unit.plugins.engine_facts import cluster

WEB, WORKER, BEAT = Service("app1", "web.service"), Service("app2", "worker.service"), Service("app1", "beat.timer")
ACTIVE = UnitState("web.service", "loaded", "active", "running")
APP1 = HostUnits("app1", (ACTIVE, UnitState("beat.timer", "loaded", "inactive", "dead")))
APP2 = HostUnits("app2", (dataclasses.replace(ACTIVE, unit="worker.service"),))


def request(*services: Service) -> SwapRequest:
    return SwapRequest("swapped", "hospital", "new", services=services or (WEB, WORKER, BEAT))


def sight(*seen: HostUnits, **more: t.Any) -> Sight:
    return Sight(services=seen or (APP1, APP2), **more)


def test_what_runs_is_stopped_in_order_and_started_in_the_other() -> None:
    stopped = swap_services.stopping(sight(), request())
    assert stopped == (WEB, WORKER)
    assert swap_services.starting(sight(), stopped) == (WORKER, WEB)
    assert [(each.id, each.host, each.what) for each in swap_services.stop_actions(stopped, "hospital")] == [
        ("stop_units", "app1", "stop web.service"),
        ("stop_units", "app2", "stop worker.service"),
    ]
    assert swap_services.warnings(sight(), request(), stopped) == [
        "beat.timer on app1 does not run (inactive (dead)): it is not started either."
    ]


def test_what_an_earlier_run_left_stopped_is_started_whether_it_was_asked_for_or_not() -> None:
    left = dataclasses.replace(APP1, left=("beat.timer", "old.service"), left_by="20261122T154500Z-swap-3fa9")
    seen = sight(left, APP2)
    stopped = swap_services.stopping(seen, request())
    assert stopped == (WEB, WORKER, BEAT), "it would run"
    started = swap_services.starting(seen, stopped)
    assert started == (WORKER, WEB, Service("app1", "old.service"), BEAT)
    whys = {action.what: action.why for action in swap_services.start_actions(seen, started)}
    assert whys["start old.service"] == "20261122T154500Z-swap-3fa9 stopped it and did not start it again"
    assert whys["start web.service"] == "it ran before"


@pytest.mark.parametrize(
    ("services", "seen", "rule", "words"),
    [
        ((Service("app1", "web"),), (), "bad_service", "'web' on app1 is no name"),
        ((WEB, WEB), (), "bad_service", "web.service on app1 is named twice."),
        ((WEB,), (HostUnits("app1", error="no route"),), "service_unreachable", "could not be looked at: no route"),
        ((WEB,), (HostUnits("app1", error="none", reason="no_systemd"),), "no_systemd", "app1: none"),
        ((WEB,), (HostUnits("app1", (UnitState("web.service", "masked"),)),), "unknown_unit", "it is masked."),
    ],
)
def test_what_forbids_it(services: tuple[Service, ...], seen: tuple[HostUnits, ...], rule: str, words: str) -> None:
    found = list(swap_services.rules(Sight(services=seen), request(*services)))
    assert [each.rule for each in found] == [rule]
    assert words in found[0].message
    assert found[0].next_step
    assert not found[0].overridable


def test_only_units_are_looked_at() -> None:
    assert swap_services.asked_of(request(WEB, BEAT, WORKER, Service("app3", "*"))) == {
        "app1": ["web.service", "beat.timer"],
        "app2": ["worker.service"],
    }


def test_a_swap_that_is_done_only_starts_what_is_left() -> None:
    live = Database("hospital", 16390, mark_was="new", mark_operation="x")
    names = Names("hospital", "new", "", done=True)
    left = dataclasses.replace(APP1, left=("web.service",), left_by="it")
    unseen = HostUnits("app2", error="no route")
    made = plan_swap(cluster(), sight(left, unseen, names=names, databases=(live,)), request())
    assert made.finishing
    assert [(each.id, each.host) for each in made.actions] == [("start_units", "app1")]
    assert made.summary.endswith("What an earlier run left stopped is started: web.service on app1.")
    assert made.warnings == ("Whether its services run could not be asked on app2: no route",)
    nothing = plan_swap(cluster(), sight(names=names, databases=(live,)), request())
    assert not nothing.changed
