# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact.catalog import Entry
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
