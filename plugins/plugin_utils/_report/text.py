# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report for a terminal: one screen of 40 lines by 80 columns, the verdict first. PRIVATE to the collection."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

from .columns import cut, ends, wrap
from .model import Record, Snapshot
from .parse import parse_record
from .phases import critical_phase
from .summary import default_steps
from .units import count, seconds, span, stamp, stamp_text
from .verdict import Objective, by_outage, last_step, lost_number, objectives, operation_name, verdict

WIDTH = 80
LINES = 40
_HEADLINE, _MESSAGE, _FACTS, _TROUBLE, _NEXT = 4, 3, 11, 7, 7


def render_text(record: Mapping[str, t.Any]) -> str:
    """The report, without a line feed at its end."""
    found = parse_record(record)
    told = verdict(found)
    message = found.outcome.message
    blocks = [
        [ends(_title(found), told.label.upper(), WIDTH)],
        wrap(told.headline, width=WIDTH, most=_HEADLINE)
        + (wrap(message, width=WIDTH, most=_MESSAGE) if message and message not in told.headline else []),
        _facts(found)[:_FACTS],
        _trouble(found),
        _next(found),
        _origin(found),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _title(record: Record) -> str:
    where = f" of {record.cluster}" if record.cluster else ""
    which = f" ({record.environment})" if record.environment else ""
    return f"{operation_name(record).upper()}{where}{which}"


def _facts(record: Record) -> list[str]:
    pairs = [
        ("waited", _waited(record)),
        ("lost", _lost(record)),
        *[(objective.name, _objective_words(objective)) for objective in objectives(record)],
        ("primary", _primary(record)),
        ("fence", _fence(record)),
        ("clients", _clients(record)),
        ("critical", _critical(record)),
        ("predicted", _predicted(record)),
        *_drilled(record),
        ("kept", record.kept_directory),
        ("warned", "; ".join(record.plan.warnings)),
        ("forced", ", ".join(refusal.rule for refusal in record.plan.refusals if refusal.overridden)),
    ]
    return [_fact(name, value) for name, value in pairs if value]


def _fact(name: str, value: str) -> str:
    """A fact on one line."""
    return f"  {name:<9} {cut(value, WIDTH - 12)}"


def _waited(record: Record) -> str:
    if record.waited is None:
        return ""
    if not by_outage(record):
        return seconds(record.waited)
    probe = f" (the probe, once started, waited {seconds(record.stall_seconds)})" if record.stall_seconds else ""
    return f"at most {seconds(record.waited)}{probe}"


def _lost(record: Record) -> str:
    return "" if record.lost is None and record.losses is None else lost_number(record)


def _objective_words(objective: Objective) -> str:
    if objective.measured is None:
        return ""
    allowed = f"objective {seconds(objective.allowed)}" if objective.allowed is not None else ""
    return f"{seconds(objective.measured):<9} {allowed:<18} {objective.word.upper()}".rstrip()


def _primary(record: Record) -> str:
    before, after = _head(record.before) or record.plan.old_primary, _head(record.after)
    if record.before and not record.after and record.outcome.status not in ("refused", "nothing_to_do"):
        after = "not recorded"
    return " -> ".join(dict.fromkeys(words for words in (before, after) if words))


def _head(snapshot: Snapshot | None) -> str:
    if snapshot is None:
        return ""
    head = snapshot.head
    name = head.name if head else snapshot.primary
    return f"{name} (timeline {head.timeline})" if head and head.timeline is not None else name


def _fence(record: Record) -> str:
    fence = record.fence
    if fence is None:
        return ""
    method = f" by {fence.method}" if fence.method not in ("", "none") else ""
    failing = sum(not proof.holds for proof in fence.proofs)
    proofs = count(len(fence.proofs), "proof")
    if not fence.proven:
        proofs = f"NOT PROVEN ({failing} of {count(len(fence.proofs), 'claim')})" if failing else "NO PROOF"
    return f"{fence.host or 'old primary'}{method}: {proofs}"


def _clients(record: Record) -> str:
    clients = record.clients
    if clients is None:
        return ""
    counts = (("acknowledged", clients.acknowledged), ("failed", clients.failed), ("unknown", clients.unknown))
    return ", ".join(f"{number:,} {name}" for name, number in counts if number is not None)


def _critical(record: Record) -> str:
    phase = critical_phase(record)
    if phase is None or phase.span is None:
        return ""
    return span(phase.span.length) if phase.finished else "no end recorded"


def _predicted(record: Record) -> str:
    predicted, measured = record.plan.stall_seconds, record.stall_seconds
    if predicted is None:
        return ""
    return f"stall {seconds(predicted)}" + (f", measured {seconds(measured)}" if measured is not None else "")


def _drilled(record: Record) -> list[tuple[str, str]]:
    """A line for each backup of a restore drill."""
    return [
        (
            "back" if one.ok else "NOT BACK",
            f"{one.database} {one.engine} {one.label or one.id}: "
            + (
                f"{seconds(one.restore_seconds or 0.0)}, {seconds(one.projected_seconds)} at today's size"
                if one.ok and one.projected_seconds is not None
                else "; ".join(one.problems)
            ),
        )
        for one in record.host_side.drilled
    ]


def _trouble(record: Record) -> list[str]:
    """Why it was refused, where it stopped, or what was lost."""
    lines: list[str] = []
    standing = [refusal for refusal in record.plan.refusals if not refusal.overridden]
    if standing:
        lines.append("Why")
        for refusal in standing:
            rule = f" [{refusal.rule}]" if refusal.rule else ""
            text = f"{refusal.message}{rule} {refusal.next_step}"
            lines += wrap(text, width=WIDTH, most=4, first="  - ", later="    ")
            if refusal.overridable:
                lines.append(f"    Override: force={refusal.rule}")
    elif record.outcome.status in ("", "incomplete", "rolled_back"):
        lines += _stopped(record)
    if record.losses and record.losses.transactions:
        lines.append("Lost")
        for lost in record.losses.transactions:
            what = f"{lost.xid}  {stamp_text(lost.committed_at)}  {', '.join(lost.relations)}"
            lines.append("  " + cut(what, WIDTH - 2))
    return _at_most(lines, _TROUBLE)


def _stopped(record: Record) -> list[str]:
    step = last_step(record)
    if step is None:
        return []
    result = "no end recorded" if step.unfinished else step.result
    detail = f": {step.detail}" if step.detail else ""
    told = f"step {step.number} of {len(record.steps)}, {step.host}, {step.title} ({result}){detail}"
    return ["Stopped at", *wrap(told, width=WIDTH, most=4, first="  ", later="  ")]


def _next(record: Record) -> list[str]:
    lines: list[str] = []
    for number, step in enumerate(record.outcome.next_steps or default_steps(record), start=1):
        lines += wrap(step, width=WIDTH, most=3, first=f"  {number}. ", later="     ")
    return _at_most(["Next", *lines], _NEXT) if lines else []


def _origin(record: Record) -> list[str]:
    by = f" by {record.asked_by}" if record.asked_by else ""
    at = stamp(record.asked_at) if record.asked_at else record.asked_at_text
    asked = f"Asked{by}{', ' + at if at else ''}." if by or at else "Who asked is not recorded."
    return [cut(asked, WIDTH), cut(f"Record {record.id or 'without an id'}", WIDTH)]


def _at_most(lines: list[str], most: int) -> list[str]:
    return lines if len(lines) <= most else [*lines[: most - 1], "  … more in the report"]
