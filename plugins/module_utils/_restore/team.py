# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several sessions that share a list of work: statistics and counts of many tables. PRIVATE."""

from __future__ import annotations

import collections
import contextlib
import typing as t
from concurrent import futures

from .._postgres import PsycopgSession, Session, quote_identifier
from .run_sql import Deadline

T = t.TypeVar("T")
_PATIENCE = 10
"""Seconds for a server to end what it was told to end."""

_TABLES = """
SELECT c.oid::bigint, n.nspname, c.relname FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm', 'p') AND NOT c.relispartition AND c.relpersistence <> 't' AND n.nspname <> 'pg_toast'
ORDER BY CASE c.relkind
  WHEN 'p' THEN (SELECT pg_catalog.sum(pg_catalog.pg_relation_size(relid)) FROM pg_catalog.pg_partition_tree(c.oid))
  ELSE pg_catalog.pg_relation_size(c.oid) END DESC NULLS LAST, 1
"""


class Team:
    """Sessions side by side, within `with`. The first error ends the work of all."""

    def __init__(self, connect: t.Callable[[], Session], size: int, *, deadline: float, what: str) -> None:
        self._connect = connect
        self._size = size
        self._deadline = deadline
        self._what = what
        self._sessions: list[Session] = []

    def __enter__(self) -> Team:
        with contextlib.ExitStack() as unfinished:
            unfinished.callback(self.close)
            for _number in range(self._size):
                self._sessions.append(self._connect())
            unfinished.pop_all()
        return self

    def __exit__(self, *_details: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        for session in self._sessions:
            session.close()

    @property
    def first(self) -> Session:
        """One of them, for questions of its own; nobody else speaks through it between two calls of `share`."""
        return self._sessions[0]

    def share(self, works: t.Sequence[t.Callable[[Session], T]]) -> list[T]:
        """Do all of them, in the order given as far as sessions are free; what each gave."""
        found: dict[int, T] = {}
        left = collections.deque(enumerate(works))

        def labour(session: Session) -> None:
            with Deadline(session, self._deadline, self._what):
                while (task := _first(left)) is not None:
                    number, work = task
                    found[number] = work(session)

        begun: list[futures.Future[None]] = []
        with futures.ThreadPoolExecutor(len(self._sessions)) as pool:
            try:
                for session in self._sessions[: max(1, len(works))]:
                    begun.append(pool.submit(labour, session))
                # these are all of them, or the one that failed is among them, and raises
                for ended in futures.wait(begun, return_when=futures.FIRST_EXCEPTION).done:
                    ended.result()
            finally:
                left.clear()
                self._end(begun)
        return [found[number] for number in range(len(works))]

    def _end(self, begun: t.Collection[futures.Future[None]]) -> None:
        """Have the server end what it still does for any of them. One that doesn't is hung up on."""
        for _second in range(_PATIENCE):
            if all(one.done() for one in begun):
                return
            for session in self._sessions:
                if isinstance(session, PsycopgSession):
                    session.cancel()
            # it missed a session that was between two statements, so it is told again
            futures.wait(begun, timeout=1.0)
        for session in self._sessions:
            if isinstance(session, PsycopgSession):
                session.hang_up()


def _first(left: collections.deque[T]) -> T | None:
    """Take what comes next, None where nothing does; as one step, for several ask."""
    try:
        return left.popleft()
    except IndexError:
        return None


def analyze(team: Team) -> int:
    """Statistics of every table as ANALYZE without a name makes them, the largest first; how many there were."""
    tables = team.first.rows(_TABLES)

    def work(schema: str, name: str) -> t.Callable[[Session], None]:
        return lambda session: session.execute(f"ANALYZE {quote_identifier(schema)}.{quote_identifier(name)}")

    team.share([work(schema, name) for _oid, schema, name in tables])
    return len(tables)
