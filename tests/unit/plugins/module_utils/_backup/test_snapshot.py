# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import threading
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._backup.facts import RELATIONS, Relation
from ansible_collections.hms.postgres.plugins.module_utils._backup.snapshot import (
    ATTEMPTS,
    Leader,
    RowCounter,
    countable,
)
from ansible_collections.hms.postgres.plugins.module_utils._errors import DeadlinePassed, HmsError


def row(oid: int, name: str, kind: str = "r") -> tuple[t.Any, ...]:
    """A relation as the catalog gives it."""
    return (oid, "public", name, kind, False, True, False, False)


class FakeSession:
    """Answers with relations, one list for each look, and fails where it is told to."""

    def __init__(self, *looks: list[tuple[t.Any, ...]], failures: t.Mapping[str, list[str]] | None = None) -> None:
        self.looks = list(looks)
        self.said: list[str] = []
        self.failures = {word: list(states) for word, states in (failures or {}).items()}
        self.closed = False

    def rows(self, sql: str, params: t.Sequence[t.Any] | None = None) -> list[tuple[t.Any, ...]]:
        self.execute(sql, params)
        if sql == RELATIONS:
            return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if "pg_export_snapshot" in sql:
            return [("snap", "0/1", "2026-11-22T02:00:00.000000Z")]
        if "pg_locks" in sql:
            return [("public.a", 4711, "app", "", "idle in transaction")]
        return [(len(sql),)]

    def row(self, sql: str, params: t.Sequence[t.Any] | None = None) -> tuple[t.Any, ...] | None:
        return self.rows(sql, params)[0]

    def value(self, sql: str, params: t.Sequence[t.Any] | None = None) -> t.Any:
        return self.rows(sql, params)[0][0]

    def execute(self, sql: str, params: t.Sequence[t.Any] | None = None) -> None:
        del params
        self.said.append(" ".join(sql.split()))
        for word, states in self.failures.items():
            if word in sql and states:
                state = states.pop(0)
                if state:
                    raise HmsError("refused", details={"sqlstate": state})

    def close(self) -> None:
        self.closed = True


def leader(session: FakeSession, major: int = 15) -> Leader:
    """A leader on that session."""
    return Leader(session, watcher=session, lock_timeout=3.0, major=major)


def test_locks_come_before_the_snapshot() -> None:
    session = FakeSession([row(1, "a"), row(2, 'b"c', "p"), row(3, "s", "S")])
    found = leader(session).take()
    assert (found.id, found.as_dict()["lsn"], len(found.relations)) == ("snap", "0/1", 3)
    order = [sql for sql in session.said if sql.startswith(("BEGIN", "LOCK", "SELECT pg_catalog.pg_export"))]
    assert [sql[:20] for sql in order] == ["BEGIN ISOLATION LEVE", 'LOCK TABLE ONLY "pub', "SELECT pg_catalog.pg"]
    assert order[1] == 'LOCK TABLE ONLY "public"."a", ONLY "public"."b""c" IN ACCESS SHARE MODE'
    assert "SET lock_timeout = 3000" in session.said


def test_a_table_that_came_meanwhile_means_once_more() -> None:
    session = FakeSession([row(1, "a")], [row(1, "a"), row(2, "b")], [row(1, "a"), row(2, "b")])
    leader(session).take()
    assert session.said.count("ROLLBACK") == 1
    assert session.said[-2].startswith("SELECT pg_catalog.pg_export_snapshot")


@pytest.mark.parametrize("state", ["42P01", "3F000", "42809"])
def test_a_table_that_went_meanwhile_means_once_more(state: str) -> None:
    session = FakeSession([row(1, "a")], failures={"LOCK TABLE": [state]})
    leader(session).take()
    assert session.said.count("ROLLBACK") == 1


def test_it_does_not_go_on_for_ever() -> None:
    session = FakeSession([row(1, "a")], failures={"LOCK TABLE": ["42P01"] * ATTEMPTS})
    with pytest.raises(HmsError) as caught:
        leader(session).take()
    assert caught.value.reason == "tables_changing"


def test_who_holds_a_table_is_told() -> None:
    session = FakeSession([row(1, "a")], failures={"LOCK TABLE": ["55P03"]})
    with pytest.raises(DeadlinePassed) as caught:
        leader(session).take()
    assert caught.value.reason == "table_locked"
    assert "public.a is held by process 4711 (app, no application name, idle in transaction)" in caught.value.message
    assert session.said[-1] == "ROLLBACK"


def test_other_errors_come_through() -> None:
    with pytest.raises(HmsError, match="refused"):
        leader(FakeSession([row(1, "a")], failures={"LOCK TABLE": ["53200"]})).take()


def test_an_old_server_is_not_asked_for_what_it_has_not() -> None:
    old, new = FakeSession([]), FakeSession([], failures={"client_connection": ["42704"]})
    leader(old, major=13).take()
    leader(new).take()
    assert not any("client_connection" in sql for sql in old.said)
    assert any("client_connection" in sql for sql in new.said)


def test_many_tables_are_locked_in_batches() -> None:
    session = FakeSession([row(n, f"t{n}") for n in range(450)])
    leader(session).take()
    assert sum(sql.startswith("LOCK TABLE") for sql in session.said) == 3


RELATIONS_SEEN = (
    Relation(1, "public", "a", "r"),
    Relation(2, "public", "p", "p"),
    Relation(3, "public", "s", "S"),
    Relation(4, "public", "u", "r", unlogged=True),
    Relation(5, "public", "x", "r", extension=True),
)


def test_what_can_be_counted() -> None:
    assert [one.name for one in countable(RELATIONS_SEEN, is_standby=False)] == ["a", "u"]
    assert [one.name for one in countable(RELATIONS_SEEN, is_standby=True)] == ["a"]


def test_rows_are_counted() -> None:
    counter = RowCounter(FakeSession([]), countable(RELATIONS_SEEN, is_standby=False))
    assert set(counter.rows(10)) == {"public.a", "public.u"}
    counter.stop()


def test_an_error_of_the_count_is_raised_where_it_is_asked_for() -> None:
    counter = RowCounter(FakeSession([], failures={"count(*)": ["57014"]}), RELATIONS_SEEN)
    with pytest.raises(HmsError, match="refused"):
        counter.rows(10)


def test_a_count_that_takes_too_long() -> None:
    made: list[RowCounter] = []
    known = threading.Event()

    class Slow(FakeSession):
        """It answers when it is told to stop, and not before."""

        def rows(self, sql: str, params: t.Sequence[t.Any] | None = None) -> list[tuple[t.Any, ...]]:
            known.wait(60)
            made[0]._stop.wait(60)
            return super().rows(sql, params)

    made.append(RowCounter(Slow([]), RELATIONS_SEEN))
    known.set()
    with pytest.raises(DeadlinePassed):
        made[0].rows(0.0)
