# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What forbids a switchover or a failover, and who is the best candidate. Pure. PRIVATE.

Every refusal has a name; where `overridable`, naming it in ``force`` overrides this one rule and no other.
"""

from __future__ import annotations

import typing as t

from .._clock import parse_iso
from .model import ClusterFacts, MemberFacts
from .plan import Refusal, Request, leader

STALE_MESSAGE = 10.0
"""Seconds without a word from the upstream after which a receiver doesn't count as streaming."""
ARCHIVED_SOON = 2
"""WAL segments that may wait for the archiver: it has them within moments."""


def for_switchover(facts: ClusterFacts, request: Request) -> list[Refusal]:
    """Everything that forbids it, the gravest first."""
    primary = leader(facts)
    candidate = facts.member(request.candidate)
    found = [*_identity(facts, request, candidate), *one_primary(facts)]
    if primary is not None and candidate is not None and all(refusal.overridable for refusal in found):
        found += _streaming(primary, candidate)
        found += _caught_up(primary, candidate, request)
        found += quiet(primary, request)
    found += poolers(facts, planned=True)
    found += consent(facts, request)
    return found


def for_failover(
    facts: ClusterFacts, request: Request, *, old: MemberFacts | None, candidate: MemberFacts | None
) -> list[Refusal]:
    """Everything that forbids it, the gravest first."""
    found = _identity(facts, request, facts.member(request.candidate)) if request.candidate else []
    if len(facts.primaries) > 1:
        found += one_primary(facts)
    found += _still_alive(facts, candidate)
    if candidate is None:
        if not found:
            found.append(_no_candidate(facts))
    else:
        found += _lineage(facts, candidate)
        found += _behind_rpo(candidate, old, request, facts)
        found += _synchrony(facts, candidate, old)
    found += _fence(facts, request, old)
    found += poolers(facts, planned=False)
    found += _quorum(facts)
    found += consent(facts, request)
    return found


def lost_primary(facts: ClusterFacts) -> MemberFacts | None:
    """The member that led until now: where the bouncers lead, or whom the standbys were following."""
    votes: dict[str, int] = {}
    for pooler in facts.poolers:
        if pooler.file_primary:
            votes[pooler.file_primary] = votes.get(pooler.file_primary, 0) + 1
    for member in facts.standbys:
        conninfo = member.settings.get("primary_conninfo", "")
        for other in facts.members:
            if f"host='{other.address}'" in conninfo and f"port='{other.port}'" in conninfo:
                votes[other.name] = votes.get(other.name, 0) + 1
    for name in sorted(votes, key=lambda name: -votes[name]):
        voted = facts.member(name)
        if voted is not None and not voted.standby:
            return voted
    return next((member for member in facts.members if not member.standby and not member.standby_signal), None)


def choose_candidate(facts: ClusterFacts, request: Request) -> MemberFacts | None:
    """The standby asked for, or the most advanced eligible one: timeline first, then position, then priority."""
    if request.candidate:
        member = facts.member(request.candidate)
        return member if member is not None and member.standby else None
    eligible = [member for member in facts.standbys if member.may_be_primary and not member.apply_delay]
    return max(eligible, key=lambda member: (member.timeline, member.lsn, member.priority), default=None)


def warnings(facts: ClusterFacts, candidate: MemberFacts, primary: MemberFacts | None) -> tuple[str, ...]:
    """What doesn't forbid anything but should be known."""
    found = []
    if primary is not None and primary.version and candidate.version != primary.version:
        found.append(f"{primary.name} runs {primary.version}, {candidate.name} runs {candidate.version}.")
    if primary is not None:
        known = {pooler.address for pooler in facts.poolers} | {member.address for member in facts.members}
        direct = {address: count for address, count in primary.client_addresses.items() if address not in known}
        if direct:
            where = ", ".join(f"{count} from {address}" for address, count in sorted(direct.items()))
            found.append(f"Clients are connected to {primary.name} past the bouncers ({where}); they are cut off.")
    for member in facts.members:
        if member.weak_commit_roles and facts.sync_policy != "async":
            found.append(
                "These settings acknowledge before a standby has the write: " + ", ".join(member.weak_commit_roles)
            )
            break
    if primary is not None and primary.prepared_transactions:
        found.append(f"{primary.prepared_transactions} prepared transactions wait on {primary.name}; they go along.")
    return tuple(found)


