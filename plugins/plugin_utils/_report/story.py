# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What happened, as drawings with their words: the steps, the writers, the cluster. PRIVATE to the collection."""

from __future__ import annotations

from .curve import close_curve, whole_curve
from .gantt import overview
from .markup import Html, el, join
from .model import Clients, Member, Pooler, Record, Snapshot
from .phases import critical_phase, phase_class, phases
from .svg import box, line
from .topology import topology
from .units import clock, count, seconds, size
from .verdict import Verdict
from .waterfall import critical_section


def figure(caption: Html, picture: Html, legend: Html | None = None) -> Html:
    """A drawing with its caption; drawings may be wider than a telephone."""
    return el("figure", el("figcaption", caption), el("div", picture, class_="frame"), legend)


def timeline(record: Record) -> Html:
    """The steps on a drawn time line, and the critical section once more, larger."""
    picture, close = overview(record), critical_section(record)
    if picture is None:
        return el("section", el("h2", "What happened"), el("p", "No step was begun."))
    zero = f" Zero is {clock(record.asked_at)}." if record.asked_at else ""
    whole = join([el("b", "The whole operation"), f" by host, in seconds since it began.{zero}"])
    return el(
        "section",
        el("h2", "What happened"),
        figure(whole, picture, _phase_legend(record)),
        figure(_close_words(record), close) if close else None,
    )


def _close_words(record: Record) -> Html:
    found = critical_phase(record)
    told = " The steps in which clients are held, in time since the first of them began."
    if found and found.span and found.finished and record.end > 0:
        told = f" Clients are held for {seconds(found.span.length)}, {found.span.length / record.end:.0%} of the whole."
    return join([el("b", "The critical section, enlarged."), told])


def _phase_legend(record: Record) -> Html:
    entries = [el("li", _swatch(f"bar {phase_class(phase.key)}"), phase.words) for phase in phases(record)]
    if any(step.result == "failed" for step in record.steps):
        entries.append(el("li", _swatch("bar bar-failed"), "failed"))
    if any(step.result == "skipped" for step in record.steps):
        entries.append(el("li", _swatch("bar bar-skipped"), "skipped, it held already"))
    if any(step.unfinished for step in record.steps):
        entries.append(el("li", _swatch("bar bar-open"), "begun, no end recorded"))
    return el("ul", *entries, class_="legend")


def _swatch(class_: str) -> Html:
    return el("svg", box(1, 1, 20, 10, class_, radius=2), viewBox="0 0 22 12", aria_hidden="true")


def writers(record: Record) -> Html | None:
    """The operation as writers felt it."""
    clients = record.clients
    if clients is None:
        return None
    whole, close = whole_curve(clients), close_curve(clients)
    intro = f"Source: {clients.source}." if clients.source else ""
    caption = join([el("b", "How long each write took."), " To the right, when it was sent; up, how long it took."])
    return el(
        "section",
        el("h2", "What writers felt"),
        el("p", intro, class_="muted") if intro else None,
        _client_facts(clients),
        figure(caption, whole, _source_legend(clients)) if whole else el("p", "The record holds no samples to draw."),
        figure(join([el("b", "The same, around the stall.")]), close) if close else None,
    )


def _client_facts(clients: Clients) -> Html:
    facts = [
        ("Acknowledged", clients.acknowledged, "write"),
        ("Failed", clients.failed, "write"),
        ("Outcome unknown", clients.unknown, "write"),
        ("Acknowledged, then lost", clients.lost, "write"),
    ]
    rows = [join([el("dt", term), el("dd", count(value, noun))]) for term, value, noun in facts if value is not None]
    if clients.longest_stall_seconds is not None:
        rows.append(join([el("dt", "Longest wait of one write"), el("dd", seconds(clients.longest_stall_seconds))]))
    return el("dl", *rows, class_="facts") if rows else Html("")


def _source_legend(clients: Clients) -> Html | None:
    sources = sorted({sample.source for sample in clients.samples})
    entries: list[Html] = []
    if 1 < len(sources) <= 4:
        entries = [
            el("li", _stroke(f"curve curve-{index}"), f"through {source or 'an unnamed bouncer'}")
            for index, source in enumerate(sources)
        ]
    elif len(sources) > 4:
        entries = [el("li", _stroke("curve curve-0"), f"through {len(sources)} bouncers together")]
    if clients.stall:
        entries.append(el("li", _swatch("stall-band"), "writers\u2019 stall"))
    return el("ul", *entries, class_="legend") if entries else None


