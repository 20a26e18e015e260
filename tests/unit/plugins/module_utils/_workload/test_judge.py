# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The judge: what counts as lost, and what doesn't."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._workload import judge
from ansible_collections.hms.postgres.plugins.module_utils._workload.ledger import (
    ACKED,
    FAILED,
    UNKNOWN,
    Entry,
    Outcome,
)


def entry(seq: int, outcome: Outcome = ACKED, sent: float = 100.0) -> Entry:
    return Entry(1, seq, sent + seq, 0.25, outcome, "")


def judged(entries: list[Entry], present: list[int]) -> judge.Tally:
    tally = judge.Tally()
    judge.compare(iter(entries), iter(present), tally)
    return tally


@pytest.mark.parametrize(
    ("entries", "present", "expected"),
    [
        pytest.param([], [], {}, id="nothing"),
        pytest.param([entry(1), entry(2)], [1, 2], {"acknowledged": 2}, id="all there"),
        pytest.param([entry(1), entry(2)], [1], {"acknowledged": 2, "lost": 1}, id="the last is lost"),
        pytest.param([entry(1), entry(2)], [2], {"acknowledged": 2, "lost": 1}, id="the first is lost"),
        pytest.param([entry(1), entry(2)], [], {"acknowledged": 2, "lost": 2}, id="all lost"),
        pytest.param([entry(1, FAILED)], [], {"failed": 1}, id="failed and gone, as it should"),
        pytest.param([entry(1, FAILED)], [1], {"failed": 1, "failed_but_present": 1}, id="failed, yet there"),
        pytest.param([entry(1, UNKNOWN)], [], {"unknown": 1}, id="unknown and gone"),
        pytest.param([entry(1, UNKNOWN)], [1], {"unknown": 1, "unknown_but_present": 1}, id="unknown, yet there"),
        pytest.param([], [5], {"unrecorded": 1}, id="a row nobody noted"),
        pytest.param([entry(2)], [1, 2, 3], {"acknowledged": 1, "unrecorded": 2}, id="rows before and after"),
        pytest.param([entry(1), entry(3)], [1, 2, 3], {"acknowledged": 2, "unrecorded": 1}, id="a row between"),
    ],
)
def test_each_case_is_counted_once(entries: list[Entry], present: list[int], expected: dict[str, int]) -> None:
    counted = {
        key: value for key, value in judged(entries, present).as_dict().items() if isinstance(value, int) and value
    }
    counted.pop("transactions", None)
    assert counted == expected


def test_a_lost_one_is_named_with_the_time_of_its_acknowledgement() -> None:
    tally = judged([entry(1), entry(2), entry(3)], [1])
    assert tally.examples == [judge.Lost(1, 2, 102.25), judge.Lost(1, 3, 103.25)]
    assert tally.first_lost_at == 102.25


def test_all_lost_ones_are_counted_but_few_are_named() -> None:
    tally = judged([entry(seq) for seq in range(1, 1001)], [])
    assert tally.lost == 1000
    assert len(tally.examples) == judge.KEPT_EXAMPLES


def test_watchers_learn_of_each_entry() -> None:
    seen: list[tuple[int, bool]] = []
    judge.compare([entry(1), entry(2)], [2], judge.Tally(), lambda found, present: seen.append((found.seq, present)))
    assert seen == [(1, False), (2, True)]


class Pages:
    """A session that answers the paged query from a list."""

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers
        self.asked: list[t.Sequence[t.Any]] = []

    def rows(self, _sql: str, params: t.Sequence[t.Any] | None = None) -> list[tuple[t.Any, ...]]:
        assert params is not None
        self.asked.append(params)
        _source, last, size = params
        return [(number,) for number in self.numbers if number > last][:size]


def test_rows_are_read_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "PAGE", 2)
    pages = Pages([3, 4, 5, 6])
    session = t.cast("t.Any", pages)
    assert list(judge.stored_rows(session, 7, 4)) == [4, 5, 6]
    assert pages.asked == [(7, 3, 2), (7, 5, 2)]
