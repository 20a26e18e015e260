# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import Refused
from ansible_collections.hms.postgres.plugins.module_utils._pitr.model import Located, Position, Target
from ansible_collections.hms.postgres.plugins.module_utils._pitr.target import lies_ahead, parse_target

NOON = "2025-06-22 10:00:00.000000+00"


@pytest.mark.parametrize(
    "text",
    [
        "2025-06-22 12:00:00+02",
        "2025-06-22T12:00+0200",
        "2025-06-22 12:00:00.000000 +02:00",
        "2025-06-22 10:00:00Z",
        "2025-06-22 10:00:00 UTC",
        "2025-06-22 04:30:00-0530",
    ],
)
def test_a_time_means_one_moment_however_it_is_written(text: str) -> None:
    assert parse_target({"target_time": text}) == Target("time", NOON)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"target_time": "2025-06-22 12:00:00"}, "no_zone"),
        ({"target_time": "yesterday"}, "bad_target"),
        ({"target_time": "2025-13-22 12:00:00Z"}, "bad_target"),
        ({"target_lsn": "16B374D848"}, "bad_target"),
        ({"target_xid": "0"}, "bad_target"),
        ({"target_xid": "12; DROP"}, "bad_target"),
        ({"target_name": "a\nb"}, "bad_target"),
        ({"target_name": "x" * 64}, "bad_target"),
        ({"target_lsn": "0/1", "target_xid": "5"}, "bad_target"),
    ],
)
def test_what_is_no_target_is_refused(given: dict[str, str], reason: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_target(given)
    assert refused.value.reason == reason
    assert refused.value.state == "Nothing was touched."


def test_a_transaction_is_left_out_where_nothing_else_is_said() -> None:
    assert parse_target({"target_xid": "730"}) == Target("xid", "730", inclusive=False)
    assert parse_target({"target_xid": "730"}, inclusive=True) == Target("xid", "730", inclusive=True)
    assert parse_target({"target_lsn": "0/a1"}) == Target("lsn", "0/A1", inclusive=True)
    assert parse_target({"target_immediate": True}) == Target("immediate")
    assert parse_target({}) is None


def test_the_settings_say_what_postgresql_has_to_know() -> None:
    assert Target("xid", "730", inclusive=False, timeline=2).settings() == {
        "recovery_target_xid": "730",
        "recovery_target_inclusive": "off",
        "recovery_target_action": "pause",
        "recovery_target_timeline": "2",
    }
    assert Target("immediate").settings()["recovery_target"] == "immediate"
    assert "recovery_target_inclusive" not in Target("name", "here").settings()


HERE = Position(paused=True, lsn=0x5000000, timeline=1, last_commit="2025-06-22T10:00:00.000Z")
AT = Target("lsn", "0/5000000")


@pytest.mark.parametrize(
    ("target", "reached", "located", "expected"),
    [
        (Target("lsn", "0/5000001"), AT, None, True),
        (Target("lsn", "0/5000000"), AT, None, False),
        (Target("time", "2025-06-22 10:00:01.000000+00"), AT, None, True),
        (Target("time", NOON), AT, None, False),
        (Target("time", NOON), Target("time", "2025-06-22 09:59:59.000000+00"), None, True),
        (Target("time", NOON), Target("time", "2025-06-22 10:00:00.500000+00"), None, False),
        (Target("xid", "7"), AT, Located(0x5000000, 1, ""), True),
        (Target("xid", "7"), AT, Located(0x4FFFFFF, 1, ""), False),
        (Target("name", "x"), AT, None, False),
        (Target("immediate"), AT, None, False),
        (Target("lsn", "0/5000001", timeline=2), AT, None, False),
    ],
)
def test_recovery_goes_forward_only(target: Target, reached: Target, located: Located | None, expected: bool) -> None:
    assert lies_ahead(target, HERE, reached, located) is expected
