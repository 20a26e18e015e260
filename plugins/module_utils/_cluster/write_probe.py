# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A client of its own on each bouncer host: it writes through the bouncer and notes what it felt. PRIVATE.

It runs as a child process during an operation, so that the agent's work doesn't disturb it. What it measures
is what an application would have felt: the time from sending a write to its acknowledgement, and every failure.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
import typing as t

from .._errors import HmsError
from .._postgres import ConnectionParams, PsycopgSession, connect

INSERT = "INSERT INTO hms.write_probe (operation, source, seq) VALUES (%s, %s, %s)"
MAX_SAMPLES = 200_000


class Sample(t.NamedTuple):
    """One write: when it was sent (wall clock, seconds), how long until its answer, and which answer."""

    sent: float
    latency: float
    outcome: str


class WriteProbe:
    """Writes at a fixed rate through one bouncer process until told to stop."""

    def __init__(self, params: ConnectionParams, *, operation: str, source: str, rate: float) -> None:
        self._params = params
        self._operation = operation
        self._source = source
        self._interval = 1.0 / rate
        self._session: PsycopgSession | None = None
        self.samples: list[Sample] = []

    def _write(self, sequence: int) -> str:
        committing = False
        try:
            if self._session is None:
                self._session = connect(self._params)
            committing = True
            self._session.execute(INSERT, (self._operation, self._source, sequence))
            return "ok"
        except HmsError as error:
            if self._session is not None:
                self._session.close()
                self._session = None
            # A statement the server refused (it has an SQLSTATE) is not in the database. A lost connection
            # leaves open whether it is.
            refused = error.details.get("sqlstate") is not None
            return "failed" if refused or not committing else "unknown"

    def run(self, stop: t.Callable[[], bool]) -> None:
        """Write until `stop` says so."""
        sequence = 0
        while not stop() and len(self.samples) < MAX_SAMPLES:
            sequence += 1
            sent, begun = time.time(), time.monotonic()
            outcome = self._write(sequence)
            latency = time.monotonic() - begun
            self.samples.append(Sample(round(sent, 6), round(latency, 6), outcome))
            time.sleep(max(0.001, self._interval - latency))


class ProbeProcess:
    """The probe as a child of the agent."""

    def __init__(self, params: ConnectionParams, *, operation: str, source: str, rate: float) -> None:
        self.source = source
        result_read, result_write = os.pipe()
        stop_read, stop_write = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            self._child(WriteProbe(params, operation=operation, source=source, rate=rate), stop_read, result_write)
        os.close(result_write)
        os.close(stop_read)
        self._result = result_read
        self._stop = stop_write

    @staticmethod
    def _child(probe: WriteProbe, stop: int, result: int) -> t.NoReturn:
        """The child's life; it ends by itself when its parent does, because the pipe to it closes."""
        os.closerange(0, min(stop, result))
        for handle in range(min(stop, result) + 1, 256):
            if handle not in (stop, result):
                try:
                    os.close(handle)
                except OSError:
                    continue
        try:
            probe.run(lambda: bool(select.select([stop], [], [], 0)[0]))
            data = json.dumps(probe.samples).encode()
            while data:
                data = data[os.write(result, data) :]
        finally:
            os._exit(0)

    def finish(self, timeout: float = 15.0) -> list[Sample]:
        """Stop it and take its samples; an empty list when it doesn't answer in time."""
        os.close(self._stop)
        chunks = []
        deadline = time.monotonic() + timeout
        while True:
            readable, _w, _x = select.select([self._result], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                os.kill(self._pid, signal.SIGKILL)
                break
            chunk = os.read(self._result, 1 << 16)
            if not chunk:
                break
            chunks.append(chunk)
        os.close(self._result)
        os.waitpid(self._pid, 0)
        try:
            return [Sample(*item) for item in json.loads(b"".join(chunks) or b"[]")]
        except ValueError:
            return []
