# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._clock import iso, parse_iso, wait_until
from ansible_collections.hms.postgres.tests.unit.plugins.engine_facts import ScriptedClock

UTC = datetime.timezone.utc


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-22T15:45:00.123Z", datetime.datetime(2026, 11, 22, 15, 45, 0, 123000, UTC)),
        ("2026-11-22T15:45:00+00:00", datetime.datetime(2026, 11, 22, 15, 45, tzinfo=UTC)),
        ("2026-11-22 17:45:00.123456+02", datetime.datetime(2026, 11, 22, 15, 45, 0, 123456, UTC)),
        ("2026-11-22 10:15:00-05:30", datetime.datetime(2026, 11, 22, 15, 45, tzinfo=UTC)),
        ("2026-11-22 15:45:00.123456 UTC", datetime.datetime(2026, 11, 22, 15, 45, 0, 123456, UTC)),
        (" 2026-11-22T15:45:00\n", datetime.datetime(2026, 11, 22, 15, 45, tzinfo=UTC)),
    ],
)
def test_what_servers_and_records_write_is_read(text: str, expected: datetime.datetime) -> None:
    assert parse_iso(text) == expected


def test_a_moment_comes_back_as_it_was_written() -> None:
    here = datetime.datetime(2026, 11, 22, 17, 45, 0, 123456, datetime.timezone(datetime.timedelta(hours=2)))
    assert iso(here) == "2026-11-22T15:45:00.123Z"
    assert parse_iso(iso(here)) == here.replace(microsecond=123000)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01T00:00:00Z"])
def test_what_is_no_moment_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"Invalid isoformat|must be in"):
        parse_iso(text)


def test_waiting_looks_once_at_least_and_ends_in_time() -> None:
    clock = ScriptedClock()
    assert wait_until(lambda: True, clock=clock, timeout=0.0, interval=1.0)
    assert clock.slept == []
    assert not wait_until(lambda: False, clock=clock, timeout=1.0, interval=0.25)
    assert clock.slept == [0.25] * 4
    looks = iter([False, False, True])
    assert wait_until(lambda: next(looks), clock=clock, timeout=9.0, interval=0.5)
