# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, ToolFailed
from ansible_collections.hms.postgres.plugins.module_utils._tools import pg_waldump
from ansible_collections.hms.postgres.plugins.module_utils._tools.pg_waldump import (
    PgWaldump,
    WalRecord,
    classify_end,
    parse_record,
    record_end,
    segment_name,
    segment_start,
)

MB = 1 << 20
INSERT = (
    b"rmgr: Heap        len (rec/tot):     54/   150, tx:        745, lsn: 0/0301A2B8, prev 0/0301A278, "
    b"desc: INSERT off 3 flags 0x00, blkref #0: rel 1663/16384/16385 blk 0 FPW\n"
)
COMMIT = (
    b"rmgr: Transaction len (rec/tot):     34/    34, tx:        745, lsn: 0/0301A350, prev 0/0301A2B8, "
    b"desc: COMMIT 2026-11-22 15:45:00.123456 UTC\n"
)
END = "pg_waldump: error: error in WAL record at 0/301A350: invalid record length at 0/301A378: wanted 24, got 0\n"
GONE = 'pg_waldump: error: could not find file "000000010000000000000005": No such file or directory\n'
NOTHING = "pg_waldump: error: could not find a valid record after 0/3000000\n"


class Script:
    """A scripted program; remembers how it was called."""

    def __init__(self, lines: t.Sequence[bytes], rc: int = 0, stderr: str = "") -> None:
        self.lines = list(lines)
        self.rc, self.stderr = rc, stderr
        self.finished = 0
        self.argv: list[str] = []

    def __call__(self, argv: t.Sequence[str], *, timeout: float, os_user: str | None) -> Script:
        assert timeout > 0
        assert os_user == "postgres"
        self.argv = list(argv)
        return self

    def __iter__(self) -> t.Iterator[bytes]:
        return iter(self.lines)

    def finish(self) -> tuple[int, str]:
        self.finished += 1
        return self.rc, self.stderr


@pytest.fixture(autouse=True)
def program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pg_waldump, "find_program", lambda name, **_more: "/bin/" + name)


def tool(script: Script) -> PgWaldump:
    return PgWaldump(bin_directory="/bin", os_user="postgres", open_lines=script)


def test_parse_record() -> None:
    description = "INSERT off 3 flags 0x00, blkref #0: rel 1663/16384/16385 blk 0 FPW"
    assert parse_record(INSERT) == WalRecord("Heap", 745, 0x301A2B8, 150, description)
    skipped = b"first record is after 0/3, at 0/28, skipping over 39 bytes\n"
    for line in (b"", skipped, b"rmgr: x", b"rmgr: a, b, desc: c"):
        assert parse_record(line) is None


@pytest.mark.parametrize(
    ("lsn", "length", "end"),
    [
        (0x301A350, 34, 0x301A378),
        (0x1FE8, 24, 0x2000),  # ends with the page
        (0x1FE8, 25, 0x2020),  # a page header of 24 in between, one byte and its alignment
        (16 * MB - 24, 32, 16 * MB + 40 + 8),  # a file's first page has a longer header
        (0x1FE8, 24 + 8168 + 8, 0x4000 + 24 + 8),
    ],
)
def test_record_end(lsn: int, length: int, end: int) -> None:
    assert record_end(lsn, length, 16 * MB) == end
    assert WalRecord("x", 0, lsn, length, "").end(16 * MB) == end


@pytest.mark.parametrize(
    ("timeline", "lsn", "name"),
    [(1, 0x3000028, "000000010000000000000003"), (26, 1 << 32, "0000001A0000000100000000")],
)
def test_segments(timeline: int, lsn: int, name: str) -> None:
    assert segment_name(timeline, lsn, 16 * MB) == name
    assert segment_start(name, 16 * MB) == lsn // (16 * MB) * 16 * MB


@pytest.mark.parametrize(
    ("rc", "stderr", "kind"),
    [
        (0, "", "range_end"),
        (1, END, "end_of_wal"),
        (1, GONE, "missing_segment"),
        (1, NOTHING, "nothing"),
        (1, "pg_waldump: error: could not find any WAL file\n", "missing_segment"),
        (1, "pg_waldump: error: invalid option\n", None),
    ],
)
def test_classify_end(rc: int, stderr: str, kind: str | None) -> None:
    end = classify_end(rc, stderr, 7)
    assert (end and end.kind) == kind


