# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Operations of one host, during which no client waits: restores, drills, recoveries, backups. PRIVATE.

What matters of them is what came back, how it was proven, and how long it took.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .markup import Html, el, join
from .units import count, moment, seconds, size, stamp

_PHASES = ("prepare", "look", "create", "load", "recover", "analyze", "validate", "assertions", "properties", "django")
_SPARED = {
    "wal_missing": "The backup comes back to its own end and counts as before. From there to now the way is broken.",
    "validation_failed": "The backup counts as before: what failed is a question that was asked of it.",
}
"""Why a failure is not held against the backup, by its reason."""
HOST_SIDE = frozenset({"backup", "cleanup", "drill", "pitr", "restore"})
"""Operations whose records are written on the host itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at in what came back."""

    name: str
    database: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drilled:
    """One backup of a restore drill."""

    database: str
    engine: str
    id: str
    label: str
    store: str
    ok: bool
    reason: str
    problems: tuple[str, ...]
    spent: Mapping[str, float]
    restore_seconds: float | None
    projected_seconds: float | None
    rpo_seconds: float | None
    stored: int | None
    rate: int | None
    then_bytes: int | None
    now_bytes: int | None
    noted: bool
    last_transaction: str
    segment: str
    pending: tuple[str, ...]
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSide:
    """What such a record holds beside its steps."""

    drilled: tuple[Drilled, ...] = ()
    checks: tuple[Check, ...] = ()
    intended: tuple[str, ...] = ()
    reached: Mapping[str, str] = field(default_factory=dict)


def figures(found: HostSide) -> Html | None:
    """How many came back, how long a restore takes, what would be lost, how fast it was read."""
    drilled = found.drilled
    if not drilled:
        return None
    back = [one for one in drilled if one.ok]
    cards = [_card("Came back", f"{len(back)} of {len(drilled)}", "each on a throwaway instance of its own")]
    slowest = max((one for one in back if one.projected_seconds is not None), key=_projected, default=None)
    if slowest:
        note = f"{_name(slowest)}; measured {_took(slowest.restore_seconds)}"
        cards.append(_card("Restore at today\u2019s size (RTO)", seconds(_projected(slowest)), note))
    oldest = max((one for one in back if one.rpo_seconds is not None), key=_age, default=None)
    if oldest:
        note = f"{_name(oldest)}: what was written since its last transaction is not in it"
        cards.append(_card("Data at risk (RPO)", seconds(_age(oldest)), note))
    rates = [one.rate for one in back if one.rate]
    if rates:
        cards.append(_card("Read in a second", size(min(rates)), "stored bytes, the slowest of them"))
    return el("dl", *cards, class_="figures few" if len(cards) < 3 else "figures")


def _card(term: str, value: str, note: str) -> Html:
    shown = el("dd", el("div", value, class_="value"), el("div", note, class_="note"))
    return el("div", el("dt", term), shown)


def _projected(one: Drilled) -> float:
    return one.projected_seconds or 0.0


def _age(one: Drilled) -> float:
    return max(one.rpo_seconds or 0.0, 0.0)


def _name(one: Drilled) -> str:
    return f"{one.database or 'the instance'} by {'pgBackRest' if one.engine == 'pgbackrest' else one.engine}"


def _took(value: float | None) -> str:
    return "–" if value is None else seconds(value)


def problems(found: HostSide) -> Html | None:
    """Why backups did not come back."""
    bad = [one for one in found.drilled if not one.ok]
    if not bad:
        return None
    reasons = [
        el("li", el("b", f"{_name(one)}, {one.id}: "), "; ".join(one.problems) or "no reason is recorded", _held(one))
        for one in bad
    ]
    return el("section", el("h2", "What did not come back"), el("ul", *reasons), class_="callout bad")


def _held(one: Drilled) -> Html:
    if one.noted:
        told = "It is noted beside the backup, which counts as verified no more."
    else:
        told = _SPARED.get(one.reason, "The backup counts as before: the failure may be this host\u2019s own.")
    return el("div", told, class_="rule")


