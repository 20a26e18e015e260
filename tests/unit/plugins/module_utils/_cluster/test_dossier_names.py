# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._cluster.dossier_names import (
    NamesFromOldCatalog,
    NamesFromServer,
    Unnamed,
)
from ansible_collections.hms.postgres.plugins.module_utils._errors import ConnectionFailed

VISITS, TOAST, NEW = (1663, 5, 20000), (1663, 5, 20004), (1663, 5, 20009)
ROLES, OTHER = (1664, 0, 1260), (1663, 6, 20000)


class Server:
    """Answers like a server with the databases hospital (5) and archive (6)."""

    def __init__(self, *, closed: t.Collection[str] = ()) -> None:
        self.closed = closed
        self.open = 0
        self.asked: list[str] = []

    def __call__(self, dbname: str) -> t.Any:
        if dbname in self.closed:
            raise ConnectionFailed("no")
        self.open += 1
        self.asked.append(dbname)
        return Session(self, dbname)


class Session:
    def __init__(self, server: Server, dbname: str) -> None:
        self.server, self.dbname = server, dbname

    def rows(self, sql: str, params: t.Sequence[t.Any] | None = None) -> list[tuple[t.Any, ...]]:
        if params is None:
            return [(5, "hospital"), (6, "archive")]
        names = {20000: "public.visits", 20004: "public.visits", 1260: "pg_catalog.pg_authid", 20009: "public.wrong"}
        assert "pg_filenode_relation" in sql
        return [(space, number, names[number]) for space, number in zip(*params)]

    def close(self) -> None:
        self.server.open -= 1


def test_paths_stand_where_nobody_can_be_asked() -> None:
    found = Unnamed().resolve([VISITS, ROLES, NEW, (99, 5, 7)], created_after_fork={(5, 20009)})
    assert found == {
        VISITS: "file base/5/20000",
        ROLES: "file global/1260",
        NEW: "file base/5/20009 (made after the fork)",
        (99, 5, 7): "file 7 of database 5 in tablespace 99",
    }


def test_names_from_the_successor() -> None:
    server = Server()
    names = NamesFromServer(server, main_database="hospital")
    found = names.resolve([VISITS, TOAST, ROLES, OTHER, NEW], created_after_fork={(5, 20009)})
    assert found == {
        VISITS: "public.visits",
        TOAST: "public.visits",
        ROLES: "pg_catalog.pg_authid",
        OTHER: "archive: public.visits",
        NEW: "file base/5/20009 (made after the fork)",
    }
    assert server.open == 0


def test_a_successor_that_does_not_answer_costs_only_the_names() -> None:
    for closed, expected in (({"hospital"}, "file base/5/20000"), ({"archive"}, "public.visits")):
        names = NamesFromServer(Server(closed=closed), main_database="hospital")
        assert names.resolve([VISITS, OTHER], created_after_fork=())[VISITS] == expected


def test_nobody_is_asked_for_nothing() -> None:
    server = Server()
    assert NamesFromServer(server, main_database="hospital").resolve([NEW], created_after_fork={(5, 20009)})
    assert server.asked == []


def test_the_old_catalog_names_the_rest() -> None:
    asked: list[tuple[str, str]] = []

    def ask(dbname: str, sql: str) -> list[str]:
        asked.append((dbname, sql))
        return ["5 hospital", "nonsense"] if dbname == "template1" else ["1663/20009 public.made later"]

    first = NamesFromServer(Server(), main_database="hospital")
    names = NamesFromOldCatalog(ask, first=first, main_database="hospital")
    found = names.resolve([VISITS, NEW], created_after_fork={(5, 20009)})
    assert found == {VISITS: "public.visits", NEW: "public.made later"}
    assert [dbname for dbname, _sql in asked] == ["template1", "hospital"]
    assert "(1663::oid, 20009::oid)" in asked[1][1]
    assert names.resolve([VISITS], created_after_fork=()) == {VISITS: "public.visits"}
    assert len(asked) == 2, "nothing was left to ask"


def test_an_old_catalog_that_cannot_be_asked_costs_only_the_names() -> None:
    def ask(dbname: str, sql: str) -> list[str]:
        raise ConnectionFailed(f"{dbname}: {sql}")

    names = NamesFromOldCatalog(ask, first=Unnamed(), main_database="hospital")
    assert names.resolve([VISITS], created_after_fork=()) == {VISITS: "file base/5/20000"}
