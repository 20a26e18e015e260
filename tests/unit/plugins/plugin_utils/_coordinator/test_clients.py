# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What clients felt, from samples; and who is synchronous under a new primary."""

from __future__ import annotations

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import ClusterFacts
from ansible_collections.hms.postgres.plugins.module_utils._cluster.plan import Plan
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.clients import first_success_after, judge
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.synchrony import names_for
from ansible_collections.hms.postgres.tests.unit.plugins.engine_facts import cluster, down, gone, primary, standby

ORIGIN = 1000.0
ONE = [[1000.0, 0.01, "ok"], [1000.1, 0.01, "ok"], [1000.2, 0.5, "ok"], [1000.8, 0.01, "ok"]]
TWO = [[1000.0, 0.01, "ok"], [1000.1, 0.01, "failed"], [1000.2, 0.01, "unknown"], [1001.0, 0.02, "ok"]]


def test_counts_losses_and_the_longest_stall() -> None:
    found = judge({"a": ONE, "b": TWO}, {"a": [1, 2, 4], "b": [1, 3, 4]}, origin=ORIGIN)
    assert {key: found[key] for key in ("acknowledged", "failed", "unknown", "lost")} == {
        "acknowledged": 6,
        "failed": 1,
        "unknown": 1,
        "lost": 1,
    }
    assert found["stall"] == {"started": 0.01, "ended": 1.02}
    assert found["longest_stall_seconds"] == 1.01
    assert [sample[0] for sample in found["samples"]] == sorted(sample[0] for sample in found["samples"])
    assert [0.2, 0.5, "ok", "a"] in found["samples"]


def test_a_source_nobody_heard_of_lost_everything_it_was_promised() -> None:
    assert judge({"a": ONE}, {}, origin=ORIGIN)["lost"] == 4


def test_an_unknown_write_that_is_there_is_no_loss() -> None:
    assert judge({"a": [[1000.0, 0.1, "unknown"]]}, {}, origin=ORIGIN)["lost"] == 0


def test_a_stall_begins_with_the_first_attempt_when_nothing_was_acknowledged_before() -> None:
    found = judge({"a": [[1000.0, 0.1, "failed"], [1002.0, 0.5, "ok"]]}, {"a": [2]}, origin=ORIGIN)
    assert found["stall"] == {"started": 0.0, "ended": 2.5}


def test_no_probe_no_stall() -> None:
    found = judge({}, {}, origin=ORIGIN)
    assert "stall" not in found
    assert found["acknowledged"] == 0
    assert judge({"a": []}, {}, origin=ORIGIN)["longest_stall_seconds"] == 0.0


def test_when_writes_went_on() -> None:
    assert first_success_after({"a": ONE, "b": TWO}, 1000.3) == 1000.7
    assert first_success_after({"a": ONE}, 2000.0) is None
    assert first_success_after({}, 0.0) is None


def plan(operation: str, old: str = "db1", new: str = "db2") -> Plan:
    return Plan(operation=operation, summary="", old_primary=old, new_primary=new)


THREE = (standby(), standby("db3"))


@pytest.mark.parametrize(
    ("facts", "operation", "expected"),
    [
        (cluster(primary(), *THREE), "switchover", ""),
        (cluster(primary(), *THREE, policy="strict"), "switchover", 'ANY 1 ("db1", "db3")'),
        (cluster(primary(), standby(), policy="degrade"), "switchover", 'ANY 1 ("db1")'),
        (cluster(down(), *THREE, policy="strict"), "failover", 'ANY 1 ("db1", "db3")'),
        # nobody will stream: writes go on alone until somebody does
        (cluster(down(), standby(), policy="strict"), "failover", ""),
        (cluster(down(), standby(), gone("db3"), policy="degrade"), "failover", ""),
        # one that isn't counted, or comes onto the new timeline in an hour, can't be waited for
        (cluster(down(), standby(), standby("db3", may_be_primary=False), policy="strict"), "failover", ""),
        (cluster(down(), standby(), standby("db3", apply_delay=3600.0), policy="strict"), "failover", ""),
    ],
)
def test_who_is_synchronous_under_the_new_primary(facts: ClusterFacts, operation: str, expected: str) -> None:
    assert names_for(facts, plan(operation), "db2") == expected
