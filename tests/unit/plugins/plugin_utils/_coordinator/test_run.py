# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From a job to the first step: whose agents are worked with, who is waited for, what is said to who is refused."""

from __future__ import annotations

import dataclasses
import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import (
    ClusterFacts,
    MemberFacts,
    PoolerFacts,
    as_dict,
)
from ansible_collections.hms.postgres.plugins.module_utils._cluster.plan import (
    Plan,
    Refusal,
    Request,
    plan_switchover,
)
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator import course as course_module
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator import run as run_module
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.overview import Site, for_record, problems
from ansible_collections.hms.postgres.tests.unit.plugins.engine_facts import (
    ScriptedClock,
    cluster,
    down,
    gone,
    pooler,
    primary,
    process,
    standby,
)
from ansible_collections.hms.postgres.tests.unit.plugins.plugin_utils._coordinator.scripted_agents import (
    BUNDLE,
    WELL,
    agent,
)
from ansible_collections.hms.postgres.tests.unit.plugins.plugin_utils._coordinator.scripted_fleet import (
    Say,
    ScriptedFleet,
    operation,
)

SITE = Site("hospital", "staging", ("db1", "db2"), ("bouncer1",))


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"cluster": "clinic"}, "the database host 'db1' of cluster 'clinic' (staging)"),
        ({"environment": "production"}, "the database host 'db1' of cluster 'hospital' (production)"),
        ({"name": "db7"}, "the database host 'db7'"),
        ({"kind": "bouncer"}, "the bouncer host 'db1'"),
    ],
)
def test_only_agents_of_this_cluster_are_worked_with(known: dict[str, str], said: str) -> None:
    spec = agent("db1", WELL.replace("hello()", f"hello(**{known!r})"))
    with pytest.raises(Refused) as caught:
        course_module.open_fleet([spec], BUNDLE, SITE, SystemClock(), 60.0)
    assert said in caught.value.message
    assert "not the database host 'db1' of cluster 'hospital' (staging)" in caught.value.message
    assert caught.value.reason == "wrong_cluster"


def test_agents_of_this_cluster_are() -> None:
    fleet = course_module.open_fleet(
        [agent("db1"), agent("bouncer1", kind="bouncer")], BUNDLE, SITE, SystemClock(), 60.0
    )
    assert fleet.reachable("db1")
    assert fleet.reachable("bouncer1")
    fleet.goodbye()


def test_who_is_refused_hears_every_rule_and_the_way_past_it() -> None:
    refusals = (
        Refusal("backup_running", "A backup runs.", "Wait."),
        Refusal("no_confirm", "Not confirmed.", "Confirm.", overridable=False),
        Refusal("not_eligible", "No.", "", overridden=True),
    )
    with pytest.raises(Refused) as caught:
        course_module.refuse_if_blocked(Plan("switchover", "", refusals=refusals))
    assert caught.value.message == (
        "The switchover is refused:\n"
        "[backup_running] A backup runs. Wait. Override: force=backup_running.\n"
        "[no_confirm] Not confirmed. Confirm."
    )
    assert caught.value.reason == "backup_running"
    course_module.refuse_if_blocked(Plan("switchover", "", refusals=refusals[2:]))


class Cluster:
    """A cluster whose agents answer with facts, and with who holds them."""

    def __init__(self, facts: ClusterFacts) -> None:
        self.facts = facts
        self.locks: list[dict[str, t.Any]] = []
        self.says: dict[str, HmsError] = {}

    def __call__(self, host: str, verb: str, _args: dict[str, t.Any]) -> Say:
        if f"{verb}@{host}" in self.says:
            return self.says[f"{verb}@{host}"]
        if verb != "observe":
            return {"holder": None}
        found: list[MemberFacts | PoolerFacts] = [*self.facts.members, *self.facts.poolers]
        lock = self.locks.pop(0) if host == "db1" and self.locks else None
        own = as_dict(next(fact for fact in found if fact.name == host))
        return {"facts": own, "sync_policy": self.facts.sync_policy, "lock": lock}


def seen(say: Cluster, clock: ScriptedClock, *, wait: bool = True) -> ClusterFacts:
    fleet = ScriptedFleet(("db1", "db2", "bouncer1"), say, clock)
    return course_module.observe_settled(fleet, SITE, clock, wait=wait)


def test_agents_that_put_things_in_order_are_waited_for_before_anything_is_judged() -> None:
    clock, say = ScriptedClock(), Cluster(cluster())
    say.locks = [{"id": "x", "winding_up": True}] * 3
    fleet = ScriptedFleet(("db1", "db2", "bouncer1"), say, clock)
    assert course_module.observe_settled(fleet, SITE, clock, wait=True) == cluster()
    assert len(clock.slept) == 3
    assert fleet.told.count("hurry@db1") == 3
    assert "hurry@db2" not in fleet.told


def test_an_operation_at_work_is_named_before_its_work_is_taken_for_a_disaster() -> None:
    clock, say = ScriptedClock(), Cluster(cluster(down(), standby()))
    say.locks = [{"id": "theirs", "by": "them@there"}]
    with pytest.raises(Refused, match="Another operation is at work: theirs, started by them@there"):
        seen(say, clock)
    say.locks = [{"id": "theirs", "by": "them@there"}]
    assert seen(say, clock, wait=False) == cluster(down(), standby()), "who only looks may look"


def test_they_are_not_waited_for_for_ever() -> None:
    clock, say = ScriptedClock(), Cluster(cluster())
    say.locks = [{"id": "x", "winding_up": True}] * 1000
    with pytest.raises(Refused, match="still putting things in order on db1"):
        seen(say, clock)
    assert sum(clock.slept) == pytest.approx(course_module.LOCK_PATIENCE, abs=1.0)


