# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Programs with a deadline: none outlives it, none floods us, none hangs us by what it leaves behind."""

from __future__ import annotations

import os
import pathlib
import subprocess
import time
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils import _command
from ansible_collections.hms.postgres.plugins.module_utils._command import (
    CommandResult,
    SystemRunner,
    clean_environment,
    find_program,
    identity,
    spawn_detached,
)
from ansible_collections.hms.postgres.plugins.module_utils._errors import DeadlinePassed, ToolFailed, ToolMissing

RUNNER = SystemRunner()


def sh(script: str, timeout: float = 60.0) -> CommandResult:
    return RUNNER.run(["/bin/sh", "-c", script], timeout=timeout)


def test_what_a_program_leaves() -> None:
    done = RUNNER.run(["/bin/cat"], timeout=20.0, input_data="hé".encode())
    assert (done.rc, done.stdout, done.stderr) == (0, "hé", "")
    assert done.check("Reading") is done
    done = sh("echo out; echo err >&2; exit 3")
    assert (done.rc, done.stdout, done.stderr) == (3, "out\n", "err\n")
    with pytest.raises(ToolFailed, match="Trying failed: sh ended with 3: err") as caught:
        done.check("Trying", state="s", next_step="n")
    assert caught.value.details["rc"] == 3
    assert (caught.value.state, caught.value.next_step) == ("s", "n")
    with pytest.raises(ToolFailed, match="ended with 1: said on stdout"):
        sh("echo said on stdout; exit 1").check("Trying")


@pytest.fixture
def at_work(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a program begins to pass when it has left its pid."""

    class AtWork(subprocess.Popen[bytes]):
        def wait(self, timeout: float | None = None) -> int:
            until((tmp_path / "pid").exists)
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, "Popen", AtWork)


def until(condition: t.Callable[[], bool]) -> None:
    """Wait for what comes for certain."""
    deadline = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.usefixtures("at_work")
def test_the_deadline_ends_the_whole_group(tmp_path: pathlib.Path) -> None:
    """The program starts another one and waits for it; both are ended."""
    with pytest.raises(DeadlinePassed, match=r"sh did not end within 0\.5 seconds"):
        sh(f"sleep 600 & echo $! > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; wait", timeout=0.5)
    until(lambda: not running(int((tmp_path / "pid").read_text())))


@pytest.mark.usefixtures("at_work")
def test_one_that_ignores_sigterm_is_killed(tmp_path: pathlib.Path) -> None:
    said = f"echo still here >&2; echo $$ > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid"
    script = f"trap '' TERM; {said}; while :; do sleep 0.1; done"
    with pytest.raises(DeadlinePassed) as caught:
        sh(script, timeout=0.5)
    assert caught.value.details["stderr_tail"] == "still here\n"
    until(lambda: not running(int((tmp_path / "pid").read_text())))


def running(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_daemon_left_behind_hangs_nobody(tmp_path: pathlib.Path) -> None:
    done = sh(f"sleep 600 & echo $! > {tmp_path}/pid; echo done", timeout=60.0)
    assert done.stdout == "done\n"
    assert running(int((tmp_path / "pid").read_text())), "it was not waited for"
    os.kill(int((tmp_path / "pid").read_text()), 9)


def test_output_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The beginning of what it prints is kept, and the end of its complaints."""
    monkeypatch.setattr(_command, "OUTPUT_LIMIT", 10)
    done = sh("printf 0123456789abcdef; printf 0123456789abcdef >&2")
    assert (done.stdout, done.stderr) == ("0123456789", "6789abcdef")


def test_the_caller_s_variables_steer_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "elsewhere")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    done = RUNNER.run(["/usr/bin/env"], timeout=20.0, env={"PGPORT": "5433"})
    assert "PGHOST" not in done.stdout
    assert "LC_ALL=C\n" in done.stdout
    assert "PGPORT=5433\n" in done.stdout
    assert clean_environment()["TZ"] == "UTC"


def test_what_is_not_installed_is_said_so() -> None:
    with pytest.raises(ToolMissing, match="no-such-program is not installed"):
        RUNNER.run(["no-such-program"], timeout=1.0)
    with pytest.raises(ToolMissing, match="It is needed for counting"):
        find_program("no-such-program", needed_for="counting")
    assert find_program("sh") in ("/usr/bin/sh", "/bin/sh")


def test_a_program_of_one_version_is_found_in_its_folder(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "sh"
    program.write_text("#!/bin/sh\n")
    assert find_program("sh", directory=str(tmp_path)) != str(program), "it can't be run"
    program.chmod(0o755)
    assert find_program("sh", directory=str(tmp_path)) == str(program)


def test_nothing_changes_for_who_it_is_already() -> None:
    import pwd

    assert identity(None) == {}
    assert identity(pwd.getpwuid(os.geteuid()).pw_name) == {}


def test_what_is_spawned_is_nobody_s_child(tmp_path: pathlib.Path) -> None:
    spawn_detached(["/bin/sh", "-c", f"ps -o ppid= $$ > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/parent"])
    until((tmp_path / "parent").exists)
    assert int((tmp_path / "parent").read_text()) != os.getpid()
