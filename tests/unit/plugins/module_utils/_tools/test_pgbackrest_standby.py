# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused, ToolFailed
from ansible_collections.hms.postgres.plugins.module_utils._tools import pgbackrest
from ansible_collections.hms.postgres.plugins.module_utils._tools.pgbackrest_standby import (
    PgBackRestStandby,
    restoring_into,
)
from ansible_collections.hms.postgres.tests.unit.plugins.scripted_runner import ScriptedRunner


@pytest.fixture(autouse=True)
def program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgbackrest, "find_program", lambda name, **_options: f"/usr/bin/{name}")


def tool(runner: ScriptedRunner) -> PgBackRestStandby:
    return PgBackRestStandby(runner, config="/etc/br.conf", stanza="hospital")


@pytest.mark.parametrize(("resume", "delta"), [(True, "--delta"), (False, "--no-delta")])
def test_what_a_restore_is_called_with(resume: bool, delta: str) -> None:
    runner = ScriptedRunner((0, "", ""))
    tool(runner).restore_standby("L", target="/data.clone-1", resume=resume, timeout=9)
    assert runner.calls[0].argv == [
        "/usr/bin/pgbackrest",
        "restore",
        "--config=/etc/br.conf",
        "--stanza=hospital",
        "--log-level-console=off",
        "--log-level-stderr=warn",
        "--repo=1",
        "--set=L",
        "--pg1-path=/data.clone-1",
        "--type=standby",
        delta,
    ]


@pytest.mark.parametrize(("rc", "kind"), [(29, ToolFailed), (50, Refused)])
def test_a_restore_that_fails_says_where_it_stopped(rc: int, kind: type[HmsError]) -> None:
    with pytest.raises(kind) as caught:
        tool(ScriptedRunner((rc, "", "ERROR: [029]: it broke"))).restore_standby(
            "L", target="/side", resume=False, timeout=9
        )
    assert caught.value.phase == "clone"
    assert "/side" in caught.value.state
    assert "goes on" in caught.value.next_step


def info(*backups: dict[str, t.Any]) -> str:
    return json.dumps([{"name": "hospital", "backup": list(backups)}])


def test_tablespaces_are_named() -> None:
    found = info({"label": "L", "tablespace": [{"name": "fast", "oid": 1}, {"name": "big", "oid": 2}]})
    runner = ScriptedRunner((0, found, ""), (0, info({"label": "L", "tablespace": None}), ""))
    assert tool(runner).tablespaces("L") == ["big", "fast"]
    assert tool(runner).tablespaces("L") == []
    assert runner.calls[0].argv[-2:] == ["--output=json", "--set=L"]


@pytest.mark.parametrize("output", ["", "[]", info(), info({"tablespace": 1}), info({}, {})])
def test_other_output_is_not_guessed_at(output: str) -> None:
    with pytest.raises(HmsError) as caught:
        tool(ScriptedRunner((0, output, ""))).tablespaces("L")
    assert caught.value.reason == "unexpected_output"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("/usr/bin/pgbackrest --pg1-path=/d.clone-1 restore", True),
        ("pgbackrest --process=1 --pg1-path=/d.clone-1 restore:local", True),
        ("pgbackrest --pg1-path=/d.clone-12 restore", False),
        ("pgbackrest --pg1-path=/d.clone-1 archive-get", False),
        ("vi --pg1-path=/d.clone-1 restore", False),
        ("", False),
    ],
)
def test_who_restores_into_a_directory(words: str, expected: bool) -> None:
    assert restoring_into(words.encode().split(b" "), "/d.clone-1") is expected
