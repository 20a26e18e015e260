# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Facts travel as JSON and come back as they were."""

from __future__ import annotations

import dataclasses
import json

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import (
    Busy,
    ClusterFacts,
    MemberFacts,
    Sender,
    Slot,
    as_dict,
    from_dict,
)
from ansible_collections.hms.postgres.tests.unit.plugins.engine_facts import (
    cluster,
    down,
    gone,
    pooler,
    primary,
    standby,
)

FULL = cluster(
    primary(
        senders=(Sender("db2", "streaming", "sync", 1, 2, 0.5),),
        slots=(Slot("db2", True, "reserved", 3),),
        busy=(Busy(1, "app", "web", "active", 2.0),),
        weak_commit_roles=("a", "b"),
        pending_restart=("max_connections",),
        client_addresses={"10.0.0.9": 3},
        settings={"hot_standby": "on"},
        fence={"operation": "x"},
        last_operation={"id": "y"},
    ),
    standby(),
    gone("db3"),
    poolers=[pooler(), pooler("bouncer2", reachable=False, processes=())],
    policy="strict",
)


def test_a_cluster_survives_the_wire() -> None:
    assert from_dict(ClusterFacts, json.loads(json.dumps(as_dict(FULL)))) == FULL


def test_what_a_newer_peer_adds_is_passed_over() -> None:
    data = {**as_dict(standby()), "mood": "good"}
    data["receiver"] = {**data["receiver"], "colour": "blue"}
    assert from_dict(MemberFacts, data) == standby()


@pytest.mark.parametrize(
    ("facts", "role"),
    [
        (primary(), "primary"),
        (standby(), "standby"),
        (gone(), "unknown"),
        (down(), "down"),
        (down(fence={"operation": "x"}), "fenced"),
        (down(running=True), "hung"),
        (primary(fence={"operation": "x"}), "primary"),
    ],
)
def test_one_word_for_a_member(facts: MemberFacts, role: str) -> None:
    assert facts.role == role


def test_who_is_what() -> None:
    assert [member.name for member in FULL.primaries] == ["db1"]
    assert [member.name for member in FULL.standbys] == ["db2"]
    assert FULL.member("db3") == gone("db3")
    assert FULL.member("db9") is None
    assert FULL.address_of("10.0.0.2:5432") == "db2"
    assert FULL.address_of("10.9.9.9:1") == "10.9.9.9:1"
    held = dataclasses.replace(pooler().processes[0], paused=True)
    assert pooler(processes=(pooler().processes[1], held)).paused
    assert not pooler().paused
