# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a writer was told, on disk before it goes on. PRIVATE to the collection.

A run has a folder: ``run.json`` (its settings), ``writer-<n>.jsonl`` (one ledger for each writer), ``marks.jsonl``
(moments worth knowing, such as the kill) and ``workload.log``. A ledger's line is a JSON list
``[source, seq, t_sent, latency, outcome, error]``: wall clock in seconds with microseconds, seconds, text.
"""

from __future__ import annotations

import dataclasses
import heapq
import json
import os
import re
import typing as t

from .._errors import HmsError
from .._files import dump_json, read_json, write_atomic
from .._postgres import ConnectionParams

ACKED: t.Final = "acked"
"""COMMIT was answered with COMMIT: the client relies on it."""
FAILED: t.Final = "failed"
"""Certainly not committed: the error came before COMMIT was sent, or COMMIT was answered with an error."""
UNKNOWN: t.Final = "unknown"
"""COMMIT was sent and no answer came: it may be committed or not."""

Outcome = t.Literal["acked", "failed", "unknown"]
_LEDGER = re.compile(r"^writer-(\d+)\.jsonl$")
SETTINGS = "run.json"
MARKS = "marks.jsonl"
LOG = "workload.log"
PIDFILE = "workload.pid"


class Entry(t.NamedTuple):
    """One attempted transaction."""

    source: int
    seq: int
    sent: float
    latency: float
    outcome: Outcome
    error: str

    @property
    def answered(self) -> float:
        """When the answer came, on the wall clock."""
        return self.sent + self.latency

    def line(self) -> bytes:
        """The entry as a ledger's line."""
        values = [self.source, self.seq, round(self.sent, 6), round(self.latency, 6), self.outcome, self.error]
        return (json.dumps(values, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


class Ledger:
    """Appends entries. A line is handed to the kernel whole before `append` returns, so it survives the writer."""

    def __init__(self, directory: str, source: int) -> None:
        path = ledger_path(directory, source)
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def append(self, entry: Entry) -> None:
        """Add one entry."""
        os.write(self._handle, entry.line())

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)


@dataclasses.dataclass(frozen=True)
class Mark:
    """A moment worth knowing."""

    at: float
    name: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run was started with. No secret is among it: passwords come from a passfile."""

    endpoints: tuple[ConnectionParams, ...]
    """Where PgBouncer listens; writer n uses the n-th, counted round."""
    writers: int = 8
    rate: float = 20.0
    """Transactions a second and writer at most; 0 is as many as it can."""
    max_seconds: float = 600.0
    """The run ends by itself after this time."""
    started: float = 0.0
    """When the run was started, on the wall clock."""
    first_seq: int = 1
    patients: int = 1
    doctors: int = 1
    users: int = 1


def ledger_path(directory: str, source: int) -> str:
    """Where the ledger of one writer lies."""
    return os.path.join(directory, f"writer-{source}.jsonl")


def sources(directory: str) -> list[int]:
    """The writers that have a ledger here."""
    found = (_LEDGER.match(name) for name in os.listdir(directory))
    return sorted(int(match.group(1)) for match in found if match)


def read_ledger(directory: str, source: int) -> t.Iterator[Entry]:
    """The entries of one writer in the order of their seq; a line that is not finished yet is passed over."""
    with open(ledger_path(directory, source), "rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield Entry(*json.loads(line))


def merged(directory: str) -> t.Iterator[Entry]:
    """The entries of all writers in the order in which the answers came. Holds one line of each in memory."""
    streams = [read_ledger(directory, source) for source in sources(directory)]
    return heapq.merge(*streams, key=lambda entry: entry.answered)


def write_settings(directory: str, settings: Settings) -> None:
    """Keep a run's settings."""
    write_atomic(os.path.join(directory, SETTINGS), dump_json(dataclasses.asdict(settings)))


def read_settings(directory: str) -> Settings:
    """The settings of the run in this folder."""
    data = read_json(os.path.join(directory, SETTINGS))
    if data is None:
        raise HmsError(
            f"There is no writers' run in {directory}.",
            reason="no_run",
            next_step="Start one with the command start, or name the folder of another run.",
        )
    return Settings(**{**data, "endpoints": tuple(ConnectionParams(**endpoint) for endpoint in data["endpoints"])})


def add_mark(directory: str, mark: Mark) -> None:
    """Note a moment."""
    handle = os.open(os.path.join(directory, MARKS), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, (json.dumps(dataclasses.asdict(mark), ensure_ascii=False) + "\n").encode())
    finally:
        os.close(handle)


def read_marks(directory: str) -> list[Mark]:
    """The moments noted, in order."""
    try:
        with open(os.path.join(directory, MARKS), "rb") as lines:
            return [Mark(**json.loads(line)) for line in lines if line.endswith(b"\n")]
    except FileNotFoundError:
        return []


def clear(directory: str) -> None:
    """Remove the files of an ended run; nothing else in the folder."""
    for name in os.listdir(directory):
        if _LEDGER.match(name) or name in (SETTINGS, MARKS, LOG, PIDFILE):
            os.unlink(os.path.join(directory, name))
