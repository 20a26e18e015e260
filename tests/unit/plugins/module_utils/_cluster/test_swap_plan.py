# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a swap: actions in their order, what forbids it, what is said before."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import ClusterFacts, Sender
from ansible_collections.hms.postgres.plugins.module_utils._cluster.swap_model import (
    Entry,
    Inside,
    Names,
    Routes,
    Sight,
    SwapPlan,
    SwapRequest,
    inside_from,
    routes_from,
)
from ansible_collections.hms.postgres.plugins.module_utils._cluster.swap_plan import plan_swap
from ansible_collections.hms.postgres.plugins.module_utils._tools.database_rename import (
    Attached,
    Database,
    Obstacles,
)
from ansible_collections.hms.postgres.tests.unit.plugins.engine_facts import cluster, down, pooler, primary, standby

NAMES = Names("hospital", "new", "old")
LIVE = Database("hospital", 16384, "owner", encoding="UTF8")
SCRATCH = Database("new", 16390, "owner", encoding="UTF8")
ENTRY = Entry("1", "hospital", "10.0.0.1:5431", paused=False, pool_mode="transaction")
ROUTES = Routes("bouncer1", (ENTRY, dataclasses.replace(ENTRY, process="2")), (101,))


def session(pid: int = 7, **changes: t.Any) -> Attached:
    base = Attached(pid, "hospital", "app", "psql", "", "client backend", "idle", 5.0)
    return dataclasses.replace(base, **changes)


def sight(**changes: t.Any) -> Sight:
    inside = {key: changes.pop(key) for key in list(changes) if key in {f.name for f in dataclasses.fields(Inside)}}
    base: dict[str, t.Any] = {
        "databases": (LIVE, SCRATCH),
        "names": NAMES,
        "inside": Inside(**{"support_live": True, **inside}),
        "routes": (ROUTES,),
    }
    return Sight(**{**base, **changes})


def plan(seen: Sight | None = None, facts: ClusterFacts | None = None, **wishes: t.Any) -> SwapPlan:
    request = SwapRequest(**{"state": "swapped", "database": "hospital", "scratch": "new", **wishes})
    return plan_swap(facts or cluster(), seen or sight(), request)


def rules(made: SwapPlan) -> list[str]:
    assert all(refusal.next_step for refusal in made.blocked)
    return [refusal.rule for refusal in made.blocked]


def test_everybody_is_held_then_both_are_renamed_then_all_go_on() -> None:
    made = plan()
    assert not made.blocked
    assert [(action.id, action.host) for action in made.actions] == [
        ("probe", "bouncer1"),
        ("hold_pools", "bouncer1"),
        ("swap", "db1"),
        ("resume_pools", "bouncer1"),
        ("verify", "bouncer1"),
        ("end_readers", "db2"),
    ]
    assert made.summary == "new becomes hospital; the present hospital is kept as old."
    assert (made.live_oid, made.scratch_oid, made.new_primary) == (16384, 16390, "db1")
    assert made.predicted.stall_seconds is not None
    assert made.predicted.stall_seconds <= 0.5
    swap = made.as_record()["swap"]
    assert (swap["kept_as"], swap["sessions"]) == ("old", [])


def test_without_a_bouncer_nobody_is_held_and_that_is_said() -> None:
    made = plan(sight(routes=()), cluster(poolers=[]), sessions="wait")
    assert [action.id for action in made.actions] == ["swap"]
    assert "those that connect in that moment see an error" in made.predicted.basis[0]
    unled = plan(sight(routes=(Routes("bouncer1"),)))
    assert unled.poolers == ()
    assert "No bouncer leads to hospital: nobody is held." in unled.warnings


@pytest.mark.parametrize(
    ("policy", "ids", "words"),
    [
        ("terminate", [], "1 session; ended while the clients are held (sessions: terminate)."),
        ("wait", ["await_sessions"], "1 session; waited for before any client is held (sessions: wait)."),
    ],
)
def test_what_happens_to_sessions_past_the_bouncers_is_said(policy: str, ids: list[str], words: str) -> None:
    made = plan(sight(attached=(session(), session(101))), sessions=policy)
    assert not made.blocked
    assert [action.id for action in made.actions if action.id == "await_sessions"] == ids
    assert any(words in text for text in made.warnings)
    assert made.sessions == ("pid 7: app (psql), idle for 5 s",)


