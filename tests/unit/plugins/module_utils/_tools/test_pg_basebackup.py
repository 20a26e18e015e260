# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import ToolFailed
from ansible_collections.hms.postgres.plugins.module_utils._postgres import ConnectionParams
from ansible_collections.hms.postgres.plugins.module_utils._tools import pg_basebackup
from ansible_collections.hms.postgres.tests.unit.plugins.scripted_runner import ScriptedRunner

SOURCE = ConnectionParams(
    host="10.0.0.1", port=5433, user="hms_replication", passfile="/p", sslmode="verify-ca", sslrootcert="/ca.crt"
)


def runner_of(rc: int = 0) -> ScriptedRunner:
    """Ends as told; the program gets a minute and no input."""
    return ScriptedRunner(always=(rc, "", "no route to host"), timeout=60.0, input_data=None)


def tool(runner: ScriptedRunner, monkeypatch: pytest.MonkeyPatch) -> pg_basebackup.PgBasebackup:
    monkeypatch.setattr(pg_basebackup, "find_program", lambda name, **_where: f"/bin/{name}")
    return pg_basebackup.PgBasebackup(runner, bin_directory="/bin", os_user="postgres")


def test_the_program_is_called_like_this(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = runner_of()
    tool(runner, monkeypatch).clone(SOURCE, target="/d.clone-1", slot="db2", label="x y", timeout=60.0)
    argv, _timeout, env, _input, user = runner.calls[0]
    assert env is not None
    assert argv == [
        "/bin/pg_basebackup",
        "--pgdata",
        "/d.clone-1",
        "--format=plain",
        "--wal-method=stream",
        "--slot",
        "db2",
        "--checkpoint=fast",
        "--label",
        "x y",
        "--no-password",
    ]
    assert user == "postgres"
    assert env["PGHOST"] == "10.0.0.1"
    assert env["PGPASSFILE"] == "/p"
    assert env["PGSSLMODE"] == "verify-ca"
    assert not {"PGPASSWORD", "PGOPTIONS", "PGDATABASE"} & set(env), "a base backup is one long statement"


def test_a_failure_says_that_no_data_directory_was_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ToolFailed) as caught:
        tool(runner_of(1), monkeypatch).clone(SOURCE, target="/d.clone-1", slot="db2", label="x", timeout=60.0)
    assert "no route to host" in caught.value.message
    assert "no data directory was touched" in caught.value.state
