# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a restore: what will be done, and everything that stands against it. PRIVATE. Pure."""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from .._artifact.verify import is_directory
from .._clock import iso
from .._errors import Refused
from .facts import TargetFacts
from .find import Artifact, jobs_of, lies_in, plain_name
from .model import FORCEABLE, Order
from .names import before_name, scratch_name
from .outline import Outline
from .rules import Refusal, Wanted, judge, warnings_of

_PACKED, _PLAIN = 8, 2
"""How many times a file's size its database takes, where nobody has counted."""
_PRESENT = "owner, settings, rights and limits of the live database"
_FORMER = "owner, settings, rights and limits that it had when it was backed up"


@dataclasses.dataclass(frozen=True)
class RestorePlan:
    """What will be done.

    Attributes:
        scratch: the database in which it comes to life.
        before: the name under which the live one stays after the swap; None where there is none, or where it goes.
        needed: bytes that the second copy is expected to take.
        staged: the folder where it lies decrypted meanwhile; '' where no disk sees it.
        dropped: scratch databases of earlier runs that go.
    """

    scratch: str
    live: str
    strategy: str
    live_exists: bool
    before: str | None
    keep_until: str | None
    artifact: t.Mapping[str, t.Any]
    needed: int
    free: int | None
    staged: str
    dropped: tuple[str, ...]
    steps: tuple[str, ...]
    missing_roles: tuple[str, ...] = ()
    no_tablespaces: bool = False
    refusals: tuple[Refusal, ...] = ()
    forced: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, t.Any]:
        """As plain data."""
        data = dataclasses.asdict(self)
        data["refusals"] = [refusal.as_dict() for refusal in self.refusals]
        return data


def needed_bytes(artifact: Artifact) -> int:
    """What the restored database will take: as much as the original, or a guess from the file's size."""
    made = artifact.manifest
    if made is not None and made.contents.get("database_bytes"):
        return int(made.contents["database_bytes"])
    packed = plain_name(artifact.member.name) != artifact.member.name
    return artifact.member.bytes * (_PACKED if packed else _PLAIN)


def plan_restore(
    order: Order, artifact: Artifact, outline: Outline, target: TargetFacts, *, check: bool
) -> RestorePlan:
    """The plan. In check mode a confirmation that isn't given is no refusal yet."""
    wanted = Wanted(order, artifact, outline, target, needed_bytes(artifact), check)
    found = judge(wanted)
    forced = tuple(refusal.rule for refusal in found if refusal.rule in order.force and refusal.rule in FORCEABLE)
    scratch = scratch_name(order.cluster, order.database, artifact.identity)
    staged = lies_in(artifact, order)
    in_place = order.strategy == "in_place"
    until = target.now + datetime.timedelta(days=order.keep_days)
    plan = RestorePlan(
        scratch=scratch,
        live=order.database,
        strategy=order.strategy,
        live_exists=target.live is not None,
        before=before_name(order.database, target.now) if target.live is not None and not in_place else None,
        keep_until=iso(until) if target.live is not None and not in_place else None,
        artifact=artifact.as_dict(),
        needed=wanted.needed,
        free=target.free,
        staged=staged,
        dropped=tuple(name for name in target.leftovers if name != scratch),
        steps=(),
        missing_roles=wanted.missing_roles(),
        no_tablespaces="missing_tablespaces" in forced,
        refusals=tuple(refusal for refusal in found if refusal.rule not in forced),
        forced=forced,
        warnings=warnings_of(wanted),
    )
    return dataclasses.replace(plan, steps=tuple(_steps(order, artifact, plan)))


def _steps(order: Order, artifact: Artifact, plan: RestorePlan) -> t.Iterator[str]:
    for name in plan.dropped:
        yield f"drop {name}, which an earlier restore left"
    if order.strategy == "in_place" and plan.live_exists:
        yield "read the whole artifact once, to know that it can be restored"
        if order.backup_before:
            yield f"make a verified backup of {plan.live} as it is now"
        yield f"{order.sessions} other sessions, then drop {plan.live}"
    yield f"make {plan.scratch}, closed to others"
    if plan.staged and is_directory(artifact.member):
        yield f"unpack it, decrypted, into a folder in {plan.staged} that is removed whatever happens"
    elif plan.staged:
        yield f"stage the archive, decrypted, in a file without a name in {plan.staged}"
    jobs = jobs_of(artifact, order)
    how = "run the script" if artifact.kind == "sql" else f"pg_restore with {jobs} job(s), stop at the first error"
    yield f"{how}, then ANALYZE"
    yield "compare rows, large objects, constraints, indexes and migrations"
    for path in order.masks:
        yield f"mask with {path}"
    for assertion in order.assertions:
        yield f"ask: {assertion.name}"
    yield f"give it {_PRESENT if plan.live_exists else _FORMER}"
    yield f"rename it to {plan.live}" if order.strategy == "in_place" else "mark it as proven and ready for the swap"


def left_of(plan: RestorePlan, *, live: bool, ready: bool) -> RestorePlan:
    """What is left of the plan where an earlier run brought it `live`, or has it `ready` for the swap."""
    if not live and not ready:
        return plan
    shape = _PRESENT if plan.live_exists else _FORMER
    steps = () if live else (f"give {plan.scratch}, proven before, {shape}",)
    return dataclasses.replace(plan, steps=steps, dropped=())


def refuse(plan: RestorePlan) -> None:
    """Raise `Refused` when anything stands against the plan."""
    if not plan.refusals:
        return
    raise Refused(
        " ".join(refusal.message for refusal in plan.refusals),
        reason=plan.refusals[0].rule,
        phase="plan",
        state="Nothing was touched.",
        next_step=" ".join(dict.fromkeys(refusal.next_step for refusal in plan.refusals)),
        details={"refusals": [refusal.as_dict() for refusal in plan.refusals], "plan": plan.as_dict()},
    )