def test_argv_and_reading() -> None:
    script = Script([INSERT, b"noise\n", COMMIT], 1, END)
    reading = tool(script).records(
        "/wal", start_lsn=0x3000028, timeline=2, end_lsn=0x4000000, rmgrs=("Heap", "XLOG"), limit=5
    )
    assert [record.rmgr for record in reading] == ["Heap", "Transaction"]
    assert (reading.end.kind, reading.end.last_lsn) == ("end_of_wal", 0x301A350)
    assert script.argv == [
        "/bin/pg_waldump", "--path", "/wal", "--timeline", "2", "--start", "0/3000028", "--end", "0/4000000",
        "--limit", "5", "--rmgr", "Heap", "--rmgr", "XLOG",
    ]  # fmt: skip
    assert script.finished == 1


EMPTY = 'pg_waldump: error: WAL segment size must be a power of two, but the WAL file "0" header specifies 0 bytes\n'
SEGMENT = 16 << 20


def wal_folder(folder: pathlib.Path, **written: bool) -> str:
    """Segments of timeline 2 by their number; some were never written to."""
    for number, full in written.items():
        with (folder / f"0000000200000000{int(number[1:]):08X}").open("wb") as segment:
            segment.write(b"\x10\xd1" if full else b"")
            segment.truncate(SEGMENT)
    return str(folder)


def test_with_an_empty_file_the_files_are_named(tmp_path: pathlib.Path) -> None:
    """Else the program looks at any file to learn the segments' size."""
    wal = wal_folder(tmp_path, n3=True, n4=True, n5=False, n9=True)
    script = Script([COMMIT], 1, END)
    list(tool(script).records(wal, start_lsn=0x3000028, timeline=2))
    assert script.argv[-2:] == ["000000020000000000000003", "000000020000000000000005"]
    list(tool(script).records(wal, start_lsn=0x3000028, timeline=2, end_lsn=0x4000028))
    assert script.argv[-4:] == ["--end", "0/4000028", "000000020000000000000003", "000000020000000000000004"]
    list(tool(script).records(wal, start_lsn=0x3000028, timeline=2, end_lsn=0x4000000))
    assert script.argv[-2:] == ["000000020000000000000003", "000000020000000000000003"]


def test_without_an_empty_file_nothing_is_named(tmp_path: pathlib.Path) -> None:
    script = Script([COMMIT], 1, END)
    list(tool(script).records(wal_folder(tmp_path, n3=True), start_lsn=0x3000028, timeline=2))
    assert script.argv[-1] == "0/3000028"


def test_what_is_missing_is_said_although_the_program_ended_well(tmp_path: pathlib.Path) -> None:
    wal = wal_folder(tmp_path, n3=True, n4=False)
    reading = tool(Script([COMMIT], 0)).records(wal, start_lsn=0x3000028, timeline=2, end_lsn=0x6000028)
    list(reading)
    assert (reading.end.kind, reading.end.segment) == ("missing_segment", "000000020000000000000005")


def test_a_log_that_ends_with_its_segment(tmp_path: pathlib.Path) -> None:
    wal = wal_folder(tmp_path, n3=False)
    assert tool(Script([], 1, EMPTY)).first_at_or_after(wal, 0x3000000, timeline=2) is None
    with pytest.raises(HmsError, match="000000020000000000000002 is not in"):
        tool(Script([], 1, EMPTY)).first_at_or_after(wal, 0x2000000, timeline=2)


def test_a_reader_that_stops_early_ends_the_program() -> None:
    script = Script([INSERT, COMMIT], -13)
    for _record in tool(script).records("/wal", start_lsn=0, timeline=1):
        break
    assert script.finished == 1


def test_a_program_that_fails_is_an_error() -> None:
    with pytest.raises(ToolFailed, match="invalid option"):
        list(tool(Script([], 1, "pg_waldump: error: invalid option\n")).records("/wal", start_lsn=0, timeline=1))


def test_record_at() -> None:
    found = tool(Script([COMMIT])).record_at("/wal", 0x301A350, timeline=1)
    assert found is not None
    assert found.description.startswith("COMMIT")
    assert tool(Script([COMMIT])).record_at("/wal", 0x301A348, timeline=1) is None
    assert tool(Script([], 1, NOTHING)).record_at("/wal", 0x3000000, timeline=1) is None
    with pytest.raises(HmsError) as caught:
        tool(Script([], 1, GONE)).record_at("/wal", 0x5000000, timeline=1)
    assert caught.value.reason == "wal_missing"
    assert caught.value.details["segment"] == "000000010000000000000005"
