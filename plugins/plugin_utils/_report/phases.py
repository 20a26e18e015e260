# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The phases of an operation: their names for readers and their extent in time. PRIVATE to the collection."""

from __future__ import annotations

from dataclasses import dataclass

from .model import Record, Span, Step
from .units import seconds

CRITICAL = "critical"
_TITLES = {
    "look": "Look",
    "inspect": "Look",
    "arm": "Arm",
    CRITICAL: "Critical section",
    "rollback": "Take back",
}
_COLOURS = {
    "arm": "arm",
    CRITICAL: CRITICAL,
    "verify": "verify",
    "finish": "finish",
    "rollback": "rollback",
    "prepare": "arm",
    "rejoin": "arm",
    "dossier": "ochre",
    "rewind": "calm",
    "clone": "calm",
    "follow": "arm",
    "load": "calm",
    "restore": "calm",
    "recover": "verify",
    "analyze": "ochre",
    "validate": "finish",
    "inspect": "finish",
    "assertions": "finish",
    "django": "ochre",
    "checksums": "finish",
    "services": "calm",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A phase and the time it took; without an end, the span reaches to the edge of the drawing."""

    key: str
    title: str
    span: Span | None
    finished: bool

    @property
    def words(self) -> str:
        """The phase and how long it took."""
        if self.span is None:
            return self.title
        return f"{self.title} {seconds(self.span.length)}" if self.finished else f"{self.title}, no end recorded"


def phase_title(key: str) -> str:
    """The phase's name for a reader."""
    return _TITLES.get(key) or (key[:1].upper() + key[1:].replace("_", " ")) or "Other"


def phase_class(key: str) -> str:
    """The class that gives the phase its colour; phases we have no colour for share one."""
    return "phase-" + _COLOURS.get(key, "other")


def phases(record: Record) -> list[Phase]:
    """All phases in the order in which they were met."""
    order: dict[str, list[Step]] = {}
    for step in record.steps:
        order.setdefault(step.phase, []).append(step)
    return [_phase(record, key, steps) for key, steps in order.items()]


def critical_phase(record: Record) -> Phase | None:
    """The critical section: as the record states it, else as far as its steps show it."""
    if record.critical:
        return _phase(record, CRITICAL, [])
    found = next((phase for phase in phases(record) if phase.key == CRITICAL), None)
    return found if found and found.span else None


def _phase(record: Record, key: str, steps: list[Step]) -> Phase:
    title = phase_title(key)
    if key == CRITICAL and record.critical:
        return Phase(key=key, title=title, span=record.critical, finished=True)
    begun = [step for step in steps if step.started is not None]
    if not begun:
        return Phase(key=key, title=title, span=None, finished=False)
    first = min(step.started or 0.0 for step in begun)
    extent = Span(started=first, ended=max(step_end(record, step) for step in begun))
    return Phase(key=key, title=title, span=extent, finished=not any(step.unfinished for step in begun))


def step_end(record: Record, step: Step) -> float:
    """Where a step's bar ends: a step without an end reaches to the edge of the drawing."""
    if step.ended is not None:
        return step.ended
    return record.horizon if step.unfinished else step.started or 0.0
