# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pg_waldump: what a write-ahead log holds, read record by record. PRIVATE to the collection.

The program's text output is streamed, so that gigabytes of WAL cost no memory. Reading stops at the first
record that isn't whole, which is how every log of a crashed server ends; `Reading.end` tells how it ended.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
import threading
import typing as t

from .._command import clean_environment, find_program, identity
from .._errors import DeadlinePassed, HmsError, ToolFailed, defect
from .._postgres import format_lsn, parse_lsn

PAGE_SIZE = 8192
_SHORT_HEADER = 24
_LONG_HEADER = 40

_PREFIX = b"rmgr: "
_MISSING = re.compile(r'could not find file "([0-9A-F]{24})"')
_STOPPED = re.compile(r"error in WAL record at ([0-9A-F]+/[0-9A-F]+): (.*)")
_NOTHING = "could not find a valid record after"
_NO_FILES = "could not find any WAL file"
_EMPTY = "header specifies 0 bytes"
_SEGMENT = re.compile(r"[0-9A-F]{24}")


class WalRecord(t.NamedTuple):
    """One record of the log."""

    rmgr: str
    xid: int
    lsn: int
    length: int
    """Bytes of the whole record, before alignment."""
    description: str

    def end(self, segment_size: int) -> int:
        """The position after this record, where the next one begins."""
        return record_end(self.lsn, self.length, segment_size)


def record_end(lsn: int, length: int, segment_size: int) -> int:
    """Where a record of `length` bytes that begins at `lsn` ends: page headers counted in, aligned to 8."""
    left = length
    position = lsn
    room = PAGE_SIZE - position % PAGE_SIZE
    while left > room:
        left -= room
        position += room
        header = _SHORT_HEADER if position % segment_size else _LONG_HEADER
        position += header
        room = PAGE_SIZE - header
    return position + -(-left // 8) * 8


class WalEnd(t.NamedTuple):
    """How the reading of a log ended.

    ``range_end``: everything asked for was there. ``end_of_wal``: the first record that isn't whole was met.
    ``missing_segment``: a file isn't there. ``nothing``: there is no record at or after the start.
    """

    kind: t.Literal["range_end", "end_of_wal", "missing_segment", "nothing"]
    last_lsn: int | None
    """The last whole record that was read."""
    detail: str = ""
    segment: str = ""
    """The file that is missing; empty where there is none at all."""


def parse_record(line: bytes) -> WalRecord | None:
    """A line of output as a record; None for anything else the program prints."""
    if not line.startswith(_PREFIX):
        return None
    head, separator, description = line.partition(b", desc: ")
    if not separator:
        return None
    try:
        name_and_length, xid, lsn = head.split(b",")[:3]
        name, _colon, length = name_and_length[len(_PREFIX) :].partition(b" len (rec/tot):")
        return WalRecord(
            rmgr=name.strip().decode("utf-8", "replace"),
            xid=int(xid.split(b":")[1]),
            lsn=parse_lsn(lsn.split(b":")[1].strip().decode("ascii")),
            length=int(length.rpartition(b"/")[2]),
            description=description.rstrip(b"\n").decode("utf-8", "replace"),
        )
    except (ValueError, IndexError):
        return None


def classify_end(rc: int, stderr: str, last_lsn: int | None) -> WalEnd | None:
    """What the program's exit means for the reader; None when it is a failure of the program itself."""
    if rc == 0:
        return WalEnd("range_end" if last_lsn is not None else "nothing", last_lsn)
    missing = _MISSING.search(stderr)
    if missing:
        return WalEnd("missing_segment", last_lsn, stderr.strip()[-500:], missing.group(1))
    if _NO_FILES in stderr:
        return WalEnd("missing_segment", None, stderr.strip()[-500:])
    stopped = _STOPPED.search(stderr)
    if stopped:
        return WalEnd("end_of_wal", last_lsn, stopped.group(2).strip()[-500:])
    if _NOTHING in stderr:
        return WalEnd("nothing", None, stderr.strip()[-500:])
    return None


class LineSource(t.Protocol):
    """A running program whose output is read line by line."""

    def __iter__(self) -> t.Iterator[bytes]:
        """The lines, newline included."""

    def finish(self) -> tuple[int, str]:
        """End it and return its exit code and the end of its standard error. Called once, also after a break."""


class ProgramLines:
    """`LineSource` over a real program: bounded in time, ended when the reader stops early."""

    def __init__(self, argv: t.Sequence[str], *, timeout: float, os_user: str | None) -> None:
        self._timeout = timeout
        self._argv = tuple(argv)
        self._late = False
        with contextlib.ExitStack() as stack:
            self._stderr = stack.enter_context(tempfile.TemporaryFile())
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                bufsize=1 << 20,
                env=clean_environment(),
                cwd="/",
                start_new_session=True,
                **identity(os_user),
            )
            self._stack = stack.pop_all()
        self._timer = threading.Timer(timeout, self._expire)
        self._timer.daemon = True
        self._timer.start()

    def _expire(self) -> None:
        self._late = True
        self._process.kill()

    def __iter__(self) -> t.Iterator[bytes]:
        if self._process.stdout is None:
            raise defect("stdout")
        return iter(self._process.stdout)

    def finish(self) -> tuple[int, str]:
        if self._process.stdout is None:
            raise defect("stdout")
        self._process.stdout.close()  # a program that still writes ends by SIGPIPE
        try:
            rc = self._process.wait()
        finally:
            self._timer.cancel()
        with self._stack:
            size = self._stderr.seek(0, os.SEEK_END)
            self._stderr.seek(max(0, size - 4096))
            stderr = self._stderr.read().decode("utf-8", "replace")
        if self._late:
            raise DeadlinePassed(
                f"{os.path.basename(self._argv[0])} did not end within {self._timeout:g} seconds and was ended.",
                reason="deadline_passed",
                details={"argv": list(self._argv), "stderr_tail": stderr},
            )
        return rc, stderr


