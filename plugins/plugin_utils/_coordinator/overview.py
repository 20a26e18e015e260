# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looking at the whole cluster through its agents, and saying it in the record's and the screen's shape. PRIVATE."""

from __future__ import annotations

import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._clock import Clock, iso
from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import (
    ClusterFacts,
    MemberFacts,
    PoolerFacts,
    as_dict,
    from_dict,
)
from ansible_collections.hms.postgres.plugins.module_utils._cluster.plan import leader
from ansible_collections.hms.postgres.plugins.module_utils._postgres import format_lsn

from .fleet import Fleet

OBSERVE_TIMEOUT = 20.0


class Site(t.NamedTuple):
    """The hosts that the inventory names, and what it says of their addresses."""

    cluster: str
    environment: str
    databases: tuple[str, ...]
    bouncers: tuple[str, ...]
    services: tuple[str, ...] = ()
    """Hosts without a role in the cluster, on which services are stopped and started."""


def observe(fleet: Fleet, site: Site) -> ClusterFacts:
    """The facts of all hosts; one that can't be reached is a fact too."""
    return observe_with_locks(fleet, site)[0]


def observe_with_locks(fleet: Fleet, site: Site) -> tuple[ClusterFacts, dict[str, dict[str, t.Any]]]:
    """The same, and the notes of other operations that hold hosts, by host."""
    hosts = [*site.databases, *site.bouncers]
    answers = fleet.ask({host: ("observe", {}) for host in hosts if fleet.reachable(host)}, OBSERVE_TIMEOUT)
    members, poolers, policy = [], [], "async"
    for host in hosts:
        answer = answers.get(host)
        error = fleet.lines[host].error if answer is None else (answer.error.message if answer.error else "")
        if answer is not None and answer.error is None:
            facts = answer.result["facts"]
            if host in site.databases:
                members.append(from_dict(MemberFacts, facts))
                policy = answer.result["sync_policy"]
            else:
                poolers.append(from_dict(PoolerFacts, facts))
        elif host in site.databases:
            members.append(MemberFacts(name=host, reachable=False, error=error))
        else:
            poolers.append(PoolerFacts(name=host, reachable=False, error=error))
    facts_so_far = ClusterFacts(site.cluster, site.environment, tuple(members), tuple(poolers), policy)
    locks = {host: answer.result["lock"] for host, answer in answers.items() if answer.result.get("lock")}
    return _with_addresses(fleet, facts_so_far), locks


def _with_addresses(fleet: Fleet, facts: ClusterFacts) -> ClusterFacts:
    """Members that can't be reached get the address that the others know them by."""
    import dataclasses

    known: dict[str, dict[str, t.Any]] = {}
    for line in fleet.lines.values():
        for peer in line.hello.get("members", []):
            known[peer["name"]] = peer
    members = tuple(
        dataclasses.replace(member, address=known[member.name]["address"], port=known[member.name]["port"])
        if not member.address and member.name in known
        else member
        for member in facts.members
    )
    return dataclasses.replace(facts, members=members)


def lag_of(member: MemberFacts, primary: MemberFacts | None) -> int | None:
    """Bytes that a standby has not replayed yet; None when nobody can tell."""
    if primary is None or not member.standby:
        return None
    return max(0, primary.lsn - member.replay_lsn)


def _sync_state(member: MemberFacts, primary: MemberFacts | None) -> str:
    if primary is None:
        return ""
    return next((sender.sync_state for sender in primary.senders if sender.application_name == member.name), "")


def for_record(facts: ClusterFacts) -> dict[str, t.Any]:
    """The cluster in the record's `before`/`after` shape."""
    primary = leader(facts)
    return {
        "primary": primary.name if primary else "",
        "sync_policy": facts.sync_policy,
        "members": [_member_row(member, facts, primary) for member in facts.members],
        "poolers": [_pooler_row(pooler, facts) for pooler in facts.poolers],
    }


def _member_row(member: MemberFacts, facts: ClusterFacts, primary: MemberFacts | None) -> dict[str, t.Any]:
    receiver = member.receiver
    lag = lag_of(member, primary)
    return {
        "name": member.name,
        "address": member.address,
        "port": member.port,
        "reachable": member.reachable,
        "error": member.error,
        "role": member.role,
        "timeline": member.timeline,
        "lsn": format_lsn(member.lsn),
        "lag_bytes": lag,
        "lag_seconds": 0.0 if lag == 0 else member.replay_age if member.standby else None,
        "sync_state": _sync_state(member, primary),
        "version": member.version,
        "streaming": receiver is not None and receiver.status == "streaming",
        "upstream": facts.address_of(f"{receiver.sender_host}:{receiver.sender_port}") if receiver else "",
        "slots": [as_dict(slot) for slot in member.slots],
        "fence": member.fence,
        "pending_restart": list(member.pending_restart),
        "sync_names": member.settings.get("synchronous_standby_names", ""),
    }


