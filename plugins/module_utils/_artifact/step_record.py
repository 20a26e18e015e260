# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The record of one operation on this host, written as it goes, and the clock that stamps it. PRIVATE."""

from __future__ import annotations

import datetime
import os
import typing as t

from .._clock import Clock, iso
from .._errors import HmsError
from .._record import Journal, start_event

RECORDS = "records"

_T = t.TypeVar("_T")


class ServerClock:
    """The database server's wall clock, looked at once; what passes since then is told by our monotonic clock.

    Ids, stamps and ages all come from here, so that a wrong clock on the host that happens to run the backup, or one
    that is set while it runs, moves none of them.
    """

    def __init__(self, clock: Clock, now: datetime.datetime) -> None:
        self._clock = clock
        self._now = now
        self._origin = clock.monotonic()

    def monotonic(self) -> float:
        """Seconds that only ever grow."""
        return self._clock.monotonic()

    def now(self) -> datetime.datetime:
        """The server's time."""
        return self._now + datetime.timedelta(seconds=self._clock.monotonic() - self._origin)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        self._clock.sleep(seconds)


class StepRecord:
    """Journal of one operation."""

    operation = "operation"
    """A word of small letters, as in the record's id."""

    def __init__(
        self,
        state_dir: str,
        identifier: str,
        *,
        cluster: str,
        environment: str,
        host: str,
        by: str,
        parameters: t.Mapping[str, t.Any],
        clock: Clock,
    ) -> None:
        self.identifier = identifier
        self._host = host
        self._clock = clock
        self._origin = clock.monotonic()
        try:
            self._journal = Journal(os.path.join(state_dir, RECORDS), identifier)
        except OSError as error:
            raise HmsError(
                f"The record of the {self.operation} can't be written below {state_dir}: {error.strerror}.",
                reason="no_record",
                phase="plan",
                state="Nothing was touched.",
                next_step="Make room there, or give a state_dir that can be written.",
            ) from error
        self.path = self._journal.path
        self._put(
            start_event(
                identifier,
                self.operation,
                cluster=cluster,
                environment=environment,
                by=by,
                parameters=parameters,
                clock=clock,
            )
        )

    def _elapsed(self) -> float:
        return round(self._clock.monotonic() - self._origin, 3)

    def _put(self, event: t.Mapping[str, t.Any]) -> None:
        try:
            self._journal.append(event)
        except OSError as error:
            raise HmsError(
                f"The record {self.path} of the {self.operation} can't be written: {error.strerror}.",
                reason="no_record",
                next_step="Make room there, then run again.",
            ) from error

    def put(self, **values: t.Any) -> None:
        """Set top-level keys of the document."""
        self._put({"set": values})

    def step(self, name: str, title: str, work: t.Callable[[], _T], tell: t.Callable[[_T], str]) -> _T:
        """Do `work` as a step of the record; `tell` makes its detail of what came out."""
        base = {"id": name, "phase": name.partition(" ")[0], "host": self._host, "title": title}
        started = self._elapsed()
        self._put({"step": {**base, "started": started, "result": "running"}})
        try:
            found = work()
        except HmsError as error:
            error.phase = error.phase or name
            self._end_step(base, started, "failed", error.message)
            raise
        except BaseException as error:
            self._end_step(base, started, "failed", type(error).__name__)
            raise
        self._end_step(base, started, "ok", tell(found))
        return found

    def _end_step(self, base: t.Mapping[str, t.Any], started: float, result: str, detail: str) -> None:
        self._put({"step": {**base, "started": started, "ended": self._elapsed(), "result": result, "detail": detail}})

    def finish(self, status: str, message: str, next_steps: t.Sequence[str] = ()) -> None:
        """Write the outcome and the document. A disk that is full now spoils nothing that is done."""
        outcome = {"status": status, "message": message, "next_steps": list(next_steps)}
        try:
            self._put({"set": {"outcome": outcome, "ended": iso(self._clock.now())}})
            self.path = self._journal.finish()
        except (HmsError, OSError):
            pass
        finally:
            self._journal.close()
