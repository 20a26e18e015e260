# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verdict in plain words: every branch, and nothing that the record doesn't carry."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.plugin_utils._report.parse import parse_record
from ansible_collections.hms.postgres.plugins.plugin_utils._report.verdict import (
    lost_basis,
    lost_number,
    lost_sentence,
    objectives,
    sentence,
    verdict,
    waited_basis,
)
from ansible_collections.hms.postgres.tests.unit.plugins.plugin_utils._report.samples import record

F, S, R, X, J = "failover_done", "switchover_done", "failover_refused", "switchover_incomplete", "rejoin_with_losses"
UNKNOWN_STALL: dict[str, t.Any] = {"clients": None, "outage": None, "outcome__rto_seconds": None}
TOOK_OVER = "db1 failed; its last write was at 03:12:07 UTC. db2 took over. Writers waited at most 8.10 s. "
KNOWN_LOST = {"known": True, "count": 1, "transactions": [], "basis": "the old log"}


@pytest.mark.parametrize(
    ("name", "changes", "label", "headline"),
    [
        (
            F,
            {},
            "Done",
            TOOK_OVER + "Nothing acknowledged was lost.",
        ),
        (
            F,
            {"outage": None, "plan": None, "before": None, "outcome__rto_seconds": 2.31, "clients__stall": None}
            | {"after": None, "clients__longest_stall_seconds": 1.0},
            "Done",
            (
                "The old primary failed. The new primary took over. Writers waited at most 2.31 s. "
                "Nothing acknowledged was lost."
            ),
        ),
        (
            F,
            {**UNKNOWN_STALL, "losses": None},
            "Done, losses not known",
            (
                "db1 failed. db2 took over. How long writers waited was not measured. "
                "Whether anything was lost is not known."
            ),
        ),
        (
            F,
            {"losses": KNOWN_LOST},
            "Done, with losses",
            TOOK_OVER + "1 transaction was lost.",
        ),
        (
            F,
            {"losses": None, "clients__acknowledged": 1812},
            "Done, losses not known",
            TOOK_OVER + "None of the 1,812 writes acknowledged to the probe was lost; beyond that it is not known.",
        ),
        (
            F,
            {"losses__known": False, "clients__lost": 4},
            "Done, with losses",
            TOOK_OVER + "At least 4 transactions were lost.",
        ),
        (
            S,
            {},
            "Done",
            "The primary moved from db1 to db2, as planned. Writers waited 0.28 s. Nothing acknowledged was lost.",
        ),
        (
            S,
            {"plan": None, "clients": None},
            "Done",
            (
                "The primary moved from db1 to db2, as planned. How long writers waited was not measured. "
                "Nothing acknowledged was lost."
            ),
        ),
        (
            J,
            {},
            "Done, with losses",
            "db1 is back as a standby of db2. 3 transactions that only db1 held were lost; they are listed.",
        ),
        (
            J,
            {"losses": KNOWN_LOST, "asked__parameters": None, "fence": {"host": "db9"}},
            "Done, with losses",
            "db9 is back as a standby of db2. 1 transaction that only db9 held was lost; it is listed.",
        ),
        (
            J,
            {"losses": {"known": True, "count": 0, "basis": "the log"}, "asked__parameters": None},
            "Done",
            "db1 is back as a standby of db2. It held no transaction that db2 lacks.",
        ),
        (
            J,
            {"losses": {"known": False}, "asked": None, "plan": None, "after": None},
            "Done, losses not known",
            (
                "The host is back as a standby of the new primary. "
                "Whether it held transactions that the new primary lacks is not known."
            ),
        ),
        (J, {"losses": None}, "Done", "db1 is back as a standby of db2."),
        (
            J,
            {"losses__known": False},
            "Done, with losses",
            "db1 is back as a standby of db2. At least 3 transactions that only db1 held were lost; they are listed.",
        ),
        (
            F,
            {"fence": None},
            "Done, fence not proven",
            TOOK_OVER + "Nothing acknowledged was lost. The record does not prove that db1 is cut off.",
        ),
        (F, {"fence__proofs": []}, "Done, fence not proven", None),
        ("failover_unproven", {}, "Done, fence not proven", None),
        (F, {"operation": "exercise"}, "Done", "The exercise is done."),
        (F, {"operation": None}, "Done", "The operation is done."),
        (
            F,
            {"outcome__status": "nothing_to_do"},
            "Nothing to do",
            "Nothing had to be done. db2 is the primary already.",
        ),
        (
            F,
            {"outcome__status": "nothing_to_do", "after": None, "plan": None},
            "Nothing to do",
            "Nothing had to be done.",
        ),
        (J, {"outcome__status": "nothing_to_do"}, "Nothing to do", "Nothing had to be done. db1 already follows db2."),
        (
            S,
            {"outcome__status": "rolled_back", "after": {"primary": "db1"}},
            "Rolled back",
            "The switchover was taken back. db1 is the primary, as before. Writers waited 0.28 s.",
        ),
        (
            S,
            {"outcome__status": "rolled_back", "before": None, "after": {"primary": "db1"}, "clients": None},
            "Rolled back",
            "The switchover was taken back. db1 is the primary.",
        ),
        (
            S,
            {"outcome__status": "rolled_back", "after": None, "clients": None},
            "Rolled back",
            "The switchover was taken back.",
        ),
        (
            X,
            {},
            "Interrupted",
            "The switchover was interrupted: its record has no outcome. It stopped at \u201cPromote\u201d on db2.",
        ),
        (
            R,
            {"outcome__status": "incomplete"},
            "Incomplete",
            "The failover did not finish. It failed at \u201cLook at the member\u201d on db1.",
        ),
        (
            S,
            {"outcome__status": "incomplete"},
            "Incomplete",
            "The switchover did not finish. The last step recorded is \u201cRelease the lock\u201d on controller.",
        ),
        (
            S,
            {"outcome__status": "incomplete", "steps": []},
            "Incomplete",
            "The switchover did not finish. No step was begun.",
        ),
        (
            S,
            {"outcome__status": "incomplete", "steps": [{"title": "Look", "started": 1.0}]},
            "Incomplete",
            "The switchover did not finish. It stopped at \u201cLook\u201d.",
        ),
        (R, {}, "Refused", "The failover was refused and nothing was changed."),
        (S, {"outcome__status": "refused"}, "Refused", "The switchover was refused."),
        (
            F,
            {"outcome__status": "odd"},
            "Outcome not understood",
            "The record calls the outcome of this failover \u201codd\u201d.",
        ),
        (F, {"outcome__rto_seconds": 3600.5, "losses": None}, "Done, RTO missed", None),
        (F, {"outcome__rpo_seconds": 301, "outcome__rto_met": False}, "Done, RTO and RPO missed", None),
    ],
)
def test_wording(name: str, changes: dict[str, t.Any], label: str, headline: str | None) -> None:
    told = verdict(record(name, **changes))
    assert told.label == label
    assert headline is None or told.headline == headline