def backups(found: HostSide) -> Html | None:
    """Every backup of the drill with its times."""
    if not found.drilled:
        return None
    heads = ("Backup", "Came back", "Restored in", "At today\u2019s size", "Stored", "In a second", "Last transaction")
    head = el("tr", *[el("th", name, scope="col") for name in heads])
    rows = [_row(one) for one in found.drilled]
    return el("section", el("h2", "Backups"), el("table", el("thead", head), el("tbody", *rows)))


def _row(one: Drilled) -> Html:
    tone, word = ("good", "✓ yes") if one.ok else ("bad", "✕ no")
    order = sorted(one.spent.items(), key=lambda item: _PHASES.index(item[0]) if item[0] in _PHASES else len(_PHASES))
    spent = " · ".join(f"{name} {seconds(value)}" for name, value in order)
    when = moment(one.last_transaction)
    last = stamp(when) if when else _took(one.rpo_seconds) + " ago" if one.rpo_seconds is not None else "–"
    growth = f"{_bytes(one.then_bytes)} then, {_bytes(one.now_bytes)} today"
    pending = count(len(one.pending), "migration") + f" to run after it: {', '.join(one.pending)}"
    return el(
        "tr",
        el(
            "td",
            el("b", _name(one)),
            el("div", one.id + (f" ({one.label})" if one.label else ""), class_="detail"),
            el("div", one.store, class_="detail"),
            el("div", f"Phases: {spent}", class_="detail") if spent else None,
            el("div", pending, class_="detail") if one.pending else None,
        ),
        el("td", el("b", word, class_=tone), class_="nowrap"),
        el("td", _took(one.restore_seconds), class_="nowrap"),
        el("td", _took(one.projected_seconds), el("div", growth, class_="detail")),
        el("td", _bytes(one.stored), class_="nowrap"),
        el("td", _bytes(one.rate), class_="nowrap"),
        el("td", last, el("div", one.segment, class_="detail") if one.segment else None),
    )


def _bytes(value: int | None) -> str:
    return "–" if value is None else size(value)


def proofs(found: HostSide) -> Html | None:
    """What was looked at in what came back, and what was seen."""
    groups = [(_name(one) + ", " + one.id, one.checks) for one in found.drilled if one.checks]
    groups += [("", found.checks)] if found.checks else []
    if not groups:
        return None
    parts = [join([el("h3", title) if title else None, _checks(checks)]) for title, checks in groups]
    return el("section", el("h2", "What was proven"), *parts)


def _checks(checks: tuple[Check, ...]) -> Html:
    """What does not hold comes first; where there is one database only, it needs no column."""
    several = any(check.database for check in checks)
    rows = [
        el(
            "tr",
            el("td", el("b", "✓" if check.ok else "✕", class_="good" if check.ok else "bad")),
            el("td", check.database or "the whole", class_="nowrap" if check.database else "nowrap muted")
            if several
            else None,
            el("td", check.name, class_="nowrap"),
            el("td", check.detail),
        )
        for check in sorted(checks, key=lambda check: check.ok)
    ]
    names = ("", *(("Where",) if several else ()), "What", "What was seen")
    head = el("tr", *[el("th", name, scope="col") for name in names])
    return el("table", el("thead", head), el("tbody", *rows))


def intended(found: HostSide) -> Html | None:
    """What the plan said, in its own order."""
    if not found.intended:
        return None
    return el("section", el("h2", "The plan"), el("ol", *[el("li", step) for step in found.intended]))


def reached(found: HostSide) -> Html | None:
    """Where a recovery came to."""
    if not found.reached:
        return None
    rows = [join([el("dt", _term(name)), el("dd", value)]) for name, value in found.reached.items()]
    return el("section", el("h2", "Where it stands"), el("dl", *rows, class_="facts"))


def _term(name: str) -> str:
    return "LSN" if name == "lsn" else name.replace("_", " ").capitalize()