def _identity(facts: ClusterFacts, request: Request, candidate: MemberFacts | None) -> list[Refusal]:
    known = ", ".join(member.name for member in facts.members)
    if not request.candidate:
        return [Refusal("no_candidate", "No candidate was named.", f"Add -e candidate=…, one of {known}.", False)]
    if candidate is None:
        text = f"{request.candidate!r} is not a database host of {facts.cluster}; its members are {known}."
        return [Refusal("unknown_candidate", text, "Name one of them.", False)]
    if not candidate.reachable:
        text = f"{candidate.name} can't be reached: {candidate.error}"
        return [Refusal("candidate_unreachable", text, "Bring it back, or name another candidate.", False)]
    if candidate.writable:
        return []
    if not candidate.standby:
        text = f"{candidate.name} is not a running standby: it is {candidate.role}. {candidate.error}".strip()
        return [Refusal("candidate_not_standby", text, "See playbooks/status.yml; rejoin it first.", False)]
    found = []
    if not candidate.may_be_primary:
        text = f"{candidate.name} is not meant to lead (may_be_primary is false in the inventory)."
        found.append(Refusal("not_eligible", text, "Name another candidate."))
    if candidate.apply_delay:
        text = f"{candidate.name} delays replay by {candidate.apply_delay:g} s on purpose."
        found.append(Refusal("delayed_standby", text, "Name another candidate.", False))
    return found


def one_primary(facts: ClusterFacts) -> list[Refusal]:
    """Exactly one member takes writes."""
    names = ", ".join(member.name for member in facts.primaries)
    if len(facts.primaries) > 1:
        text = f"More than one member takes writes: {names}. They have diverged or will."
        return [Refusal("two_primaries", text, "Stop the one clients don't use, now; then rejoin it.", False)]
    if not facts.primaries:
        text = "No member that can be reached takes writes, so there is nothing to switch over from."
        silent = "; ".join(f"{member.name}: {member.error}" for member in facts.members if not member.reachable)
        text += f" Not reached: {silent}." if silent else ""
        return [Refusal("no_primary", text, "Use playbooks/dr_failover.yml, or start the primary.", False)]
    return []


def _streaming(primary: MemberFacts, candidate: MemberFacts) -> list[Refusal]:
    found = []
    control, other = candidate.control, primary.control
    if control is not None and other is not None and control.system_identifier != other.system_identifier:
        text = f"{candidate.name} belongs to another cluster (system identifier {control.system_identifier})."
        return [Refusal("other_system", text, "Re-clone it.", False)]
    receiver = candidate.receiver
    if receiver is None or receiver.status != "streaming":
        text = f"{candidate.name} is not streaming from {primary.name}."
        found.append(Refusal("not_streaming", text, "See its log; check slot, pg_hba and password.", False))
    elif (receiver.sender_host, receiver.sender_port) != (primary.address, primary.port):
        text = f"{candidate.name} streams from {receiver.sender_host}:{receiver.sender_port}, not from {primary.name}."
        found.append(Refusal("cascaded", text, "Choose a standby that streams from the primary itself.", False))
    if candidate.timeline != primary.timeline:
        text = f"{candidate.name} is on timeline {candidate.timeline}, {primary.name} on {primary.timeline}."
        found.append(Refusal("timeline_behind", text, "Let it catch up, or rejoin it.", False))
    if candidate.replay_paused:
        text = f"Replay is paused on {candidate.name}."
        found.append(Refusal("replay_paused", text, "SELECT pg_wal_replay_resume() there.", False))
    return found


def _caught_up(primary: MemberFacts, candidate: MemberFacts, request: Request) -> list[Refusal]:
    lag = max(0, primary.lsn - candidate.replay_lsn)
    age = candidate.replay_age or 0.0
    if lag > 16 * 1024 * 1024 and age > request.rpo_seconds:
        text = f"{candidate.name} is {lag} bytes and {age:.0f} s behind; clients would wait for it."
        return [Refusal("candidate_behind", text, "Wait until it has caught up.")]
    return []


