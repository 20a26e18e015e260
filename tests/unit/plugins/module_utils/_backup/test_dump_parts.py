# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The small parts of a dump that decide something: hints, races, clocks, comparisons."""

from __future__ import annotations

import datetime
import os
import pathlib
import signal
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact.clients import bin_directory, find_clients
from ansible_collections.hms.postgres.plugins.module_utils._artifact.manifest import MANIFEST
from ansible_collections.hms.postgres.plugins.module_utils._artifact.scratch import compare, create_statement
from ansible_collections.hms.postgres.plugins.module_utils._backup import deep_verify, operation
from ansible_collections.hms.postgres.plugins.module_utils._backup.artifact import lock_until
from ansible_collections.hms.postgres.plugins.module_utils._backup.dump_engine import Place, explained, lost_race
from ansible_collections.hms.postgres.plugins.module_utils._backup.facts import DatabaseFacts
from ansible_collections.hms.postgres.plugins.module_utils._backup.model import Retention
from ansible_collections.hms.postgres.plugins.module_utils._backup.record import BackupRecord, ServerClock
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused, ToolFailed
from ansible_collections.hms.postgres.plugins.module_utils._record import load_record
from ansible_collections.hms.postgres.plugins.module_utils._store.model import S3Spec
from ansible_collections.hms.postgres.tests.unit.plugins.engine_facts import ScriptedClock
from ansible_collections.hms.postgres.tests.unit.plugins.module_utils._backup.backups import MemoryStore
from ansible_collections.hms.postgres.tests.unit.plugins.module_utils._backup.test_estimate import manifest
from ansible_collections.hms.postgres.tests.unit.plugins.module_utils._backup.test_plan import ID, wish

UTC = datetime.timezone.utc


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("invalid memory alloc request size 1200000003", "pgbackrest"),
        ("FATAL: terminating connection\nserver closed the connection", "DROP DATABASE"),
        ("server closed the connection unexpectedly", "log"),
        ("ERROR: conflict with recovery", "standby"),
        ("gpg: No space left on device", "Make room"),
        ("something else", "Remove the cause"),
    ],
)
def test_hints(text: str, hint: str) -> None:
    assert hint in explained(ToolFailed("pg_dump failed", details={"stderr_tail": text})).next_step
    assert explained(HmsError(text, next_step="given")).next_step == "given"


@pytest.mark.parametrize(
    ("phase", "tail", "expected"),
    [
        ("pg_dump", "canceling statement due to statement timeout\nQuery was: LOCK TABLE a", True),
        ("pg_dump", "permission denied: LOCK TABLE a", False),
        ("pg_dump", "canceling statement due to statement timeout", False),
        ("zstd", "LOCK TABLE timeout", False),
    ],
)
def test_a_lost_race(phase: str, tail: str, expected: bool) -> None:
    assert lost_race(ToolFailed("x", phase=phase, details={"stderr_tail": tail})) is expected


def test_the_servers_clock_moves_with_ours() -> None:
    ours = ScriptedClock()
    clock = ServerClock(ours, datetime.datetime(2026, 1, 1, tzinfo=UTC))
    clock.sleep(90.5)
    assert clock.now() == datetime.datetime(2026, 1, 1, 0, 1, 30, 500000, UTC)


CONTENTS: dict[str, t.Any] = {"rows": {"public.a": 5, "public.b": 0}, "large_objects": 2, "restorable_tables": 2}


@pytest.mark.parametrize(
    ("type_", "found", "large", "problems"),
    [
        ("full", {"public.a": 5, "public.b": 0}, 2, ()),
        ("full", {"public.a": 5, "public.b": 0, "public.more": 1}, 2, ()),
        ("full", {"public.a": 4, "public.b": 0}, 2, ("public.a has 4 rows in place of 5",)),
        ("full", {"public.a": 5}, 2, ("public.b is missing",)),
        ("full", {"public.a": 5, "public.b": 0}, 1, ("1 large objects came back of 2",)),
        ("schema_only", {"public.a": 0, "public.b": 0}, 0, ()),
        ("schema_only", {"public.a": 0}, 0, ("1 tables came back of 2",)),
    ],
)
def test_what_came_back_is_compared(type_: str, found: dict[str, int], large: int, problems: tuple[str, ...]) -> None:
    assert compare(manifest(type=type_, contents=CONTENTS), found, large) == problems


def test_many_differences_are_few_words() -> None:
    contents = {"rows": {f"t{n}": 1 for n in range(50)}, "large_objects": 0}
    assert compare(manifest(contents=contents), {}, 0)[-1] == "and 40 more"


@pytest.mark.parametrize(
    ("provider", "major", "words"),
    [
        ("c", 15, "LC_CTYPE 'C'"),
        ("i", 15, "LOCALE_PROVIDER icu ICU_LOCALE 'de'"),
        ("b", 17, "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'de'"),
        ("i", 14, "LC_CTYPE 'C'"),
    ],
)
def test_the_scratch_database_is_like_the_original(provider: str, major: int, words: str) -> None:
    made = create_statement('a"b', DatabaseFacts("x", 1, "UTF8", "C", "C", provider, "de"), major)
    assert made.startswith('CREATE DATABASE "a""b" TEMPLATE template0')
    assert made.endswith(words)


