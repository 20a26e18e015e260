# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Services around a swap with scripted hosts: their order, and what is said of one that doesn't run."""

from __future__ import annotations

import contextlib
import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster.swap_model import (
    HostUnits,
    Service,
    SwapPlan,
    SwapRequest,
)
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator import services, swap_task
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.overview import Site
from ansible_collections.hms.postgres.tests.unit.plugins.plugin_utils._coordinator.scripted_fleet import (
    Say,
    ScriptedRun,
)

WEB, WORKER = Service("app1", "web.service"), Service("app2", "worker.service")
PLAN = SwapPlan("swap", "", database="hospital", stopping=(WEB, WORKER), starting=(WORKER, WEB))
REQUEST = SwapRequest("swapped", "hospital", services=(WEB, WORKER))
STOP = ["stop_units@app1", "stop_units@app2"]
START = ["start_units@app2", "start_units@app1"]
SETTLE = ["settle_units@app2", "settle_units@app1"]
FAILED = HmsError("it failed", next_step="See why.")
RUNS = {"load": "loaded", "active": "active", "sub": "running"}


class Run(ScriptedRun):
    """The services of a swap."""

    kind = "swap"
    hosts = ("app1", "app2")

    def answer(self, _told: str, verb: str, args: dict[str, t.Any]) -> Say:
        if verb == "lock":
            return {"holder": None}
        if verb == "look_units":
            return {"units": [{"unit": unit, **RUNS} for unit in args["units"]], "left": [], "left_by": ""}
        return {"failed": {}, "restarts": dict.fromkeys(args.get("units", ()), 0)}

    def start(self) -> dict[Service, str]:
        return services.start(self.operation, PLAN, REQUEST)


@pytest.fixture
def run(tmp_path: pathlib.Path) -> t.Iterator[Run]:
    with contextlib.closing(Run(tmp_path)) as made:
        yield made


def test_stopped_in_order_started_in_the_other(run: Run) -> None:
    services.stop(run.operation, PLAN, REQUEST)
    assert run.start() == {}
    assert run.fleet.told == [*STOP, *START, *SETTLE]
    assert run.fleet.args_of("stop_units@app1") == {"units": ["web.service"], "deadline": 60.0}
    services.demand(PLAN, {}, done="")


def test_one_that_fails_keeps_no_other_from_starting_and_is_named(run: Run) -> None:
    run.fails = {"start_units@app2": {"failed": {"worker.service": "it is failed (exit-code)"}, "restarts": {}}}
    found = run.start()
    assert found == {WORKER: "it is failed (exit-code)"}
    assert run.fleet.told == [*START, "settle_units@app1"]
    with pytest.raises(HmsError) as caught:
        services.demand(PLAN, found, done="It is done.")
    error = caught.value
    assert error.message == "Not started again: worker.service on app2: it is failed (exit-code)."
    assert error.state == "It is done. hospital serves."
    assert error.next_step.startswith("See journalctl -u worker.service on app2. Then run it again")


def test_one_that_ends_at_once_is_seen(run: Run) -> None:
    run.fails = {"settle_units@app1": {"failed": {"web.service": "1 s after its start it is failed"}}}
    assert run.start() == {WEB: "1 s after its start it is failed"}
    run.fails = {"settle_units@app1": FAILED}
    assert run.start()[WEB] == "it was started, and could not be asked about again: it failed"


def test_a_lost_agent_is_started_again(run: Run) -> None:
    run.fails = {"start_units@app1": None}
    run.fleet.revives = {"app1"}
    assert run.start() == {}
    assert run.fleet.told == [*START, "reopen@app1", "lock@app1", "start_units@app1", *SETTLE]


def test_one_that_stays_lost_is_told(run: Run) -> None:
    run.fails = {"start_units@app1": None}
    assert run.start() == {WEB: "the line to the host is lost; if its agent lives, it starts it alone"}


def test_after_a_failure_they_are_started_and_the_error_says_so(run: Run) -> None:
    run.fails = {"stop_units@app2": FAILED}
    with pytest.raises(HmsError) as caught:
        services.stop(run.operation, PLAN, REQUEST)
    services.after_failure(run.operation, PLAN, REQUEST, caught.value)
    assert run.fleet.told == [*STOP, *START, *SETTLE]
    assert caught.value.phase == "services"
    assert caught.value.state.endswith("no client was held. The services that were stopped run again.")
    run.fails = {"start_units@app1": FAILED}
    services.after_failure(run.operation, PLAN, REQUEST, caught.value)
    assert "Not started again: web.service on app1: it failed." in caught.value.state
    assert caught.value.next_step.startswith("See why. See journalctl -u web.service on app1.")


def test_without_services_nothing_is_said(run: Run) -> None:
    plan = SwapPlan("swap", "")
    error = HmsError("x")
    services.after_failure(run.operation, plan, REQUEST, error)
    assert services.start(run.operation, plan, REQUEST) == {}
    assert (run.fleet.told, error.state) == ([], "")


def test_hosts_are_looked_at_once_each(run: Run) -> None:
    run.fails = {"look_units@app2": FAILED}
    found = services.look(run.fleet, REQUEST)
    assert [(each.host, each.error) for each in found] == [("app1", ""), ("app2", "it failed")]
    assert found[0].unit("web.service") is not None
    run.fails = {"look_units@app1": None}
    services.look(run.fleet, REQUEST)
    assert services.look(run.fleet, REQUEST)[0] == HostUnits("app1", error="the line closed")


def test_hosts_with_a_role_need_no_line_of_their_own() -> None:
    site = Site("hospital", "staging", ("db1",), ("bouncer1",))
    asked = [{"host": host, "unit": "x.service"} for host in ("app1", "db1", "app2", "app1")]
    hosts: dict[str, t.Any] = {"app1": {}, "app2": {}, "db1": {}}
    assert swap_task.site_with_services(site, asked, hosts).services == ("app1", "app2")
    with pytest.raises(Refused, match=r"app2, which is to run x.service, is not in the inventory"):
        swap_task.site_with_services(site, asked, {"app1": {}, "db1": {}})
