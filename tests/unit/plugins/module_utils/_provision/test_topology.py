# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import Refused
from ansible_collections.hms.postgres.plugins.module_utils._provision.topology import Found, decide, decide_plainly

FENCE = {"at": "2026-11-22T15:45:00.123Z", "operation": "20261122T154500Z-failover-3fa9", "new_primary": "db2"}


def host(name: str, **values: t.Any) -> Found:
    return Found(name=name, **values)


def primary(name: str = "db1", **values: t.Any) -> Found:
    return host(name, **{"data_present": True, "running": True, "role": "primary", "timeline": 1, **values})


def standby(name: str = "db2", **values: t.Any) -> Found:
    return host(name, **{"data_present": True, "running": True, "role": "standby", "timeline": 1, **values})


def test_the_first_day_follows_the_inventory() -> None:
    made = decide([host("db1"), host("db2"), host("db3")], initial_primary="db2")
    assert made["primary"] == "db2"
    assert made["virgin"]
    assert made["start_primary"]
    assert made["standbys"] == [
        {"name": "db1", "upstream": "db2", "depth": 1},
        {"name": "db3", "upstream": "db2", "depth": 1},
    ]


def test_later_the_cluster_says_who_leads() -> None:
    made = decide([standby("db1"), primary("db2")], initial_primary="db1")
    assert (made["primary"], made["virgin"], made["start_primary"]) == ("db2", False, False)
    assert made["standbys"] == [{"name": "db1", "upstream": "db2", "depth": 1}]


def test_a_stopped_standby_is_still_a_standby() -> None:
    made = decide([primary(), standby(running=False)], initial_primary="db1")
    assert [item["name"] for item in made["standbys"]] == ["db2"]


def test_a_fenced_host_is_left_alone_and_said() -> None:
    made = decide([standby("db1", running=False, fence=FENCE), primary("db2")], initial_primary="db1")
    assert made["standbys"] == []
    assert made["fenced"] == [{"name": "db1", "since": FENCE["at"], "operation": FENCE["operation"]}]
    assert made["notes"] == [f"db1 is fenced since {FENCE['at']}: run rejoin.yml -e host=db1. It is left alone."]


def test_a_silent_host_is_left_out_while_somebody_leads() -> None:
    made = decide([host("db1", asked=False), primary("db2")], initial_primary="db1")
    assert made["unreachable"] == ["db1"]
    assert "did not answer" in made["notes"][0]


def test_cascading_standbys_come_after_what_they_follow() -> None:
    made = decide([primary(), standby("db2", upstream="db3"), standby("db3", upstream="db1")], initial_primary="")
    assert made["standbys"] == [
        {"name": "db3", "upstream": "db1", "depth": 1},
        {"name": "db2", "upstream": "db3", "depth": 2},
    ]


def test_an_upstream_that_leads_now_is_followed_as_the_primary() -> None:
    made = decide([standby("db1"), primary("db2"), standby("db3", upstream="db2")], initial_primary="db1")
    assert {item["name"]: item["depth"] for item in made["standbys"]} == {"db1": 1, "db3": 1}


@pytest.mark.parametrize("gone", [host("db2", asked=False), standby("db2", running=False, fence=FENCE)])
def test_an_upstream_that_is_not_there_is_passed_over(gone: Found) -> None:
    made = decide([primary(), gone, standby("db3", upstream="db2")], initial_primary="db1")
    assert made["standbys"] == [{"name": "db3", "upstream": "db1", "depth": 1}]
    assert any("its upstream db2 is not there" in note for note in made["notes"])


def test_the_only_data_there_is_may_be_started() -> None:
    made = decide([primary(running=False, control_state="shut down"), host("db2")], initial_primary="db2")
    assert (made["primary"], made["virgin"], made["start_primary"]) == ("db1", False, True)


@pytest.mark.parametrize(
    ("hosts", "initial", "reason", "says"),
    [
        ([primary("db1"), primary("db2")], "db1", "two_writable", "db1 and db2"),
        ([primary("db1", fence=FENCE), standby("db2")], "db1", "fenced_but_writable", "db1 is fenced"),
        ([primary(running=False), standby("db2")], "db1", "no_primary", "dr_failover"),
        ([standby("db1", running=False, fence=FENCE), standby("db2")], "db1", "no_primary", "fenced since"),
        ([standby("db2")], "db2", "no_primary", "nobody takes writes"),
        ([host("db1", asked=False), host("db2")], "db2", "primary_unknown", "db1 did not answer"),
        ([host("db1", asked=False), standby("db2")], "db2", "primary_unknown", "dr_failover"),
        ([host("db1"), host("db2")], "db9", "bad_initial_primary", "db9"),
        ([host("db1", may_be_primary=False)], "db1", "bad_initial_primary", "db1"),
        ([host("db1")], "", "bad_initial_primary", "nobody"),
        ([primary(), standby("db2", upstream="db9")], "db1", "unknown_upstream", "db9"),
        ([primary(), standby("db2", upstream="db3"), standby("db3", upstream="db2")], "db1", "upstream_loop", "db2"),
    ],
)
def test_what_cannot_be_decided_is_refused(hosts: list[Found], initial: str, reason: str, says: str) -> None:
    with pytest.raises(Refused) as caught:
        decide(hosts, initial_primary=initial)
    assert caught.value.reason == reason
    assert says in caught.value.full_text()
    assert caught.value.state == "Nothing was touched."
    assert caught.value.next_step


def test_plain_data_in_and_out() -> None:
    members: list[dict[str, t.Any]] = [{"name": "db1"}, {"name": "db2", "upstream": "", "may_be_primary": False}]
    answers: dict[str, dict[str, t.Any]] = {
        "db1": {"instance": {"data_present": True, "running": True, "role": "primary", "timeline": 3}, "fence": {}},
        "db2": {"instance": {"data_present": False, "timeline": None, "control_state": None}, "fence": None},
    }
    made = decide_plainly(members, answers, initial_primary="db1")
    assert made["problem"] == ""
    assert made["primary"] == "db1"
    refused = decide_plainly(members, {}, initial_primary="db1")
    assert "did not answer" in refused["problem"]
    assert refused["reason"] == "primary_unknown"
    assert refused["hosts"] == ["db1: did not answer", "db2: did not answer"]
