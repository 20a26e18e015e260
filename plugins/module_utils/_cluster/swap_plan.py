# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From facts and a request to the plan of a swap: a pure function, nothing is run and nothing is touched. PRIVATE."""

from __future__ import annotations

import dataclasses
import typing as t

from .._tools.database_rename import Database, sessions_in_words
from . import swap_rules, swap_services
from .model import ClusterFacts, MemberFacts
from .plan import TYPICAL_HOLD, Action, Prediction, Refusal, leader
from .swap_model import Names, Sight, SwapPlan, SwapRequest

# Measured under eight writers on a loaded two-core machine: see tests/bench.
TYPICAL_RENAME = 0.03
TYPICAL_RESUME = 0.05

POLICY_WORDS = {
    "terminate": "ended while the clients are held",
    "wait": "waited for before any client is held",
    "refuse": "the swap is refused as long as there is one",
}


def plan_swap(facts: ClusterFacts, sight: Sight, request: SwapRequest) -> SwapPlan:
    """The plan for what was asked."""
    if sight.names.done:
        return _resting(facts, sight, request)
    refusals = tuple(
        dataclasses.replace(rule, overridden=rule.overridable and rule.rule in request.force)
        for rule in swap_rules.all_of(facts, sight, request)
    )
    primary = leader(facts)
    names = sight.names
    live, scratch = sight.database(names.live), sight.database(names.scratch)
    if primary is None or scratch is None or sight.inside is None or names.wrong is not None:
        return _impossible(request, primary, refusals)
    if live is None and not names.missing:  # pragma: no cover  what is not missing was seen
        return _impossible(request, primary, refusals)
    stopped = swap_services.stopping(sight, request)
    plan = SwapPlan(
        operation=request.operation,
        summary=f"{names.scratch} becomes {names.live}; "
        + (f"the present {names.live} is kept as {names.keep}." if live else "there is none now, so nothing is kept."),
        old_primary=primary.name,
        new_primary=primary.name,
        poolers=tuple(sorted(route.host for route in sight.routes if route.entries)),
        refusals=refusals,
        warnings=_warnings(facts, sight, request, live, scratch),
        predicted=_prediction(sight, request, bool(stopped)),
        database=names.live,
        scratch=names.scratch,
        keep=names.keep,
        live_oid=live.oid if live else 0,
        scratch_oid=scratch.oid,
        missing=live is None,
        open_scratch=not scratch.allow_connections,
        standbys=tuple(member.name for member in facts.standbys),
        sessions=tuple(one.words for one in _direct(sight)),
        probe=request.probes and sight.inside.support_live,
        support_missing=sight.inside.support_missing,
        stopping=stopped,
        starting=swap_services.starting(sight, stopped),
    )
    return dataclasses.replace(plan, actions=tuple(_actions(plan, sight, request)))


def _impossible(request: SwapRequest, primary: MemberFacts | None, refusals: tuple[Refusal, ...]) -> SwapPlan:
    name = primary.name if primary else ""
    return SwapPlan(
        operation=request.operation,
        summary=f"The {request.operation} of {request.database} is not possible.",
        old_primary=name,
        new_primary=name,
        refusals=refusals,
        database=request.database,
    )


def _resting(facts: ClusterFacts, sight: Sight, request: SwapRequest) -> SwapPlan:
    """The plan when it is done already: at most, clients are let go that a killed run left held."""
    primary = leader(facts)
    name = primary.name if primary else ""
    held = [route for route in sight.routes if any(entry.paused for entry in route.entries)]
    names = sight.names
    live = sight.database(names.live)
    starting = swap_services.starting(sight, ())
    actions = (
        *(
            Action("resume_pools", "critical", route.host, "let the clients go on", "they are held, by nobody")
            for route in held
        ),
        *swap_services.start_actions(sight, starting),
    )
    summary = f"{names.live} is what {names.scratch} was: there is nothing to do."
    if held:
        summary = f"{names.live} is what {names.scratch} was; clients that an earlier run left held are let go."
    if starting:
        names_of = ", ".join(service.words for service in starting)
        summary += f" What an earlier run left stopped is started: {names_of}."
    refusals = swap_rules.consent(facts, request) if actions or request.confirm else []
    return SwapPlan(
        operation=request.operation,
        summary=summary,
        old_primary=name,
        new_primary=name,
        poolers=tuple(sorted(route.host for route in held)),
        actions=actions,
        refusals=tuple(refusals),
        warnings=tuple(swap_services.unseen(sight)),
        finishing=True,
        starting=starting,
        database=names.live,
        scratch=names.scratch,
        live_oid=live.oid if live else 0,
    )


def _direct(sight: Sight) -> list[t.Any]:
    attached = sight.inside.attached if sight.inside else ()
    return swap_rules.strangers(attached, swap_rules.pool_pids(sight.routes))


