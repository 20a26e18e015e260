# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several sessions that share a list of work: statistics and counts of many tables. PRIVATE."""

from __future__ import annotations

import threading
import typing as t

from .._postgres import PsycopgSession, Session, quote_identifier
from .run_sql import Deadline

T = t.TypeVar("T")

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
        self._stop = threading.Event()
        self._failed: list[BaseException] = []

    def __enter__(self) -> Team:
        try:
            for _number in range(self._size):
                self._sessions.append(self._connect())
        except BaseException:
            self.close()
            raise
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
        left = iter(enumerate(works))
        lock = threading.Lock()

        def labour(session: Session) -> None:
            with Deadline(session, self._deadline, self._what):
                while not self._stop.is_set():
                    with lock:
                        number, work = next(left, (-1, None))
                    if work is None:
                        return
                    found[number] = work(session)

        threads = [
            threading.Thread(target=self._watched, args=(labour, session), name=self._what, daemon=True)
            for session in self._sessions[: max(1, len(works))]
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException:
            self._end()
            raise
        if self._failed:
            raise self._failed[0]
        return [found[number] for number in range(len(works))]

    def _watched(self, labour: t.Callable[[Session], None], session: Session) -> None:
        try:
            labour(session)
        # An exception ends the thread that it happens in and nothing else: `share` raises it again.
        except BaseException as error:  # noqa: BLE001  it is handed over, not swallowed
            self._failed.append(error)
            self._end()

    def _end(self) -> None:
        """Have the server end what it does for any of them."""
        self._stop.set()
        for session in self._sessions:
            if isinstance(session, PsycopgSession):
                session.cancel()


def analyze(team: Team) -> int:
    """Statistics of every table as ANALYZE without a name makes them, the largest first; how many there were."""
    tables = team.first.rows(_TABLES)

    def work(schema: str, name: str) -> t.Callable[[Session], None]:
        return lambda session: session.execute(f"ANALYZE {quote_identifier(schema)}.{quote_identifier(name)}")

    team.share([work(schema, name) for _oid, schema, name in tables])
    return len(tables)
