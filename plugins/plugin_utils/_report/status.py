# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The state of the cluster on one screen, 100 columns wide. PRIVATE to the collection.

Problems stand first: whoever asks for the status at night wants to know whether to go back to bed.
"""

from __future__ import annotations

import re
import typing as t
from collections.abc import Mapping

from .access import flag, integer, items, mapping, mappings, number, position, text, texts
from .columns import cut, ends, table, wrap
from .units import count, seconds, size, stamp_text

WIDTH = 100
_NONE = "-"

Data = Mapping[str, t.Any]


def render_status(cluster: Data) -> str:
    """The screen, without a line feed at its end."""
    members, poolers = mappings(cluster.get("members")), mappings(cluster.get("poolers"))
    blocks = [
        [_title(cluster), "=" * WIDTH, _summary(cluster, members, poolers)],
        _problems(mappings(cluster.get("problems"))),
        _members(members),
        _slots(members),
        _poolers(poolers),
        _last_operation(mapping(cluster.get("last_operation"))),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _title(cluster: Data) -> str:
    environment = text(cluster.get("environment"))
    name = text(cluster.get("cluster")) or "(cluster without a name)"
    return ends(f"{name} ({environment})" if environment else name, stamp_text(text(cluster.get("at"))), WIDTH)


def _summary(cluster: Data, members: list[Data], poolers: list[Data]) -> str:
    problems = mappings(cluster.get("problems"))
    critical = sum(1 for problem in problems if problem.get("severity") == "critical")
    if critical:
        told = f"{count(len(problems), 'problem')}, {critical} critical."
    elif problems:
        told = f"{count(len(problems), 'warning')}."
    else:
        told = "No problem is known."
    primaries = [text(member.get("name")) for member in members if member.get("role") == "primary"]
    lead = {0: "NO PRIMARY.", 1: f"Primary: {''.join(primaries)}."}.get(len(primaries))
    lead = lead or f"{len(primaries)} PRIMARIES: {', '.join(primaries)}."
    away = sum(1 for host in (*members, *poolers) if flag(host.get("reachable")) is False)
    unreachable = f" {count(away, 'host')} unreachable." if away else ""
    return cut(f"{told} {lead}{unreachable}", WIDTH)


def _problems(problems: list[Data]) -> list[str]:
    lines: list[str] = []
    for problem in sorted(problems, key=lambda found: found.get("severity") != "critical"):
        severity = text(problem.get("severity")).upper() or "PROBLEM"
        lines += wrap(
            text(problem.get("what")) or "(no words)", width=WIDTH, most=3, first=f"{severity:<9} ", later=" " * 10
        )
        if problem.get("do"):
            lines += wrap(text(problem.get("do")), width=WIDTH, most=4, first="  do:     ", later=" " * 10)
    return lines


def _members(members: list[Data]) -> list[str]:
    if not members:
        return ["No database host is known."]
    heads = ("MEMBER", "ROLE", "TL", "LSN", "BEHIND", "SYNC", "SLOT", "RECEIVER")
    lines = table(heads, [_member(member, members) for member in members], WIDTH)
    lines += _notes(members)
    return lines


def _member(member: Data, members: list[Data]) -> tuple[str, ...]:
    return (
        text(member.get("name")) or "(no name)",
        _role(member),
        _shown(member.get("timeline") or None),
        _shown(position(member.get("lsn"))),
        _behind(member),
        _shown(member.get("sync_state")),
        _own_slot(member, members),
        _receiver(member),
    )


def _role(member: Data) -> str:
    role = text(member.get("role")) or "unknown"
    if flag(member.get("reachable")) is False:
        role = "unreachable" if role in ("unknown", "") else f"{role}, unreachable"
    return f"{role}, fenced" if member.get("fence") and role != "fenced" else role


def _behind(member: Data) -> str:
    amount, age = number(member.get("lag_bytes")), number(member.get("lag_seconds"))
    parts = [size(amount) if amount is not None else "", seconds(age) if age is not None else ""]
    return ", ".join(part for part in parts if part) or _NONE


def _own_slot(member: Data, members: list[Data]) -> str:
    """The slot that other members keep for this one."""
    wanted = re.sub(r"[^a-z0-9_]", "_", text(member.get("name")).lower())
    for other in members:
        for slot in mappings(other.get("slots")):
            if other is not member and slot.get("name") == wanted:
                return _activity(slot)
    return _NONE


def _activity(slot: Data) -> str:
    return {True: "active", False: "INACTIVE", None: _NONE}[flag(slot.get("active"))]


def _receiver(member: Data) -> str:
    if member.get("role") != "standby":
        return _NONE
    upstream = text(member.get("upstream"))
    source = f" from {upstream}" if upstream else ""
    return {True: f"streaming{source}", False: f"NOT STREAMING{source}", None: _NONE}[flag(member.get("streaming"))]


def _notes(members: list[Data]) -> list[str]:
    """What doesn't fit into columns: versions, synchronous standbys, errors, restarts that are due."""
    lines: list[str] = []
    versions: dict[str, list[str]] = {}
    for member in members:
        if member.get("version"):
            versions.setdefault(text(member.get("version")), []).append(text(member.get("name")))
    if versions:
        each = "; ".join(f"{version} on {', '.join(names)}" for version, names in versions.items())
        lines += _note("PostgreSQL " + (next(iter(versions)) if len(versions) == 1 else each))
    for member in members:
        name = text(member.get("name"))
        if member.get("role") == "primary" and "sync_names" in member:
            lines += _note(f"{name} waits for: {text(member.get('sync_names')) or 'no standby (asynchronous)'}")
        if texts(member.get("pending_restart")):
            lines += _note(f"{name} needs a restart for: {', '.join(texts(member.get('pending_restart')))}")
        if mapping(member.get("fence")):
            lines += _note(f"{name} is fenced: {_fence(mapping(member.get('fence')))}")
        if member.get("error"):
            lines += _note(f"{name}: {text(member.get('error'))}")
    return ["", *lines] if lines else []


