# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pg_checksums as it is called and read."""

from __future__ import annotations

import pathlib

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import ToolFailed
from ansible_collections.hms.postgres.plugins.module_utils._tools.pg_checksums import Checked, PgChecksums
from ansible_collections.hms.postgres.tests.unit.plugins.scripted_runner import Call, ScriptedRunner

GOOD = "Checksum operation completed\nFiles scanned:   948\nBlocks scanned:  3768\nBad checksums:  {bad}\n"
COMPLAINT = (
    'pg_checksums: error: checksum verification failed in file "/d/base/5/16384", block 1: calculated checksum 1\n'
    'pg_checksums: error: checksum verification failed in file "/d/base/5/16384", block 2: calculated checksum 2\n'
)


def runner_of(rc: int, stdout: str, stderr: str) -> ScriptedRunner:
    """Answers as told; the program gets no environment and no input."""
    return ScriptedRunner(always=(rc, stdout, stderr), env=None, input_data=None)


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> str:
    """A folder with the program."""
    (tmp_path / "pg_checksums").touch(mode=0o755)
    return str(tmp_path)


def test_all_pages_hold(folder: str) -> None:
    runner = runner_of(0, GOOD.format(bad=0), "")
    assert PgChecksums(runner, bin_directory=folder, os_user="postgres").check("/d", timeout=9) == Checked(3768, 0, ())
    assert runner.calls == [Call([f"{folder}/pg_checksums", "--check", "--pgdata", "/d"], 9, os_user="postgres")]


def test_damaged_pages_are_an_answer(folder: str) -> None:
    runner = runner_of(1, GOOD.format(bad=2), COMPLAINT)
    found = PgChecksums(runner, bin_directory=folder, os_user=None).check("/d", timeout=9)
    assert found == Checked(3768, 2, ("/d/base/5/16384",))


def test_no_report_is_a_failure(folder: str) -> None:
    runner = runner_of(1, "", "pg_checksums: error: cluster must be shut down")
    with pytest.raises(ToolFailed, match="cluster must be shut down"):
        PgChecksums(runner, bin_directory=folder, os_user=None).check("/d", timeout=9)
