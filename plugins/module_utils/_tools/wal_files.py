# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the names of WAL files tell. PRIVATE to the collection."""

from __future__ import annotations

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
