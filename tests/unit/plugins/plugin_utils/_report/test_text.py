# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report for a terminal: 40 lines by 80 columns, whatever the record holds."""

from __future__ import annotations

import re
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.plugin_utils._report.columns import cut, ends, table, wrap
from ansible_collections.hms.postgres.plugins.plugin_utils._report.text import render_text
from ansible_collections.hms.postgres.plugins.plugin_utils._report.verdict import verdict
from ansible_collections.hms.postgres.tests.unit.plugins.plugin_utils._report import samples

F, S, R, X, J = "failover_done", "switchover_done", "failover_refused", "switchover_incomplete", "rejoin_with_losses"


def shown(name: str, **changes: t.Any) -> str:
    return render_text(samples.altered(name, **changes))


def flat(text: str) -> str:
    return " ".join(text.split())


def fits(text: str) -> bool:
    lines = text.split("\n")
    return len(lines) <= 40 and max(map(len, lines)) <= 80


@pytest.mark.parametrize("name", samples.NAMES)
def test_it_fits_a_terminal_and_tells_the_verdict(name: str) -> None:
    text = shown(name)
    told = verdict(samples.record(name))
    assert fits(text)
    assert text.split("\n", maxsplit=1)[0].endswith(told.label.upper())
    assert told.headline in flat(text)
    assert text.rsplit("\n", maxsplit=1)[-1] == f"Record {samples.load(name)['id']}"


def test_the_facts_of_a_failover() -> None:
    text = shown(F)
    for line in (
        "  waited    at most 8.10 s (the probe, once started, waited 1.42 s)",
        "  lost      none",
        "  RTO       8.10 s    objective 1 h      MET",
        "  primary   db1 (timeline 1) -> db2 (timeline 2)",
        "  fence     db1 by stop: 4 proofs",
        "  critical  241 ms",
        "  predicted stall 1.60 s, measured 1.42 s",
    ):
        assert line in text.split("\n")
    assert "  3. Take a new base backup of db2." in text


def test_a_refusal_says_how_it_can_be_overridden() -> None:
    rule = {"rule": "lag", "message": "It lags " + "behind " * 80, "next_step": "Wait.", "overridable": True}
    lines = shown(R, plan__refusals=[rule, {"rule": "x", "message": "No."}]).split("\n")
    at = lines.index("    Override: force=lag")
    assert lines[at + 1].startswith("  - No. [x]")
    assert sum("Override" in line for line in lines) == 1


def test_missed_objectives_shout() -> None:
    text = shown(F, outcome__rto_seconds=4000, objectives__rpo_seconds=None, outcome__rpo_met=None)
    assert "objective 1 h      MISSED" in text
    assert "0 s                          NO OBJECTIVE SET" in text


def test_a_missing_fence_proof_shouts() -> None:
    assert "fence     db1 by stop: NO PROOF" in shown(F, fence={"host": "db1", "method": "stop"})
    assert "fence     db1: NOT PROVEN (1 of 1 claim)" in shown("failover_unproven")
    assert "fence     old primary: 1 proof" in shown(F, fence={"proofs": [{"claim": "x"}]})


def test_warnings_and_what_is_kept() -> None:
    assert "  warned    db1 can't be reached: ssh timed out." in shown("failover_unproven")
    assert "  kept      /kept" in shown(J, kept_directory="/kept")
    assert "primary   db1 -> db2 (timeline 8)" in shown("failover_unproven")
    assert "waited    at most 8.10 s\n" in shown(F, clients=None)


def test_why_it_was_refused() -> None:
    text = shown(R)
    assert "Why\n  - db1 can\u2019t be reached" in text
    assert "[no_fence_proof]" in text
    assert "primary   db1\n" in text


def test_where_it_stopped() -> None:
    assert "Stopped at\n  step 7 of 7, db2, Promote (no end recorded)" in shown(X)
    assert "primary   db1 (timeline 5) -> not recorded" in shown(X)
    failed = shown(R, plan__refusals=[], outcome__status="incomplete")
    assert "step 2 of 5, db1, Look at the member (failed): no answer by ssh within 5 s" in flat(failed)
    assert "Stopped at" not in shown(X, steps=[])


def test_what_was_lost() -> None:
    text = shown(J)
    assert "lost      3\n" in text
    assert "  48212  22 November 2026, 03:12:07.404 UTC  public.billing_invoices" in text
    assert "lost      not known" in shown(J, losses={"known": False})


def test_overrides_are_named() -> None:
    assert "forced    backup_running" in shown(S)


def test_too_much_of_everything_still_fits() -> None:
    many = {
        "outcome__message": "message " * 200,
        "outcome__next_steps": ["do this " * 60] * 20,
        "plan__refusals": [{"rule": "r" * 90, "message": "because " * 90, "overridden": False}] * 9,
        "losses__transactions": [{"xid": "1" * 200, "relations": ["t" * 100] * 9}] * 99,
        "asked__by": "name " * 99,
        "plan__old_primary": "very-long-host-name-" * 20,
    }
    text = shown(F, **many)
    assert fits(text)
    assert "… more in the report" in text


@pytest.mark.parametrize("status", ["done", "refused", "incomplete", "rolled_back", "nothing_to_do", "odd", None])
def test_every_status_fits(status: str | None) -> None:
    for name in samples.NAMES:
        assert fits(shown(name, outcome__status=status))


def test_an_empty_record() -> None:
    text = render_text({})
    assert text.startswith("OPERATION")
    assert "Who asked is not recorded." in text
    assert text.endswith("Record without an id")


def test_nothing_steers_the_terminal() -> None:
    text = shown(R, outcome__message="\x1b[2J\x07gone\r\n", cluster="\x1b]0;x\x07")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)


def test_columns() -> None:
    assert cut("one\ntwo", 20) == "one two"
    assert cut("one two three", 8) == "one two…"
    assert ends("left", "right", 20) == "left           right"
    assert ends("much too long for it", "right", 20) == "much too lon…  right"
    assert wrap("a b c d e f", width=3, most=2) == ["a b", "c …"]
    assert wrap("", width=3, most=2) == []
    assert table(("A", "LONG"), [("1", "x" * 30), ("22", "y")], 12) == ["A   LONG", "1   xxxxxxx…", "22  y"]
    assert table(("A", "B"), [("xxxxx", "yyyyy")], 3) == ["A     B", "xxx…  yyy…"]