def quiet(primary: MemberFacts, request: Request) -> list[Refusal]:
    """Nothing works on the primary that its stop would cut."""
    found = []
    if primary.backups_running:
        text = f"{primary.backups_running} base backups are being taken from {primary.name}; they would be cut."
        found.append(Refusal("backup_running", text, "Wait until they are done."))
    if primary.ready_segments > ARCHIVED_SOON:
        text = (
            f"{primary.ready_segments} WAL segments of {primary.name} wait to be archived. A new primary archives none "
            "of what it got by streaming, so recovery to a point in time would end where they are missing."
        )
        step = "Bring the archive back and wait; or override, and make a full backup right after."
        found.append(Refusal("archive_behind", text, step))
    old = [busy for busy in primary.busy if busy.age > request.hold_seconds]
    if old:
        one = old[0]
        text = (
            f"{len(old)} transactions have run for longer than hold_seconds ({request.hold_seconds:g} s), the oldest "
            f"for {one.age:.0f} s: pid {one.pid} of {one.user} ({one.application_name}), {one.state}."
        )
        found.append(Refusal("long_transactions", text, "Let them end, end them, or raise hold_seconds."))
    return found


def poolers(facts: ClusterFacts, *, planned: bool) -> list[Refusal]:
    """Every bouncer can be told to hold its clients."""
    found = []
    for pooler in facts.poolers:
        broken = [process.name for process in pooler.processes if not process.reachable]
        if not pooler.reachable:
            text = f"The bouncer host {pooler.name} can't be reached: {pooler.error}"
        elif broken:
            text = f"PgBouncer processes {', '.join(broken)} on {pooler.name} don't answer on their console."
        else:
            text = ""
        if text:
            next_step = "Bring it back. If it is dead for good and no client can use it, override."
            found.append(Refusal("bouncer_unreachable", text, next_step))
        modes = {mode for process in pooler.processes for mode in process.pool_modes}
        if planned and "session" in modes:
            text = f"{pooler.name} pools by session: holding its clients would wait until they disconnect."
            found.append(Refusal("session_pooling", text, "Use transaction pooling."))
    if not facts.poolers:
        found.append(
            Refusal("no_bouncers", "No bouncer is known, so clients can't be led over.", "Name them in the inventory.")
        )
    return found


def _still_alive(facts: ClusterFacts, candidate: MemberFacts | None) -> list[Refusal]:
    primary = leader(facts)
    if primary is not None and candidate is not None:
        text = f"{primary.name} is alive and takes writes."
        return [Refusal("primary_alive", text, f"Use playbooks/switchover.yml -e candidate={candidate.name}.")]
    old = lost_primary(facts)
    if old is None or old.reachable:
        return []
    for member in facts.standbys:
        if _hears(member, old):
            text = f"{old.name} can't be reached from here, but {member.name} still receives WAL from it: it lives."
            return [Refusal("primary_alive", text, "Repair the way to it; then switch over.")]
    return []


def _hears(member: MemberFacts, upstream: MemberFacts) -> bool:
    receiver = member.receiver
    if receiver is None or receiver.status != "streaming" or receiver.message_age >= STALE_MESSAGE:
        return False
    return (receiver.sender_host, receiver.sender_port) == (upstream.address, upstream.port)


def _no_candidate(facts: ClusterFacts) -> Refusal:
    seen = "; ".join(f"{member.name}: {member.role} {member.error}".strip() for member in facts.members)
    return Refusal(
        "no_candidate",
        f"No standby runs that could take over ({seen}).",
        "Start a standby, or restore from the last backup.",
        False,
    )


def _lineage(facts: ClusterFacts, candidate: MemberFacts) -> list[Refusal]:
    newest = max(member.timeline for member in facts.members)
    if candidate.timeline < newest:
        ahead = ", ".join(member.name for member in facts.members if member.timeline == newest)
        text = f"{candidate.name} is on timeline {candidate.timeline}, but {ahead} is on {newest}: newer work is there."
        return [Refusal("timeline_behind", text, f"Promote one of {ahead}.")]
    others = [member for member in facts.standbys if member.timeline == newest and member.lsn > candidate.lsn]
    if others:
        best = max(others, key=lambda member: member.lsn)
        text = f"{best.name} has {best.lsn - candidate.lsn} bytes more than {candidate.name}."
        return [Refusal("not_most_advanced", text, f"Promote {best.name}, or leave the choice to us.")]
    return []


