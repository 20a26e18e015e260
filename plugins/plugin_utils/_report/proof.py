# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is claimed, and what shows it: the fence, the losses, the prediction. PRIVATE to the collection."""

from __future__ import annotations

from .markup import Html, el, join
from .model import Proof, Record, Transaction
from .units import clock, count, moment, offset, seconds, size, stamp_text
from .verdict import lost_sentence, old_primary, sentence

LISTED = 500


def fence(record: Record) -> Html | None:
    """Why a second writable primary was impossible; or that this was not proven."""
    found = record.fence
    if found is None:
        return _no_fence(record)
    host = found.host or old_primary(record)
    method = f" Method: {found.method}." if found.method else ""
    failing = sum(not proof.holds for proof in found.proofs)
    if not found.proofs:
        told, tone = f"The record holds no proof that {host} was cut off.{method}", "warn"
    elif failing:
        told, tone = f"Not proven: {failing} of {count(len(found.proofs), 'claim')} without proof.{method}", "bad"
    else:
        told, tone = f"{count(len(found.proofs), 'claim')}, each with what was seen.{method}", "muted"
    title = (
        f"Proof that {host} can\u2019t take writes" if found.proven else f"No proof that {host} can\u2019t take writes"
    )
    claims = el("ul", *[_claim(proof) for proof in found.proofs], class_="proofs") if found.proofs else None
    return el("section", el("h2", title), el("p", told, class_=tone), claims)


def _claim(proof: Proof) -> Html:
    sign = el("span", "✓" if proof.holds else "✕", class_="sign good" if proof.holds else "sign bad")
    when = offset(proof.at) if proof.at is not None else _time_of(proof.at_text)
    claim = (proof.claim or "(no claim)") + ("" if proof.holds else " (not proven)")
    seen = el("code", proof.evidence or "no evidence recorded")
    return el("li", sign, claim, el("div", el("span", when, class_="at") if when else None, seen, class_="detail"))


def _time_of(text: str) -> str:
    when = moment(text)
    return clock(when) if when else text


def _no_fence(record: Record) -> Html | None:
    if record.operation != "failover" or record.outcome.status in ("refused", "nothing_to_do"):
        return None
    words = (
        "This record says nothing about a fence. If the run finished an earlier one, that one\u2019s record holds it; "
        "otherwise make sure that the old primary is stopped or cut off."
    )
    return el("section", el("h2", "Fence"), el("p", words, class_="warn"))


def losses(record: Record) -> Html | None:
    """Which transactions did not survive, and how that is known."""
    found = record.losses
    if found is None and (record.outcome.status != "done" or record.operation == "rejoin"):
        return None
    title = el("h2", "What was lost")
    how = "How that is known" if record.losses_certain else "Why it is not known"
    if found is None:
        return el("section", title, el("p", lost_sentence(record)))
    listed = found.transactions[:LISTED]
    left = (found.count or len(found.transactions)) - len(listed)
    more = (
        f"{count(left, 'further transaction')} {'is' if left == 1 else 'are'} in the record only." if left > 0 else ""
    )
    return el(
        "section",
        title,
        el("p", lost_sentence(record)),
        el("p", sentence(f"{how}: {found.basis}"), class_="muted") if found.basis else None,
        el("p", f"WAL that only the old primary held: {size(found.bytes)}.", class_="muted")
        if found.bytes is not None
        else None,
        el("p", "The log that holds them is kept in ", el("code", record.kept_directory), ".")
        if record.kept_directory
        else None,
        _transactions(listed) if listed else None,
        el("p", more) if more else None,
    )


def _transactions(listed: tuple[Transaction, ...]) -> Html:
    rows = [
        el(
            "tr",
            el("td", el("code", lost.xid)),
            el("td", stamp_text(lost.committed_at) or "not known"),
            el("td", el("code", lost.lsn or "–"), class_="nowrap"),
            el("td", ", ".join(lost.relations) or "not known"),
        )
        for lost in listed
    ]
    head = el("tr", *[el("th", name, scope="col") for name in ("Transaction", "Committed", "LSN", "Tables it wrote")])
    return el("table", el("thead", head), el("tbody", *rows))


def prediction(record: Record) -> Html | None:
    """What was expected beside what came."""
    plan = record.plan
    rows = [
        _row("Writers\u2019 stall", _seconds(plan.stall_seconds), _seconds(record.stall_seconds)),
        _row("Transactions lost", _whole(plan.lost_transactions), _whole(record.lost)),
    ]
    shown = [row for row in rows if row is not None]
    if not shown:
        return None
    untried = record.outcome.status in ("refused", "nothing_to_do")
    head = el("tr", *[el("th", name, scope="col") for name in ("", "Predicted", "Actual")])
    basis = el("ul", *[el("li", reason) for reason in plan.basis], class_="small muted") if plan.basis else None
    return el(
        "section",
        el("h2", "What was predicted" if untried else "Predicted against actual"),
        el("table", el("thead", head), el("tbody", *shown)),
        join([el("h3", "What the prediction rested on"), basis]) if basis else None,
    )


def _row(name: str, predicted: str, actual: str) -> Html | None:
    if not predicted:
        return None
    return el("tr", el("th", name, scope="row"), el("td", predicted), el("td", actual or "–"))


def _seconds(value: float | None) -> str:
    return "" if value is None else seconds(value)


def _whole(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