def test_a_host_that_can_t_look_at_itself_is_as_good_as_gone() -> None:
    say = Cluster(cluster())
    say.says["observe@db2"] = HmsError("its disk is broken")
    facts = seen(say, ScriptedClock())
    assert facts.members[1].error == "its disk is broken"
    assert not facts.members[1].reachable


TO_DB2 = Request("switchover", candidate="db2")


@pytest.mark.parametrize(("kind", "seconds"), [("switchover", 20.0), ("failover", 10.0)])
def test_what_passes_is_waited_for_and_less_while_clients_have_no_primary(kind: t.Any, seconds: float) -> None:
    clock = ScriptedClock()
    request = dataclasses.replace(TO_DB2, operation=kind)
    refusals = (Refusal("timeline_behind", "db2 is on timeline 1.", "Let it catch up."),)

    class Behind(run_module.ChangeOfRoles):
        def plan(self, _fleet: t.Any, facts: ClusterFacts) -> Plan:
            return dataclasses.replace(plan_switchover(facts, TO_DB2), refusals=refusals)

    course = Behind(course_module.Job(request, SITE, (), BUNDLE, "tester@here", "", {}, "0"), request, clock)
    plan, _facts = course._plan_settled(ScriptedFleet(("db1", "db2", "bouncer1"), Cluster(cluster()), clock))
    assert plan.refusals == refusals
    assert sum(clock.slept) == pytest.approx(seconds, abs=1.0)


def look_again(
    directory: pathlib.Path, before: ClusterFacts, now: ClusterFacts
) -> tuple[Plan, ClusterFacts, list[str]]:
    clock = ScriptedClock()
    fleet = ScriptedFleet(("db1", "db2", "bouncer1"), Cluster(now), clock)
    work = operation(fleet, directory, clock)
    try:
        job = course_module.Job(TO_DB2, SITE, (), BUNDLE, "tester@here", str(directory), {}, "0")
        course = run_module.ChangeOfRoles(job, TO_DB2, clock)
        plan, facts = course.look_again(work, plan_switchover(before, TO_DB2))
    finally:
        work.journal.close()
    return plan, facts, [told for told in fleet.told if not told.startswith("observe")]


def test_what_was_planned_stands_when_nothing_has_changed(tmp_path: pathlib.Path) -> None:
    later = dataclasses.replace(cluster(), members=(primary(lsn=9000), standby(lsn=9000, replay_lsn=9000)))
    plan, facts, told = look_again(tmp_path, cluster(), later)
    assert plan == plan_switchover(cluster(), TO_DB2)
    assert facts == later
    assert told == []


def test_somebody_was_quicker(tmp_path: pathlib.Path) -> None:
    """Between the look and the lock another operator did the same: a stale plan would stop a standby."""
    done = cluster(standby("db1", "db2"), primary("db2"), poolers=[pooler(leads_to="db2")])
    plan, _facts, _told = look_again(tmp_path, cluster(), done)
    assert plan.finishing
    assert not plan.changed


def test_it_became_impossible_meanwhile(tmp_path: pathlib.Path) -> None:
    with pytest.raises(Refused, match="takes writes, so there is nothing to switch over from"):
        look_again(tmp_path, cluster(), cluster(down(), standby()))


def test_the_way_to_the_candidate_is_tried_before_anything_is_touched() -> None:
    say = Cluster(cluster())
    say.says["try_path@bouncer1"] = HmsError("no pg_hba.conf entry")
    fleet = ScriptedFleet(("db1", "db2", "bouncer1"), say, ScriptedClock())
    plan = run_module.try_paths(fleet, plan_switchover(cluster(), TO_DB2), TO_DB2)
    assert [refusal.rule for refusal in plan.blocked] == ["login_path"]
    assert "From bouncer1 there is no login to db2: no pg_hba.conf entry" in plan.blocked[0].message
    forced = dataclasses.replace(TO_DB2, force=("login_path",))
    assert run_module.try_paths(fleet, plan_switchover(cluster(), forced), forced).blocked == ()
    resting = plan_switchover(cluster(), Request("switchover", candidate="db1"))
    assert run_module.try_paths(fleet, resting, TO_DB2) is resting


def test_what_is_wrong_with_a_cluster_gravest_first() -> None:
    facts = cluster(
        primary(pending_restart=("max_connections",)),
        standby(receiver=None),
        gone("db3"),
        poolers=[pooler(processes=(process(paused=True), process("2", "db2"))), pooler("bouncer2", reachable=False)],
    )
    found = problems(facts)
    assert [problem["what"] for problem in found if problem["severity"] == "critical"] == [
        "PgBouncer 1 on bouncer1 holds its clients.",
        "PgBouncer 2 on bouncer1 leads to db2, but db1 is primary.",
    ]
    assert [problem["severity"] for problem in found] == sorted(problem["severity"] for problem in found)
    assert len(found) == 6
    assert all(problem["do"] for problem in found)
    assert problems(cluster()) == []
    assert problems(cluster(primary(), primary("db2")))[0]["what"] == "db1 and db2 both take writes."
    assert problems(cluster(down(), standby()))[0]["what"] == "No member takes writes."


def test_the_cluster_in_the_record_s_shape() -> None:
    record = for_record(cluster(primary(lsn=0x3000148), standby(replay_lsn=0x3000100), gone("db3")))
    assert record["primary"] == "db1"
    assert [row["role"] for row in record["members"]] == ["primary", "standby", "unknown"]
    assert [row["lag_bytes"] for row in record["members"]] == [None, 0x48, None]
    assert record["members"][0]["lsn"] == "0/3000148"
    assert record["members"][1]["upstream"] == "db1"
    assert record["poolers"][0]["points_at"] == "db1"
