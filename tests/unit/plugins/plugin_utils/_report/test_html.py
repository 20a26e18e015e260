# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page: well formed, complete in itself, and every number on it is the record's."""

from __future__ import annotations

import hashlib
import json
import random
import re
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._files import dump_json
from ansible_collections.hms.postgres.plugins.plugin_utils._report.html import record_digest, render_html
from ansible_collections.hms.postgres.plugins.plugin_utils._report.verdict import verdict
from ansible_collections.hms.postgres.tests.unit.plugins.plugin_utils._report import samples
from ansible_collections.hms.postgres.tests.unit.plugins.plugin_utils._report.pages import Page

HOSTILE = """</style></script><script>alert(1)</script><img src=x onerror="alert(1)">'"&amp;<!--]]>\x00\u202e"""
F, S, R, X, J = "failover_done", "switchover_done", "failover_refused", "switchover_incomplete", "rejoin_with_losses"


def page(name: str, **changes: t.Any) -> Page:
    return Page(render_html(samples.altered(name, **changes)))


@pytest.mark.parametrize("name", samples.NAMES)
def test_a_page_needs_nothing_but_itself(name: str) -> None:
    found = page(name)
    assert found.source.startswith("<!DOCTYPE html>\n<html lang=")
    assert not re.search(r"https?:|//[a-z]|@import|\bsrc=|\bhref=|<script|<link|<iframe|\bon[a-z]+=", found.source)
    assert set(re.findall(r"url\(([^)]*)\)", found.source)) <= {"#hatch-open", "#arrow"}
    assert found.all("script") == []


@pytest.mark.parametrize("name", samples.NAMES)
def test_identifiers_are_unique_and_references_lead_somewhere(name: str) -> None:
    found = page(name)
    names = [element.attributes["id"] for element in found.all() if "id" in element.attributes]
    assert len(names) == len(set(names))
    for element in found.all():
        for key in ("aria-labelledby", "aria-describedby"):
            assert element.attributes.get(key) in (None, *names)


@pytest.mark.parametrize("name", samples.NAMES)
def test_every_drawing_has_an_alternative_in_words(name: str) -> None:
    for drawing in page(name).all("svg"):
        if drawing.attributes.get("aria-hidden") == "true":
            continue
        assert drawing.attributes["role"] == "img"
        assert drawing.children[0].name == "title"  # type: ignore[union-attr]  # an element by the next lines
        assert len(drawing.all("desc")[0].text) > 40


@pytest.mark.parametrize("name", samples.NAMES)
def test_the_headline_is_the_verdict(name: str) -> None:
    found = page(name)
    told = verdict(samples.record(name))
    assert found.one("h1").text == told.headline
    assert found.one("p", "status").text == told.glyph + told.label
    assert found.one("head").all("title")[0].text.startswith(told.label)


@pytest.mark.parametrize("name", samples.NAMES)
def test_every_step_appears_with_its_evidence(name: str) -> None:
    record = samples.record(name)
    rows = [row for row in page(name).section("All steps").all("tr") if len(row.all("td")) == 6]
    assert len(rows) == len(record.steps) > 0
    for row, step in zip(rows, record.steps, strict=True):
        number, began, _took, host, what, result = (cell.text for cell in row.all("td"))
        assert number == str(step.number)
        assert began == f"+{step.started:.3f} s"
        assert host == step.host
        assert what.startswith(step.title)
        assert step.detail in what
        assert all(f"{key}: {value}" in what for key, value in _plain(step.evidence))
        assert result.split(maxsplit=1)[1] == (step.result if step.result != "running" else "no end recorded")


def _plain(evidence: t.Mapping[str, t.Any]) -> list[tuple[str, str]]:
    """The evidence as readers see it."""
    words = {True: "yes", False: "no", None: "none"}
    found = []
    for key, value in evidence.items():
        plain = words[value] if value is None or isinstance(value, bool) else value
        found.append((key, plain.replace("\t", " ") if isinstance(plain, str) else json.dumps(plain)))
    return found


