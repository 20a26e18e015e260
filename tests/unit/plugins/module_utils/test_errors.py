# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one family of errors: what they say, and that they survive the wire."""

from __future__ import annotations

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused, expect


def test_a_message_says_what_failed_where_we_are_and_what_to_do() -> None:
    error = HmsError("db2 is behind", state="Nothing was touched.", next_step="Wait")
    assert error.full_text() == "db2 is behind. State: Nothing was touched. Next: Wait."
    assert HmsError("Why?").full_text() == "Why?"


def test_an_error_survives_the_wire() -> None:
    error = Refused("no", reason="r", phase="plan", state="s", next_step="n", details={"a": 1})
    back = HmsError.from_dict(error.as_dict())
    assert back.as_dict() == error.as_dict()
    assert HmsError.from_dict({}).message == "unknown error"
    assert HmsError.from_dict({"message": "x", "details": None}).details == {}


def test_what_cannot_be_missing_is_a_defect_when_it_is() -> None:
    assert expect(0, "the count") == 0
    with pytest.raises(HmsError, match="the answer is missing"):
        expect(None, "the answer")