def _stroke(class_: str) -> Html:
    return el("svg", line(0, 6, 22, 6, class_), viewBox="0 0 22 12", aria_hidden="true")


def cluster(record: Record, verdict: Verdict) -> Html | None:
    """LSNs and timelines before and after."""
    alone = record.after is None and record.outcome.status in ("refused", "nothing_to_do")
    picture = topology(record.before, record.after, alone=alone)
    if picture is None:
        return None
    words = (
        "An unbroken arrow: where a bouncer sends its clients. A broken arrow: replication. "
        "A broken frame: not serving."
    )
    missing = None
    if record.after is None and not alone:
        missing = el("p", "The record holds no picture of the cluster after the operation.", class_=f"{verdict.tone}")
    return el(
        "section",
        el("h2", "The cluster as it was found" if alone else "The cluster before and after"),
        missing,
        figure(join([words]), picture),
        _member_table(record),
        _pooler_table(record),
    )


_NUMBERS = frozenset({"Timeline", "Behind", "Processes", "Clients"})


def _table(caption: str, heads: list[str], hosts: dict[str, list[list[Html]]]) -> Html:
    """A group of rows for each host: before, after."""
    head = [el("th", name, scope="col", class_="n" if name in _NUMBERS else None) for name in heads]
    bodies = []
    for name, rows in hosts.items():
        first, *others = rows
        host = el("th", name, scope="rowgroup", rowspan=len(rows))
        lines = [el("tr", host, *first), *[el("tr", *cells) for cells in others]]
        bodies.append(el("tbody", *lines, class_="pair" if others else None))
    table = el("table", el("caption", caption), el("thead", el("tr", *head)), *bodies)
    return el("div", table, class_="frame")


def _both(record: Record) -> list[tuple[str, Snapshot]]:
    pictures = (("before", record.before), ("after", record.after))
    return [(when, snapshot) for when, snapshot in pictures if snapshot is not None]


def _member_table(record: Record) -> Html | None:
    rows: dict[str, list[list[Html]]] = {}
    for when, snapshot in _both(record):
        for member in snapshot.members:
            rows.setdefault(member.name, []).append(_member_row(member, when))
    heads = ["Database host", "", "Role", "Timeline", "LSN", "Behind", "Synchronous", "Version"]
    return _table("Database hosts", heads, rows) if rows else None


def _member_row(member: Member, when: str) -> list[Html]:
    role = member.role or "not known"
    if member.reachable is False and role != "down":
        role += ", unreachable"
    behind = [size(member.lag_bytes)] if member.lag_bytes is not None else []
    behind += [seconds(member.lag_seconds)] if member.lag_seconds is not None else []
    return [
        el("td", when, class_="muted"),
        el("td", role),
        el("td", str(member.timeline) if member.timeline is not None else "–", class_="n"),
        el("td", el("code", member.lsn or "–"), class_="nowrap"),
        el("td", ", ".join(behind) or "–", class_="n"),
        el("td", member.sync_state or "–"),
        el("td", member.version or "–"),
    ]


def _pooler_table(record: Record) -> Html | None:
    rows: dict[str, list[list[Html]]] = {}
    for when, snapshot in _both(record):
        for pooler in snapshot.poolers:
            rows.setdefault(pooler.name, []).append(_pooler_row(pooler, when))
    heads = ["Bouncer host", "", "Points at", "Processes", "Clients", "Paused"]
    return _table("Bouncer hosts", heads, rows) if rows else None


def _pooler_row(pooler: Pooler, when: str) -> list[Html]:
    paused = "–" if pooler.paused is None else "yes" if pooler.paused else "no"
    return [
        el("td", when, class_="muted"),
        el("td", pooler.points_at or "–"),
        el("td", str(pooler.processes) if pooler.processes is not None else "–", class_="n"),
        el("td", str(pooler.clients) if pooler.clients is not None else "–", class_="n"),
        el("td", paused),
    ]
