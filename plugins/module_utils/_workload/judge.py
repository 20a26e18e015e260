# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compares what writers were told with what the database holds. PRIVATE to the collection."""

from __future__ import annotations

import dataclasses
import typing as t

from .._postgres import Session
from .ledger import ACKED, FAILED, UNKNOWN, Entry

KEPT_EXAMPLES = 50
"""Lost transactions that a verdict names; it counts all of them."""
PAGE = 20_000
"""Rows asked for at once."""


@dataclasses.dataclass(frozen=True)
class Lost:
    """A transaction whose success was reported and that is gone."""

    source: int
    seq: int
    acknowledged_at: float


@dataclasses.dataclass
class Tally:
    """Counts of transactions by what became of them."""

    acknowledged: int = 0
    lost: int = 0
    failed: int = 0
    failed_but_present: int = 0
    unknown: int = 0
    unknown_but_present: int = 0
    unrecorded: int = 0
    """Rows that no ledger knows: a writer was killed before it could note the answer."""
    first_lost_at: float | None = None
    examples: list[Lost] = dataclasses.field(default_factory=list)

    def count(self, entry: Entry, present: bool) -> None:
        """Take one entry into account."""
        if entry.outcome == ACKED:
            self.acknowledged += 1
            if not present:
                self.lose(entry)
        elif entry.outcome == FAILED:
            self.failed += 1
            self.failed_but_present += present
        elif entry.outcome == UNKNOWN:
            self.unknown += 1
            self.unknown_but_present += present

    def lose(self, entry: Entry) -> None:
        """Its success was reported, and it is gone."""
        self.lost += 1
        self.first_lost_at = min(entry.answered, self.first_lost_at or entry.answered)
        if len(self.examples) < KEPT_EXAMPLES:
            self.examples.append(Lost(entry.source, entry.seq, entry.answered))

    @property
    def transactions(self) -> int:
        """All attempts."""
        return self.acknowledged + self.failed + self.unknown

    def as_dict(self) -> dict[str, t.Any]:
        """The counts as plain data."""
        return {"transactions": self.transactions, **dataclasses.asdict(self)}


Watcher = t.Callable[[Entry, bool], None]
"""Told of each entry and whether its row is there."""


def compare(entries: t.Iterable[Entry], present: t.Iterable[int], tally: Tally, *watchers: Watcher) -> None:
    """Judge one writer. Both sequences are in the order of seq; one item of each is held at a time."""
    rows = iter(present)
    row = next(rows, None)
    for entry in entries:
        while row is not None and row < entry.seq:
            tally.unrecorded += 1
            row = next(rows, None)
        found = row == entry.seq
        if found:
            row = next(rows, None)
        tally.count(entry, found)
        for watcher in watchers:
            watcher(entry, found)
    tally.unrecorded += sum(1 for _row in rows) + (row is not None)


def stored_rows(session: Session, source: int, first_seq: int) -> t.Iterator[int]:
    """The numbers that a writer's transactions have in the table, page by page."""
    last = first_seq - 1
    while True:
        page = session.rows(
            "SELECT seq FROM public.ledger_entry WHERE source = %s AND seq > %s ORDER BY seq LIMIT %s",
            (source, last, PAGE),
        )
        for row in page:
            yield int(row[0])
        if len(page) < PAGE:
            return
        last = int(page[-1][0])
