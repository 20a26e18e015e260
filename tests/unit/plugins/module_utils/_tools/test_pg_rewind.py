# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._command import CommandResult
from ansible_collections.hms.postgres.plugins.module_utils._errors import ToolFailed
from ansible_collections.hms.postgres.plugins.module_utils._postgres import ConnectionParams
from ansible_collections.hms.postgres.plugins.module_utils._tools import pg_rewind, postgres_single
from ansible_collections.hms.postgres.plugins.module_utils._tools.pg_rewind import PgRewind, conninfo, running_on
from ansible_collections.hms.postgres.plugins.module_utils._tools.postgres_single import PostgresSingle
from ansible_collections.hms.postgres.tests.unit.plugins.scripted_runner import ScriptedRunner

SOURCE = ConnectionParams(
    host="db2", port=5433, user="hms_replication", passfile="/etc/x/it's.pgpass", password="secret", sslmode="verify-ca"
)


def runner_of(rc: int = 0, stdout: str = "", stderr: str = "") -> ScriptedRunner:
    """Answers as told; the programs get no environment and are the server's user's."""
    return ScriptedRunner(always=(rc, stdout, stderr), env=None, os_user="postgres")


@pytest.fixture(autouse=True)
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pg_rewind, postgres_single):
        monkeypatch.setattr(module, "find_program", lambda name, **_more: "/bin/" + name)


def rewind(runner: ScriptedRunner, *, archive: bool = False) -> CommandResult:
    tool = PgRewind(runner, bin_directory="/bin", os_user="postgres")
    return tool.rewind("/data", SOURCE, config_file="/etc/pg.conf", restore_target_wal=archive, timeout=9.0)


def test_argv_holds_no_secret() -> None:
    runner = runner_of()
    rewind(runner, archive=True)
    assert runner.argv == [
        "/bin/pg_rewind", "--target-pgdata", "/data", "--source-server", conninfo(SOURCE), "--config-file",
        "/etc/pg.conf", "--no-ensure-shutdown", "--restore-target-wal",
    ]  # fmt: skip
    assert "secret" not in " ".join(runner.argv)
    assert "passfile='/etc/x/it\\'s.pgpass'" in conninfo(SOURCE)
    assert "options" not in conninfo(SOURCE)
    rewind(runner)
    assert "--restore-target-wal" not in runner.argv


@pytest.mark.parametrize(
    ("rc", "stderr", "reason"),
    [
        (-9, "", "rewind_killed"),
        (1, "pg_rewind: error: could not find previous WAL record at 0/2000060", "wal_missing"),
        (1, "pg_rewind: error: source and target clusters are from different systems", "other_cluster"),
        (1, "pg_rewind: error: target server must be shut down cleanly", "not_shut_down"),
        (1, 'pg_rewind: error: connection to server at "db2" failed: timeout', "connection_failed"),
        (1, "ERROR:  permission denied for function pg_read_binary_file", "rights_missing"),
        (1, "something new", "tool_failed"),
    ],
)
def test_failures_get_a_reason(rc: int, stderr: str, reason: str) -> None:
    with pytest.raises(ToolFailed) as caught:
        rewind(runner_of(rc, "", stderr))
    assert caught.value.reason == reason
    assert caught.value.message.startswith("pg_rewind ")


def test_running_on(tmp_path: pathlib.Path) -> None:
    for pid, words in {
        "11": ["/usr/lib/postgresql/15/bin/pg_rewind", "--target-pgdata", "/data", "--source-server", "x"],
        "12": ["/usr/lib/postgresql/15/bin/pg_rewind", "--target-pgdata", "/other"],
        "13": ["vi", "--target-pgdata", "/data"],
        "14": ["pg_rewind", "--version"],
        "self": ["pg_rewind", "--target-pgdata", "/data"],
    }.items():
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cmdline").write_bytes("\0".join([*words, ""]).encode())
    (tmp_path / "15").mkdir()
    assert running_on("/data/", proc=str(tmp_path)) == [11]


def single(runner: ScriptedRunner) -> PostgresSingle:
    return PostgresSingle(runner, bin_directory="/bin", os_user="postgres")


def test_recovery_keeps_the_log_and_archives_nothing() -> None:
    runner = runner_of()
    single(runner).recover("/data", config_file="/etc/pg.conf", timeout=5.0)
    text = " ".join(runner.argv)
    assert text.startswith("/bin/postgres --single -D /data -c config_file=/etc/pg.conf ")
    assert text.endswith(" template1")
    for setting in ("archive_mode=off", "wal_keep_size=1TB", "max_slot_wal_keep_size=-1"):
        assert f" -c {setting} " in text
    assert runner.calls[0].input_data == b""


def test_column() -> None:
    output = (
        "backend> \t 1: x\t(typeid = 25, len = -1, typmod = -1, byval = f)\n\t----\n"
        '\t 1: x = "5 a \\"b\\""\t(typeid = 25, len = -1, typmod = -1, byval = f)\n'
        '\t 2: y = "not this"\t(typeid = 23, len = 4, typmod = -1, byval = t)\n\t----\n'
    )
    runner = runner_of(stdout=output)
    found = single(runner).column("/data", config_file="/c", dbname="d", sql="SELECT\n  1", timeout=5.0)
    assert found == ['5 a \\"b\\"']
    assert runner.calls[0].input_data == b"SELECT 1\n", "a line is a statement"


def test_setting() -> None:
    runner = runner_of(stdout="cp %f %p\n")
    assert single(runner).setting("/data", config_file="/c", name="restore_command") == "cp %f %p"
    assert runner.argv[-2:] == ["-C", "restore_command"]


def test_a_server_that_cannot_recover() -> None:
    with pytest.raises(ToolFailed) as caught:
        single(runner_of(1, "", "PANIC: could not locate a valid checkpoint record")).recover(
            "/data", config_file="/c", timeout=5.0
        )
    assert "allow_reclone" in caught.value.next_step
