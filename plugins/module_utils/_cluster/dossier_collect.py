# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sorting the records of a log by transaction, in bounded memory. PRIVATE."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from .._tools.pg_waldump import WalRecord

Relation = tuple[int, int, int]
"""Tablespace, database and file number."""

DEFAULT_TABLESPACE = 1663
GLOBAL_TABLESPACE = 1664
FIRST_USER_NUMBER = 16384
"""Files with smaller numbers are the system's own; a new database has hundreds of them."""

RELATIONS_LISTED = 50
"""Relations kept per transaction."""

TRACKED = 200_000
"""Open transactions (and subtransactions) whose relations are kept; beyond, they are counted without."""

STATISTICS = frozenset({2619, 2840, 3429, 3430})
"""Files that only ANALYZE writes: pg_statistic, pg_statistic_ext_data and their TOAST tables."""

# Indexes follow their tables; the others say nothing about data. FPI_FOR_HINT is written by mere readers.
_SILENT = frozenset(
    {
        "Btree", "Hash", "Gin", "Gist", "SPGist", "BRIN", "XLOG", "CLOG", "Standby", "MultiXact", "RelMap",
        "CommitTs", "ReplicationOrigin", "Database", "Tablespace",
    }
)  # fmt: skip
_HEAP_CHANGES = ("INSERT", "MULTI_INSERT", "UPDATE", "HOT_UPDATE", "DELETE", "TRUNCATE")

_BLOCK = re.compile(r"\brel (\d+)/(\d+)/(\d+)")
_CREATE = re.compile(r"^CREATE (?:base|pg_tblspc/(\d+)/[^/]+)/(\d+)/(\d+)$")
_COMMIT = re.compile(r"^COMMIT(?:_PREPARED (\d+):)? (\d{4,}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?) ?([^\s;]*)")
_ABORT = re.compile(r"^ABORT(?:_PREPARED (\d+):)? ")
_SUBTRANSACTIONS = re.compile(r"; subxacts: ([\d ]+)")
_NEXT_XID = re.compile(r"\bnextXid (\d+)")


