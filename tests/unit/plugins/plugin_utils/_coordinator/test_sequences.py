# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The order of things in a switchover and in a failover, and the ways back, with scripted hosts."""

from __future__ import annotations

import dataclasses
import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import ClusterFacts
from ansible_collections.hms.postgres.plugins.module_utils._cluster.plan import (
    Plan,
    Request,
    plan_failover,
    plan_switchover,
)
from ansible_collections.hms.postgres.plugins.module_utils._errors import DeadlinePassed, HmsError, Refused
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator import failover, switchover
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.operation import Operation
from ansible_collections.hms.postgres.tests.unit.plugins.engine_facts import (
    ScriptedClock,
    cluster,
    down,
    gone,
    pooler,
    primary,
    standby,
)
from ansible_collections.hms.postgres.tests.unit.plugins.plugin_utils._coordinator.scripted_fleet import (
    Say,
    ScriptedFleet,
    operation,
)

POOLERS = [pooler(), pooler("bouncer2")]
HOSTS = ("db1", "db2", "db3", "bouncer1", "bouncer2")

HOLDS = {"holds": True, "claim": "it is down", "evidence": "looked"}
ANSWERS: dict[str, dict[str, t.Any]] = {
    "lock": {"holder": None},
    "stop_primary": {"checkpoint_lsn": 0x3000148, "timeline": 1, "state": "shut down"},
    "promote": {"timeline": 2, "lsn": "0/3000200"},
    "fence": {"proofs": [HOLDS], "stopped_by": "fast shutdown"},
}


class Hosts:
    """Hosts that do what they are told, but for those named here: ``verb@host`` → an error, or None: they die."""

    def __init__(self, **positions: int) -> None:
        self.fails: dict[str, HmsError | None] = {}
        self.positions = positions

    def __call__(self, host: str, verb: str, _args: dict[str, t.Any]) -> Say:
        told = f"{verb}@{host}"
        if told in self.fails:
            return self.fails.pop(told)
        if verb == "detach_receiver":
            return {"lsn": self.positions.get(host, 5000), "timeline": 1, "last_commit_at": ""}
        return dict(ANSWERS.get(verb, {}))


class Run:
    """One operation at work."""

    def __init__(self, directory: pathlib.Path, hosts: Hosts, kind: str) -> None:
        self.hosts = hosts
        self.clock = ScriptedClock()
        self.fleet = ScriptedFleet(HOSTS, hosts, self.clock)
        self.operation: Operation = operation(self.fleet, directory, self.clock, kind)
        self.operation.lock(HOSTS, patience=1.0)
        self.fleet.told.clear()
        self.fleet.arguments.clear()

    def switchover(self, facts: ClusterFacts | None = None) -> dict[str, t.Any]:
        found = facts or cluster(primary(), standby(), standby("db3"), poolers=POOLERS)
        request = Request("switchover", candidate="db2")
        return switchover.execute(self.operation, plan_switchover(found, request), request)

    def failover(self, facts: ClusterFacts, **wish: t.Any) -> tuple[Plan, dict[str, t.Any]]:
        request = Request("failover", **wish)
        return failover.execute(
            self.operation, plan_failover(facts, request), request, facts, lambda name: f"not {name}"
        )


@pytest.fixture
def start(tmp_path: pathlib.Path) -> t.Iterator[t.Callable[..., Run]]:
    runs: list[Run] = []

    def make(kind: str = "switchover", hosts: Hosts | None = None) -> Run:
        runs.append(Run(tmp_path, hosts or Hosts(), kind))
        return runs[-1]

    yield make
    for run in runs:
        run.operation.journal.close()


Start = t.Callable[..., Run]
HOLD = ["hold@bouncer1", "hold@bouncer2"]
RESUME = ["resume@bouncer1", "resume@bouncer2"]
REPOINT = ["repoint@bouncer1", "repoint@bouncer2"]


def test_a_switchover_orders_the_promotion_before_anybody_is_led_over(start: Start) -> None:
    run = start()
    assert run.switchover()["timeline"] == 2
    assert run.fleet.told == [
        *HOLD,
        "stop_primary@db1",
        "await_shutdown_checkpoint@db2",
        "commit_demotion@db1",
        "promote@db2",
        *REPOINT,
        "start_standby@db1",
        "follow@db3",
        *RESUME,
    ]
    assert run.fleet.args_of("await_shutdown_checkpoint@db2")["lsn"] == 0x3000148
    assert run.fleet.args_of("hold@bouncer1") == {"deadline": 3.0, "kill": False}
    assert run.operation.committed
    document = run.operation.journal.document()
    assert document["critical_section"].keys() == {"started", "ended"}
    assert {step["result"] for step in document["steps"]} == {"ok"}


BACK = ["disarm@db2", "restart_primary@db1", "disarm@db1", *RESUME, "finish@db2"]


