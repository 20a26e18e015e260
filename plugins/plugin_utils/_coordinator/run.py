# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From a request to a finished record: look, plan, do, prove. PRIVATE."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._clock import Clock
from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import ClusterFacts
from ansible_collections.hms.postgres.plugins.module_utils._cluster.plan import (
    Plan,
    Refusal,
    Request,
    idle_slots,
    leader,
    plan_failover,
    plan_switchover,
)
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._files import dump_json
from ansible_collections.hms.postgres.plugins.module_utils._record import new_id

from . import failover, overview, switchover
from .fleet import Fleet
from .line import LineSpec
from .operation import Asked, Operation, taken
from .overview import Site
from .proof import Done, prove
from .synchrony import names_for

PASSING = frozenset({"not_streaming", "timeline_behind"})
"""Rules that a standby meets by itself when its primary has come back: it tries again every five seconds."""
PASSING_PATIENCE = 10.0
"""Seconds for it."""
LOCK_PATIENCE = 90.0
"""Seconds to wait for agents of a run that was killed and is being wound up; a living operator is not waited for."""


class AnyJob(t.Protocol):
    """What every operation's record says of who asked for it."""

    @property
    def site(self) -> Site:
        """The cluster."""

    @property
    def by(self) -> str:
        """Who asks."""

    @property
    def records_directory(self) -> str:
        """Where the record is written."""

    @property
    def parameters(self) -> t.Mapping[str, t.Any]:
        """What was asked for."""

    @property
    def version(self) -> str:
        """The collection's."""


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything a run needs to know."""

    request: Request
    site: Site
    lines: tuple[LineSpec, ...]
    bundle: bytes
    by: str
    records_directory: str
    parameters: t.Mapping[str, t.Any]
    version: str
    command: str
    """What the operator types before a playbook's name: ``ansible-playbook -i inventories/staging``."""
    greet_seconds: float = 6.0


@dataclasses.dataclass(frozen=True)
class Report:
    """What a run found or did."""

    changed: bool
    plan: Plan
    facts: ClusterFacts
    record: dict[str, t.Any] | None = None
    record_path: str = ""


def open_fleet(job_lines: t.Sequence[LineSpec], bundle: bytes, site: Site, clock: Clock, seconds: float) -> Fleet:
    """Open every line and check that each agent is one of this cluster."""
    fleet = Fleet(job_lines, bundle, clock)
    for host, hello in fleet.greet(seconds).items():
        if host in site.services and hello["kind"] == "services":
            continue
        kind = "database" if host in site.databases else "bouncer"
        wanted = f"the {kind} host {host!r} of cluster {site.cluster!r} ({site.environment})"
        found = f"the {hello['kind']} host {hello['name']!r} of cluster {hello['cluster']!r} ({hello['environment']})"
        if found != wanted:
            fleet.abandon()
            raise Refused(
                f"{host} says it is {found}, not {wanted}.",
                reason="wrong_cluster",
                phase="plan",
                state="Nothing was touched.",
                next_step="Correct the inventory, or run playbooks/site.yml for this host.",
            )
    return fleet


def make_plan(facts: ClusterFacts, request: Request) -> Plan:
    """The plan for what was asked."""
    return plan_switchover(facts, request) if request.operation == "switchover" else plan_failover(facts, request)


def try_paths(fleet: Fleet, plan: Plan, request: Request) -> Plan:
    """Try the real login path from every bouncer process to the candidate, before anything is touched."""
    if plan.finishing or plan.blocked or not plan.actions:
        return plan
    requests = {name: ("try_path", {"member": plan.new_primary}) for name in plan.poolers}
    refusals = list(plan.refusals)
    for host, answer in fleet.ask(requests, 15.0).items():
        if answer.error is not None:
            refusals.append(
                Refusal(
                    "login_path",
                    f"From {host} there is no login to {plan.new_primary}: {answer.error.message}",
                    "Check pg_hba, TLS and password there; clients would fail after the switch.",
                    overridden="login_path" in request.force,
                )
            )
    return dataclasses.replace(plan, refusals=tuple(refusals))


def refuse_if_blocked(plan: Plan) -> None:
    """Raise `Refused` with every rule that forbids the plan."""
    if not plan.blocked:
        return
    lines = []
    for refusal in plan.blocked:
        way = f" Override: force={refusal.rule}." if refusal.overridable else ""
        lines.append(f"[{refusal.rule}] {refusal.message} {refusal.next_step}{way}".strip())
    raise Refused(
        "\n".join([f"The {plan.operation} is refused:", *lines]),
        reason=plan.blocked[0].rule,
        phase="plan",
        state="Nothing was touched.",
        details={"refusals": [dataclasses.asdict(refusal) for refusal in plan.blocked]},
    )