def test_an_empty_record_is_an_interrupted_operation() -> None:
    told = verdict(parse_record({}))
    assert told.headline == "The operation was interrupted: its record has no outcome. No step was begun."
    assert (told.tone, told.glyph) == ("bad", "✕")


@pytest.mark.parametrize(
    ("name", "changes", "tone", "glyph"),
    [
        (F, {}, "good", "✓"),
        (F, {"losses": None}, "warn", "!"),
        (F, {"outcome__status": "nothing_to_do"}, "calm", "–"),
        (F, {"outcome__status": "incomplete"}, "bad", "✕"),
        (R, {}, "warn", "!"),
    ],
)
def test_colour_is_not_the_only_carrier(name: str, changes: dict[str, t.Any], tone: str, glyph: str) -> None:
    told = verdict(record(name, **changes))
    assert (told.tone, told.glyph) == (tone, glyph)


@pytest.mark.parametrize(
    ("changes", "met", "word"),
    [
        ({}, True, "met"),
        ({"outcome__rto_met": None}, True, "met"),
        ({"outcome__rto_seconds": 4000}, False, "missed"),
        ({"outcome__rto_met": False}, False, "missed"),
        ({"outcome__rto_seconds": None, "outcome__rto_met": None}, None, "not measured"),
        ({"objectives": None, "outcome__rto_met": None}, None, "no objective set"),
        ({"objectives": None, "outcome__rto_met": False}, False, "missed"),
    ],
)
def test_objectives(changes: dict[str, t.Any], met: bool | None, word: str) -> None:
    rto, rpo = objectives(record(F, **changes))
    assert (rto.met, rto.word) == (met, word)
    assert (rto.name, rpo.name) == ("RTO", "RPO")


def test_the_wait_is_never_less_than_any_measurement_of_it() -> None:
    assert record(F).waited == 8.1
    assert record(F, outcome__rto_seconds=9.5).waited == 9.5
    assert record(F, clients__longest_stall_seconds=12.0).waited == 12.0
    assert record(F, clients__stall={"started": 0, "ended": 13.0}).waited == 13.0
    assert record(S, outcome__rto_seconds=9.5).waited == pytest.approx(0.2777, abs=0.001)
    assert record(F, **UNKNOWN_STALL).waited is None
    assert record(F, outage={"started_at": "2026-11-22T03:12:09Z", "ended_at": "2026-11-22T03:12:07Z"}).waited == 8.1


def test_what_the_wait_rests_on() -> None:
    assert waited_basis(record(S)) == "the longest stall that the probe met"
    assert (
        waited_basis(record(F))
        == "from the last write on db1 to the first on db2; the probe, once started, waited 1.42 s"
    )
    assert waited_basis(record(F, clients=None)) == "from the last write on db1 to the first on db2"
    assert waited_basis(record(F, **UNKNOWN_STALL)) == ""


def test_what_the_losses_rest_on() -> None:
    assert lost_basis(record(S)) == "db2 held the shutdown checkpoint of db1 before it was promoted"
    assert lost_basis(record(S, losses=None)).endswith(" acknowledged writes of the probe were looked for")
    assert lost_basis(record(S, losses=None, clients=None)) == ""


def test_more_transactions_than_the_count_says() -> None:
    lost = record(J, losses__count=1)
    assert lost.lost == 3
    assert lost_sentence(lost) == "3 transactions were lost."


def test_what_is_lost_is_a_least_number_while_not_all_is_known() -> None:
    numbers = [
        lost_number(record(J, **changes))
        for changes in (
            {},
            {"losses__known": False},
            {"losses": None},
            {"losses__count": 0, "losses__transactions": []},
        )
    ]
    assert numbers == ["3", "at least 3", "not known", "none"]
    assert lost_sentence(record(J, losses={"count": 1})) == "At least 1 transaction was lost."


def test_a_full_stop_only_where_one_is_missing() -> None:
    assert [sentence(text) for text in ("a", "a.", "a?")] == ["a.", "a.", "a?"]
