# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of scratch databases and of those that were put aside."""

from __future__ import annotations

import datetime

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._restore.names import (
    before_name,
    put_aside,
    scratch_name,
    scratch_prefix,
)

NOW = datetime.datetime(2026, 11, 22, 15, 45, 0, tzinfo=datetime.timezone.utc)


def test_a_scratch_database_is_known_by_its_name() -> None:
    name = scratch_name("hospital", "hospital", "some artifact")
    assert name.startswith(scratch_prefix("hospital", "hospital"))
    assert name == scratch_name("hospital", "hospital", "some artifact")
    assert len({name, scratch_name("hospital", "hospital", "b"), scratch_name("hospital", "x", "some artifact")}) == 3
    assert len(name) <= 63


@pytest.mark.parametrize("database", ["hospital", 'weird "name; drop', "ü" * 31, "a" * 63])
def test_what_is_put_aside_is_known_again(database: str) -> None:
    name = before_name(database, NOW)
    assert len(name.encode()) <= 63
    assert put_aside(name, database) == NOW


def test_what_the_way_back_put_aside_is_known_too() -> None:
    assert put_aside("hospital_after_20261122T154500Z", "hospital") == NOW


@pytest.mark.parametrize(
    "name",
    [
        "hospital",
        "hospital_before_dinner",
        "hospital_before_20261122T154500",
        "hospital_before_20261322T154500Z",
        "hospitals_before_20261122T154500Z",
        "hospital_before_20261122T154500Z_x",
    ],
)
def test_nothing_else_is_taken_for_it(name: str) -> None:
    assert put_aside(name, "hospital") is None


def test_the_stamp_is_utc() -> None:
    east = NOW.astimezone(datetime.timezone(datetime.timedelta(hours=2)))
    assert before_name("hospital", east) == "hospital_before_20261122T154500Z"
