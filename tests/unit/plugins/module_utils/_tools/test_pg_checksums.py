# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pg_checksums as it is called and read."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._command import CommandResult
from ansible_collections.hms.postgres.plugins.module_utils._errors import ToolFailed
from ansible_collections.hms.postgres.plugins.module_utils._tools.pg_checksums import Checked, PgChecksums

GOOD = "Checksum operation completed\nFiles scanned:   948\nBlocks scanned:  3768\nBad checksums:  {bad}\n"
COMPLAINT = (
    'pg_checksums: error: checksum verification failed in file "/d/base/5/16384", block 1: calculated checksum 1\n'
    'pg_checksums: error: checksum verification failed in file "/d/base/5/16384", block 2: calculated checksum 2\n'
)


class Runner:
    """Answers as told, and remembers what it was to run."""

    def __init__(self, rc: int, stdout: str, stderr: str) -> None:
        self.answer = (rc, stdout, stderr)
        self.calls: list[tuple[tuple[str, ...], float, str | None]] = []

    def run(
        self,
        argv: t.Sequence[str],
        *,
        timeout: float,
        env: t.Mapping[str, str] | None = None,
        input_data: bytes | None = None,
        os_user: str | None = None,
    ) -> CommandResult:
        assert (env, input_data) == (None, None)
        self.calls.append((tuple(argv), timeout, os_user))
        return CommandResult(tuple(argv), *self.answer, 0.1)


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> str:
    """A folder with the program."""
    (tmp_path / "pg_checksums").touch(mode=0o755)
    return str(tmp_path)


def test_all_pages_hold(folder: str) -> None:
    runner = Runner(0, GOOD.format(bad=0), "")
    assert PgChecksums(runner, bin_directory=folder, os_user="postgres").check("/d", timeout=9) == Checked(3768, 0, ())
    assert runner.calls == [((f"{folder}/pg_checksums", "--check", "--pgdata", "/d"), 9, "postgres")]


def test_damaged_pages_are_an_answer(folder: str) -> None:
    runner = Runner(1, GOOD.format(bad=2), COMPLAINT)
    found = PgChecksums(runner, bin_directory=folder, os_user=None).check("/d", timeout=9)
    assert found == Checked(3768, 2, ("/d/base/5/16384",))


def test_no_report_is_a_failure(folder: str) -> None:
    runner = Runner(1, "", "pg_checksums: error: cluster must be shut down")
    with pytest.raises(ToolFailed, match="cluster must be shut down"):
        PgChecksums(runner, bin_directory=folder, os_user=None).check("/d", timeout=9)