def test_numbers_are_those_of_the_record() -> None:
    raw = samples.load(F)
    found = page(F)
    assert found.figure("Writers waited") == "at most 8.10 s"
    assert found.figure("Transactions lost") == "none"
    assert found.figure("Time to recover (RTO)") == f"{raw['outcome']['rto_seconds']:.2f} s"
    assert found.figure("Data at risk (RPO)") == "0 s"
    assert found.fact("What writers felt", "Acknowledged") == f"{raw['clients']['acknowledged']} writes"
    assert found.fact("What writers felt", "Failed") == "0 writes"
    assert found.fact("What writers felt", "Longest wait of one write") == "1.42 s"
    cells = [cell.text for cell in found.section("The cluster before and after").all("td")]
    for moment in ("before", "after"):
        for member in raw[moment]["members"]:
            assert member["lsn"] in cells
    assert [row.text for row in found.section("Predicted against actual").all("tr")] == [
        "PredictedActual",
        "Writers\u2019 stall1.60 s1.42 s",
        "Transactions lost00",
    ]


def test_objectives_are_met_or_missed_in_words() -> None:
    assert "✓ met, objective 1 h" in page(F).one("dl", "figures").text
    missed = page(F, outcome__rto_seconds=4000, outcome__rpo_seconds=0.5, objectives__rpo_seconds=0)
    assert "✕ missed, objective 1 h" in missed.one("dl", "figures").text
    assert "✕ missed, objective 0 s" in missed.one("dl", "figures").text
    assert "no objective set" in page(F, objectives=None, outcome__rto_met=None).one("dl", "figures").text
    widths = [mark.attributes["style"] for mark in missed.one("dl", "figures").all("i")]
    assert widths == ["width:100.00%", "width:100.00%"]


def test_the_fence_shows_claims_and_evidence() -> None:
    section = page(F).section("Proof that db1 can\u2019t take writes")
    proofs = samples.load(F)["fence"]["proofs"]
    assert "4 claims" in section.text
    for entry, proof in zip(section.all("li"), proofs, strict=True):
        assert proof["claim"] in entry.text
        assert proof["evidence"] in entry.text
        assert entry.text.startswith("✓")
        assert "03:12:15 UTC" in entry.text
    timed = page(S).section("Proof that db1 can\u2019t take writes").all("li")
    assert "+1.931 s" in timed[0].text
    assert "teatime" in page(F, fence__proofs=[{"claim": "x", "at": "teatime"}]).source


def test_a_claim_that_does_not_hold_is_never_shown_as_a_proof() -> None:
    found = page("failover_unproven")
    assert "Proof that db1 can\u2019t take writes" not in found.titles()
    section = found.section("No proof that db1 can\u2019t take writes")
    assert "Not proven: 1 of 1 claim without proof. Method: none." in section.text
    assert section.all("li")[0].text.startswith("✕db1 is down or cut off (not proven)")
    assert "does not prove that db1 is cut off" in found.one("h1").text
    some = page(F, fence__proofs=[{"claim": "a", "holds": True}, {"claim": "b", "holds": False}])
    signs = [entry.text[0] for entry in some.section("No proof that db1 can\u2019t take writes").all("li")]
    assert signs == ["✓", "✕"]


def test_an_unknown_rpo_is_not_left_out() -> None:
    found = page("failover_unproven")
    assert found.figure("Data at risk (RPO)") == "not known"
    assert found.figure("Transactions lost") == "not known"
    assert found.figure("Writers waited") == "at most 44.4 s"
    assert len(page(J).one("dl", "figures").all("dt")) == 1


def test_warnings_of_the_plan_are_shown() -> None:
    assert "Replication is asynchronous." in page("failover_unproven").section("Warnings").text
    assert "Warnings" not in page(F).titles()


def test_where_the_diverged_log_is_kept() -> None:
    assert "The log that holds them is kept in /kept." in page(J, kept_directory="/kept").section("What was lost").text


def test_a_refusal_says_how_it_can_be_overridden() -> None:
    rule = {"rule": "lag", "message": "It lags.", "next_step": "Wait.", "overridable": True}
    why = page(R, plan__refusals=[rule, {"message": "No."}]).section("Why it was refused")
    assert why.text.endswith("It lags.What to do: Wait.Rule lag. It can be overridden by name: force=lagNo.")


def test_much_evidence_is_cut_short() -> None:
    evidence = {f"key{number}": number for number in range(50)}
    steps = [{"title": "x", "started": 0, "ended": 1, "result": "ok", "evidence": evidence}]
    shown = page(F, steps=steps).section("All steps").text
    assert "key29: 29" in shown
    assert "key30" not in shown
    assert "20 more in the record" in shown