def test_scratch_names_tell_whose_they_are() -> None:
    one, other = (deep_verify.scratch_prefix("c", name) for name in ("a", "b"))
    assert one != other
    assert deep_verify.scratch_name(manifest(database="a")).startswith(one)
    assert len(one) + 4 < 63


def test_what_is_left_of_a_failure_is_removed_manifest_first() -> None:
    removed: list[str] = []

    class Store(MemoryStore):
        def remove(self, keys: t.Sequence[str]) -> None:
            removed.extend(keys)
            super().remove(keys)

    store = Store()
    place = Place((store,), "c", "h", ID)
    for name in ("data.dump.zst", MANIFEST):
        store.put(place.key(name), b"x")
    store.put(f"c/h/{ID[:-1]}0/{MANIFEST}", b"another's")
    assert place.clear() == []
    assert removed == [place.key(MANIFEST), place.key("data.dump.zst")]
    assert [found.key for found in store.list()] == [f"c/h/{ID[:-1]}0/{MANIFEST}"]


def test_object_lock_lasts_as_long_as_retention_by_days() -> None:
    now = datetime.datetime(2026, 1, 1, tzinfo=UTC)
    locked = (S3Spec("bucket", object_lock="GOVERNANCE"),)
    rules = {"full": Retention(days=30)}
    assert lock_until(wish(stores=locked, retention=rules), now) == datetime.datetime(2026, 1, 31, tzinfo=UTC)
    assert lock_until(wish(stores=locked), now) is None
    assert lock_until(wish(stores=locked, retention={"full": Retention(keep_last=3)}), now) is None
    assert lock_until(wish(retention=rules), now) is None


def test_signals_become_an_error_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(HmsError, match="SIGTERM") as caught, operation.ending_properly():
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.reason == "interrupted"
    with pytest.raises(HmsError, match="SIGINT"), operation.ending_properly():
        raise KeyboardInterrupt
    assert signal.getsignal(signal.SIGTERM) is before


def test_users_that_programs_cannot_run_as(monkeypatch: pytest.MonkeyPatch) -> None:
    operation.check_user(None)
    with pytest.raises(Refused) as caught:
        operation.check_user("no such user of ours")
    assert caught.value.reason == "no_such_user"
    monkeypatch.setattr(os, "geteuid", lambda: 65432)
    with pytest.raises(Refused) as caught:
        operation.check_user("root")
    assert caught.value.reason == "not_root"


def test_the_lock(tmp_path: pathlib.Path) -> None:
    clock = ScriptedClock()
    asked = wish(state_dir=str(tmp_path))
    with operation.alone(asked, clock=clock, by="first"):
        with pytest.raises(Refused, match="first since") as caught, operation.alone(asked, clock=clock, by="second"):
            pass
        assert caught.value.reason == "busy"
        waiting = wish(state_dir=str(tmp_path), if_busy="wait", wait_seconds=5)
        with pytest.raises(HmsError, match="within 5 s"), operation.alone(waiting, clock=clock, by="second"):
            pass
    with operation.alone(asked, clock=clock, by="third"):
        pass
    assert operation.lock_path(wish(engine="pgbackrest")) != operation.lock_path(wish())


def test_a_record_of_a_failure(tmp_path: pathlib.Path) -> None:
    clock = ServerClock(ScriptedClock(), datetime.datetime(2026, 1, 1, tzinfo=UTC))
    record = operation.start_record(wish(state_dir=str(tmp_path)), ID, host="db1", by="test", clock=clock)
    assert isinstance(record, BackupRecord)

    def fail() -> str:
        raise HmsError("it broke")

    with pytest.raises(HmsError) as caught:
        record.step("dump data", "Store it", fail, str)
    assert caught.value.phase == "dump data"
    operation.finish_failed(record, caught.value)
    document = load_record(str(tmp_path / "records"), ID)
    assert document is not None
    assert (document["outcome"]["status"], document["steps"][0]["result"]) == ("failed", "failed")
    assert document["asked"]["parameters"]["database"] == "hospital"


def test_programs_of_the_servers_version_come_first(tmp_path: pathlib.Path) -> None:
    for major in (14, 15):
        (tmp_path / str(major)).mkdir()
        for name in ("pg_dump", "pg_dumpall", "pg_restore"):
            path = tmp_path / str(major) / name
            path.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {major}.7 (Debian)'\n")
            path.chmod(0o755)
    where = (str(tmp_path / "{major}"),)
    found = find_clients(14, SystemRunner(), where)
    assert {client.version for client in found.all()} == {"14.7"}
    assert bin_directory(16, where) is None
    (tmp_path / "15" / "pg_restore").write_text("#!/bin/sh\necho nonsense\n")
    with pytest.raises(HmsError) as caught:
        find_clients(15, SystemRunner(), where)
    assert caught.value.reason == "tool_unknown"
