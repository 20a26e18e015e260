# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import itertools
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster.sync_guard import (
    CLOSE_BY,
    GAP,
    PROOF,
    SETTLED,
    SILENCE,
    Action,
    Decision,
    Look,
    Memory,
    Standby,
    decide,
)

NAMES = 'ANY 1 ("db2", "db3")'
LSN = 1 << 30
_STAMPS = itertools.count()


def standby(name: str = "db2", *, lag: int = 0, sent: int = LSN, reply: str = "", **changes: bool) -> Standby:
    """A standby that answers, unless its last reply is given."""
    made = Standby(name, True, True, sent, LSN - lag, reply or f"reply {next(_STAMPS)}")
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]  # only the two booleans are ever given


WAITING = Look(
    at=0.0,
    policy="degrade",
    wanted=NAMES,
    eligible=frozenset({"db2", "db3"}),
    degrade_after=10.0,
    primary=True,
    server="started once",
    names=NAMES,
    lsn=LSN,
)


class Guard:
    """Decides over a scripted clock, and remembers."""

    def __init__(self, look: Look = WAITING) -> None:
        self.look = look
        self.memory = Memory()

    def sees(self, at: float, *standbys: Standby, **changes: t.Any) -> Decision:
        """One look; what changes stays changed."""
        self.look = dataclasses.replace(self.look, at=at, standbys=standbys, **changes)
        decision = decide(self.look, self.memory)
        self.memory = decision.memory
        return decision

    def watches(self, start: int, end: int, *standbys: Standby, **changes: t.Any) -> list[tuple[int, Action]]:
        """A look every second; when something was to be done, and what."""
        looks = [(second, self.sees(float(second), *standbys, **changes).action) for second in range(start, end)]
        return [(second, action) for second, action in looks if action != "none"]


def test_a_standby_that_streams_leaves_nothing_to_do() -> None:
    guard = Guard()
    assert [guard.sees(float(second), standby()).action for second in range(60)] == ["none"] * 60


@pytest.mark.parametrize(
    "seen",
    [
        (),
        (standby(streaming=False),),
        (standby(synchronous=False),),
        (standby("somebody", synchronous=False),),
    ],
)
def test_commits_go_on_alone_after_the_time_given_and_not_before(seen: tuple[Standby, ...]) -> None:
    guard = Guard()
    assert guard.watches(0, 11, *seen) == [(10, "degrade")]


def test_one_look_is_never_enough() -> None:
    assert Guard().sees(1e9).action == "none"
    assert Guard(dataclasses.replace(WAITING, degrade_after=1.0)).sees(0.0).action == "none"


def test_the_time_alone_starts_anew_when_a_standby_was_seen() -> None:
    guard = Guard()
    assert guard.watches(0, 8) == []
    assert guard.sees(8.0, standby()).action == "none"
    assert guard.watches(9, 20) == [(19, "degrade")]


def test_one_of_two_is_enough() -> None:
    guard = Guard()
    assert guard.watches(0, 30, standby("db3"), standby(streaming=False)) == []


def test_time_that_nobody_watched_does_not_count() -> None:
    guard = Guard()
    assert guard.watches(0, 9) == []
    later = 9 + int(GAP)
    assert guard.watches(later, later + 11) == [(later + 10, "degrade")]


def test_a_server_that_does_not_answer_for_a_moment_changes_nothing() -> None:
    guard = Guard()
    assert guard.watches(0, 9) == []
    assert guard.sees(9.0, primary=None).action == "none"
    assert guard.sees(10.0, primary=True).action == "degrade"


def test_a_server_that_was_started_anew_is_given_the_whole_time() -> None:
    guard = Guard()
    assert guard.watches(0, 9) == []
    assert guard.watches(9, 20, server="started twice") == [(19, "degrade")]


def test_a_promotion_starts_the_time() -> None:
    guard = Guard(dataclasses.replace(WAITING, primary=False))
    assert guard.watches(0, 100) == []
    assert guard.watches(100, 111, primary=True) == [(110, "degrade")]


def test_what_takes_no_effect_is_tried_again_in_its_own_time() -> None:
    assert Guard().watches(0, 31) == [(10, "degrade"), (20, "degrade"), (30, "degrade")]
    ready = Guard(dataclasses.replace(WAITING, names="", exposed=True))
    assert ready.watches(0, 5, standby()) == [(2, "restore"), (4, "restore")]


def test_a_standby_that_was_cut_off_does_not_count_as_streaming() -> None:
    """Its connection takes a while to time out; WAL is on its way, and no reply comes."""
    guard = Guard()
    hung = standby(lag=100, reply="the last")
    first = int(SILENCE) + 1
    assert guard.watches(0, first + 11, hung) == [(first + 10, "degrade")]


