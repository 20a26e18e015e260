# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From facts and a request to the plan of a cutover: a pure function, nothing is run or touched. PRIVATE."""

from __future__ import annotations

import dataclasses
import typing as t

from .._postgres import format_lsn
from . import cutover_rules, rules
from .cutover_model import KEPT, CutoverPlan, CutoverRequest, SideSight, left_behind, to_rejoin
from .member_config import slot_name
from .model import ClusterFacts, MemberFacts
from .plan import TYPICAL_HOLD, TYPICAL_STOP, Action, Prediction, Request, leader

# Measured under eight writers on a loaded two-core machine.
TYPICAL_EXCHANGE = 0.05
TYPICAL_START = 0.5


def plan_cutover(facts: ClusterFacts, sights: t.Sequence[SideSight], request: CutoverRequest) -> CutoverPlan:
    """The plan for what was asked."""
    unfinished = tuple(sight.host for sight in sights if sight.unfinished)
    if unfinished:
        return _settle(facts, sights, unfinished, request)
    primary = leader(facts)
    sight = next((one for one in sights if primary is not None and one.host == primary.name), None)
    done = _done(sights)
    if primary is not None and sight is not None and sight.state != "ours" and done is not None:
        return _resting(facts, primary, done, request)
    refusals = tuple(
        dataclasses.replace(rule, overridden=rule.overridable and rule.rule in request.force)
        for rule in cutover_rules.all_of(facts, sights, request)
    )
    if primary is None or sight is None or sight.state != "ours":
        name = primary.name if primary else ""
        summary = "The cutover is not possible."
        return CutoverPlan("cutover", summary, old_primary=name, new_primary=name, refusals=refusals)
    plan = CutoverPlan(
        operation="cutover",
        summary=_summary(facts, primary, sight, request),
        old_primary=primary.name,
        new_primary=primary.name,
        poolers=tuple(sorted(pooler.name for pooler in facts.poolers if pooler.reachable)),
        refusals=refusals,
        warnings=_warnings(facts, primary, sight, kept_path(sight, request)),
        predicted=_prediction(primary, request),
        directory=sight.directory,
        live=sight.live,
        kept=kept_path(sight, request),
        target=sight.target,
        target_lsn=sight.reached_lsn,
        last_commit=sight.last_commit,
        old_timeline=primary.timeline,
        slots=tuple(slot_name(member.name) for member in facts.members if member.name != primary.name),
        strangers=sight.strangers,
        sync_names=None if facts.sync_policy == "async" else "",
        fence=tuple(member.name for member in facts.standbys),
        rejoin=tuple(member.name for member in facts.members if member.reachable and member.name != primary.name),
    )
    return dataclasses.replace(plan, actions=tuple(_actions(plan, sight)))


def kept_path(sight: SideSight, request: CutoverRequest) -> str:
    """Where the old data directory goes; an exchange that was prepared keeps its name."""
    if sight.ready and sight.exchange is not None and sight.exchange.stage == "promoted":
        return sight.exchange.kept
    return f"{sight.live}{KEPT}{request.stamp}"


def _done(sights: t.Sequence[SideSight]) -> SideSight | None:
    """The host with the newest cutover that was done, from the directory that this one is about."""
    found = [
        sight
        for sight in sights
        if sight.exchange is not None and (sight.exchange.stage, sight.exchange.side) == ("done", sight.directory)
    ]
    return max(found, key=lambda sight: sight.exchange.operation if sight.exchange else "", default=None)


def _summary(facts: ClusterFacts, primary: MemberFacts, sight: SideSight, request: CutoverRequest) -> str:
    last = f", last commit {sight.last_commit}" if sight.last_commit else ""
    return (
        f"{facts.cluster} becomes what it was at {sight.target} ({format_lsn(sight.reached_lsn)}{last}). Everything "
        f"that was written after it is given up; the data directory of now is kept as {kept_path(sight, request)} on "
        f"{primary.name}."
    )


def _settle(
    facts: ClusterFacts, sights: t.Sequence[SideSight], hosts: tuple[str, ...], request: CutoverRequest
) -> CutoverPlan:
    """An earlier run was killed in the middle: first that is put in order, then it is looked at again."""
    sight = next(one for one in sights if one.host == hosts[0])
    exchange = sight.exchange
    operation = exchange.operation if exchange else "?"
    actions = tuple(
        Action(
            "settle", "arm", host, f"put in order what {operation} left", "it was killed in the middle of the exchange"
        )
        for host in hosts
    )
    asked = Request("switchover", confirm=request.confirm)
    return CutoverPlan(
        operation="cutover",
        summary=f"What the killed run {operation} left on {', '.join(hosts)} is put in order; then it is planned anew.",
        old_primary=hosts[0],
        new_primary=hosts[0],
        poolers=tuple(sorted(pooler.name for pooler in facts.poolers if pooler.reachable)),
        actions=actions,
        refusals=() if request.check_only else tuple(rules.consent(facts, asked)),
        directory=sight.directory,
        live=sight.live,
        kept=exchange.kept if exchange else "",
        settle=hosts,
    )


