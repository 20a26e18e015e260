# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Unit tests: sessions that share work."""

from __future__ import annotations

import threading
import time
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._postgres import Session
from ansible_collections.hms.postgres.plugins.module_utils._restore.team import Team, analyze


class Scripted:
    """A session that notes what it was told."""

    def __init__(self, tables: t.Sequence[tuple[int, str, str]] = ()) -> None:
        self.tables = tables
        self.told: list[str] = []
        self.closed = False

    def rows(self, _sql: str) -> t.Sequence[tuple[int, str, str]]:
        return self.tables

    def execute(self, sql: str) -> None:
        self.told.append(sql)

    def close(self) -> None:
        self.closed = True


def team(sessions: t.Sequence[Scripted]) -> Team:
    """Of these."""
    left = iter(sessions)
    return Team(
        lambda: t.cast(Session, next(left)), len(sessions), deadline=time.monotonic() + 30, what="What a test asks"
    )


def test_answers_come_in_the_order_of_the_questions() -> None:
    """Both work at the same time: each waits for the other once."""
    sessions, meeting = [Scripted(), Scripted()], threading.Barrier(2, timeout=20)

    def work(number: int) -> t.Callable[[Session], int]:
        def answer(_session: Session) -> int:
            if number < 2:
                meeting.wait()
            return number * number

        return answer

    with team(sessions) as both:
        assert both.share([work(number) for number in range(7)]) == [0, 1, 4, 9, 16, 25, 36]
        assert both.share([]) == []
    assert [session.closed for session in sessions] == [True, True]


def test_the_first_error_ends_the_work_of_all() -> None:
    done: list[int] = []

    def fail(_session: Session) -> None:
        raise HmsError("no", reason="sql_failed")

    with pytest.raises(HmsError, match="no"), team([Scripted()]) as alone:
        alone.share([lambda _session: done.append(1), fail, lambda _session: done.append(3)])
    assert done == [1]


def test_those_that_are_there_already_are_closed_when_one_cannot_be_opened() -> None:
    first = Scripted()
    left = [first]

    def connect() -> Session:
        if not left:
            raise HmsError("too many", reason="connection_failed")
        return t.cast(Session, left.pop())

    with pytest.raises(HmsError, match="too many"), Team(connect, 2, deadline=time.monotonic() + 30, what="it"):
        raise AssertionError("it was opened")
    assert first.closed


def test_statistics_of_every_table() -> None:
    session = Scripted([(1, "public", "large"), (2, "We ird", 'ta"ble')])
    with team([session]) as alone:
        assert analyze(alone) == 2
    assert session.told == ['ANALYZE "public"."large"', 'ANALYZE "We ird"."ta""ble"']
