# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the archive holds every WAL segment from the oldest backup to the newest one. PRIVATE to the collection.

pgBackRest's own `verify` reads the segments that are there and never misses one that isn't. The names alone are
looked at here: what is in the segments, `verify` says.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from .._errors import HmsError
from .._postgres import parse_lsn
from .._tools.pgbackrest import BackupSet, Listed

DEFAULT_SEGMENT_SIZE = 16 * 1024 * 1024

_FOLDER = re.compile(r"^[0-9A-F]{16}$")
_SEGMENT = re.compile(r"^(?P<name>[0-9A-F]{24})-[0-9a-f]{40}(?:\.\w+)?$")
_HISTORY = re.compile(r"^(?P<timeline>[0-9A-F]{8})\.history$")
_HISTORY_LINE = re.compile(r"^\s*(?P<timeline>\d+)\s+(?P<lsn>[0-9A-F]+/[0-9A-F]+)", re.IGNORECASE)


class Repository(t.Protocol):
    """What is asked of the repository; `PgBackRest` is one."""

    def repo_ls(self, path: str) -> list[Listed]:
        """The entries of a folder."""

    def repo_get(self, path: str) -> str:
        """A small text file."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """How segments are numbered and named."""

    size: int = DEFAULT_SEGMENT_SIZE

    @property
    def per_folder(self) -> int:
        """Segments in 4 GB of WAL: what one folder of the archive holds."""
        return 0x100000000 // self.size

    def number(self, name: str) -> int:
        """A segment's place on its timeline."""
        return int(name[8:16], 16) * self.per_folder + int(name[16:24], 16)

    def at(self, lsn: int) -> int:
        """The number of the segment that holds a position."""
        return lsn // self.size

    def name(self, timeline: int, number: int) -> str:
        """A segment's name."""
        return f"{timeline:08X}{number // self.per_folder:08X}{number % self.per_folder:08X}"


@dataclasses.dataclass(frozen=True)
class Run:
    """Segments without a hole between them, both ends included."""

    first: int
    last: int


@dataclasses.dataclass(frozen=True)
class Archive:
    """The archive of one generation of the cluster.

    Attributes:
        runs: by timeline, in order.
        histories: the text of each timeline's history file.
        newest: when the newest segment of each timeline was stored, in seconds since 1970.
        flaws: segments that are there and of no use: twice with different content, or empty.
    """

    runs: t.Mapping[int, tuple[Run, ...]]
    histories: t.Mapping[int, str]
    newest: t.Mapping[int, int] = dataclasses.field(default_factory=dict)
    flaws: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Hole:
    """Segments that recovery needs and the archive lacks, both ends included."""

    timeline: int
    first: str
    last: str
    count: int

    def describe(self) -> str:
        """For people."""
        if self.count == 1:
            return f"WAL segment {self.first} is missing from the archive or damaged"
        return f"{self.count} WAL segments from {self.first} to {self.last} are missing from the archive or damaged"


@dataclasses.dataclass(frozen=True)
class Window:
    """A time to which the cluster can be recovered: from the end of a backup to the last segment before a hole.

    Attributes:
        start: seconds since 1970.
        end: when the newest segment was stored; None where a hole ends it.
    """

    label: str
    start: int
    last: str
    end: int | None


@dataclasses.dataclass(frozen=True)
class Continuity:
    """What the names tell. `incomplete` maps the label of a backup that lacks WAL of its own to what it lacks."""

    holes: tuple[Hole, ...] = ()
    windows: tuple[Window, ...] = ()
    incomplete: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    problems: tuple[str, ...] = ()


