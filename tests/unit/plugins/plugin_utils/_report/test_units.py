# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Quantities in words."""

from __future__ import annotations

import datetime

import pytest

from ansible_collections.hms.postgres.plugins.plugin_utils._report import units


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0 s"),
        (0.00004, "< 0.1 ms"),
        (0.004, "4 ms"),
        (0.0042, "4.2 ms"),
        (0.0994, "99 ms"),
        (0.0996, "0.10 s"),
        (0.31, "0.31 s"),
        (2.31, "2.31 s"),
        (9.994, "9.99 s"),
        (9.996, "10.0 s"),
        (41.23, "41.2 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (65.4, "1 min 5 s"),
        (300, "5 min"),
        (3599.4, "59 min 59 s"),
        (3599.7, "1 h"),
        (3600, "1 h"),
        (4000, "1 h 7 min"),
        (-2.31, "-2.31 s"),
    ],
)
def test_seconds(value: float, words: str) -> None:
    assert units.seconds(value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "0 ms"), (0.0032, "3.2 ms"), (0.00995, "10 ms"), (0.291, "291 ms"), (0.9996, "1.00 s"), (2.6, "2.60 s")],
)
def test_span(value: float, words: str) -> None:
    assert units.span(value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (304, "304 bytes"),
        (11256, "11.0 KiB"),
        (1048570, "1.0 MiB"),
        (17203200, "16.4 MiB"),
        (2**31, "2.0 GiB"),
        (2**52, "4096.0 TiB"),
    ],
)
def test_size(value: float, words: str) -> None:
    assert units.size(value) == words


def test_count() -> None:
    assert units.count(1, "transaction") == "1 transaction"
    assert units.count(1204, "transaction") == "1,204 transactions"
    assert units.count(2, "process", "processes") == "2 processes"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2026-11-22T03:12:07.412Z", "22 November 2026, 03:12:07.412 UTC"),
        ("2026-11-22 04:12:07.412907+01", "22 November 2026, 03:12:07.412 UTC"),
        ("2026-11-22T03:12:07", "22 November 2026, 03:12:07.000 UTC"),
        ("yesterday", "yesterday"),
        ("", ""),
        ("0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00+14:00"),
    ],
)
def test_stamp_text(text: str, words: str) -> None:
    assert units.stamp_text(text) == words


def test_clock_and_offset() -> None:
    assert units.clock(datetime.datetime(2026, 11, 22, 3, 12, 7, tzinfo=datetime.timezone.utc)) == "03:12:07 UTC"
    assert units.offset(1.2341) == "+1.234 s"
