# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From facts and a request to a plan: a pure function, nothing is run and nothing is touched. PRIVATE.

A plan holds the actions in their order, each with its reason; what forbids it (refusals, each with the name
that overrides it, where that is allowed); and what is predicted, so that it can be held against what happened.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .member_config import slot_name
from .model import ClusterFacts, MemberFacts, PoolerFacts

Operation = t.Literal["switchover", "failover"]


@dataclasses.dataclass(frozen=True)
class Request:
    """What was asked.

    Attributes:
        candidate: the member to promote; empty lets a failover choose.
        confirm: must equal the cluster's name in production.
        force: rules that are overridden, by name.
        rpo_seconds: how much acknowledged work may be lost at most.
        hold_seconds: how long held pools may take to come to rest.
        fence_command: argv run on the controller that cuts the old primary off; exit code 0 is its proof.
        check_only: only the plan is wanted, so that a missing `confirm` doesn't matter yet.
    """

    operation: Operation
    candidate: str = ""
    confirm: str = ""
    force: tuple[str, ...] = ()
    rpo_seconds: float = 300.0
    rto_seconds: float = 3600.0
    hold_seconds: float = 3.0
    fence_command: tuple[str, ...] = ()
    check_only: bool = False


@dataclasses.dataclass(frozen=True)
class Refusal:
    """A rule that forbids the operation; `overridden` when the request names it in `force`."""

    rule: str
    message: str
    next_step: str = ""
    overridable: bool = True
    overridden: bool = False


@dataclasses.dataclass(frozen=True)
class Action:
    """One step of a plan, for people and for the record."""

    id: str
    phase: str
    host: str
    what: str
    why: str


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the plan expects, and from what."""

    stall_seconds: float | None = None
    lost_transactions: int | None = 0
    basis: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Plan:
    """A plan as plain data."""

    operation: str
    summary: str
    old_primary: str = ""
    new_primary: str = ""
    siblings: tuple[str, ...] = ()
    poolers: tuple[str, ...] = ()
    actions: tuple[Action, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    warnings: tuple[str, ...] = ()
    predicted: Prediction = dataclasses.field(default_factory=Prediction)
    finishing: bool = False
    """The primary is where it should be; only what an earlier run left undone is done."""

    @property
    def blocked(self) -> tuple[Refusal, ...]:
        """The refusals that hold."""
        return tuple(refusal for refusal in self.refusals if not refusal.overridden)

    @property
    def changed(self) -> bool:
        """Whether carrying it out changes anything."""
        return bool(self.actions)

    def as_record(self) -> dict[str, t.Any]:
        """The plan in the record's shape."""
        return {
            "summary": self.summary,
            "old_primary": self.old_primary,
            "new_primary": self.new_primary,
            "actions": [dataclasses.asdict(action) for action in self.actions],
            "refusals": [dataclasses.asdict(refusal) for refusal in self.refusals],
            "warnings": list(self.warnings),
            "predicted": dataclasses.asdict(self.predicted),
        }


# From measurements of this sequence on a loaded two-core machine: see docs/failover.md.
TYPICAL_HOLD = 0.02
TYPICAL_STOP = 0.15
TYPICAL_PROMOTE = 0.10
TYPICAL_SWITCH_POOLS = 0.02
REPLAY_BYTES_PER_SECOND = 73e6


def leader(facts: ClusterFacts) -> MemberFacts | None:
    """The one writable primary, or None when there is none or more than one."""
    return facts.primaries[0] if len(facts.primaries) == 1 else None


def _pooler_leads(pooler: PoolerFacts, primary: MemberFacts) -> bool:
    wanted = f"{primary.address}:{primary.port}"
    reachable = [process for process in pooler.processes if process.reachable]
    return pooler.file_primary == primary.name and all(process.target == wanted for process in reachable)


def _streams_from(member: MemberFacts, primary: MemberFacts) -> bool:
    receiver = member.receiver
    return receiver is not None and (receiver.sender_host, receiver.sender_port) == (primary.address, primary.port)


