# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._backup import oversized
from ansible_collections.hms.postgres.plugins.module_utils._backup.facts import Relation
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused

TABLES = [Relation(1, "public", "scans", "r"), Relation(2, "Ward", "films", "r"), Relation(3, "public", "p", "p")]
CANDIDATES = [(1, "image", True), (1, "note", False), (2, "film", True)]


class Answers:
    """A server that answers, or fails, by table."""

    def __init__(self, **answers: t.Any) -> None:
        self.answers = answers
        self.said: list[str] = []

    def rows(self, _sql: str, params: t.Sequence[t.Any] | None = None) -> list[tuple[t.Any, ...]]:
        assert params is not None
        assert params[0] == [1, 2], "partitioned tables hold nothing"
        found = self.answers.get("candidates", CANDIDATES)
        if isinstance(found, HmsError):
            raise found
        return t.cast("list[tuple[t.Any, ...]]", found)

    def row(self, sql: str, _params: t.Sequence[t.Any] | None = None) -> tuple[t.Any, ...] | None:
        self.said.append(sql)
        found = self.answers["scans" if '"scans"' in sql else "films"]
        if isinstance(found, HmsError):
            raise found
        return t.cast("tuple[t.Any, ...]", found)

    def value(self, sql: str, _params: t.Sequence[t.Any] | None = None) -> t.Any:
        raise NotImplementedError(sql)

    def execute(self, sql: str, _params: t.Sequence[t.Any] | None = None) -> None:
        self.said.append(sql)

    def close(self) -> None:
        pass


def failing(state: str) -> HmsError:
    return HmsError("no", reason="sql_failed", details={"sqlstate": state})


def test_the_widest_column_of_a_row_that_is_too_large_is_told() -> None:
    session = Answers(scans=(2 * 10**9, 10**9 - 5, 10**9 + 5), films=(None, None))
    with pytest.raises(Refused, match=r"public\.scans \(column note: 2000 MB in a dump\)") as caught:
        oversized.warnings(session, TABLES, "full")
    assert caught.value.details == {"rows": [{"table": "public.scans", "column": "note", "bytes": 2 * 10**9}]}
    assert 'FROM ONLY "Ward"."films"' in session.said[-2]
    assert session.said[-1] == "RESET statement_timeout"


@pytest.mark.parametrize(
    ("state", "why"),
    [("57014", "took too long"), ("55P03", "has locked it"), ("42501", "may not read it"), ("42P01", "was dropped")],
)
def test_what_could_not_be_looked_at_is_a_warning(state: str, why: str) -> None:
    told = oversized.warnings(Answers(scans=failing(state), films=(5, 5)), TABLES, "data_only")
    assert len(told) == 1
    assert "public.scans holds a row that is too large for pg_dump was not looked at: " in told[0]
    assert why in told[0]


def test_when_the_tables_themselves_can_not_be_seen() -> None:
    assert "a table" in oversized.warnings(Answers(candidates=failing("55P03")), TABLES, "full")[0]


def test_a_connection_that_breaks_is_no_warning() -> None:
    session = Answers(scans=failing("08006"), films=(1, 1))
    with pytest.raises(HmsError, match="no"):
        oversized.find(session, TABLES)
    assert session.said[-1] == "RESET statement_timeout"


def test_when_the_time_is_over_the_rest_is_told() -> None:
    found = oversized.find(Answers(), TABLES, seconds=0.0)
    assert found.unseen == (("public.scans", "there was no time left"), ('"Ward".films', "there was no time left"))


def test_a_schema_alone_holds_no_rows() -> None:
    session = Answers()
    assert oversized.warnings(session, TABLES, "schema_only") == ()
    assert session.said == []
