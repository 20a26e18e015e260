# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An operation's record as typed values. PRIVATE to the collection.

`None` always means "the record doesn't say", that is never the same as zero or no.
"""

from __future__ import annotations

import datetime
import typing as t
from collections.abc import Mapping
from dataclasses import dataclass, field

from .host_side import HostSide


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From one moment to a later one, in seconds since the record's start."""

    started: float
    ended: float

    @property
    def length(self) -> float:
        """Seconds between the two."""
        return self.ended - self.started


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Something the plan meant to do."""

    id: str
    phase: str
    host: str
    what: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A rule that spoke against the operation."""

    rule: str
    message: str
    next_step: str
    overridable: bool
    overridden: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was going to be done, and what it was expected to cost."""

    summary: str
    old_primary: str
    new_primary: str
    actions: tuple[Action, ...]
    refusals: tuple[Refusal, ...]
    warnings: tuple[str, ...]
    stall_seconds: float | None
    lost_transactions: int | None
    basis: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One database host at one moment."""

    name: str
    address: str
    reachable: bool | None
    role: str
    timeline: int | None
    lsn: str
    lag_bytes: int | None
    lag_seconds: float | None
    sync_state: str
    version: str
    upstream: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooler:
    """One bouncer host at one moment."""

    name: str
    processes: int | None
    points_at: str
    paused: bool | None
    clients: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The cluster at one moment."""

    primary: str
    members: tuple[Member, ...]
    poolers: tuple[Pooler, ...]

    def member(self, name: str) -> Member | None:
        """The member of that name."""
        return next((member for member in self.members if member.name == name), None)

    @property
    def head(self) -> Member | None:
        """The primary as a member: the one named so, or the one whose role it is."""
        return self.member(self.primary) or next((m for m in self.members if m.role == "primary"), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step as it was carried out."""

    number: int
    id: str
    phase: str
    host: str
    title: str
    started: float | None
    ended: float | None
    result: str
    detail: str
    evidence: Mapping[str, t.Any]

    @property
    def duration(self) -> float | None:
        """How long it took, if it has an end."""
        if self.started is None or self.ended is None:
            return None
        return max(0.0, self.ended - self.started)

    @property
    def unfinished(self) -> bool:
        """It was begun and its end was never recorded."""
        open_ended = self.started is not None and self.ended is None
        return open_ended and self.result not in ("ok", "skipped", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A claim, and what was seen; the record may hold claims that turned out not to hold."""

    claim: str
    evidence: str
    at: float | None
    at_text: str
    holds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """How the old primary was kept from taking writes."""

    host: str
    method: str
    proofs: tuple[Proof, ...]

    @property
    def proven(self) -> bool:
        """There are proofs, and all of them hold."""
        return bool(self.proofs) and all(proof.holds for proof in self.proofs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """A committed transaction that didn't survive."""

    xid: str
    committed_at: str
    lsn: str
    relations: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """What did not survive, and whether anyone can know."""

    known: bool
    count: int | None
    bytes: int | None
    transactions: tuple[Transaction, ...]
    basis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One write attempted by a probe."""

    sent: float
    latency: float
    result: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """The operation as writers felt it."""

    source: str
    samples: tuple[Sample, ...]
    acknowledged: int | None
    failed: int | None
    unknown: int | None
    lost: int | None
    longest_stall_seconds: float | None
    stall: Span | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """From the last write the old primary took to the first the new one took."""

    started_at: datetime.datetime | None
    ended_at: datetime.datetime | None
    basis: str

    @property
    def seconds(self) -> float | None:
        """How long it lasted."""
        if self.started_at is None or self.ended_at is None:
            return None
        return max(0.0, (self.ended_at - self.started_at).total_seconds())


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How it ended. An empty status: the record has no outcome."""

    status: str
    message: str
    next_steps: tuple[str, ...]
    rto_seconds: float | None
    rpo_seconds: float | None
    rto_met: bool | None
    rpo_met: bool | None
    lost_transactions: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An operation's record."""

    id: str
    operation: str
    cluster: str
    environment: str
    system_identifier: str
    asked_by: str
    asked_at: datetime.datetime | None
    asked_at_text: str
    parameters: Mapping[str, t.Any]
    software: tuple[tuple[str, str], ...]
    rto_objective: float | None
    rpo_objective: float | None
    plan: Plan
    before: Snapshot | None
    after: Snapshot | None
    steps: tuple[Step, ...]
    critical: Span | None
    fence: Fence | None
    losses: Losses | None
    clients: Clients | None
    outage: Outage | None
    outcome: Outcome
    kept_directory: str
    host_side: HostSide = field(default_factory=HostSide)

    @property
    def end(self) -> float:
        """The last moment that a step speaks of."""
        moments = [moment for step in self.steps for moment in (step.started, step.ended) if moment is not None]
        if self.critical:
            moments.append(self.critical.ended)
        return max(moments, default=0.0)

    @property
    def horizon(self) -> float:
        """Where drawings end: beyond the last moment when a step has no end, so that it can be seen to have none."""
        open_ended = any(step.unfinished for step in self.steps)
        return self.end + max(self.end * 0.08, 0.01) if open_ended else self.end

    @property
    def stall_seconds(self) -> float | None:
        """The longest time without a write getting through, as the probe measured it."""
        if self.clients is None:
            return None
        span = self.clients.stall.length if self.clients.stall else None
        known = [value for value in (self.clients.longest_stall_seconds, span) if value is not None]
        return max(known) if known else None

    @property
    def waited(self) -> float | None:
        """How long writers waited: never less than any of the record's measurements of it."""
        found = [self.stall_seconds]
        if self.operation == "failover":
            found += [self.outage.seconds if self.outage else None, self.outcome.rto_seconds]
        known = [value for value in found if value is not None]
        return max(known) if known else None

    @property
    def lost(self) -> int | None:
        """Transactions lost: never less than anything in the record says; nothing when it isn't known.

        That nothing was lost is believed only if the record says how that is known.
        """
        found = [self.outcome.lost_transactions, self.clients.lost if self.clients else None]
        if self.losses:
            found += [self.losses.count, len(self.losses.transactions)]
        lost = max((number for number in found if number is not None), default=0)
        return lost if lost or self.losses_certain else None

    @property
    def losses_certain(self) -> bool:
        """The record knows all that was lost, and says how."""
        return self.losses is not None and self.losses.known and bool(self.losses.basis)
