# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which database becomes which, and whether that is done already."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster.swap_model import Names, SwapRequest
from ansible_collections.hms.postgres.plugins.module_utils._cluster.swap_names import resolve
from ansible_collections.hms.postgres.plugins.module_utils._tools.database_rename import Database

NOW = "20250622T120000Z"
EARLY, LATE = "hospital_before_20250601T000000Z", "hospital_before_20250620T000000Z"


def found(*databases: str | tuple[str, str], **wishes: t.Any) -> Names:
    """What is made of a request; a pair is a database and the name that it had before."""
    rows = [pair if isinstance(pair, tuple) else (pair, "") for pair in databases]
    catalog = [Database(name, number, mark_was=was) for number, (name, was) in enumerate(rows, start=16384)]
    base: dict[str, t.Any] = {"state": "swapped", "database": "hospital", "stamp": NOW}
    return resolve(SwapRequest(**{**base, **wishes}), catalog)


def rule(names: Names) -> str:
    assert names.wrong is not None
    assert names.wrong[2], "a next step"
    return names.wrong[0]


def test_scratch_becomes_live_and_live_gets_a_dated_name() -> None:
    assert found("hospital", "new", scratch="new") == Names("hospital", "new", f"hospital_before_{NOW}")
    assert found("hospital", "new", scratch="new", keep_as="old") == Names("hospital", "new", "old")


def test_a_live_database_that_was_dropped_leaves_its_name() -> None:
    assert found("new", scratch="new") == Names("hospital", "new", missing=True)
    assert found("new", scratch="new", state="rolled_back", keep_as="old") == Names("hospital", "new", missing=True)


def test_what_was_made_live_beside_nothing_has_no_way_back() -> None:
    live = Database("hospital", 16384, mark_operation="op2", mark_was="new")
    kept = Database(EARLY, 16385, mark_operation="op1", mark_was="hospital")
    request = SwapRequest("rolled_back", "hospital", stamp=NOW)
    names = resolve(request, (live, kept))
    assert rule(names) == "nothing_kept"
    assert names.wrong is not None
    assert names.wrong[1].startswith("Nothing from before op2, which made hospital of new, is there")
    assert EARLY in names.wrong[2]
    beside = Database(LATE, 16386, mark_operation="op2", mark_was="hospital")
    assert resolve(request, (live, kept, beside)).scratch == LATE


def test_it_is_done_when_live_was_made_of_scratch() -> None:
    names = found(("hospital", "new"), "old", scratch="new", keep_as="old")
    assert names.done
    assert names.wrong is None


def test_a_new_scratch_of_the_same_name_is_new_work() -> None:
    assert found(("hospital", "new"), "new", scratch="new") == Names("hospital", "new", f"hospital_before_{NOW}")


@pytest.mark.parametrize(
    ("databases", "wishes", "expected"),
    [
        (["hospital"], {"scratch": "new"}, "no_scratch"),
        ([("hospital", "other")], {"scratch": "new"}, "no_scratch"),
        (["hospital"], {}, "no_scratch"),
        (["other"], {"scratch": "new"}, "nothing_live"),
        (["other"], {"state": "rolled_back"}, "nothing_live"),
        (["hospital", "new", "old"], {"scratch": "new", "keep_as": "old"}, "keep_exists"),
        (["hospital"], {"scratch": "hospital"}, "same_name"),
        (["hospital", "new"], {"scratch": "new", "keep_as": "new"}, "same_name"),
        (["hospital", "new"], {"scratch": "new", "keep_as": "x" * 64}, "bad_name"),
        (["hospital", "new"], {"scratch": "x" * 64}, "bad_name"),
        (["hospital", "new"], {"database": "", "scratch": "new"}, "bad_name"),
        (["hospital", "hospital_before_x"], {"state": "rolled_back"}, "nothing_kept"),
        (["hospital", LATE], {"state": "rolled_back", "keep_as": LATE}, "same_name"),
    ],
)
def test_what_cannot_be(databases: list[t.Any], wishes: dict[str, t.Any], expected: str) -> None:
    assert rule(found(*databases, **wishes)) == expected


def test_the_way_back_is_to_the_newest_one_kept() -> None:
    names = found(("hospital", "new"), LATE, EARLY, state="rolled_back")
    assert names == Names("hospital", LATE, f"hospital_after_{NOW}")


def test_it_goes_back_one_step_however_often_it_is_asked() -> None:
    """Live is the later of two already: a second run must not go on to the earlier one."""
    names = found(("hospital", LATE), EARLY, "hospital_after_20250621T000000Z", state="rolled_back")
    assert names.done
    assert found(("hospital", LATE), state="rolled_back").done


def test_after_another_swap_there_is_a_way_back_again() -> None:
    newest = "hospital_before_20250622T000000Z"
    assert found(("hospital", "new"), newest, EARLY, state="rolled_back").scratch == newest
    assert found(("hospital", EARLY), LATE, state="rolled_back").scratch == LATE


def test_a_way_back_can_be_named() -> None:
    names = found(("hospital", LATE), EARLY, state="rolled_back", scratch=EARLY)
    assert names == Names("hospital", EARLY, f"hospital_after_{NOW}")
