# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The first screen of the page: the verdict, the figures, what to do next. PRIVATE to the collection."""

from __future__ import annotations

import re

from .markup import Html, el, join
from .model import Record, Refusal
from .phases import phase_title
from .units import clock, count, day, seconds
from .verdict import Objective, Verdict, by_outage, lost_basis, lost_number, objectives, operation_name, waited_basis

LONG = 150
_UNIT = re.compile(r"(\d) (ms|s|min|h|UTC)\b")


def masthead(record: Record) -> Html:
    """Which cluster, which operation, when, and the record's id."""
    where = " · ".join(part for part in (record.cluster, record.environment) if part)
    when = f"{day(record.asked_at)}, {clock(record.asked_at)}" if record.asked_at else record.asked_at_text
    name = operation_name(record)
    return el(
        "header",
        el("span", el("strong", f"{name[:1].upper()}{name[1:]} report"), f" · {where}" if where else None),
        el("span", when),
        el("span", record.id or "no id", class_="mono"),
        class_="masthead",
    )


def headline(record: Record, verdict: Verdict) -> Html:
    """The verdict in plain words."""
    message = record.outcome.message
    return el(
        "div",
        el("p", el("span", verdict.glyph, aria_hidden="true"), verdict.label, class_=f"status {verdict.tone}"),
        el("h1", _units_kept(verdict.headline), class_="long" if len(verdict.headline) > LONG else None),
        el("p", message, class_="lead") if message and message not in verdict.headline else None,
    )


def _units_kept(text: str) -> str:
    """The text with spaces that don't break between numbers and their units."""
    return _UNIT.sub("\\1\u00a0\\2", text)


def figures(record: Record) -> Html | None:
    """The four numbers that matter; those that nobody measured are left out where nothing happened."""
    cards = [_waited(record), _lost(record), *(_objective(objective, record) for objective in objectives(record))]
    shown = [card for card in cards if card is not None]
    return el("dl", *shown, class_="figures few" if len(shown) < 3 else "figures") if shown else None


def _card(term: str, value: str, *notes: Html | str | None) -> Html:
    lines = [el("div", note, class_="note") for note in notes if note]
    return el("div", el("dt", term), el("dd", el("div", value, class_="value"), *lines))


def _waited(record: Record) -> Html | None:
    if record.waited is None:
        return None
    bound = "at most " if by_outage(record) else ""
    return _card("Writers waited", bound + seconds(record.waited), waited_basis(record))


def _lost(record: Record) -> Html | None:
    if record.lost is None and record.losses is None:
        return None
    return _card("Transactions lost", lost_number(record), lost_basis(record))


def _objective(objective: Objective, record: Record) -> Html | None:
    term = f"{objective.title} ({objective.name})"
    if objective.measured is None:
        held = objective.allowed is not None and record.outcome.status == "done" and record.operation != "rejoin"
        return _card(term, "not known", f"objective {seconds(objective.allowed or 0)}") if held else None
    if objective.allowed is None:
        return _card(term, seconds(objective.measured), objective.word)
    share = objective.measured / objective.allowed if objective.allowed > 0 else float(objective.measured > 0)
    tone, glyph = ("good", "✓") if objective.met else ("bad", "✕")
    word = el("b", f"{glyph} {objective.word}", class_=tone)
    meter = el(
        "div",
        el("i", class_="some" if share else None, style=f"width:{min(share, 1.0) * 100:.2f}%"),
        class_=f"meter {tone}",
        aria_hidden="true",
    )
    note = join([meter, word, f", objective {seconds(objective.allowed)}"])
    return _card(term, seconds(objective.measured), note)


def refusals(record: Record) -> Html | None:
    """Why an operation was refused."""
    standing = [refusal for refusal in record.plan.refusals if not refusal.overridden]
    if not standing:
        return None
    reasons = [el("li", refusal.message or refusal.rule, _way_out(refusal)) for refusal in standing]
    title = "Why it was refused" if record.outcome.status == "refused" else "What spoke against it"
    return el("section", el("h2", title), el("ul", *reasons), class_="callout warn")


def _way_out(refusal: Refusal) -> Html:
    """What to do about a refusal, and whether it can be overridden by name."""
    override = f" It can be overridden by name: force={refusal.rule}" if refusal.overridable else ""
    return join(
        [
            el("div", f"What to do: {refusal.next_step}") if refusal.next_step else None,
            el("div", f"Rule {refusal.rule}.{override}", class_="rule") if refusal.rule else None,
        ]
    )


def warnings(record: Record) -> Html | None:
    """What the plan warned of."""
    if not record.plan.warnings:
        return None
    told = el("ul", *[el("li", warning) for warning in record.plan.warnings])
    return el("section", el("h2", "Warnings"), told, class_="callout warn")


def next_steps(record: Record, verdict: Verdict) -> Html | None:
    """What the reader has to do."""
    steps = record.outcome.next_steps or default_steps(record)
    if not steps:
        return None
    tone = "bad" if verdict.tone == "bad" else "calm"
    return el(
        "section", el("h2", "What to do next"), el("ol", *[el("li", step) for step in steps]), class_=f"callout {tone}"
    )


def default_steps(record: Record) -> tuple[str, ...]:
    """Advice for records that end without any."""
    status, name = record.outcome.status, operation_name(record)
    if status == "refused":
        return ("Remove the cause named above, then run the same playbook again.",)
    if status in ("", "incomplete"):
        return (
            "Look at the cluster with the status playbook before you change anything.",
            f"Run the same {name} again: it looks at what is there, then finishes or takes back what was begun.",
        )
    return ()


def plan_section(record: Record) -> Html | None:
    """What was planned and what became of it, for operations that didn't reach their end."""
    if not record.plan.actions or record.outcome.status in ("done", "nothing_to_do"):
        return None
    rows = [
        el(
            "tr",
            el("td", phase_title(action.phase), class_="nowrap"),
            el("td", action.host, class_="nowrap"),
            el("td", action.what or action.id, el("div", action.why, class_="detail") if action.why else None),
            el("td", _became(record, action.id, action.host), class_="nowrap"),
        )
        for action in record.plan.actions
    ]
    head = el("tr", *[el("th", name, scope="col") for name in ("Phase", "Host", "Action", "What became of it")])
    return el(
        "section",
        el("h2", "What was planned"),
        el("p", record.plan.summary, class_="muted") if record.plan.summary else None,
        el("table", el("thead", head), el("tbody", *rows)),
    )


def _became(record: Record, action: str, host: str) -> str:
    step = next((s for s in record.steps if s.id == action and s.host == host), None)
    if step is None:
        return "not reached"
    if step.unfinished:
        return f"step {step.number}: no end recorded"
    return f"step {step.number}: {step.result or 'no result'}"


def overrides(record: Record) -> Html:
    """Which rules were overridden, and by whom."""
    used = [refusal for refusal in record.plan.refusals if refusal.overridden]
    if not used:
        return el("section", el("h2", "Overrides"), el("p", "None. No safety rule was overridden."))
    who = f" by {record.asked_by}" if record.asked_by else ""
    rows = [el("li", el("b", refusal.rule), ": ", refusal.message) for refusal in used]
    return el(
        "section",
        el("h2", "Overrides"),
        el("p", f"{count(len(used), 'safety rule')} overridden{who}:"),
        el("ul", *rows),
        class_="callout warn",
    )