@dataclasses.dataclass(frozen=True)
class Commit:
    """A lost commit, with the files it wrote."""

    xid: int
    at: str
    lsn: int
    relations: tuple[Relation, ...]
    left_out: int


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A transaction prepared behind the fork."""

    xid: int
    lsn: int


@dataclasses.dataclass
class _Open:
    """What an open transaction has done so far."""

    relations: set[Relation] = dataclasses.field(default_factory=set)
    left_out: int = 0
    other: bool = False
    """It did something that no relation stands for, e.g. a logical message."""

    def touch(self, relation: Relation) -> None:
        if relation in self.relations:
            return
        if len(self.relations) < RELATIONS_LISTED:
            self.relations.add(relation)
        else:
            self.left_out += 1

    def merge(self, other: _Open) -> None:
        for relation in other.relations:
            self.touch(relation)
        self.left_out += other.left_out
        self.other = self.other or other.other


class Collector:
    """Takes records in the log's order; afterwards holds the lost commits."""

    def __init__(self, *, fork_lsn: int, listed: int) -> None:
        self._fork_lsn = fork_lsn
        self._listed = listed
        self._open: dict[int, _Open] = {}
        self._prepared: dict[int, Prepared] = {}
        self._first_known_xid: int | None = None
        self._overflowed = False
        self.commits: list[Commit] = []
        self.created: set[tuple[int, int]] = set()
        """Database and file number of files made behind the fork: the successor may use the number for another."""
        self.count = 0
        self.without_data = 0
        self.records_behind_fork = 0
        self.first_commit_at = ""
        self.last_commit_at = ""

    def add(self, record: WalRecord) -> None:
        """Take the next record."""
        if record.lsn >= self._fork_lsn:
            self.records_behind_fork += 1
        if record.rmgr == "Transaction":
            self._transaction(record)
        elif record.rmgr == "Standby":
            self._running(record)
        elif record.rmgr not in _SILENT:
            self._change(record)

    def relations(self) -> set[Relation]:
        """Every relation of a listed commit."""
        return {relation for commit in self.commits for relation in commit.relations}

    def undecided(self) -> t.Iterator[Prepared]:
        """Transactions prepared behind the fork that neither committed nor rolled back."""
        return iter(self._prepared.values())

    def _running(self, record: WalRecord) -> None:
        """A list of running transactions tells from which number on everything of a transaction is in view."""
        found = _NEXT_XID.search(record.description)
        if found and self._first_known_xid is None:
            self._first_known_xid = int(found[1])

    def _change(self, record: WalRecord) -> None:
        if record.rmgr == "Storage":
            self._created(record)
            return
        if record.xid == 0:
            return
        if record.rmgr in ("Heap", "Heap2"):
            operation = record.description.split(" ", 1)[0].partition("+")[0]
            if operation not in _HEAP_CHANGES:
                return
        state = self._of(record.xid)
        if state is None:
            return
        blocks = _BLOCK.findall(record.description) if record.rmgr != "LogicalMessage" else []
        if not blocks:
            state.other = True
        for space, database, number in blocks:
            state.touch((int(space), int(database), int(number)))

    def _created(self, record: WalRecord) -> None:
        found = _CREATE.match(record.description.strip())
        if not found:
            return
        relation = (int(found[1] or DEFAULT_TABLESPACE), int(found[2]), int(found[3]))
        if record.lsn >= self._fork_lsn:
            self.created.add(relation[1:])
        state = self._of(record.xid) if record.xid and relation[2] >= FIRST_USER_NUMBER else None
        if state is not None:
            state.touch(relation)

    def _of(self, xid: int) -> _Open | None:
        state = self._open.get(xid)
        if state is None:
            if len(self._open) >= TRACKED:
                self._overflowed = True
                return None
            state = self._open[xid] = _Open()
        return state

    def _transaction(self, record: WalRecord) -> None:
        commit = _COMMIT.match(record.description)
        if commit:
            self._commit(record, commit)
            return
        abort = _ABORT.match(record.description)
        if abort:
            self._take(int(abort[1]) if abort[1] else record.xid, record.description)
        elif record.description.startswith("PREPARE ") and record.lsn >= self._fork_lsn:
            self._prepared[record.xid] = Prepared(record.xid, record.lsn)

    def _take(self, xid: int, description: str) -> _Open:
        """Close a transaction with its subtransactions; returns what they did."""
        state = self._open.pop(xid, None) or _Open()
        self._prepared.pop(xid, None)
        found = _SUBTRANSACTIONS.search(description)
        for number in found[1].split() if found else ():
            part = self._open.pop(int(number), None)
            if part is not None:
                state.merge(part)
        return state

    def _commit(self, record: WalRecord, found: re.Match[str]) -> None:
        xid = int(found[1]) if found[1] else record.xid
        state = self._take(xid, record.description)
        if record.lsn < self._fork_lsn:
            return
        if self._without_data(xid, state):
            self.without_data += 1
            return
        at = f"{found[2]}T{found[3]}" + ("Z" if found[4] in ("UTC", "") else f" {found[4]}")
        self.count += 1
        self.first_commit_at = min(self.first_commit_at or at, at)
        self.last_commit_at = max(self.last_commit_at, at)
        if len(self.commits) < self._listed:
            relations = tuple(sorted(state.relations))
            self.commits.append(Commit(xid, at, record.lsn, relations, state.left_out))

    def _without_data(self, xid: int, state: _Open) -> bool:
        if state.other or state.left_out:
            return False
        if state.relations:
            numbers = {number for _space, _database, number in state.relations}
            return numbers <= STATISTICS
        return not self._overflowed and self._seen_whole(xid)

    def _seen_whole(self, xid: int) -> bool:
        """Whether every record of a transaction was in view, so that having none means it changed nothing."""
        known = self._first_known_xid
        return known is not None and (xid - known) % (1 << 32) < (1 << 31)
