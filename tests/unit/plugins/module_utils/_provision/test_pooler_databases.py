# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster import databases_file, member_config
from ansible_collections.hms.postgres.plugins.module_utils._cluster.databases_file import Member
from ansible_collections.hms.postgres.plugins.module_utils._cluster.member_config import BouncerHost
from ansible_collections.hms.postgres.plugins.module_utils._errors import Refused
from ansible_collections.hms.postgres.plugins.module_utils._provision.pooler_databases import (
    DatabasesPlan,
    Loaded,
    Target,
    plan,
    wanted_targets,
)

MEMBERS = [
    {"name": name, "address": address, "port": 5432, "priority": 100, "may_be_primary": True}
    for name, address in (("db1", "10.0.0.1"), ("db2", "10.0.0.2"))
]
RAW = {
    "kind": "bouncer",
    "name": "bouncer1",
    "cluster": "hospital",
    "environment": "staging",
    "address": "10.0.0.9",
    "state_directory": "/s",
    "database": "hospital",
    "os_user": "postgres",
    "port": 6432,
    "databases_file": "/c/databases.ini",
    "databases": [{"name": "hospital", "dbname": "hospital"}],
    "processes": [{"name": "1", "socket_directory": "/r/1", "config_file": "/c/1.ini", "pidfile": "/r/1/pid"}],
    "monitor": {"user": "hms_monitor", "passfile": "/m"},
    "members": MEMBERS,
}


def bouncer() -> BouncerHost:
    made = member_config.parse(RAW)
    assert isinstance(made, BouncerHost)
    return made


def content(primary: str, operation: str = "site") -> str:
    return databases_file.render(
        cluster="hospital",
        operation=operation,
        primary=primary,
        databases=[{"name": "hospital", "dbname": "hospital"}],
        members=[Member("db1", "10.0.0.1", 5432), Member("db2", "10.0.0.2", 5432)],
    )


def loaded(primary: str, *, held: bool = False, **more: Target) -> Loaded:
    return Loaded(name="1", targets={**wanted_targets(bouncer(), primary), **more}, held=held)


def made(current: str, *processes: Loaded, primary: str = "db1") -> DatabasesPlan:
    return plan(
        bouncer(), primary=primary, current=current, file_right=lambda wanted: wanted == current, loaded=processes
    )


def test_a_new_host_gets_the_file_after_the_target_was_asked() -> None:
    result = made("")
    assert result.write
    assert result.ask_target
    assert result.reload == ()
    assert result.content == content("db1")
    assert result.lines("db1") == ["write the databases file for db1"]


def test_in_order_nothing_is_done_or_asked() -> None:
    result = made(content("db1"), loaded("db1"))
    assert result.lines("db1") == []
    assert not result.ask_target


def test_the_name_of_the_operation_that_led_here_stays() -> None:
    after_failover = content("db2", "20261122T154500Z-failover-3fa9")
    assert made(after_failover, loaded("db2"), primary="db2").lines("db2") == []


def test_the_clusters_truth_is_followed_after_asking_it() -> None:
    result = made(content("db1"), loaded("db1"), primary="db2")
    assert result.lines("db2") == ["write the databases file for db2", "reload process 1"]
    assert result.ask_target


def test_a_process_that_lags_behind_its_file_is_reloaded() -> None:
    result = made(content("db2"), loaded("db1"), primary="db2")
    assert result.lines("db2") == ["reload process 1"]
    assert result.ask_target


def test_an_entry_of_a_member_that_is_gone_is_noticed() -> None:
    result = made(content("db1"), loaded("db1", hms_path_db9=("10.0.0.77", 5432, "hospital")))
    assert result.reload == ("1",)


def test_databases_of_others_are_not_our_matter() -> None:
    assert made(content("db1"), loaded("db1", billing=("10.9.9.9", 5432, "billing"))).reload == ()


def test_clients_that_are_held_are_left_alone() -> None:
    assert made(content("db1"), loaded("db1", held=True)).lines("db1") == []
    with pytest.raises(Refused) as caught:
        made(content("db1"), loaded("db1", held=True), primary="db2")
    assert caught.value.reason == "pool_held"


def test_another_clusters_file_is_replaced_only_after_asking() -> None:
    other = dataclasses.replace(bouncer(), cluster="clinic")
    result = plan(other, primary="db1", current=content("db1", "x"), file_right=lambda _text: False, loaded=[])
    assert result.ask_target
    assert t.cast(dict[str, str], databases_file.head(result.content))["operation"] == "site"
