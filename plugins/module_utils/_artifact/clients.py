# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which of this host's client programs fit a server. PRIVATE."""

from __future__ import annotations

import dataclasses
import os
import re
import typing as t

from .._command import CommandRunner, find_program
from .._errors import HmsError, ToolMissing

DIRECTORIES = ("/usr/lib/postgresql/{major}/bin", "/usr/pgsql-{major}/bin")
"""Where Debian's and PGDG's packages put the programs of one major version."""
NAMES = ("pg_dump", "pg_dumpall", "pg_restore")
_VERSION = re.compile(r"\(PostgreSQL\) (?P<version>(?P<major>\d+)\S*)")


@dataclasses.dataclass(frozen=True)
class Client:
    """One program and its version."""

    path: str
    version: str
    major: int


@dataclasses.dataclass(frozen=True)
class Clients:
    """The programs of one server's version, as far as they are there."""

    pg_dump: Client
    pg_dumpall: Client
    pg_restore: Client

    def all(self) -> tuple[Client, ...]:
        """Each of them."""
        return (self.pg_dump, self.pg_dumpall, self.pg_restore)


def bin_directory(major: int, directories: t.Sequence[str] = DIRECTORIES) -> str | None:
    """The folder with the programs of a major version, where there is one."""
    for pattern in directories:
        folder = pattern.format(major=major)
        if os.access(os.path.join(folder, "pg_dump"), os.X_OK):
            return folder
    return None


def find_clients(major: int, runner: CommandRunner, directories: t.Sequence[str] = DIRECTORIES) -> Clients:
    """The programs that fit a server of this major version; where those are missing others, for the plan to judge."""
    folder = bin_directory(major, directories)
    return Clients(**{name: _client(name, folder, major, runner) for name in NAMES})


def _client(name: str, folder: str | None, major: int, runner: CommandRunner) -> Client:
    try:
        path = find_program(name, directory=folder, needed_for="backups with the engine pg_dump")
    except ToolMissing as error:
        error.phase = "look"
        error.next_step = f"Install Debian's package postgresql-client-{major}."
        raise
    answer = runner.run([path, "--version"], timeout=20).check(f"Asking {path} for its version")
    found = _VERSION.search(answer.stdout)
    if not found:
        raise HmsError(
            f"{path} does not say which version it is: {answer.stdout.strip()[:200]!r}.",
            reason="tool_unknown",
            phase="look",
            state="Nothing was touched.",
            next_step=f"Install Debian's package postgresql-client-{major}.",
        )
    return Client(path=path, version=found["version"], major=int(found["major"]))