class _Collector:
    """Segments as they are listed; holds runs, not names, so that a large archive needs little memory."""

    def __init__(self, layout: Layout, damaged: t.AbstractSet[str]) -> None:
        self.layout = layout
        self.damaged = damaged
        self.runs: dict[int, list[Run]] = {}
        self.newest: dict[int, int] = {}
        self.flaws: list[str] = []

    def add_folder(self, listed: t.Iterable[Listed]) -> None:
        """All segments of one folder, which come in order."""
        last = ""
        for entry in listed:
            match = _SEGMENT.match(entry.name)
            if not match:
                continue
            name = match["name"]
            if name == last:
                self.flaws.append(f"WAL segment {name} is in the archive twice, with different content")
                continue
            last = name
            if entry.size == 0:
                self.flaws.append(f"WAL segment {name} is empty in the archive")
            elif name not in self.damaged:
                self._add(name, entry.time)

    def _add(self, name: str, stored: int) -> None:
        timeline, number = int(name[:8], 16), self.layout.number(name)
        runs = self.runs.setdefault(timeline, [])
        if runs and runs[-1].last + 1 == number:
            runs[-1] = Run(runs[-1].first, number)
        else:
            runs.append(Run(number, number))
        self.newest[timeline] = max(stored, self.newest.get(timeline, 0))


def read_archive(
    repository: Repository,
    path: str,
    *,
    layout: Layout,
    since: str = "",
    damaged: t.AbstractSet[str] = frozenset(),
) -> Archive:
    """The segments below `path`, a folder at a time; those older than `since` on its timeline are passed over.

    `damaged` names segments that are there and can't be used.
    """
    collector = _Collector(layout, damaged)
    histories = {}
    for entry in repository.repo_ls(path):
        match = _HISTORY.match(entry.name)
        if match:
            histories[int(match["timeline"], 16)] = repository.repo_get(f"{path}/{entry.name}")
        elif entry.folder and _FOLDER.match(entry.name) and not _older(entry.name, since):
            collector.add_folder(repository.repo_ls(f"{path}/{entry.name}"))
    return Archive(
        runs={timeline: tuple(runs) for timeline, runs in collector.runs.items()},
        histories=histories,
        newest=collector.newest,
        flaws=tuple(collector.flaws),
    )


def _older(folder: str, since: str) -> bool:
    return bool(since) and folder[:8] <= since[:8] and folder < since[:16]


def parse_history(text: str) -> list[tuple[int, int]]:
    """The timelines that a history file names, oldest first, each with the position at which it was left."""
    return [
        (int(match["timeline"]), parse_lsn(match["lsn"]))
        for match in (_HISTORY_LINE.match(line) for line in text.splitlines())
        if match
    ]


@dataclasses.dataclass(frozen=True)
class _Leg:
    """The part of a timeline that recovery passes through: up to, not including, `end`; None where it goes on."""

    timeline: int
    end: int | None
    left_at: int | None = None
    """The position at which it was left."""


def _route(archive: Archive, timeline: int, layout: Layout) -> list[_Leg]:
    """The way of recovery to the end of a timeline. The segment of a switch is read from the later timeline."""
    legs = [_Leg(left, layout.at(lsn), lsn) for left, lsn in parse_history(archive.histories.get(timeline, ""))]
    return [*legs, _Leg(timeline, None)]


def _missing(runs: t.Sequence[Run], first: int, last: int) -> list[Run]:
    """What of a span is in no run."""
    found = []
    position = first
    for run in runs:
        if run.last < position:
            continue
        if run.first > last:
            break
        if run.first > position:
            found.append(Run(position, run.first - 1))
        position = run.last + 1
    if position <= last:
        found.append(Run(position, last))
    return found


def _span_holes(archive: Archive, timeline: int, span: Run, layout: Layout) -> list[Hole]:
    return [
        Hole(timeline, layout.name(timeline, gap.first), layout.name(timeline, gap.last), gap.last - gap.first + 1)
        for gap in _missing(archive.runs.get(timeline, ()), span.first, span.last)
    ]


def _spans(route: t.Sequence[_Leg], archive: Archive, timeline: int, first: int) -> list[tuple[int, Run]]:
    """What must be there from segment `first` of `timeline` to the newest one."""
    spans = []
    begun = False
    for leg in route:
        begun = begun or leg.timeline == timeline
        if not begun:
            continue
        runs = archive.runs.get(leg.timeline, ())
        end = leg.end - 1 if leg.end is not None else (runs[-1].last if runs else first - 1)
        if end >= first:
            spans.append((leg.timeline, Run(first, end)))
        first = leg.end if leg.end is not None else first
    return spans


def _on_route(backup: BackupSet, route: t.Sequence[_Leg]) -> bool:
    """Whether recovery to the newest timeline can start from this backup: it ended before its timeline was left."""
    timeline = int(backup.wal_stop[:8], 16)
    for leg in route:
        if leg.timeline == timeline:
            return leg.left_at is None or parse_lsn(backup.lsn_stop) <= leg.left_at
    return False


