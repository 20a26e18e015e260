# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shared memory of servers that were killed: one that starts again frees it, one that is gone for good does not.

There are 4096 such segments on a machine, unless its kernel is told otherwise; then no server starts any more.
"""

from __future__ import annotations

import pathlib
import subprocess
import typing as t

_LINE = 7
"""Of ``postmaster.pid``: the key of the server's segment, and its id."""


class Segment(t.NamedTuple):
    """One of System V's."""

    key: int
    identifier: int


def noted(pid_file: pathlib.Path) -> Segment | None:
    """The one that a server's pid file names."""
    try:
        key, identifier = pid_file.read_text(encoding="utf-8").splitlines()[_LINE - 1].split()
    except (OSError, IndexError, ValueError):
        return None
    return Segment(int(key), int(identifier))


def unused() -> set[Segment]:
    """Those that no process is attached to."""
    rows = pathlib.Path("/proc/sysvipc/shm").read_text(encoding="utf-8").splitlines()[1:]
    columns = [row.split() for row in rows]
    return {Segment(int(row[0]), int(row[1])) for row in columns if row[6] == "0"}


def free(pid_files: t.Iterable[pathlib.Path]) -> None:
    """Free what the dead servers left to whom these files belong."""
    found = {noted(path) for path in pid_files} & unused()
    for segment in filter(None, found):
        subprocess.run(["ipcrm", "--shmem-id", str(segment.identifier)], check=False, capture_output=True, timeout=60)
