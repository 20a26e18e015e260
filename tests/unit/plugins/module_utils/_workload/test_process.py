# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes by id and start time, and whom the crash refuses to kill."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import Refused
from ansible_collections.hms.postgres.plugins.module_utils._workload import crash, process


def test_this_process_is_found() -> None:
    found = process.look(os.getpid())
    assert found is not None
    assert found.parent == os.getppid()
    assert process.alive(os.getpid(), found.started)


def test_another_process_with_the_same_id_is_not_ours() -> None:
    found = process.look(os.getpid())
    assert found is not None
    assert not process.alive(os.getpid(), found.started + 1)
    assert not process.end(os.getpid(), found.started + 1, patience=0.0)


def test_a_process_is_ended_and_a_zombie_counts_as_ended() -> None:
    with subprocess.Popen(["sleep", "600"]) as child:
        found = process.look(child.pid)
        assert found is not None
        assert process.end(child.pid, found.started, patience=60.0)
        left = process.look(child.pid)
        assert left is None or not left.runs


def test_no_process_no_answer() -> None:
    assert process.look(2**22 + 1) is None


@pytest.mark.parametrize("content", [None, "", "not a number\n", f"{2**22 + 1}\n"])
def test_without_a_server_nothing_is_killed(tmp_path: pathlib.Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "postmaster.pid").write_text(content)
    with pytest.raises(Refused, match="No server runs on"):
        crash.kill_instance(str(tmp_path))


def test_a_stale_pid_of_another_program_is_not_killed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "postmaster.pid").write_text(f"{os.getpid()}\n")
    with pytest.raises(Refused, match="No server runs on"):
        crash.kill_instance(str(tmp_path))


def test_a_standby_is_told_from_a_primary(tmp_path: pathlib.Path) -> None:
    assert not crash.is_standby(str(tmp_path))
    (tmp_path / "standby.signal").write_text("")
    assert crash.is_standby(str(tmp_path))