def test_the_policy_refuse_refuses() -> None:
    made = plan(sight(attached=(session(),)), sessions="refuse", force=("sessions_connected",))
    assert rules(made) == ["sessions_connected"], "that word can't be overridden: say another policy"


def test_own_sessions_helpers_and_pools_are_nobody_s_business() -> None:
    harmless = (
        session(101),
        session(8, kind="autovacuum worker"),
        session(9, application_name="hms.postgres"),
    )
    assert rules(plan(sight(attached=harmless), sessions="refuse")) == []


@pytest.mark.parametrize(
    ("changes", "rule", "overridable"),
    [
        ({"live": Obstacles(prepared_transactions=("x",))}, "prepared_transactions", False),
        ({"scratch": Obstacles(prepared_transactions=("x",))}, "prepared_transactions", False),
        ({"live": Obstacles(logical_slots=("x",))}, "logical_slots", True),
        ({"live": Obstacles(subscriptions=("x",))}, "subscriptions", True),
        ({"live": Obstacles(cron=True)}, "pg_cron", True),
        ({"attached": (session(kind="pg_cron launcher"),)}, "background_workers", True),
        ({"attached": (session(database="new"),)}, "scratch_connected", True),
        ({"attached": (session(application_name="hms.postgres backup"),)}, "backup_running", True),
        ({"attached": (session(application_name="pg_dump"),)}, "backup_running", True),
        ({"attached": (session(101, in_transaction=True, age=9.0),)}, "long_transactions", True),
        ({"shut_out": ("hospital_app",)}, "connect_lost", True),
        ({"scratch_error": "it is not accepting connections"}, "scratch_closed", False),
        ({"databases": (LIVE, dataclasses.replace(SCRATCH, connection_limit=-2))}, "scratch_invalid", False),
        ({"databases": (dataclasses.replace(LIVE, template=True), SCRATCH)}, "template_database", True),
        (
            {"routes": (Routes("bouncer1", (dataclasses.replace(ENTRY, pool_mode="session"),)),)},
            "session_pooling",
            True,
        ),
        (
            {"routes": (Routes("bouncer1", (ENTRY, dataclasses.replace(ENTRY, process="2", name="other"))),)},
            "processes_differ",
            False,
        ),
    ],
)
def test_what_stands_in_the_way(changes: dict[str, t.Any], rule: str, overridable: bool) -> None:
    assert rules(plan(sight(**changes))) == [rule]
    assert rules(plan(sight(**changes), force=(rule,))) == ([] if overridable else [rule])


def test_the_server_s_own_databases_are_not_renamed() -> None:
    seen = sight(names=Names("postgres", "new", "old"), databases=(dataclasses.replace(LIVE, name="postgres"), SCRATCH))
    assert rules(plan(seen, database="postgres")) == ["system_database"]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (cluster(down(), standby()), "no_primary"),
        (cluster(primary(), primary("db2")), "two_primaries"),
        (cluster(poolers=[pooler(reachable=False, error="gone")]), "bouncer_unreachable"),
    ],
)
def test_the_cluster_must_be_in_order(facts: ClusterFacts, expected: str) -> None:
    assert rules(plan(facts=facts)) == [expected]


def test_a_commit_that_would_wait_for_nobody_is_not_begun() -> None:
    waits = primary(settings={"synchronous_standby_names": 'ANY 1 ("db2")'}, senders=())
    assert rules(plan(facts=cluster(waits, standby()))) == ["no_sync_standby"]
    sender = Sender("db2", "streaming", "quorum", 5000, 5000, 0.1)
    assert rules(plan(facts=cluster(dataclasses.replace(waits, senders=(sender,)), standby()))) == []