def test_a_missing_proof_is_said() -> None:
    none = page(F, fence={"method": "stop"})
    assert (
        "no proof that db1 was cut off. Method: stop." in none.section("No proof that db1 can\u2019t take writes").text
    )
    assert "says nothing about a fence" in page(F, fence=None).section("Fence").text
    assert "Fence" not in page(S, fence=None).titles()
    assert "Fence" not in page(R).titles()
    bare = page(F, fence={"proofs": [{}]}).section("Proof that db1 can\u2019t take writes")
    assert "(no claim)no evidence recorded" in bare.text


def test_losses_are_listed() -> None:
    section = page(J).section("What was lost")
    rows = section.all("tr")[1:]
    assert [row.all("td")[0].text for row in rows] == ["48211", "48212", "48214"]
    assert rows[0].text.endswith("public.appointments, public.audit_entries")
    assert "22 November 2026, 03:12:07.398 UTC" in rows[0].text
    assert "How that is known: commit records in db1\u2019s WAL" in section.text
    assert "11.0 KiB" in section.text


def test_many_losses_are_counted_and_the_first_listed() -> None:
    lost = [{"xid": str(number)} for number in range(700)]
    section = page(J, losses__transactions=lost, losses__count=701).section("What was lost")
    assert len(section.all("tr")) == 501
    assert "201 further transactions are in the record only." in section.text
    section = page(J, losses__transactions=lost[:501], losses__count=501).section("What was lost")
    assert "1 further transaction is in the record only." in section.text


def test_unknown_losses_are_called_unknown() -> None:
    assert page(F, losses={"known": False, "basis": "db1 is out of reach"}).figure("Transactions lost") == "not known"
    assert "Why it is not known: db1 can't be read" in page("failover_unproven").section("What was lost").text
    assert page(S, losses=None, clients=None).section("What was lost").text.endswith("lost is not known.")
    assert "What was lost" not in page(R).titles()


def test_a_refusal_says_why_and_what_to_do() -> None:
    found = page(R)
    refusal = samples.load(R)["plan"]["refusals"][0]
    why = found.section("Why it was refused").text
    assert refusal["message"] in why
    assert refusal["rule"] in why
    assert [entry.text for entry in found.section("What to do next").all("li")] == samples.load(R)["outcome"][
        "next_steps"
    ]
    assert found.titles().index("What to do next") < found.titles().index("What happened")
    assert found.all("dl", "figures") == []
    assert "not reached" in found.section("What was planned").text
    assert "The cluster as it was found" in found.titles()
    assert "What was predicted" in found.titles()


def test_a_refusal_without_advice_gets_some() -> None:
    advice = page(R, outcome__next_steps=[]).section("What to do next").text
    assert "Remove the cause named above" in advice


def test_an_interrupted_operation_says_so_and_what_to_do() -> None:
    found = page(X)
    assert "no outcome" in found.one("h1").text
    assert "Look at the cluster with the status playbook" in found.section("What to do next").text
    rows = [row.all("td")[-1].text for row in found.section("What was planned").all("tr")[1:]]
    assert rows == [*[f"step {number}: ok" for number in range(1, 7)], "step 7: no end recorded", *["not reached"] * 2]
    assert "holds no picture of the cluster after" in found.section("The cluster before and after").text


def test_what_spoke_against_an_operation_that_is_not_refused() -> None:
    found = page(X, plan__refusals=[{"rule": "late"}])
    assert found.section("What spoke against it").text == "What spoke against itlateRule late."


def test_overrides_are_named_with_who_used_them() -> None:
    section = page(S).section("Overrides")
    assert "1 safety rule overridden by root@ctl" in section.text
    assert "backup_running: A pg_basebackup from db1 is running" in section.text
    assert "No safety rule was overridden" in page(F).section("Overrides").text
    assert "overridden:" in page(S, asked=None).section("Overrides").text


def test_where_the_record_came_from() -> None:
    found = page(F)
    raw = samples.load(F)
    assert found.fact("About this record", "Record") == raw["id"]
    assert found.fact("About this record", "Asked by") == raw["asked"]["by"]
    assert found.fact("About this record", "Asked at") == "22 November 2026, 03:12:14.020 UTC"
    assert found.fact("About this record", "System identifier") == raw["system_identifier"]
    assert found.fact("About this record", "Objectives") == "RTO 1 h, RPO 5 min"
    assert "postgresql on db2 15.18" in found.fact("About this record", "Versions")
    assert "confirm: hospital" in found.fact("About this record", "Parameters")
    assert "last commit in the old primary\u2019s WAL" in found.fact("About this record", "Outage began")