def _behind_rpo(
    candidate: MemberFacts, old: MemberFacts | None, request: Request, facts: ClusterFacts
) -> list[Refusal]:
    missing = None if facts.sync_policy == "strict" else missing_seconds(candidate, old)
    if missing is None or missing <= request.rpo_seconds:
        return []
    text = (
        f"{candidate.name} may lack the last {missing:.0f} s of the old primary's work, more than the RPO of "
        f"{request.rpo_seconds:.0f} s. That is an upper bound: without writes in that time nothing is missing."
    )
    return [Refusal("behind_rpo", text, "If no write came in that time, or the loss is accepted, override.")]


def missing_seconds(candidate: MemberFacts, old: MemberFacts | None) -> float | None:
    """How much of the old primary's work the candidate may lack at most, in seconds; None when nothing tells.

    Where the old primary's disk can be read, its end is the last write to its log: that it lies in ruins for hours
    before anybody comes loses nothing. Where it can't, its end may be now.
    """
    if old is not None and old.reachable and old.control is not None and old.wal_written_at:
        has_checkpoint = old.control.checkpoint_lsn < candidate.lsn
        if has_checkpoint and old.control.state == "shut down":
            return 0.0
        known = parse_iso(candidate.last_commit_at).timestamp() if candidate.last_commit_at else 0.0
        if has_checkpoint:
            known = max(known, old.control.written_at)
        return max(0.0, old.wal_written_at - known) if known else None
    if candidate.receiver is not None and candidate.receiver.status == "streaming":
        return candidate.receiver.message_age
    return candidate.replay_age


def _synchrony(facts: ClusterFacts, candidate: MemberFacts, old: MemberFacts | None) -> list[Refusal]:
    old_name = old.name if old is not None else ""
    left = [
        member
        for member in facts.standbys
        if member.name not in (candidate.name, old_name) and member.may_be_primary and not member.apply_delay
    ]
    if facts.sync_policy == "strict" and not left:
        text = (
            f"Under the policy strict no write is acknowledged without a standby, and none is left beside "
            f"{candidate.name}: clients would wait until {old_name or 'another host'} rejoins."
        )
        next_step = "Override to let it lead without a synchronous standby until the rejoin; the report says so."
        return [Refusal("no_sync_standby", text, next_step)]
    return []


def _fence(facts: ClusterFacts, request: Request, old: MemberFacts | None) -> list[Refusal]:
    if old is not None and old.reachable:
        return []
    name = old.name if old is not None else "the old primary"
    voters = [member for member in facts.members if member is not old and member.may_be_primary]
    unseen = ", ".join(member.name for member in voters if not member.reachable)
    if request.fence_command or (facts.sync_policy == "strict" and not unseen):
        return []
    text = f"Nothing proves that {name} is down or cut off: its host can't be reached, and it may still take writes."
    if facts.sync_policy == "strict":
        text = (
            f"Nothing proves that {name} is down or cut off: its host can't be reached, and {unseen} neither. "
            "Together they may still acknowledge writes."
        )
    next_step = "Power it off or cut it off and give that as -e fence_command=…, whose exit code 0 is the proof."
    return [Refusal("no_fence_proof", text, next_step)]


def _quorum(facts: ClusterFacts) -> list[Refusal]:
    hosts: list[t.Any] = [*facts.members, *facts.poolers]
    reachable = sum(1 for host in hosts if host.reachable)
    if reachable * 2 > len(hosts):
        return []
    text = f"Only {reachable} of {len(hosts)} hosts can be reached: this may be the smaller side of a broken network."
    return [Refusal("no_quorum", text, "Look from the other side first.")]


def consent(facts: ClusterFacts, request: Request) -> list[Refusal]:
    """Whether the operator named the cluster that this is."""
    if request.check_only or request.confirm == facts.cluster:
        return []
    if request.confirm:
        text = f"confirm is {request.confirm!r}, but this cluster is {facts.cluster!r}."
        return [Refusal("wrong_confirm", text, f"Give -e confirm={facts.cluster} if it is the one you mean.", False)]
    if facts.environment == "production":
        text = "This is production: the cluster's name must be given as confirm."
        return [Refusal("no_confirm", text, f"Give -e confirm={facts.cluster}.", False)]
    return []