class Reading:
    """Iterates over records; afterwards `end` tells how the log ended."""

    def __init__(self, lines: LineSource, argv: t.Sequence[str], *, missing: str = "") -> None:
        """`missing` is the file that isn't there where the program, told to stop before it, would end well."""
        self._lines = lines
        self._argv = list(argv)
        self._missing = missing
        self._end: WalEnd | None = None

    @property
    def end(self) -> WalEnd:
        """How it ended; known once the iteration is over."""
        if self._end is None:
            raise defect("end")
        return self._end

    def __iter__(self) -> t.Iterator[WalRecord]:
        last: int | None = None
        finished = False
        try:
            for line in self._lines:
                record = parse_record(line)
                if record is not None:
                    last = record.lsn
                    yield record
            finished = True
        finally:
            rc, stderr = self._lines.finish()
            if finished:
                self._conclude(rc, stderr, last)

    def _conclude(self, rc: int, stderr: str, last: int | None) -> None:
        self._end = classify_end(rc, stderr, last)
        if self._missing and (rc == 0 or _EMPTY in stderr):
            self._end = WalEnd("missing_segment", last, stderr.strip()[-500:], self._missing)
        elif self._end is None and _EMPTY in stderr:  # the first file was made for what was to come, and never written
            self._end = WalEnd("nothing", None, stderr.strip()[-500:])
        if self._end is None:
            tail = stderr.strip()
            raise ToolFailed(
                f"Reading the write-ahead log failed: pg_waldump ended with {rc}: {tail}",
                reason="tool_failed",
                state="Nothing was changed.",
                details={"argv": self._argv, "rc": rc, "stderr_tail": tail},
            )


OpenLines = t.Callable[..., LineSource]


