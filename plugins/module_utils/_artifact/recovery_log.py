# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the log of a server in recovery tells. PRIVATE to the collection. Pure."""

from __future__ import annotations

import re

_STOPPING = re.compile(r"LOG:  (recovery stopping .*)")
_RESTORED = re.compile(r'LOG:  restored log file "(?P<name>[0-9A-F]{24})" from archive')
_LAST = re.compile(r"last completed transaction was at log time (?P<time>\S+ \S+)")
_GRAVE = re.compile(r"(?:FATAL|PANIC):  (?P<text>.*)")
_FETCH = re.compile(r"ERROR: (?P<text>\[\d+\]: .*)")
_LATE = re.compile(r"^\[0*82\]: .* asynchronously after ")
_NOISE = ("the database system is", "terminating")


def grave(log: str) -> list[str]:
    """The errors that ended a server."""
    return [
        match["text"].strip() for match in _GRAVE.finditer(log) if not any(noise in match["text"] for noise in _NOISE)
    ]


def ended(log: str) -> bool:
    """Whether it says that it is down."""
    return "database system is shut down" in log or "could not start server" in log or bool(grave(log))


def fetch_errors(log: str) -> list[str]:
    """Why pgBackRest could not fetch WAL that is there. What came too late ahead of time was then fetched by itself."""
    told = dict.fromkeys(match["text"].strip() for match in _FETCH.finditer(log))
    return [text for text in told if not _LATE.search(text)][-3:]


def stopped_at(log: str) -> str:
    """What the server says about where it stopped."""
    found = _STOPPING.findall(log)
    return str(found[-1]).strip() if found else ""


def last_restored(log: str) -> str:
    """The last segment that came out of the archive."""
    names = [match["name"] for match in _RESTORED.finditer(log)]
    return names[-1] if names else ""


def last_commit(log: str) -> str:
    """The time of the last transaction before a server gave up, as it says."""
    found = _LAST.findall(log)
    return f"{found[-1]} UTC" if found else ""
