# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of things in a cutover, and the ways back, with scripted hosts."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster.cutover_model import (
    CutoverPlan,
    CutoverRequest,
)
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator import cutover, cutover_proof, cutover_run
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.course import Job
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.cutover_task import run_pitr_cutover
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.overview import Site
from ansible_collections.hms.postgres.tests.unit.plugins.engine_facts import exchange
from ansible_collections.hms.postgres.tests.unit.plugins.plugin_utils._coordinator.scripted_fleet import ScriptedRun

PLAN = CutoverPlan(
    "cutover",
    "",
    old_primary="db1",
    new_primary="db1",
    poolers=("bouncer1", "bouncer2"),
    directory="/data.pitr",
    live="/data",
    kept="/data.before",
    target="noon",
    slots=("db2",),
    sync_names="",
    fence=("db2",),
)
EXCHANGE = exchange()
HOLD = ["hold@bouncer1", "hold@bouncer2"]
RESUME = ["resume@bouncer1", "resume@bouncer2"]
STEPS = ["cutover_stop@db1", "cutover_exchange@db1", "cutover_start@db1"]
SETTLE = "cutover_settle@db1"
REOPENED = ["reopen@db1", "lock@db1"]
FAILED = HmsError("it failed")

ANSWERS: dict[str, dict[str, t.Any]] = {
    "lock": {"holder": None},
    "cutover_stop": {"not_archived": ["000000010000000000000003.ready"], "left_lsn": 900},
    "promote_side": {"exchange": dataclasses.asdict(EXCHANGE)},
    SETTLE: {"outcome": "old"},
}


class Run(ScriptedRun):
    """One cutover at work."""

    kind = "cutover"
    answers = ANSWERS

    def go(self) -> cutover.Exchanged:
        return cutover.execute(self.operation, PLAN, CutoverRequest(), EXCHANGE)


@pytest.fixture
def run(tmp_path: pathlib.Path) -> t.Iterator[Run]:
    with contextlib.closing(Run(tmp_path)) as made:
        yield made


def test_everything_slow_comes_before(run: Run) -> None:
    assert cutover.arm(run.operation, PLAN) == EXCHANGE
    assert run.fleet.told == [
        "promote_side@db1",
        "prepare@bouncer1",
        "prepare@bouncer2",
        "probe_start@bouncer1",
        "probe_start@bouncer2",
        "checkpoint@db1",
    ]
    assert run.fleet.args_of("promote_side@db1")["kept"] == "/data.before"
    run.fails = {"promote_side@db1": {"exchange": None}}
    with pytest.raises(HmsError, match="journal is not one"):
        cutover.arm(run.operation, PLAN)


def test_all_hold_then_it_is_exchanged_then_all_go_on(run: Run) -> None:
    found = run.go()
    assert run.fleet.told == [*HOLD, *STEPS, *RESUME]
    assert run.operation.committed
    assert (found.held, found.exchange.left_lsn, len(found.not_archived)) == ((), 900, 1)


@pytest.mark.parametrize("step", [*HOLD, *STEPS])
def test_what_fails_is_put_back_by_the_host_and_all_go_on(run: Run, step: str) -> None:
    run.fails = {step: FAILED}
    error = run.fail()
    assert error.state.startswith("db1 leads with the data that it had; the clients go on there.")
    done = [*HOLD, *STEPS[: STEPS.index(step) + 1]] if step in STEPS else HOLD
    assert run.fleet.told == [*done, SETTLE, *RESUME]
    assert run.fleet.args_of(SETTLE) == {"forward": False}


def test_what_has_run_there_goes_forward(run: Run) -> None:
    run.fails = {"cutover_start@db1": FAILED, SETTLE: {"outcome": "new"}}
    assert run.go().held == ()
    assert run.operation.committed
    assert run.fleet.told[-3:] == [SETTLE, *RESUME]


