# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Records that a host writes by itself: restore drills above all; restores, recoveries and cleanups as well."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.plugin_utils._report.html import render_html
from ansible_collections.hms.postgres.plugins.plugin_utils._report.parse import parse_record
from ansible_collections.hms.postgres.plugins.plugin_utils._report.text import render_text
from ansible_collections.hms.postgres.plugins.plugin_utils._report.verdict import verdict
from ansible_collections.hms.postgres.tests.unit.plugins.plugin_utils._report import samples
from ansible_collections.hms.postgres.tests.unit.plugins.plugin_utils._report.pages import Page

CLIENTS = ("Writers waited", "Fence", "What was lost", "not known", "Overridden")


def shown(name: str, **changes: t.Any) -> str:
    """The text of the page."""
    return Page(render_html(samples.altered(name, **changes))).root.text


def test_a_drill_says_what_came_back_and_how_long_a_restore_takes() -> None:
    text = shown("drill_done")
    assert "All 2 backups came back, and were proven." in text
    assert "Came back2 of 2" in text
    assert "Restore at today\u2019s size (RTO)48.6 shospital by pg_dump; measured 47.1 s" in text
    assert "Data at risk (RPO)1 h 5 min" in text
    assert "1 migration to run after it: patients.0007_ward" in text
    assert "Phases: prepare 1.90 s · look 0.40 s · create 0.10 s · load 41.2 s" in text
    assert not [words for words in CLIENTS if words in text]


def test_a_drill_that_failed_says_what_is_held_against_the_backup() -> None:
    text = shown("drill_failed")
    assert "1 of 1 backups did not come back." in text
    assert "From there to now the way is broken." in text
    assert text.index("the wholewal") < text.index("hospitalcontents"), "what does not hold comes first"
    assert "make a new backup, and run the drill again" in text
    (found,) = samples.load("drill_failed")["results"]
    assert "counts as verified no more" in shown("drill_failed", results=[{**found, "noted": True}])
    assert "this host\u2019s own" in shown("drill_failed", results=[{**found, "reason": "no_key"}])


def test_a_drill_on_a_terminal() -> None:
    text = render_text(samples.load("drill_done"))
    assert text.startswith("RESTORE DRILL of hospital (staging)")
    assert "  back      hospital pg_dump 20261123T020000Z-backup-3fa9: 47.1 s, 48.6 s at to…" in text
    assert "NOT BACK" in render_text(samples.load("drill_failed"))
    assert max(len(line) for line in text.splitlines()) <= 80


RESTORE = {
    "id": "20261122T154500Z-restore-3fa9",
    "operation": "restore",
    "cluster": "hospital",
    "plan": {"steps": ["make hms_restore_x, closed to others", "mark it as proven"], "warnings": ["1 role is missing"]},
    "validations": [{"name": "contents", "ok": True, "detail": "9 tables, 1845 rows, as in the manifest"}],
    "steps": [
        {"id": "load", "phase": "load", "host": "db1", "title": "Load", "started": 0, "ended": 4, "result": "ok"}
    ],
    "outcome": {"status": "done", "message": "hms_restore_x is proven and waits for the swap."},
}
PITR = {
    "id": "20261122T154500Z-pitr-3fa9",
    "operation": "pitr",
    "cluster": "hospital",
    "plan": ["restore: there is no side cluster"],
    "reached": {"lsn": "0/5020270", "last_commit": "2025-06-22T10:00:00.000Z", "paused": True},
    "outcome": {"status": "done", "message": "The side cluster is paused at LSN 0/5020270"},
}


@pytest.mark.parametrize(
    ("record", "label", "words"),
    [
        (RESTORE, "Done", ["is proven and waits for the swap.", "mark it as proven", "9 tables", "1 role is missing"]),
        (
            PITR,
            "Done",
            ["The side cluster is paused", "there is no side cluster", "Last commit2025-06-22", "pausedyes"],
        ),
        (
            {**RESTORE, "outcome": {"status": "failed", "message": "no key"}},
            "Failed",
            ["The restore failed.", "no key"],
        ),
        (
            {"operation": "cleanup", "outcome": {"status": "nothing_to_do", "message": "All are young"}},
            "Nothing to do",
            ["Nothing had to be done. All are young."],
        ),
        (
            {**PITR, "outcome": {"status": "refused", "message": "no"}},
            "Refused",
            ["point-in-time recovery was refused"],
        ),
        ({**RESTORE, "outcome": {}}, "Interrupted", ["its record has no outcome"]),
    ],
)
def test_other_operations_of_a_host(record: dict[str, t.Any], label: str, words: list[str]) -> None:
    text = Page(render_html(record)).root.text
    assert verdict(parse_record(record)).label == label
    assert [each for each in words if each.lower() not in text.lower()] == []
    assert not [each for each in CLIENTS if each in text]
