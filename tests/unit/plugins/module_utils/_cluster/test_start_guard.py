# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster.rejoin_peers import Answer, classify_failure
from ansible_collections.hms.postgres.plugins.module_utils._cluster.start_guard import Own, decide
from ansible_collections.hms.postgres.plugins.module_utils._errors import ConnectionFailed

OWN = Own("db1", exists=True, standby=False, system_identifier="7", timeline=3, addresses=frozenset({"h1:5432"}))
DB2 = Answer("db2", "standby", "h2", 5432, system_identifier="7", timeline=3)
DB3 = dataclasses.replace(DB2, name="db3", address="h3")
GONE = Answer("db3", "unreachable", "h3", error="no route")


@pytest.mark.parametrize(
    ("own", "answers", "members", "verdict"),
    [
        (OWN, (), 1, "allow"),
        (OWN, (), 2, "wait"),
        (OWN, (DB2,), 2, "allow"),
        (OWN, (DB2, GONE), 3, "allow"),
        (OWN, (DB2, DB3), 3, "allow"),
        (OWN, (GONE,), 2, "wait"),
        (OWN, (DB2, GONE), 4, "wait"),
        (OWN, (dataclasses.replace(DB2, state="starting"), GONE), 3, "wait"),
        (OWN, (dataclasses.replace(DB2, state="refused"), GONE), 3, "wait"),
        (OWN, (dataclasses.replace(DB2, timeline=2), DB3), 3, "allow"),
        (OWN, (dataclasses.replace(DB2, timeline=4), DB3), 3, "refuse"),
        (OWN, (dataclasses.replace(DB2, state="writable"), DB3), 3, "refuse"),
        (OWN, (dataclasses.replace(DB2, system_identifier="8"), DB3), 3, "refuse"),
        # its stream from us has not been noticed as broken yet; it cascades from a standby; somebody unseen feeds it
        (OWN, (dataclasses.replace(DB2, fed_by="h1:5432"), DB3), 3, "allow"),
        (OWN, (dataclasses.replace(DB2, fed_by="h3:5432"), DB3), 3, "allow"),
        (OWN, (dataclasses.replace(DB2, fed_by="h3:5432"), GONE), 3, "refuse"),
        (dataclasses.replace(OWN, standby=True), (dataclasses.replace(DB2, state="writable"),), 3, "allow"),
        (dataclasses.replace(OWN, exists=False), (), 3, "allow"),
        (dataclasses.replace(OWN, exists=False, half_exchanged=True), (), 3, "refuse"),
        (dataclasses.replace(OWN, fenced_by="op"), (DB2, DB3), 3, "refuse"),
        (dataclasses.replace(OWN, half_rewound=True, standby=True), (DB2, DB3), 3, "refuse"),
    ],
)
def test_decide(own: Own, answers: tuple[Answer, ...], members: int, verdict: str) -> None:
    decision = decide(own, answers, members=members)
    assert decision.verdict == verdict
    assert decision.why
    assert decision.verdict != "refuse" or decision.next_step


def test_only_what_is_known_against_it_fences() -> None:
    assert decide(OWN, (dataclasses.replace(DB2, state="writable"),), members=2).fence
    assert decide(OWN, (dataclasses.replace(DB2, timeline=4),), members=2).fence
    assert not decide(OWN, (dataclasses.replace(DB2, system_identifier="8"),), members=2).fence


def test_another_clusters_primary_is_no_reason_to_fence() -> None:
    stranger = dataclasses.replace(DB2, state="writable", system_identifier="8")
    assert not decide(OWN, (stranger, DB3), members=3).fence


@pytest.mark.parametrize(
    ("message", "state"),
    [
        ("FATAL: the database system is starting up", "starting"),
        ("FATAL: the database system is shutting down", "starting"),
        ('FATAL: password authentication failed for user "hms_monitor"', "refused"),
        ("FATAL: no pg_hba.conf entry for host", "refused"),
        ("connection refused", "unreachable"),
        ("timeout expired", "unreachable"),
    ],
)
def test_classify_failure(message: str, state: str) -> None:
    assert classify_failure(ConnectionFailed(message)) == state


def test_sqlstate_counts_before_words() -> None:
    assert classify_failure(ConnectionFailed("x", details={"sqlstate": "57P03"})) == "starting"
    assert classify_failure(ConnectionFailed("x", details={"sqlstate": "28P01"})) == "refused"
