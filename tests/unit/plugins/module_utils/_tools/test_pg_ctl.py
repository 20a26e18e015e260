# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""initdb and pg_ctl as they are called; whose number stands in a postmaster.pid."""

from __future__ import annotations

import os
import pathlib

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import ToolFailed
from ansible_collections.hms.postgres.plugins.module_utils._tools import initdb, pg_ctl
from ansible_collections.hms.postgres.tests.unit.plugins.scripted_runner import Call, ScriptedRunner


def runner_of(rc: int = 0) -> ScriptedRunner:
    """Ends as told; the program gets no environment and no input."""
    return ScriptedRunner(always=(rc, "", "no room"), env=None, input_data=None)


@pytest.fixture
def programs(tmp_path: pathlib.Path) -> str:
    """A folder with programs."""
    for name in ("initdb", "pg_ctl"):
        (tmp_path / name).touch(mode=0o755)
    return str(tmp_path)


def test_initdb_is_called_like_this(programs: str) -> None:
    runner = runner_of()
    initdb.InitDb(runner, bin_directory=programs, os_user="postgres").make("/d", superuser="postgres")
    argv = [f"{programs}/initdb", "--pgdata", "/d", "--username", "postgres", "--auth-local=peer", "--auth-host=reject"]
    argv += ["--encoding=UTF8", "--locale=C", "--data-checksums", "--no-sync"]
    assert runner.calls == [Call(argv, 120.0, os_user="postgres")]
    with pytest.raises(ToolFailed, match="Making the instance /d"):
        initdb.InitDb(runner_of(1), bin_directory=programs, os_user=None).make("/d", superuser="me")


def test_pg_ctl_is_called_like_this(programs: str) -> None:
    runner = runner_of()
    pg_ctl.PgCtl(runner, bin_directory=programs, os_user="postgres").start("/d", log="/l", timeout=5)
    argv = [f"{programs}/pg_ctl", "--pgdata", "/d", "--log", "/l", "--wait", "--timeout=5", "--silent", "start"]
    assert runner.calls == [Call(argv, 15.0, os_user="postgres")]


@pytest.mark.parametrize("content", ["", "no number\n", "{pid}\n/elsewhere\n", "999999999\n"])
def test_a_number_that_is_not_the_servers_is_nobodys(tmp_path: pathlib.Path, content: str) -> None:
    """Our own process doesn't work in that folder, so it is no server of it, whatever the file says."""
    assert pg_ctl.postmaster(str(tmp_path)) is None
    (tmp_path / "postmaster.pid").write_text(content.format(pid=os.getpid()))
    assert pg_ctl.postmaster(str(tmp_path)) is None
    assert pg_ctl.inhabitants(str(tmp_path)) == []


def test_a_server_that_recovers_is_not_waited_for(programs: str) -> None:
    runner = runner_of()
    control = pg_ctl.PgCtl(runner, bin_directory=programs, os_user="postgres")
    control.begin("/d", log="/l")
    control.stop("/d", timeout=90.5)
    begin, stop = runner.calls
    assert begin.argv[1:] == ["--pgdata", "/d", "--log", "/l", "--no-wait", "--silent", "start"]
    assert stop.argv[1:] == ["--pgdata", "/d", "--mode=fast", "--wait", "--timeout=90", "--silent", "stop"]
    assert (begin.os_user, stop.timeout, stop.os_user) == ("postgres", 100.0, "postgres")
