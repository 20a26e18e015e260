# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact import pgbackrest_wal as wal
from ansible_collections.hms.postgres.plugins.module_utils._artifact.pgbackrest_catalog import NOTE_VERIFICATION
from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import MemberFacts
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._provision.standby_archive import choose, gap, look, obstacle
from ansible_collections.hms.postgres.plugins.module_utils._provision.standby_model import (
    DATA,
    LocalFacts,
    SlotFacts,
    StandbyWish,
    UpstreamFacts,
)
from ansible_collections.hms.postgres.plugins.module_utils._tools.pgbackrest import BackupSet, Generation, Stanza
from ansible_collections.hms.postgres.tests.unit.plugins.repositories import FORK, LAYOUT, archive, backup

MEGABYTE16 = LAYOUT.size


def upstream(*, redo: int = 12, oldest: int = 11, timeline: int = 1, **slots: SlotFacts) -> UpstreamFacts:
    """An upstream whose last checkpoint began in a segment, and that has WAL from another one on."""
    return UpstreamFacts(
        name="db1",
        version_number=150018,
        system_identifier="7391",
        in_recovery=False,
        timeline=timeline,
        slots=slots,
        redo_lsn=redo * MEGABYTE16 + 40,
        oldest_segment=oldest,
    )


@pytest.mark.parametrize(
    ("stored", "there", "reason"),
    [
        (archive(t1=range(3, 12)), upstream(), None),
        (archive(t1=range(3, 20)), upstream(), None),
        # the archiver is behind, and what it hasn't stored is still there
        (archive(t1=range(3, 8)), upstream(oldest=8), None),
        (archive(t1=range(3, 8)), upstream(oldest=9), "wal_missing"),
        # behind a hole only what a slot keeps is certain
        (archive(t1=[3, 4, 5, 6, 7, 10, 11]), upstream(oldest=8), "wal_missing"),
        (archive(t1=[3, 4, 5, 6, 7, 10, 11]), upstream(oldest=8, db2=SlotFacts(False, "reserved", 8 << 24)), None),
        (archive(t1=[3, 4, 5, 6, 7, 10]), upstream(oldest=8, db2=SlotFacts(False, "lost", 8 << 24)), "wal_missing"),
        (archive(t1=[4, 5, 6, 7, 8, 9, 10, 11]), upstream(), "wal_missing"),
        # across a promotion
        (archive({2: FORK}, t1=range(3, 8), t2=range(8, 12)), upstream(timeline=2), None),
        (archive({2: FORK}, t1=range(3, 8), t2=range(9, 12)), upstream(timeline=2), "wal_missing"),
        (archive({2: FORK}, t1=range(3, 8)), upstream(timeline=2, oldest=8), None),
        (archive({2: FORK}, t1=range(3, 7)), upstream(timeline=2, oldest=8), "wal_missing"),
        (archive(t1=range(3, 8), t2=range(8, 12)), upstream(timeline=2), "not_an_ancestor"),
        (archive({2: "1\t0/3000100\tx\n"}, t1=range(3, 8), t2=range(3, 12)), upstream(timeline=2), "not_an_ancestor"),
        # somebody else was promoted and archived
        (archive({2: FORK}, t1=range(3, 12), t2=range(8, 12)), upstream(), "foreign_timeline"),
    ],
)
def test_whether_recovery_meets_the_upstream(stored: wal.Archive, there: UpstreamFacts, reason: str | None) -> None:
    found = obstacle(backup("F", 3, 4), stored, there, slot="db2")
    assert (found.reason if found else None) == reason
    assert found is None or (found.next_step and found.state == "Nothing was touched.")


def test_a_cluster_that_never_had_an_older_timeline_needs_no_history() -> None:
    point = backup("F", 3, 4, timeline=5)
    assert obstacle(point, archive(t5=range(3, 12)), upstream(timeline=5), slot="db2") is None


def stanza(*backups: BackupSet, system_identifier: str = "7391") -> Stanza:
    generation = Generation(1, "15-1", "", "", system_identifier, "15")
    return Stanza("hospital", 0, "ok", "none", False, backups, (generation,))


def chosen(found: Stanza, stored: wal.Archive | None = None) -> t.Any:
    whole = archive(t1=range(1, 12))
    return choose(found, upstream(), lambda _id, _since: stored or whole, slot="db2", place="there")


def failed(label: str, first: int, last: int) -> BackupSet:
    note = {"level": "read", "ok": False, "at": "", "seconds": 1.0, "problems": ["a bit"], "partial": ""}
    return backup(label, first, last, annotations={NOTE_VERIFICATION: json.dumps(note)})


