# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""tar: a folder as a stream, and back. PRIVATE to the collection."""

from __future__ import annotations

from .._command import find_program
from .._pipeline import Stage


class Tar:
    """GNU tar. What it writes is in its own format: plain headers for any size, nothing of this host's users."""

    def __init__(self, *, os_user: str | None = None) -> None:
        self._program = find_program("tar", needed_for="backups in the directory format")
        self._os_user = os_user

    def create_stage(self, directory: str, name: str) -> Stage:
        """The folder `name` of `directory`, to stdout."""
        argv = [self._program, "--create", "--file=-", "--format=gnu", "--sort=name", "--numeric-owner"]
        argv += ["--owner=0", "--group=0", f"--directory={directory}", "--", name]
        return Stage("tar", tuple(argv), os_user=self._os_user)

    def extract_stage(self, directory: str) -> Stage:
        """What comes from stdin, into a folder."""
        argv = (self._program, "--extract", "--file=-", "--no-same-owner", "--no-same-permissions")
        return Stage("tar", (*argv, f"--directory={directory}"), os_user=self._os_user)
