# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The order of things in a swap, and the ways back, with scripted hosts."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster.swap_model import SwapPlan, SwapRequest
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator import swap, swap_task
from ansible_collections.hms.postgres.tests.unit.plugins.engine_facts import ScriptedClock
from ansible_collections.hms.postgres.tests.unit.plugins.plugin_utils._coordinator.scripted_fleet import ScriptedRun

PLAN = SwapPlan(
    "swap",
    "",
    old_primary="db1",
    new_primary="db1",
    poolers=("bouncer1", "bouncer2"),
    database="hospital",
    scratch="new",
    keep="old",
    live_oid=1,
    scratch_oid=2,
    standbys=("db2",),
    probe=True,
    support_missing=("the table hms.write_probe",),
)
REQUEST = SwapRequest("swapped", "hospital", "new", "old")
HOLD = ["hold_swap@bouncer1", "hold_swap@bouncer2"]
RESUME = ["resume@bouncer1", "resume@bouncer2"]
OUTCOME = "swap_outcome@db1"
REOPENED = ["reopen@db1", "lock@db1"]

ANSWERS: dict[str, dict[str, t.Any]] = {
    "lock": {"holder": None},
    "hold_swap": {"pids": [11, 12]},
    "swap": {"lsn": "0/3000148", "ended": ["pid 7"]},
    "look_routes": {"routes": {"host": "x", "entries": [], "pids": [5]}},
    OUTCOME: {"decided": True, "swapped": False},
}

FAILED = HmsError("it failed")


class Run(ScriptedRun):
    """One swap at work."""

    kind = "swap"
    answers = ANSWERS

    def go(self) -> swap.Swapped:
        return swap.execute(self.operation, PLAN, REQUEST)


@pytest.fixture
def run(tmp_path: pathlib.Path) -> t.Iterator[Run]:
    with contextlib.closing(Run(tmp_path)) as made:
        yield made


def test_all_hold_then_both_are_renamed_then_all_go_on(run: Run) -> None:
    found = run.go()
    assert run.fleet.told == [*HOLD, "swap@db1", *RESUME]
    assert run.fleet.args_of("swap@db1")["pids"] == [11, 12]
    assert run.fleet.args_of("swap@db1")["policy"] == "terminate"
    assert run.operation.committed
    assert (found.lsn, found.ended, found.held) == ("0/3000148", ("pid 7",), ())


def test_one_that_cannot_hold_lets_all_go_on(run: Run) -> None:
    run.fails = {"hold_swap@bouncer2": FAILED}
    assert run.fail().state == "hospital is the database that it was; the clients go on there. Nothing was changed."
    assert run.fleet.told == [*HOLD, *RESUME]


def test_a_rename_that_failed_is_asked_for_in_the_catalog(run: Run) -> None:
    run.fails = {"swap@db1": FAILED}
    error = run.fail()
    assert error.state.endswith("Nothing was changed.")
    assert run.fleet.told == [*HOLD, "swap@db1", OUTCOME, *RESUME]


def test_an_answer_that_was_lost_may_have_been_a_yes(run: Run) -> None:
    run.fails = {"swap@db1": None, OUTCOME: {"decided": True, "swapped": True}}
    run.fleet.revives = {"db1"}
    assert run.go().held == ()
    assert run.operation.committed
    assert run.fleet.told == [*HOLD, "swap@db1", *REOPENED, OUTCOME, *RESUME]


@pytest.mark.parametrize("revives", [True, False])
def test_what_nobody_can_tell_is_said_to_be_one_of_two(run: Run, revives: bool) -> None:
    run.fails = {"swap@db1": None, OUTCOME: {"decided": False, "swapped": False}}
    run.fleet.revives = {"db1"} if revives else set()
    error = run.fail()
    assert "one of the two databases is live and whole" in error.state
    assert "reads from the catalog what holds" in error.next_step
    assert run.fleet.told[-2:] == RESUME


