# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What all drawings share: scales, ticks, labelled shapes. PRIVATE to the collection."""

from __future__ import annotations

import math
import typing as t
from dataclasses import dataclass

from .markup import Html, el, join

WIDTH = 880
_GLYPH = 0.56  # mean width of a letter in sizes of the type, on the wide side


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to places on the drawing, kept within it."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.0
        return self.start + (self.end - self.start) * min(1.0, max(0.0, share))


def step_between(low: float, high: float, wanted: int) -> float:
    """A round distance (1, 2 or 5 times a power of ten) that gives about as many ticks as wanted."""
    rough = max(high - low, 1e-9) / max(wanted, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    return next((power * factor for factor in (1.0, 2.0, 5.0) if power * factor >= rough * 0.999), power * 10.0)


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """Round values from low to high."""
    step = step_between(low, high, wanted)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def tick_label(value: float, step: float) -> str:
    """A tick with as many places as the distance between ticks needs."""
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:.{places}f}"


def text_width(text: str, size: float) -> float:
    """About how wide a text will be."""
    return len(text) * size * _GLYPH


def shorten(text: str, width: float, size: float) -> str:
    """The text, cut to a width."""
    room = int(width / (size * 0.52))
    return text if len(text) <= room else text[: max(room - 1, 1)].rstrip() + "…"


def label(x: float, y: float, text: str, class_: str = "", anchor: str | None = None) -> Html:
    """A line of text."""
    return el("text", text, x=float(x), y=float(y), class_=class_ or None, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Html:
    """A straight line."""
    return el("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def box(x: float, y: float, width: float, height: float, class_: str, *, radius: float = 0, title: str = "") -> Html:
    """A rectangle, with a word for the pointer that rests on it."""
    inside = [el("title", title)] if title else []
    return el(
        "rect",
        *inside,
        x=float(x),
        y=float(y),
        width=float(max(width, 0)),
        height=float(max(height, 0)),
        rx=float(radius) if radius else None,
        class_=class_,
    )


def drawing(name: str, height: float, *shapes: Html | None, title: str, description: str) -> Html:
    """A drawing with its alternative in words."""
    return el(
        "svg",
        el("title", title, id=f"{name}-title"),
        el("desc", description, id=f"{name}-text"),
        *shapes,
        viewBox=f"0 0 {WIDTH} {math.ceil(height)}",
        role="img",
        aria_labelledby=f"{name}-title",
        aria_describedby=f"{name}-text",
    )


def time_axis(scale: Scale, top: float, bottom: float, unit: t.Callable[[float, float], str], wanted: int = 10) -> Html:
    """Vertical grid lines with their times below."""
    step = step_between(scale.low, scale.high, wanted)
    shapes: list[Html] = []
    for value in ticks(scale.low, scale.high, wanted):
        x = scale(value)
        shapes.append(line(x, top, x, bottom, "grid"))
        shapes.append(label(x, bottom + 17, unit(value, step), "tick", "middle"))
    return join(shapes)


def in_seconds(value: float, step: float) -> str:
    """A tick in seconds."""
    return tick_label(value, step) + " s"


def patterns() -> Html:
    """The hatching that the drawings refer to; drawn once for the page."""
    stroke = line(0, 0, 0, 7, "hatch-open")
    turn = "rotate(45)"
    hatch = el(
        "pattern", stroke, id="hatch-open", width=7, height=7, patternUnits="userSpaceOnUse", patternTransform=turn
    )
    return el("svg", el("defs", hatch), width=0, height=0, class_="patterns", aria_hidden="true")
