# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Timelines: which stretches of the log a server has lived through, and where two servers parted. PRIVATE."""

from __future__ import annotations

import os
import typing as t

from .._errors import HmsError
from .._files import read_bytes
from .._postgres import format_lsn, parse_lsn


class Stretch(t.NamedTuple):
    """A piece of a server's history: this timeline held from `begin` until `end` (None: until now)."""

    timeline: int
    begin: int
    end: int | None


class Fork(t.NamedTuple):
    """Where two histories part: the last timeline they share and the position up to which they are one."""

    timeline: int
    lsn: int

    def __str__(self) -> str:
        return f"{format_lsn(self.lsn)} on timeline {self.timeline}"


History = tuple[Stretch, ...]


def history_file(timeline: int) -> str:
    """The name of a timeline's history file in pg_wal."""
    return f"{timeline:08X}.history"


def parse_history(text: str, timeline: int) -> History:
    """The history of `timeline` from its history file; the first timeline has none, and an empty text."""
    stretches = []
    begin = 0
    for line in text.splitlines():
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        try:
            parent, end = int(words[0]), parse_lsn(words[1])
        except (IndexError, ValueError) as error:
            raise HmsError(
                f"The history file of timeline {timeline} has a line that isn't one: {line!r}.",
                reason="bad_history",
                details={"timeline": timeline},
            ) from error
        stretches.append(Stretch(parent, begin, end))
        begin = end
    return (*stretches, Stretch(timeline, begin, None))


def local_history(data_directory: str, timeline: int) -> History:
    """The history of the server in `data_directory`, whose newest timeline is `timeline`."""
    if timeline <= 1:
        return parse_history("", 1)
    path = os.path.join(data_directory, "pg_wal", history_file(timeline))
    content = read_bytes(path)
    if content is None:
        raise HmsError(
            f"There is no {path}, so it can't be said where this server's history parts from the primary's.",
            reason="history_missing",
            state="Nothing was changed.",
            next_step="Bring the file back from the WAL archive, or rejoin with allow_reclone=true.",
        )
    return parse_history(content.decode("ascii", "replace"), timeline)


def find_fork(ours: History, theirs: History) -> Fork | None:
    """Where `ours` leaves `theirs`; None when both are on the same timeline. Raises when they share nothing."""
    common: Fork | None = None
    for own, other in zip(ours, theirs):
        if (own.timeline, own.begin) != (other.timeline, other.begin):
            break
        ends = [end for end in (own.end, other.end) if end is not None]
        if not ends:
            return None
        common = Fork(own.timeline, min(ends))
        if own.end != other.end:
            break
    if common is None:
        raise HmsError(
            "The two servers share no timeline.",
            reason="no_common_history",
            details={"ours": [item.timeline for item in ours], "theirs": [item.timeline for item in theirs]},
        )
    return common


def past_fork(ours: History, fork: Fork) -> History:
    """The stretches of `ours` that lie behind the fork."""
    behind = []
    for stretch in ours:
        if stretch.end is not None and stretch.end <= fork.lsn:
            continue
        behind.append(Stretch(stretch.timeline, max(stretch.begin, fork.lsn), stretch.end))
    return tuple(behind)
