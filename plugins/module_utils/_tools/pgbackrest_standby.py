# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a standby takes from pgBackRest: a backup to begin with, and WAL where its upstream has none. PRIVATE."""

from __future__ import annotations

import json
import os
import shlex

from .._command import CommandResult
from .._errors import HmsError
from .pgbackrest import PgBackRest

UNFINISHED = "backup.manifest"
"""The file that a restore which has not ended leaves in its directory; with it `restore` can go on there."""


PATIENCE = 10
"""Seconds that one call of restore_command may take. A promotion waits for the one that is under way, and pgBackRest
itself tries for minutes to reach a store that is gone: measured 150 seconds and more. The end by `timeout` counts as
"not there", so the server comes back; a signal would stop it."""


def restore_command(config: str, stanza: str) -> str:
    """What the server calls for a segment that it lacks; the same as the role hms.postgres.postgresql sets.

    Each is fetched by itself. Fetching ahead of time would wait in vain now and then where the timeline changes (see
    `PgBackRest.archive_get_command`), and just there standbys are to follow a new primary, and commits wait for them.
    """
    options = " ".join(shlex.quote(option) for option in (f"--config={config}", f"--stanza={stanza}"))
    call = f"pgbackrest {options} --no-archive-async".replace("%", "%%")
    return f'timeout --foreground {PATIENCE} {call} archive-get %f "%p"'


class PgBackRestStandby(PgBackRest):
    """The sub-commands that make a standby."""

    def tablespaces(self, label: str) -> list[str]:
        """The names of the tablespaces in a backup."""
        result = self._run("info", "--output=json", f"--set={label}")
        self._check(result, f"Reading what is in {label}")
        try:
            (backup,) = json.loads(result.stdout, strict=False)[0]["backup"]
            return sorted(str(entry["name"]) for entry in backup.get("tablespace") or ())
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise HmsError(
                f"pgBackRest's info about {label} isn't what we know: {result.stdout[:200]!r}",
                reason="unexpected_output",
            ) from error

    def restore_standby(self, label: str, *, target: str, resume: bool, timeout: float) -> CommandResult:
        """Restore a backup into `target`: files are synced, and global/pg_control comes last.

        With `resume`, what is in `target` already is compared by its checksums, and only what differs is fetched.
        """
        delta = "--delta" if resume else "--no-delta"
        options = [f"--set={label}", f"--pg1-path={target}", "--type=standby", delta]
        result = self._run("restore", *options, timeout=timeout)
        try:
            self._check(result, f"Restoring {label} of {self.stanza}")
        except HmsError as error:
            error.phase = "clone"
            error.state = f"The unfinished copy is in {target}; no data directory was touched."
            error.next_step = error.next_step + " Run the same again: it goes on with the unfinished copy."
            raise
        return result


def restoring_into(argv: list[bytes], path: str) -> bool:
    """Whether these words are those of a pgBackRest, leader or worker, that restores into exactly this directory."""
    ours = os.path.basename(argv[0]) == b"pgbackrest" and f"--pg1-path={path}".encode() in argv
    return ours and bool({b"restore", b"restore:local"}.intersection(argv))