def _pooler_row(pooler: PoolerFacts, facts: ClusterFacts) -> dict[str, t.Any]:
    targets = {facts.address_of(process.target) for process in pooler.processes if process.reachable}
    return {
        "name": pooler.name,
        "reachable": pooler.reachable,
        "error": pooler.error,
        "points_at": targets.pop() if len(targets) == 1 else "",
        "paused": pooler.paused,
        "clients": sum(process.clients_active + process.clients_waiting for process in pooler.processes),
        "version": next((process.version for process in pooler.processes if process.version), ""),
        "processes": [
            {
                "name": process.name,
                "reachable": process.reachable,
                "error": process.error,
                "points_at": facts.address_of(process.target),
                "paused": process.paused,
                "clients_active": process.clients_active,
                "clients_waiting": process.clients_waiting,
                "servers": process.servers,
            }
            for process in pooler.processes
        ],
    }


def software(facts: ClusterFacts, version: str) -> dict[str, t.Any]:
    """Versions for the record."""
    return {
        "hms.postgres": version,
        "postgresql": {member.name: member.version for member in facts.members if member.version},
        "pgbouncer": {pooler.name: pooler.processes[0].version for pooler in facts.poolers if pooler.processes},
    }


def problems(facts: ClusterFacts) -> list[dict[str, str]]:
    """What is wrong now, gravest first, each with what to do."""
    found = [*_leader_problems(facts)]
    primary = leader(facts)
    for member in facts.members:
        found += _member_problems(member, primary)
    for pooler in facts.poolers:
        found += _pooler_problems(pooler, primary, facts)
    return sorted(found, key=lambda problem: problem["severity"] != "critical")


def _problem(severity: str, what: str, do: str) -> dict[str, str]:
    return {"severity": severity, "what": what, "do": do}


def _leader_problems(facts: ClusterFacts) -> list[dict[str, str]]:
    if len(facts.primaries) > 1:
        names = " and ".join(member.name for member in facts.primaries)
        return [_problem("critical", f"{names} both take writes.", "Stop the one clients don't use, then rejoin it.")]
    if not facts.primaries:
        return [
            _problem("critical", "No member takes writes.", "playbooks/dr_failover.yml --check --diff shows the way.")
        ]
    return []


def _member_problems(member: MemberFacts, primary: MemberFacts | None) -> list[dict[str, str]]:
    name = member.name
    if not member.reachable:
        return [_problem("warning", f"{name} can't be reached: {member.error}", "See whether its host is up.")]
    if member.role in ("down", "fenced", "hung"):
        do = (
            f"playbooks/rejoin.yml -e host={name}"
            if primary is not None
            else "playbooks/dr_failover.yml --check --diff"
        )
        return [_problem("warning", f"{name} is {member.role}. {member.error}".strip(), do)]
    found = []
    if member.standby and (member.receiver is None or member.receiver.status != "streaming"):
        found.append(_problem("warning", f"{name} receives no WAL.", "See its log; check slot, pg_hba and password."))
    for slot in member.slots:
        if slot.wal_status in ("unreserved", "lost"):
            text = f"Slot {slot.name} on {name} is {slot.wal_status}."
            found.append(_problem("warning", text, "Its standby must be rejoined or re-cloned."))
    if member.writable and member.exposed_since:
        text = f"{name} has taken writes without a synchronous standby since {member.exposed_since}."
        found.append(
            _problem("critical", text, "Bring a standby back: playbooks/rejoin.yml. Until then they are on one host.")
        )
    if member.pending_restart:
        text = f"{name} waits for a restart: {', '.join(member.pending_restart)}."
        found.append(_problem("warning", text, "Restart it in a quiet moment, or switch over first."))
    return found


def _pooler_problems(pooler: PoolerFacts, primary: MemberFacts | None, facts: ClusterFacts) -> list[dict[str, str]]:
    if not pooler.reachable:
        return [_problem("warning", f"{pooler.name} can't be reached: {pooler.error}", "See whether its host is up.")]
    found = []
    for process in pooler.processes:
        name = f"PgBouncer {process.name} on {pooler.name}"
        if not process.reachable:
            found.append(_problem("critical", f"{name} doesn't answer: {process.error}", "Start it."))
            continue
        if process.paused:
            found.append(_problem("critical", f"{name} holds its clients.", "Run the last operation again, or RESUME."))
        target = facts.address_of(process.target)
        if primary is not None and target != primary.name:
            text = f"{name} leads to {target or 'several servers'}, but {primary.name} is primary."
            found.append(_problem("critical", text, "playbooks/dr_failover.yml finishes what was left undone."))
    return found


def for_screen(facts: ClusterFacts, clock: Clock) -> dict[str, t.Any]:
    """The cluster as data for `status.yml` and for who reads the info module."""
    operations = [member.last_operation for member in facts.members if member.last_operation]
    operations += [pooler.last_operation for pooler in facts.poolers if pooler.last_operation]
    return {
        "cluster": facts.cluster,
        "environment": facts.environment,
        "at": iso(clock.now()),
        **for_record(facts),
        "last_operation": max(operations, key=lambda operation: operation["id"], default=None),
        "problems": problems(facts),
    }
