# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused, ToolFailed
from ansible_collections.hms.postgres.plugins.module_utils._tools import pgbackrest
from ansible_collections.hms.postgres.plugins.module_utils._tools.pgbackrest import PgBackRest, parse_info
from ansible_collections.hms.postgres.tests.unit.plugins.scripted_runner import ScriptedRunner

INFO: list[dict[str, t.Any]] = [
    {
        "archive": [
            {
                "database": {"id": 1, "repo-key": 1},
                "id": "15-1",
                "max": "00000001000000000000000B",
                "min": "000000010000000000000001",
            }
        ],
        "backup": [
            {
                "annotation": {"hms-id": "20261122T154500Z-backup-aaaa"},
                "archive": {"start": "000000010000000000000003", "stop": "000000010000000000000004"},
                "backrest": {"format": 5, "version": "2.45"},
                "database": {"id": 1, "repo-key": 1},
                "error": False,
                "info": {"delta": 200, "repository": {"delta": 20, "size": 30}, "size": 200},
                "label": "20261122-194449F",
                "lsn": {"start": "0/3000028", "stop": "0/4000050"},
                "prior": None,
                "reference": None,
                "timestamp": {"start": 1795376689, "stop": 1795376690},
                "type": "full",
            }
        ],
        "cipher": "aes-256-cbc",
        "db": [{"id": 1, "repo-key": 1, "system-id": 7711084148443171874, "version": "15"}],
        "name": "hospital",
        "repo": [{"cipher": "aes-256-cbc", "key": 1, "status": {"code": 0, "message": "ok"}}],
        "status": {"code": 0, "lock": {"backup": {"held": True}}, "message": "ok"},
    }
]
COMMON = ("--config=/etc/br.conf", "--stanza=hospital", "--log-level-console=off", "--log-level-stderr=warn")


@pytest.fixture(autouse=True)
def _program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgbackrest, "find_program", lambda _name, **_more: "/usr/bin/pgbackrest")


def driver(*answers: tuple[int, str, str]) -> tuple[PgBackRest, ScriptedRunner]:
    """A driver, and what it calls."""
    runner = ScriptedRunner(*answers, env=None, input_data=None, os_user="postgres")
    return PgBackRest(runner, config="/etc/br.conf", stanza="hospital"), runner


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda one: one.stanza_create(), ("stanza-create", *COMMON)),
        (lambda one: one.stanza_create(online=False), ("stanza-create", *COMMON, "--no-online")),
        (lambda one: one.check(timeout=30), ("check", *COMMON, "--archive-timeout=30")),
        (
            lambda one: one.backup(
                "diff", annotations={"a": "b", "empty": ""}, options=["--compress-level=3"], timeout=9
            ),
            (
                *("backup", *COMMON, "--repo=1", "--type=diff", "--start-fast", "--archive-check", "--no-expire-auto"),
                *("--annotation=a=b", "--compress-level=3"),
            ),
        ),
        (
            lambda one: one.annotate("L", {"a": ""}),
            ("annotate", *COMMON, "--repo=1", "--set=L", "--annotation=a="),
        ),
        (
            lambda one: one.expire(label="L", dry_run=True, timeout=9),
            ("expire", *COMMON, "--repo=1", "--repo1-retention-full=9999999", "--set=L", "--dry-run"),
        ),
        (
            lambda one: one.expire(wal_of_fulls=2, timeout=9),
            (
                *("expire", *COMMON, "--repo=1", "--repo1-retention-full=9999999"),
                *("--repo1-retention-archive-type=full", "--repo1-retention-archive=2"),
            ),
        ),
        (lambda one: one.repo_get("a/b"), ("repo-get", *COMMON, "--repo=1", "a/b")),
        (
            lambda one: one.verify(label="L", timeout=9),
            (
                *("verify", *COMMON[:-1], "--log-level-stderr=info", "--repo=1"),
                *("--output=text", "--verbose", "--set=L"),
            ),
        ),
    ],
)
def test_it_is_called_like_this(call: t.Callable[[PgBackRest], object], expected: tuple[str, ...]) -> None:
    one, runner = driver((0, "", ""))
    call(one)
    assert [tuple(called.argv[1:]) for called in runner.calls] == [expected]


@pytest.mark.parametrize(("said", "expected"), [("pgBackRest 2.45\n", (2, 45)), ("pgBackRest 2.55.1", (2, 55, 1))])
def test_versions(said: str, expected: tuple[int, ...]) -> None:
    assert driver((0, said, ""))[0].version() == expected


def test_no_version_is_an_error() -> None:
    with pytest.raises(HmsError, match="tells no version"):
        driver((0, "hello", ""))[0].version()


