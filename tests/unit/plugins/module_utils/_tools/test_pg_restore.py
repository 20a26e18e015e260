# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import struct

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._postgres import ConnectionParams
from ansible_collections.hms.postgres.plugins.module_utils._tools.pg_restore import ArchiveHead, PgRestore, parse_head

TARGET = ConnectionParams(host="10.0.0.1", port=5433, user="u", dbname="scratch='x'", password="geheim")


def number(value: int) -> bytes:
    return bytes([value < 0]) + struct.pack("<I", abs(value))


def text(value: str) -> bytes:
    return number(len(value)) + value.encode()


def head(minor: int = 14, archive_format: int = 1) -> bytes:
    compression = b"\x00" if minor >= 15 else number(-1)
    start = b"PGDMP" + bytes([1, minor, 0, 4, 8, archive_format]) + compression
    moment = b"".join(number(part) for part in (1, 2, 3, 22, 10, 126, 0))
    return start + moment + text("hospital") + text("15.18 (Debian)") + text("15.18") + number(1234) + b"more"


@pytest.mark.parametrize("minor", [14, 15, 16])
def test_the_head_of_an_archive_is_read(minor: int) -> None:
    assert parse_head(head(minor)) == ArchiveHead(f"1.{minor}", "hospital", "15.18 (Debian)", "15.18", 1234)


@pytest.mark.parametrize("data", [b"", b"PGDMP", b"--\n-- PostgreSQL database dump", head(14, 3), head(9), head()[:70]])
def test_anything_else_is_no_archive(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"archive"):
        parse_head(data)


def test_a_check_reads_the_whole_archive() -> None:
    stage = PgRestore("/b/pg_restore", os_user="postgres").parse_stage()
    assert stage.argv == ("/b/pg_restore", "--format=custom", "--file=/dev/null")
    assert stage.os_user == "postgres"


def test_a_restore_stops_at_the_first_error() -> None:
    stage = PgRestore("/b/pg_restore").into_database_stage(TARGET, owners=False)
    assert stage.argv == (
        "/b/pg_restore",
        "--format=custom",
        "--exit-on-error",
        "--no-owner",
        "--no-privileges",
        "--dbname=dbname='scratch=\\'x\\''",
        "--no-password",
    )
    assert stage.env["PGPASSWORD"] == "geheim"
    assert "PGDATABASE" not in stage.env
    assert "--no-owner" not in PgRestore("/b/pg_restore").into_database_stage(TARGET, owners=True).argv


def test_a_folder_is_listed_and_restored_by_several() -> None:
    program = PgRestore("/b/pg_restore", os_user="postgres")
    assert program.list_stage("/m/data").argv == ("/b/pg_restore", "--format=directory", "--list", "/m/data")
    restore = program.into_database_stage(TARGET, owners=True, directory="/s/data", jobs=2)
    assert restore.argv[1:3] == ("--format=directory", "--exit-on-error")
    assert restore.argv[-2:] == ("--jobs=2", "/s/data")
