# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The status on one screen: problems first, nothing hidden, any key may be missing."""

from __future__ import annotations

import copy
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.plugin_utils._report.status import render_status

CLUSTER: dict[str, t.Any] = {
    "cluster": "hospital",
    "environment": "demo",
    "at": "2026-11-22T15:45:00.123Z",
    "members": [
        {
            "name": "DB-1",
            "reachable": True,
            "role": "down",
            "timeline": 1,
            "lsn": "0/5A31F2D8",
            "version": "15.18",
            "fence": {"operation": "20261122T031214Z-failover-3fa9", "note": ""},
        },
        {
            "name": "db2",
            "reachable": True,
            "role": "primary",
            "timeline": 2,
            "lsn": "0/5B0A77E8",
            "version": "15.18",
            "slots": [
                {"name": "db_1", "active": False, "retained_bytes": 734003200, "wal_status": "extended"},
                {"name": "db3", "active": True, "retained_bytes": 0, "wal_status": "reserved"},
            ],
            "fence": None,
            "pending_restart": ["shared_buffers"],
            "sync_names": 'ANY 1 ("DB-1", "db3")',
        },
        {
            "name": "db3",
            "reachable": True,
            "role": "standby",
            "timeline": 2,
            "lsn": "0/5B0A77E8",
            "lag_bytes": 304,
            "lag_seconds": 0.002,
            "sync_state": "quorum",
            "version": "15.17",
            "streaming": True,
            "upstream": "db2",
            "slots": [],
        },
    ],
    "poolers": [
        {
            "name": "bouncer1",
            "reachable": True,
            "processes": [
                {
                    "name": "1",
                    "points_at": "db2",
                    "paused": False,
                    "clients_active": 3,
                    "clients_waiting": 0,
                    "servers": 5,
                },
                {"name": "2", "points_at": "db2", "paused": True, "clients_waiting": 12, "servers": [{}, {}]},
            ],
        },
        {"name": "bouncer2", "reachable": False, "error": "no route to host"},
    ],
    "last_operation": {
        "id": "20261122T031214Z-failover-3fa9",
        "operation": "failover",
        "status": "done",
        "at": "2026-11-22T03:12:18Z",
        "message": "Every bouncer writes to db2.",
    },
    "problems": [
        {"severity": "warning", "what": "DB-1 is fenced.", "do": "rejoin.yml -e host=DB-1"},
        {"severity": "critical", "what": "Process 2 on bouncer1 is paused.", "do": "Run the last operation again."},
    ],
}


def shown(**changes: t.Any) -> str:
    return render_status({**copy.deepcopy(CLUSTER), **changes})


def line(text: str, start: str) -> str:
    found = [candidate for candidate in text.split("\n") if candidate.startswith(start)]
    assert found, f"no line starts with {start!r}:\n{text}"
    return found[-1]


def words(text: str, start: str) -> list[str]:
    """The cells of a row."""
    return [cell for cell in line(text, start).split("  ") if cell.strip()]


def test_one_screen() -> None:
    text = shown()
    assert max(map(len, text.split("\n"))) <= 100
    assert len(text.split("\n")) <= 40
    assert text.startswith("hospital (demo)  ")
    assert text.split("\n", maxsplit=1)[0].endswith("22 November 2026, 15:45:00.123 UTC")
    assert text.split("\n")[2] == "2 problems, 1 critical. Primary: db2. 1 host unreachable."


def test_critical_problems_come_first_with_what_to_do() -> None:
    text = shown()
    assert text.index("CRITICAL  Process 2 on bouncer1 is paused.") < text.index("WARNING   DB-1 is fenced.")
    assert "  do:     Run the last operation again." in text
    assert "PROBLEM   (no words)" in shown(problems=[{}])


def test_members() -> None:
    text = shown()
    assert line(text, "DB-1 ").split() == ["DB-1", "down,", "fenced", "1", "0/5A31F2D8", "-", "-", "INACTIVE", "-"]
    assert line(text, "db2 ").split() == ["db2", "primary", "2", "0/5B0A77E8", "-", "-", "-", "-"]
    assert line(text, "db3     standby").split()[-9:] == [
        *["304", "bytes,", "2", "ms", "quorum", "active", "streaming", "from", "db2"],
    ]
    assert "  PostgreSQL 15.18 on DB-1, db2; 15.17 on db3" in text
    assert '  db2 waits for: ANY 1 ("DB-1", "db3")' in text
    assert "  db2 needs a restart for: shared_buffers" in text
    assert "  DB-1 is fenced: operation 20261122T031214Z-failover-3fa9\n" in text


