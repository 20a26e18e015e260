# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster import dossier_collect
from ansible_collections.hms.postgres.plugins.module_utils._cluster.dossier_collect import RELATIONS_LISTED, Collector
from ansible_collections.hms.postgres.plugins.module_utils._tools.pg_waldump import WalRecord

FORK = 1000
AT = "2026-11-22 15:45:00.123456 UTC"
TABLE = (1663, 5, 20000)


class Log:
    """Writes records one after the other."""

    def __init__(self, *, listed: int = 100) -> None:
        self.collector = Collector(fork_lsn=FORK, listed=listed)
        self.lsn = 500

    def write(self, rmgr: str, xid: int, description: str) -> Log:
        self.collector.add(WalRecord(rmgr, xid, self.lsn, 40, description))
        self.lsn += 8
        return self

    def fork(self) -> Log:
        self.lsn = FORK
        return self

    def snapshot(self, next_xid: int) -> Log:
        return self.write("Standby", 0, f"RUNNING_XACTS nextXid {next_xid} latestCompletedXid 1 oldestRunningXid 1")

    def insert(self, xid: int, number: int = 20000) -> Log:
        return self.write("Heap", xid, f"INSERT off 3 flags 0x00, blkref #0: rel 1663/5/{number} blk 0 FPW")

    def commit(self, xid: int, more: str = "") -> Log:
        return self.write("Transaction", xid, f"COMMIT {AT}{more}")

    @property
    def lost(self) -> dict[int, tuple[tuple[int, int, int], ...]]:
        return {commit.xid: commit.relations for commit in self.collector.commits}


def log(*, listed: int = 100) -> Log:
    return Log(listed=listed).snapshot(700)


def test_only_commits_behind_the_fork_count() -> None:
    found = log().insert(701).commit(701).insert(702).fork().commit(702).insert(703).commit(703)
    assert found.lost == {702: (TABLE,), 703: (TABLE,)}
    assert found.collector.count == 2
    assert found.collector.records_behind_fork == 3
    assert found.collector.commits[0].at == "2026-11-22T15:45:00.123456Z"


def test_aborts_are_forgotten() -> None:
    found = log().fork().insert(701).write("Transaction", 701, f"ABORT {AT}").insert(702)
    assert (found.lost, found.collector.count) == ({}, 0)


def test_subtransactions_belong_to_their_parent() -> None:
    found = log().fork().insert(701).insert(702, 20001).insert(703, 20002)
    found.write("Transaction", 703, f"ABORT {AT}")
    found.commit(701, "; subxacts: 702; inval msgs: catcache 55")
    assert found.lost == {701: (TABLE, (1663, 5, 20001))}


def test_prepared_transactions() -> None:
    found = log().insert(690).write("Transaction", 690, f"PREPARE gid old: {AT}").fork()
    found.insert(701).write("Transaction", 701, f"PREPARE gid a: b; subxacts: 1: {AT}")
    found.insert(702).write("Transaction", 702, f"PREPARE gid c: {AT}")
    found.insert(703).write("Transaction", 703, f"PREPARE gid d: {AT}")
    found.write("Transaction", 0, f"COMMIT_PREPARED 690: {AT}")
    found.write("Transaction", 0, f"COMMIT_PREPARED 701: {AT}")
    found.write("Transaction", 0, f"ABORT_PREPARED 702: {AT}")
    assert set(found.lost) == {690, 701}
    assert [item.xid for item in found.collector.undecided()] == [703]


@pytest.mark.parametrize(
    ("rmgr", "description"),
    [
        ("Heap", "LOCK off 1: xid 701: flags 0x00 LOCK_ONLY EXCL_LOCK , blkref #0: rel 1663/5/20000 blk 0"),
        ("Heap2", "PRUNE latestRemovedXid 754 nredirected 0 ndead 1, blkref #0: rel 1663/5/20000 blk 2"),
        ("XLOG", "FPI_FOR_HINT , blkref #0: rel 1663/5/20000 blk 4 FPW"),
        ("Btree", "DELETE ndeleted 3, blkref #0: rel 1663/5/20000 blk 1"),
        ("Heap", "UPDATE off 1 xmax 7 flags 0x03 ; new off 14 xmax 0, blkref #0: rel 1663/5/2619 blk 18"),
    ],
)
def test_what_changes_nobodys_data_is_counted_apart(rmgr: str, description: str) -> None:
    found = log().fork().write(rmgr, 701, description).commit(701)
    assert (found.collector.count, found.collector.without_data) == (0, 1)


