# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What each transaction did to which file, gathered from the WAL in bounded memory. Pure. PRIVATE.

WAL knows files (relfilenodes), not tables. A table's file changes with TRUNCATE, VACUUM FULL, CLUSTER and some ALTER
TABLE: such a transaction makes new files and removes as many old ones, so that the table can be followed back.
"""

from __future__ import annotations

import dataclasses
import heapq
import re
import typing as t

from .._tools.pg_waldump import WalRecord
from .transactions import Ended, file_of, parse_end

RMGRS = ("Heap", "Heap2", "Standby", "Storage", "Transaction", "XLOG")
"""What has to be read to count."""
RMGRS_TO_FOLLOW = ("Storage", "Transaction")
"""What has to be read to follow files alone."""
KEPT_PER_FILE = 25
KEPT_REWRITES = 5000
KEPT_LOCKS = 200

_ROWS = re.compile(r"(?P<what>DELETE|UPDATE|HOT_UPDATE|INSERT|MULTI_INSERT)\b")
_TUPLES = re.compile(r"(?:ntuples: (?P<new>\d+)|(?P<old>\d+) tuples)")
_FILE = re.compile(r"blkref #0: rel \d+/(?P<database>\d+)/(?P<node>\d+)(?: blk (?P<block>\d+))?")
_PAGE = re.compile(r"FPI\b")
_LOCKS = re.compile(r"xid (?P<xid>\d+) db (?P<database>\d+) rel (?P<relation>\d+)")
_CREATE = re.compile(r"CREATE (?P<path>\S+)")


@dataclasses.dataclass
class Counts:
    """Rows of one file that one transaction touched. `pages` are whole pages that were written to a new file."""

    deletes: int = 0
    updates: int = 0
    inserts: int = 0
    pages: int = 0

    def add(self, other: Counts) -> None:
        """Sum up."""
        self.deletes += other.deletes
        self.updates += other.updates
        self.inserts += other.inserts
        self.pages += other.pages

    @property
    def weight(self) -> int:
        """How much was taken away or overwritten."""
        return self.deletes + self.updates


class Commit(t.NamedTuple):
    """When and where a transaction was committed, and which tables (OIDs) it had locked against readers from where on.

    A standby holds such a lock from there to the commit: recovery that stops between has tables that can't be read.
    """

    xid: int
    time: str
    lsn: int
    timeline: int
    locks: tuple[tuple[int, int], ...] = ()

    def readable_before(self, relations: t.Collection[int]) -> int:
        """The last position before the commit at which these tables, or else all, can be read."""
        own = [lsn for relation, lsn in self.locks if relation in relations]
        return min(own or [lsn for _relation, lsn in self.locks] or [self.lsn])


@dataclasses.dataclass(frozen=True)
class Rewrite:
    """A commit that removed files, and those that it made in their place."""

    commit: Commit
    made: tuple[int, ...]
    removed: tuple[int, ...]
    filled: frozenset[int]

    def before(self, node: int) -> tuple[int, ...]:
        """Which files `node` may have taken the place of.

        TRUNCATE removes files in the reverse order of their making, so each is known, also of several tables.
        Where a table is rewritten that isn't so: then it is one of all, of which only tables' files have rows.
        """
        if node not in self.made:
            return ()
        lasting = [one for one in self.made if one not in self.removed]
        if len(lasting) == len(self.made) == len(self.removed) and node not in self.filled:
            return (self.removed[::-1][self.made.index(node)],)
        return tuple(one for one in self.removed if one not in self.made)


class Collector:
    """Takes records of one database in the order of the log.

    Args:
        database: its OID.
        since: commits before this time (ISO, UTC) are not counted; until: nor those after this one.
    """

    def __init__(self, database: int, *, since: str = "", until: str = "~") -> None:
        self._database = database
        self._since = since
        self._until = until
        self._open: dict[int, dict[int, Counts]] = {}
        self._made: dict[int, list[int]] = {}
        self._locks: dict[int, list[tuple[int, int]]] = {}
        self._top: dict[int, list[tuple[int, int, Commit, Counts]]] = {}
        self._number = 0
        self.rewrites: list[Rewrite] = []
        self.last_time = ""
        self.commits = 0

    def add(self, timeline: int, record: WalRecord) -> None:
        """One record."""
        if record.rmgr in ("Heap", "Heap2"):
            self._rows(record)
        elif record.rmgr == "Transaction":
            ended = parse_end(record.xid, record.description)
            if ended is not None:
                self._end(ended, Commit(ended.xid, ended.time, record.lsn, timeline))
        elif record.rmgr == "Storage":
            self._create(record)
        elif record.rmgr == "Standby" and record.description.startswith("LOCK"):
            self._lock(record)
        elif record.rmgr == "XLOG" and _PAGE.match(record.description):
            self._page(record)

    def _counts(self, record: WalRecord) -> Counts | None:
        match = _FILE.search(record.description)
        if match is None or int(match["database"]) != self._database:
            return None
        files = self._open.setdefault(record.xid, {})
        return files.setdefault(int(match["node"]), Counts())

    def _rows(self, record: WalRecord) -> None:
        match = _ROWS.match(record.description)
        counts = self._counts(record) if match else None
        if match is None or counts is None:
            return
        if match["what"] == "DELETE":
            counts.deletes += 1
        elif match["what"] == "MULTI_INSERT":
            tuples = _TUPLES.search(record.description)
            counts.inserts += int(tuples["new"] or tuples["old"]) if tuples else 1
        elif match["what"] == "INSERT":
            counts.inserts += 1
        else:
            counts.updates += 1

    def _page(self, record: WalRecord) -> None:
        """A whole page that fills a file which this transaction made: an empty index has a first one."""
        match = _FILE.search(record.description)
        if record.xid in self._made and match is not None and int(match["block"] or 0) > 0:
            counts = self._counts(record)
            if counts is not None:
                counts.pages += 1

    def _lock(self, record: WalRecord) -> None:
        for match in _LOCKS.finditer(record.description):
            locks = self._locks.setdefault(int(match["xid"]), [])
            if int(match["database"]) == self._database and len(locks) < KEPT_LOCKS:
                locks.append((int(match["relation"]), record.lsn))

    def _create(self, record: WalRecord) -> None:
        match = _CREATE.match(record.description)
        found = file_of(match["path"]) if match and "_" not in match["path"].rpartition("/")[2] else None
        if found is not None and found[0] == self._database:
            self._made.setdefault(record.xid, []).append(found[1])

    def _end(self, ended: Ended, commit: Commit) -> None:
        parts = (ended.xid, *ended.subxacts)
        files: dict[int, Counts] = {}
        made: list[int] = []
        locks: list[tuple[int, int]] = []
        for xid in parts:
            locks += self._locks.pop(xid, [])
            for node, counts in self._open.pop(xid, {}).items():
                files.setdefault(node, Counts()).add(counts)
            made += self._made.pop(xid, [])
        if not ended.committed:
            return
        self.commits += 1
        commit = commit._replace(locks=tuple(sorted(locks, key=lambda lock: lock[1])))
        self.last_time = max(self.last_time, ended.time)
        removed = tuple(node for database, node in ended.files if database == self._database)
        if removed:
            filled = frozenset(node for node, counts in files.items() if counts.inserts or counts.pages)
            self.rewrites.append(Rewrite(commit, tuple(made), removed, filled))
            del self.rewrites[:-KEPT_REWRITES]
        if self._since <= ended.time <= self._until:
            for node, counts in files.items():
                self._keep(node, commit, counts)

    def _keep(self, node: int, commit: Commit, counts: Counts) -> None:
        if not counts.weight:
            return
        self._number += 1
        kept = self._top.setdefault(node, [])
        heapq.heappush(kept, (counts.weight, self._number, commit, counts))
        if len(kept) > KEPT_PER_FILE:
            heapq.heappop(kept)

    def of_file(self, node: int) -> list[tuple[Commit, Counts]]:
        """The transactions that took the most from a file."""
        return [(commit, counts) for _weight, _number, commit, counts in self._top.get(node, [])]

    def in_window(self, commit: Commit) -> bool:
        """Whether a commit is in the time that is asked about."""
        return self._since <= commit.time <= self._until
