# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a cutover: actions in their order, what forbids it, what is said before, what a killed run left."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster.cutover_model import (
    CutoverPlan,
    CutoverRequest,
    SideSight,
    exchange_from,
    sight_from,
    to_rejoin,
)
from ansible_collections.hms.postgres.plugins.module_utils._cluster.cutover_plan import plan_cutover
from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import Busy, ClusterFacts, Sender
from ansible_collections.hms.postgres.tests.unit.plugins.engine_facts import (
    SYSTEM,
    cluster,
    exchange,
    gone,
    pooler,
    primary,
    standby,
)

DB1 = primary(version_number=150018)
EXCHANGE = exchange(stage="done", kept="/data.before_then", slots=("db2",))
SIGHT = SideSight(
    host="db1",
    directory="/data.pitr",
    live="/data",
    state="ours",
    cluster="hospital",
    marker_system=SYSTEM,
    target="noon",
    stage="recovered",
    reached_lsn=4000,
    reached_timeline=1,
    last_commit="1970-01-01T00:16:39Z",
    running=True,
    paused=True,
    lsn=4000,
    system_identifier=SYSTEM,
    version=15,
    support=True,
    wal_after=1000,
)
ELSEWHERE = SideSight(host="db2", directory="/data.pitr", live="/data")


def facts(*members: t.Any, **changes: t.Any) -> ClusterFacts:
    return cluster(*(members or (DB1, standby())), **changes)


def plan(
    seen: SideSight | None = SIGHT, found: ClusterFacts | None = None, *more: SideSight, **wishes: t.Any
) -> CutoverPlan:
    sights = [*([seen] if seen else []), *(more or (ELSEWHERE,))]
    return plan_cutover(found or facts(), sights, CutoverRequest(stamp="now", **wishes))


def blocked(made: CutoverPlan) -> list[str]:
    return [refusal.rule for refusal in made.blocked]


def test_the_whole_plan_in_its_order() -> None:
    made = plan()
    assert made.blocked == ()
    assert [(action.id, action.host) for action in made.actions] == [
        ("promote_side", "db1"),
        ("hold_pools", "bouncer1"),
        ("stop_primary", "db1"),
        ("exchange", "db1"),
        ("start_primary", "db1"),
        ("resume_pools", "bouncer1"),
        ("fence", "db2"),
        ("verify", "bouncer1"),
        ("archive", "db1"),
    ]
    assert "hospital becomes what it was at noon (0/FA0, last commit 1970-01-01T00:16:39Z)" in made.summary
    assert (made.kept, made.slots, made.rejoin, made.sync_names) == ("/data.before_now", ("db2",), ("db2",), None)
    assert made.predicted.lost_transactions is None
    assert made.as_record()["cutover"]["kept_as"] == "/data.before_now"


def test_what_should_be_known_is_said() -> None:
    busy = Busy(7, "app", "psql", "active", 2.0)
    db1 = dataclasses.replace(DB1, prepared_transactions=2, client_addresses={"10.9.9.9": 3}, busy=(busy,))
    told = plan(found=facts(db1, standby())).warnings
    assert "1000 bytes of WAL were written after the target, up to 0/1388" in told[0]
    assert told[1].startswith("db2 will be stopped until rejoined")
    assert told[2] == "2 prepared transactions on db1 are given up too."
    assert "past the bouncers (3 from 10.9.9.9)" in told[3]
    other = plan(dataclasses.replace(SIGHT, wal_after=None, reached_timeline=3, last_commit="")).warnings
    assert other[0] == "The target is on timeline 3, db1 on 1."
    assert "how long it goes on is not known" in plan(found=facts(db1)).predicted.basis[-1]


def test_passwords_of_now_are_kept() -> None:
    made = plan(dataclasses.replace(SIGHT, strangers=("hms_monitor",)))
    assert [action.what for action in made.actions if action.id == "passwords"] == [
        "give hms_monitor the password that it has now"
    ]


def test_under_a_policy_nobody_is_waited_for_until_the_rejoin() -> None:
    assert plan(found=facts(policy="degrade")).sync_names == ""
    strict = facts(policy="strict")
    assert blocked(plan(found=strict)) == ["no_sync_standby"]
    assert plan(found=strict, force=("no_sync_standby",)).blocked == ()


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"state": "absent"}, "no_side"),
        ({"state": "foreign"}, "foreign_directory"),
        ({"cluster": "clinic"}, "other_system"),
        ({"marker_system": "1"}, "other_system"),
        ({"system_identifier": ""}, "side_differs"),
        ({"lsn": 4001}, "side_differs"),
        ({"version": 14}, "version_differs"),
        ({"stage": "recovering"}, "side_unfinished"),
        ({"open": True}, "side_promoted"),
        ({"running": False}, "side_not_paused"),
        ({"paused": False}, "side_not_paused"),
        ({"same_filesystem": False}, "other_filesystem"),
        ({"mount_point": True}, "mount_point"),
        ({"tablespaces": ("16390",)}, "tablespaces"),
        ({"kept_exists": True}, "kept_exists"),
        ({"wal_link": "/wal"}, "wal_elsewhere"),
        ({"logical_slots": ("reader",)}, "logical_slots"),
        ({"support": False}, "no_support"),
    ],
)
def test_what_is_beside_the_live_cluster_may_forbid_it(changes: dict[str, t.Any], rule: str) -> None:
    made = plan(dataclasses.replace(SIGHT, **changes))
    assert blocked(made) == [rule]
    assert all(refusal.next_step for refusal in made.blocked)


