# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import io
import tarfile
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact import directory
from ansible_collections.hms.postgres.plugins.module_utils._artifact.directory import DirectoryArchive, Listing

ROWS = b"1\tone\n2\ttwo\n\\.\n\n\n"
LIST = b"""; Archive created at 2026-11-22 02:00:00 UTC
;     TOC Entries: 49
3342; 0 16388 TABLE DATA public patients postgres
3343; 0 16390 TABLE DATA We ird."S 9; 0 1 TABLE DATA x postgres
3360; 0 0 BLOBS - BLOBS postgres
210; 1259 16388 TABLE public patients postgres
"""
WHOLE = {
    "toc.dat": b"PGDMP" * 300,
    "3342.dat": ROWS,
    "3343.dat": b"\\.\n\n\n",
    "blobs.toc": b"16400 blob_16400.dat\n16401 blob_16401.dat\n",
    "blob_16400.dat": b"x" * 2000,
    "blob_16401.dat": b"",
}


def stream(files: t.Mapping[str, bytes], *, folder: str = "data", kind: bytes = tarfile.REGTYPE) -> bytes:
    """A tar stream of such files."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.GNU_FORMAT) as made:
        head = tarfile.TarInfo(folder)
        head.type = tarfile.DIRTYPE
        made.addfile(head)
        for name, content in files.items():
            found = tarfile.TarInfo(f"{folder}/{name}")
            found.type, found.size = kind, len(content) if kind == tarfile.REGTYPE else 0
            made.addfile(found, io.BytesIO(content))
    return output.getvalue()


def seen(data: bytes, *, step: int = 4096) -> DirectoryArchive:
    """What has been seen of a stream that came in pieces."""
    archive = DirectoryArchive()
    for start in range(0, len(data), step):
        archive(data[start : start + step])
    return archive


def listed(text: bytes = LIST, *, step: int = 7) -> Listing:
    """A table of contents."""
    listing = Listing()
    for start in range(0, len(text), step):
        listing(text[start : start + step])
    return listing


@pytest.mark.parametrize("step", [1, 3, 511, 512, 513, 1_000_000])
def test_pieces_of_any_size(step: int) -> None:
    archive = seen(stream(WHOLE), step=step)
    assert (archive.unreadable, bytes(archive.toc or b"")) == ("", WHOLE["toc.dat"])
    assert archive.doubts(listed()) == ()


def test_the_list_of_contents() -> None:
    found = listed()
    assert (found.entries, found.rows, found.blobs) == (49, {"3342.dat", "3343.dat"}, 1)
    assert found.blob_lists == {"blobs.toc", "blobs_3360.toc"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"3342.dat": None}, "3342.dat which are missing"),
        ({"9.dat": ROWS}, "9.dat are not named by its table of contents"),
        ({"3342.dat": ROWS[:-1]}, "3342.dat are cut short"),
        ({"3342.dat": b""}, "3342.dat are cut short"),
        ({"blob_16400.dat": None}, "it has 1 large objects, and its list names others (2)"),
        ({"blob_16402.dat": b""}, "it has 3 large objects"),
        ({"blob_16400.dat": None, "blob_16409.dat": b"x"}, "it has 2 large objects, and its list names others (2)"),
        ({"blobs.toc": b"16400 blob_16400.dat\n16401 blob_16401.dat"}, "blobs.toc are cut short"),
        ({"blobs.toc": None, "blob_16400.dat": None, "blob_16401.dat": None}, "list of large objects is missing"),
        ({"blobs.toc": None, "blobs_7.toc": WHOLE["blobs.toc"]}, "list of large objects is missing"),
        ({f"{n}.dat": ROWS for n in range(7)}, "0.dat, 1.dat, 2.dat, 3.dat, 4.dat and 2 more are not named"),
    ],
)
def test_what_is_not_as_the_table_of_contents_says(changes: dict[str, bytes | None], words: str) -> None:
    files = {name: content for name, content in {**WHOLE, **changes}.items() if content is not None}
    found = seen(stream(files)).doubts(listed())
    assert any(words in doubt for doubt in found), found


def test_newer_lists_of_large_objects_are_several() -> None:
    files = {**WHOLE, "blobs_3360.toc": b"16400 blob_16400.dat\n", "blobs_3361.toc": b"16401 blob_16401.dat\n"}
    del files["blobs.toc"]
    text = LIST + b"3361; 0 0 BLOBS - 16401..16401 postgres\n"
    assert seen(stream(files)).doubts(listed(text)) == ()


def test_without_an_entry_there_is_no_table_of_contents() -> None:
    assert seen(stream(WHOLE)).doubts(listed(b"; nothing\n")) == ("its table of contents can't be read",)


WHOLE_STREAM = stream(WHOLE)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cut short"),
        (WHOLE_STREAM[:600], "cut short"),
        (WHOLE_STREAM[:3000], "cut short"),
        (WHOLE_STREAM[:512] + b"?" * 512 + WHOLE_STREAM[1024:], "the tar stream is damaged"),
        (stream({"3342.dat": ROWS}), "no table of contents"),
        (stream({"toc.dat": b""}, folder="other"), "none of pg_dump's files"),
        (stream({"../toc.dat": b""}), "none of pg_dump's files"),
        (stream({"evil.sh": b""}), "none of pg_dump's files"),
        (stream({"toc.dat": b""}, kind=tarfile.SYMTYPE), "none of pg_dump's files"),
        (WHOLE_STREAM[:512] + 2 * stream({"toc.dat": b""})[512:1024] + bytes(1024), "toc.dat twice"),
    ],
)
def test_what_can_not_be_read_at_all(data: bytes, words: str) -> None:
    assert words in seen(data).unreadable


def test_a_table_of_contents_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "TOC_LIMIT", 100)
    archive = seen(stream(WHOLE))
    assert "larger than can be looked at" in archive.unreadable
    assert len(archive.toc or b"") == 0