def judge(archive: Archive, backups: t.Sequence[BackupSet], *, layout: Layout) -> Continuity:
    """The holes between the oldest backup and the newest WAL, and what can be recovered to in spite of them."""
    known = [backup for backup in backups if backup.wal_start and backup.wal_stop and backup.lsn_stop]
    if not known:
        return Continuity(problems=archive.flaws)
    incomplete = _incomplete(archive, known, layout)
    newest = max([*archive.runs, *archive.histories, *(int(backup.wal_stop[:8], 16) for backup in known)])
    route = _route(archive, newest, layout)
    on_route = [backup for backup in known if _on_route(backup, route)]
    problems = [*archive.flaws, *_strays(archive, known, on_route, newest)]
    holes: list[Hole] = []
    if on_route:
        oldest = min(on_route, key=lambda backup: _place(backup, layout))
        timeline, first = int(oldest.wal_start[:8], 16), layout.number(oldest.wal_start)
        for leg, span in _spans(route, archive, timeline, first):
            holes += _span_holes(archive, leg, span, layout)
    windows = _windows(archive, [b for b in on_route if b.label not in incomplete], holes, newest, layout)
    return Continuity(tuple(holes), tuple(windows), incomplete, tuple(problems))


def _place(backup: BackupSet, layout: Layout) -> tuple[int, int]:
    return int(backup.wal_start[:8], 16), layout.number(backup.wal_start)


def _incomplete(archive: Archive, backups: t.Sequence[BackupSet], layout: Layout) -> dict[str, str]:
    """The backups that can't even be brought to consistency, with the reason."""
    found = {}
    for backup in backups:
        span = Run(layout.number(backup.wal_start), layout.number(backup.wal_stop))
        holes = _span_holes(archive, int(backup.wal_start[:8], 16), span, layout)
        if holes:
            found[backup.label] = f"of its own WAL, {'; '.join(hole.describe() for hole in holes)}"
    return found


def _strays(
    archive: Archive, backups: t.Sequence[BackupSet], on_route: t.Sequence[BackupSet], newest: int
) -> list[str]:
    """Why backups are no way to the newest timeline, where that is a fault."""
    older = [backup for backup in backups if backup not in on_route and int(backup.wal_stop[:8], 16) < newest]
    if not older or newest in archive.histories:
        return []
    labels = ", ".join(backup.label for backup in older)
    return [f"{newest:08X}.history is not in the archive: recovery from {labels} can't reach timeline {newest}"]


def _windows(
    archive: Archive, backups: t.Sequence[BackupSet], holes: t.Sequence[Hole], newest: int, layout: Layout
) -> list[Window]:
    """The times to which recovery can go, oldest first."""
    windows: list[Window] = []
    ends = sorted((hole.timeline, layout.number(hole.first)) for hole in holes)
    covered: tuple[int, int] | None = None
    for backup in sorted(backups, key=lambda backup: _place(backup, layout)):
        if windows and (covered is None or _place(backup, layout) < covered):
            continue  # an earlier backup's window reaches as far
        covered = next((end for end in ends if end >= _place(backup, layout)), None)
        if covered is not None:
            windows.append(Window(backup.label, backup.stop, layout.name(covered[0], covered[1] - 1), None))
            continue
        runs = archive.runs.get(newest, ())
        last = layout.name(newest, runs[-1].last) if runs else backup.wal_stop
        windows.append(Window(backup.label, backup.stop, last, archive.newest.get(newest)))
    return windows


def damaged_segments(names: t.Iterable[str]) -> frozenset[str]:
    """The segments among the paths that a report names as damaged."""
    found = set()
    for path in names:
        match = _SEGMENT.match(path.rpartition("/")[2])
        if match:
            found.add(match["name"])
    return frozenset(found)


def check_size(size: int) -> Layout:
    """The layout for a size; only powers of two from 1 MB to 1 GB are segments."""
    if size & (size - 1) or not 1 << 20 <= size <= 1 << 30:
        raise HmsError(f"{size} bytes is no size of WAL segments.", reason="bad_config")
    return Layout(size)