def test_slots() -> None:
    text = shown()
    assert line(text, "db_1 ").split() == ["db_1", "db2", "INACTIVE", "700.0", "MiB", "extended"]
    assert "SLOT" not in [found.split("  ")[0] for found in shown(members=[]).split("\n")]


def test_poolers() -> None:
    text = shown()
    assert line(text, "bouncer1  1").split() == ["bouncer1", "1", "db2", "no", "3", "0", "5"]
    assert line(text, "bouncer1  2").split() == ["bouncer1", "2", "db2", "PAUSED", "-", "12", "2"]
    assert line(text, "bouncer2  unreachable").split()[:2] == ["bouncer2", "unreachable"]
    assert "  bouncer2: no route to host" in text
    assert "none seen" in shown(poolers=[{"name": "b"}])


def test_the_last_operation() -> None:
    assert "Last operation: failover, done, 22 November 2026, 03:12:18.000 UTC. Every bouncer writes to db2." in shown()
    assert "  Record 20261122T031214Z-failover-3fa9" in shown()
    assert "No operation is recorded." in shown(last_operation=None)
    assert "Last operation: unknown, unfinished." in shown(last_operation={"message": "m"})


@pytest.mark.parametrize(
    ("changes", "summary"),
    [
        ({"problems": []}, "No problem is known. Primary: db2. 1 host unreachable."),
        ({"problems": CLUSTER["problems"][:1], "poolers": []}, "1 warning. Primary: db2."),
        ({"problems": [], "members": [], "poolers": []}, "No problem is known. NO PRIMARY."),
        (
            {"members": [{"name": "a", "role": "primary"}, {"name": "b", "role": "primary"}], "poolers": []},
            "2 problems, 1 critical. 2 PRIMARIES: a, b.",
        ),
    ],
)
def test_the_summary(changes: dict[str, t.Any], summary: str) -> None:
    assert shown(**changes).split("\n")[2] == summary


@pytest.mark.parametrize(
    ("member", "role"),
    [
        ({"role": "unknown", "reachable": False}, "unreachable"),
        ({"role": "primary", "reachable": False}, "primary, unreachable"),
        ({}, "unknown"),
        ({"role": "fenced", "fence": {"by": "x"}}, "fenced"),
    ],
)
def test_roles(member: dict[str, t.Any], role: str) -> None:
    text = shown(members=[{"name": "dbx", **member}])
    assert line(text, "dbx").startswith(f"dbx     {role}  ")


def test_a_standby_that_does_not_stream_shouts() -> None:
    members = [{"name": "dbx", "role": "standby", "streaming": False}, {"name": "dby", "role": "standby"}]
    text = shown(members=members)
    assert "NOT STREAMING" in line(text, "dbx")
    assert line(text, "dby").endswith("-")


def test_small_notes() -> None:
    member = {"name": "dbx", "role": "primary", "sync_names": "", "version": "15.18", "error": "disk is full"}
    text = shown(members=[member])
    assert "  PostgreSQL 15.18\n" in text
    assert "  dbx waits for: no standby (asynchronous)" in text
    assert "  dbx: disk is full" in text


def test_an_empty_cluster() -> None:
    text = render_status({})
    assert "(cluster without a name)" in text
    assert "No database host is known." in text
    assert text.split("\n")[2] == "No problem is known. NO PRIMARY."


def test_nothing_is_promised_of_the_input() -> None:
    odd: list[t.Any] = [None, 7, "x", True, [], ["x"], {}, {"a": 1}, 1e308]
    for value in odd:
        for status in (
            dict.fromkeys(CLUSTER, value),
            {"members": [dict.fromkeys(CLUSTER["members"][1], value)]},
            {"poolers": [dict.fromkeys([*CLUSTER["poolers"][0], "error"], value)], "problems": [{"what": value}]},
            {"members": [{"name": "a", "slots": [dict.fromkeys(["name", "active", "retained_bytes"], value)]}]},
        ):
            assert render_status(status).strip()


def test_long_names_are_cut_to_the_screen() -> None:
    members = [
        {"name": "n" * 80, "role": "standby", "lsn": "FFFFFFFF/FFFFFFFF", "upstream": "u" * 80, "streaming": True}
    ]
    assert max(map(len, shown(members=members).split("\n"))) <= 100