class PgWaldump:
    """The program, for one version's binaries.

    Args:
        bin_directory: where this version's programs are.
        os_user: who owns the WAL.
        open_lines: starts the program; replaced in tests.
    """

    def __init__(self, *, bin_directory: str, os_user: str | None = None, open_lines: OpenLines = ProgramLines) -> None:
        self._program = find_program("pg_waldump", directory=bin_directory, needed_for="reading the write-ahead log")
        self._os_user = os_user
        self._open_lines = open_lines

    def records(
        self,
        wal_directory: str,
        *,
        start_lsn: int,
        timeline: int,
        end_lsn: int | None = None,
        rmgrs: t.Sequence[str] = (),
        limit: int | None = None,
        timeout: float = 600.0,
    ) -> Reading:
        """Stream the records of one timeline that begin in ``[start_lsn, end_lsn)``.

        `rmgrs` keeps only records of these resource managers (PostgreSQL 15 and newer take more than one);
        `limit` stops after so many of them.
        """
        argv = [self._program, "--path", wal_directory, "--timeline", str(timeline), "--start", format_lsn(start_lsn)]
        files, missing = _files_to_name(wal_directory, timeline, start_lsn, end_lsn)
        if end_lsn is not None and not missing:
            argv += ["--end", format_lsn(end_lsn)]
        if limit is not None:
            argv += ["--limit", str(limit)]
        for rmgr in rmgrs:
            argv += ["--rmgr", rmgr]
        argv += files
        lines = self._open_lines(argv, timeout=timeout, os_user=self._os_user)
        return Reading(lines, argv, missing=missing if limit is None or not files else "")

    def first_at_or_after(
        self, wal_directory: str, lsn: int, *, timeline: int, timeout: float = 60.0
    ) -> WalRecord | None:
        """The first whole record that begins at `lsn` or later; None where the log ends there.

        Raises `HmsError` (``wal_missing``) when the file that would hold `lsn` isn't there.
        """
        reading = self.records(wal_directory, start_lsn=lsn, timeline=timeline, limit=1, timeout=timeout)
        found = list(reading)
        if found:
            return found[0]
        if reading.end.kind == "missing_segment":
            raise missing_segment(reading.end.segment, wal_directory)
        return None

    def record_at(self, wal_directory: str, lsn: int, *, timeline: int, timeout: float = 60.0) -> WalRecord | None:
        """The record that begins exactly at `lsn`, or None. Raises like `first_at_or_after`."""
        found = self.first_at_or_after(wal_directory, lsn, timeline=timeline, timeout=timeout)
        return found if found is not None and found.lsn == lsn else None


def _files_to_name(wal_directory: str, timeline: int, start: int, end: int | None) -> tuple[list[str], str]:
    """The first and the last file to be read, where the program has to be told; and the one after it that is missing.

    Not told, it learns the segments' size from whichever file comes first, and fails when that one is empty: made by
    the server for what was to come. Told, it ends well after the last file.
    """
    names = _segments(wal_directory)
    if not any(_is_empty(os.path.join(wal_directory, name)) for name in names):
        return [], ""
    size = os.path.getsize(os.path.join(wal_directory, names[0]))
    first = segment_name(timeline, start, size)
    if first not in names:
        return [], first
    wanted = None if end is None else segment_name(timeline, max(start, end - 1), size)
    last = position = start - start % size
    while segment_name(timeline, position, size) in names and segment_name(timeline, last, size) != wanted:
        last = position
        position += size
    name = segment_name(timeline, last, size)
    return [first, name], "" if name == wanted else segment_name(timeline, last + size, size)


def _segments(wal_directory: str) -> list[str]:
    """The WAL files in a folder; none where it can't be read: pg_waldump will say what is wrong there."""
    try:
        return sorted(name for name in os.listdir(wal_directory) if _SEGMENT.fullmatch(name))
    except OSError:
        return []


def _is_empty(path: str) -> bool:
    with open(path, "rb") as segment:
        return segment.read(2) == b"\0\0"


def missing_segment(segment: str, wal_directory: str) -> HmsError:
    """The error for a WAL file that is needed and isn't there."""
    return HmsError(
        f"The WAL file {segment} is not in {wal_directory}." if segment else f"There is no WAL in {wal_directory}.",
        reason="wal_missing",
        state="Nothing was changed.",
        next_step="Bring it back from the WAL archive into that folder if there is one.",
        details={"segment": segment, "directory": wal_directory},
    )


def segment_name(timeline: int, lsn: int, segment_size: int) -> str:
    """The WAL file that holds `lsn` on `timeline`."""
    number = lsn // segment_size
    per_file_id = (1 << 32) // segment_size
    return f"{timeline:08X}{number // per_file_id:08X}{number % per_file_id:08X}"


def segment_start(name: str, segment_size: int) -> int:
    """The position at which a WAL file begins; the inverse of `segment_name`."""
    per_file_id = (1 << 32) // segment_size
    return (int(name[8:16], 16) * per_file_id + int(name[16:24], 16)) * segment_size