def test_the_newest_backup_is_taken() -> None:
    made = chosen(stanza(backup("F", 1, 2), backup("I", 5, 6, type="incr")))
    assert (made.label, made.type, made.bytes, made.fetch_bytes, made.notes) == ("I", "incremental", 100, 20, ())
    assert "0.00 GB to fetch" in made.describe()


@pytest.mark.parametrize(
    ("newer", "why"),
    [
        (backup("N", 7, 8, error=True), "wrong checksums"),
        (failed("N", 7, 8), "a bit"),
        (backup("N", 7, 8, lsn_stop=""), "which WAL"),
        (backup("N", 12, 13), "WAL is missing"),
    ],
)
def test_one_that_is_of_no_use_is_passed_over_and_said(newer: BackupSet, why: str) -> None:
    made = chosen(stanza(backup("F", 3, 4), newer))
    assert made.label == "F"
    assert why in made.notes[0]
    with pytest.raises(Refused, match=why):
        chosen(stanza(newer))


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (stanza(), "no_backup"),
        (stanza(backup("F", 3, 4), system_identifier="1"), "foreign_stanza"),
        (stanza(backup("F", 3, 4, database_id=2)), "no_backup"),
    ],
)
def test_a_repository_without_a_backup_of_this_cluster(found: Stanza, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        chosen(found)
    assert caught.value.reason == reason


def test_the_reason_of_the_newest_is_told_when_none_will_do() -> None:
    with pytest.raises(Refused, match=r"pages of the data directory.* No older backup") as caught:
        chosen(stanza(backup("F", 3, 4), backup("N", 7, 8, error=True)), archive(t1=[9]))
    assert caught.value.reason == "bad_backup"


def standby(segment: int) -> LocalFacts:
    return LocalFacts(member=MemberFacts("db2", lsn=segment * MEGABYTE16 + 5000, timeline=1), content=DATA)


@pytest.mark.parametrize(
    ("segment", "stored", "expected"),
    [
        (4, archive(t1=range(3, 12)), ""),
        (4, archive(t1=[3, 4, 5, 9]), "WAL is missing after the position of db2"),
        (4, archive(t1=range(5, 12)), "WAL is missing after the position of db2"),
        (11, archive(), ""),  # the upstream has it itself
    ],
)
def test_whether_a_standby_can_catch_up(segment: int, stored: wal.Archive, expected: str) -> None:
    found = gap(stanza(), upstream(), standby(segment), lambda _id, _since: stored, slot="db2")
    assert found.startswith(expected)
    assert bool(found) == bool(expected)


def test_an_archive_of_another_cluster_is_of_no_help() -> None:
    other = stanza(system_identifier="1")
    assert "another cluster" in gap(other, upstream(), standby(4), lambda _id, _since: archive(), slot="db2")


class Repository:
    """What `look` asks."""

    place = "there"

    def __init__(self, found: Stanza | HmsError, tablespaces: t.Sequence[str] = ()) -> None:
        self.found = found
        self._tablespaces = list(tablespaces)

    def info(self) -> Stanza:
        if isinstance(self.found, HmsError):
            raise self.found
        return self.found

    def repo_ls(self, path: str) -> list[t.Any]:
        assert path == "archive/hospital/15-1"
        return []

    def tablespaces(self, label: str) -> list[str]:
        assert label
        return self._tablespaces


WISH = StandbyWish("db2", "db1", 15, "/data", "db2", "host='db1'")


def seen(repository: Repository, *, copy: bool = True, catching_up: bool = True) -> t.Any:
    return look(t.cast("t.Any", repository), WISH, standby(4), upstream(), for_copy=copy, for_catching_up=catching_up)


def test_what_speaks_against_the_repository_is_kept() -> None:
    found = seen(Repository(HmsError("it is gone", reason="repository_unreadable")))
    assert (found.backup, found.gap, found.refusal.reason) == (None, "it is gone", "repository_unreadable")
    assert seen(Repository(stanza()), copy=False).gap
    assert seen(Repository(stanza()), catching_up=False).refusal.reason == "no_backup"
    assert seen(Repository(stanza()), copy=False, catching_up=False) == type(found)()


def test_a_backup_with_tablespaces_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal, "read_archive", lambda *_args, **_options: archive(t1=range(1, 12)))
    made = stanza(backup("F", 3, 4))
    assert seen(Repository(made)).backup.label == "F"
    assert seen(Repository(made, ["fast"])).refusal.reason == "tablespaces"
