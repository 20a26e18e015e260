# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The course that every operation takes: look, plan, refuse, do, prove, write it down. PRIVATE."""

from __future__ import annotations

import abc
import dataclasses
import os
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._clock import Clock
from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import ClusterFacts
from ansible_collections.hms.postgres.plugins.module_utils._cluster.plan import Plan
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._files import dump_json
from ansible_collections.hms.postgres.plugins.module_utils._record import new_id

from . import overview
from .fleet import Fleet
from .line import LineSpec
from .operation import Asked, Operation, taken
from .overview import Site

PASSING = frozenset({"not_streaming", "timeline_behind"})
"""Rules that a standby meets by itself when its primary has come back: it tries again every five seconds."""
PASSING_PATIENCE = 20.0
"""Seconds for it: in between it may ask the archive, which gets ten (``restore_command`` of docs/standbys.md)."""
PASSING_PATIENCE_URGENT = 10.0
"""The same in a failover, in which clients have no primary while it is waited for."""
LOCK_PATIENCE = 90.0
"""Seconds to wait for agents of a run that was killed and is being wound up; a living operator is not waited for."""


class AnyRequest(t.Protocol):
    """What the course itself must know of a request."""

    @property
    def operation(self) -> str:
        """The kind of operation, as records name it."""

    @property
    def check_only(self) -> bool:
        """Whether only the plan is wanted."""


RequestT = t.TypeVar("RequestT", bound=AnyRequest)
PlanT = t.TypeVar("PlanT", bound=Plan)


@dataclasses.dataclass(frozen=True)
class Job(t.Generic[RequestT]):
    """Everything a run needs to know."""

    request: RequestT
    site: Site
    lines: tuple[LineSpec, ...]
    bundle: bytes
    by: str
    records_directory: str
    parameters: t.Mapping[str, t.Any]
    version: str
    command: str = "ansible-playbook"
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


