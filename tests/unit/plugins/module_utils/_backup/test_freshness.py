# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact.catalog import Entry
from ansible_collections.hms.postgres.plugins.module_utils._artifact.manifest import Verification
from ansible_collections.hms.postgres.plugins.module_utils._backup.freshness import (
    Demand,
    Freshness,
    Point,
    judge,
    words,
)
from ansible_collections.hms.postgres.tests.unit.plugins.module_utils._backup.backups import NOW, ago, entry, proven

HOUR = 3600.0


def verdict(entries: t.Sequence[Entry], type_: str = "full", hours: float = 30, **more: t.Any) -> Freshness:
    """The verdict for one demand."""
    demand = Demand(
        **{"job": "daily", "database": "hospital", "engine": "pg_dump", "type": type_, **more}, max_age=hours * HOUR
    )
    (found,) = judge([Point.of(one) for one in entries], [demand], NOW)
    return found


def test_a_young_verified_one_is_good() -> None:
    found = verdict([entry(ago(hours=50)), entry(ago(hours=10))])
    assert found.ok
    assert found.age == 10 * HOUR
    assert found.what == "daily: the newest verified full backup of hospital is 10 h old; 30 h are allowed."
    assert found.as_dict()["newest"].startswith("20261122T02")


def test_an_old_one_is_said_aloud() -> None:
    found = verdict([entry(ago(hours=50)), entry(ago(hours=31))])
    assert not found.ok
    assert found.what == (
        "daily: the newest verified full backup of hospital is 31 h old, and 30 h are allowed:"
        " it was skipped or it failed."
    )


def test_a_young_one_that_is_not_verified_does_not_count() -> None:
    young = [entry(ago(hours=1), verified=False), entry(ago(hours=2), history=[proven(ago(hours=1), ok=False)])]
    found = verdict([entry(ago(hours=31)), *young])
    assert not found.ok
    assert found.what.endswith("2 younger ones are not verified.")


def test_never_made() -> None:
    found = verdict([])
    assert (found.ok, found.age, found.newest) == (False, None, "")
    assert found.what.endswith("there is no full backup of hospital: it was never made, or what was made is gone.")
    assert "there are 1 full backups of hospital, and none of them" in verdict([entry(ago(), verified=False)]).what


@pytest.mark.parametrize(
    ("wanted", "made", "ok"),
    [
        ("incremental", "full", True),
        ("incremental", "differential", True),
        ("differential", "incremental", False),
        ("differential", "full", True),
        ("full", "incremental", False),
        ("full", "schema_only", False),
        ("schema_only", "full", True),
        ("data_only", "full", True),
        ("data_only", "schema_only", False),
    ],
)
def test_what_stands_in_for_what(wanted: str, made: str, ok: bool) -> None:
    assert verdict([entry(ago(hours=1), type_=made)], wanted).ok is ok


@pytest.mark.parametrize("other", [{"database": "archive"}, {"engine": "pgbackrest"}])
def test_another_database_or_engine_is_no_help(other: dict[str, t.Any]) -> None:
    assert not verdict([entry(ago(hours=1), **other)]).ok


def test_a_backup_from_the_future_is_no_proof() -> None:
    found = verdict([entry(ago(hours=-5))])
    assert not found.ok
    assert "a clock is wrong" in found.what
    assert verdict([entry(ago(hours=-0.1))]).ok


def test_a_demand_from_a_job() -> None:
    job = {"name": "daily", "database": "hospital", "engine": "pg_dump", "type": "full", "max_age": 5.0}
    assert Demand.from_dict(job) == Demand("daily", "hospital", "pg_dump", "full", 5.0)
    assert Demand.from_dict({**job, "max_age": None}) is None
    drilled = Demand("daily", "hospital", "pg_dump", "full", None, 7.0)
    assert Demand.from_dict({**job, "max_age": None, "restored_within": 7}) == drilled


@pytest.mark.parametrize(
    ("drills", "ok", "told"),
    [
        ([], False, "was ever restored by a drill; one within 8 days is demanded (playbooks/restore_drill.yml)."),
        ([proven(ago(days=3), level="restored")], True, "the last restore drill that passed was 3 days ago."),
        ([proven(ago(days=9), level="restored")], False, "was 9 days ago; one within 8 days is demanded"),
        ([proven(ago(days=3), level="deep")], False, "was ever restored by a drill"),
        ([proven(ago(days=-1), level="restored")], False, "a clock is wrong"),
        (
            [proven(ago(days=3), level="restored"), proven(ago(days=1), ok=False)],
            False,
            "was ever restored by a drill",
        ),
        ([proven(ago(days=3), level="restored"), proven(ago(days=1))], True, "was 3 days ago."),
    ],
)
def test_a_restore_drill_is_demanded(drills: t.Sequence[Verification], ok: bool, told: str) -> None:
    """Any backup of the job that is still there will do, for the drill takes the newest of its day."""
    found = verdict([entry(ago(days=10), history=drills), entry(ago(hours=2))], restored_within=8 * 24 * HOUR)
    assert found.ok is ok
    assert told in found.what
    assert found.what.startswith("daily: the newest verified full backup of hospital is 2 h old; 30 h are allowed. ")


def test_a_drill_of_any_backup_of_a_repository_will_do() -> None:
    """The drill takes the newest, which builds on the others."""
    drilled = entry(ago(hours=3), engine="pgbackrest", type_="incremental", history=[proven(ago(), level="restored")])
    full = entry(ago(hours=20), engine="pgbackrest")
    demand: dict[str, t.Any] = {"engine": "pgbackrest", "restored_within": HOUR}
    assert verdict([full, drilled], **demand).ok
    assert not verdict([full, entry(ago(hours=3), history=[proven(ago(), level="restored")])], **demand).ok


def test_a_drill_alone_can_be_demanded_and_does_not_excuse_an_old_backup() -> None:
    drilled = entry(ago(days=3), history=[proven(ago(days=2), level="restored")])
    old = verdict([drilled], restored_within=8 * 24 * HOUR)
    assert (old.ok, old.restored_age) == (False, 48 * HOUR)
    alone = Demand("daily", "hospital", "pg_dump", "full", None, 8 * 24 * HOUR)
    (found,) = judge([Point.of(drilled)], [alone], NOW)
    assert (found.ok, found.age) == (True, None)
    assert found.what == "daily: the last restore drill that passed was 2 days ago."


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-3, "0 min"),
        (59, "1 min"),
        (45 * 60, "45 min"),
        (5400, "1.5 h"),
        (26 * 3600, "26 h"),
        (8.75 * 86400, "8.75 days"),
    ],
)
def test_spans(seconds: float, expected: str) -> None:
    assert words(seconds) == expected
