# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pg_checksums: whether every page of a stopped cluster is what was written. PRIVATE to the collection."""

from __future__ import annotations

import re
import typing as t

from .._command import CommandRunner, find_program
from .._errors import ToolFailed

_BLOCKS = re.compile(r"^Blocks scanned: +(?P<count>\d+)$", re.MULTILINE)
_BAD = re.compile(r"^Bad checksums: +(?P<count>\d+)$", re.MULTILINE)
_FILE = re.compile(r'checksum verification failed in file "(?P<file>[^"]+)"')


class Checked(t.NamedTuple):
    """What it found."""

    blocks: int
    bad: int
    files: tuple[str, ...]


def parse(report: str, errors: str) -> Checked | None:
    """Its report and what it complains of; None where it did not come to a report."""
    blocks, bad = _BLOCKS.search(report), _BAD.search(report)
    if blocks is None or bad is None:
        return None
    files = tuple(dict.fromkeys(match["file"] for match in _FILE.finditer(errors)))
    return Checked(int(blocks["count"]), int(bad["count"]), files)


class PgChecksums:
    """The program, for one version's binaries."""

    def __init__(self, runner: CommandRunner, *, bin_directory: str, os_user: str | None) -> None:
        self._runner = runner
        self._program = find_program("pg_checksums", directory=bin_directory, needed_for="checking pages")
        self._os_user = os_user

    def check(self, data_directory: str, *, timeout: float) -> Checked:
        """Read every page. The cluster must have been stopped properly."""
        argv = [self._program, "--check", "--pgdata", data_directory]
        result = self._runner.run(argv, timeout=timeout, os_user=self._os_user)
        found = parse(result.stdout, result.stderr)
        if found is None:
            raise ToolFailed(
                f"Checking the pages of {data_directory} failed: {result.stderr.strip()[-500:]}",
                reason="tool_failed",
                details={"rc": result.rc},
            )
        return found
