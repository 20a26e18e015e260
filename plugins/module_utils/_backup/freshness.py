# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the newest verified backups and the last restore drill are as young as the policy wants. Pure. PRIVATE.

A job that was skipped, that failed, or that nobody ever started leaves the same trace: no young verified backup. So
that is what is looked at, and not whether a job says that it ran.
"""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from .._artifact.catalog import Entry
from .._clock import iso, parse_iso

SKEW = datetime.timedelta(minutes=10)

AS_GOOD_AS: dict[str, frozenset[str]] = {
    "full": frozenset({"full"}),
    "differential": frozenset({"differential", "full"}),
    "incremental": frozenset({"incremental", "differential", "full"}),
    "schema_only": frozenset({"schema_only", "full"}),
    "data_only": frozenset({"data_only", "full"}),
}
"""What satisfies the wish for a type."""


@dataclasses.dataclass(frozen=True)
class Demand:
    """How young the newest verified backup has to be, and how young the last restore drill; None asks for none."""

    job: str
    database: str
    engine: str
    type: str
    max_age: float | None
    restored_within: float | None = None

    @classmethod
    def from_dict(cls, data: t.Mapping[str, t.Any]) -> Demand | None:
        """From what `policy.Job.as_dict` gives; None when the job demands nothing."""
        age, drilled = (
            None if data.get(name) is None else float(data[name]) for name in ("max_age", "restored_within")
        )
        if age is None and drilled is None:
            return None
        return cls(data["name"], data["database"], data["engine"], data["type"], age, drilled)


@dataclasses.dataclass(frozen=True)
class Point:
    """One backup, as far as freshness cares."""

    id: str
    database: str
    engine: str
    type: str
    moment: datetime.datetime
    verified: bool
    restored: datetime.datetime | None = None

    @classmethod
    def of(cls, entry: Entry) -> Point:
        """From an entry."""
        made, drill = entry.manifest, entry.restored
        restored = parse_iso(drill.at) if drill else None
        return cls(entry.id, made.database, made.engine, made.type, entry.moment, entry.verified, restored)


@dataclasses.dataclass(frozen=True)
class Freshness:
    """What is the case for one job.

    Attributes:
        age: seconds since the newest verified backup was started; None when there is none.
        ok: whether it is young enough, and the last restore drill as well where one is demanded.
        restored_age: seconds since a restore drill brought a backup of the job back; None when there is none.
        what: one sentence for people.
    """

    job: str
    database: str
    type: str
    ok: bool
    what: str
    newest: str = ""
    age: float | None = None
    max_age: float = 0.0
    restored_age: float | None = None

    def as_dict(self) -> dict[str, t.Any]:
        """As plain data."""
        return dataclasses.asdict(self)


def judge(points: t.Iterable[Point], demands: t.Iterable[Demand], now: datetime.datetime) -> list[Freshness]:
    """One verdict for each demand."""
    known = list(points)
    return [_judge(known, demand, now) for demand in demands]


def _judge(points: list[Point], demand: Demand, now: datetime.datetime) -> Freshness:
    types = AS_GOOD_AS.get(demand.type, frozenset({demand.type}))
    alike = [
        point
        for point in points
        if (point.database, point.engine) == (demand.database, demand.engine) and point.type in types
    ]
    drilled = alike if demand.engine != "pgbackrest" else _of_repository(points, demand)
    if demand.max_age is None:
        return _drilled(_verdict(demand, True, ""), drilled, demand, now)
    return _drilled(_young(alike, demand, demand.max_age, now), drilled, demand, now)


def _of_repository(points: list[Point], demand: Demand) -> list[Point]:
    """pgBackRest's backups build on each other: a drill takes the newest, and reads what that builds on."""
    return [point for point in points if (point.database, point.engine) == (demand.database, demand.engine)]


def _drilled(found: Freshness, alike: list[Point], demand: Demand, now: datetime.datetime) -> Freshness:
    """The verdict with what there is to say of restore drills."""
    if demand.restored_within is None:
        return found
    moments = [point.restored for point in alike if point.restored is not None]
    age = (now - max(moments)).total_seconds() if moments else None
    allowed = f"one within {words(demand.restored_within)} is demanded (playbooks/restore_drill.yml)"
    if age is None:
        ok, told = False, f"no backup of {demand.database} that is there was ever restored by a drill; {allowed}."
    elif age < -SKEW.total_seconds():
        ok, told = False, "the last restore drill lies in the future: a clock is wrong, so its age can't be told."
    else:
        ok = age <= demand.restored_within
        told = f"the last restore drill that passed was {words(age)} ago"
        told += "." if ok else f"; {allowed}."
    head = "" if found.what else f"{demand.job}: "
    what = " ".join(part for part in (found.what, head + told) if part)
    return dataclasses.replace(found, ok=found.ok and ok, what=what, restored_age=age)


def _young(alike: list[Point], demand: Demand, max_age: float, now: datetime.datetime) -> Freshness:
    verified = [point for point in alike if point.verified]
    head = f"{demand.job}: "
    if not verified:
        return _verdict(demand, False, head + _nothing(demand, alike))
    newest = max(verified, key=lambda point: point.moment)
    age = (now - newest.moment).total_seconds()
    kind = f"the newest verified {newest.type} backup of {demand.database}"
    if age < -SKEW.total_seconds():
        told = (
            f"{kind} is of {iso(newest.moment)}, but it is {iso(now)} here: a clock is wrong, so its age can't be told."
        )
        return _verdict(demand, False, head + told, newest.id, age)
    if age > max_age:
        told = f"{kind} is {words(age)} old, and {words(max_age)} are allowed: it was skipped or it failed"
        younger = [point for point in alike if point.moment > newest.moment]
        told += f"; {len(younger)} younger ones are not verified." if younger else "."
        return _verdict(demand, False, head + told, newest.id, age)
    return _verdict(demand, True, f"{head}{kind} is {words(age)} old; {words(max_age)} are allowed.", newest.id, age)


def _nothing(demand: Demand, alike: list[Point]) -> str:
    if alike:
        return f"there are {len(alike)} {demand.type} backups of {demand.database}, and none of them is verified."
    return f"there is no {demand.type} backup of {demand.database}: it was never made, or what was made is gone."


def _verdict(demand: Demand, ok: bool, what: str, newest: str = "", age: float | None = None) -> Freshness:
    return Freshness(demand.job, demand.database, demand.type, ok, what, newest, age, demand.max_age or 0.0)


def words(seconds: float) -> str:
    """A span for people: ``45 min``, ``26 h``, ``3.5 days``."""
    if seconds < 90 * 60:
        return f"{max(seconds, 0) / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.3g} h"
    return f"{seconds / 86400:.3g} days"
