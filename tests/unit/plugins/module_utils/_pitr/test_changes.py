# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._pitr.candidates import of_lost_table, of_table
from ansible_collections.hms.postgres.plugins.module_utils._pitr.changes import KEPT_PER_FILE, Collector
from ansible_collections.hms.postgres.plugins.module_utils._pitr.transactions import Ended, file_of, parse_end
from ansible_collections.hms.postgres.plugins.module_utils._tools.pg_waldump import WalRecord

T1, T2, T3 = (f"2026-11-22 10:00:0{number}.000000 UTC" for number in (1, 2, 3))


class Log:
    """Records, one after the other."""

    def __init__(self, collector: Collector) -> None:
        self.collector = collector
        self.lsn = 0

    def add(self, rmgr: str, xid: int, description: str) -> int:
        self.lsn += 8
        self.collector.add(1, WalRecord(rmgr, xid, self.lsn, 8, description))
        return self.lsn

    def delete(self, xid: int, node: int, times: int = 1, database: int = 5) -> None:
        for _number in range(times):
            self.add("Heap", xid, f"DELETE off 1 flags 0x00 KEYS_UPDATED , blkref #0: rel 1663/{database}/{node} blk 0")

    def commit(self, xid: int, time: str = T1, rest: str = "") -> int:
        return self.add("Transaction", xid, f"COMMIT {time}{rest}")


@pytest.fixture
def log() -> Log:
    """An empty log."""
    return Log(Collector(5))


def test_the_forms_of_each_version_are_counted(log: Log) -> None:
    for text in (
        "UPDATE off 1 xmax 9 flags 0x00 ; new off 2 xmax 0, blkref #0: rel 1663/5/100 blk 0",
        "HOT_UPDATE off 1 xmax 9 flags 0x60 ; new off 2 xmax 0, blkref #0: rel 1663/5/100 blk 0 FPW",
        "DELETE off: 3, flags: 0x00, blkref #0: rel 1663/5/100 blk 0",
        "INSERT+INIT off 1 flags 0x00, blkref #0: rel 1663/5/100 blk 0",
        "LOCK off 5: xid 9: flags 0x00 EXCL_LOCK , blkref #0: rel 1663/5/100 blk 0",
    ):
        log.add("Heap", 9, text)
    log.add("Heap2", 9, "MULTI_INSERT+INIT 61 tuples flags 0x02, blkref #0: rel 1663/5/100 blk 1")
    log.add("Heap2", 9, "MULTI_INSERT ntuples: 5, flags: 0x02, blkref #0: rel 1663/5/100 blk 1")
    log.commit(9)
    (found,) = of_table([100], [], log.collector)
    assert (found.deletes, found.updates, found.inserts) == (1, 2, 67)


def test_parts_count_with_their_transaction_and_what_was_undone_does_not(log: Log) -> None:
    log.delete(11, 100, 3)
    log.delete(12, 100, 2)
    log.add("Transaction", 12, f"ABORT {T1}")
    log.commit(10, rest="; subxacts: 11; inval msgs: catcache 7")
    log.delete(20, 100, 9)
    log.add("Transaction", 20, f"ABORT {T1}")
    log.delete(30, 100, 9, database=6)
    log.commit(30)
    (found,) = of_table([100], [], log.collector)
    assert (found.xid, found.deletes) == (10, 3)


def test_memory_is_bounded_and_the_gravest_are_kept(log: Log) -> None:
    for xid in range(1000, 1200):
        log.delete(xid, 100, 1 + xid % 50)
        log.commit(xid)
    kept = log.collector.of_file(100)
    assert len(kept) == KEPT_PER_FILE
    assert min(counts.deletes for _commit, counts in kept) >= 40


def test_a_truncated_table_is_followed_among_others(log: Log) -> None:
    """TRUNCATE a, b: each has a heap and an index; a's rows are not b's."""
    log.delete(10, 100, 5)
    log.delete(10, 200, 7)
    log.commit(10)
    lock_a = log.add("Standby", 11, "LOCK xid 11 db 5 rel 100 ")
    lock_b = log.add("Standby", 11, "LOCK xid 11 db 5 rel 200 ")
    for node in (300, 301, 400, 401):
        log.add("Storage", 11, f"CREATE base/5/{node}")
    commit = log.commit(11, T2, "; rels: base/5/201 base/5/200 base/5/101 base/5/100")
    worst, before = of_table([400], [200], log.collector)
    assert (worst.xid, worst.truncated, worst.lsn, worst.before) == (11, True, commit, lock_b)
    assert worst.target().inclusive is False
    assert (before.xid, before.deletes) == (10, 7)
    assert of_table([300], [100], log.collector)[0].before == lock_a


def test_a_rewritten_table_is_followed_and_not_called_truncated(log: Log) -> None:
    log.delete(10, 100, 5)
    log.commit(10)
    for node in (110, 111, 112):
        log.add("Storage", 11, f"CREATE base/5/{node}")
    log.add("XLOG", 11, "FPI , blkref #0: rel 1663/5/110 blk 3 FPW")
    log.commit(11, T2, "; rels: base/5/101 base/5/100 base/5/112")
    found = of_table([110], [], log.collector)
    assert [(one.xid, one.rewritten, one.truncated, one.deletes) for one in found] == [
        (10, False, False, 5),
        (11, True, False, 0),
    ]
    assert of_lost_table(log.collector) == []


def test_a_dropped_table_is_files_that_nothing_replaced(log: Log) -> None:
    lock = log.add("Standby", 12, "LOCK xid 12 db 5 rel 100 ")
    log.commit(12, T3, "; rels: base/5/100 base/5/101; dropped stats: 2/5/100")
    (found,) = of_lost_table(log.collector)
    assert (found.xid, found.dropped, found.files, found.before) == (12, True, (100, 101), lock)


def test_only_the_window_counts() -> None:
    log = Log(Collector(5, since="2026-11-22T10:00:02.000000Z", until="2026-11-22T10:00:02.999999Z"))
    for xid, time in ((1, T1), (2, T2), (3, T3)):
        log.delete(xid, 100)
        log.commit(xid, time)
    assert [one.xid for one in of_table([100], [], log.collector)] == [2]


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        (f"COMMIT {T1}", Ended(7, True, "2026-11-22T10:00:01.000000Z", (), ())),
        (f"COMMIT_PREPARED 9: {T1}; subxacts: 10 11", Ended(9, True, "2026-11-22T10:00:01.000000Z", (10, 11), ())),
        (
            f"COMMIT {T1}; rels: base/5/100 pg_tblspc/16400/PG_15_202209061/5/101; inval msgs: catcache 7",
            Ended(7, True, "2026-11-22T10:00:01.000000Z", (), ((5, 100), (5, 101))),
        ),
        (f"ABORT {T1}", Ended(7, False, "2026-11-22T10:00:01.000000Z", (), ())),
        ("PREPARE gid x", None),
        ("ASSIGNMENT xtop 5: subxacts: 6", None),
    ],
)
def test_the_end_of_a_transaction(description: str, expected: Ended | None) -> None:
    assert parse_end(7, description) == expected


def test_a_file_is_known_by_its_path() -> None:
    assert file_of("base/5/100") == (5, 100)
    assert file_of("global/1262") == (0, 1262)
    assert file_of("elsewhere") is None