def in_chain(member: MemberFacts, facts: ClusterFacts) -> bool:
    """Whether a standby streams from some other standby of the cluster: cascading is allowed."""
    return any(other.standby and _streams_from(member, other) for other in facts.members if other is not member)


def unfinished(facts: ClusterFacts, primary: MemberFacts) -> tuple[Action, ...]:
    """What is missing until every bouncer and every standby agrees that `primary` leads."""
    actions = []
    for pooler in facts.poolers:
        if not pooler.reachable:
            continue
        if not _pooler_leads(pooler, primary):
            actions.append(
                Action("repoint_pools", "critical", pooler.name, f"lead to {primary.name}", "it leads elsewhere")
            )
        if pooler.paused:
            actions.append(Action("resume_pools", "critical", pooler.name, "let the clients go on", "they are held"))
    for member in facts.standbys:
        if not _streams_from(member, primary) and not in_chain(member, facts):
            actions.append(
                Action("follow", "finish", member.name, f"stream from {primary.name}", "it doesn't stream from it")
            )
        idle = idle_slots(member, facts, primary)
        if idle:
            why = f"they keep WAL for members that {primary.name} feeds"
            actions.append(Action("drop_slots", "finish", member.name, f"drop {', '.join(idle)}", why))
    return tuple(actions)


def idle_slots(member: MemberFacts, facts: ClusterFacts, primary: MemberFacts) -> list[str]:
    """Slots on a standby that wait for members who stream from the primary, or lead: they keep WAL for nobody."""
    fed = [other.name for other in facts.standbys if _streams_from(other, primary)]
    waiting = {slot_name(name) for name in (*fed, primary.name) if name != member.name}
    return [slot.name for slot in member.slots if slot.name in waiting and not slot.active]


def _resting(request: Request, facts: ClusterFacts, primary: MemberFacts) -> Plan:
    """The plan when `primary` is what was asked for already. A wrong `confirm` is refused all the same."""
    from . import rules

    actions = unfinished(facts, primary)
    refusals = rules.consent(facts, request) if actions or request.confirm else []
    if actions:
        summary = f"{primary.name} is primary; {len(actions)} things that an earlier run left undone are finished."
    else:
        summary = f"{primary.name} is primary and every bouncer leads to it: there is nothing to do."
    return Plan(
        operation=request.operation,
        summary=summary,
        new_primary=primary.name,
        poolers=tuple(pooler.name for pooler in facts.poolers if pooler.reachable),
        siblings=tuple(member.name for member in facts.standbys),
        actions=actions,
        refusals=_refusals(refusals, request),
        finishing=True,
    )


def _siblings(facts: ClusterFacts, *without: str) -> tuple[str, ...]:
    """The standbys to be led over. Those that a standby feeds stay with it."""
    return tuple(member.name for member in facts.standbys if member.name not in without and not in_chain(member, facts))


def _refusals(refusals: t.Iterable[Refusal], request: Request) -> tuple[Refusal, ...]:
    return tuple(
        dataclasses.replace(refusal, overridden=refusal.overridable and refusal.rule in request.force)
        for refusal in refusals
    )


def plan_switchover(facts: ClusterFacts, request: Request) -> Plan:
    """A planned change of the primary: nothing acknowledged is lost, no transaction fails."""
    from . import rules

    primary = leader(facts)
    if primary is not None and primary.name == request.candidate:
        return _resting(request, facts, primary)
    refusals = _refusals(rules.for_switchover(facts, request), request)
    candidate = facts.member(request.candidate)
    if primary is None or candidate is None or any(not refusal.overridable for refusal in refusals):
        return Plan(
            operation="switchover",
            summary=f"The switchover to {request.candidate or '(no candidate)'} is not possible.",
            old_primary=primary.name if primary else "",
            new_primary=request.candidate,
            refusals=refusals,
        )
    siblings = _siblings(facts, candidate.name)
    poolers = tuple(pooler.name for pooler in facts.poolers if pooler.reachable)
    return Plan(
        operation="switchover",
        summary=f"{candidate.name} takes over from {primary.name}; {primary.name} becomes its standby.",
        old_primary=primary.name,
        new_primary=candidate.name,
        siblings=siblings,
        poolers=poolers,
        actions=_switchover_actions(primary.name, candidate.name, siblings, poolers),
        refusals=refusals,
        warnings=rules.warnings(facts, candidate, primary),
        predicted=_predict_switchover(facts, primary, candidate),
    )


