# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import ToolFailed
from ansible_collections.hms.postgres.plugins.module_utils._stages import Stage, StageResult, culprit, judge

BROKEN = "gpg: [stdout]: write error: Broken pipe\n"


def results(*ends: tuple[str, int] | tuple[str, int, str]) -> list[StageResult]:
    return [StageResult(*end) for end in ends]


@pytest.mark.parametrize(
    ("ends", "guilty"),
    [
        ((("pg_dump", 0), ("zstd", 0), ("gpg", 0)), None),
        ((("pg_dump", 1), ("zstd", 0), ("gpg", 0)), "pg_dump"),
        ((("pg_dump", -9), ("zstd", 0), ("gpg", 0)), "pg_dump"),
        ((("pg_dump", -13), ("zstd", -9), ("gpg", 0)), "zstd"),
        ((("pg_dump", 1, "could not write: Broken pipe"), ("zstd", -9), ("gpg", 0)), "zstd"),
        ((("pg_dump", 0), ("zstd", 141), ("gpg", 2, "gpg: No space left on device")), "gpg"),
        ((("gpg -d", 2, "gpg: WARNING: manipulated"), ("zstd -d", 1, "premature end"), ("pg_restore", 1)), "gpg -d"),
        ((("gpg -d", 2, BROKEN), ("zstd -d", -13), ("pg_restore", 1, "unsupported version")), "pg_restore"),
        ((("pg_dump", -13), ("head", 0)), "pg_dump"),
        ((("gpg -d", 2, BROKEN), ("zstd -d", -13), ("pg_restore", 0)), "zstd -d"),
    ],
)
def test_the_cause_is_told_from_its_victims(
    ends: tuple[tuple[str, int] | tuple[str, int, str], ...], guilty: str | None
) -> None:
    found = culprit(results(*ends))
    assert (found.name if found else None) == guilty


def test_who_was_ended_by_us_is_not_to_blame_for_the_others() -> None:
    ended = StageResult("pg_dump", -15, "", ended_by_us=True)
    found = culprit([ended, StageResult("zstd", 1, "out of memory"), StageResult("gpg", 0)])
    assert found is not None
    assert found.name == "zstd"
    assert culprit([ended, StageResult("zstd", 0)]) is ended


def test_the_error_names_the_stage_and_holds_all_of_them() -> None:
    ends = results(("pg_dump", 1, "pg_dump: error: permission denied for table t\n"), ("zstd", 0))
    with pytest.raises(ToolFailed) as caught:
        judge(ends, what="The dump", state="Nothing was stored.")
    error = caught.value
    assert error.message == "The dump failed: pg_dump ended with 1: pg_dump: error: permission denied for table t"
    assert (error.reason, error.phase, error.state) == ("stage_failed", "pg_dump", "Nothing was stored.")
    assert error.details["stages"][1] == {"name": "zstd", "rc": 0, "stderr_tail": ""}
    judge(results(("pg_dump", 0)), what="The dump")


@pytest.mark.parametrize(
    ("rc", "text"),
    [(-9, "was ended by SIGKILL"), (137, "was ended by SIGKILL"), (-13, "was ended by SIGPIPE"), (2, "ended with 2")],
)
def test_signals_have_names(rc: int, text: str) -> None:
    assert StageResult("x", rc).how() == text


def test_a_killed_stage_may_have_met_the_kernel_s_killer() -> None:
    with pytest.raises(ToolFailed, match=r"zstd was ended by SIGKILL\. Somebody killed it"):
        judge(results(("zstd", -9)), what="The dump")


def test_secrets_show_up_nowhere() -> None:
    stage = Stage("gpg", ("/usr/bin/gpg",), env={"PGPASSWORD": "geheim"}, secret=b"geheim")
    assert "geheim" not in repr(stage)
