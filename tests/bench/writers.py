# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Eight clients that write through PgBouncer and remember what was acknowledged: the same for us and for the rival."""

from __future__ import annotations

import dataclasses
import threading
import time
import typing as t

import psycopg

WRITERS = 8
TABLE = "bench_ledger"
CREATE = f"CREATE TABLE IF NOT EXISTS {TABLE} (source int, seq bigint, PRIMARY KEY (source, seq))"
INSERT = f"INSERT INTO {TABLE} (source, seq) VALUES (%s, %s)"


@dataclasses.dataclass
class Ledger:
    """What one writer felt: acknowledgements with their times, and errors."""

    source: int
    acknowledged: list[tuple[float, int]] = dataclasses.field(default_factory=list)
    failed: list[tuple[float, str]] = dataclasses.field(default_factory=list)


class Writers:
    """`count` threads, each a client of its own, `pause` seconds between its transactions."""

    def __init__(self, conninfo: str, *, count: int = WRITERS, pause: float = 0.005) -> None:
        self._conninfo = conninfo
        self._pause = pause
        self._stop = threading.Event()
        base = int(time.time()) % 1_000_000 * 100  # sources of this run, distinct from those of earlier ones
        self.ledgers = [Ledger(base + number) for number in range(count)]
        self._threads = [threading.Thread(target=self._write, args=(ledger,), daemon=True) for ledger in self.ledgers]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(90)

    def _connect(self) -> psycopg.Connection[t.Any]:
        return psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=None, connect_timeout=30)

    def _write(self, ledger: Ledger) -> None:
        connection: psycopg.Connection[t.Any] | None = None
        sequence = 0
        while not self._stop.is_set():
            sequence += 1
            try:
                connection = connection or self._connect()
                connection.execute(INSERT, (ledger.source, sequence))
                ledger.acknowledged.append((time.monotonic(), sequence))
            except psycopg.Error as error:
                ledger.failed.append((time.monotonic(), str(error).strip()))
                if connection is not None:
                    connection.close()
                connection = None
            time.sleep(self._pause)

    def failures_since(self, moment: float) -> int:
        """Transactions that failed after `moment` (monotonic seconds)."""
        return sum(1 for ledger in self.ledgers for at, _text in ledger.failed if at >= moment)

    def longest_stall(self, begun: float, ended: float) -> float:
        """The longest time, in seconds, in which any one writer waited for an acknowledgement in this window."""
        longest = 0.0
        for ledger in self.ledgers:
            times = [begun, *(at for at, _sequence in ledger.acknowledged if begun <= at <= ended), ended]
            longest = max([longest, *(after - before for before, after in zip(times, times[1:]))])
        return longest

    def lost(self, conninfo: str) -> int:
        """Acknowledged rows that are not in the table. Call it after the writers have ended."""
        with psycopg.connect(conninfo, autocommit=True, prepare_threshold=None) as connection:
            missing = 0
            for ledger in self.ledgers:
                rows = connection.execute(f"SELECT seq FROM {TABLE} WHERE source = %s", (ledger.source,)).fetchall()
                present = {row[0] for row in rows}
                missing += sum(1 for _at, sequence in ledger.acknowledged if sequence not in present)
        return missing


def quantile(values: t.Sequence[float], share: float) -> float:
    """The value below or at which `share` of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, round(share * len(ordered) + 0.5) - 1))]


def describe(values: t.Sequence[float]) -> str:
    """Median, 99th percentile and range."""
    return (
        f"n={len(values)} p50={quantile(values, 0.5):.3f} s p99={quantile(values, 0.99):.3f} s "
        f"min={min(values):.3f} s max={max(values):.3f} s"
    )
