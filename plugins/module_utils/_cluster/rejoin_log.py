# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a server's log says about a start that failed. PRIVATE."""

from __future__ import annotations

import os

from .member_config import DatabaseHost


def log_file(host: DatabaseHost) -> str:
    """Where Debian's tools let the server write."""
    return f"/var/log/postgresql/postgresql-{host.instance.version}-{host.instance.instance}.log"


def last_complaints(path: str) -> list[str]:
    """The last FATAL and PANIC lines of a log; they tell why a server doesn't start, and hold nobody's data."""
    try:
        with open(path, "rb") as source:
            size = source.seek(0, os.SEEK_END)
            source.seek(max(0, size - (1 << 16)))
            lines = source.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return [line[:300] for line in lines if "FATAL:" in line or "PANIC:" in line][-3:]
