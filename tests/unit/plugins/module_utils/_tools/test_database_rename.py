# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The statements and names of a swap by rename, and what is done when one of them fails."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._tools import database_rename
from ansible_collections.hms.postgres.plugins.module_utils._tools.database_rename import Attached

STAMP = "20250622T120000Z"
ID = "20250622T120000Z-swap-3fa9"


def test_both_renames_and_both_marks_are_one_piece_of_work() -> None:
    found = database_rename.statements(live="a", scratch="b", keep="c", operation=ID, open_scratch=False)
    assert found == [
        'ALTER DATABASE "a" RENAME TO "c"',
        'ALTER DATABASE "b" RENAME TO "a"',
        f"ALTER DATABASE \"c\" SET hms.swapped = '{ID} a'",
        f"ALTER DATABASE \"a\" SET hms.swapped = '{ID} b'",
    ]


def test_a_weird_name_stays_a_name_and_a_closed_database_is_opened() -> None:
    found = database_rename.statements(
        live='weird "name; drop', scratch="b'\\", keep="c", operation=ID, open_scratch=True
    )
    assert found[0] == 'ALTER DATABASE "weird ""name; drop" RENAME TO "c"'
    assert found[3] == f"ALTER DATABASE \"weird \"\"name; drop\" SET hms.swapped = E'{ID} b''\\\\'"
    assert found[4] == 'ALTER DATABASE "weird ""name; drop" ALLOW_CONNECTIONS true'


@pytest.mark.parametrize(
    ("database", "name"),
    [
        ("hospital", "hospital_before_20250622T120000Z"),
        ("x" * 63, "x" * 39 + "_before_20250622T120000Z"),
        ("ö" * 31, "ö" * 19 + "_before_20250622T120000Z"),
    ],
)
def test_a_kept_name_fits_and_is_known_again(database: str, name: str) -> None:
    found = database_rename.kept_name(database, "before", STAMP)
    assert found == name
    assert len(found.encode()) <= 63
    assert database_rename.stamp_of(found, database, "before") == STAMP
    assert database_rename.stamp_of(found, database, "after") == ""


@pytest.mark.parametrize("name", ["hospital_before_yesterday", "hospital", "hospital_before_20250622T120000Zx", "x"])
def test_other_names_have_no_stamp(name: str) -> None:
    assert database_rename.stamp_of(name, "hospital", "before") == ""


@pytest.mark.parametrize("name", ["", "x" * 64, "ö" * 32, "a\x00b"])
def test_a_name_that_the_server_would_not_take_is_refused(name: str) -> None:
    with pytest.raises(Refused, match="cannot be the kept name"):
        database_rename.check_name(name, "the kept name")


def test_a_session_in_words() -> None:
    client = Attached(7, "a", "app", "psql", "10.0.0.9", "client backend", "idle", 12.4)
    assert client.words == "pid 7: app (psql) from 10.0.0.9, idle for 12 s"
    worker = Attached(8, "a", "", "", "", "pg_cron launcher", "", 3.0)
    assert worker.words == "pid 8: pg_cron launcher, working for 3 s"


class Session:
    """A session whose catalog is scripted, and that fails where it is told to."""

    def __init__(self, oids: t.Mapping[str, int], *, fails: str = "", gone: bool = False) -> None:
        self.told: list[str] = []
        self._oids = oids
        self._fails = fails
        self._gone = gone
        self.closed = False

    def execute(self, sql: str, _params: t.Any = None) -> None:
        self.told.append(sql)
        if self._fails and self._fails in sql:
            raise HmsError("no")
        if self._gone and sql == "ROLLBACK":
            raise HmsError("the connection is closed")

    def rows(self, _sql: str, _params: t.Any = None) -> list[tuple[t.Any, ...]]:
        return [(name, oid, "o", True, False, -1, "UTF8", "C", "C", "") for name, oid in self._oids.items()]

    def close(self) -> None:
        self.closed = True


def run(session: Session) -> None:
    database_rename.rename(t.cast("t.Any", session), ["one", "two"], oids={"a": 2, "c": 1})


def test_it_is_one_transaction() -> None:
    session = Session({"a": 2, "c": 1})
    run(session)
    assert session.told == ["BEGIN; one; two", "COMMIT"]


def test_an_error_takes_it_back() -> None:
    session = Session({"a": 2, "c": 1}, fails="two")
    with pytest.raises(HmsError, match="no"):
        run(session)
    assert session.told == ["BEGIN; one; two", "ROLLBACK"]
    assert not session.closed


def test_names_that_belong_to_others_take_it_back() -> None:
    session = Session({"a": 3, "c": 1})
    with pytest.raises(HmsError, match="'a' would not be the database that was looked at") as caught:
        run(session)
    assert caught.value.reason == "database_replaced"
    assert session.told[-1] == "ROLLBACK"


def test_who_cannot_say_rollback_hangs_up() -> None:
    session = Session({"a": 3, "c": 1}, gone=True)
    with pytest.raises(HmsError):
        run(session)
    assert session.closed


def test_a_commit_that_fails_is_not_taken_back() -> None:
    """Nobody knows whether it happened: that is asked in the catalog."""
    session = Session({"a": 2, "c": 1}, fails="COMMIT")
    with pytest.raises(HmsError):
        run(session)
    assert session.told[-1] == "COMMIT"


def test_where_nothing_is_kept_only_one_is_renamed() -> None:
    found = database_rename.statements(live="hospital", scratch="new", keep="", operation="op", open_scratch=False)
    assert found == [
        'ALTER DATABASE "new" RENAME TO "hospital"',
        "ALTER DATABASE \"hospital\" SET hms.swapped = 'op new'",
    ]
