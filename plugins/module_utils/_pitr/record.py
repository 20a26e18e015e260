# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The record of a point-in-time recovery, written as it goes. PRIVATE."""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._clock import Clock, iso
from .._errors import HmsError, Refused
from .._record import Journal, new_id, start_event
from .model import Order

OPERATION = "pitr"
RECORDS = "records"

_T = t.TypeVar("_T")


class PitrRecord:
    """Journal of one run, and the seconds of its phases."""

    def __init__(self, order: Order, *, host: str, parameters: t.Mapping[str, t.Any], clock: Clock) -> None:
        self.identifier = new_id(OPERATION, clock)
        self.seconds: dict[str, float] = {}
        self._host = host
        self._clock = clock
        self._origin = clock.monotonic()
        try:
            self._journal = Journal(os.path.join(order.state_dir, RECORDS), self.identifier)
            self._journal.append(
                start_event(
                    self.identifier,
                    OPERATION,
                    cluster=order.cluster,
                    environment=order.environment,
                    by=order.by,
                    parameters=parameters,
                    clock=clock,
                )
            )
        except OSError as error:
            raise HmsError(
                f"The record can't be written below {order.state_dir}: {error.strerror}.",
                reason="no_record",
                phase="plan",
                state="Nothing was touched.",
                next_step="Make room there, or give a state_dir that can be written.",
            ) from error
        self.path = self._journal.path

    def _elapsed(self) -> float:
        return round(self._clock.monotonic() - self._origin, 3)

    def _put(self, event: t.Mapping[str, t.Any]) -> None:
        """Add an event. A record that can't be written any more stops nothing: the live cluster is not at stake."""
        with contextlib.suppress(OSError):
            self._journal.append(event)

    def put(self, **values: t.Any) -> None:
        """Set top-level keys of the document."""
        self._put({"set": values})

    def step(self, name: str, title: str, work: t.Callable[[], _T], tell: t.Callable[[_T], str]) -> _T:
        """Do `work` as a step; `tell` makes its detail of what came out."""
        started = self._elapsed()
        base = {"id": name, "phase": name, "host": self._host, "title": title, "started": started}
        self._put({"step": {**base, "result": "running"}})
        try:
            found = work()
        except BaseException as error:
            if isinstance(error, HmsError):
                error.phase = error.phase or name
            detail = error.message if isinstance(error, HmsError) else type(error).__name__
            self._end(base, "failed", detail)
            raise
        self._end(base, "ok", tell(found))
        return found

    def _end(self, base: t.Mapping[str, t.Any], result: str, detail: str) -> None:
        ended = self._elapsed()
        self.seconds[base["id"]] = round(self.seconds.get(base["id"], 0.0) + ended - base["started"], 3)
        self._put({"step": {**base, "ended": ended, "result": result, "detail": detail}})

    def finish(self, status: str, message: str, next_steps: t.Sequence[str] = ()) -> None:
        """Write the outcome and the document."""
        outcome = {"status": status, "message": message, "next_steps": list(next_steps)}
        self._put({"set": {"outcome": outcome, "seconds": self.seconds, "ended": iso(self._clock.now())}})
        try:
            self.path = self._journal.finish()
        except OSError:
            pass
        finally:
            self._journal.close()

    def fail(self, error: HmsError) -> None:
        """End the record of a run that failed."""
        self.put(error=error.as_dict())
        status = "refused" if isinstance(error, Refused) else "failed"
        self.finish(status, error.message, [error.next_step] if error.next_step else [])
