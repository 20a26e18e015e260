# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which processes belong to an instance, by what /proc says; and what the names of WAL files tell."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock, wait_until
from ansible_collections.hms.postgres.plugins.module_utils._errors import DeadlinePassed
from ansible_collections.hms.postgres.plugins.module_utils._tools import service
from ansible_collections.hms.postgres.plugins.module_utils._tools.service import (
    InstanceService,
    alive,
    frozen,
    postmaster_pid,
    process_state,
    processes_in,
)
from ansible_collections.hms.postgres.plugins.module_utils._tools.wal_files import last_written, newest_timeline
from ansible_collections.hms.postgres.tests.unit.plugins.engine_facts import ScriptedClock
from ansible_collections.hms.postgres.tests.unit.plugins.scripted_runner import ScriptedRunner


@pytest.fixture
def server(tmp_path: pathlib.Path) -> t.Iterator[subprocess.Popen[bytes]]:
    """A process that works in a data directory."""
    (tmp_path / "data").mkdir()
    with subprocess.Popen(["/bin/sleep", "600"], cwd=tmp_path / "data") as process:
        (tmp_path / "data" / "postmaster.pid").write_text(f"{process.pid}\n/data\n")
        yield process
        process.kill()


@pytest.mark.usefixtures("server")
def test_a_pid_counts_only_where_its_process_works(tmp_path: pathlib.Path, server: subprocess.Popen[bytes]) -> None:
    data = tmp_path / "data"
    assert postmaster_pid(str(data)) == server.pid
    (tmp_path / "link").symlink_to(data)
    assert postmaster_pid(str(tmp_path / "link")) == server.pid
    (data / "postmaster.pid").write_text(f"{os.getpid()}\n")
    assert postmaster_pid(str(data)) is None, "pids are used again"
    for content in ("", "no number\n", "999999999\n"):
        (data / "postmaster.pid").write_text(content)
        assert postmaster_pid(str(data)) is None
    assert postmaster_pid(str(tmp_path / "none")) is None


def test_a_zombie_is_dead_and_a_stopped_process_frozen(tmp_path: pathlib.Path, server: subprocess.Popen[bytes]) -> None:
    data = str(tmp_path / "data")
    assert alive(server.pid)
    assert not frozen(server.pid)
    os.kill(server.pid, signal.SIGSTOP)
    assert wait_until(lambda: frozen(server.pid), clock=SystemClock(), timeout=60.0, interval=0.01)
    assert frozen(server.pid)
    assert processes_in(data) == [server.pid]
    os.kill(server.pid, signal.SIGKILL)
    assert wait_until(lambda: not alive(server.pid), clock=SystemClock(), timeout=60.0, interval=0.01)
    assert process_state(server.pid) == "Z"
    assert not alive(server.pid)
    assert postmaster_pid(data) is None
    assert processes_in(data) == []
    assert not alive(999_999_999)


@pytest.mark.usefixtures("server")
def test_one_whose_folder_was_taken_away_still_counts(tmp_path: pathlib.Path, server: subprocess.Popen[bytes]) -> None:
    data = tmp_path / "data"
    (data / "postmaster.pid").unlink()
    data.rmdir()
    assert processes_in(str(data)) == [server.pid]


def instance(runner: ScriptedRunner, data: str) -> InstanceService:
    return InstanceService(runner, version=15, instance="main", data_directory=data)


def test_all_are_killed_and_one_that_dies_meanwhile_is_no_error(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [[11, 12], [12], []]
    monkeypatch.setattr(service, "processes_in", lambda _data: left[0] if len(left) == 1 else left.pop(0))
    killed: list[int] = []

    def kill(pid: int, number: int) -> None:
        assert number == signal.SIGKILL
        killed.append(pid)
        if pid == 11:
            raise ProcessLookupError

    monkeypatch.setattr(os, "kill", kill)
    assert instance(ScriptedRunner(), str(tmp_path)).kill_all(clock=ScriptedClock(), timeout=1.0) == [11, 12]
    assert killed == [11, 12]


def test_one_that_can_t_be_killed_is_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "processes_in", lambda _data: [11])
    monkeypatch.setattr(os, "kill", lambda _pid, _number: None)
    with pytest.raises(DeadlinePassed, match=r"survived SIGKILL for 1 seconds: \[11\]") as caught:
        instance(ScriptedRunner(), str(tmp_path)).kill_all(clock=ScriptedClock(), timeout=1.0)
    assert "Power the host off" in caught.value.next_step


@pytest.mark.parametrize(
    ("systemd", "expected"),
    [
        (False, [["pg_ctlcluster", "15", "main", "start"]]),
        (
            True,
            [
                ["systemctl", "reset-failed", "postgresql@15-main.service"],
                ["systemctl", "start", "postgresql@15-main.service"],
            ],
        ),
    ],
)
def test_it_is_started_the_way_of_the_machine(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, systemd: bool, expected: list[list[str]]
) -> None:
    monkeypatch.setattr(service, "systemd_runs", lambda: systemd)
    monkeypatch.setattr(service, "find_program", lambda name: name)
    runner = ScriptedRunner(always=(0, "", ""))
    instance(runner, str(tmp_path)).start(timeout=5.0)
    assert runner.ran == expected


def test_wal_files_tell_their_timeline_and_when_they_were_written(tmp_path: pathlib.Path) -> None:
    assert newest_timeline(str(tmp_path)) == 0
    assert last_written(str(tmp_path)) == 0.0
    wal = tmp_path / "pg_wal"
    wal.mkdir()
    for number, name in enumerate(
        ["000000010000000000000003", "0000000A0000000000000003", "0000000B.history", "0000000F0000000000000003.partial"]
    ):
        (wal / name).write_text("")
        os.utime(wal / name, (0, 1000 + number))
    (wal / "archive_status").mkdir()
    assert newest_timeline(str(tmp_path)) == 10
    assert last_written(str(tmp_path)) == 1001.0