@pytest.mark.parametrize(
    "told", ["hold@bouncer2", "stop_primary@db1", "await_shutdown_checkpoint@db2", "commit_demotion@db1"]
)
def test_before_the_point_of_no_return_everything_leads_back(start: Start, told: str) -> None:
    run = start()
    run.hosts.fails[told] = DeadlinePassed("too slow")
    with pytest.raises(DeadlinePassed) as caught:
        run.switchover()
    assert run.fleet.told[-len(BACK) :] == BACK
    assert not any("promote" in each for each in run.fleet.told)
    assert not run.operation.committed
    assert caught.value.state == "db1 leads as before; the clients go on there. Nothing was changed."
    assert caught.value.phase == "critical"


def test_a_candidate_promises_not_to_be_promoted_before_the_old_primary_leads_again(start: Start) -> None:
    run = start()
    run.hosts.fails["commit_demotion@db1"] = DeadlinePassed("no answer")
    with pytest.raises(DeadlinePassed):
        run.switchover()
    assert run.fleet.args_of("disarm@db2") == {"promise": True}


def test_an_old_primary_that_doesn_t_start_again_is_not_said_to_lead(start: Start) -> None:
    run = start()
    run.hosts.fails = {
        "await_shutdown_checkpoint@db2": HmsError("db2 is behind"),
        "restart_primary@db1": HmsError("its log is broken"),
    }
    with pytest.raises(HmsError) as caught:
        run.switchover()
    assert caught.value.state == "db1 was stopped and could not be started again: its log is broken"
    assert caught.value.next_step.startswith("Start db1")


def test_an_old_primary_out_of_reach_is_left_to_its_agent(start: Start) -> None:
    run = start()
    run.hosts.fails["commit_demotion@db1"] = None
    with pytest.raises(HmsError) as caught:
        run.switchover()
    assert "restart_primary@db1" not in run.fleet.told
    assert "The line to db1 is lost" in caught.value.state


def test_a_killed_agent_of_the_old_primary_is_started_again_and_leads(start: Start) -> None:
    run = start()
    run.fleet.revives = {"db1"}
    run.hosts.fails["commit_demotion@db1"] = None
    with pytest.raises(HmsError) as caught:
        run.switchover()
    assert run.fleet.told.index("reopen@db1") < run.fleet.told.index("restart_primary@db1")
    assert caught.value.state.startswith("db1 leads as before")


def test_clients_of_a_killed_agent_s_bouncer_are_let_go(start: Start) -> None:
    run = start()
    run.fleet.revives = {"bouncer1"}
    run.hosts.fails["hold@bouncer1"] = None
    with pytest.raises(HmsError) as caught:
        run.switchover()
    told = run.fleet.told
    assert told.index("resume@bouncer2") < told.index("reopen@bouncer1") < told.index("resume@bouncer1")
    assert caught.value.state == "db1 leads as before; the clients go on there. Nothing was changed."


def test_clients_that_may_still_be_held_are_named(start: Start) -> None:
    run = start()
    run.hosts.fails["hold@bouncer1"] = None
    with pytest.raises(HmsError, match="No agent on bouncer1") as caught:
        run.switchover()
    assert "Clients may be held on bouncer1" in caught.value.state


def test_one_bouncer_that_fails_keeps_no_other_waiting(start: Start) -> None:
    run = start()
    run.hosts.fails["repoint@bouncer1"] = HmsError("process 2 hangs")
    run.switchover()
    told = run.fleet.told
    assert told[-4:] == ["resume@bouncer1", "resume@bouncer2", "repoint@bouncer1", "resume@bouncer1"]
    assert run.fleet.args_of("resume@bouncer1") == {"only_to": "db2"}


def test_a_bouncer_that_fails_twice_is_an_error_and_the_others_go_on(start: Start) -> None:
    run = start()
    failed = HmsError("process 2 hangs")
    run.hosts.fails["resume@bouncer1"] = failed
    real = run.hosts.__call__

    def say(host: str, verb: str, args: dict[str, t.Any]) -> Say:
        return failed if (host, verb) == ("bouncer1", "repoint") else real(host, verb, args)

    run.fleet._say = say
    with pytest.raises(HmsError, match="process 2 hangs"):
        run.switchover()
    assert "resume@bouncer2" in run.fleet.told
    assert run.operation.committed


def test_a_candidate_s_agent_that_dies_during_the_promotion_is_started_again(start: Start) -> None:
    run = start()
    run.fleet.revives = {"db2"}
    run.hosts.fails["promote@db2"] = None
    assert run.switchover()["timeline"] == 2
    assert run.fleet.told.count("promote@db2") == 2
    assert run.fleet.told[-2:] == RESUME