def run(job: Job, clock: Clock, *, check_mode: bool) -> Report:
    """Look, plan, and, unless in check mode, do and prove."""
    fleet = open_fleet(job.lines, job.bundle, job.site, clock, job.greet_seconds)
    try:
        request = dataclasses.replace(job.request, check_only=check_mode)
        plan, facts = _plan_settled(fleet, job.site, request, clock)
        plan = try_paths(fleet, plan, request)
        if check_mode:
            fleet.goodbye()
            return Report(changed=plan.changed and not plan.blocked, plan=plan, facts=facts)
        if not plan.changed and not plan.blocked:
            fleet.goodbye()
            return Report(changed=False, plan=plan, facts=facts)
        return _carry_out(job, request, plan, facts, fleet, clock)
    finally:
        fleet.abandon()


def _carry_out(job: Job, request: Request, plan: Plan, facts: ClusterFacts, fleet: Fleet, clock: Clock) -> Report:
    operation = begin(job, request.operation, plan, facts, fleet, clock)
    origin = clock.now().timestamp() - operation.elapsed()
    operation.set(objectives={"rto_seconds": request.rto_seconds, "rpo_seconds": request.rpo_seconds})
    try:
        take_lead(operation, plan)
        plan, facts = _look_again(operation, job.site, request, plan)
        promoted: dict[str, t.Any] = {}
        if plan.finishing:
            _finish_only(operation, plan, facts)
        else:
            plan, promoted = _do(operation, plan, request, facts)
        ended = prove(operation, Done(plan, request, job.site, promoted, facts, origin, job.command))
        report = end(operation, plan, ended)
    except HmsError as error:
        _failed(operation, plan, error)
        raise
    finally:
        operation.journal.close()
    fleet.goodbye()
    return report


def begin(job: AnyJob, kind: str, plan: Plan, facts: ClusterFacts, fleet: Fleet, clock: Clock) -> Operation:
    """The operation with its record, which says from the start what was asked, planned and found."""
    operation = Operation(
        identifier=new_id(kind, clock),
        kind=kind,
        directory=job.records_directory,
        asked=Asked(job.by, job.site.cluster, job.site.environment, job.parameters),
        fleet=fleet,
        clock=clock,
    )
    control = next((member.control for member in facts.members if member.control), None)
    operation.set(
        system_identifier=control.system_identifier if control else "",
        software=overview.software(facts, job.version),
        plan=plan.as_record(),
        before=overview.for_record(facts),
    )
    return operation


def take_lead(operation: Operation, plan: Plan) -> None:
    """Refuse what a rule forbids; from then on nobody else may change the cluster."""
    refuse_if_blocked(plan)
    fleet = operation.fleet
    operation.lock([host for host in fleet.lines if fleet.reachable(host)], patience=LOCK_PATIENCE)


def end(operation: Operation, plan: Plan, facts: ClusterFacts) -> Report:
    """Finish the record and leave a copy of it on every host."""
    path = operation.journal.finish()
    document = operation.journal.document()
    _keep_copies(operation, document)
    return Report(changed=plan.changed, plan=plan, facts=facts, record=document, record_path=path)


def end_failed(operation: Operation, status: str, error: HmsError) -> None:
    """Finish the record of what went wrong, and let the error say where it is."""
    operation.outcome(status, error.full_text(), next_steps=[error.next_step] if error.next_step else [])
    operation.journal.finish()
    error.details.setdefault("record", os.path.join(operation.journal.directory, operation.identifier + ".json"))


def observe_settled(fleet: Fleet, site: Site, clock: Clock, *, wait: bool) -> ClusterFacts:
    """The facts, once no agent of a run that was killed puts things in order any more.

    Somebody else's operation at work makes the cluster look like a disaster; that is said instead.
    """
    deadline = clock.monotonic() + LOCK_PATIENCE
    while True:
        facts, locks = overview.observe_with_locks(fleet, site)
        if not locks or not wait:
            return facts
        for host, holder in locks.items():
            if not holder.get("winding_up") or clock.monotonic() > deadline:
                raise taken(host, holder)
        fleet.ask({host: ("hurry", {}) for host in locks}, 10.0)
        clock.sleep(0.5)


