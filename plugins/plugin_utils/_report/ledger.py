# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every step with its evidence, and where the record came from. PRIVATE to the collection."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

from .access import text
from .markup import Html, el, join
from .model import Record, Step
from .phases import phase_title
from .units import offset, seconds, span, stamp

CLIP = 800
ENTRIES = 30
_GLYPHS = {"ok": "✓", "failed": "✕", "skipped": "–", "running": "…"}
_TONES = {"ok": "good", "failed": "bad", "skipped": "muted", "running": "warn"}


def steps(record: Record) -> Html | None:
    """The table of steps, grouped by phase in the order in which they came."""
    if not record.steps:
        return None
    why = {(action.id, action.host): action.why for action in record.plan.actions}
    rows: list[Html] = []
    phase: str | None = None
    for step in record.steps:
        if step.phase != phase:
            phase = step.phase
            rows.append(el("tr", el("th", phase_title(phase), colspan=6, scope="rowgroup"), class_="group"))
        rows.append(_step_row(step, why.get((step.id, step.host), "")))
    heads = [("#", "n"), ("Began", "n"), ("Took", "n"), ("Host", ""), ("Step", ""), ("Result", "")]
    head = el("tr", *[el("th", name, scope="col", class_=class_ or None) for name, class_ in heads])
    return el("section", el("h2", "All steps"), el("table", el("thead", head), el("tbody", *rows)))


def _step_row(step: Step, why: str) -> Html:
    took = span(step.duration) if step.duration is not None else "no end" if step.unfinished else "–"
    return el(
        "tr",
        el("td", str(step.number), class_="n muted"),
        el("td", offset(step.started) if step.started is not None else "–", class_="n"),
        el("td", took, class_="n"),
        el("td", step.host, class_="nowrap"),
        el(
            "td",
            step.title,
            el("div", step.detail, class_="detail") if step.detail else None,
            el("div", f"Why: {why}", class_="detail") if why else None,
            _evidence(step.evidence),
        ),
        el("td", _result(step), class_="nowrap"),
    )


def _result(step: Step) -> Html:
    glyph, word = _GLYPHS.get(step.result, "?"), step.result or "not recorded"
    if step.unfinished:
        glyph, word = "…", "no end recorded"
    tone = "warn" if step.unfinished else _TONES.get(step.result, "warn")
    return el("span", f"{glyph} {word}", class_=tone)


def _evidence(evidence: Mapping[str, t.Any]) -> Html | None:
    if not evidence:
        return None
    entries = [
        el("li", f"{text(name)}: ", el("code", _clipped(text(value) or "none")))
        for name, value in list(evidence.items())[:ENTRIES]
    ]
    if len(evidence) > ENTRIES:
        entries.append(el("li", f"{len(evidence) - ENTRIES} more in the record"))
    return el("ul", *entries, class_="evidence")


def _clipped(value: str) -> str:
    return value if len(value) <= CLIP else value[:CLIP] + f"… ({len(value) - CLIP:,} more characters in the record)"


def about(record: Record, digest: str) -> Html:
    """Who asked for it, with what, on which versions, and how to check that this page tells the record's truth."""
    facts: list[tuple[str, Html | str]] = [
        ("Record", el("span", record.id or "no id", class_="mono")),
        ("Integrity", join([el("span", digest, class_="mono"), _check(record)])),
        ("Operation", record.operation or "not recorded"),
        ("Cluster", " · ".join(part for part in (record.cluster, record.environment) if part) or "not recorded"),
        ("System identifier", el("span", record.system_identifier or "not recorded", class_="mono")),
        ("Asked by", record.asked_by or "not recorded"),
        ("Asked at", stamp(record.asked_at) if record.asked_at else record.asked_at_text or "not recorded"),
        ("Parameters", _parameters(record)),
        ("Objectives", _objectives(record)),
        (
            "Versions",
            join([el("div", f"{product} {version}") for product, version in record.software]) or "not recorded",
        ),
    ]
    if record.outage and record.outage.started_at:
        started = stamp(record.outage.started_at)
        facts.append(("Outage began", f"{started} ({record.outage.basis})" if record.outage.basis else started))
    if record.outage and record.outage.ended_at:
        facts.append(("Outage ended", stamp(record.outage.ended_at)))
    rows = [join([el("dt", term), el("dd", value)]) for term, value in facts]
    return el(
        "section",
        el("h2", "About this record"),
        el(
            "p",
            "Everything on this page was taken from the operation\u2019s record, nothing from memory.",
            class_="muted",
        ),
        el("dl", *rows, class_="facts"),
    )


def _check(record: Record) -> Html:
    if not record.outcome.status:
        words = "SHA-256 of the record as far as it was written; it was never closed, so no file has this sum"
        return el("div", words, class_="muted small")
    name = f"{record.id}.json" if record.id else "the record"
    return el("div", "SHA-256 of the record; compare with ", el("code", f"sha256sum {name}"), class_="muted small")


def _parameters(record: Record) -> Html | str:
    if not record.parameters:
        return "none"
    return join(
        [el("div", el("code", f"{text(name)}: {_clipped(text(value))}")) for name, value in record.parameters.items()]
    )


def _objectives(record: Record) -> str:
    found = (("RTO", record.rto_objective), ("RPO", record.rpo_objective))
    return ", ".join(f"{name} {seconds(value)}" for name, value in found if value is not None) or "none set"
