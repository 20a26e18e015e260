# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact import pgbackrest_wal as wal
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._tools.pgbackrest import Listed
from ansible_collections.hms.postgres.tests.unit.plugins.repositories import FORK, LAYOUT, archive, backup


def holes(found: wal.Continuity) -> list[tuple[int, int, int]]:
    """Each as timeline, first and last number."""
    return [(hole.timeline, LAYOUT.number(hole.first), LAYOUT.number(hole.last)) for hole in found.holes]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (range(1, 10), []),
        (range(3, 10), []),  # what is older than the oldest backup is of no account
        ([3, 4, 6, 7], [(1, 5, 5)]),
        ([4, 5], [(1, 3, 3)]),
        ([3, 4, 8, 9, 12], [(1, 5, 7), (1, 10, 11)]),
    ],
)
def test_holes_on_one_timeline(numbers: t.Iterable[int], expected: list[tuple[int, int, int]]) -> None:
    assert holes(wal.judge(archive(t1=numbers), [backup("F", 3, 4)], layout=LAYOUT)) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (range(3, 8), range(8, 12), []),  # the segment of the switch is the later timeline's
        (range(3, 12), range(8, 12), []),  # what the old primary wrote after it is no way to anywhere
        ([3, 4, 5, 7], range(8, 12), [(1, 6, 6)]),
        (range(3, 7), range(8, 12), [(1, 7, 7)]),
        (range(3, 8), range(9, 12), [(2, 8, 8)]),
        (range(3, 8), [8, 10], [(2, 9, 9)]),
    ],
)
def test_holes_across_a_switch(
    before: t.Iterable[int], after: t.Iterable[int], expected: list[tuple[int, int, int]]
) -> None:
    found = wal.judge(archive({2: FORK}, t1=before, t2=after), [backup("F", 3, 4)], layout=LAYOUT)
    assert holes(found) == expected
    assert found.problems == ()


def test_two_switches_inside_one_segment() -> None:
    histories = {2: FORK, 3: FORK + "2\t0/8000200\tagain\n"}
    made = archive(histories, t1=range(3, 8), t3=range(8, 10))
    assert holes(wal.judge(made, [backup("F", 3, 4)], layout=LAYOUT)) == []


def test_a_missing_history_is_told() -> None:
    found = wal.judge(archive(t1=range(3, 8), t2=range(8, 12)), [backup("F", 3, 4)], layout=LAYOUT)
    assert found.problems == ("00000002.history is not in the archive: recovery from F can't reach timeline 2",)


def test_a_backup_on_a_branch_that_was_left_is_no_fault() -> None:
    made = archive({2: FORK}, t1=range(3, 12), t2=range(8, 12))
    found = wal.judge(made, [backup("F", 3, 4), backup("left", 9, 10)], layout=LAYOUT)
    assert (holes(found), found.problems, found.incomplete) == ([], (), {})
    assert [window.label for window in found.windows] == ["F"]


def test_a_backup_without_wal_of_its_own_is_named() -> None:
    found = wal.judge(archive(t1=[3, 4, 6]), [backup("F", 3, 4), backup("G", 5, 6)], layout=LAYOUT)
    assert list(found.incomplete) == ["G"]
    assert LAYOUT.name(1, 5) in found.incomplete["G"]


def test_windows_end_at_holes_and_begin_again_after_them() -> None:
    backups = [backup("F", 3, 4), backup("in it", 5, 5), backup("G", 9, 10)]
    found = wal.judge(archive(t1=[3, 4, 5, 6, 8, 9, 10, 11]), backups, layout=LAYOUT)
    assert [(window.label, LAYOUT.number(window.last), window.end) for window in found.windows] == [
        ("F", 6, None),
        ("G", 11, 5000),
    ]


def test_nothing_is_judged_without_backups() -> None:
    assert wal.judge(archive(t1=[1, 5]), [], layout=LAYOUT) == wal.Continuity()


def test_a_hole_is_described() -> None:
    assert "WAL segment A is" in wal.Hole(1, "A", "A", 1).describe()
    assert "3 WAL segments from A to C" in wal.Hole(1, "A", "C", 3).describe()


class Repository:
    """Folders of an archive, in memory."""

    def __init__(self, folders: t.Mapping[str, t.Sequence[Listed]]) -> None:
        self.folders = folders
        self.listed: list[str] = []

    def repo_ls(self, path: str) -> list[Listed]:
        self.listed.append(path)
        return list(self.folders.get(path, ()))

    def repo_get(self, path: str) -> str:
        return f"text of {path}"


def segment(number: int, *, digit: str = "a", size: int = 9, name: str = "") -> Listed:
    """A stored segment."""
    return Listed(f"{name or LAYOUT.name(1, number)}-{digit * 40}.zst", False, size, number)


def test_an_archive_is_read_folder_by_folder() -> None:
    folders = ["0000000100000000", "0000000100000001", "0000000200000001"]
    repository = Repository(
        {
            "archive": [*(Listed(name, True, 0, 0) for name in folders), Listed("00000002.history", False, 1, 1)],
            "archive/0000000100000001": [
                segment(256),
                segment(256, digit="b"),
                segment(257),
                Listed("000000010000000100000001.00000028.backup", False, 1, 1),
                segment(258, size=0),
                segment(259),
                Listed(f"{LAYOUT.name(1, 260)}.partial-{'a' * 40}.zst", False, 1, 1),
            ],
        }
    )
    found = wal.read_archive(
        repository, "archive", layout=LAYOUT, since=LAYOUT.name(1, 256), damaged={LAYOUT.name(1, 259)}
    )
    assert found.runs == {1: (wal.Run(256, 257),)}
    assert found.histories == {2: "text of archive/00000002.history"}
    assert found.newest == {1: 257}
    assert len(found.flaws) == 2
    assert "archive/0000000100000000" not in repository.listed, "it is older than the oldest backup"
    assert "archive/0000000200000001" in repository.listed


def test_names_and_numbers() -> None:
    small = wal.check_size(1 << 20)
    assert small.number(small.name(3, 5000)) == 5000
    assert LAYOUT.name(1, 256) == "000000010000000100000000"
    for size in (0, 3 << 20, 1 << 31):
        with pytest.raises(HmsError, match="no size"):
            wal.check_size(size)


def test_damaged_segments_are_found_in_a_log() -> None:
    path = f"15-1/0000000100000000/{LAYOUT.name(1, 3)}-{'a' * 40}.zst"
    assert wal.damaged_segments([path, "20261122-195015F/pg_data/global/4182.zst"]) == {LAYOUT.name(1, 3)}
