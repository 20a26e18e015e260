# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which standbys are to be synchronous under a new primary. Pure. PRIVATE."""

from __future__ import annotations

import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._cluster.member_config import (
    Peer,
    synchronous_standby_names,
)
from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import ClusterFacts
from ansible_collections.hms.postgres.plugins.module_utils._cluster.plan import Plan


def _peers(facts: ClusterFacts) -> list[Peer]:
    return [
        Peer(member.name, member.address, member.port, member.priority, member.may_be_primary)
        for member in facts.members
    ]


def names_for(facts: ClusterFacts, plan: Plan, primary: str) -> str:
    """``synchronous_standby_names`` for `primary`.

    Where no standby will stream (an unplanned failover of the last pair), degrade, or strict by the operator's
    word, leaves it empty: writes are accepted without a standby until the rejoin.
    """
    peers = _peers(facts)
    # One that delays replay on purpose comes onto the new timeline only after its delay: nobody can wait for it.
    able = {member.name for member in facts.standbys if member.may_be_primary and not member.apply_delay}
    streaming = able - {primary}
    if plan.operation == "switchover":
        streaming.add(plan.old_primary)
    streaming -= {plan.old_primary} if plan.operation == "failover" else set()
    if not streaming:
        return ""
    return synchronous_standby_names(facts.sync_policy, primary, peers)


def exposure(facts: ClusterFacts, primary: str) -> dict[str, t.Any]:
    """What the record says when the policy wants commits to wait and they wait for nobody; else nothing."""
    member = facts.member(primary)
    if member is None or not member.writable or member.settings.get("synchronous_standby_names"):
        return {}
    if not synchronous_standby_names(facts.sync_policy, primary, _peers(facts)):
        return {}
    message = (
        f"{primary} takes writes that are on no standby, although the policy is {facts.sync_policy}. "
        "Commits wait for a standby again when one has been brought back."
    )
    return {"host": primary, "sync_policy": facts.sync_policy, "message": message}