def _switchover_actions(old: str, new: str, siblings: t.Sequence[str], poolers: t.Sequence[str]) -> tuple[Action, ...]:
    actions = [
        Action("checkpoint", "arm", old, "checkpoint", "the one at shutdown is short then"),
        Action("checkpoint", "arm", new, "restartpoint", "the promotion has less to do then"),
        Action(
            "arm_candidate", "arm", new, "slots for the others, short retry interval", "nothing slow is left for later"
        ),
        Action(
            "arm_primary", "arm", old, f"write down that it will follow {new}", "it comes back as a standby by itself"
        ),
    ]
    actions += [
        Action("hold_pools", "critical", pooler, "hold all clients", "none of them sees an error") for pooler in poolers
    ]
    actions += [
        Action("stop_primary", "critical", old, "fast shutdown", "its last record marks the end of its timeline"),
        Action(
            "prove_caught_up", "critical", new, "replay up to the shutdown checkpoint", "nothing acknowledged is lost"
        ),
        Action("commit_demotion", "critical", old, "standby.signal", "it can't come up writable any more"),
        Action("promote", "critical", new, "promote", "point of no return"),
    ]
    actions += [
        Action("repoint_pools", "critical", pooler, f"lead to {new}", f"{new} is the primary") for pooler in poolers
    ]
    actions += [
        Action("resume_pools", "critical", pooler, "let the clients go on", "the primary takes writes")
        for pooler in poolers
    ]
    actions.append(
        Action("start_standby", "critical", old, f"start as a standby of {new}", "the cluster is whole again")
    )
    actions += [
        Action("follow", "finish", sibling, f"stream from {new}", f"{new} is the primary") for sibling in siblings
    ]
    actions += [
        Action("verify", "verify", pooler, "write through every process", "seen, not assumed") for pooler in poolers
    ]
    return tuple(actions)


def _predict_switchover(facts: ClusterFacts, primary: MemberFacts, candidate: MemberFacts) -> Prediction:
    backlog = max(0, primary.lsn - candidate.replay_lsn)
    longest = max((busy.age for busy in primary.busy), default=0.0)
    stall = TYPICAL_HOLD + TYPICAL_STOP + TYPICAL_PROMOTE + TYPICAL_SWITCH_POOLS + backlog / REPLAY_BYTES_PER_SECOND
    basis = [
        f"hold {TYPICAL_HOLD} s, stop {TYPICAL_STOP} s, promote {TYPICAL_PROMOTE} s, bouncers {TYPICAL_SWITCH_POOLS} s",
        f"{backlog} bytes to replay at {REPLAY_BYTES_PER_SECOND / 1e6:.0f} MB/s",
    ]
    if facts.sync_policy != "async":
        stall += 0.1
        basis.append("0.1 s until a synchronous standby streams again")
    if longest:
        basis.append(f"the oldest transaction has run for {longest:.1f} s; clients would wait for its end")
    return Prediction(stall_seconds=round(stall, 3), lost_transactions=0, basis=tuple(basis))


