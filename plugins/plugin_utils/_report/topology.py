# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who led, who followed and where the bouncers pointed, before and after. PRIVATE to the collection."""

from __future__ import annotations

from dataclasses import dataclass, field

from .markup import Html, el, join
from .model import Member, Pooler, Snapshot
from .svg import box, drawing, label, shorten
from .units import count, size

_PANEL, _GAP, _AIR = 418.0, 44.0, 14.0
_POOLER, _MEMBER, _BETWEEN = 46.0, 78.0, 44.0
_IN_A_ROW = 4


@dataclass(slots=True, kw_only=True)
class _Place:
    """Where a host stands."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


@dataclass(slots=True)
class _Panel:
    """One of the two pictures."""

    members: dict[str, _Place] = field(default_factory=dict)
    poolers: dict[str, _Place] = field(default_factory=dict)
    bottom: float = 0.0


def topology(before: Snapshot | None, after: Snapshot | None, *, alone: bool = False) -> Html | None:
    """Both pictures side by side; `alone`: only the first, because nothing changed."""
    if before is None and after is None:
        return None
    shapes: list[Html] = [_arrowhead()]
    bottoms = [0.0]
    words: list[str] = []
    for index, (title, snapshot) in enumerate((("Before", before), ("After", after))):
        if alone and index:
            break
        left = index * (_PANEL + _GAP)
        shapes.append(label(left, 16, title, "panel-name"))
        if snapshot is None:
            shapes.append(label(left, 48, "not recorded", "muted"))
            continue
        panel = _layout(snapshot, left)
        shapes += [_edges(snapshot, panel), _boxes(snapshot, panel)]
        bottoms.append(panel.bottom)
        words.append(f"{title}: {in_words(snapshot)}")
    return drawing(
        "topology",
        max(bottoms) + 6,
        *shapes,
        title="The cluster before and after" if not alone else "The cluster as it was found",
        description=" ".join(words),
    )


def in_words(snapshot: Snapshot) -> str:
    """The picture as sentences."""
    told = [f"{member.name} is {_state(member)}" + _more(member) for member in snapshot.members]
    told += [
        f"{pooler.name} points at {pooler.points_at or 'nothing known'}" + (", paused" if pooler.paused else "")
        for pooler in snapshot.poolers
    ]
    return "; ".join(told) + "."


def _more(member: Member) -> str:
    parts = [
        f"timeline {member.timeline}" if member.timeline is not None else "",
        f"at {member.lsn}" if member.lsn else "",
    ]
    return "".join(f", {part}" for part in parts if part)


def _state(member: Member) -> str:
    role = member.role or "of unknown role"
    return role if member.reachable is not False or member.role == "down" else f"{role}, unreachable"


def _layout(snapshot: Snapshot, left: float) -> _Panel:
    panel = _Panel()
    y = 34.0
    for row in _rows([pooler.name for pooler in snapshot.poolers]):
        panel.poolers.update(_spread(row, left, y, _POOLER))
        y += _POOLER + _AIR
    if snapshot.poolers:
        y += _BETWEEN - _AIR
    head = snapshot.head
    if head:
        panel.members.update(_spread([head.name], left, y, _MEMBER))
        y += _MEMBER + _BETWEEN
    others = [member.name for member in snapshot.members if member is not head]
    for row in _rows(others):
        panel.members.update(_spread(row, left, y, _MEMBER))
        y += _MEMBER + _AIR
    panel.bottom = y - _AIR if others else y - _BETWEEN
    return panel


def _rows(names: list[str]) -> list[list[str]]:
    return [names[start : start + _IN_A_ROW] for start in range(0, len(names), _IN_A_ROW)]


def _spread(names: list[str], left: float, y: float, height: float) -> dict[str, _Place]:
    width = min(140.0, (_PANEL - _AIR * (len(names) - 1)) / len(names))
    start = left + (_PANEL - width * len(names) - _AIR * (len(names) - 1)) / 2
    return {
        name: _Place(x=start + index * (width + _AIR), y=y, width=width, height=height)
        for index, name in enumerate(names)
    }


def _edges(snapshot: Snapshot, panel: _Panel) -> Html:
    shapes: list[Html] = []
    for pooler in snapshot.poolers:
        target = panel.members.get(pooler.points_at)
        if target:
            kind = "edge edge-paused" if pooler.paused else "edge"
            shapes.append(_arrow(panel.poolers[pooler.name], target, kind))
    for member in snapshot.members:
        if member.role != "standby":
            continue
        source = panel.members.get(member.upstream or (snapshot.head.name if snapshot.head else ""))
        head = snapshot.member(member.upstream or snapshot.primary) or snapshot.head
        if source and head and head is not member and head.reachable is not False and head.role != "down":
            shapes.append(_arrow(source, panel.members[member.name], "edge edge-stream"))
    return join(shapes)


def _arrow(source: _Place, target: _Place, class_: str) -> Html:
    """From the lower edge of one host to the upper edge of the other; siblings are joined sideways."""
    start_x, start_y = source.middle, source.y + source.height
    end_x, end_y = target.middle, target.y - 2
    if target.y <= source.y:
        start_y, end_y = source.y + source.height / 2, target.y + target.height / 2
        right = target.x > source.x
        start_x, end_x = (source.x + source.width, target.x - 2) if right else (source.x, target.x + target.width + 2)
    bend = (start_y + end_y) / 2
    path = f"M{start_x:.1f} {start_y:.1f}C{start_x:.1f} {bend:.1f} {end_x:.1f} {bend:.1f} {end_x:.1f} {end_y:.1f}"
    return el("path", d=path, class_=class_, marker_end="url(#arrow)")


def _arrowhead() -> Html:
    tip = el("path", d="M0 0L8 4L0 8z", class_="arrow")
    size_ = {"markerWidth": 8, "markerHeight": 8, "refX": 7, "refY": 4}
    return el("defs", el("marker", tip, id="arrow", orient="auto", markerUnits="userSpaceOnUse", **size_))


def _boxes(snapshot: Snapshot, panel: _Panel) -> Html:
    shapes = [_pooler_box(pooler, panel.poolers[pooler.name]) for pooler in snapshot.poolers]
    shapes += [_member_box(member, panel.members[member.name], member is snapshot.head) for member in snapshot.members]
    return join(shapes)


def _pooler_box(pooler: Pooler, place: _Place) -> Html:
    parts = [
        count(pooler.processes, "process", "processes") if pooler.processes is not None else "",
        "paused" if pooler.paused else "",
    ]
    return _texts(place, "host host-pooler", pooler.name, [", ".join(part for part in parts if part)])


def _member_box(member: Member, place: _Place, head: bool) -> Html:
    kind = "host"
    if member.role == "primary" and head:
        kind += " host-primary"
    elif member.role not in ("primary", "standby") or member.reachable is False:
        kind += " host-away"
    role = _state(member) + (f", {member.sync_state}" if member.sync_state else "")
    timeline = f"timeline {member.timeline}" if member.timeline is not None else ""
    behind = f"{size(member.lag_bytes)} behind" if member.lag_bytes else ""
    position = member.lsn or behind
    return _texts(place, kind, member.name, [role, timeline, position])


def _texts(place: _Place, class_: str, name: str, lines: list[str]) -> Html:
    room = place.width - 12
    shapes = [
        box(place.x, place.y, place.width, place.height, class_, radius=6),
        label(place.middle, place.y + 20, shorten(name, room, 13.5), "host-name", "middle"),
    ]
    y = place.y + 36
    for text in filter(None, lines):
        shapes.append(label(place.middle, y, shorten(text, room, 11), "host-line", "middle"))
        y += 15.5
    return join(shapes)
