# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every rule that forbids an operation, by one table for each; who led, who leads next, and what it may lack."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster import rules
from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import (
    Busy,
    ClusterFacts,
    Control,
    MemberFacts,
)
from ansible_collections.hms.postgres.plugins.module_utils._cluster.plan import Refusal, Request
from ansible_collections.hms.postgres.tests.unit.plugins.engine_facts import (
    SYSTEM,
    cluster,
    down,
    gone,
    pooler,
    primary,
    process,
    receiver,
    standby,
)


def switchover(**wish: t.Any) -> Request:
    return Request("switchover", **{"candidate": "db2", **wish})


def failover(**wish: t.Any) -> Request:
    return Request("failover", **wish)


def names(refusals: t.Iterable[Refusal]) -> list[str]:
    return [refusal.rule for refusal in refusals]


SWITCHOVER: dict[str, tuple[ClusterFacts, Request, str, bool]] = {
    "nothing named": (cluster(), switchover(candidate=""), "no_candidate", False),
    "nobody of that name": (cluster(), switchover(candidate="db9"), "unknown_candidate", False),
    "its host is gone": (cluster(primary(), gone("db2")), switchover(), "candidate_unreachable", False),
    "it is down": (
        cluster(primary(), standby(running=False, responsive=False, in_recovery=None)),
        switchover(),
        "candidate_not_standby",
        False,
    ),
    "it is not meant to lead": (
        cluster(primary(), standby(may_be_primary=False)),
        switchover(),
        "not_eligible",
        True,
    ),
    "it delays replay": (cluster(primary(), standby(apply_delay=60.0)), switchover(), "delayed_standby", False),
    "two lead": (
        cluster(primary(), primary("db3"), standby()),
        switchover(),
        "two_primaries",
        False,
    ),
    "nobody leads": (cluster(down(), standby()), switchover(), "no_primary", False),
    "it is of another cluster": (
        cluster(primary(), standby(control=Control("in archive recovery", 1, 1, "another"))),
        switchover(),
        "other_system",
        False,
    ),
    "no receiver": (cluster(primary(), standby(receiver=None)), switchover(), "not_streaming", False),
    "a receiver that starts": (
        cluster(primary(), standby(receiver=receiver(status="starting"))),
        switchover(),
        "not_streaming",
        False,
    ),
    "fed by another standby": (
        cluster(primary(), standby(receiver=receiver("db3")), standby("db3")),
        switchover(),
        "cascaded",
        False,
    ),
    "on an older timeline": (cluster(primary(timeline=2), standby()), switchover(), "timeline_behind", False),
    "replay is paused": (cluster(primary(), standby(replay_paused=True)), switchover(), "replay_paused", False),
    "far behind": (
        cluster(primary(lsn=1 << 30), standby(replay_age=400.0)),
        switchover(),
        "candidate_behind",
        True,
    ),
    "the archive is behind": (cluster(primary(ready_segments=3), standby()), switchover(), "archive_behind", True),
    "a backup runs": (cluster(primary(backups_running=1), standby()), switchover(), "backup_running", True),
    "a transaction is older than clients may wait": (
        cluster(primary(busy=(Busy(7, "app", "batch", "idle in transaction", 90.0),)), standby()),
        switchover(),
        "long_transactions",
        True,
    ),
    "a bouncer host is gone": (
        cluster(poolers=[pooler(reachable=False, error="no route")]),
        switchover(),
        "bouncer_unreachable",
        True,
    ),
    "a bouncer process is dead": (
        cluster(poolers=[pooler(processes=(process(), process("2", reachable=False)))]),
        switchover(),
        "bouncer_unreachable",
        True,
    ),
    "clients are pooled by session": (
        cluster(poolers=[pooler(processes=(process(pool_modes=("session",)),))]),
        switchover(),
        "session_pooling",
        True,
    ),
    "no bouncer is known": (cluster(poolers=[]), switchover(), "no_bouncers", True),
    "the wrong cluster is confirmed": (cluster(), switchover(confirm="clinic"), "wrong_confirm", False),
    "production is not confirmed": (cluster(environment="production"), switchover(), "no_confirm", False),
}


@pytest.mark.parametrize("case", SWITCHOVER)
def test_a_switchover_is_refused_by_one_rule(case: str) -> None:
    facts, request, rule, overridable = SWITCHOVER[case]
    found = rules.for_switchover(facts, request)
    assert names(found) == [rule]
    assert found[0].overridable is overridable
    assert found[0].next_step, "who is refused is told what to do"


