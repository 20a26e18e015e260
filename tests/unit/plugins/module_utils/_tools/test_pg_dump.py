# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._postgres import ConnectionParams
from ansible_collections.hms.postgres.plugins.module_utils._tools.pg_dump import PgDump, without_rows
from ansible_collections.hms.postgres.plugins.module_utils._tools.pg_dumpall import PgDumpAll

SOURCE = ConnectionParams(host="/run/postgresql", port=5433, user="backup", dbname="odd = na'me", password="geheim")
COMMON = ("--lock-wait-timeout=30000", "--no-password")


@pytest.mark.parametrize(
    ("contents", "file_format", "snapshot", "expected"),
    [
        ("all", "custom", "0003-1", ("--format=custom", "--blobs", "--compress=0", "--snapshot=0003-1")),
        ("data", "custom", None, ("--format=custom", "--data-only", "--blobs", "--compress=0")),
        ("schema", "custom", None, ("--format=custom", "--schema-only", "--compress=0")),
        ("all", "plain", None, ("--format=plain", "--blobs")),
    ],
)
def test_pg_dump_is_called_like_this(
    contents: str, file_format: str, snapshot: str | None, expected: tuple[str, ...]
) -> None:
    stage = PgDump("/b/pg_dump", os_user="postgres").stage(
        SOURCE, contents=contents, file_format=file_format, snapshot=snapshot, lock_timeout=30.0
    )
    assert stage.argv == ("/b/pg_dump", *expected, *COMMON)
    assert stage.os_user == "postgres"


def test_a_folder_is_dumped_by_several() -> None:
    stage = PgDump("/b/pg_dump", os_user="postgres").directory_stage(
        SOURCE, "/staging/data", jobs=3, contents="data", snapshot="0003-1", lock_timeout=30.0, options={"a": "b"}
    )
    own = ("--format=directory", "--data-only", "--blobs", "--compress=0", "--no-sync", "--jobs=3")
    assert stage.argv == ("/b/pg_dump", *own, "--file=/staging/data", "--snapshot=0003-1", *COMMON)
    assert (stage.env["PGOPTIONS"], stage.env["PGDATABASE"]) == ("-c a=b", "odd = na'me")


def test_the_connection_travels_in_the_environment() -> None:
    stage = PgDump("/b/pg_dump").stage(SOURCE, lock_timeout=0.0002, options={"a_setting": "5 s\\"})
    assert stage.env["PGDATABASE"] == "odd = na'me"
    assert stage.env["PGPASSWORD"] == "geheim"
    assert stage.env["PGOPTIONS"] == "-c a_setting=5\\ s\\\\"
    assert "PGCLIENTENCODING" not in stage.env, "a dump has the database's own encoding"
    assert "--lock-wait-timeout=1" in stage.argv, "0 would wait for ever"
    assert "geheim" not in " ".join(stage.argv) + repr(stage)
    assert "PGOPTIONS" not in PgDump("/b/pg_dump").stage(SOURCE, lock_timeout=1.0).env, "no timeout for statements"


def test_pg_dumpall_is_called_like_this() -> None:
    stage = PgDumpAll("/b/pg_dumpall").globals_stage(SOURCE, passwords=False)
    database = "--database=dbname='odd = na\\'me'"
    assert stage.argv == ("/b/pg_dumpall", "--globals-only", "--no-role-passwords", "--no-password", database)
    assert "PGDATABASE" not in stage.env
    assert "--no-role-passwords" not in PgDumpAll("/b/pg_dumpall").globals_stage(SOURCE, passwords=True).argv


def test_rows_are_taken_out_of_complaints() -> None:
    text = (
        'pg_restore: error: COPY failed for table "patients": ERROR:  duplicate key value violates "patients_pkey"\n'
        "DETAIL:  Key (name)=(Doe) already exists.\n"
        'CONTEXT:  COPY patients, line 7, column note: "first line\n'
        "of Doe's note\"\n"
        "pg_restore: warning: errors ignored on restore: 1\n"
    )
    cleaned = without_rows(text)
    assert "Doe" not in cleaned
    assert "patients_pkey" in cleaned
    assert cleaned.endswith("pg_restore: warning: errors ignored on restore: 1\n")


@pytest.mark.parametrize(
    "text",
    [
        'ERROR:  invalid input syntax for type integer: "Doe"\n',
        'ERROR:  invalid input value for enum blood: "Doe\nand more"\nCONTEXT:  COPY p, line 1, column b: "Doe"\n',
    ],
)
def test_values_are_taken_out_of_complaints(text: str) -> None:
    cleaned = without_rows(text)
    assert "Doe" not in cleaned
    assert "invalid input" in cleaned
