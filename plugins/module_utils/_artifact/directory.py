# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An archive of pg_dump's in the directory format, as a tar stream that passes by. PRIVATE to the collection.

What is proven: the stream is whole, every file in it is one of pg_dump's, the table of contents names each of them and
none that is missing, and each table's rows end with the mark that pg_dump writes behind the last one. Memory does not
grow with the rows, nor with the number of large objects: their names are summed up, not kept.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
import typing as t

from .._command import identity
from .._errors import HmsError
from .._pipeline import Pipeline
from .._tools.pg_restore import PgRestore
from .gpg_home import GpgHome

NAME = "data"
"""The folder inside the stream."""
TOC = "toc.dat"
TOC_LIMIT = 256 * 1024 * 1024
_BLOCK = 512
_PASSABLE = 0o710
"""What the group of a folder may pass through, and not list."""
_END_OF_ROWS = b"\\.\n\n\n"
_SHOWN = 5
_LINE = re.compile(rb"(\d+); \d+ \d+ (TABLE DATA|BLOBS) ")
_ENTRIES = re.compile(rb";\s+TOC Entries: (\d+)")
_ROWS = re.compile(r"\d+\.dat")
_BLOB = re.compile(r"blob_\d+\.dat")
_BLOB_LIST = re.compile(r"blobs(_\d+)?\.toc")


class _Names:
    """A sum over names in any order: two of them are the same when their names are."""

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0

    def add(self, name: bytes) -> None:
        self.count += 1
        self.sum = (self.sum + int.from_bytes(hashlib.sha256(name).digest(), "big")) % (1 << 256)

    def same(self, other: _Names) -> bool:
        return (self.count, self.sum) == (other.count, other.sum)


class DirectoryArchive:
    """Sees the stream in pieces of any size; says afterwards what was in it."""

    def __init__(self) -> None:
        self.toc: bytearray | None = None
        self.toc_is_too_large = False
        self.problem = ""
        self._head = b""
        self._left = 0
        self._padding = 0
        self._ended = False
        self._name = ""
        self._tail = b""
        self._files: set[str] = set()
        self._cut: list[str] = []
        self._blobs = _Names()
        self._listed = _Names()

    def __call__(self, data: bytes) -> None:
        view = memoryview(data)
        while view and not (self.problem or self._ended):
            if self._left:
                piece = bytes(view[: self._left])
                self._take(piece)
                view = view[len(piece) :]
            elif self._padding:
                skipped = min(self._padding, len(view))
                self._padding -= skipped
                view = view[skipped:]
            else:
                missing = _BLOCK - len(self._head)
                self._head += bytes(view[:missing])
                view = view[missing:]
                if len(self._head) == _BLOCK:
                    self._begin()

    def _begin(self) -> None:
        """A header is complete."""
        block, self._head = self._head, b""
        if not any(block):
            self._ended = True
            return
        try:
            found = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            self.problem = f"the tar stream is damaged: {error}"
            return
        folder, _slash, name = found.name.partition("/")
        if found.isdir() and folder == NAME and not name:
            return
        known = name == TOC or any(kind.fullmatch(name) for kind in (_ROWS, _BLOB, _BLOB_LIST))
        if not found.isreg() or folder != NAME or not known:
            self.problem = f"the tar stream holds {found.name!r}, which is none of pg_dump's files"
            return
        self._name, self._left, self._padding, self._tail = name, found.size, -found.size % _BLOCK, b""
        if name == TOC:
            self.toc = bytearray()
            self.toc_is_too_large = found.size > TOC_LIMIT
        if not found.size:
            self._end()

    def _take(self, piece: bytes) -> None:
        self._left -= len(piece)
        if self._name == TOC:
            if self.toc is not None and not self.toc_is_too_large:
                self.toc += piece
        elif _BLOB_LIST.fullmatch(self._name):
            *lines, self._tail = (self._tail + piece).split(b"\n")
            for line in lines:
                self._listed.add(line.rpartition(b" ")[2])
        else:
            self._tail = (self._tail + piece[-len(_END_OF_ROWS) :])[-len(_END_OF_ROWS) :]
        if not self._left:
            self._end()

    def _end(self) -> None:
        """A file is complete."""
        if _BLOB.fullmatch(self._name):
            self._blobs.add(self._name.encode())
            return
        if self._name in self._files:
            self.problem = f"the tar stream holds {self._name} twice"
        self._files.add(self._name)
        if _ROWS.fullmatch(self._name) and self._tail != _END_OF_ROWS:
            self._cut.append(self._name)
        if _BLOB_LIST.fullmatch(self._name) and self._tail:
            self._cut.append(self._name)

    @property
    def unreadable(self) -> str:
        """Why nothing can be said about its files; '' when something can."""
        if self.problem or not self._ended:
            return self.problem or "the tar stream is cut short"
        if self.toc is None:
            return "it has no table of contents"
        return "its table of contents is larger than can be looked at here" if self.toc_is_too_large else ""

    def doubts(self, listed: Listing) -> tuple[str, ...]:
        """What does not hold, held against the table of contents."""
        if not listed.entries:
            return ("its table of contents can't be read",)
        files = self._files - {TOC}
        lists = {name for name in files if _BLOB_LIST.fullmatch(name)}
        found = [
            *_told("which are missing, are named by its table of contents", listed.rows - files),
            *_told("are not named by its table of contents", files - lists - listed.rows),
            *_told("are cut short", set(self._cut)),
        ]
        if listed.blobs and (not lists or not (lists <= listed.blob_lists)):
            found.append("its list of large objects is missing")
        if not self._blobs.same(self._listed) or (lists and not listed.blobs):
            found.append(f"it has {self._blobs.count} large objects, and its list names others ({self._listed.count})")
        return tuple(found)