def test_a_commit_that_waits_for_a_standby_is_told_as_such(run: Run) -> None:
    waits = HmsError("it waits", reason="commit_waits", next_step="Bring it back.")
    run.fails = {"swap@db1": waits, OUTCOME: {"decided": False, "swapped": False}}
    error = run.fail()
    assert "waits for a synchronous standby, as every write does now" in error.state
    assert error.next_step == "Bring it back."
    assert run.fleet.told[-2:] == RESUME


def test_a_bouncer_that_was_lost_while_it_held_is_started_again(run: Run) -> None:
    run.fails = {"resume@bouncer2": None}
    run.fleet.revives = {"bouncer2"}
    assert run.go().held == ()
    again = ["reopen@bouncer2", "lock@bouncer2", "prepare_swap@bouncer2", "resume@bouncer2"]
    assert run.fleet.told[-4:] == again


def test_one_that_never_comes_back_is_named(run: Run) -> None:
    run.fails = {"resume@bouncer2": None}
    assert run.go().held == ("bouncer2",)
    assert run.operation.committed


def test_one_that_never_comes_back_before_the_rename_is_named_too(run: Run) -> None:
    run.fails = {"hold_swap@bouncer2": None}
    assert "Clients may be held on bouncer2" in run.fail().state


def test_everything_slow_comes_before(run: Run) -> None:
    swap.arm(run.operation, PLAN)
    swap.await_sessions(run.operation, PLAN, SwapRequest("swapped", "hospital", "new", "old", sessions="wait"))
    names = ["prepare_swap@bouncer1", "prepare_swap@bouncer2", "prepare_scratch@db1"]
    names += ["probe_start@bouncer1", "probe_start@bouncer2", "arm_swap@db1"]
    names += ["look_routes@bouncer1", "look_routes@bouncer2", "await_sessions@db1"]
    assert run.fleet.told == names
    assert run.fleet.args_of("await_sessions@db1")["pids"] == [5, 5]


def test_readers_on_standbys_are_ended_by_the_policy_only(run: Run) -> None:
    swapped = swap.Swapped(lsn="0/3000148")
    swap.settle(run.operation, PLAN, REQUEST, swapped)
    assert run.fleet.args_of("end_readers@db2") == {"oid": 1, "lsn": "0/3000148", "deadline": 10.0, "end": True}
    assert run.fleet.told[-3:] == ["finish_swap@db1", "finish@bouncer1", "finish@bouncer2"]
    run.fleet.told.clear()
    run.fleet.arguments.clear()
    swap.settle(run.operation, PLAN, SwapRequest("swapped", "hospital", sessions="wait"), swapped)
    assert run.fleet.args_of("end_readers@db2")["end"] is False


def test_arguments_become_a_request() -> None:
    values = {name: option.get("default") for name, option in swap_task.SWAP_SPEC.items()}
    values.update(database="hospital", scratch="new", force=["pg_cron"])
    found = swap_task.swap_request(values, ScriptedClock(0.0))
    assert found == SwapRequest("swapped", "hospital", "new", stamp="19700101T000000Z", force=("pg_cron",))
    assert found.operation == "swap"
    with pytest.raises(Refused, match="hold_deadline is 0; it must be more than 0 seconds"):
        swap_task.swap_request({**values, "hold_deadline": 0.0}, ScriptedClock())


def test_where_there_is_no_live_database_nobody_writes_before_and_nobody_reads_after(run: Run) -> None:
    gone = dataclasses.replace(PLAN, missing=True, keep="", live_oid=0)
    swap.arm(run.operation, gone)
    assert not any(told.startswith("probe_start") for told in run.fleet.told)
    run.fleet.told.clear()
    run.fleet.arguments.clear()
    swap.settle(run.operation, gone, REQUEST, swap.Swapped(lsn="0/3000148"))
    assert "end_readers@db2" not in run.fleet.told
    run.fails = {"hold_swap@bouncer1": HmsError("it can't")}
    with pytest.raises(HmsError) as caught:
        swap.execute(run.operation, gone, REQUEST)
    assert caught.value.state == "new is called that still. Nothing was changed."