class Course(abc.ABC, t.Generic[RequestT, PlanT]):
    """One operation on its way. What is planned, done and said of a failure is the subclass's."""

    def __init__(self, job: Job[t.Any], request: RequestT, clock: Clock) -> None:
        self.job = job
        self.request = request
        self.clock = clock
        self.origin = 0.0
        """The wall clock, in seconds, at the record's start."""
        self.mended = False
        """Whether something was changed before the plan that was carried out was made."""

    @abc.abstractmethod
    def plan(self, fleet: Fleet, facts: ClusterFacts) -> PlanT:
        """What follows from these facts, and from what else the hosts say."""

    def tried(self, _fleet: Fleet, plan: PlanT) -> PlanT:
        """The plan with what only a try can tell."""
        return plan

    def stands(self, plan: PlanT, again: PlanT) -> bool:
        """Whether a plan that was made anew is the one that was shown."""
        return again == plan

    def begun(self, operation: Operation) -> None:
        """What the record says from its start on."""

    @abc.abstractmethod
    def do(self, operation: Operation, plan: PlanT, facts: ClusterFacts) -> tuple[PlanT, ClusterFacts]:
        """Carry it out and prove it; the plan as it was done, and the facts afterwards."""

    @abc.abstractmethod
    def failed(self, operation: Operation, plan: PlanT, error: HmsError) -> str:
        """Say in the error what state the system is in; the record's status."""

    def run(self) -> Report:
        """Look, plan, and, unless only the plan is wanted, do and prove."""
        job = self.job
        fleet = open_fleet(job.lines, job.bundle, job.site, self.clock, job.greet_seconds)
        try:
            plan, facts = self._plan_settled(fleet)
            if self.request.check_only or not (plan.changed or plan.blocked):
                fleet.goodbye()
                return Report(changed=plan.changed and not plan.blocked, plan=plan, facts=facts)
            return self._carry_out(plan, facts, fleet)
        finally:
            fleet.abandon()

    def _plan_settled(self, fleet: Fleet) -> tuple[PlanT, ClusterFacts]:
        """The plan, once it isn't forbidden by what passes in a moment: a command repeated at once is not refused."""
        wait = not self.request.check_only
        urgent = self.request.operation == "failover"
        deadline = self.clock.monotonic() + (PASSING_PATIENCE_URGENT if urgent else PASSING_PATIENCE)
        while True:
            facts = observe_settled(fleet, self.job.site, self.clock, wait=wait)
            plan = self.plan(fleet, facts)
            passes = bool(plan.blocked) and {refusal.rule for refusal in plan.blocked} <= PASSING
            if not (wait and passes) or self.clock.monotonic() > deadline:
                return self.tried(fleet, plan), facts
            self.clock.sleep(0.5)

    def _carry_out(self, plan: PlanT, facts: ClusterFacts, fleet: Fleet) -> Report:
        operation = self._begin(plan, facts, fleet)
        self.origin = self.clock.now().timestamp() - operation.elapsed()
        try:
            self.begun(operation)
            refuse_if_blocked(plan)
            # From here on nobody else may change the cluster.
            operation.lock([host for host in fleet.lines if fleet.reachable(host)], patience=LOCK_PATIENCE)
            plan, facts = self.look_again(operation, plan)
            plan, ended = self.do(operation, plan, facts)
            report = self._end(operation, plan, ended)
        except HmsError as error:
            self._end_failed(operation, self.failed(operation, plan, error), error)
            raise
        finally:
            operation.journal.close()
        fleet.goodbye()
        return report

    def _begin(self, plan: PlanT, facts: ClusterFacts, fleet: Fleet) -> Operation:
        """The operation with its record, which says from the start what was asked, planned and found."""
        job, kind = self.job, self.request.operation
        operation = Operation(
            identifier=new_id(kind, self.clock),
            kind=kind,
            directory=job.records_directory,
            asked=Asked(job.by, job.site.cluster, job.site.environment, job.parameters),
            fleet=fleet,
            clock=self.clock,
        )
        control = next((member.control for member in facts.members if member.control), None)
        operation.set(
            system_identifier=control.system_identifier if control else "",
            software=overview.software(facts, job.version),
            plan=plan.as_record(),
            before=overview.for_record(facts),
        )
        return operation

    def look_again(self, operation: Operation, plan: PlanT) -> tuple[PlanT, ClusterFacts]:
        """What holds now that nobody else can change it: the plan stands, or another one replaces it."""
        facts = overview.observe(operation.fleet, self.job.site)
        again = self.plan(operation.fleet, facts)
        if self.stands(plan, again):
            return plan, facts
        again = self.tried(operation.fleet, again)
        operation.set(plan=again.as_record(), before=overview.for_record(facts))
        refuse_if_blocked(again)
        return again, facts

    def _end(self, operation: Operation, plan: PlanT, facts: ClusterFacts) -> Report:
        """Finish the record and leave a copy of it on every host."""
        path = operation.journal.finish()
        document = operation.journal.document()
        _keep_copies(operation, document)
        changed = plan.changed or self.mended
        return Report(changed=changed, plan=plan, facts=facts, record=document, record_path=path)

    @staticmethod
    def _end_failed(operation: Operation, status: str, error: HmsError) -> None:
        """Finish the record of what went wrong, and let the error say where it is."""
        operation.outcome(status, error.full_text(), next_steps=[error.next_step] if error.next_step else [])
        operation.journal.finish()
        error.details.setdefault("record", os.path.join(operation.journal.directory, operation.identifier + ".json"))


def status_of(operation: Operation, error: HmsError) -> str:
    """The record's status of a run that failed."""
    if operation.committed:
        return "incomplete"
    return "refused" if error.phase in ("plan", "arm") else "rolled_back"


def _keep_copies(operation: Operation, document: t.Mapping[str, t.Any]) -> None:
    """A copy of the record on every host, without the probe's series: any of them may be all that is left."""
    clients = {key: value for key, value in (document.get("clients") or {}).items() if key != "samples"}
    text = dump_json({**document, "clients": clients})
    hosts = [host for host in operation.fleet.lines if operation.fleet.reachable(host)]
    requests = {host: ("store_record", {"operation": operation.identifier, "record": text}) for host in hosts}
    operation.fleet.ask(requests, 15.0)


__all__ = ("Course", "Job", "Report", "observe_settled", "open_fleet", "refuse_if_blocked", "status_of")
