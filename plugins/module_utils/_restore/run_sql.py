# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scripts, run statement by statement over our own connection. PRIVATE."""

from __future__ import annotations

import threading
import time
import typing as t

from .._errors import DeadlinePassed, HmsError, defect
from .._pipeline import CHUNK
from .._postgres import PsycopgSession, Session
from .._tools.pg_dump import without_rows
from .find import refused
from .sql_script import Checker, Splitter

MASK_LIMIT = 16 * 1024 * 1024


class ScriptRunner(Splitter):
    """Runs what it splits; the first error is raised and names the line."""

    def __init__(self, session: Session, *, name: str) -> None:
        super().__init__()
        if not isinstance(session, PsycopgSession):
            raise defect("A session of psycopg's")
        self._connection = session.connection.pgconn
        self._name = name

    def statement(self, text: bytes) -> None:
        from psycopg import pq

        result = self._connection.exec_(text)
        if result.status == pq.ExecStatus.COPY_OUT:
            raise self._failed("COPY … TO stdout has nowhere to go")
        if result.status in (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE):
            raise self._failed(result.error_message.decode("utf-8", "replace"))

    def copy_data(self, data: bytes) -> None:
        for start in range(0, len(data), CHUNK):
            self._connection.put_copy_data(data[start : start + CHUNK])

    def copy_end(self) -> None:
        from psycopg import pq

        self._connection.put_copy_end()
        failed = ""
        while True:
            result = self._connection.get_result()
            if result is None:
                break
            if result.status == pq.ExecStatus.FATAL_ERROR:
                failed = result.error_message.decode("utf-8", "replace")
        if failed:
            raise self._failed(failed)

    def _failed(self, text: str) -> HmsError:
        return HmsError(
            f"{self._name}, statement that ends in line {self.line_number}: {' '.join(without_rows(text).split())}",
            reason="restore_failed",
            phase="load",
            next_step="Remove the cause that the message names, then run again.",
            details={"line": self.line_number},
        )


class Deadline:
    """Cancels whatever a session runs when its time is over."""

    def __init__(self, session: Session, deadline: float, what: str) -> None:
        self._session = session
        self._deadline = deadline
        self._what = what
        self._passed = threading.Event()
        self._timer = threading.Timer(max(0.0, deadline - time.monotonic()), self._end)
        self._timer.daemon = True

    def _end(self) -> None:
        self._passed.set()
        if isinstance(self._session, PsycopgSession):
            self._session.cancel()

    def __enter__(self) -> Deadline:
        if time.monotonic() >= self._deadline:
            raise self._late()
        self._timer.start()
        return self

    def _late(self) -> DeadlinePassed:
        return DeadlinePassed(
            f"{self._what} did not end in the time it has.",
            reason="deadline_passed",
            next_step="Give it more time (timeout).",
        )

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._timer.cancel()
        if self._passed.is_set() and (error is None or isinstance(error, HmsError)):
            raise self._late() from error


def read_mask(path: str) -> bytes:
    """A masking script, checked like any other: commands to psql and what reaches beyond the database are refused."""
    try:
        with open(path, "rb") as source:
            data = source.read(MASK_LIMIT + 1)
    except OSError as error:
        raise refused("bad_mask", f"The mask {path} can't be read: {error.strerror}.", "Correct the path.") from error
    checker = Checker()
    checker.feed(data)
    checker.end()
    if checker.problems or len(data) > MASK_LIMIT:
        told = "; ".join(checker.problems) or f"it is larger than {MASK_LIMIT} bytes"
        raise refused("bad_mask", f"The mask {path} can't be run: {told}.", "Write it in SQL alone.")
    return data


def run_mask(session: Session, path: str, data: bytes, deadline: float) -> None:
    """Run one in one transaction."""
    with Deadline(session, deadline, f"The mask {path}"):
        session.execute("BEGIN")
        runner = ScriptRunner(session, name=path)
        runner.feed(data)
        runner.end()
        session.execute("COMMIT")


def run_script(
    session: Session, name: str, pour: t.Callable[[t.Callable[[bytes], t.Any]], t.Any], deadline: float
) -> None:
    """Run a whole script that `pour` hands over."""
    with Deadline(session, deadline, f"The restore of {name}"):
        runner = ScriptRunner(session, name=name)
        pour(runner.feed)
        runner.end()