def test_a_promotion_that_fails_is_not_rolled_back(start: Start) -> None:
    run = start()
    run.hosts.fails["promote@db2"] = HmsError("no room")
    with pytest.raises(HmsError, match="no room"):
        run.switchover()
    assert run.operation.committed
    assert "restart_primary@db1" not in run.fleet.told


def test_after_a_switchover_standbys_are_waited_for_unless_they_come_late(start: Start) -> None:
    run = start()
    switchover.settle(run.operation, ["db1", "db3"], "db2", 2, late=["db3"])
    assert run.fleet.told == ["await_streaming@db1", "finish@db1", "finish@db3", "finish@db2"]
    assert run.fleet.arguments[1:] == [{"role": "standby"}, {"role": "standby"}, {"role": "primary"}]


# -- failover ------------------------------------------------------------------------------------------------------

LOST = cluster(down(), standby(receiver=None), standby("db3", receiver=None), poolers=POOLERS)


def test_a_failover_fences_and_freezes_before_it_promotes(start: Start) -> None:
    run = start("failover")
    plan, promoted = run.failover(LOST)
    assert plan.new_primary == "db2"
    assert promoted["base"]["lsn"] == 5000
    assert run.fleet.told == [
        *HOLD,
        "fence@db1",
        "detach_receiver@db2",
        "detach_receiver@db3",
        "arm_candidate@db2",
        "promote@db2",
        *REPOINT,
        "follow@db3",
        *RESUME,
    ]
    assert run.fleet.args_of("hold@bouncer1")["kill"] is True
    assert run.fleet.args_of("arm_candidate@db2")["sync_names"] == "not db2"
    assert run.fleet.args_of("arm_candidate@db2")["slots"] == ["db1", "db3"]
    assert run.fleet.args_of("fence@db1")["unless_alive"] is True
    assert run.operation.journal.document()["fence"]["method"] == "stop"


def test_one_that_hung_is_fenced_although_it_lives(start: Start) -> None:
    run = start("failover")
    run.failover(dataclasses.replace(LOST, members=(down(running=True), *LOST.members[1:])))
    assert run.fleet.args_of("fence@db1")["unless_alive"] is False


def test_the_most_advanced_one_is_chosen_after_the_freeze(start: Start) -> None:
    run = start("failover", Hosts(db3=6000))
    plan, promoted = run.failover(LOST)
    assert (plan.new_primary, plan.siblings) == ("db3", ("db2",))
    assert promoted["base"]["lsn"] == 6000
    assert run.fleet.args_of("arm_candidate@db3")["slots"] == ["db1", "db2"]
    assert "follow@db2" in run.fleet.told


@pytest.mark.parametrize("change", [{"may_be_primary": False}, {"apply_delay": 60.0}])
def test_one_that_may_not_lead_is_not_chosen_however_far_it_is(start: Start, change: dict[str, t.Any]) -> None:
    run = start("failover", Hosts(db3=6000))
    third = standby("db3", receiver=None, **change)
    plan, _promoted = run.failover(dataclasses.replace(LOST, members=(*LOST.members[:2], third)))
    assert plan.new_primary == "db2"


def test_one_that_was_asked_for_and_has_less_needs_a_word(start: Start, tmp_path: pathlib.Path) -> None:
    run = start("failover", Hosts(db3=6000))
    with pytest.raises(Refused, match="db3 has 1000 bytes more than db2") as caught:
        run.failover(LOST, candidate="db2")
    assert (caught.value.reason, caught.value.phase) == ("not_most_advanced", "critical")
    assert "db1 is fenced" in caught.value.state
    forced = Run(tmp_path / "again", Hosts(db3=6000), "failover")
    plan, _promoted = forced.failover(LOST, candidate="db2", force=("not_most_advanced",))
    assert plan.new_primary == "db2"
    forced.operation.journal.close()


def test_a_fence_that_doesn_t_hold_promotes_nobody(start: Start) -> None:
    run = start("failover")
    run.fleet._say = lambda host, verb, args: (
        {"proofs": [{**HOLDS, "holds": False}], "stopped_by": "?"} if verb == "fence" else run.hosts(host, verb, args)
    )
    with pytest.raises(Refused, match="db1 could not be fenced; these don't hold: it is down") as caught:
        run.failover(LOST)
    assert "promote@db2" not in run.fleet.told
    assert run.fleet.told[-4:] == ["disarm@db2", "disarm@db3", *RESUME]
    assert caught.value.state.startswith("Nothing was promoted, but db1 is fenced")


def test_the_operator_may_vouch_for_a_fence_that_doesn_t_hold(start: Start) -> None:
    run = start("failover")
    run.fleet._say = lambda host, verb, args: (
        {"proofs": [{**HOLDS, "holds": False}], "stopped_by": "?"} if verb == "fence" else run.hosts(host, verb, args)
    )
    run.failover(LOST, force=("no_fence_proof",))
    proofs = run.operation.journal.document()["fence"]["proofs"]
    assert "the operator vouches for it" in proofs[-1]["evidence"]
    assert not proofs[-1]["holds"]