def test_the_digest_is_that_of_the_file_on_disk() -> None:
    raw = samples.load(S)
    on_disk = hashlib.sha256(dump_json(raw).encode()).hexdigest()
    assert record_digest(raw) == on_disk
    integrity = page(S).fact("About this record", "Integrity")
    assert integrity.startswith(on_disk)
    assert integrity.endswith(f"sha256sum {raw['id']}.json")
    assert "f00d" in Page(render_html(raw, sha256="f00d")).fact("About this record", "Integrity")
    assert page(X).fact("About this record", "Integrity").endswith("never closed, so no file has this sum")
    assert len(record_digest({"odd": "\ud800"})) == 64


def _poison(value: t.Any) -> t.Any:
    if isinstance(value, str):
        return HOSTILE + value
    if isinstance(value, list):
        return [_poison(item) for item in value]
    if isinstance(value, dict):
        return {HOSTILE + key if key in ("lsn", "db1") else key: _poison(item) for key, item in value.items()}
    return value


@pytest.mark.parametrize("name", samples.NAMES)
def test_hostile_text_stays_text(name: str) -> None:
    """The parser asserts that the page nests; here: nothing of the poison became an element or an attribute."""
    raw = samples.load(name)
    for key in ("operation", "outcome"):
        assert Page(render_html({**_poison(raw), key: raw.get(key, {})})).all("script") == []
    found = Page(render_html(_poison(raw)))
    known = {element.name for element in page(F).all()} | {element.name for element in page(R).all()}
    assert {element.name for element in found.all()} <= known | {"ul", "ol", "i"}
    assert not [name for element in found.all() for name in element.attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in found.one("h1").text + found.section("All steps").text
    assert "\x00" not in found.source
    assert "\u202e" not in found.source


def test_long_evidence_is_clipped_and_says_so() -> None:
    steps = [{"title": "x", "started": 0, "ended": 1, "result": "ok", "evidence": {"log": "y" * 5000}}]
    assert "… (4,200 more characters in the record)" in page(F, steps=steps).section("All steps").text


def test_results_that_nobody_foresaw() -> None:
    steps = [{"title": "a", "result": "odd"}, {"title": "b", "started": 0, "ended": 1}, {"title": "c", "result": "ok"}]
    rows = page(F, steps=steps).section("All steps").all("tr")
    assert [row.all("td")[-1].text for row in rows if row.all("td")] == ["? odd", "? not recorded", "✓ ok"]


def test_an_empty_record_still_makes_a_page() -> None:
    found = Page(render_html({}))
    assert found.one("header").text.startswith("Operation report")
    assert found.fact("About this record", "Asked by") == "not recorded"
    assert "All steps" not in found.titles()


def test_a_hundred_thousand_samples_stay_small() -> None:
    rng = random.Random(7)
    many = [[i / 50, rng.uniform(0.002, 0.01), "failed" if i % 50 == 0 else "ok", f"b{i % 2}"] for i in range(100_000)]
    source = render_html(samples.altered(F, clients__samples=many, clients__stall={"started": 900.0, "ended": 902.0}))
    assert len(source.encode()) < 400_000


def test_the_looks_follow_the_reader_and_the_paper() -> None:
    style = page(F).one("style").text
    for rule in (
        "prefers-color-scheme: dark",
        "@media print",
        "size: A4",
        "break-inside: avoid",
        "color-scheme: light dark",
    ):
        assert rule in style
    assert style.count("{") == style.count("}")


def test_the_legend_names_the_bouncers_while_they_are_few() -> None:
    def legend(found: Page) -> list[str]:
        return [entry.text for entry in found.section("What writers felt").all("ul", "legend")[0].all("li")]

    assert legend(page(F)) == ["through bouncer1", "through bouncer2", "writers\u2019 stall"]
    five = [[0.1 * number, 0.01, "ok", f"b{number}"] for number in range(5)]
    assert legend(page(F, clients__samples=five)) == ["through 5 bouncers together", "writers\u2019 stall"]
    assert page(X).section("What writers felt").all("ul", "legend") == []
