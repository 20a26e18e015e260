# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From facts to plans: what is done in which order, what an earlier run left undone, what is predicted."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import (
    Busy,
    ClusterFacts,
    MemberFacts,
    PoolerFacts,
    Slot,
)
from ansible_collections.hms.postgres.plugins.module_utils._cluster.plan import (
    Plan,
    Request,
    leader,
    plan_failover,
    plan_switchover,
    unfinished,
)
from ansible_collections.hms.postgres.tests.unit.plugins.engine_facts import (
    cluster,
    down,
    gone,
    pooler,
    primary,
    process,
    standby,
)

TO_DB2 = Request("switchover", candidate="db2")
FAILOVER = Request("failover")


def steps(plan: Plan) -> list[str]:
    return [f"{action.id}@{action.host}" for action in plan.actions]


def test_a_switchover_in_order() -> None:
    plan = plan_switchover(cluster(primary(), standby(), standby("db3")), TO_DB2)
    assert steps(plan) == [
        "checkpoint@db1",
        "checkpoint@db2",
        "arm_candidate@db2",
        "arm_primary@db1",
        "hold_pools@bouncer1",
        "stop_primary@db1",
        "prove_caught_up@db2",
        "commit_demotion@db1",
        "promote@db2",
        "repoint_pools@bouncer1",
        "resume_pools@bouncer1",
        "start_standby@db1",
        "follow@db3",
        "verify@bouncer1",
    ]
    assert (plan.old_primary, plan.new_primary, plan.siblings, plan.poolers) == ("db1", "db2", ("db3",), ("bouncer1",))
    assert plan.changed
    assert not plan.finishing
    assert plan.blocked == ()
    assert {action.phase for action in plan.actions if action.id == "promote"} == {"critical"}
    assert all(action.what and action.why for action in plan.actions)


def test_one_that_a_standby_feeds_stays_with_it() -> None:
    plan = plan_switchover(cluster(primary(), standby(), standby("db3", "db2")), TO_DB2)
    assert plan.siblings == ()
    assert "follow@db3" not in steps(plan)
    lost = plan_failover(cluster(down(), standby(receiver=None), standby("db3", "db2")), FAILOVER)
    assert (lost.new_primary, lost.siblings) == ("db2", ())


def test_a_switchover_to_who_leads_is_nothing_to_do() -> None:
    plan = plan_switchover(cluster(), Request("switchover", candidate="db1"))
    assert not plan.changed
    assert plan.finishing
    assert plan.summary == "db1 is primary and every bouncer leads to it: there is nothing to do."


@pytest.mark.parametrize(
    ("facts", "candidate"), [(cluster(), ""), (cluster(), "db9"), (cluster(down(), standby()), "db2")]
)
def test_what_can_t_be_overridden_makes_no_plan(facts: ClusterFacts, candidate: str) -> None:
    plan = plan_switchover(facts, Request("switchover", candidate=candidate, force=("no_primary", "unknown_candidate")))
    assert not plan.changed
    assert len(plan.blocked) == 1
    assert "is not possible" in plan.summary


def test_force_overrides_the_rule_it_names_and_no_other() -> None:
    facts = cluster(primary(backups_running=2), standby(may_be_primary=False))
    plan = plan_switchover(facts, Request("switchover", candidate="db2", force=("backup_running",)))
    assert [(refusal.rule, refusal.overridden) for refusal in plan.refusals] == [
        ("not_eligible", False),
        ("backup_running", True),
    ]
    assert [refusal.rule for refusal in plan.blocked] == ["not_eligible"]
    assert plan.changed, "it is shown what would be done"


def test_a_failover_in_order() -> None:
    facts = cluster(down(), standby(receiver=None), standby("db3", receiver=None, lsn=6000), poolers=[pooler()])
    plan = plan_failover(facts, FAILOVER)
    assert steps(plan) == [
        "hold_pools@bouncer1",
        "fence@db1",
        "detach_receiver@db3",
        "detach_receiver@db2",
        "choose@db3",
        "arm_candidate@db3",
        "promote@db3",
        "repoint_pools@bouncer1",
        "resume_pools@bouncer1",
        "follow@db2",
        "verify@bouncer1",
    ]
    assert plan.summary == "db1 is lost; db3 takes over."


def fence_of(facts: ClusterFacts, **wish: t.Any) -> str:
    plan = plan_failover(facts, Request("failover", **wish))
    return next(action.what for action in plan.actions if action.id == "fence")


def test_how_the_old_primary_is_fenced() -> None:
    alone = standby(receiver=None)
    assert fence_of(cluster(down(), alone)) == "mark, stop, prove"
    assert fence_of(cluster(gone(), alone), fence_command=("off", "db1")) == "run off on the controller"
    strict = fence_of(cluster(gone(), alone, policy="strict"), force=("no_sync_standby",))
    assert strict == "receivers of all synchronous standbys down"
    assert fence_of(cluster(gone(), alone), force=("no_fence_proof",)) == "none"


def test_a_failover_of_a_living_primary_by_force_fences_that_one() -> None:
    """The bouncers may lead elsewhere by mistake: the one that takes writes is the one to be fenced."""
    facts = cluster(primary(), standby(), down("db3"), poolers=[pooler(leads_to="db3")])
    plan = plan_failover(facts, Request("failover", candidate="db2", force=("primary_alive",)))
    assert plan.old_primary == "db1"
    assert plan.blocked == ()