def test_one_that_rose_again_leaves_the_state_before(start: Start) -> None:
    run = start("failover")
    run.hosts.fails["fence@db1"] = Refused("db1 takes writes again", reason="primary_alive")
    with pytest.raises(Refused) as caught:
        run.failover(LOST)
    assert caught.value.state == "Nothing was promoted; the bouncers lead where they led before."


AWAY = cluster(gone(), standby(receiver=None), standby("db3", receiver=None), poolers=POOLERS)


def test_a_fence_command_is_the_proof_when_it_ends_well(start: Start) -> None:
    run = start("failover")
    run.operation.clock = SystemClock()  # a real program needs real time to end
    run.fleet.lines["db1"].error = "no route"
    run.failover(AWAY, fence_command=("/bin/echo", "db1 is off"))
    fence = run.operation.journal.document()["fence"]
    assert fence["method"] == "command"
    assert fence["proofs"][0]["evidence"] == "/bin/echo ended with 0 and said: db1 is off"


@pytest.mark.parametrize(
    ("command", "message"),
    [(("/bin/false",), "ended with 1"), (("/nonexistent/fence",), "can't be run: .*No such file")],
)
def test_a_fence_command_that_fails_promotes_nobody(start: Start, command: tuple[str, ...], message: str) -> None:
    run = start("failover")
    run.operation.clock = SystemClock()  # a real program needs real time to end
    run.fleet.lines["db1"].error = "no route"
    with pytest.raises(Refused, match=message) as caught:
        run.failover(AWAY, fence_command=command)
    assert caught.value.reason == "fence_failed"
    assert "promote@db2" not in run.fleet.told
    assert run.fleet.told[-2:] == RESUME


def test_a_fence_command_that_hangs_is_ended_while_agents_are_kept_awake(start: Start) -> None:
    run = start("failover")
    run.fleet.lines["db1"].error = "no route"
    with pytest.raises(Refused, match="did not end within 60 s"):
        run.failover(AWAY, fence_command=("/bin/sleep", "600"))
    assert run.fleet.kept_alive > 1000


def test_receivers_are_the_proof_under_strict_synchrony(start: Start) -> None:
    run = start("failover")
    run.fleet.lines["db1"].error = "no route"
    run.failover(dataclasses.replace(AWAY, sync_policy="strict"))
    fence = run.operation.journal.document()["fence"]
    assert fence["method"] == "receivers"
    assert "no WAL receiver is left on db2, db3" in fence["proofs"][0]["evidence"]


def test_without_a_proof_the_record_says_whose_word_it_is(start: Start) -> None:
    run = start("failover")
    run.fleet.lines["db1"].error = "no route"
    run.failover(AWAY, force=("no_fence_proof",))
    fence = run.operation.journal.document()["fence"]
    assert (fence["method"], fence["proofs"][0]["holds"]) == ("none", False)


def losses(run: Run, facts: ClusterFacts) -> dict[str, t.Any]:
    plan = plan_failover(facts, Request("failover"))
    return failover.losses(run.operation, plan, {"timeline": 1, "lsn": 5000}, facts)


def test_what_was_lost_is_read_from_the_old_primary_s_disk(start: Start) -> None:
    run = start("failover")
    found = {"known": True, "count": 2, "transactions": [1, 2], "basis": "its log", "waited_for": ""}
    run.fleet._say = lambda *_told: found
    assert losses(run, LOST) == found
    assert run.fleet.args_of("losses@db1") == {"timeline": 1, "lsn": 5000}


def test_what_a_synchronous_primary_alone_holds_was_not_acknowledged(start: Start) -> None:
    run = start("failover")
    found = {"known": True, "count": 2, "transactions": [1, 2], "basis": "its log", "waited_for": "ANY 1 (db2)"}
    run.fleet._say = lambda *_told: found
    told = losses(run, LOST)
    assert (told["count"], told["transactions"], told["unacknowledged"]) == (0, [], [1, 2])
    assert "none of them acknowledged" in told["basis"]


@pytest.mark.parametrize(("policy", "known", "count"), [("strict", True, 0), ("async", False, None)])
def test_what_can_t_be_read_is_known_only_by_policy(start: Start, policy: str, known: bool, count: int | None) -> None:
    run = start("failover")
    run.fleet.lines["db1"].error = "no route"
    told = losses(run, dataclasses.replace(AWAY, sync_policy=policy))
    assert (told["known"], told["count"]) == (known, count)
    run.fleet.lines["db1"].error = ""
    run.hosts.fails["losses@db1"] = HmsError("its log is broken")
    told = losses(run, dataclasses.replace(LOST, sync_policy=policy))
    assert (told["known"], told["count"]) == (known, count)
