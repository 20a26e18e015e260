# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pg_restore: reads archives of pg_dump, to check them or to put them back. PRIVATE to the collection."""

from __future__ import annotations

import dataclasses

from .._pipeline import Stage
from .._postgres import ConnectionParams, quote_conninfo
from .pg_dump import environment, without_rows

_NOBODY_S = ("--no-owner", "--no-privileges")
_MAGIC = b"PGDMP"
HEAD = 4096
"""Bytes of an archive that hold its header for certain."""


@dataclasses.dataclass(frozen=True)
class ArchiveHead:
    """What stands at the beginning of an archive.

    Attributes:
        entries: entries in its table of contents, as ``pg_restore --list`` counts them.
    """

    version: str
    database: str
    server: str
    client: str
    entries: int


class _Cursor:
    """Reads integers and strings as pg_dump writes them: a sign, then little-endian bytes."""

    def __init__(self, data: bytes, at: int, width: int) -> None:
        self._data = data
        self.at = at
        self._width = width

    def number(self) -> int:
        end = self.at + 1 + self._width
        if end > len(self._data):
            raise ValueError("the head of the archive is cut short")
        value = int.from_bytes(self._data[self.at + 1 : end], "little")
        sign = self._data[self.at]
        self.at = end
        return -value if sign else value

    def text(self) -> str:
        length = self.number()
        if length < 0:
            return ""
        found = self._data[self.at : self.at + length]
        self.at += length
        return found.decode("utf-8", "replace")


def parse_head(data: bytes) -> ArchiveHead:
    """The head of an archive in the custom format, 1.10 to 1.16. Raises ValueError on anything else."""
    if data[:5] != _MAGIC or len(data) < 12:
        raise ValueError("this is no archive of pg_dump")
    major, minor, width, archive_format = data[5], data[6], data[8], data[10]
    if major != 1 or minor < 10 or archive_format != 1:
        raise ValueError(f"an archive of version {major}.{minor} in format {archive_format} is unknown")
    cursor = _Cursor(data, 11, width)
    if minor >= 15:
        cursor.at += 1  # the compression's algorithm is one byte
    else:
        cursor.number()
    for _field in range(7):  # the moment of its making
        cursor.number()
    database, server, client = cursor.text(), cursor.text(), cursor.text()
    return ArchiveHead(f"{major}.{minor}", database, server, client, cursor.number())


class PgRestore:
    """The program of one version, by its path; it reads archives of that version and of older ones."""

    def __init__(self, program: str, *, os_user: str | None = None) -> None:
        self._program = program
        self._os_user = os_user

    def parse_stage(self) -> Stage:
        """Read a whole archive from stdin and turn all of it into SQL, for nobody.

        The list of its contents would be no proof: it stands at the beginning, and a cut archive has it too.
        """
        argv = (self._program, "--format=custom", "--file=/dev/null")
        return Stage("pg_restore", argv, os_user=self._os_user, clean=without_rows)

    def structure_stage(self) -> Stage:
        """Turn the structure in an archive from stdin into SQL on stdout; rows are not looked at."""
        argv = (self._program, "--format=custom", "--schema-only", "--file=-")
        return Stage("pg_restore", argv, os_user=self._os_user, clean=without_rows)

    def list_stage(self, directory: str) -> Stage:
        """The table of contents of an archive in the directory format, as lines; of its files ``toc.dat`` is enough."""
        argv = (self._program, "--format=directory", "--list", directory)
        return Stage("pg_restore", argv, os_user=self._os_user, clean=without_rows)

    def into_database_stage(
        self, target: ConnectionParams, *, owners: bool, directory: str | None = None, jobs: int = 1
    ) -> Stage:
        """Put an archive from stdin, or the one in a folder, into an empty database; stops at the first error.

        With `owners` objects get the owners and rights they had, which the roles must be there for.
        """
        env = environment(target)
        database = f"dbname={quote_conninfo(env.pop('PGDATABASE'))}"  # its name may hold what looks like a conninfo
        what = "custom" if directory is None else "directory"
        argv = [self._program, f"--format={what}", "--exit-on-error", *([] if owners else _NOBODY_S)]
        argv += [f"--dbname={database}", "--no-password"]
        if directory is not None:
            argv += [f"--jobs={jobs}", directory]
        return Stage("pg_restore", tuple(argv), env=env, os_user=self._os_user, clean=without_rows)