@pytest.mark.parametrize(
    ("facts", "request_"),
    [
        (cluster(), switchover()),
        (cluster(environment="production"), switchover(confirm="hospital")),
        (cluster(environment="production"), switchover(check_only=True)),
        (cluster(), switchover(confirm="clinic", check_only=True)),
        (cluster(primary(), standby(), standby("db3", "db2")), switchover()),
        (cluster(primary(lsn=1 << 30), standby(replay_age=10.0)), switchover()),
    ],
)
def test_a_switchover_in_order_is_not_refused(facts: ClusterFacts, request_: Request) -> None:
    assert rules.for_switchover(facts, request_) == []


def refusals(facts: ClusterFacts, request: Request) -> list[Refusal]:
    """As plan_failover asks."""
    leading = facts.primaries[0] if len(facts.primaries) == 1 else None
    old = leading or rules.lost_primary(facts)
    return rules.for_failover(facts, request, old=old, candidate=rules.choose_candidate(facts, request))


LOST = (down(), standby(receiver=None))
FAILOVER: dict[str, tuple[ClusterFacts, Request, str, bool]] = {
    "nobody of that name": (cluster(*LOST), failover(candidate="db9"), "unknown_candidate", False),
    "the one named is gone": (
        cluster(down(), gone("db2"), standby("db3")),
        failover(candidate="db2"),
        "candidate_unreachable",
        False,
    ),
    "two lead": (cluster(primary(), primary("db3"), standby()), failover(candidate="db2"), "two_primaries", False),
    "the primary lives": (cluster(), failover(candidate="db2"), "primary_alive", True),
    "it lives, says a standby": (cluster(gone(), standby()), failover(fence_command=("off",)), "primary_alive", True),
    "no standby runs": (
        cluster(down(), gone("db2"), poolers=[pooler(), pooler("bouncer2")]),
        failover(),
        "no_candidate",
        False,
    ),
    "one on a newer timeline": (
        cluster(down(), standby(receiver=None), standby("db3", timeline=2)),
        failover(candidate="db2"),
        "timeline_behind",
        True,
    ),
    "one has more": (
        cluster(down(), standby(receiver=None), standby("db3", lsn=6000)),
        failover(candidate="db2"),
        "not_most_advanced",
        True,
    ),
    "more than the RPO is missing": (
        cluster(down(wal_written_at=1600.0), standby(receiver=None, lsn=3999)),
        failover(),
        "behind_rpo",
        True,
    ),
    "nobody is left to be synchronous": (cluster(*LOST, policy="strict"), failover(), "no_sync_standby", True),
    "only one that delays is left": (
        cluster(*LOST, standby("db3", apply_delay=60.0), policy="strict"),
        failover(),
        "no_sync_standby",
        True,
    ),
    "no proof": (cluster(gone(), standby(receiver=None)), failover(), "no_fence_proof", True),
    "no proof by receivers that can't be asked": (
        cluster(gone(), standby(receiver=None), gone("db3"), poolers=[pooler(), pooler("bouncer2")], policy="strict"),
        failover(force=("no_sync_standby",)),
        "no_fence_proof",
        True,
    ),
    "a bouncer host is gone": (
        cluster(*LOST, poolers=[pooler(reachable=False)]),
        failover(),
        "bouncer_unreachable",
        True,
    ),
    "the smaller side of a broken network": (
        cluster(gone(), standby(receiver=None), gone("db3"), poolers=[pooler()]),
        failover(fence_command=("off",)),
        "no_quorum",
        True,
    ),
    "production is not confirmed": (cluster(*LOST, environment="production"), failover(), "no_confirm", False),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILOVER)
def test_a_failover_is_refused_by_one_rule(case: str) -> None:
    facts, request, rule, overridable = FAILOVER[case]
    found = [refusal for refusal in refusals(facts, request) if refusal.rule not in request.force]
    assert names(found) == [rule]
    assert found[0].overridable is overridable
    assert found[0].next_step


@pytest.mark.parametrize(
    ("facts", "request_"),
    [
        (cluster(*LOST), failover()),
        (cluster(*LOST, standby("db3", receiver=None), policy="strict"), failover()),
        (cluster(gone(), standby(receiver=None)), failover(fence_command=("off",))),
        (cluster(gone(), standby(receiver=None), standby("db3", receiver=None), policy="strict"), failover()),
        (cluster(gone(), standby(receiver=receiver(message_age=11.0))), failover(fence_command=("off",))),
        (cluster(*LOST, environment="production"), failover(confirm="hospital")),
    ],
)
def test_a_failover_that_can_be_done_is_not_refused(facts: ClusterFacts, request_: Request) -> None:
    assert refusals(facts, request_) == []


def test_a_session_pool_is_no_matter_when_the_primary_is_lost() -> None:
    facts = cluster(*LOST, poolers=[pooler(processes=(process(pool_modes=("session",)),))])
    assert refusals(facts, failover()) == []


AGE = 100.0


