# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How SQL is quoted, what libpq is told, and positions in the log."""

from __future__ import annotations

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._postgres import (
    ConnectionParams,
    format_lsn,
    parse_lsn,
    quote_conninfo,
    quote_identifier,
    quote_literal,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("db1", '"db1"'), ('a"b', '"a""b"'), ("a;b", '"a;b"'), ("Ümlaut x", '"Ümlaut x"'), ("a\\b", '"a\\b"')],
)
def test_identifiers(name: str, expected: str) -> None:
    assert quote_identifier(name) == expected


@pytest.mark.parametrize("name", ["", "a\x00b"])
def test_what_is_no_identifier(name: str) -> None:
    with pytest.raises(HmsError, match="cannot be an SQL identifier"):
        quote_identifier(name)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", "''"), ("it's", "'it''s'"), ("a\\b", "E'a\\\\b'"), ("\\'", "E'\\\\'''"), ("%s", "'%s'"), ("a\nb", "'a\nb'")],
)
def test_literals(value: str, expected: str) -> None:
    assert quote_literal(value) == expected


def test_a_literal_holds_no_nul() -> None:
    with pytest.raises(HmsError, match="NUL"):
        quote_literal("a\x00b")


@pytest.mark.parametrize(
    ("value", "expected"), [("db1", "'db1'"), ("", "''"), ("it's", "'it\\'s'"), ("a\\b", "'a\\\\b'"), ("a b", "'a b'")]
)
def test_values_in_a_connection_string(value: str, expected: str) -> None:
    assert quote_conninfo(value) == expected


@pytest.mark.parametrize(("text", "position"), [("0/0", 0), ("0/3000148", 0x3000148), ("16/B374D848", 0x16B374D848)])
def test_positions(text: str, position: int) -> None:
    assert parse_lsn(text) == position
    assert format_lsn(position) == text


def test_what_libpq_is_told() -> None:
    params = ConnectionParams("db1", 5433, "app", "hospital", password="secret", sslmode="verify-ca")
    pairs = params.libpq()
    assert pairs["host"] == "db1"
    assert pairs["port"] == "5433"
    assert pairs["connect_timeout"] == "5"
    assert pairs["options"] == "-c statement_timeout=30000 -c lock_timeout=5000"
    assert "passfile" not in pairs
    assert "secret" not in repr(params)
    assert params.where() == "app@db1:5433/hospital"
    assert params.environment()["PGDATABASE"] == "hospital"
    assert params.environment()["PGCONNECT_TIMEOUT"] == "5"


def test_pgbouncer_is_told_no_options() -> None:
    assert "options" not in ConnectionParams("sockets", startup_options=False).libpq()
