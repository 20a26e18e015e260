# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The loop of one writer: send, note the answer, go on. PRIVATE to the collection."""

from __future__ import annotations

import typing as t

from .._clock import Clock
from .client import Client, ClientError
from .ledger import ACKED, FAILED, UNKNOWN, Entry, Outcome

FIRST_BACKOFF = 0.005
LONGEST_BACKOFF = 0.05


class Interrupted(BaseException):
    """Raised by a signal handler inside `Writer.attempt` when the writer must end although it waits for an answer."""


class Sink(t.Protocol):
    """Where entries go."""

    def append(self, entry: Entry) -> None:
        """Keep the entry before the writer goes on."""


class Writer:
    """Books appointments, one transaction after the other.

    Args:
        source: the writer's number.
        first_seq: the number of its first transaction; each attempt, good or bad, takes the next.
        connect: opens a connection, raising `ClientError`.
        sink: the ledger.
        interval: seconds between the starts of two transactions at least; 0 is none.
    """

    def __init__(
        self, *, source: int, first_seq: int, connect: t.Callable[[], Client], sink: Sink, clock: Clock, interval: float
    ) -> None:
        self.source = source
        self.waiting = False
        self._seq = first_seq
        self._connect = connect
        self._sink = sink
        self._clock = clock
        self._interval = interval
        self._client: Client | None = None
        self._phase = "connect"

    def run(self, keep_on: t.Callable[[], bool]) -> None:
        """Write until `keep_on` says no, or a signal handler raises `Interrupted`."""
        backoff = 0.0
        due = self._clock.monotonic()
        try:
            while keep_on():
                entry = self.attempt()
                if entry.outcome == ACKED:
                    backoff = 0.0
                    due = max(due + self._interval, self._clock.monotonic())
                else:
                    due = self._clock.monotonic() + backoff
                    backoff = min(LONGEST_BACKOFF, max(FIRST_BACKOFF, backoff * 2))
                self._sleep_until(due)
        except Interrupted:
            pass
        finally:
            self._drop()

    def attempt(self) -> Entry:
        """One transaction and its line in the ledger."""
        sent, started = self._clock.now().timestamp(), self._clock.monotonic()
        interrupted: Interrupted | None = None
        outcome: Outcome = FAILED
        self.waiting = True
        try:
            note = self._transaction()
            outcome = ACKED
        except ClientError as error:
            outcome, note = self._verdict(error.certain), f"{self._phase}: {error}"
        except Interrupted as error:
            interrupted, outcome = error, self._verdict(False)
            note = f"{self._phase}: the writer was told to end while it waited"
        self.waiting = False
        entry = Entry(self.source, self._seq, sent, self._clock.monotonic() - started, outcome, note)
        self._sink.append(entry)
        self._seq += 1
        if outcome != ACKED:
            self._drop()
        if interrupted:
            raise interrupted
        return entry

    def _transaction(self) -> str:
        self._phase = "connect"
        if self._client is None:
            self._client = self._connect()
        self._phase = "work"
        self._client.work(self.source, self._seq)
        self._phase = "commit"
        return self._client.commit()

    def _verdict(self, certain: bool) -> Outcome:
        """Only an error in COMMIT leaves a doubt, and only if the server did not say that it rolled back."""
        return UNKNOWN if self._phase == "commit" and not certain else FAILED

    def _sleep_until(self, due: float) -> None:
        pause = due - self._clock.monotonic()
        if pause > 0:
            self._clock.sleep(pause)

    def _drop(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
