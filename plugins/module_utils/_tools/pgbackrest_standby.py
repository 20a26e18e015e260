# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A backup of pgBackRest that a standby begins with. PRIVATE."""

from __future__ import annotations

import json
import os

from .._command import CommandResult
from .._errors import HmsError
from .pgbackrest import PgBackRest

UNFINISHED = "backup.manifest"
"""The file that a restore which has not ended leaves in its directory; with it `restore` can go on there."""


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