@pytest.mark.parametrize(
    ("environment", "wishes", "expected"),
    [
        ("production", {}, ["no_confirm"]),
        ("production", {"confirm": "hospital"}, []),
        ("production", {"check_only": True}, []),
        ("staging", {"confirm": "clinic"}, ["wrong_confirm"]),
        ("staging", {}, []),
    ],
)
def test_production_wants_the_database_s_name(environment: str, wishes: dict[str, t.Any], expected: list[str]) -> None:
    facts = dataclasses.replace(cluster(), environment=environment)
    assert rules(plan(facts=facts, **wishes)) == expected


def test_what_it_was_told_wrong_is_refused_and_nothing_else_is_judged() -> None:
    made = plan(sight(names=Names("hospital", "new", "old", wrong=("no_scratch", "There is none.", "Name one."))))
    assert rules(made) == ["no_scratch"]
    assert not made.changed


def test_what_is_done_is_done() -> None:
    made = plan(sight(names=Names("hospital", "new", done=True), inside=None))
    assert not made.changed
    assert made.finishing
    assert made.summary == "hospital is what new was: there is nothing to do."


def test_what_a_killed_run_left_held_is_let_go() -> None:
    held = Routes("bouncer1", (dataclasses.replace(ENTRY, paused=True),))
    made = plan(sight(names=Names("hospital", "new", done=True), inside=None, routes=(held,)))
    assert [(action.id, action.host) for action in made.actions] == [("resume_pools", "bouncer1")]
    assert made.poolers == ("bouncer1",)
    assert made.live_oid == 16384
    assert rules(plan(sight(names=Names("hospital", "new", done=True), inside=None), confirm="clinic")) == [
        "wrong_confirm"
    ]


def test_what_should_be_known_before() -> None:
    other = dataclasses.replace(SCRATCH, owner="postgres", encoding="SQL_ASCII")
    least = Routes("bouncer1", (dataclasses.replace(ENTRY, least=2),))
    made = plan(sight(databases=(LIVE, other), routes=(least,), readers={"db2": 3, "db3": 0}, support_live=False))
    told = " ".join(made.warnings)
    assert "new has owner postgres instead of owner; encoding SQL_ASCII instead of UTF8." in told
    assert "min_pool_size is set on bouncer1/1" in told
    assert "On the standby db2 3 sessions will stay in the old database. They are ended." in told
    assert "db3" not in told
    assert "lacks the schema hms, so no write through the bouncers is tried" in told
    assert not made.probe
    assert "They read old data until they reconnect." in " ".join(
        plan(sight(readers={"db2": 1}), sessions="wait").warnings
    )


def test_what_scratch_lacks_is_made_before_anybody_waits() -> None:
    made = plan(sight(support_missing=("the table hms.write_probe",)), probes=False)
    assert made.actions[0].id == "prepare_scratch"
    assert "the table hms.write_probe" in made.actions[0].what


def test_a_long_transaction_is_part_of_what_is_predicted() -> None:
    made = plan(sight(attached=(session(101, in_transaction=True, age=1.0),)))
    assert "a transaction has run for 1.0 s; how long it goes on is not known" in made.predicted.basis


def test_what_was_seen_survives_the_wire() -> None:
    inside = Inside((session(),), Obstacles(("x",), ("y",), ("z",), True), Obstacles(), ("r",), True, ("m",), "e")
    assert inside_from(dataclasses.asdict(inside)) == inside
    assert routes_from(dataclasses.asdict(ROUTES)) == ROUTES


def test_where_there_is_no_live_database_the_other_one_gets_its_name_when_that_is_said() -> None:
    gone = sight(databases=(SCRATCH,), names=Names("hospital", "new", missing=True))
    assert rules(plan(gone)) == ["no_database"]
    made = plan(gone, force=("no_database",))
    assert not made.blocked
    assert [(action.id, action.host) for action in made.actions] == [
        ("hold_pools", "bouncer1"),
        ("swap", "db1"),
        ("resume_pools", "bouncer1"),
        ("verify", "bouncer1"),
    ]
    assert made.summary == "new becomes hospital; there is none now, so nothing is kept."
    assert (made.live_oid, made.scratch_oid, made.keep, made.missing) == (0, 16390, "", True)
    bare = sight(databases=(SCRATCH,), names=Names("hospital", "new", missing=True), support_live=False)
    assert any("run playbooks/site.yml afterwards" in text for text in plan(bare).warnings)
