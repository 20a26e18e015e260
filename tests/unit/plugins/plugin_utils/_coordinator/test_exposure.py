# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What status and record say of a primary whose writes need be on no standby."""

from __future__ import annotations

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import ClusterFacts, MemberFacts
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.overview import problems
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.synchrony import exposure

SINCE = "2026-01-01T00:00:00.000Z"


def member(name: str, *, standby: bool = False, names: str = "", exposed: str = "", lead: bool = True) -> MemberFacts:
    settings = {"synchronous_standby_names": names}
    return MemberFacts(
        name,
        running=True,
        responsive=True,
        in_recovery=standby,
        settings=settings,
        exposed_since=exposed,
        may_be_primary=lead,
    )


def cluster(*members: MemberFacts, policy: str = "degrade") -> ClusterFacts:
    return ClusterFacts("hospital", "staging", members, sync_policy=policy)


def told(facts: ClusterFacts) -> list[str]:
    return [problem["what"] for problem in problems(facts) if "standby since" in problem["what"]]


def test_status_says_since_when() -> None:
    assert told(cluster(member("db1", exposed=SINCE))) == [
        f"db1 has taken writes without a synchronous standby since {SINCE}."
    ]


def test_a_standby_takes_no_writes() -> None:
    assert told(cluster(member("db1"), member("db2", standby=True, exposed=SINCE))) == []


@pytest.mark.parametrize("policy", ["degrade", "strict"])
def test_the_record_says_that_commits_wait_for_nobody(policy: str) -> None:
    found = exposure(cluster(member("db2"), member("db1", standby=True), policy=policy), "db2")
    assert (found["host"], found["sync_policy"]) == ("db2", policy)
    assert found["message"].startswith(f"db2 takes writes that are on no standby, although the policy is {policy}.")


@pytest.mark.parametrize(
    "facts",
    [
        cluster(member("db2"), member("db1"), policy="async"),
        cluster(member("db2", names='ANY 1 ("db1")'), member("db1")),
        cluster(member("db2"), member("db1", lead=False)),
        cluster(member("db2", standby=True), member("db1")),
        cluster(member("db1")),
    ],
)
def test_the_record_says_nothing_where_all_is_as_the_policy_wants(facts: ClusterFacts) -> None:
    assert exposure(facts, "db2") == {}