@pytest.mark.parametrize(
    ("rmgr", "description"),
    [
        ("Heap2", "MULTI_INSERT+INIT 3 tuples flags 0x02, blkref #0: rel 1663/5/20000 blk 0"),
        ("Heap", "HOT_UPDATE off 3 xmax 7 flags 0x20 ; new off 20 xmax 0, blkref #0: rel 1663/5/20000 blk 0"),
        ("Heap", "DELETE off 3 flags 0x00 KEYS_UPDATED , blkref #0: rel 1663/5/20000 blk 0"),
        ("Sequence", "LOG rel 1663/5/20000, blkref #0: rel 1663/5/20000 blk 0"),
        ("Storage", "CREATE base/5/20000"),
        ("custom128", "CHANGE something, blkref #0: rel 1663/5/20000 blk 0"),
    ],
)
def test_what_changes_data(rmgr: str, description: str) -> None:
    assert log().fork().write(rmgr, 701, description).commit(701).lost == {701: (TABLE,)}


def test_a_logical_message_counts_and_its_content_is_not_kept() -> None:
    text = 'transactional, prefix "outbox"; payload (9 bytes): rel 1663/5/20000'
    found = log().fork().write("LogicalMessage", 701, text).commit(701)
    assert found.lost == {701: ()}


def test_a_transaction_that_was_not_seen_whole_counts() -> None:
    """It may have changed anything before our reading began."""
    found = log().fork().commit(650)
    assert found.lost == {650: ()}
    assert Log().fork().commit(650).lost == {650: ()}, "nothing is known about running transactions"


def test_transaction_numbers_wrap_around() -> None:
    found = Log().snapshot((1 << 32) - 2).fork().commit(5)
    assert (found.collector.count, found.collector.without_data) == (0, 1)


def test_files_made_behind_the_fork_are_remembered() -> None:
    found = log().write("Storage", 699, "CREATE base/5/20001").fork()
    found.write("Storage", 701, "CREATE base/5/20002")
    found.write("Storage", 702, "CREATE pg_tblspc/9/PG_15_202209061/5/20003")
    found.write("Storage", 703, "CREATE base/5/20004_fsm").write("Storage", 704, "TRUNCATE base/5/20005 to 0 blocks")
    assert found.collector.created == {(5, 20002), (5, 20003)}
    assert found.commit(702).lost == {702: ((9, 5, 20003),)}


def test_the_list_is_bounded_and_the_count_is_not() -> None:
    found = log(listed=2).fork()
    for xid in range(701, 706):
        found.insert(xid).commit(xid)
    assert (len(found.lost), found.collector.count) == (2, 5)


def test_relations_are_bounded() -> None:
    found = log().fork()
    for number in range(RELATIONS_LISTED + 7):
        found.insert(701, 20000 + number)
    (commit,) = found.commit(701).collector.commits
    assert (len(commit.relations), commit.left_out) == (RELATIONS_LISTED, 7)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dossier_collect, "TRACKED", 3)
    found = log().fork()
    for xid in range(701, 710):
        found.insert(xid)
    for xid in range(701, 710):
        found.commit(xid)
    assert found.collector.count == 9, "beyond the limit they count without their relations"


def test_times_are_a_range_and_odd_ones_are_kept() -> None:
    found = log().fork().insert(701).write("Transaction", 701, "COMMIT 2026-11-22 15:45:01 UTC")
    found.insert(702).write("Transaction", 702, "COMMIT 2026-11-22 15:44:00.5 CET; inval msgs: catcache 1")
    assert found.collector.first_commit_at == "2026-11-22T15:44:00.5 CET"
    assert found.collector.last_commit_at == "2026-11-22T15:45:01Z"
