# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._backup.cron import parse_cron


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("0 2 * * *", 24),
        ("0 */4 * * *", 4),
        ("30 0,6,20 * * *", 14),
        ("0 3 * * 0", 7 * 24),
        ("0 3 * * 7", 7 * 24),
        ("0 3 * * sun", 7 * 24),
        ("0 3 * * mon-fri", 3 * 24),
        ("0 3 1 * *", 31 * 24),
        ("0 3 1 jan *", 366 * 24),
        ("*/15 * * * *", 0.25),
        ("10-50/20 8-10 * * *", 24 - 2 - 40 / 60),
        ("5/20 * * * *", 1 / 3),
        ("0 3 29 2 *", 1461 * 24),
        ("@daily", 24),
        ("@weekly", 7 * 24),
        ("@hourly", 1),
        # with a date and a weekday either will do
        ("0 0 1 * 1", 7 * 24),
        ("0 0 */1 * 1", 7 * 24),
    ],
)
def test_the_longest_time_between_two_runs(text: str, hours: float) -> None:
    assert parse_cron(text).longest_gap() == datetime.timedelta(hours=hours)


def test_what_never_comes_has_no_gap() -> None:
    assert parse_cron("0 0 30 2 *").longest_gap() is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has 0 fields, not five"),
        ("0 2 * *", "has 4 fields"),
        ("@reboot", "has 1 fields"),
        ("60 2 * * *", "'60' is no minute from 0 to 59"),
        ("0 24 * * *", "hour from 0 to 23"),
        ("0 2 0 * *", "day of the month from 1 to 31"),
        ("0 2 * 13 *", "month from 1 to 12"),
        ("0 2 * * 8", "day of the week from 0 to 7"),
        ("0 5-2 * * *", "is no hour"),
        ("0 */0 * * *", "is no hour"),
        ("0 mon * * *", "'mon' is no hour"),
        ("0 2 * * *; rm", "has 6 fields"),
        ("0 2- * * *", "'2-' is no hour"),
    ],
)
def test_what_is_no_expression_is_said(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("*", r"\*")):
        parse_cron(text)
