# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is kept and what goes: planned from entries, rules and the time, then done. PRIVATE to the collection.

Every rule keeps; none removes alone. What no rule keeps goes, except what must never go: the last verified backup of
its kind, what a kept one depends on, what the store's object lock or a legal hold holds.

Only the rule `days` looks at the time. It counts a stretch without backups as no longer than such stretches usually
are: a clock that jumped by ten years makes nothing ten years older, nor does a summer in which nothing was backed up.
"""

from __future__ import annotations

import dataclasses
import datetime
import statistics
import typing as t

from .._artifact.catalog import Entry
from .._artifact.manifest import MANIFEST
from .._clock import iso, parse_iso
from .._errors import HmsError
from .._store.model import ObjectStore
from .model import Retention

SKEW = datetime.timedelta(minutes=10)
"""How far two honest clocks may be apart."""

SHORTEST_GAP = datetime.timedelta(days=3)
UNKNOWN_GAP = datetime.timedelta(days=31)
"""A stretch without backups that is plausible while there are too few to tell what is usual."""

_BUCKETS: tuple[tuple[str, t.Callable[[datetime.datetime], str]], ...] = (
    ("daily", lambda moment: f"{moment:%Y-%m-%d}"),
    ("weekly", lambda moment: "week {1} of {0}".format(*moment.isocalendar())),
    ("monthly", lambda moment: f"{moment:%Y-%m}"),
    ("yearly", lambda moment: f"{moment:%Y}"),
)


@dataclasses.dataclass(frozen=True)
class Removal:
    """A backup that goes, and why."""

    id: str
    why: str
    database: str = ""
    bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Kept:
    """A backup that stays, and why."""

    id: str
    why: str
    database: str = ""


@dataclasses.dataclass(frozen=True)
class RetentionPlan:
    """What goes, in the order in which it must go, and what stays.

    Attributes:
        removals: children before their parents, so that a kill in between leaves no child alone.
        kept: oldest first.
        refused: why nothing at all is removed (the clock can't be right), '' when it could be.
    """

    removals: tuple[Removal, ...] = ()
    kept: tuple[Kept, ...] = ()
    refused: str = ""

    def as_dict(self) -> dict[str, t.Any]:
        """As plain data."""
        return dataclasses.asdict(self)


def plan_retention(
    entries: t.Iterable[Entry],
    rules: t.Mapping[str, Retention],
    now: datetime.datetime,
    locked: t.Mapping[str, str] | None = None,
) -> RetentionPlan:
    """What goes of the entries of one store. `rules` by type; a type without rules stays for ever.

    `locked` says of ids until when the store holds them, or why that can't be known.
    """
    groups: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=_order):
        groups.setdefault(entry.manifest.database, []).append(entry)
    plans = [_of_database(group, rules, now, locked or {}) for group in groups.values()]
    return RetentionPlan(
        tuple(removal for plan in plans for removal in plan.removals),
        tuple(kept for plan in plans for kept in plan.kept),
        " ".join(plan.refused for plan in plans if plan.refused),
    )


def _order(entry: Entry) -> tuple[datetime.datetime, str]:
    return (entry.moment, entry.id)


def _of_database(
    entries: list[Entry], rules: t.Mapping[str, Retention], now: datetime.datetime, locked: t.Mapping[str, str]
) -> RetentionPlan:
    """The plan for the backups of one database, which are sorted."""
    asked = any(not rules.get(entry.manifest.type, Retention()).keeps_everything for entry in entries)
    doubt = doubt_of_clock(entries, now) if asked else ""
    if doubt:
        return RetentionPlan(
            kept=tuple(Kept(entry.id, doubt, entry.manifest.database) for entry in entries), refused=doubt
        )
    ages = ages_of(entries, now)
    reasons: dict[str, list[str]] = {entry.id: _held(entry, now, locked) for entry in entries}
    kinds: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        kinds.setdefault((entry.manifest.engine, entry.manifest.type), []).append(entry)
    for (_engine, type_), group in kinds.items():
        for identifier, why in _kept_by_rules(group, rules.get(type_, Retention()), type_, ages):
            reasons[identifier].append(why)
    _keep_parents(entries, reasons)
    goes = [
        Removal(entry.id, _why_not(rules[entry.manifest.type]), entry.manifest.database, entry.manifest.bytes)
        for entry in reversed(entries)
        if not reasons[entry.id]
    ]
    stays = [
        Kept(entry.id, "; ".join(reasons[entry.id]), entry.manifest.database) for entry in entries if reasons[entry.id]
    ]
    return RetentionPlan(tuple(_children_first(goes, entries)), tuple(stays))


def _children_first(goes: list[Removal], entries: t.Sequence[Entry]) -> list[Removal]:
    """Newest first is children first, unless a clock was wrong: then a parent waits for its children."""
    parents = {entry.id: entry.manifest.parent for entry in entries}

    def depth(identifier: str) -> int:
        seen: set[str] = set()
        while parents.get(identifier) and identifier not in seen:
            seen.add(identifier)
            identifier = parents[identifier]
        return len(seen)

    return sorted(goes, key=lambda removal: -depth(removal.id))


def doubt_of_clock(entries: t.Sequence[Entry], now: datetime.datetime) -> str:
    """Why `now` can't be right, as far as the backups of one database tell; '' when it can."""
    if not entries:
        return ""
    newest = entries[-1]
    database, at = newest.manifest.database, iso(newest.moment)
    if now < newest.moment - SKEW:
        return (
            f"It is {iso(now)} by this clock, but {newest.id} of {database} was made at {at}: one of them is wrong,"
            " and nothing is removed. Set the clock right, or, if that backup was made under a wrong clock, remove it."
        )
    usual = plausible_gap(entries)
    if now - newest.moment > usual + SKEW:
        return (
            f"It is {iso(now)} by this clock, and the newest backup of {database} is of {at}: either the clock is wrong"
            f" or nothing was backed up for longer than usual (more than {_days(usual)}), and nothing is removed."
            " Make a backup first."
        )
    return ""


def plausible_gap(entries: t.Sequence[Entry]) -> datetime.timedelta:
    """How long a stretch without backups may be: four times the usual one, three days at least."""
    moments = [entry.moment for entry in entries[-60:]]
    gaps = [(later - earlier).total_seconds() for earlier, later in zip(moments, moments[1:])]
    if len(gaps) < 3:
        return UNKNOWN_GAP
    return max(SHORTEST_GAP, datetime.timedelta(seconds=4 * statistics.median(gaps)))


def ages_of(entries: t.Sequence[Entry], now: datetime.datetime) -> dict[str, datetime.timedelta]:
    """The age of each, by id; a stretch without backups counts for no more than is plausible."""
    limit = plausible_gap(entries)
    ages: dict[str, datetime.timedelta] = {}
    age, later = datetime.timedelta(0), now
    for entry in reversed(entries):
        age += max(datetime.timedelta(0), min(later - entry.moment, limit))
        ages[entry.id], later = age, entry.moment
    return ages


def _held(entry: Entry, now: datetime.datetime, locked: t.Mapping[str, str]) -> list[str]:
    """What holds it whatever the rules say."""
    reasons = []
    if entry.held:
        reasons.append("a legal hold lies on it")
    until = locked.get(entry.id, "")
    if not until and entry.manifest.expires_locked and parse_iso(entry.manifest.expires_locked) > now:
        until = f"until {entry.manifest.expires_locked}"
    if until:
        reasons.append(f"the store's object lock holds it ({until})")
    return reasons


def _kept_by_rules(
    group: list[Entry], rules: Retention, type_: str, ages: t.Mapping[str, datetime.timedelta]
) -> t.Iterator[tuple[str, str]]:
    """Ids of one engine and type that the rules keep, and why. Those known to be bad fill nobody's place."""
    if rules.keeps_everything:
        yield from ((entry.id, f"there is no rule for {type_}") for entry in group)
        return
    newest_first = group[::-1]
    good = [entry for entry in newest_first if not entry.bad]
    if rules.days:
        limit = datetime.timedelta(days=rules.days)
        yield from ((entry.id, f"younger than {_days(limit)}") for entry in group if ages[entry.id] < limit)
    yield from ((entry.id, f"one of the newest {rules.keep_last}") for entry in good[: rules.keep_last])
    for name, bucket_of in _BUCKETS:
        yield from _newest_of_each(good, getattr(rules, name), name, bucket_of)
    yield _last_resort(newest_first, good, type_)


def _newest_of_each(
    good: list[Entry], count: int, name: str, bucket_of: t.Callable[[datetime.datetime], str]
) -> t.Iterator[tuple[str, str]]:
    """The newest of each of the last `count` buckets that hold a backup; a verified one where there is one."""
    buckets: dict[str, Entry] = {}
    for entry in good if count else ():
        bucket = bucket_of(entry.moment.astimezone(datetime.timezone.utc))
        if bucket not in buckets and len(buckets) == count:
            break
        known = buckets.setdefault(bucket, entry)
        if entry.verified and not known.verified:
            buckets[bucket] = entry
    yield from ((entry.id, f"{name}: of {bucket}") for bucket, entry in buckets.items())


def _last_resort(newest_first: list[Entry], good: list[Entry], type_: str) -> tuple[str, str]:
    """What stays whatever the rules say, so that there is always something to restore."""
    verified = [entry for entry in newest_first if entry.verified]
    if verified:
        return verified[0].id, f"the last verified {type_}"
    if good:
        return good[0].id, f"the last {type_}; none is verified"
    return newest_first[0].id, f"the last {type_}; all are known to be bad"


def _keep_parents(entries: t.Iterable[Entry], reasons: dict[str, list[str]]) -> None:
    """What a kept one depends on stays too, to the end of the chain."""
    parents = {entry.id: entry.manifest.parent for entry in entries}
    told: set[str] = set()
    for identifier in [identifier for identifier, why in reasons.items() if why]:
        child = identifier
        while parents.get(child) in reasons and child not in told:
            told.add(child)
            reasons[parents[child]].append(f"{child} depends on it")
            child = parents[child]


def _why_not(rules: Retention) -> str:
    """Why one goes: what its type's rules keep, and it is none of that."""
    parts = [f"younger than {rules.days:g} days"] if rules.days else []
    parts += [f"the newest {rules.keep_last}"] if rules.keep_last else []
    parts += [f"{getattr(rules, name)} {name}" for name, _bucket in _BUCKETS if getattr(rules, name)]
    return f"not among what is kept ({', '.join(parts)})"


def _days(span: datetime.timedelta) -> str:
    amount = span.total_seconds() / 86400
    return f"{amount:.3g} day" + ("" if amount == 1 else "s")


def locks_of(
    store: ObjectStore, entries: t.Iterable[Entry], removals: t.Iterable[Removal], now: datetime.datetime
) -> dict[str, str]:
    """Until when the store itself holds what is to be removed. What can't be known counts as held."""
    wanted = {removal.id for removal in removals}
    found: dict[str, str] = {}
    for entry in entries:
        if entry.id not in wanted:
            continue
        names = [MANIFEST, *(member.name for member in entry.manifest.members)]
        try:
            untils = [store.locked_until(entry.manifest.key(name)) for name in names]
        except HmsError as error:
            found[entry.id] = f"until nobody knows when: {error.message}"
            continue
        latest = max((until for until in untils if until is not None), default=None)
        if latest is not None and latest > now:
            found[entry.id] = f"until {iso(latest)}"
    return found


def plan_for_store(
    store: ObjectStore, entries: t.Sequence[Entry], rules: t.Mapping[str, Retention], now: datetime.datetime
) -> RetentionPlan:
    """The plan with what the store's object lock says; it is asked only about what would go."""
    plan = plan_retention(entries, rules, now)
    locked = locks_of(store, entries, plan.removals, now) if plan.removals else {}
    return plan_retention(entries, rules, now, locked) if locked else plan


def apply_retention(
    store: ObjectStore,
    entries: t.Iterable[Entry],
    plan: RetentionPlan,
    *,
    removed: t.Callable[[Removal], None] = lambda _removal: None,
) -> list[str]:
    """Remove what the plan names; ids of what went. `removed` is told of each.

    The manifest goes first: killed in the middle, what is left is debris that the next run sweeps away. The other way
    round something would look like a backup and not be one.
    """
    known = {(entry.manifest.database, entry.id): entry for entry in entries}
    done: list[str] = []
    for removal in plan.removals:
        manifest = known[removal.database, removal.id].manifest
        try:
            store.remove([manifest.key(MANIFEST)])
            store.remove([found.key for found in store.list(manifest.folder + "/")])
        except HmsError as error:
            error.phase = "retention"
            error.state = (
                f"{len(done)} of {len(plan.removals)} old backups were removed; what is left is whole or debris."
            )
            error.next_step = error.next_step or "Let the account remove objects; the next backup finishes the removal."
            error.details.update(removed=done, failed=removal.id)
            raise
        done.append(removal.id)
        removed(removal)
    return done
