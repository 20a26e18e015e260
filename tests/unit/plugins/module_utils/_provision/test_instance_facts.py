# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import os
import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import ConnectionFailed
from ansible_collections.hms.postgres.plugins.module_utils._postgres import ConnectionParams
from ansible_collections.hms.postgres.plugins.module_utils._provision import instance_facts
from ansible_collections.hms.postgres.plugins.module_utils._provision.instance_model import ConfigError, PendingSetting
from ansible_collections.hms.postgres.tests.unit.plugins.scripted_runner import ScriptedRunner

NOT_APPLIED = "setting could not be applied"


def runner_of(stdout: str = "") -> ScriptedRunner:
    """Answers every program with the same output."""
    return ScriptedRunner(always=(0, stdout, ""))


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.passed = 0.0

    def monotonic(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.passed += seconds

    def now(self) -> t.NoReturn:
        raise AssertionError("nobody asks for the date")


class Session:
    """Answers each query by the words in it."""

    def __init__(self, answers: t.Mapping[str, list[tuple[t.Any, ...]]]) -> None:
        self.answers = answers
        self.closed = False

    def rows(self, sql: str, _params: t.Any = None) -> list[tuple[t.Any, ...]]:
        (found,) = [rows for words, rows in self.answers.items() if words in sql]
        return found

    def row(self, sql: str, _params: t.Any = None) -> tuple[t.Any, ...] | None:
        rows = self.rows(sql)
        return rows[0] if rows else None

    def value(self, sql: str, _params: t.Any = None) -> t.Any:
        row = self.row(sql)
        return row[0] if row else None

    def execute(self, _sql: str, _params: t.Any = None) -> None:
        raise AssertionError("looking changes nothing")

    def close(self) -> None:
        self.closed = True


def answers(**replaced: list[tuple[t.Any, ...]]) -> dict[str, list[tuple[t.Any, ...]]]:
    known: dict[str, list[tuple[t.Any, ...]]] = {
        "pg_is_in_recovery": [("15.18", True, 3, 12.5, "UTF8", "C.UTF-8")],
        "WHERE error IS NOT NULL ORDER BY seqno": [],
        "WHERE s.pending_restart": [],
        "pg_hba_file_rules": [],
        "'config_file', 'hba_file'": [("/etc/postgresql/15/main/postgresql.conf",), ("server.crt",)],
    }
    names = {"file_errors": "WHERE error IS NOT NULL ORDER BY seqno", "pending": "WHERE s.pending_restart"}
    names["hba_errors"] = "pg_hba_file_rules"
    return {**known, **{names[name]: rows for name, rows in replaced.items()}}


def test_what_the_server_says() -> None:
    facts, watched = instance_facts.ask_server(Session(answers()))
    assert (facts.server_version, facts.in_recovery, facts.timeline, facts.config_loaded_at) == ("15.18", True, 3, 12.5)
    assert watched == ("/etc/postgresql/15/main/postgresql.conf", "server.crt")


@pytest.mark.parametrize(
    ("file_errors", "pending", "waits", "wrong"),
    [
        pytest.param(
            [("shared_buffers", "/c", 1, "4GB", NOT_APPLIED)],
            [("shared_buffers", "128MB", "4GB")],
            [PendingSetting("shared_buffers", "128MB", "4GB")],
            [],
            id="waits for a restart",
        ),
        pytest.param(
            [("max_wal_senders", "/c", 2, "abc", NOT_APPLIED)],
            [],
            [],
            [ConfigError("/c", 2, "max_wal_senders = abc: setting could not be applied")],
            id="a value that is none",
        ),
        pytest.param(
            [("work_memx", "/c", 3, "5", "unrecognized configuration parameter")],
            [],
            [],
            [ConfigError("/c", 3, "work_memx = 5: unrecognized configuration parameter")],
            id="a name that is none",
        ),
        pytest.param(
            [(None, "/c", 4, "", "syntax error")],
            [],
            [],
            [ConfigError("/c", 4, "syntax error")],
            id="no setting",
        ),
        pytest.param(
            [(None, "", 0, "", 'parameter "max_connections" cannot be changed without restarting the server')],
            [("max_connections", "200", "100")],
            [PendingSetting("max_connections", "200", "100")],
            [],
            id="removed from the files",
        ),
        pytest.param([], [("wal_level", "replica", "replica")], [], [], id="taken back: the server's mark is stale"),
    ],
)
def test_what_waits_is_told_from_what_is_wrong(
    file_errors: list[tuple[t.Any, ...]],
    pending: list[tuple[t.Any, ...]],
    waits: list[PendingSetting],
    wrong: list[ConfigError],
) -> None:
    facts, _watched = instance_facts.ask_server(Session(answers(file_errors=file_errors, pending=pending)))
    assert list(facts.pending) == waits
    assert list(facts.errors) == wrong


def test_a_bad_line_of_pg_hba_is_an_error() -> None:
    facts, _watched = instance_facts.ask_server(Session(answers(hba_errors=[("/etc/pg_hba.conf", 9, "invalid type")])))
    assert facts.errors == (ConfigError("/etc/pg_hba.conf", 9, "invalid type"),)


@pytest.mark.parametrize(
    ("names", "kind"),
    [([], "empty"), (["notes.txt"], "foreign"), (["lost+found"], "foreign"), (["PG_VERSION"], "incomplete")],
)
def test_kinds_of_data_directories(tmp_path: pathlib.Path, names: list[str], kind: str) -> None:
    for name in names:
        (tmp_path / name).write_text("15\n")
    found = instance_facts.look_at_data(str(tmp_path), runner=runner_of(), bin_directory="/nonexistent")
    assert found.kind == kind


def test_a_data_directory_that_is_not_there_or_none(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "data"
    assert instance_facts.look_at_data(str(path), runner=runner_of(), bin_directory="/x").kind == "missing"
    path.write_text("")
    assert instance_facts.look_at_data(str(path), runner=runner_of(), bin_directory="/x").kind == "not_a_directory"


def test_the_version_in_a_data_directory(tmp_path: pathlib.Path) -> None:
    assert instance_facts._data_version(str(tmp_path)) is None
    (tmp_path / "PG_VERSION").write_text("15\n")
    assert instance_facts._data_version(str(tmp_path)) == 15


def test_the_installed_version(tmp_path: pathlib.Path) -> None:
    assert instance_facts.installed_version(runner_of(), str(tmp_path)) == ""
    program = tmp_path / "postgres"
    program.write_text("")
    program.chmod(0o755)
    printed = "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"
    assert instance_facts.installed_version(runner_of(printed), str(tmp_path)) == "15.18 (Debian 15.18-0+deb12u1)"
    assert instance_facts.installed_version(runner_of("something else\n"), str(tmp_path)) == "something else"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7\n/data\n0\n5432\n/var/run/postgresql\n127.0.0.1\n", ("/var/run/postgresql", 5432)),
        ("7\n/data\n0\n5432\n\n127.0.0.1\n", ("/tmp", 5432)),
        ("7\n/data\n", None),
        ("7\n/data\n0\nport\n/run\n", None),
    ],
)
def test_where_a_server_listens(tmp_path: pathlib.Path, text: str, expected: tuple[str, int] | None) -> None:
    (tmp_path / "postmaster.pid").write_text(text)
    assert instance_facts.postmaster_address(str(tmp_path)) == expected