def test_a_side_cluster_on_another_host_is_named() -> None:
    absent = dataclasses.replace(SIGHT, state="absent")
    there = dataclasses.replace(ELSEWHERE, state="ours")
    [refusal] = plan(absent, None, there).blocked
    assert "There is one on db2, which doesn't lead." in refusal.message
    assert "could not be looked at" in plan(None).blocked[0].message


@pytest.mark.parametrize(
    ("found", "rule"),
    [
        (facts(DB1, gone("db2")), "standby_unreachable"),
        (facts(dataclasses.replace(DB1, ready_segments=9)), "archive_behind"),
        (facts(dataclasses.replace(DB1, backups_running=1)), "backup_running"),
        (facts(dataclasses.replace(DB1, busy=(Busy(7, "app", "psql", "active", 60.0),))), "long_transactions"),
        (facts(poolers=[pooler(reachable=False)]), "bouncer_unreachable"),
    ],
)
def test_what_works_in_the_cluster_may_forbid_it(found: ClusterFacts, rule: str) -> None:
    assert blocked(plan(found=found)) == [rule]
    assert plan(found=found, force=(rule,)).blocked == ()


def test_without_one_primary_there_is_no_plan() -> None:
    made = plan(found=cluster(standby("db1"), standby("db2")))
    assert blocked(made) == ["no_primary"]
    assert made.actions == ()


def test_production_wants_the_name() -> None:
    production = facts(environment="production")
    assert blocked(plan(found=production)) == ["no_confirm"]
    assert blocked(plan(found=production, confirm="clinic")) == ["wrong_confirm"]
    assert plan(found=production, confirm="hospital").blocked == ()
    assert plan(found=production, check_only=True).blocked == ()


def test_what_an_earlier_run_promoted_is_gone_on_with() -> None:
    ready = dataclasses.replace(EXCHANGE, stage="promoted")
    made = plan(dataclasses.replace(SIGHT, stage="promoted", running=False, paused=False, lsn=0, exchange=ready))
    assert made.blocked == ()
    assert made.kept == "/data.before_then"
    assert made.actions[0].what.startswith("look whether the side cluster is as an earlier run promoted it")


def test_what_was_killed_in_the_middle_is_put_in_order_first() -> None:
    for stage in ("exchanging", "starting"):
        half = dataclasses.replace(SIGHT, exchange=dataclasses.replace(EXCHANGE, stage=t.cast(t.Any, stage)))
        made = plan(half, cluster(standby("db1"), standby("db2"), environment="production"), confirm="hospital")
        assert [(action.id, action.host) for action in made.actions] == [("settle", "db1")]
        assert made.settle == ("db1",)
        assert made.blocked == ()
        assert blocked(plan(half, facts(environment="production"))) == ["no_confirm"]


def test_when_it_is_done_there_is_nothing_to_do() -> None:
    done = dataclasses.replace(SIGHT, state="absent", exchange=EXCHANGE)
    db1 = dataclasses.replace(DB1, timeline=2, senders=(Sender("db2", "streaming", "async", 1, 1, 0.1),))
    made = plan(done, facts(db1, standby(timeline=2)))
    assert made.actions == ()
    assert made.finishing
    assert made.rejoin == ()
    assert made.summary.startswith("It is done: Timeline 2 left timeline 1 at 0/FA0; what timeline 1 wrote after that")


def test_a_cutover_from_another_directory_is_not_this_one() -> None:
    assert blocked(plan(dataclasses.replace(SIGHT, state="absent", directory="/other", exchange=EXCHANGE))) == [
        "no_side"
    ]


def test_what_a_killed_run_left_behind_it_is_done() -> None:
    done = dataclasses.replace(SIGHT, state="absent", exchange=EXCHANGE)
    held = pooler(processes=(dataclasses.replace(pooler().processes[0], paused=True),))
    found = facts(dataclasses.replace(DB1, timeline=2), standby(), standby("db3", lsn=3000), poolers=[held])
    made = plan(done, found)
    assert [(action.id, action.host) for action in made.actions] == [("fence", "db2"), ("resume_pools", "bouncer1")]
    assert made.rejoin == ("db2", "db3")


def test_facts_survive_a_trip_through_json() -> None:
    whole = dataclasses.replace(SIGHT, exchange=EXCHANGE, tablespaces=("1",))
    data = dataclasses.asdict(whole)
    data["tablespaces"] = ["1"]
    data["exchange"]["slots"] = ["db2"]
    assert sight_from({**data, "newer": 1}) == whole
    assert exchange_from("nonsense") is None
    assert exchange_from({"operation": "x"}) is None


def test_who_can_not_be_reached_can_not_be_rejoined() -> None:
    assert to_rejoin(facts(DB1, gone("db2"), standby("db3")), DB1) == ("db3",)
