# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of contents of an archive in the custom format, and the same for the directory format. PRIVATE. Pure.

Both formats begin alike. What differs stands behind each entry: here the place of its rows in the stream, there the
name of the file that holds them. So an archive that can only be read from its beginning can be given to a pg_restore
that works with several jobs, which wants a file for each table.

Where pg_restore makes the table itself and empties it in the same transaction, its rows are asked for as frozen: nobody
has to visit them again, neither an index that is built, nor a count, nor a VACUUM after the restore.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .pg_restore import Cursor

_OLDEST, _NEWEST = (1, 14), (1, 16)
"""Written by pg_dump 12 to 18."""
_CUSTOM, _TAR = 1, 3
"""How a file says its format; a folder's table of contents says tar."""
_FORMAT_AT, _BODY_AT = 10, 11
_WITH_ALGORITHM, _WITH_RELKIND = 15, 16
_ROWS, _TABLE = "TABLE DATA", "TABLE"
_STDIN, _FROZEN = b" FROM stdin;\n", b" FROM stdin WITH (FREEZE);\n"
_VIA_ROOT = b"-- load via partition root"
LIMIT = 256 * 1024 * 1024
"""A larger table of contents is left to pg_restore."""


class CutShortError(ValueError):
    """There is more of it to come."""


class UnsuitableError(ValueError):
    """It is whole, and can't be turned into a folder's."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """One table's rows.

    Attributes:
        file: the name of the file that pg_restore will ask for.
        statement: what stands before the rows in a script made of the archive, its newline included.
    """

    file: str
    statement: bytes


@dataclasses.dataclass(frozen=True)
class DirectoryToc:
    """What a folder needs to take the place of an archive: its toc.dat, and its files in the order of the archive."""

    content: bytes
    tables: tuple[Rows, ...]


@dataclasses.dataclass
class _Entry:
    """One entry as it is stored, in parts: its number, how its rows are copied, the numbers that it needs."""

    number: int
    before: bytes
    copy: bytes | None
    behind: bytes
    needs: tuple[int, ...]
    held: bool
    kind: str
    via_root: bool


class _Reader(Cursor):
    """Reads on, and tells what is missing from what is wrong."""

    def number(self) -> int:
        try:
            return super().number()
        except ValueError as error:
            raise CutShortError(str(error)) from error

    def string(self) -> bytes | None:
        """A string as it is stored; None is another thing than an empty one."""
        length = self.number()
        if length < 0:
            return None
        return self.raw(length)

    def raw(self, length: int) -> bytes:
        """Bytes."""
        found = self.data[self.at : self.at + length]
        if len(found) < length:
            raise CutShortError("the table of contents is cut short")
        self.at += length
        return found


def directory_toc(data: bytes) -> DirectoryToc:
    """What a folder needs, from the beginning of an archive. Raises `CutShortError` or `UnsuitableError`."""
    if len(data) < _BODY_AT:
        raise CutShortError("the head of the archive is cut short")
    version, width, place = (data[5], data[6]), data[8], data[9]
    if data[:5] != b"PGDMP" or not _OLDEST <= version <= _NEWEST or data[_FORMAT_AT] != _CUSTOM:
        raise UnsuitableError("it is no archive in the custom format that is known here")
    reader = _Reader(data, _BODY_AT, width)
    if version[1] >= _WITH_ALGORITHM:
        reader.raw(1)
    else:
        reader.number()
    dated = reader.at
    for _field in range(7):
        reader.number()
    for _field in range(3):
        reader.string()
    ended = reader.at
    entries = [_entry(reader, version[1], place) for _number in range(reader.number())]
    number = _numbers(width)
    uncompressed = b"\0" if version[1] >= _WITH_ALGORITHM else number(0)
    head = data[:_FORMAT_AT] + bytes([_TAR]) + uncompressed + data[dated:ended]
    return _directory(entries, head, number)


def _entry(reader: _Reader, minor: int, place: int) -> _Entry:
    number, begun = reader.number(), reader.at
    held = bool(reader.number())
    for _field in range(3):  # catalog, object, tag
        reader.string()
    kind = (reader.string() or b"").decode("utf-8", "replace")
    reader.number()  # the section
    via_root = (reader.string() or b"").startswith(_VIA_ROOT)
    reader.string()  # what drops it
    before = reader.data[begun : reader.at]
    copy, begun = reader.string(), reader.at
    for _field in range(3):  # schema, tablespace, access method
        reader.string()
    if minor >= _WITH_RELKIND:
        reader.number()
    for _field in range(2):  # owner, whether it has OIDs
        reader.string()
    behind, needs = reader.data[begun : reader.at], []
    while True:
        need = reader.string()
        if need is None:
            break
        needs.append(int(need))
    reader.raw(1 + place)
    return _Entry(number, before, copy, behind, tuple(needs), held, kind, via_root)


def _numbers(width: int) -> t.Callable[[int], bytes]:
    def number(value: int) -> bytes:
        return (b"\1" if value < 0 else b"\0") + abs(value).to_bytes(width, "little")

    return number


def _directory(entries: list[_Entry], head: bytes, number: t.Callable[[int], bytes]) -> DirectoryToc:
    """Write it anew. pg_restore takes what has the lowest number first, so tables are numbered as they will come."""
    rows = [entry for entry in entries if entry.held]
    strange = [entry.kind for entry in rows if entry.kind != _ROWS or not (entry.copy or b"").endswith(_STDIN)]
    if strange:
        raise UnsuitableError(f"it holds {strange[0]}, which are no rows of a table that are copied")
    if len({entry.copy for entry in rows}) < len(rows):
        raise UnsuitableError("it holds the rows of a table twice")
    new = dict(zip((entry.number for entry in rows), sorted(entry.number for entry in rows)))

    def string(value: bytes | None) -> bytes:
        return number(-1) if value is None else number(len(value)) + value

    made = {entry.number for entry in entries if entry.kind == _TABLE}
    parts, tables = [head, number(len(entries))], []
    for entry in entries:
        file, copy = "", entry.copy
        if entry.held and copy is not None:
            file = f"{entry.number}.dat"
            tables.append(Rows(file, copy))
            if made.intersection(entry.needs) and not entry.via_root:
                copy = copy[: -len(_STDIN)] + _FROZEN
        parts += [number(new.get(entry.number, entry.number)), entry.before, string(copy), entry.behind]
        parts += [string(b"%d" % new.get(need, need)) for need in entry.needs]
        parts += [string(None), string(file.encode())]
    return DirectoryToc(b"".join(parts), tuple(tables))
