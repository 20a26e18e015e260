# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the names of WAL files tell. PRIVATE to the collection."""

from __future__ import annotations

import contextlib
import os
import re

_SEGMENT = re.compile(r"^[0-9A-F]{24}$")


def newest_timeline(data_directory: str) -> int:
    """The highest timeline of which this data directory holds WAL, or 0.

    pg_control learns of a new timeline at the next checkpoint only, and a receiver that is gone tells nothing;
    the segments it wrote are there.
    """
    try:
        names = os.listdir(os.path.join(data_directory, "pg_wal"))
    except FileNotFoundError:
        return 0
    return max((int(name[:8], 16) for name in names if _SEGMENT.match(name)), default=0)


def last_written(data_directory: str) -> float:
    """When this data directory's log was last written to, in seconds since the epoch, or 0.

    A segment that is kept for later use keeps the time of its last write.
    """
    folder = os.path.join(data_directory, "pg_wal")
    times = []
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            if _SEGMENT.match(name):
                with contextlib.suppress(FileNotFoundError):  # it is renamed or removed meanwhile
                    times.append(os.stat(os.path.join(folder, name)).st_mtime)
    return max(times, default=0.0)
