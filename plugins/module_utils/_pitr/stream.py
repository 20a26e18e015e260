# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The archive's WAL, record by record, a few segments on disk at a time. PRIVATE."""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import re
import shutil
import typing as t

from .._artifact import pgbackrest_wal as wal
from .._errors import HmsError
from .._tools.pg_waldump import PgWaldump, WalRecord
from .choose import Known, along

AT_ONCE = 8
"""Segments that are on disk together; one more overlaps the next lot."""
_PID = re.compile(r"\.wal\.(\d+)$")


class Archive(t.Protocol):
    """Where segments come from; `PgBackRest` is one."""

    def archive_get(self, segment: str, path: str, *, data: str) -> bool:
        """Fetch one file; False where it isn't there."""


class Leg(t.NamedTuple):
    """Segments of one timeline, both ends included."""

    timeline: int
    first: int
    last: int


@contextlib.contextmanager
def scratch(beside: str, os_user: str) -> t.Iterator[str]:
    """A folder for WAL that nobody else can read; what killed runs left of theirs is removed."""
    for path in glob.glob(glob.escape(beside) + ".wal.*"):
        match = _PID.search(path)
        if match and not os.path.exists(f"/proc/{match[1]}"):
            shutil.rmtree(path, ignore_errors=True)
    folder = f"{beside}.wal.{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder, mode=0o700)
    try:
        entry = pwd.getpwnam(os_user)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def route(known: Known, timeline: int, begin: str) -> list[Leg]:
    """The segments from `begin` to the end of a timeline (0: the newest), as recovery passes through them.

    A leg ends where a segment is missing, and the next one begins behind it.
    """
    archive = along(known.archive, timeline)
    if not archive.runs:
        return []
    newest = max([*archive.runs, *archive.histories])
    ends = [(left, known.layout.at(lsn)) for left, lsn in wal.parse_history(archive.histories.get(newest, ""))]
    first, begun = known.layout.number(begin), int(begin[:8], 16)
    legs = []
    for left, end in [*ends, (newest, -1)]:
        runs = archive.runs.get(left, ())
        last = runs[-1].last if end < 0 and runs else end - 1
        if left >= begun and last >= first:
            legs += [
                Leg(left, max(first, run.first), min(last, run.last))
                for run in runs
                if run.last >= first and run.first <= last
            ]
            first = last + 1
        elif left >= begun:
            first = max(first, end)
    return legs


class WalReader:
    """Reads legs of the archive.

    Args:
        data: a data directory of this cluster.
        folder: where segments go for a moment.
        many_rmgrs: whether pg_waldump takes more than one resource manager.
    """

    def __init__(
        self,
        archive: Archive,
        tool: PgWaldump,
        *,
        layout: wal.Layout,
        data: str,
        folder: str,
        many_rmgrs: bool = True,
        timeout: float = 3600.0,
    ) -> None:
        self._archive = archive
        self._tool = tool
        self._layout = layout
        self._data = data
        self._folder = folder
        self._many_rmgrs = many_rmgrs
        self._timeout = timeout
        self.segments = 0

    def records(self, legs: t.Sequence[Leg], rmgrs: t.Sequence[str]) -> t.Iterator[tuple[int, WalRecord]]:
        """Each record of these resource managers with its timeline, in order."""
        for leg in legs:
            last = -1
            for first, end in _lots(leg):
                self._fetch(leg.timeline, first, end)
                for record in self._read(leg.timeline, first, end, rmgrs):
                    if record.lsn > last:
                        last = record.lsn
                        yield leg.timeline, record

    def legs_from(self, legs: t.Sequence[Leg], timeline: int, lsn: int) -> list[Leg]:
        """What is left of legs from a position on."""
        number = self._layout.at(lsn)
        return [
            Leg(leg.timeline, max(leg.first, number), leg.last)
            for leg in legs
            if leg.last >= number and leg.timeline >= timeline
        ]

    def _read(self, timeline: int, first: int, end: int, rmgrs: t.Sequence[str]) -> t.Iterator[WalRecord]:
        size = self._layout.size
        wanted = set(rmgrs)
        reading = self._tool.records(
            self._folder,
            start_lsn=first * size,
            end_lsn=(end + 1) * size,
            timeline=timeline,
            rmgrs=tuple(rmgrs) if self._many_rmgrs or len(rmgrs) == 1 else (),
            timeout=self._timeout,
        )
        return (record for record in reading if record.rmgr in wanted)

    def _fetch(self, timeline: int, first: int, end: int) -> None:
        """Have these segments in the folder, and no others."""
        wanted = [self._layout.name(timeline, number) for number in range(first, end + 1)]
        here = set(os.listdir(self._folder))
        for name in here - set(wanted):
            os.unlink(os.path.join(self._folder, name))
        for name in wanted:
            if name in here:
                continue
            self.segments += 1
            if not self._archive.archive_get(name, os.path.join(self._folder, name), data=self._data):
                raise HmsError(
                    f"WAL segment {name} is missing from the archive.",
                    reason="wal_missing",
                    phase="search",
                    state="Nothing was touched.",
                    next_step="Search after it (since), or bring it back from another repository.",
                    details={"segment": name},
                )


def _lots(leg: Leg) -> t.Iterator[tuple[int, int]]:
    """A leg in lots that overlap by one segment: a record may begin in one and end in the next."""
    first = leg.first
    while True:
        end = min(first + AT_ONCE, leg.last)
        yield first, end
        if end >= leg.last:
            return
        first = end