def test_nobody_listens_without_a_pid_file(tmp_path: pathlib.Path) -> None:
    assert instance_facts.postmaster_address(str(tmp_path)) is None


def test_the_newest_change(tmp_path: pathlib.Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for path in (old, new):
        path.write_text("")
    os.utime(new, (2e9, 2e9))
    assert instance_facts.newest_change([str(old), str(new), str(tmp_path / "gone")]) == (2e9, str(new))
    assert instance_facts.newest_change([]) == (0.0, "")


def test_fragments_and_their_folder_are_watched(tmp_path: pathlib.Path) -> None:
    assert instance_facts._config_files(str(tmp_path), ["/etc/a", "server.crt"], "/data") == [
        "/etc/a",
        "/data/server.crt",
    ]
    folder = tmp_path / "conf.d"
    folder.mkdir()
    for name in ("50-hms.conf", "notes.txt"):
        (folder / name).write_text("")
    assert instance_facts._config_files(str(tmp_path), [], "/data") == [str(folder / "50-hms.conf"), str(folder)]


def refusing(*, times: int, message: str, sqlstate: str | None = None) -> t.Callable[[ConnectionParams], Session]:
    left = [times]

    def connect(_params: ConnectionParams) -> Session:
        if left[0]:
            left[0] -= 1
            raise ConnectionFailed(message, details={"sqlstate": sqlstate})
        return Session({})

    return connect


def test_patience_with_a_server_that_starts() -> None:
    clock = Clock()
    connect = refusing(times=3, message="the database system is starting up")
    assert isinstance(instance_facts._open(connect, ConnectionParams("/run"), clock), Session)
    assert clock.passed == pytest.approx(0.6)


def test_patience_ends() -> None:
    clock = Clock()
    connect = refusing(times=10_000, message="not yet", sqlstate="57P03")
    with pytest.raises(ConnectionFailed, match="not yet"):
        instance_facts._open(connect, ConnectionParams("/run"), clock)
    assert clock.passed >= 30.0


def test_no_patience_with_a_refusal() -> None:
    clock = Clock()
    with contextlib.suppress(ConnectionFailed):
        instance_facts._open(refusing(times=1, message="no such role"), ConnectionParams("/run"), clock)
    assert clock.passed == 0.0
