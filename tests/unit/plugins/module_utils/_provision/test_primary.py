# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster import member_config
from ansible_collections.hms.postgres.plugins.module_utils._cluster.member_config import DatabaseHost
from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import MemberFacts, Sender, Slot
from ansible_collections.hms.postgres.plugins.module_utils._errors import Refused
from ansible_collections.hms.postgres.plugins.module_utils._provision.primary import plan


def host(policy: str) -> DatabaseHost:
    members = [
        {"name": name, "address": name, "port": 5432, "priority": 100, "may_be_primary": name != "db4"}
        for name in ("db1", "db2", "db-3", "db4")
    ]
    made = member_config.parse(
        {
            "kind": "database",
            "name": "db1",
            "cluster": "hospital",
            "environment": "staging",
            "address": "db1",
            "state_directory": "/s",
            "database": "hospital",
            "sync_policy": policy,
            "postgresql": {
                "version": 15,
                "instance": "main",
                "port": 5432,
                "socket_directory": "/var/run/postgresql",
                "data_directory": "/d",
                "config_directory": "/c",
                "bin_directory": "/b",
                "os_user": "postgres",
            },
            "replication": {"user": "hms_replication", "passfile": "/p", "slot_name": "db1"},
            "monitor": {"user": "hms_monitor", "passfile": "/m"},
            "members": members,
        }
    )
    assert isinstance(made, DatabaseHost)
    return made


def found(
    names: str = "", *, streaming: t.Sequence[str] = (), slots: t.Sequence[str] = (), **values: t.Any
) -> MemberFacts:
    known: dict[str, t.Any] = {
        "running": True,
        "responsive": True,
        "in_recovery": False,
        "settings": {"synchronous_standby_names": names},
        "senders": tuple(Sender(name, "streaming", "async", 0, 0, 0.0) for name in streaming),
        "slots": tuple(Slot(name, True, "reserved", 0) for name in slots),
    }
    return MemberFacts(name="db1", **{**known, **values})


ALL = 'ANY 1 ("db2", "db-3")'


def test_a_slot_for_each_that_lacks_one() -> None:
    made = plan(host("async"), found(slots=["db2"]), standbys=["db1", "db2", "db-3"], synchronous=False)
    assert made.slots == ("db_3",)
    assert made.lines() == ["create the slot db_3"]


@pytest.mark.parametrize(
    ("policy", "names", "streaming", "wanted"),
    [
        ("async", "", [], None),
        ("async", ALL, [], ""),
        ("strict", ALL, [], None),
        ("strict", "", ["db2"], ALL),
        ("strict", "", ["db-3"], ALL),
        ("degrade", "", ["db2"], ALL),
        ("degrade", 'ANY 1 ("db9")', ["db2"], ALL),
    ],
)
def test_who_commits_wait_for(policy: str, names: str, streaming: list[str], wanted: str | None) -> None:
    made = plan(host(policy), found(names, streaming=streaming), standbys=[], synchronous=True)
    assert made.sync_names == wanted
    assert made.warnings == ()


@pytest.mark.parametrize("streaming", [[], ["db4"], ["pg_receivewal"]])
def test_degrade_does_not_stop_writes_for_nobody(streaming: list[str]) -> None:
    made = plan(host("degrade"), found("", streaming=streaming), standbys=[], synchronous=True)
    assert made.sync_names is None
    assert "No standby streams" in made.warnings[0]


def test_strict_that_is_not_in_force_fails() -> None:
    with pytest.raises(Refused) as caught:
        plan(host("strict"), found(""), standbys=["db2"], synchronous=True)
    assert caught.value.reason == "no_standby_streams"


def test_strict_with_other_names_waits_for_a_standby() -> None:
    made = plan(host("strict"), found('ANY 1 ("db2")'), standbys=[], synchronous=True)
    assert made.sync_names is None
    assert made.warnings


@pytest.mark.parametrize("values", [{"in_recovery": True}, {"running": False, "responsive": False}])
def test_only_a_primary_has_standbys(values: dict[str, t.Any]) -> None:
    with pytest.raises(Refused) as caught:
        plan(host("async"), found(**values), standbys=[], synchronous=True)
    assert caught.value.reason == "not_primary"