def plan_failover(facts: ClusterFacts, request: Request) -> Plan:
    """An unplanned change: the primary is lost, or must be given up."""
    from . import rules

    primary = leader(facts)
    if primary is not None and request.candidate in ("", primary.name):
        return _resting(request, facts, primary)
    old = primary or rules.lost_primary(facts)
    candidate = rules.choose_candidate(facts, request)
    refusals = _refusals(rules.for_failover(facts, request, old=old, candidate=candidate), request)
    if candidate is None or any(not refusal.overridable for refusal in refusals):
        return Plan(
            operation="failover",
            summary="A failover is not possible now.",
            old_primary=old.name if old else "",
            new_primary=candidate.name if candidate else request.candidate,
            refusals=refusals,
        )
    old_name = old.name if old else ""
    siblings = _siblings(facts, candidate.name, old_name)
    poolers = tuple(pooler.name for pooler in facts.poolers if pooler.reachable)
    return Plan(
        operation="failover",
        summary=f"{old_name or 'The primary'} is lost; {candidate.name} takes over.",
        old_primary=old_name,
        new_primary=candidate.name,
        siblings=siblings,
        poolers=poolers,
        actions=_failover_actions(facts, request, old, candidate.name, siblings, poolers),
        refusals=refusals,
        warnings=rules.warnings(facts, candidate, old),
        predicted=_predict_failover(facts, candidate),
    )


def _fence_action(request: Request, old: MemberFacts | None, facts: ClusterFacts) -> Action:
    name = old.name if old else "the old primary"
    if old is not None and old.reachable:
        return Action("fence", "critical", name, "mark, stop, prove", "it must never take a write again")
    if request.fence_command:
        return Action(
            "fence", "critical", name, f"run {request.fence_command[0]} on the controller", "its host can't be reached"
        )
    if facts.sync_policy == "strict":
        return Action(
            "fence", "critical", name, "receivers of all synchronous standbys down", "it can't acknowledge alone"
        )
    return Action("fence", "critical", name, "none", "the operator vouches for it by force")


def _failover_actions(
    facts: ClusterFacts,
    request: Request,
    old: MemberFacts | None,
    new: str,
    siblings: t.Sequence[str],
    poolers: t.Sequence[str],
) -> tuple[Action, ...]:
    actions = [
        Action("hold_pools", "critical", pooler, "hold all clients", "they wait instead of failing")
        for pooler in poolers
    ]
    actions.append(_fence_action(request, old, facts))
    actions += [
        Action("detach_receiver", "critical", name, "stop receiving WAL", "what is compared can't grow any more")
        for name in (new, *siblings)
    ]
    actions += [
        Action("choose", "critical", new, "compare timelines, then positions", "the most advanced one leads"),
        Action("arm_candidate", "critical", new, "slots for the others", "they can follow at once"),
        Action("promote", "critical", new, "promote", "point of no return"),
    ]
    actions += [
        Action("repoint_pools", "critical", pooler, f"lead to {new}", f"{new} is the primary") for pooler in poolers
    ]
    actions += [
        Action("resume_pools", "critical", pooler, "let the clients go on", "the primary takes writes")
        for pooler in poolers
    ]
    actions += [
        Action("follow", "finish", sibling, f"stream from {new}", f"{new} is the primary") for sibling in siblings
    ]
    actions += [
        Action("verify", "verify", pooler, "write through every process", "seen, not assumed") for pooler in poolers
    ]
    return tuple(actions)


def _predict_failover(facts: ClusterFacts, candidate: MemberFacts) -> Prediction:
    backlog = max(0, candidate.lsn - candidate.replay_lsn)
    stall = TYPICAL_HOLD + TYPICAL_PROMOTE + TYPICAL_SWITCH_POOLS + backlog / REPLAY_BYTES_PER_SECOND
    basis = [f"{backlog} bytes to replay at {REPLAY_BYTES_PER_SECOND / 1e6:.0f} MB/s, promotion {TYPICAL_PROMOTE} s"]
    if facts.sync_policy == "async":
        basis.append("replication is asynchronous: what the old primary acknowledged last may be missing")
        return Prediction(stall_seconds=round(stall, 3), lost_transactions=None, basis=tuple(basis))
    basis.append("replication is synchronous: every acknowledged write is on a standby")
    return Prediction(stall_seconds=round(stall, 3), lost_transactions=0, basis=tuple(basis))