def test_a_standby_that_has_nothing_to_answer_may_be_silent() -> None:
    guard = Guard()
    assert guard.watches(0, 60, standby(reply="the last")) == []


def test_a_standby_that_answers_late_is_alive() -> None:
    guard = Guard()
    for second in range(60):
        assert guard.sees(float(second), standby(lag=100, reply=f"{second // 2}")).action == "none"


@pytest.mark.parametrize(
    "changes",
    [
        {"policy": "strict"},
        {"policy": "async"},
        {"operation": "20260101T000000Z-failover-0000"},
        {"primary": False},
        {"primary": None},
        {"wanted": ""},
    ],
)
@pytest.mark.parametrize(
    ("names", "exposed", "seen"), [(NAMES, False, ()), ("", False, ()), ("", True, (standby(),)), (NAMES, True, ())]
)
def test_hands_off(changes: dict[str, t.Any], names: str, exposed: bool, seen: tuple[Standby, ...]) -> None:
    guard = Guard(
        dataclasses.replace(WAITING, names=names, exposed=exposed and changes.get("primary", True), **changes)
    )
    assert guard.watches(0, 40, *seen) == []


def test_after_an_operation_the_whole_time_is_given() -> None:
    guard = Guard()
    assert guard.watches(0, 8) == []
    assert guard.watches(8, 100, operation="x") == []
    assert guard.watches(100, 111, operation="") == [(110, "degrade")]


def test_an_empty_setting_that_nobody_wrote_down_is_written_down_once() -> None:
    guard = Guard(dataclasses.replace(WAITING, names=""))
    assert guard.watches(0, 1) == [(0, "open")]
    assert guard.watches(1, 30, exposed=True) == []


def test_where_it_cannot_be_written_down_commits_wait_again_all_the_same() -> None:
    guard = Guard(dataclasses.replace(WAITING, names=""))
    assert guard.watches(0, 10, standby()) == [
        (0, "open"),
        (3, "restore"),
        (5, "restore"),
        (7, "restore"),
        (9, "restore"),
    ]


def test_commits_wait_again_when_a_standby_has_caught_up_for_a_moment() -> None:
    guard = Guard(dataclasses.replace(WAITING, names="", exposed=True))
    assert guard.watches(0, 5, standby(streaming=False)) == []
    assert guard.watches(5, 10, standby(lag=CLOSE_BY)) == []
    assert guard.watches(10, 15, standby("somebody")) == []
    last = 15 + int(SETTLED)
    assert guard.watches(15, last + 1, standby(lag=CLOSE_BY - 1)) == [(last, "restore")]


def test_a_standby_that_comes_and_goes_is_not_waited_for() -> None:
    guard = Guard(dataclasses.replace(WAITING, names="", exposed=True))
    for second in range(0, 30, 2):
        assert guard.sees(float(second), standby()).action == "none"
        assert guard.sees(second + 1.0).action == "none"


def test_the_interval_ends_when_a_standby_has_what_was_written_before() -> None:
    guard = Guard(dataclasses.replace(WAITING, exposed=True))
    proof = int(PROOF)
    assert guard.watches(0, proof + 5, standby(lag=1, sent=LSN - 1), lsn=LSN) == []
    assert guard.memory.proof_lsn == LSN
    assert guard.watches(proof + 5, proof + 6, standby(), lsn=LSN + 500) == [(proof + 5, "close")]
    assert guard.watches(proof + 6, 60, standby(), exposed=False) == []


def test_the_proof_starts_anew_when_the_standby_is_lost_again() -> None:
    guard = Guard(dataclasses.replace(WAITING, exposed=True))
    assert guard.watches(0, 4, standby()) == []
    assert guard.watches(4, 14) == []
    assert guard.watches(14, 15) == [(14, "degrade")]
    assert guard.memory.waiting_since is None


def test_a_primary_that_became_a_standby_ends_its_interval() -> None:
    guard = Guard(dataclasses.replace(WAITING, exposed=True, primary=False))
    assert guard.sees(0.0).action == "close"


def test_commits_that_wait_for_a_foreign_name_go_on_and_then_wait_by_policy() -> None:
    guard = Guard(dataclasses.replace(WAITING, names="ANY 1 (db9)"))
    assert guard.watches(0, 11, standby(synchronous=False)) == [(10, "degrade")]
    assert guard.watches(11, 14, standby(synchronous=False), names="", exposed=True) == [(13, "restore")]