def test_info_is_read() -> None:
    stanza = driver((0, json.dumps(INFO), ""))[0].info()
    assert (stanza.cipher, stanza.busy) == ("aes-256-cbc", True)
    (backup,) = stanza.backups
    assert (backup.label, backup.prior, backup.reference, backup.stored_bytes) == ("20261122-194449F", "", (), 20)
    (generation,) = stanza.generations
    assert (generation.archive_id, generation.system_identifier) == ("15-1", "7711084148443171874")


@pytest.mark.parametrize(
    ("code", "reason"),
    [(1, "no_stanza"), (3, "no_stanza"), (99, "repository_unreadable"), (4, "repository_unreadable")],
)
def test_a_status_is_judged_although_the_exit_code_is_0(code: int, reason: str) -> None:
    said = json.loads(json.dumps(INFO))
    said[0]["repo"][0]["status"] = {"code": code, "message": "why\n\u0007it is so"}
    with pytest.raises(Refused, match="why it is so") as refused:
        driver((0, json.dumps(said), ""))[0].info()
    assert refused.value.reason == reason


def test_rubbish_inside_a_message_does_no_harm() -> None:
    text = json.dumps(INFO).replace('"code": 0, "message": "ok"', '"code": 99, "message": "a\x01\tb"', 1)
    assert parse_info(text, "hospital", 1).code in (0, 99)


@pytest.mark.parametrize("said", ["", "[]", "{}", '[{"name": "hospital"}]'])
def test_anything_else_is_an_error(said: str) -> None:
    with pytest.raises(HmsError, match="isn't what we know"):
        parse_info(said, "hospital", 1)


def test_another_one_at_work_is_a_refusal() -> None:
    with pytest.raises(Refused) as refused:
        driver((50, "", "ERROR: [050]: unable to acquire lock"))[0].stanza_create()
    assert refused.value.reason == "busy"


@pytest.mark.parametrize(
    ("stderr", "advice"),
    [
        ("ERROR: [x]: is there clock skew?", "clock"),
        ("ERROR: archive_mode must be enabled", "Restart"),
        ("ERROR: WAL segment was not archived before the 60000ms timeout", "pg_stat_archiver"),
        ("ERROR: something else", "message names the cause"),
    ],
)
def test_what_failed_comes_with_advice(stderr: str, advice: str) -> None:
    with pytest.raises(ToolFailed) as failed:
        driver((1, "", stderr))[0].check()
    assert advice in failed.value.next_step
    assert stderr in failed.value.message


def test_warnings_come_back_once() -> None:
    lines = ["WARN: no prior backup exists", "P00   WARN: not this", "2026-11-22 19:44:50.633 P00   WARN: a page"]
    said = "\n".join([*lines, lines[0]])
    one, _runner = driver((0, "", said))
    assert one.backup("full", annotations={}, timeout=9) == ["no prior backup exists", "a page"]


def test_listings() -> None:
    said = {".": {"type": "path"}, "b": {"type": "file", "size": 7, "time": 9}, "a": {"type": "path"}}
    listed = driver((0, json.dumps(said), ""))[0].repo_ls("archive")
    assert [(entry.name, entry.folder, entry.size) for entry in listed] == [("a", True, 0), ("b", False, 7)]
    with pytest.raises(HmsError, match="listing"):
        driver((0, "no", ""))[0].repo_ls("archive")


def test_a_restore_goes_beside_and_archives_nothing() -> None:
    stage = driver()[0].restore_stage(
        data="/side/data",
        label="20250622-010002F",
        tablespaces="/side/tablespaces",
        spool_path="/side/spool",
        lock_path="/side/lock",
        processes=2,
        delta=True,
        timeline=2,
    )
    assert stage.argv == (
        *("/usr/bin/pgbackrest", "--config=/etc/br.conf", "--stanza=hospital", "--repo=1"),
        *("--log-level-console=off", "--log-level-stderr=warn", "restore", "--pg1-path=/side/data"),
        *("--set=20250622-010002F", "--type=default", "--archive-mode=off"),
        *("--tablespace-map-all=/side/tablespaces", "--spool-path=/side/spool", "--lock-path=/side/lock"),
        *("--process-max=2", "--target-timeline=2", "--delta"),
    )
    assert stage.os_user == "postgres"


def test_a_segment_that_is_not_there_is_no_failure() -> None:
    name = "000000010000000000000009"
    one, runner = driver((0, "", ""), (1, "", ""), (41, "", "ERROR: [041]: unable to open"))
    assert one.archive_get(name, "/to", data="/data")
    assert runner.calls[0].argv[-4:] == ["--pg1-path=/data", "--no-archive-async", name, "/to"]
    assert not one.archive_get(name, "/to", data="/data")
    with pytest.raises(ToolFailed, match="unable to open"):
        one.archive_get(name, "/to", data="/data")
