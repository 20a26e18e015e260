# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What servers call for WAL of pgBackRest's archive. PRIVATE.

Before 2.59 pgBackRest's fetching ahead of time has a race: where the timeline changes, the process that was to fetch
the new one's segment may end without a word because that of the old one holds the lock. After archive-timeout, a
minute, the server is told that the segment can't be had. In a recovery it takes that for the end of the archive, and
opens without what was committed after it. So nobody is left with that answer.
"""

from __future__ import annotations

import shlex

from .pgbackrest import PgBackRest

AHEAD_SECONDS = 5
"""How long a recovering server waits for a segment that is fetched ahead of time, before it is fetched by itself."""
PATIENCE = 10
"""Seconds that one call of a standby's may take. A promotion waits for the one that is under way, and pgBackRest itself
tries for minutes to reach a store that is gone: measured 150 seconds and more. The end by `timeout` counts as "not
there", so the server comes back; a signal would stop it."""
_NAMES = '%f "%p"'
"""Of the file that is wanted, and where to put it: the server fills them in."""


def for_recovery(tool: PgBackRest, *, data: str, spool_path: str, lock_path: str) -> str:
    """restore_command of a server that recovers: ahead of time, and by itself what doesn't come that way."""
    ahead = ("--archive-async", f"--archive-timeout={AHEAD_SECONDS}", f"--spool-path={spool_path}")
    calls = [
        [*tool.argv("archive-get"), f"--pg1-path={data}", *way, f"--lock-path={lock_path}"]
        for way in (ahead, ("--no-archive-async",))
    ]
    return " || ".join(f"{_quoted(call)} {_NAMES}" for call in calls)


def for_standby(config: str, stanza: str) -> str:
    """restore_command of a standby; the same as the role hms.postgres.postgresql sets.

    Each segment is fetched by itself: where the timeline changes standbys are to follow a new primary, commits wait for
    them, and nobody has five seconds.
    """
    options = _quoted([f"--config={config}", f"--stanza={stanza}"])
    return f"timeout --foreground {PATIENCE} pgbackrest {options} --no-archive-async archive-get {_NAMES}"


def _quoted(argv: list[str]) -> str:
    return " ".join(shlex.quote(part).replace("%", "%%") for part in argv)
