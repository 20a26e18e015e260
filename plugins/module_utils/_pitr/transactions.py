# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What pg_waldump tells of the end of a transaction. Pure. PRIVATE."""

from __future__ import annotations

import re
import typing as t

from .._clock import iso, parse_iso

_ENDED = re.compile(
    r"(?P<what>COMMIT|ABORT)(?:_PREPARED)?(?: (?P<prepared>\d+):)? "
    r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S* \S+?)(?:;|$)"
)
_RELATIONS = re.compile(r"; rels:(?P<paths>(?: [^;\s]+)+)")
_SUBXACTS = re.compile(r"; subxacts:(?P<xids>(?: \d+)+)")
_PATH = re.compile(r"(?:base|pg_tblspc/\d+/[^/]+|global)/(?:(?P<database>\d+)/)?(?P<node>\d+)(?:_\w+)?$")


class Ended(t.NamedTuple):
    """The end of a transaction. `files` are those that it removed: each a database and a relfilenode."""

    xid: int
    committed: bool
    time: str
    subxacts: tuple[int, ...]
    files: tuple[tuple[int, int], ...]


def file_of(path: str) -> tuple[int, int] | None:
    """Database and relfilenode of a path such as ``base/16384/16399``."""
    match = _PATH.match(path)
    return (int(match["database"] or 0), int(match["node"])) if match else None


def parse_end(xid: int, description: str) -> Ended | None:
    """The end of a transaction out of a record of the resource manager Transaction; None for its other records."""
    match = _ENDED.match(description)
    if match is None:
        return None
    relations, subxacts = _RELATIONS.search(description), _SUBXACTS.search(description)
    files = [file_of(path) for path in relations["paths"].split()] if relations else []
    return Ended(
        xid=int(match["prepared"] or xid),
        committed=match["what"] == "COMMIT",
        time=_utc(match["time"]),
        subxacts=tuple(int(text) for text in subxacts["xids"].split()) if subxacts else (),
        files=tuple(found for found in files if found is not None),
    )


def _utc(text: str) -> str:
    """A commit's time to the microsecond: two commits in a millisecond are told apart by it."""
    moment = parse_iso(text)
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z" if moment.tzinfo else iso(moment)