def _fence(fence: Data) -> str:
    return ", ".join(f"{text(key)} {text(value)}" for key, value in fence.items() if value not in (None, "", [], {}))


def _note(words: str) -> list[str]:
    return wrap(words, width=WIDTH, most=2, first="  ", later="    ")


def _slots(members: list[Data]) -> list[str]:
    rows = [
        (
            text(slot.get("name")) or "(no name)",
            text(member.get("name")),
            _activity(slot),
            _retained(slot),
            _shown(slot.get("wal_status")),
        )
        for member in members
        for slot in mappings(member.get("slots"))
    ]
    return table(("SLOT", "ON", "ACTIVE", "RETAINED", "WAL"), rows, WIDTH) if rows else []


def _retained(slot: Data) -> str:
    amount = number(slot.get("retained_bytes"))
    return _NONE if amount is None else size(amount)


def _poolers(poolers: list[Data]) -> list[str]:
    if not poolers:
        return []
    heads = ("BOUNCER", "PROCESS", "POINTS AT", "PAUSED", "ACTIVE", "WAITING", "SERVERS")
    rows = [row for pooler in poolers for row in _pooler(pooler)]
    errors = [f"{text(pooler.get('name'))}: {text(pooler.get('error'))}" for pooler in poolers if pooler.get("error")]
    return table(heads, rows, WIDTH) + [line for error in errors for line in _note(error)]


def _pooler(pooler: Data) -> list[tuple[str, ...]]:
    name = text(pooler.get("name")) or "(no name)"
    processes = mappings(pooler.get("processes"))
    if not processes:
        state = "unreachable" if flag(pooler.get("reachable")) is False else "none seen"
        return [(name, state, *[_NONE] * 5)]
    return [
        (
            name,
            _shown(process.get("name")),
            _shown(process.get("points_at")),
            {True: "PAUSED", False: "no", None: _NONE}[flag(process.get("paused"))],
            _number(process.get("clients_active")),
            _number(process.get("clients_waiting")),
            _number(process.get("servers")),
        )
        for process in processes
    ]


def _last_operation(operation: Data) -> list[str]:
    if not operation:
        return ["No operation is recorded."]
    parts = (
        text(operation.get("operation")) or "unknown",
        text(operation.get("status")) or "unfinished",
        stamp_text(text(operation.get("at"))),
    )
    told = "Last operation: " + ", ".join(part for part in parts if part)
    lines = wrap(f"{told}. {text(operation.get('message'))}", width=WIDTH, most=3, later="  ")
    return [*lines, cut(f"  Record {text(operation.get('id'))}", WIDTH)] if operation.get("id") else lines


def _shown(value: t.Any) -> str:
    return text(value) or _NONE


def _number(value: t.Any) -> str:
    if isinstance(value, (list, tuple)):
        return str(len(items(value)))
    found = integer(value)
    return _NONE if found is None else str(found)
