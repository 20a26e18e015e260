# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verdict in plain words, the same for the page and for the terminal. PRIVATE to the collection.

Nothing is claimed that the record doesn't carry: what wasn't measured is called not measured.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .host_side import HOST_SIDE
from .model import Record, Step
from .units import clock, seconds

Tone = t.Literal["good", "warn", "bad", "calm"]
_NOUNS = {"drill": "restore drill", "pitr": "point-in-time recovery", "cleanup": "cleanup after restores"}
_READ_ONLY_PHASES = frozenset({"", "look", "inspect", "plan", "preflight", "check", "arm"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How the operation ended: a label, and the sentences of the headline."""

    tone: Tone
    label: str
    sentences: tuple[str, ...]

    @property
    def headline(self) -> str:
        """The sentences as one text."""
        return " ".join(self.sentences)

    @property
    def glyph(self) -> str:
        """A sign that says the same as the colour."""
        return {"good": "✓", "warn": "!", "bad": "✕", "calm": "–"}[self.tone]


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What was promised, what was measured, and whether that is enough."""

    name: str
    title: str
    measured: float | None
    allowed: float | None
    met: bool | None

    @property
    def word(self) -> str:
        """Met, missed, or why neither can be said."""
        if self.met is not None:
            return "met" if self.met else "missed"
        return "not measured" if self.measured is None else "no objective set"


def objectives(record: Record) -> tuple[Objective, Objective]:
    """Both objectives: time to recover, and data that may be lost."""
    outcome = record.outcome
    return (
        _objective("RTO", "Time to recover", outcome.rto_seconds, record.rto_objective, outcome.rto_met),
        _objective("RPO", "Data at risk", outcome.rpo_seconds, record.rpo_objective, outcome.rpo_met),
    )


def _objective(name: str, title: str, measured: float | None, allowed: float | None, said: bool | None) -> Objective:
    """Where the record's word and its numbers disagree, the worse one counts."""
    met = said
    if measured is not None and allowed is not None:
        met = measured <= allowed and said is not False
    return Objective(name=name, title=title, measured=measured, allowed=allowed, met=met)


def verdict(record: Record) -> Verdict:
    """The verdict on an operation."""
    writers = {
        "done": _done,
        "nothing_to_do": _nothing_to_do,
        "rolled_back": _rolled_back,
        "incomplete": _incomplete,
        "refused": _refused,
        "failed": _failed,
        "": _no_outcome,
    }
    return writers.get(record.outcome.status, _unknown_status)(record)


def operation_name(record: Record) -> str:
    """The operation as a noun."""
    return _NOUNS.get(record.operation, record.operation) or "operation"


def old_primary(record: Record) -> str:
    """The primary before, by name if the record knows it."""
    before = record.before.primary if record.before else ""
    return record.plan.old_primary or before or "the old primary"


def new_primary(record: Record) -> str:
    """The primary after, by name if the record knows it."""
    return record.plan.new_primary or _now(record) or "the new primary"


def returning_host(record: Record) -> str:
    """The host that a rejoin brings back."""
    named = record.parameters.get("host")
    if isinstance(named, str) and named:
        return named
    return (record.fence.host if record.fence else "") or record.plan.old_primary or "the host"


def last_step(record: Record) -> Step | None:
    """Where it stopped: the step that failed, else the one without an end, else the last that was begun."""
    for test in (lambda s: s.result == "failed", lambda s: s.unfinished, lambda s: s.started is not None):
        found = [step for step in record.steps if test(step)]
        if found:
            return found[-1]
    return None


def waited_sentence(record: Record) -> str:
    """How long writers waited."""
    if record.waited is None:
        return "How long writers waited was not measured."
    bound = "at most " if by_outage(record) else ""
    return f"Writers waited {bound}{seconds(record.waited)}."


def by_outage(record: Record) -> bool:
    """The wait was taken from the outage's ends: an upper bound, since nobody need have written just before."""
    return record.waited is not None and (record.stall_seconds is None or record.waited > record.stall_seconds)


def lost_sentence(record: Record) -> str:
    """What was lost."""
    if record.lost:
        return f"{_lost_subject(record)} {'was' if record.lost == 1 else 'were'} lost."
    if record.lost == 0:
        return "Nothing acknowledged was lost."
    clients = record.clients
    if clients and clients.lost == 0 and clients.acknowledged:
        checked = f"None of the {clients.acknowledged:,} writes acknowledged to the probe was lost"
        return f"{checked}; beyond that it is not known."
    return "Whether anything was lost is not known."


def lost_number(record: Record) -> str:
    """How many transactions were lost, as far as it is known."""
    if record.lost is None:
        return "not known"
    if record.lost == 0:
        return "none"
    return f"{record.lost:,}" if record.losses_certain else f"at least {record.lost:,}"


def _lost_subject(record: Record) -> str:
    """The same as the beginning of a sentence."""
    number = lost_number(record)
    return f"{number[:1].upper()}{number[1:]} transaction{'' if record.lost == 1 else 's'}"


def _done(record: Record) -> Verdict:
    sentences = {
        "failover": _failover_done,
        "switchover": _switchover_done,
        "rejoin": _rejoin_done,
        "swap": _swap_done,
        "rollback": _swap_done,
        "cutover": _cutover_done,
    }
    told = sentences.get(record.operation, _other_done)(record)
    if record.operation in HOST_SIDE:
        return Verdict(tone="good", label="Done", sentences=told)
    tone, label = _grade(record)
    return Verdict(tone=tone, label=label, sentences=told)


def _grade(record: Record) -> tuple[Tone, str]:
    if unfenced(record):
        return "warn", "Done, fence not proven"
    missed = [objective.name for objective in objectives(record) if objective.met is False]
    if missed:
        return "warn", "Done, " + " and ".join(missed) + " missed"
    if record.lost is None and not (record.operation == "rejoin" and record.losses is None):
        return "warn", "Done, losses not known"
    if record.lost:
        return "warn", "Done, with losses"
    return "good", "Done"


def unfenced(record: Record) -> bool:
    """A failover whose record doesn't prove that the old primary was cut off."""
    return record.operation == "failover" and not (record.fence and record.fence.proven)


def _failover_done(record: Record) -> tuple[str, ...]:
    since = record.outage.started_at if record.outage else None
    old, new = old_primary(record), new_primary(record)
    failed = f"{_begin(old)} failed" + (f"; its last write was at {clock(since)}." if since else ".")
    told = [failed, f"{_begin(new)} took over.", waited_sentence(record), lost_sentence(record)]
    if unfenced(record):
        told.append(f"The record does not prove that {old} is cut off.")
    return tuple(told)


def _switchover_done(record: Record) -> tuple[str, ...]:
    moved = f"The primary moved from {old_primary(record)} to {new_primary(record)}, as planned."
    return moved, waited_sentence(record), lost_sentence(record)


def _rejoin_done(record: Record) -> tuple[str, ...]:
    host, primary = returning_host(record), _now(record) or new_primary(record)
    back = f"{_begin(host)} is back as a standby of {primary}."
    if record.lost:
        verb, they = ("was", "it is") if record.lost == 1 else ("were", "they are")
        apart = f"{_lost_subject(record)} that only {host} held {verb} lost; {they} listed."
    elif record.losses is None:
        return (back,)
    elif record.lost == 0:
        apart = f"It held no transaction that {primary} lacks."
    else:
        apart = f"Whether it held transactions that {primary} lacks is not known."
    return back, apart


def _swap_done(record: Record) -> tuple[str, ...]:
    done = record.outcome.message or f"The {operation_name(record)} is done."
    both = "Each write that clients were told of is in one of the two databases."
    return sentence(done), waited_sentence(record), both if record.lost == 0 else lost_sentence(record)


def _cutover_done(record: Record) -> tuple[str, ...]:
    done = record.outcome.message or f"The {operation_name(record)} is done."
    since = "Of the writes that clients were told of since then none was lost."
    return sentence(done), waited_sentence(record), since if record.lost == 0 else lost_sentence(record)


def _other_done(record: Record) -> tuple[str, ...]:
    drilled = record.host_side.drilled
    if drilled:
        every = (
            "The backup came back, and was" if len(drilled) == 1 else f"All {len(drilled)} backups came back, and were"
        )
        return (f"{every} proven.",)
    if record.operation in HOST_SIDE and record.outcome.message:
        return (sentence(record.outcome.message),)
    return (f"The {operation_name(record)} is done.",)


def _nothing_to_do(record: Record) -> Verdict:
    told = ["Nothing had to be done."]
    if record.operation in HOST_SIDE and record.outcome.message:
        told.append(sentence(record.outcome.message))
    primary = _now(record) or record.plan.new_primary
    if record.operation == "rejoin" and primary:
        told.append(f"{_begin(returning_host(record))} already follows {primary}.")
    elif primary:
        told.append(f"{_begin(primary)} is the primary already.")
    return Verdict(tone="calm", label="Nothing to do", sentences=tuple(told))


def _rolled_back(record: Record) -> Verdict:
    told = [f"The {operation_name(record)} was taken back."]
    primary = record.after.primary if record.after else ""
    if primary and record.before and primary == record.before.primary:
        told.append(f"{_begin(primary)} is the primary, as before.")
    elif primary:
        told.append(f"{_begin(primary)} is the primary.")
    if record.waited is not None:
        told.append(waited_sentence(record))
    return Verdict(tone="warn", label="Rolled back", sentences=tuple(told))


def _incomplete(record: Record) -> Verdict:
    told = [f"The {operation_name(record)} did not finish.", *_stopped_at(record)]
    return Verdict(tone="bad", label="Incomplete", sentences=tuple(told))


def _no_outcome(record: Record) -> Verdict:
    told = [f"The {operation_name(record)} was interrupted: its record has no outcome.", *_stopped_at(record)]
    return Verdict(tone="bad", label="Interrupted", sentences=tuple(told))


def _failed(record: Record) -> Verdict:
    drilled = record.host_side.drilled
    bad = sum(not one.ok for one in drilled)
    if bad:
        told = [f"{bad} of {len(drilled)} backups did not come back."]
    else:
        told = [f"The {operation_name(record)} failed.", *_stopped_at(record)]
    return Verdict(tone="bad", label="Failed", sentences=tuple(told))


def _stopped_at(record: Record) -> list[str]:
    step = last_step(record)
    if step is None:
        return ["No step was begun."]
    where = f" on {step.host}" if step.host else ""
    how = {"failed": "It failed at", "ok": "The last step recorded is"}.get(step.result, "It stopped at")
    return [f"{how} \u201c{step.title}\u201d{where}."]


def _refused(record: Record) -> Verdict:
    touched = any(step.phase not in _READ_ONLY_PHASES and step.result != "skipped" for step in record.steps)
    told = f"The {operation_name(record)} was refused" + ("." if touched else " and nothing was changed.")
    return Verdict(tone="warn", label="Refused", sentences=(told,))


def _unknown_status(record: Record) -> Verdict:
    told = f"The record calls the outcome of this {operation_name(record)} \u201c{record.outcome.status}\u201d."
    return Verdict(tone="warn", label="Outcome not understood", sentences=(told,))


def _now(record: Record) -> str:
    if record.after and record.after.primary:
        return record.after.primary
    return ""


def _begin(name: str) -> str:
    """A name at the start of a sentence: host names stay as they are, phrases get their capital."""
    return "T" + name[1:] if name.startswith("the ") else name


def waited_basis(record: Record) -> str:
    """What the number of seconds that writers waited rests on."""
    stall, waited = record.stall_seconds, record.waited
    if waited is None:
        return ""
    if by_outage(record):
        measured = f"; the probe, once started, waited {seconds(stall)}" if stall is not None else ""
        return f"from the last write on {old_primary(record)} to the first on {new_primary(record)}{measured}"
    return "the longest stall that the probe met"


def lost_basis(record: Record) -> str:
    """Why the number of lost transactions is believed."""
    losses, clients = record.losses, record.clients
    if losses and losses.basis:
        return losses.basis
    if clients and clients.lost is not None and clients.acknowledged:
        return f"{clients.acknowledged:,} acknowledged writes of the probe were looked for"
    return ""


def sentence(text: str) -> str:
    """The text with a full stop, unless it ends in a mark of its own."""
    return text if text.endswith((".", "!", "?", ":")) else text + "."
