# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Unit tests: an archive's table of contents, as a folder's. What pg_restore makes of it, tests/real shows."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._tools.archive_toc import (
    CutShortError,
    Rows,
    UnsuitableError,
    directory_toc,
)


@dataclasses.dataclass
class Entry:
    """An entry as a test writes it."""

    number: int
    kind: str
    copy: str | None = None
    needs: tuple[int, ...] = ()
    definition: str = ""


def number(value: int) -> bytes:
    """An integer as pg_dump writes it."""
    return bytes([value < 0]) + abs(value).to_bytes(4, "little")


def string(value: str | None) -> bytes:
    """A string as pg_dump writes it."""
    return number(-1) if value is None else number(len(value.encode())) + value.encode()


def archive(entries: t.Sequence[Entry], *, minor: int = 14, kind: int = 1, folder: bool = False) -> bytes:
    """The beginning of an archive, or the whole of a folder's table of contents."""
    parts = [b"PGDMP", bytes([1, minor, 0, 4, 8, kind]), b"\0" if minor >= 15 else number(-1 if not folder else 0)]
    parts += [number(field) for field in range(7)]
    parts += [string("hospital"), string("15.18"), string("15.18"), number(len(entries))]
    for entry in entries:
        held = entry.copy is not None
        parts += [number(entry.number), number(held), string("1259"), string("16384"), string("tag")]
        parts += [string(entry.kind), number(3), string(entry.definition), string(""), string(entry.copy)]
        parts += [string("public"), string(None), string("heap"), *([number(114)] if minor >= 16 else [])]
        parts += [string("postgres"), string("false"), *(string(str(need)) for need in entry.needs), string(None)]
        parts += [string(f"{entry.number}.dat" if held else "")] if folder else [b"\1" + bytes(8)]
    return b"".join(parts)


TABLES = (
    Entry(1, "TABLE"),
    Entry(2, "TABLE"),
    Entry(9, "TABLE DATA", "COPY public.a (x) FROM stdin;\n", (1,)),
    Entry(7, "TABLE DATA", "COPY public.ü (x) FROM stdin;\n", (2,)),
    Entry(8, "TABLE DATA", "COPY public.of_extension (x) FROM stdin;\n", (3,)),
    Entry(5, "INDEX", needs=(1, 9)),
)


@pytest.mark.parametrize("minor", [14, 15, 16])
def test_tables_are_numbered_as_they_come_and_files_keep_their_names(minor: int) -> None:
    made = directory_toc(archive(TABLES, minor=minor) + b"rows")
    assert made.tables == (
        Rows("9.dat", b"COPY public.a (x) FROM stdin;\n"),
        Rows("7.dat", "COPY public.ü (x) FROM stdin;\n".encode()),
        Rows("8.dat", b"COPY public.of_extension (x) FROM stdin;\n"),
    )
    expected = archive(
        (
            *TABLES[:2],
            Entry(7, "TABLE DATA", "COPY public.a (x) FROM stdin WITH (FREEZE);\n", (1,)),
            Entry(8, "TABLE DATA", "COPY public.ü (x) FROM stdin WITH (FREEZE);\n", (2,)),
            Entry(9, "TABLE DATA", "COPY public.of_extension (x) FROM stdin;\n", (3,)),
            Entry(5, "INDEX", needs=(1, 7)),
        ),
        minor=minor,
        kind=3,
        folder=True,
    )
    for old, new in (("9.dat", "7.dat"), ("7.dat", "8.dat"), ("8.dat", "9.dat")):
        expected = expected.replace(string(new), string(old + " "), 1)
    assert made.content == expected.replace(string("9.dat "), string("9.dat")).replace(
        string("7.dat "), string("7.dat")
    ).replace(string("8.dat "), string("8.dat"))


def test_rows_that_go_through_a_parent_are_not_frozen() -> None:
    """The parent was not emptied in that transaction, and the server would refuse."""
    rows = Entry(2, "TABLE DATA", "COPY public.p (x) FROM stdin;\n", (1,), "-- load via partition root public.p\n")
    assert b"FREEZE" not in directory_toc(archive([Entry(1, "TABLE"), rows])).content


def test_what_is_cut_short_is_told_from_what_is_wrong() -> None:
    whole = archive(TABLES)
    for length in range(len(whole)):
        with pytest.raises(CutShortError):
            directory_toc(whole[:length])
    assert len(directory_toc(whole).tables) == 3


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"-- an SQL script, and no archive", "no archive"),
        (archive(TABLES, minor=13), "no archive"),
        (archive(TABLES, minor=17), "no archive"),
        (archive(TABLES, kind=3), "no archive"),
        (archive([Entry(1, "BLOBS", "")]), "BLOBS"),
        (archive([Entry(1, "TABLE DATA", "")]), "TABLE DATA"),
        (archive([Entry(number, "TABLE DATA", "COPY a FROM stdin;\n") for number in (1, 2)]), "twice"),
    ],
)
def test_what_no_folder_can_stand_for(data: bytes, why: str) -> None:
    with pytest.raises(UnsuitableError, match=why):
        directory_toc(data)
