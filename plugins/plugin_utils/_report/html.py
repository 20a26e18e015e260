# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report of an operation as one page that needs nothing but itself. PRIVATE to the collection."""

from __future__ import annotations

import hashlib
import typing as t
from collections.abc import Mapping

from ansible_collections.hms.postgres.plugins.module_utils._files import dump_json

from . import host_side, ledger, proof, story, summary
from .markup import Html, el, join
from .model import Record
from .parse import parse_record
from .style import STYLE
from .svg import patterns
from .verdict import Verdict, operation_name, verdict


def record_digest(record: Mapping[str, t.Any]) -> str:
    """SHA-256 of the record as it stands on disk: what sha256sum says of ``<id>.json``."""
    return hashlib.sha256(dump_json(record).encode("utf-8", "surrogatepass")).hexdigest()


def render_html(record: Mapping[str, t.Any], *, sha256: str = "") -> str:
    """The page. `sha256` replaces the digest that is otherwise computed from the record."""
    found = parse_record(record)
    told = verdict(found)
    main = el("main", *filter(None, _sections(found, told, sha256 or record_digest(record))))
    title = f"{told.label}: {operation_name(found)} of {found.cluster or 'a cluster'}, {found.id or 'no id'}"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        el("style", Html(STYLE)),
    )
    body = el("body", patterns(), summary.masthead(found), main)
    return "<!DOCTYPE html>\n" + el("html", join([head, body], "\n"), lang="en") + "\n"


def _sections(record: Record, told: Verdict, digest: str) -> list[Html | None]:
    """The page from top to bottom: what every reader needs first, what auditors need last."""
    if record.operation in host_side.HOST_SIDE:
        return _host_side_sections(record, told, digest)
    return [
        summary.headline(record, told),
        summary.figures(record),
        summary.refusals(record),
        summary.next_steps(record, told),
        summary.warnings(record),
        story.timeline(record) if record.steps else None,
        summary.plan_section(record),
        story.writers(record),
        story.cluster(record, told),
        proof.fence(record),
        proof.losses(record),
        proof.prediction(record),
        summary.overrides(record),
        ledger.steps(record),
        ledger.about(record, digest),
    ]


def _host_side_sections(record: Record, told: Verdict, digest: str) -> list[Html | None]:
    """The same for an operation of one host, where no client waits."""
    found = record.host_side
    return [
        summary.headline(record, told),
        host_side.figures(found),
        host_side.problems(found),
        summary.refusals(record),
        summary.next_steps(record, told),
        summary.warnings(record),
        host_side.backups(found),
        host_side.reached(found),
        host_side.proofs(found),
        story.timeline(record) if record.steps else None,
        host_side.intended(found),
        ledger.steps(record),
        ledger.about(record, digest),
    ]