@pytest.mark.parametrize(
    ("candidate", "old", "expected"),
    [
        # the host is gone: the age of the last commit, because the primary may have written until now
        (standby(receiver=None, replay_age=AGE), gone(), AGE),
        (standby(receiver=None, replay_age=None), gone(), None),
        (standby(receiver=None, replay_age=AGE), None, AGE),
        # it still streams: no older than the last word
        (standby(receiver=receiver(message_age=4.0), replay_age=AGE), gone(), 4.0),
        (standby(receiver=receiver(status="waiting", message_age=4.0), replay_age=AGE), gone(), AGE),
        # its log can be read: what was written after the last commit known here (999 s), however long ago
        (standby(receiver=None, replay_age=1e6, lsn=3000), down(wal_written_at=1004.0), 5.0),
        (standby(receiver=None, replay_age=1e6, lsn=3000), down(wal_written_at=990.0), 0.0),
        # its last checkpoint is known here, so that nothing before its end is missing
        (
            standby(receiver=None, replay_age=1e6, lsn=4001),
            down(wal_written_at=5002.0, control=Control("in production", 4000, 1, SYSTEM, written_at=5000.0)),
            2.0,
        ),
        # it was shut down, and the record of that is here
        (
            standby(receiver=None, replay_age=1e6, lsn=4001),
            down(wal_written_at=5002.0, control=Control("shut down", 4000, 1, SYSTEM)),
            0.0,
        ),
        (
            standby(receiver=None, replay_age=1e6, lsn=4000),
            down(wal_written_at=1049.0, control=Control("shut down", 4000, 1, SYSTEM)),
            50.0,
        ),
        # nothing was ever replayed here
        (standby(receiver=None, last_commit_at="", lsn=3000), down(), None),
    ],
)
def test_how_much_the_candidate_may_lack(
    candidate: MemberFacts, old: MemberFacts | None, expected: float | None
) -> None:
    assert rules.missing_seconds(candidate, old) == expected


def test_a_primary_that_has_lain_dead_for_hours_is_no_loss() -> None:
    """The hospital noticed late: what counts is what was written, not when somebody came."""
    facts = cluster(down(wal_written_at=1001.0), standby(receiver=None, replay_age=7 * 3600.0, lsn=4500))
    assert refusals(facts, failover(rpo_seconds=10.0)) == []


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (cluster(), "db1"),
        (cluster(down(), standby()), "db1"),
        (cluster(gone(), standby()), "db1"),
        # bouncers lead to one that is a standby by now: those who follow tell
        (cluster(standby("db1", "db3"), standby("db2", "db3"), gone("db3"), poolers=[pooler()]), "db3"),
        # nobody has a say: whoever is no standby
        (cluster(down(), standby(settings={}), poolers=[]), "db1"),
        (cluster(standby("db1", "db3", settings={}), standby(settings={}), poolers=[]), None),
        (cluster(down(standby_signal=True), standby(settings={}), poolers=[]), None),
    ],
)
def test_who_led_until_now(facts: ClusterFacts, expected: str | None) -> None:
    found = rules.lost_primary(facts)
    assert (found.name if found else None) == expected


@pytest.mark.parametrize(
    ("members", "wanted", "expected"),
    [
        ((standby("db2", lsn=1), standby("db3", lsn=2)), "", "db3"),
        ((standby("db2", lsn=9), standby("db3", lsn=1, timeline=2)), "", "db3"),
        ((standby("db2", priority=5), standby("db3", priority=9)), "", "db3"),
        ((standby("db2", lsn=1), standby("db3", lsn=2, may_be_primary=False)), "", "db2"),
        ((standby("db2", lsn=1), standby("db3", lsn=2, apply_delay=3.0)), "", "db2"),
        ((standby("db2", lsn=1), standby("db3", lsn=2)), "db2", "db2"),
        ((standby("db2"), gone("db3")), "db3", None),
        ((gone("db2"),), "", None),
    ],
)
def test_who_leads_next(members: tuple[MemberFacts, ...], wanted: str, expected: str | None) -> None:
    found = rules.choose_candidate(cluster(down(), *members), failover(candidate=wanted))
    assert (found.name if found else None) == expected


def test_what_should_be_known_although_it_forbids_nothing() -> None:
    old = primary(
        version="15.17",
        client_addresses={"10.0.1.1": 4, "10.0.0.2": 1, "10.9.9.9": 2},
        prepared_transactions=3,
        weak_commit_roles=("app@*: synchronous_commit=off",),
    )
    told = rules.warnings(cluster(old, standby(), policy="strict"), standby(), old)
    assert told == (
        "db1 runs 15.17, db2 runs 15.18.",
        "Clients are connected to db1 past the bouncers (2 from 10.9.9.9); they are cut off.",
        "These settings acknowledge before a standby has the write: app@*: synchronous_commit=off",
        "3 prepared transactions wait on db1; they go along.",
    )
    assert rules.warnings(cluster(), standby(), None) == ()
