# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PgBouncer's databases file: what it says, and that no name breaks out of its line."""

from __future__ import annotations

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster.databases_file import (
    Member,
    head,
    path_entry,
    render,
)
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError

MEMBERS = [Member("db1", "10.0.0.1", 5432), Member("DB-2", "fe80::2", 5433)]
HOSPITAL = {"name": "hospital", "dbname": "hospital"}


def rendered(**changes: object) -> str:
    values: dict[str, object] = {
        "cluster": "hospital",
        "operation": "20261122T154500Z-failover-3fa9",
        "primary": "DB-2",
        "databases": [HOSPITAL],
        "members": MEMBERS,
    }
    return render(**{**values, **changes})  # type: ignore[arg-type]  # changed on purpose


def test_every_database_leads_to_the_primary_and_every_member_has_a_path() -> None:
    assert rendered() == (
        ";; hms.postgres cluster=hospital primary=DB-2 operation=20261122T154500Z-failover-3fa9\n"
        ";; Written by hms.postgres; a switchover or failover replaces it whole.\n"
        "[databases]\n"
        "hospital = host=fe80::2 port=5433 dbname=hospital\n"
        "hms_path_db1 = host=10.0.0.1 port=5432 dbname=hospital pool_size=1\n"
        "hms_path_db_2 = host=fe80::2 port=5433 dbname=hospital pool_size=1\n"
    )


def test_the_head_tells_who_wrote_it_for_whom() -> None:
    assert head(rendered()) == {
        "cluster": "hospital",
        "primary": "DB-2",
        "operation": "20261122T154500Z-failover-3fa9",
    }
    ours = ";; hms.postgres cluster=a primary=b"
    for foreign in ("", "[databases]\n", f"{ours}\n", f"x{ours} operation=c"):
        assert head(foreign) is None


def test_options_stand_in_the_entry() -> None:
    line = rendered(databases=[{**HOSPITAL, "options": {"pool_size": 20, "connect_query": "SET x = 'y'"}}])
    assert "hospital = host=fe80::2 port=5433 dbname=hospital pool_size=20 connect_query='SET x = ''y'''\n" in line


@pytest.mark.parametrize("name", ["hospital", "Hospital", "a.b", "a-b", "9x"])
def test_plain_database_names_stand_as_they_are(name: str) -> None:
    assert rendered(databases=[{"name": name, "dbname": name}]).splitlines()[3].startswith(f"{name} = ")


@pytest.mark.parametrize("name", ["a b", 'a"b', "a=b", "a;b", "a#b", "*", "größe", "it's", "per%cent"])
def test_a_name_that_pgbouncer_can_t_read_is_refused(name: str) -> None:
    """Its parser knows no quotes on the left; one such line and no process starts or reloads."""
    with pytest.raises(HmsError, match="cannot be a database's name in PgBouncer's databases file") as caught:
        rendered(databases=[{"name": name, "dbname": "plain"}])
    assert caught.value.reason == "bad_name"


@pytest.mark.parametrize(
    ("value", "expected"),
    [("a b", "dbname='a b'"), ("it's", "dbname='it''s'"), ("a=b", "dbname='a=b'"), ("%x;y", "dbname='%x;y'")],
)
def test_odd_values_are_quoted(value: str, expected: str) -> None:
    assert expected in rendered(databases=[{"name": "hospital", "dbname": value}])


@pytest.mark.parametrize(
    "changes",
    [
        {"databases": [{"name": "a\n[pgbouncer]\nadmin_users=*", "dbname": "a"}]},
        {"databases": [{"name": "a", "dbname": "a\nb = host=evil"}]},
        {"databases": [{"name": "a", "dbname": ""}]},
        {"databases": [{"name": "", "dbname": "a"}]},
        {"databases": [{**HOSPITAL, "options": {"connect_query": "SELECT 1\r\nx"}}]},
        {"members": [Member("DB-2", "10.0.0.1\x00", 5432)]},
        {"cluster": "two words"},
        {"cluster": "line\nbreak"},
        {"operation": ""},
        {"primary": "a b", "members": [Member("a b", "10.0.0.1", 5432)]},
    ],
)
def test_what_would_break_the_file_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(HmsError, match="cannot be") as caught:
        rendered(**changes)
    assert caught.value.reason == "bad_name"


@pytest.mark.parametrize(("member", "entry"), [("db1", "hms_path_db1"), ("DB-2.lan", "hms_path_db_2_lan")])
def test_the_path_to_a_member(member: str, entry: str) -> None:
    assert path_entry(member) == entry