def _plan_settled(fleet: Fleet, site: Site, request: Request, clock: Clock) -> tuple[Plan, ClusterFacts]:
    """The plan, once it isn't forbidden by what passes in a moment: a command repeated at once must not be refused."""
    wait = not request.check_only
    facts = observe_settled(fleet, site, clock, wait=wait)
    plan = make_plan(facts, request)
    deadline = clock.monotonic() + PASSING_PATIENCE
    while wait and plan.blocked and {refusal.rule for refusal in plan.blocked} <= PASSING:
        if clock.monotonic() > deadline:
            break
        clock.sleep(0.5)
        facts = observe_settled(fleet, site, clock, wait=wait)
        plan = make_plan(facts, request)
    return plan, facts


def _look_again(operation: Operation, site: Site, request: Request, plan: Plan) -> tuple[Plan, ClusterFacts]:
    """What holds now that nobody else can change it: the plan stands, or another one replaces it."""
    facts = overview.observe(operation.fleet, site)
    again = make_plan(facts, request)
    if (again.old_primary, again.new_primary, again.actions) == (plan.old_primary, plan.new_primary, plan.actions):
        return plan, facts
    again = try_paths(operation.fleet, again, request)
    operation.set(plan=again.as_record(), before=overview.for_record(facts))
    refuse_if_blocked(again)
    return again, facts


def _do(operation: Operation, plan: Plan, request: Request, facts: ClusterFacts) -> tuple[Plan, dict[str, t.Any]]:
    def sync_names(primary: str) -> str:
        return names_for(facts, plan, primary)

    if request.operation == "switchover":
        switchover.arm(operation, plan, sync_names(plan.new_primary))
        promoted = switchover.execute(operation, plan, request)
    else:
        switchover.arm_poolers(operation, plan)
        plan, promoted = failover.execute(operation, plan, request, facts, sync_names)
    operation.set(plan=plan.as_record())
    returned = [plan.old_primary] if request.operation == "switchover" else []
    late = [member.name for member in facts.standbys if member.apply_delay]
    standbys = [*plan.siblings, *returned]
    switchover.settle(operation, standbys, plan.new_primary, promoted["timeline"], late=late)
    return plan, promoted


def _finish_only(operation: Operation, plan: Plan, facts: ClusterFacts) -> None:
    """What an earlier run left undone."""
    primary = leader(facts)
    idle = {member.name: idle_slots(member, facts, primary) for member in facts.standbys if primary is not None}
    verbs: dict[str, tuple[str, dict[str, t.Any]]] = {
        "repoint_pools": ("repoint", {"primary": plan.new_primary, "operation": operation.identifier}),
        "resume_pools": ("resume", {}),
        "follow": ("follow", {"upstream": plan.new_primary}),
    }
    for action in plan.actions:
        verb, args = verbs.get(action.id) or ("drop_slots", {"names": idle[action.host]})
        operation.everywhere(
            action.id, {action.host: (verb, args)}, phase=action.phase, title=action.what, timeout=15.0
        )
    followers = [action.host for action in plan.actions if action.id == "follow"]
    if followers:
        switchover.settle(operation, followers, plan.new_primary, 1)


def _failed(operation: Operation, plan: Plan, error: HmsError) -> None:
    """Write down how it failed; past the point of no return the agents' dead-men finish, else nothing changed."""
    if operation.committed:
        error.state = (
            error.state or f"The promotion of {plan.new_primary} was ordered; the agents finish what they can."
        )
        error.next_step = error.next_step or "Run the same playbook again: it finishes from what it sees."
        status = "incomplete"
    else:
        status = "refused" if error.phase in ("plan", "arm") else "rolled_back"
    end_failed(operation, status, error)


def _keep_copies(operation: Operation, document: t.Mapping[str, t.Any]) -> None:
    """A copy of the record on every host, without the probe's series: any of them may be all that is left."""
    clients = {key: value for key, value in (document.get("clients") or {}).items() if key != "samples"}
    text = dump_json({**document, "clients": clients})
    hosts = [host for host in operation.fleet.lines if operation.fleet.reachable(host)]
    requests = {host: ("store_record", {"operation": operation.identifier, "record": text}) for host in hosts}
    operation.fleet.ask(requests, 15.0)


__all__ = ("Job", "Report", "make_plan", "open_fleet", "run")
