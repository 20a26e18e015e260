# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The critical section under the glass: a row for each step, milliseconds to the right. PRIVATE to the collection."""

from __future__ import annotations

from .gantt import bar_class, step_words
from .markup import Html, join
from .model import Record, Span, Step
from .phases import CRITICAL, critical_phase, step_end
from .svg import WIDTH, Scale, box, drawing, label, line, shorten, text_width, tick_label, time_axis
from .units import seconds, span

_GUTTER, _RIGHT, _ROW, _HOST = 356, 64, 25, 84


def critical_section(record: Record) -> Html | None:
    """The steps of the critical section; nothing when there was none."""
    found = critical_phase(record)
    if found is None or found.span is None:
        return None
    section = found.span
    steps = _inside(record, section)
    if not steps:
        return None
    around = max(section.length * 0.04, 0.002)
    scale = Scale(section.started - around, section.ended + around, _GUTTER, WIDTH - _RIGHT)
    stall = _stall(record, scale)
    top = 40 if stall is None else 66
    bottom = top + len(steps) * _ROW + 6
    return drawing(
        "critical",
        bottom + 28,
        _axis(section, scale, top, bottom),
        _band(section, found.words, scale, bottom),
        stall,
        *[_row(record, step, scale, top + index * _ROW) for index, step in enumerate(steps)],
        title="The critical section, step by step",
        description=f"{found.words}, {len(steps)} steps: " + "; ".join(map(step_words, steps)),
    )


def _inside(record: Record, section: Span) -> list[Step]:
    def touches(step: Step) -> bool:
        if step.started is None:
            return False
        if step.phase == CRITICAL:
            return True
        return step.started < section.ended and step_end(record, step) > section.started

    return sorted((step for step in record.steps if touches(step)), key=lambda step: (step.started or 0.0, step.number))


def _axis(section: Span, scale: Scale, top: float, bottom: float) -> Html:
    """Time since the section began, in milliseconds, or in seconds when it is long."""
    factor, unit = (1000.0, "ms") if section.length < 3 else (1.0, "s")
    relative = Scale(
        (scale.low - section.started) * factor, (scale.high - section.started) * factor, scale.start, scale.end
    )
    return time_axis(relative, top - 6, bottom, lambda value, step: f"{tick_label(value, step)} {unit}", wanted=8)


def _band(section: Span, text: str, scale: Scale, bottom: float) -> Html:
    start, end = scale(section.started), scale(section.ended)
    return join(
        [
            box(start, 24, end - start, bottom - 24, "critical-band"),
            label((start + end) / 2, 16, text, "critical-name", "middle"),
        ]
    )


def _stall(record: Record, scale: Scale) -> Html | None:
    """The longest wait of a writer as a bracket over the steps that caused it."""
    found = record.clients.stall if record.clients else None
    if found is None or found.ended <= scale.low or found.started >= scale.high:
        return None
    start, end = scale(found.started), scale(found.ended)
    text = f"Writers\u2019 stall, {seconds(found.length)}"
    y = 46.0
    return join(
        [
            box(start, y - 9, end - start, 17, "stall-band", radius=2),
            line(start, y - 9, start, y + 8, "stall-edge") if found.started >= scale.low else None,
            line(end, y - 9, end, y + 8, "stall-edge") if found.ended <= scale.high else None,
            label((start + end) / 2, y + 4, shorten(text, max(end - start - 8, 40), 12), "stall-name", "middle"),
            label(_HOST, y + 4, "what writers felt", "muted"),
        ]
    )


def _row(record: Record, step: Step, scale: Scale, y: float) -> Html:
    start, end = scale(step.started or 0.0), scale(step_end(record, step))
    width = max(end - start, 3)
    took = span(step.duration) if step.duration is not None else "no end"
    if step.result in ("failed", "skipped"):
        took += f", {step.result}"
    right = start + width + 6
    beside = right + text_width(took, 12) <= WIDTH
    return join(
        [
            label(0, y + 16, shorten(step.host, _HOST - 8, 12.5), "lane-small"),
            label(_HOST, y + 16, shorten(step.title, _GUTTER - _HOST - 10, 12.5), "row"),
            box(start, y + 4, width, 16, bar_class(step), radius=2, title=step_words(step)),
            label(right if beside else start - 6, y + 16, took, "took", None if beside else "end"),
        ]
    )
