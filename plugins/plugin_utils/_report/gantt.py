# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole operation as a drawing: a lane for each host, time to the right. PRIVATE to the collection."""

from __future__ import annotations

from dataclasses import dataclass

from .markup import Html, join
from .model import Record, Step
from .phases import CRITICAL, critical_phase, phase_class, phases, step_end
from .svg import WIDTH, Scale, box, drawing, in_seconds, label, line, shorten, text_width, time_axis
from .units import offset, seconds, span

_GUTTER, _RIGHT, _ROW, _BAR, _TYPE = 100, 14, 21, 15, 11.5
_TOP = 62


@dataclass(slots=True, kw_only=True)
class _Bar:
    """A step's place on its lane; `low` and `high` hold the room that bar and label take."""

    step: Step
    start: float
    end: float
    low: float
    high: float
    text: str
    side: str


def overview(record: Record) -> Html | None:
    """Steps by host; nothing when no step was begun."""
    begun = [step for step in record.steps if step.started is not None]
    if not begun:
        return None
    end = max(record.horizon, *(step_end(record, step) for step in begun))
    start = min(0.0, *(step.started or 0.0 for step in begun))
    scale = Scale(start, end if end > start else start + 1.0, _GUTTER, WIDTH - _RIGHT)
    lanes = _lanes(record, begun, scale)
    rows = sum(len(lane) for _host, lane in lanes)
    bottom = _TOP + rows * _ROW + len(lanes) * 10
    return drawing(
        "overview",
        bottom + 28,
        time_axis(scale, _TOP - 4, bottom, in_seconds),
        _critical_band(record, scale, bottom),
        _ribbon(record, scale),
        _draw_lanes(lanes),
        title="The steps of the operation by host",
        description=_in_words(record, lanes),
    )


def _lanes(record: Record, steps: list[Step], scale: Scale) -> list[tuple[str, list[list[_Bar]]]]:
    hosts = list(dict.fromkeys(step.host for step in steps))
    return [(host, _pack([_bar(record, step, scale) for step in steps if step.host == host])) for host in hosts]


def _bar(record: Record, step: Step, scale: Scale) -> _Bar:
    start = scale(step.started or 0.0)
    end = max(scale(step_end(record, step)), start + 3)
    text = ("✕ " if step.result == "failed" else "") + step.title
    text += {"failed": " (failed)", "skipped": " (skipped)"}.get(step.result, "")
    if step.unfinished:
        text += " (no end)"
    width = text_width(text, _TYPE)
    mark = _Bar(step=step, start=start, end=end, low=start, high=end, text=text, side="inside")
    if width + 10 <= end - start:
        return mark
    if step.phase == CRITICAL and step.result == "ok":
        mark.text = ""
    elif end + width + 6 <= WIDTH:
        mark.side, mark.high = "right", end + width + 8
    elif start - width - 6 >= _GUTTER:
        mark.side, mark.low = "left", start - width - 8
    else:
        mark.text = shorten(text, end - start - 8, _TYPE) if end - start > 60 else ""
    return mark


def _pack(bars: list[_Bar]) -> list[list[_Bar]]:
    """Rows without overlaps, each mark in the first row that has room for it."""
    rows: list[list[_Bar]] = []
    for mark in sorted(bars, key=lambda found: found.start):
        for row in rows:
            if all(mark.low >= other.high + 2 or mark.high <= other.low - 2 for other in row):
                row.append(mark)
                break
        else:
            rows.append([mark])
    return rows


def _draw_lanes(lanes: list[tuple[str, list[list[_Bar]]]]) -> Html:
    shapes: list[Html] = []
    y = float(_TOP)
    for host, rows in lanes:
        shapes.append(label(0, y + 16, shorten(host or "(no host)", _GUTTER - 8, 13), "lane"))
        for row in rows:
            shapes += [_draw_bar(mark, y + 3) for mark in row]
            y += _ROW
        y += 10
        shapes.append(line(0, y - 3, WIDTH - _RIGHT, y - 3, "lane-rule"))
    return join(shapes)


def _draw_bar(mark: _Bar, y: float) -> Html:
    step = mark.step
    shape = box(mark.start, y, mark.end - mark.start, _BAR, bar_class(step), radius=2, title=step_words(step))
    if not mark.text:
        return shape
    if mark.side == "inside":
        return join([shape, label(mark.start + 6, y + 11.5, mark.text, "on-bar" if is_filled(step) else "beside")])
    if mark.side == "right":
        return join([shape, label(mark.end + 5, y + 11.5, mark.text, "beside")])
    return join([shape, label(mark.start - 5, y + 11.5, mark.text, "beside", "end")])


def is_filled(step: Step) -> bool:
    """Whether the bar has its phase's full colour."""
    return step.result != "skipped" and step.result != "failed" and not step.unfinished


def bar_class(step: Step) -> str:
    """The looks of a step's mark: by phase, and by how it ended."""
    if step.unfinished:
        return "bar bar-open"
    if step.result in ("failed", "skipped"):
        return f"bar bar-{step.result}"
    return "bar " + phase_class(step.phase)


def step_words(step: Step) -> str:
    """A step in one line."""
    when = offset(step.started) if step.started is not None else "not begun"
    took = f", {span(step.duration)}" if step.duration is not None else ", no end recorded" if step.unfinished else ""
    return f"{step.number}. {step.host}: {step.title} ({when}{took}, {step.result or 'no result'})"


def _ribbon(record: Record, scale: Scale) -> Html:
    """The phases above the lanes; a name stands where it fits, all of them stand below the drawing."""
    shapes: list[Html] = []
    for phase in phases(record):
        if phase.span is None:
            continue
        start, end = scale(phase.span.started), scale(phase.span.ended)
        y = 28.0
        shapes.append(
            box(start, y, max(end - start, 3), 16, f"bar {phase_class(phase.key)}", radius=2, title=phase.words)
        )
        if phase.key != CRITICAL and text_width(phase.title, 11.5) + 12 <= end - start:
            shapes.append(label(start + 6, y + 12, phase.title, "on-bar"))
    return join(shapes)


def _critical_band(record: Record, scale: Scale, bottom: float) -> Html | None:
    found = critical_phase(record)
    if found is None or found.span is None:
        return None
    start, end = scale(found.span.started), scale(found.span.ended)
    text = found.words
    half = text_width(text, 13) / 2
    middle = min(max((start + end) / 2, _GUTTER + half), WIDTH - _RIGHT - half)
    return join(
        [
            box(start, 24, max(end - start, 2), bottom - 24, "critical-band"),
            label(middle, 16, text, "critical-name", "middle"),
        ]
    )


def _in_words(record: Record, lanes: list[tuple[str, list[list[_Bar]]]]) -> str:
    told = ", ".join(phase.words for phase in phases(record))
    hosts = ", ".join(f"{host or 'no host'} {sum(map(len, rows))}" for host, rows in lanes)
    whole = f"{len(record.steps)} steps in {seconds(record.end)}. Phases: {told}. Steps by host: {hosts}."
    return whole + " All steps are listed in the table of steps."