def _resting(facts: ClusterFacts, primary: MemberFacts, sight: SideSight, request: CutoverRequest) -> CutoverPlan:
    """The plan when it is done already: standbys that a killed run left running are stopped, clients are let go."""
    exchange = sight.exchange
    fence = tuple(member.name for member in facts.standbys if exchange is not None and left_behind(member, exchange))
    held = tuple(sorted(pooler.name for pooler in facts.poolers if pooler.paused))
    actions = [_fence(name, primary.name) for name in fence]
    actions += [
        Action("resume_pools", "critical", name, "let the clients go on", "they are held, by nobody") for name in held
    ]
    asked = Request("switchover", confirm=request.confirm)
    kept = exchange.kept if exchange else ""
    return CutoverPlan(
        operation="cutover",
        summary=f"It is done: {exchange.story if exchange else ''} There is nothing to do."
        if not actions
        else f"It is done: {exchange.story if exchange else ''} What an earlier run left undone is done.",
        old_primary=primary.name,
        new_primary=primary.name,
        poolers=held,
        actions=tuple(actions),
        refusals=tuple(rules.consent(facts, asked)) if actions and not request.check_only else (),
        finishing=True,
        live=sight.live,
        kept=kept,
        directory=sight.directory,
        target=exchange.target if exchange else "",
        target_lsn=exchange.fork_lsn if exchange else 0,
        last_commit=exchange.last_commit if exchange else "",
        old_timeline=exchange.old_timeline if exchange else 0,
        fence=fence,
        rejoin=to_rejoin(facts, primary),
        exchange=exchange,
    )


def _fence(name: str, primary: str) -> Action:
    what = f"stop {name} and mark it, until it is rejoined"
    why = f"its log goes beyond where {primary} leaves the history; it can't follow, and must not be promoted"
    return Action("fence", "finish", name, what, why)


def _actions(plan: CutoverPlan, sight: SideSight) -> t.Iterator[Action]:
    primary = plan.new_primary
    what = f"promote the side cluster at {plan.target} and stop it"
    why = "it begins a timeline of its own, and archives nothing yet"
    if sight.ready:
        what, why = "look whether the side cluster is as an earlier run promoted it", "it waits to take its place"
    yield Action("promote_side", "arm", primary, what, why)
    for name in plan.strangers:
        what = f"give {name} the password that it has now"
        yield Action("passwords", "arm", primary, what, "at the target it was another one, and hosts log in by it")
    for host in plan.poolers:
        yield Action("hold_pools", "critical", host, "hold all clients", "none sees an error")
    yield Action("stop_primary", "critical", primary, "fast shutdown of the live cluster", "its last WAL is archived")
    what = f"rename {plan.live} to {plan.kept} and {plan.directory}/data to {plan.live}"
    yield Action("exchange", "critical", primary, what, "nothing is copied, nothing is removed")
    yield Action("start_primary", "critical", primary, "start it", "from here on there is only forward")
    for host in plan.poolers:
        yield Action("resume_pools", "critical", host, "let the clients go on", "they reach the recovered cluster")
    for name in plan.fence:
        yield _fence(name, primary)
    for host in plan.poolers:
        yield Action("verify", "verify", host, "write through every process", "seen, not believed")
    yield Action("archive", "finish", primary, "archive the new timeline from its beginning", "recovery follows it")


def _prediction(primary: MemberFacts, request: CutoverRequest) -> Prediction:
    basis: tuple[str, ...] = (
        f"hold {TYPICAL_HOLD} s or the longest transaction, at most {request.hold_seconds:g} s",
        f"stop {TYPICAL_STOP} s and what the archive needs for the last segment",
        f"exchange {TYPICAL_EXCHANGE} s",
        f"start {TYPICAL_START} s",
    )
    total = round(TYPICAL_HOLD + TYPICAL_STOP + TYPICAL_EXCHANGE + TYPICAL_START, 3)
    longest = max((busy.age for busy in primary.busy), default=0.0)
    if longest > TYPICAL_HOLD:
        basis = (*basis, f"a transaction has run for {longest:.1f} s; how long it goes on is not known")
    return Prediction(total, None, basis)


def _warnings(facts: ClusterFacts, primary: MemberFacts, sight: SideSight, kept: str) -> tuple[str, ...]:
    found = []
    if sight.wal_after is not None:
        found.append(
            f"{sight.wal_after} bytes of WAL were written after the target, up to {format_lsn(primary.lsn)}: their "
            f"transactions are given up by intent. They stay in {kept} and in the archive."
        )
    else:
        found.append(f"The target is on timeline {sight.reached_timeline}, {primary.name} on {primary.timeline}.")
    standbys = [member.name for member in facts.standbys]
    if standbys:
        found.append(
            f"{', '.join(standbys)} will be stopped until rejoined: nobody reads there, and new writes are on one "
            "host until the first is back."
        )
    if primary.prepared_transactions:
        found.append(f"{primary.prepared_transactions} prepared transactions on {primary.name} are given up too.")
    known = {pooler.address for pooler in facts.poolers} | {member.address for member in facts.members}
    direct = {address: count for address, count in primary.client_addresses.items() if address not in known}
    if direct:
        where = ", ".join(f"{count} from {address}" for address, count in sorted(direct.items()))
        found.append(f"Clients are connected to {primary.name} past the bouncers ({where}); they are cut off.")
    return tuple(found)
