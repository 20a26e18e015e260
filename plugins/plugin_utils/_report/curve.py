# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What writers felt, as a curve: how long each write of the probe took. PRIVATE to the collection.

Drawn from at most two points for each bucket of time (the lowest and the highest), so that a spike is
never averaged away and the page stays small however many samples there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .markup import Html, coordinate, el, join
from .model import Clients, Sample, Span
from .svg import (
    WIDTH,
    Scale,
    box,
    drawing,
    in_seconds,
    label,
    line,
    shorten,
    step_between,
    text_width,
    ticks,
    time_axis,
)
from .units import count, milliseconds, seconds

BUCKETS = 480
_LEFT, _RIGHT, _TOP, _HEIGHT = 70, 16, 34, 220
_LINES = 4


def whole_curve(clients: Clients) -> Html | None:
    """All samples."""
    window = _window(clients)
    return _draw("writers", clients, window, "How long each write took, over the whole operation") if window else None


def close_curve(clients: Clients) -> Html | None:
    """The surroundings of the longest stall; nothing when the first drawing shows it well enough."""
    window, stall = _window(clients), clients.stall
    if window is None or stall is None or stall.length > window.length / 5:
        return None
    around = max(stall.length * 0.6, 0.1)
    near = Span(started=max(stall.started - around, window.started), ended=min(stall.ended + around, window.ended))
    if near.length <= 0 or not _within(clients.samples, near):
        return None
    return _draw("stall", clients, near, "How long each write took, around the stall")


def thin(samples: Sequence[Sample], window: Span, buckets: int = BUCKETS) -> list[Sample]:
    """At most the lowest and the highest sample of each bucket of time, in the order of time."""
    if len(samples) <= 2 * buckets or window.length <= 0:
        return list(samples)
    kept: dict[int, list[Sample]] = {}
    for sample in samples:
        index = min(int((sample.sent - window.started) / window.length * buckets), buckets - 1)
        found = kept.setdefault(index, [sample, sample])
        if sample.latency < found[0].latency:
            found[0] = sample
        if sample.latency > found[1].latency:
            found[1] = sample
    thinned: list[Sample] = []
    for index in sorted(kept):
        low, high = kept[index]
        thinned += [low] if low is high else sorted((low, high), key=lambda sample: sample.sent)
    return thinned


def _window(clients: Clients) -> Span | None:
    if not clients.samples:
        return None
    last = max(sample.sent + sample.latency for sample in clients.samples)
    first = clients.samples[0].sent
    return Span(started=first, ended=max(last, first + 0.001))


def _within(samples: Iterable[Sample], window: Span) -> list[Sample]:
    return [s for s in samples if s.sent + s.latency >= window.started and s.sent <= window.ended]


def _draw(name: str, clients: Clients, window: Span, title: str) -> Html:
    samples = _within(clients.samples, window)
    sources = sorted({sample.source for sample in samples})
    rows = [(kind, [sample for sample in samples if sample.result == kind]) for kind in _kinds(samples)]
    bottom = _TOP + _HEIGHT
    across = Scale(window.started, window.ended, _LEFT, WIDTH - _RIGHT)
    highest = max((sample.latency for sample in samples), default=0.0)
    up = Scale(0.0, max(highest * 1.08, 0.001), bottom, _TOP)
    return drawing(
        name,
        bottom + 30 + 22 * len(rows),
        _stall_band(clients, across, bottom),
        time_axis(across, _TOP, bottom, in_seconds),
        _latency_axis(up),
        *[_line_of(part, across, up, index, window) for index, part in enumerate(_parts(samples, sources))],
        _stall_name(clients, across),
        *[_marks(kind, found, across, bottom + 30 + 22 * row) for row, (kind, found) in enumerate(rows)],
        title=title,
        description=_in_words(clients, samples, sources, highest),
    )


def _parts(samples: list[Sample], sources: list[str]) -> list[list[Sample]]:
    """A line for each bouncer while they are few, else one line for all."""
    if len(sources) > _LINES:
        return [samples]
    return [[sample for sample in samples if sample.source == source] for source in sources]


def _line_of(samples: list[Sample], across: Scale, up: Scale, index: int, window: Span) -> Html:
    points = [f"{coordinate(across(sample.sent))} {coordinate(up(sample.latency))}" for sample in thin(samples, window)]
    return el("path", d="M" + "L".join(points), class_=f"curve curve-{index % _LINES}")


def _latency_axis(up: Scale) -> Html:
    step = step_between(up.low, up.high, 5)
    shapes: list[Html] = []
    for value in ticks(up.low, up.high, 5):
        y = up(value)
        shapes.append(line(_LEFT, y, WIDTH - _RIGHT, y, "grid"))
        shapes.append(label(_LEFT - 8, y + 4, _latency(value, step), "tick", "end"))
    return join(shapes)


def _latency(value: float, step: float) -> str:
    if value == 0:
        return "0"
    return in_seconds(value, step) if step >= 0.1 else milliseconds(value)


def _stall_band(clients: Clients, across: Scale, bottom: float) -> Html | None:
    stall = clients.stall
    if stall is None or stall.ended < across.low or stall.started > across.high:
        return None
    start, end = across(stall.started), across(stall.ended)
    return box(start, _TOP - 8, max(end - start, 2), bottom - _TOP + 8, "stall-shade")


def _stall_name(clients: Clients, across: Scale) -> Html | None:
    stall = clients.stall
    if stall is None or stall.ended < across.low or stall.started > across.high:
        return None
    text = f"Stall, {seconds(stall.length)}"
    half = text_width(text, 12.5) / 2
    middle = (across(stall.started) + across(stall.ended)) / 2
    return label(min(max(middle, _LEFT + half), WIDTH - _RIGHT - half), 17, text, "stall-name", "middle")


def _kinds(samples: list[Sample]) -> list[str]:
    """The ways in which writes were not acknowledged: failed, unknown, and whatever else the record calls them."""
    return sorted({sample.result for sample in samples} - {"ok"})


def _marks(kind: str, found: list[Sample], across: Scale, y: float) -> Html:
    """A mark for each moment at which writes were not acknowledged; those too close to tell apart are one."""
    buckets: dict[int, int] = {}
    for sample in found:
        place = int(across(sample.sent) / 7)
        buckets[place] = buckets.get(place, 0) + 1
    shapes = [label(_LEFT - 8, y + 4, shorten(kind or "no result", _LEFT - 8, 11.5), "fail-name", "end")]
    for place, number in sorted(buckets.items()):
        x = place * 7 + 3.5
        cross, ring = f"M{x - 3} {y - 3}l6 6m0-6l-6 6", f"M{x - 3} {y}a3 3 0 1 0 6 0a3 3 0 1 0-6 0"
        words = el("title", count(number, f"{kind} write"))
        shapes.append(el("path", words, d=cross if kind == "failed" else ring, class_="fail"))
    return join(shapes)


def _in_words(clients: Clients, samples: list[Sample], sources: list[str], highest: float) -> str:
    through = shorten(", ".join(source or "an unnamed bouncer" for source in sources), 2000, 12)
    told = f"{count(len(samples), 'write')} through {through}"
    for kind in _kinds(samples):
        told += f", {sum(sample.result == kind for sample in samples):,} of them {kind or 'without a result'}"
    told += f". The longest took {seconds(highest)}."
    if clients.stall:
        told += f" The stall lasted from {clients.stall.started:.3f} s to {clients.stall.ended:.3f} s."
    return told