def test_a_failover_with_nobody_left() -> None:
    plan = plan_failover(cluster(down(), gone("db2")), FAILOVER)
    assert not plan.changed
    assert "no_candidate" in [refusal.rule for refusal in plan.blocked]
    assert plan.old_primary == "db1"


@pytest.mark.parametrize("candidate", ["", "db1"])
def test_a_failover_while_the_primary_lives_only_finishes(candidate: str) -> None:
    plan = plan_failover(cluster(), Request("failover", candidate=candidate))
    assert plan.finishing
    assert not plan.changed


SLOT = Slot("db3", False, "reserved", 1000)
UNDONE: dict[str, tuple[tuple[MemberFacts, ...], list[PoolerFacts], list[str]]] = {
    "nothing": ((primary(), standby()), [pooler()], []),
    "its file leads elsewhere": ((primary(), standby()), [pooler(file_primary="db2")], ["repoint_pools@bouncer1"]),
    "a process leads elsewhere": (
        (primary(), standby()),
        [pooler(processes=(process(), process("2", "db2")))],
        ["repoint_pools@bouncer1"],
    ),
    "a dead process leads nowhere": (
        (primary(), standby()),
        [pooler(processes=(process(), process("2", target="", reachable=False)))],
        [],
    ),
    "clients are held": (
        (primary(), standby()),
        [pooler(processes=(process(), process("2", paused=True)))],
        ["resume_pools@bouncer1"],
    ),
    "a bouncer host is gone": ((primary(), standby()), [pooler(reachable=False, file_primary="db2")], []),
    "one follows nobody": ((primary(), standby(receiver=None)), [pooler()], ["follow@db2"]),
    "one follows who is no more": ((primary(), standby("db2", "db3"), gone("db3")), [pooler()], ["follow@db2"]),
    "one is fed by a standby": ((primary(), standby(), standby("db3", "db2", slots=())), [pooler()], []),
    "a slot for one that the primary feeds": (
        (primary(), standby(slots=(SLOT,)), standby("db3")),
        [pooler()],
        ["drop_slots@db2"],
    ),
    "a slot for who leads": ((primary(), standby(slots=(Slot("db1", False, "", 0),))), [pooler()], ["drop_slots@db2"]),
    "a slot for one that is down": ((primary(), standby(slots=(SLOT,)), gone("db3")), [pooler()], []),
    "a slot in use": ((primary(), standby(slots=(Slot("db3", True, "", 0),)), standby("db3", "db2")), [pooler()], []),
    "a stranger's slot": ((primary(), standby(slots=(Slot("cdc", False, "", 0),))), [pooler()], []),
}


@pytest.mark.parametrize("case", UNDONE)
def test_what_an_earlier_run_left_undone(case: str) -> None:
    members, poolers, expected = UNDONE[case]
    facts = cluster(*members, poolers=poolers)
    leading = leader(facts)
    assert leading is not None
    actions = unfinished(facts, leading)
    assert [f"{action.id}@{action.host}" for action in actions] == expected
    plan = plan_switchover(facts, Request("switchover", candidate="db1"))
    assert plan.actions == actions
    assert plan.changed is bool(expected)
    assert plan.finishing


def test_who_leads() -> None:
    assert leader(cluster(primary(), standby())) == primary()
    assert leader(cluster(primary(), primary("db2"))) is None
    assert leader(cluster(down(), standby())) is None


def test_what_a_switchover_is_predicted_to_cost() -> None:
    quiet = plan_switchover(cluster(), TO_DB2).predicted
    assert quiet.stall_seconds == 0.29
    assert quiet.lost_transactions == 0
    behind = plan_switchover(cluster(primary(lsn=5000 + 73_000_000), standby()), TO_DB2).predicted
    assert behind.stall_seconds == 1.29
    strict = plan_switchover(cluster(policy="strict"), TO_DB2).predicted
    assert strict.stall_seconds == 0.39
    busy = primary(busy=(Busy(7, "app", "batch", "active", 2.0),))
    assert (
        "the oldest transaction has run for 2.0 s"
        in plan_switchover(cluster(busy, standby()), TO_DB2).predicted.basis[-1]
    )


def test_what_a_failover_is_predicted_to_cost() -> None:
    alone = standby(receiver=None, lsn=5000 + 73_000_000)
    loose = plan_failover(cluster(down(), alone), FAILOVER).predicted
    assert (loose.stall_seconds, loose.lost_transactions) == (1.14, None)
    strict = plan_failover(cluster(down(), alone, policy="strict"), Request("failover", force=("no_sync_standby",)))
    assert strict.predicted.lost_transactions == 0


def test_a_plan_in_the_record_s_shape() -> None:
    record = plan_switchover(cluster(), TO_DB2).as_record()
    assert record["actions"][0] == {
        "id": "checkpoint",
        "phase": "arm",
        "host": "db1",
        "what": "checkpoint",
        "why": "the one at shutdown is short then",
    }
    assert set(record) == {"summary", "old_primary", "new_primary", "actions", "refusals", "warnings", "predicted"}