def test_an_agent_that_was_lost_is_started_again_and_sees_it_through(run: Run) -> None:
    run.fails = {"cutover_start@db1": None, SETTLE: {"outcome": "new"}}
    run.fleet.revives = {"db1"}
    assert run.go().held == ()
    assert run.fleet.told[-5:] == [*REOPENED, SETTLE, *RESUME]
    assert run.fleet.args_of(SETTLE) == {"forward": True}


def test_a_host_that_is_gone_is_left_to_its_agent_and_the_next_run(run: Run) -> None:
    run.fails = {"cutover_exchange@db1": None}
    error = run.fail()
    assert error.state.startswith("The line to db1 is lost.")
    assert error.next_step == "Run it again: it reads from the directories what holds."
    assert run.fleet.told[-2:] == RESUME


def test_a_host_that_can_not_be_put_in_order_says_so(run: Run) -> None:
    run.fails = {"cutover_exchange@db1": FAILED, SETTLE: HmsError("no room", next_step="Make some.")}
    error = run.fail()
    assert (error.state, error.next_step) == ("db1 could not be put in order: no room", "Make some.")


def test_a_bouncer_that_was_lost_while_it_held_is_started_again(run: Run) -> None:
    run.fails = {"resume@bouncer2": None}
    run.fleet.revives = {"bouncer2"}
    assert run.go().held == ()
    assert run.fleet.told[-3:] == ["reopen@bouncer2", "lock@bouncer2", "resume@bouncer2"]


def test_one_that_never_comes_back_is_named(run: Run) -> None:
    run.fails = {"resume@bouncer2": None}
    assert run.go().held == ("bouncer2",)


def test_standbys_are_fenced_and_the_new_timeline_is_archived(run: Run) -> None:
    cutover.fence(run.operation, PLAN)
    cutover.finish(run.operation, PLAN)
    assert run.fleet.told == ["fence@db2", "cutover_finish@db1"]
    assert run.fleet.args_of("fence@db2")["new_primary"] == "db1"
    run.fleet.told.clear()
    cutover.fence(run.operation, dataclasses.replace(PLAN, fence=()))
    assert run.fleet.told == []


def test_what_a_killed_run_left_is_put_in_order(run: Run) -> None:
    cutover.settle_killed(run.operation, dataclasses.replace(PLAN, settle=("db1",)))
    assert run.fleet.told == [SETTLE]


def test_writes_of_before_are_not_looked_for_in_what_came_after() -> None:
    samples = {"one": [[10.0, 0.1, "ok"], [11.0, 5.0, "ok"], [17.0, 0.1, "ok"]]}
    assert cutover_proof.present_or_before(samples, {"one": [2]}, 12.0) == {"one": {1, 2}}


def fail(run: Run, error: HmsError) -> None:
    """Have the course write down how it failed."""
    site = Site("hospital", "staging", ("db1", "db2"), ("bouncer1",))
    job = Job(CutoverRequest(), site, (), b"", "tester@here", "", {}, "0")
    course = cutover_run.Cutover(job, job.request, run.operation.clock)
    course._end_failed(run.operation, course.failed(run.operation, PLAN, error), error)


@pytest.mark.parametrize(
    ("committed", "phase", "status"), [(True, "", "incomplete"), (False, "critical", "rolled_back")]
)
def test_how_it_failed_is_written_down(run: Run, *, committed: bool, phase: str, status: str) -> None:
    run.operation.committed = committed
    fail(run, HmsError("it failed", phase=phase))
    assert run.operation.journal.document()["outcome"]["status"] == status


def test_a_failure_while_arming_is_a_refusal(run: Run) -> None:
    error = HmsError("it failed")
    fail(run, error)
    assert error.state == "No client was held; the live cluster is as it was."
    assert run.operation.journal.document()["outcome"]["status"] == "refused"


def test_an_argument_out_of_its_range_is_refused() -> None:
    found = run_pitr_cutover({"hold_seconds": 0.0}, {}, check_mode=True)
    assert found["failed"]
    assert found["reason"] == "bad_argument"
