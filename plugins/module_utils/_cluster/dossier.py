# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The dossier: which committed transactions a stopped server holds that its successor never got. PRIVATE.

The old log is read from before the fork (so that transactions which began there are known) to its end. What
commits behind the fork is lost; it is listed with its time and the tables it changed. A transaction counts
unless it provably changed nobody's data: only planner statistics, or nothing at all.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .._command import CommandRunner
from .._postgres import format_lsn
from .._tools.pg_controldata import PgControldata
from .._tools.pg_waldump import PgWaldump, WalEnd, WalRecord, missing_segment
from . import dossier_wal
from .dossier_collect import Collector, Commit, Prepared
from .dossier_names import RelationNames, Unnamed
from .dossier_wal import Wal
from .rejoin_history import Fork, Stretch, local_history, past_fork

LISTED = 10_000
"""Transactions listed in full; all are counted."""

LOOK_BACK = 512 * 1024 * 1024
"""Bytes before the fork that are read at most, for transactions that began there."""


@dataclasses.dataclass(frozen=True)
class LostTransaction:
    """A commit that the successor never got."""

    xid: int
    committed_at: str
    lsn: int
    relations: tuple[str, ...]
    relations_left_out: int = 0

    def as_record(self) -> dict[str, t.Any]:
        """Its form in a record."""
        item: dict[str, t.Any] = {
            "xid": str(self.xid),
            "committed_at": self.committed_at,
            "lsn": format_lsn(self.lsn),
            "relations": list(self.relations),
        }
        if self.relations_left_out:
            item["relations_left_out"] = self.relations_left_out
        return item


@dataclasses.dataclass(frozen=True)
class Losses:
    """What the old log holds behind the fork."""

    known: bool
    count: int
    fork: Fork
    end_lsn: int
    """Where the old log ends."""
    any_record: bool
    """Whether there is any record behind the fork, lost transaction or not."""
    transactions: tuple[LostTransaction, ...]
    basis: str
    without_data: int = 0
    """Commits behind the fork that changed nobody's data (planner statistics, row locks)."""
    first_commit_at: str = ""
    last_commit_at: str = ""
    undecided: tuple[Prepared, ...] = ()
    """Transactions prepared behind the fork and never decided."""

    @property
    def bytes(self) -> int:
        """Bytes of log behind the fork."""
        return max(0, self.end_lsn - self.fork.lsn)

    def as_record(self) -> dict[str, t.Any]:
        """The record's ``losses``."""
        return {
            "known": self.known,
            "count": self.count,
            "bytes": self.bytes,
            "listed": len(self.transactions),
            "transactions": [transaction.as_record() for transaction in self.transactions],
            "without_data": self.without_data,
            "first_commit_at": self.first_commit_at,
            "last_commit_at": self.last_commit_at,
            "undecided": [{"xid": str(item.xid), "lsn": format_lsn(item.lsn)} for item in self.undecided],
            "fork": {"timeline": self.fork.timeline, "lsn": format_lsn(self.fork.lsn)},
            "end_lsn": format_lsn(self.end_lsn),
            "basis": self.basis,
        }


def losses_since(
    *,
    data_directory: str,
    bin_directory: str,
    timeline: int,
    lsn: int,
    runner: CommandRunner,
    os_user: str | None = None,
    names: RelationNames | None = None,
    timeout: float = 600.0,
) -> Losses:
    """What the stopped server in `data_directory` committed after `lsn` on `timeline`, where its successor left it.

    Changes nothing. `names` turns file numbers into table names; without it the files' paths stand.
    Raises `HmsError` (``wal_missing``) when the log behind the fork is not there at all.
    """
    control = PgControldata(runner, bin_directory=bin_directory, os_user=os_user).read(data_directory)
    history = local_history(data_directory, dossier_wal.own_timeline(data_directory, control))
    tool = PgWaldump(bin_directory=bin_directory, os_user=os_user)
    wal = Wal(data_directory=data_directory, control=control, history=history, tool=tool)
    return read_losses(wal, Fork(timeline, lsn), names=names, timeout=timeout)


@dataclasses.dataclass(frozen=True)
class Gathered:
    """What the log told, before files got names."""

    collector: Collector
    fork: Fork
    end_lsn: int
    doubt: str


