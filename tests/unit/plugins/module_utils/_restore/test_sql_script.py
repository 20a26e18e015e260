# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scripts split into statements, rows and commands, however the bytes arrive."""

from __future__ import annotations

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._restore.sql_script import Checker, Splitter


class Collector(Splitter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, bytes]] = []

    def statement(self, text: bytes) -> None:
        self.found.append(("statement", text.strip()))

    def copy_data(self, data: bytes) -> None:
        if self.found and self.found[-1][0] == "rows":
            data = self.found.pop()[1] + data
        self.found.append(("rows", data))

    def copy_end(self) -> None:
        self.found.append(("end", b""))

    def command(self, text: bytes) -> None:
        self.found.append(("command", text))


def split(text: str, size: int = 10**6) -> list[tuple[str, bytes]]:
    """What a script holds, fed in pieces."""
    collector, data = Collector(), text.encode()
    for start in range(0, len(data), size):
        collector.feed(data[start : start + size])
    collector.end()
    return collector.found


STATEMENTS = [
    "SELECT 1;",
    "SELECT ';', 'it''s;', E'\\';', \"a;b\";",
    "SELECT $$;$$, $a$ $b$; $$ $a$;",
    "SELECT a$b$c FROM t;",
    "SELECT 'line\n\\! no command\n';",
    "SELECT 1 /* ; /* nested; */ \\! */ + 2;",
    "CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT 2);",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END;",
    "CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC SELECT 1; END;",
    "BEGIN;",
    "SELECT e'\\\\', 'a\\';",
    "SELECT 'ünï'::text AS \"é\";",
]


@pytest.mark.parametrize("size", [1, 3, 10**6])
def test_statements_come_one_by_one(size: int) -> None:
    found = split("\n".join(STATEMENTS) + "\n", size)
    assert found == [("statement", statement.encode()) for statement in STATEMENTS]


def test_several_in_a_line_and_comments() -> None:
    found = split("SELECT 1; SELECT 2; -- ; \\! x\n-- nothing;\n\nSELECT 3;\n")
    assert [text for _kind, text in found] == [b"SELECT 1;", b"SELECT 2;", b"SELECT 3;"]


@pytest.mark.parametrize("size", [1, 5, 10**6])
def test_rows_are_rows_to_their_end(size: int) -> None:
    text = "COPY t FROM stdin;\n1\t\\N\n\\\\.\nx;\n\\.\nCOPY u FROM STDIN;\n\\.\nSELECT 1;\n"
    assert split(text, size) == [
        ("statement", b"COPY t FROM stdin;"),
        ("rows", b"1\t\\N\n\\\\.\nx;\n"),
        ("end", b""),
        ("statement", b"COPY u FROM STDIN;"),
        ("end", b""),
        ("statement", b"SELECT 1;"),
    ]


def test_many_small_copies_in_one_piece() -> None:
    assert len(split("COPY t FROM stdin;\n1\n\\.\n" * 3000)) == 9000


@pytest.mark.parametrize(
    "text", ["SELECT 1", "SELECT 'a;\n", "COPY t FROM stdin;\n1\n", "SELECT (1;\n", "SELECT $$;\n", "SELECT 1 /* ;\n"]
)
def test_what_is_cut_short_is_seen(text: str) -> None:
    with pytest.raises(HmsError, match="cut short") as caught:
        split(text)
    assert caught.value.reason == "artifact_damaged"


def test_the_last_line_needs_no_end() -> None:
    assert split("COPY t FROM stdin;\n1\n\\.")[-1] == ("end", b"")
    assert split("SELECT 1;") == [("statement", b"SELECT 1;")]


def problems(text: str) -> list[str]:
    """What a checker notes."""
    checker = Checker()
    checker.feed(text.encode())
    checker.end()
    return checker.problems


@pytest.mark.parametrize(
    "text",
    [
        "\\! id\n",
        "SELECT 1 \\gexec\n",
        "\\i /etc/passwd\n",
        "\\c other\n",
        "\\restrict a; \\! id\n",
        "alter/**/system set x = 1;\n",
        "COPY t TO PROGRAM 'x';\n",
        "COPY t FROM '/etc/passwd';\n",
        "COPY t FROM E'/etc/passwd';\n",
        "COPY (SELECT 'stdin') TO $$/tmp/x$$;\n",
        "CREATE ROLE x SUPERUSER;\n",
        "DROP DATABASE x;\n",
        "ALTER USER x PASSWORD 'y';\n",
        "SET SESSION AUTHORIZATION x;\n",
        "LOAD 'x';\n",
        "SET standard_conforming_strings = off;\n",
    ],
)
def test_what_is_never_run(text: str) -> None:
    assert len(problems("CREATE TABLE t ();\n" + text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "\\restrict ILi0FQxlZ7\n\\unrestrict ILi0FQxlZ7\n",
        "COPY t FROM stdin;\n\\! id\n\\.\n",
        "SELECT 'ALTER SYSTEM', $$\n\\! id\n$$;\n",
        "-- ALTER SYSTEM;\n/* DROP DATABASE x; */\n",
        "CREATE USER MAPPING FOR x SERVER y;\n",
        'COPY "from program" (a, "to") FROM stdin;\n\\.\n',
        "CREATE TABLE role (database text);\n",
        "SET standard_conforming_strings = on;\n",
    ],
)
def test_what_is_harmless(text: str) -> None:
    assert problems(text) == []


def test_whether_a_script_says_that_it_is_complete() -> None:
    begun, end = "-- PostgreSQL database dump\n", "-- PostgreSQL database dump complete\n"
    for text, expected in ((begun + "SELECT 1;\n" + end, True), (begun + "SELECT 1;\n", False), ("SELECT 1;\n", None)):
        checker = Checker()
        checker.feed(text.encode())
        checker.end()
        assert checker.whole is expected
