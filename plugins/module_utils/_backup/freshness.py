# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the newest verified backups are as young as the policy wants. Pure. PRIVATE to the collection.

A job that was skipped, that failed, or that nobody ever started leaves the same trace: no young verified backup. So
that is what is looked at, and not whether a job says that it ran.
"""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from .._artifact.catalog import Entry
from .._clock import iso

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
    """How young the newest verified backup has to be."""

    job: str
    database: str
    engine: str
    type: str
    max_age: float

    @classmethod
    def from_dict(cls, data: t.Mapping[str, t.Any]) -> Demand | None:
        """From what `policy.Job.as_dict` gives; None when the job demands nothing."""
        if data.get("max_age") is None:
            return None
        return cls(data["name"], data["database"], data["engine"], data["type"], float(data["max_age"]))


@dataclasses.dataclass(frozen=True)
class Point:
    """One backup, as far as freshness cares."""

    id: str
    database: str
    engine: str
    type: str
    moment: datetime.datetime
    verified: bool

    @classmethod
    def of(cls, entry: Entry) -> Point:
        """From an entry."""
        made = entry.manifest
        return cls(entry.id, made.database, made.engine, made.type, entry.moment, entry.verified)


@dataclasses.dataclass(frozen=True)
class Freshness:
    """What is the case for one job.

    Attributes:
        age: seconds since the newest verified backup was started; None when there is none.
        ok: whether it is young enough.
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
    if age > demand.max_age:
        told = f"{kind} is {words(age)} old, and {words(demand.max_age)} are allowed: it was skipped or it failed"
        younger = [point for point in alike if point.moment > newest.moment]
        told += f"; {len(younger)} younger ones are not verified." if younger else "."
        return _verdict(demand, False, head + told, newest.id, age)
    return _verdict(
        demand, True, f"{head}{kind} is {words(age)} old; {words(demand.max_age)} are allowed.", newest.id, age
    )


def _nothing(demand: Demand, alike: list[Point]) -> str:
    if alike:
        return f"there are {len(alike)} {demand.type} backups of {demand.database}, and none of them is verified."
    return f"there is no {demand.type} backup of {demand.database}: it was never made, or what was made is gone."


def _verdict(demand: Demand, ok: bool, what: str, newest: str = "", age: float | None = None) -> Freshness:
    return Freshness(demand.job, demand.database, demand.type, ok, what, newest, age, demand.max_age)


def words(seconds: float) -> str:
    """A span for people: ``45 min``, ``26 h``, ``3.5 days``."""
    if seconds < 90 * 60:
        return f"{max(seconds, 0) / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.3g} h"
    return f"{seconds / 86400:.3g} days"