def read_losses(wal: Wal, fork: Fork, *, names: RelationNames | None = None, timeout: float = 600.0) -> Losses:
    """`losses_since` for a log that was already looked at."""
    return conclude(gather(wal, fork, timeout=timeout), names or Unnamed())


def gather(wal: Wal, fork: Fork, *, timeout: float = 600.0) -> Gathered:
    """Read the log behind the fork."""
    collector = Collector(fork_lsn=fork.lsn, listed=LISTED)
    end_lsn = fork.lsn
    doubt = ""
    for index, stretch in enumerate(past_fork(wal.history, fork)):
        start = _start_of_reading(wal, fork) if index == 0 else stretch.begin
        end, last = _feed(wal, stretch, start, collector, timeout)
        if last is not None:
            end_lsn = max(end_lsn, wal.end_of(last))
        if end.kind == "missing_segment" and last is None and not _ends_before(wal, end.segment, fork):
            raise missing_segment(end.segment, wal.directory)
        if stretch.end is None or end.kind != "range_end":
            doubt = dossier_wal.why_incomplete(wal, stretch.timeline, end, end_lsn)
            if stretch.end is not None and not doubt and end_lsn < stretch.end:
                doubt = f"timeline {stretch.timeline} can't be read up to its end at {format_lsn(stretch.end)}"
            break
    return Gathered(collector, fork, end_lsn, doubt)


def _ends_before(wal: Wal, segment: str, fork: Fork) -> bool:
    """Whether the log simply ends before a file that isn't there, so that nothing is missing."""
    later = [name for name in wal.segments() if name[:8] == segment[:8] and name > segment]
    return bool(segment) and not later and wal.control.checkpoint_lsn < fork.lsn


def _start_of_reading(wal: Wal, fork: Fork) -> int:
    """Where to begin so that transactions open at the fork are known: the last checkpoint, if it's near and there."""
    common = dossier_wal.common_checkpoint(wal, fork)
    if common is None:
        return fork.lsn
    begin = next(stretch.begin for stretch in wal.history if stretch.timeline == fork.timeline)
    start = max(common.redo_lsn, fork.lsn - LOOK_BACK, begin)
    name = wal.segment_holding(start, at_most=fork.timeline)
    return start if name is not None and int(name[:8], 16) == fork.timeline else fork.lsn


def _feed(
    wal: Wal, stretch: Stretch, start: int, collector: Collector, timeout: float
) -> tuple[WalEnd, WalRecord | None]:
    """Show every record of a stretch to the collector; returns how it ended and the last record."""
    reading = wal.tool.records(
        wal.directory, start_lsn=start, end_lsn=stretch.end, timeline=stretch.timeline, timeout=timeout
    )
    last: WalRecord | None = None
    for record in reading:
        if stretch.end is not None and record.lsn >= stretch.end:
            continue
        last = record
        collector.add(record)
    return reading.end, last


def conclude(gathered: Gathered, names: RelationNames) -> Losses:
    """Name the files and sum up."""
    collector, fork = gathered.collector, gathered.fork
    named = names.resolve(collector.relations(), created_after_fork=collector.created)
    return Losses(
        known=not gathered.doubt,
        count=collector.count,
        fork=fork,
        end_lsn=gathered.end_lsn,
        any_record=collector.records_behind_fork > 0,
        transactions=tuple(_lost(commit, named) for commit in collector.commits),
        basis=_basis(fork, gathered.end_lsn, gathered.doubt),
        without_data=collector.without_data,
        first_commit_at=collector.first_commit_at,
        last_commit_at=collector.last_commit_at,
        undecided=tuple(collector.undecided()),
    )


def _basis(fork: Fork, end_lsn: int, doubt: str) -> str:
    text = f"the old primary's write-ahead log from {fork} to its end at {format_lsn(end_lsn)}"
    return f"{text}; incomplete: {doubt}" if doubt else text


def _lost(commit: Commit, named: t.Mapping[tuple[int, int, int], str]) -> LostTransaction:
    names = {named[relation] for relation in commit.relations}
    relations = sorted(names, key=lambda name: (name.startswith("pg_catalog."), name))
    return LostTransaction(commit.xid, commit.at, commit.lsn, tuple(relations), commit.left_out)