def _told(what: str, names: t.Collection[str]) -> list[str]:
    if not names:
        return []
    shown = sorted(names)
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return [f"{', '.join(shown[:_SHOWN])}{more} {what}"]


class Listing:
    """What ``pg_restore --list`` says, as it passes: the files that an archive must have."""

    def __init__(self) -> None:
        self.entries = 0
        self.rows: set[str] = set()
        self.blobs = 0
        self.blob_lists = {"blobs.toc"}
        self._rest = b""

    def __call__(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            match = _LINE.match(line)
            total = _ENTRIES.match(line)
            if total:
                self.entries = int(total[1])
            elif match and match[2] == b"BLOBS":
                self.blobs += 1
                self.blob_lists.add(f"blobs_{match[1].decode()}.toc")
            elif match:
                self.rows.add(f"{match[1].decode()}.dat")


def listing_of(
    toc: bytes | bytearray, pg_restore: PgRestore, *, deadline: float, os_user: str | None
) -> tuple[Listing, str]:
    """What pg_restore reads in a table of contents, and what it complained about, '' for nothing.

    It wants a folder, which is made in memory: definitions may hold a subscription's password.
    """
    listing = Listing()
    home = GpgHome.make()
    try:
        folder = os.path.join(home.path, NAME)
        os.mkdir(folder, 0o700)
        path = os.path.join(folder, TOC)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
            target.write(toc)
        other = identity(os_user)
        if other:
            os.chown(home.path, -1, other["group"])
            os.chmod(home.path, _PASSABLE)
            os.chown(path, other["user"], other["group"])
            os.chown(folder, other["user"], other["group"])
        Pipeline([pg_restore.list_stage(folder)], deadline=deadline, what="Reading the table of contents").read(listing)
    except HmsError as error:
        if error.reason != "stage_failed":
            raise
        return listing, error.message
    finally:
        home.remove()
    return listing, ""


def judge(
    archive: DirectoryArchive, pg_restore: PgRestore, *, deadline: float, os_user: str | None
) -> tuple[int | None, tuple[str, ...]]:
    """How many entries an archive has that has passed by, and what does not hold in it."""
    if archive.unreadable:
        return None, (archive.unreadable,)
    listing, complaint = listing_of(archive.toc or b"", pg_restore, deadline=deadline, os_user=os_user)
    if complaint:
        return None, (f"its table of contents can't be read: {complaint}",)
    return listing.entries, archive.doubts(listing)