def _actions(plan: SwapPlan, sight: Sight, request: SwapRequest) -> t.Iterator[Action]:
    yield from _arming(plan)
    yield from swap_services.stop_actions(plan.stopping, plan.database)
    if request.sessions == "wait" and plan.sessions:
        what = f"wait for {sessions_in_words(len(plan.sessions))} past the bouncers"
        yield Action(
            "await_sessions", "arm", plan.new_primary, what, f"sessions: wait, {request.sessions_deadline:g} s"
        )
    yield from _critical(plan)
    yield from swap_services.start_actions(sight, plan.starting)
    yield from _afterwards(plan, request)


def _arming(plan: SwapPlan) -> t.Iterator[Action]:
    primary = plan.new_primary
    if plan.support_missing:
        what = f"give {plan.scratch} what it lacks of the schema hms: {', '.join(plan.support_missing)}"
        yield Action("prepare_scratch", "arm", primary, what, "bouncers log in by it, and a write is tried in it")
    if plan.probe and not plan.missing:
        for host in plan.poolers:
            yield Action("probe", "arm", host, "start a write probe", "what clients feel is measured")


def _critical(plan: SwapPlan) -> t.Iterator[Action]:
    primary = plan.new_primary
    for host in plan.poolers:
        yield Action("hold_pools", "critical", host, f"hold the clients of {plan.database}", "none sees an error")
    what = f"end what is still connected; rename {plan.database} to {plan.keep} and {plan.scratch} to {plan.database}"
    why = "both renames are one transaction"
    if plan.missing:
        what = f"end what is still connected; rename {plan.scratch} to {plan.database}"
        why = f"there is no {plan.database}, so nothing is kept"
    yield Action("swap", "critical", primary, what, why)
    for host in plan.poolers:
        yield Action("resume_pools", "critical", host, "let the clients go on", f"they reach the new {plan.database}")


def _afterwards(plan: SwapPlan, request: SwapRequest) -> t.Iterator[Action]:
    for host in plan.poolers:
        what = f"ask for the database's OID{' and write' if plan.probe else ''} through every process"
        yield Action("verify", "verify", host, what, "that clients are in the new database is seen, not believed")
    for host in plan.standbys:
        what = f"end sessions that still read what is {plan.keep} now"
        if request.sessions == "terminate" and not plan.missing:
            yield Action("end_readers", "finish", host, what, "a standby doesn't tell them")


def _prediction(sight: Sight, request: SwapRequest, services: bool) -> Prediction:
    if not any(route.entries for route in sight.routes):
        return Prediction(TYPICAL_RENAME, 0, ("no client is held; those that connect in that moment see an error",))
    pids = swap_rules.pool_pids(sight.routes)
    attached = sight.inside.attached if sight.inside else ()
    longest = max((one.age for one in attached if one.pid in pids and one.in_transaction), default=0.0)
    basis = [
        f"hold {TYPICAL_HOLD} s or the longest transaction, at most {request.hold_deadline:g} s",
        f"rename {TYPICAL_RENAME} s",
        f"new logins {TYPICAL_RESUME} s",
    ]
    if services:
        basis.append("services are down for longer: from before the hold until each has started again")
    if longest > TYPICAL_HOLD:
        basis.append(f"a transaction has run for {longest:.1f} s; how long it goes on is not known")
    return Prediction(round(TYPICAL_HOLD + TYPICAL_RENAME + TYPICAL_RESUME, 3), 0, tuple(basis))


def _warnings(
    facts: ClusterFacts, sight: Sight, request: SwapRequest, live: Database | None, scratch: Database
) -> tuple[str, ...]:
    found = []
    direct = _direct(sight)
    if direct:
        words = POLICY_WORDS[request.sessions]
        several = sessions_in_words(len(direct))
        found.append(f"Connected past the bouncers: {several}; {words} (sessions: {request.sessions}).")
    unlike = swap_rules.differences(live, scratch) if live else []
    if unlike:
        found.append(f"{scratch.name} has {'; '.join(unlike)}.")
    found += _route_warnings(facts, sight)
    for host, count in sorted(sight.readers.items()):
        if count:
            end = "They are ended." if request.sessions == "terminate" else "They read old data until they reconnect."
            found.append(f"On the standby {host} {sessions_in_words(count)} will stay in the old database. {end}")
    found += swap_services.warnings(sight, request, swap_services.stopping(sight, request))
    if sight.inside is not None and not sight.inside.support_live:
        found.append(_no_support(sight.names))
    return tuple(found)


def _no_support(names: Names) -> str:
    if names.missing:
        return f"{names.scratch} lacks the schema hms, by which bouncers log in: run playbooks/site.yml afterwards."
    return f"{names.live} lacks the schema hms, so no write through the bouncers is tried."


def _route_warnings(facts: ClusterFacts, sight: Sight) -> list[str]:
    found = []
    if facts.poolers and not any(route.entries for route in sight.routes):
        found.append(f"No bouncer leads to {sight.names.live}: nobody is held.")
    least = [f"{route.host}/{entry.process}" for route in sight.routes for entry in route.entries if entry.least]
    if least:
        found.append(f"min_pool_size is set on {', '.join(least)}: PgBouncer logs in anew while its clients are held.")
    return found
