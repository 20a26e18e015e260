# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The write-ahead log of a stopped server as files: which are there, where it ends. PRIVATE."""

from __future__ import annotations

import dataclasses
import os
import re
import struct

from .._postgres import format_lsn, parse_lsn
from .._tools.pg_controldata import ControlData
from .._tools.pg_waldump import PgWaldump, WalEnd, WalRecord, segment_name, segment_start
from .._tools.wal_files import newest_timeline
from .rejoin_history import Fork, History

SEGMENT = re.compile(r"^[0-9A-F]{24}$")
_REDO = re.compile(r"redo ([0-9A-F]+/[0-9A-F]+)")
CHECKPOINTS = ("CHECKPOINT_SHUTDOWN", "CHECKPOINT_ONLINE")


@dataclasses.dataclass(frozen=True)
class Wal:
    """The log in a data directory whose server doesn't run."""

    data_directory: str
    control: ControlData
    history: History
    tool: PgWaldump

    @property
    def directory(self) -> str:
        """pg_wal."""
        return os.path.join(self.data_directory, "pg_wal")

    @property
    def timeline(self) -> int:
        """The newest one that this server has lived on."""
        return self.history[-1].timeline

    @property
    def segment_size(self) -> int:
        """Bytes of a WAL file."""
        return self.control.wal_segment_size

    def segments(self) -> tuple[str, ...]:
        """The names of all WAL files here, files kept for later use included."""
        return tuple(sorted(name for name in os.listdir(self.directory) if SEGMENT.match(name)))

    def segment_holding(self, lsn: int, *, at_most: int) -> str | None:
        """The file that holds `lsn` in this server's history, no later than timeline `at_most`; None when it's gone."""
        for stretch in reversed(self.history):
            if stretch.timeline > at_most or stretch.begin // self.segment_size > lsn // self.segment_size:
                continue
            name = segment_name(stretch.timeline, lsn, self.segment_size)
            if os.path.exists(os.path.join(self.directory, name)):
                return name
        return None

    def end_of(self, record: WalRecord) -> int:
        """Where a record ends."""
        return record.end(self.segment_size)


def own_timeline(data_directory: str, control: ControlData) -> int:
    """The newest timeline that a stopped server has lived on; its control file learns of one late."""
    return max(control.timeline, control.min_recovery_timeline, newest_timeline(data_directory))


@dataclasses.dataclass(frozen=True)
class CommonCheckpoint:
    """The last checkpoint before the fork: from here a rewind reads the old log."""

    lsn: int
    redo_lsn: int


def common_checkpoint(wal: Wal, fork: Fork, *, timeout: float = 300.0) -> CommonCheckpoint | None:
    """Find it, newest segment first; None when the log doesn't reach back to it any more."""
    control = wal.control
    if control.checkpoint_lsn < fork.lsn and control.timeline <= fork.timeline:
        name = wal.segment_holding(control.checkpoint_lsn, at_most=fork.timeline)
        return None if name is None else CommonCheckpoint(control.checkpoint_lsn, control.redo_lsn)
    position = fork.lsn - 1
    while position > 0:
        name = wal.segment_holding(position, at_most=fork.timeline)
        if name is None:
            return None
        found = _last_checkpoint_in(wal, name, before=position + 1, timeout=timeout)
        if found is not None:
            return found
        position = segment_start(name, wal.segment_size) - 1
    return None


def _last_checkpoint_in(wal: Wal, segment: str, *, before: int, timeout: float) -> CommonCheckpoint | None:
    begin = segment_start(segment, wal.segment_size)
    found: CommonCheckpoint | None = None
    reading = wal.tool.records(
        wal.directory,
        start_lsn=begin,
        end_lsn=before,
        timeline=int(segment[:8], 16),
        rmgrs=("XLOG",),
        timeout=timeout,
    )
    for record in reading:
        if record.lsn >= before or not record.description.startswith(CHECKPOINTS):
            continue
        redo = _REDO.search(record.description)
        found = CommonCheckpoint(record.lsn, parse_lsn(redo[1]) if redo else record.lsn)
    return found


def goes_on_behind(wal: Wal, timeline: int, lsn: int) -> bool:
    """Whether the file after the one that holds `lsn` was written in this life of the log.

    Files for later use keep the address of their earlier life, so a page that bears its own address was
    really written. If whole records follow there, a log that stops at `lsn` doesn't end there: it is damaged.
    """
    following = (lsn // wal.segment_size + 1) * wal.segment_size
    path = os.path.join(wal.directory, segment_name(timeline, following, wal.segment_size))
    try:
        with open(path, "rb") as source:
            head = source.read(16)
    except FileNotFoundError:
        return False
    if len(head) < 16:
        return False
    _magic, _info, page_timeline, address = struct.unpack("<HHIQ", head)
    if (page_timeline, address) != (timeline, following):
        return False
    # The torn last record may itself reach into this file, so only a whole record is proof.
    return wal.tool.first_at_or_after(wal.directory, following, timeline=timeline) is not None


def why_incomplete(wal: Wal, timeline: int, end: WalEnd, end_lsn: int) -> str:
    """Why the log can't be trusted to end at `end_lsn`; empty when it really ends there."""
    if end.kind == "missing_segment":
        later = [name for name in wal.segments() if name[:8] == end.segment[:8] and name > end.segment]
        if later and not _never_written(wal, later[0]):
            return f"the WAL file {end.segment} is missing, while {later[0]} is there"
    if goes_on_behind(wal, timeline, max(end_lsn - 1, 0)):
        return f"the log can't be read at {format_lsn(end_lsn)}, while later files hold more: it is damaged there"
    if timeline == wal.control.timeline and end_lsn <= wal.control.checkpoint_lsn:
        checkpoint = format_lsn(wal.control.checkpoint_lsn)
        return f"the log can be read only to {format_lsn(end_lsn)}, while pg_control names a checkpoint at {checkpoint}"
    return ""


def _never_written(wal: Wal, segment: str) -> bool:
    begin = segment_start(segment, wal.segment_size)
    return not goes_on_behind(wal, int(segment[:8], 16), begin - 1)


def newest_commit(wal: Wal, *, before: int | None = None, segments: int = 8, timeout: float = 60.0) -> WalRecord | None:
    """The last COMMIT in the log, looked for in its last few files; for telling when a dead server last worked."""
    timeline = wal.timeline
    names = [name for name in wal.segments() if int(name[:8], 16) == timeline]
    for name in list(reversed(names))[:segments]:
        begin = segment_start(name, wal.segment_size)
        last: WalRecord | None = None
        for record in wal.tool.records(
            wal.directory, start_lsn=begin, end_lsn=before, timeline=timeline, rmgrs=("Transaction",), timeout=timeout
        ):
            last = record if record.description.startswith("COMMIT") else last
        if last is not None:
            return last
    return None
