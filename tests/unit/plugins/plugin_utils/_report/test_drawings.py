# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The drawings: scales, rows without overlaps, curves that keep every spike."""

from __future__ import annotations

import random
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.plugin_utils._report import curve, gantt, phases, svg, topology, waterfall
from ansible_collections.hms.postgres.plugins.plugin_utils._report.markup import Html, el, escape
from ansible_collections.hms.postgres.plugins.plugin_utils._report.model import Clients, Sample, Span
from ansible_collections.hms.postgres.tests.unit.plugins.plugin_utils._report.pages import Element, Page
from ansible_collections.hms.postgres.tests.unit.plugins.plugin_utils._report.samples import record


def _clients(**changes: t.Any) -> Clients:
    found = record("failover_done", **{f"clients__{key}": value for key, value in changes.items()}).clients
    assert found is not None
    return found


def _many(number: int) -> tuple[Sample, ...]:
    rng = random.Random(3)
    return tuple(Sample(sent=i / 50, latency=rng.uniform(0.002, 0.01), result="ok", source="b") for i in range(number))


def _number(element: Element, name: str) -> float:
    return float(element.attributes[name] or "nan")


@pytest.mark.parametrize(
    ("low", "high", "wanted", "expected"),
    [
        (0, 5.1, 10, [0, 1, 2, 3, 4, 5]),
        (0, 0.31, 5, [0, 0.1, 0.2, 0.3]),
        (-0.02, 0.31, 5, [0, 0.1, 0.2, 0.3]),
        (0, 0, 5, [0]),
    ],
)
def test_ticks_are_round(low: float, high: float, wanted: int, expected: list[float]) -> None:
    assert svg.ticks(low, high, wanted) == pytest.approx(expected)


def test_scales_stay_on_the_drawing() -> None:
    scale = svg.Scale(0, 10, 100, 200)
    assert [scale(value) for value in (-5, 0, 5, 10, 15)] == [100, 100, 150, 200, 200]
    assert svg.Scale(1, 1, 100, 200)(1) == 100


def test_ticks_have_the_places_they_need() -> None:
    assert [svg.tick_label(value, step) for value, step in ((0.5, 0.5), (2.0, 1.0), (0.05, 0.05), (100, 50))] == [
        "0.5",
        "2",
        "0.05",
        "100",
    ]


def test_shorten() -> None:
    assert svg.shorten("short", 100, 10) == "short"
    assert svg.shorten("far too long for this", 60, 10) == "far too lo…"


def test_markup_escapes_what_is_not_markup() -> None:
    assert (
        el("p", '<b a="1">&', title='"><script>')
        == '<p title="&quot;&gt;&lt;script&gt;">&lt;b a=&quot;1&quot;&gt;&amp;</p>'
    )
    assert el("p", el("b", "x"), None, hidden=True, class_=None) == "<p hidden><b>x</b></p>"
    assert el("meta", charset="utf-8") == '<meta charset="utf-8">'
    assert el("rect", x=1.04, stroke_width=2) == '<rect x="1" stroke-width="2"/>'
    assert escape(Html("<b>")) == "<b>"


def test_thinning_keeps_the_lowest_and_the_highest_of_each_bucket() -> None:
    samples = list(_many(100_000))
    samples[70_000] = Sample(sent=1400.0, latency=2.31, result="ok", source="b")
    samples[20_000] = Sample(sent=400.0, latency=0.0001, result="ok", source="b")
    thinned = curve.thin(samples, Span(started=0, ended=2000), buckets=480)
    assert len(thinned) <= 960
    assert samples[70_000] in thinned
    assert samples[20_000] in thinned
    assert thinned == sorted(thinned, key=lambda sample: sample.sent)


def test_thinning_leaves_few_samples_alone() -> None:
    samples = list(_many(100))
    assert curve.thin(samples, Span(started=0, ended=2)) == samples
    same = [Sample(sent=1.0, latency=1.0, result="ok", source="")] * 10
    assert curve.thin(same, Span(started=1, ended=2), buckets=2) == same[:1]


def test_a_curve_for_each_bouncer_while_they_are_few() -> None:
    assert len(Page(curve.whole_curve(_clients()) or "").all("path", "curve")) == 2
    five = [[0.1 * i, 0.01, "ok", f"b{i}"] for i in range(5)]
    assert len(Page(curve.whole_curve(_clients(samples=five)) or "").all("path", "curve")) == 1


def test_failures_are_marked_and_counted() -> None:
    drawn = Page(
        curve.whole_curve(_clients(samples=[[i, 0.01, "failed" if i % 2 else "ok", "b"] for i in range(9)])) or ""
    )
    marks = drawn.all("path", "fail")
    assert [mark.text for mark in marks] == ["1 failed write"] * 4
    assert "4 of them failed" in drawn.one("desc").text
    assert Page(curve.whole_curve(_clients()) or "").all("path", "fail") == []


def test_failures_too_close_to_tell_apart_are_one_mark() -> None:
    drawn = Page(
        curve.whole_curve(_clients(samples=[*[[5, 0.01, "failed", "b"]] * 7, [0, 1, "ok", "b"], [10, 1, "ok", "b"]]))
        or ""
    )
    assert [mark.text for mark in drawn.all("path", "fail")] == ["7 failed writes"]


def test_no_samples_no_curve() -> None:
    assert curve.whole_curve(_clients(samples=[])) is None
    assert curve.close_curve(_clients(samples=[])) is None
    assert curve.close_curve(_clients(stall=None)) is None


def test_a_short_stall_is_drawn_once_more() -> None:
    assert curve.close_curve(_clients()) is None  # the stall fills a third of the first drawing
    clients = record("switchover_done").clients
    assert clients is not None
    drawn = Page(curve.close_curve(clients) or "")
    assert _number(drawn.one("rect", "stall-shade"), "width") > 300


def test_a_stall_elsewhere_is_not_drawn() -> None:
    drawn = Page(curve.whole_curve(_clients(stall={"started": 500, "ended": 501})) or "")
    assert drawn.all("rect", "stall-shade") == []
    assert curve.close_curve(_clients(stall={"started": 500, "ended": 500.1})) is None


def test_slow_writes_have_an_axis_in_seconds_and_fast_ones_in_milliseconds() -> None:
    slow = Page(curve.whole_curve(_clients()) or "")
    assert {"0", "0.5 s", "1.0 s"} <= {text.text for text in slow.all("text", "tick")}
    fast = Page(curve.whole_curve(_clients(samples=[[0, 0.008, "ok", ""], [1, 0.004, "ok", ""]])) or "")
    assert {"0", "2 ms", "8 ms"} <= {text.text for text in fast.all("text", "tick")}


def test_every_step_that_was_begun_is_drawn() -> None:
    found = record("failover_done")
    bars = [mark for mark in Page(gantt.overview(found) or "").all("rect", "bar") if mark.text[:1].isdigit()]
    assert [mark.text.split(".")[0] for mark in sorted(bars, key=lambda mark: int(mark.text.split(".")[0]))] == [
        str(step.number) for step in found.steps
    ]


def test_bars_and_labels_of_a_host_do_not_overlap() -> None:
    found = record("failover_done")
    scale = svg.Scale(0, found.horizon, 100, svg.WIDTH)
    for host in {step.host for step in found.steps}:
        bars = [gantt._bar(found, step, scale) for step in found.steps if step.host == host]
        for row in gantt._pack(bars):
            ordered = sorted(row, key=lambda mark: mark.low)
            assert all(left.high <= right.low for left, right in zip(ordered, ordered[1:], strict=False))
        assert sum(map(len, gantt._pack(bars))) == len(bars)


def test_a_label_that_fits_nowhere_is_cut_or_left_out() -> None:
    long = {"id": "x", "phase": "arm", "host": "h", "title": "t" * 300, "result": "ok"}
    whole = record("failover_done", steps=[{**long, "started": 0, "ended": 10}, {**long, "started": 4, "ended": 4.1}])
    drawn = Page(gantt.overview(whole) or "")
    assert [text.text[-1] for text in drawn.all("text", "on-bar") if text.text.startswith("t")] == ["…"]


def test_nothing_begun_nothing_drawn() -> None:
    assert gantt.overview(record("failover_done", steps=[{"title": "x"}])) is None
    assert waterfall.critical_section(record("failover_done", steps=[])) is None
    assert waterfall.critical_section(record("rejoin_with_losses")) is None


def test_steps_that_did_not_end_well_look_different() -> None:
    steps = [
        {"phase": "critical", "title": "a", "host": "h", "started": 0.0, "ended": 1.0, "result": "failed"},
        {"phase": "critical", "title": "b", "host": "h", "started": 0.2, "ended": 0.2, "result": "skipped"},
        {"phase": "critical", "title": "c", "host": "h", "started": 0.5, "result": "running"},
        {"phase": "verify", "title": "not begun", "host": "h"},
    ]
    found = record("failover_done", steps=steps, critical_section=None)
    for drawing in (gantt.overview(found), waterfall.critical_section(found)):
        page = Page(drawing or "")
        assert [len(page.all("rect", f"bar-{kind}")) for kind in ("failed", "skipped", "open")] == [1, 1, 1]
    words = " ".join(text.text for text in Page(gantt.overview(found) or "").all("text"))
    assert "✕ a (failed)" in words
    assert "b (skipped)" in words
    assert "c (no end)" in words


def test_the_zoomed_drawing_shows_the_critical_section_alone() -> None:
    found = record("failover_done")
    drawn = Page(waterfall.critical_section(found) or "")
    begun = [mark.text.split(".")[0] for mark in drawn.all("rect", "bar")]
    assert begun == [str(step.number) for step in found.steps if step.phase == "critical"]
    assert "Critical section 0.24 s" in drawn.one("text", "critical-name").text
    assert "Writers\u2019 stall, 1.42 s" in drawn.one("text", "stall-name").text


def test_steps_of_other_phases_that_reach_into_the_critical_section_are_shown_there() -> None:
    steps = [
        {"phase": "critical", "title": "a", "host": "h", "started": 1.0, "ended": 1.2, "result": "ok"},
        {"phase": "arm", "title": "late", "host": "h", "started": 0.5, "ended": 1.1, "result": "ok"},
        {"phase": "arm", "title": "early", "host": "h", "started": 0.1, "ended": 0.2, "result": "ok"},
        {"phase": "arm", "title": "never", "host": "h"},
    ]
    found = record("failover_done", steps=steps, critical_section={"started": 1.0, "ended": 1.2}, clients=None)
    drawn = Page(waterfall.critical_section(found) or "")
    assert [row.text for row in drawn.all("text", "row")] == ["late", "a"]


def test_a_long_critical_section_is_drawn_in_seconds() -> None:
    found = record("failover_done", critical_section={"started": 0.0, "ended": 30.0}, clients=None)
    drawn = Page(waterfall.critical_section(found) or "")
    assert "5 s" in {tick.text for tick in drawn.all("text", "tick")}


def test_phases() -> None:
    found = phases.phases(record("failover_done"))
    assert [phase.words for phase in found] == [
        "Arm 1.20 s",
        "Critical section 0.24 s",
        "Verify 0.44 s",
        "Finish 2.72 s",
    ]
    odd = record("failover_done", steps=[{"phase": "two_words", "started": 0, "ended": 1}, {"phase": "", "title": "x"}])
    assert [phase.words for phase in phases.phases(odd)] == ["Two words 1.00 s", "Other"]
    assert phases.phase_class("two_words") == "phase-other"


def test_the_critical_section_may_be_known_from_its_steps_only() -> None:
    assert phases.critical_phase(record("rejoin_with_losses")) is None
    found = phases.critical_phase(record("switchover_incomplete"))
    assert found is not None
    assert found.words == "Critical section, no end recorded"


def test_the_cluster_is_drawn_with_its_arrows() -> None:
    found = record("failover_done")
    drawn = Page(topology.topology(found.before, found.after) or "")
    assert len(drawn.all("rect", "host-primary")) == 1
    assert len(drawn.all("rect", "host-away")) == 2  # db1: down before, fenced after
    assert len(drawn.all("path", "edge-stream")) == 1  # nothing streams from a primary that is down
    assert len(drawn.all("path", "edge")) == 5
    words = drawn.one("desc").text
    assert "Before: db1 is down, timeline 1, at 0/4F0021A8" in words
    assert "bouncer2 points at db2" in words


def test_a_cluster_that_is_hard_to_draw() -> None:
    members = [
        {"name": f"db{i}", "role": "standby", "upstream": "db0" if i > 1 else "db7", "lag_bytes": 9} for i in range(9)
    ]
    poolers = [{"name": f"b{i}", "points_at": "db3", "paused": True} for i in range(6)] + [{"name": "lost"}]
    found = record("failover_done", before={"members": members, "poolers": poolers}, after=None)
    drawn = Page(topology.topology(found.before, found.after) or "")
    assert len(drawn.all("rect", "host")) == 16
    assert len(drawn.all("path", "edge-paused")) == 6
    assert "lost points at nothing known" in drawn.one("desc").text
    assert topology.topology(None, None) is None
    alone = Page(topology.topology(found.before, None, alone=True) or "")
    assert "not recorded" not in " ".join(text.text for text in alone.all("text"))


def test_a_cascaded_standby_hangs_from_its_upstream() -> None:
    members = [
        {"name": "db1", "role": "primary"},
        {"name": "db2", "role": "standby", "upstream": "db1"},
        {"name": "db3", "role": "standby", "upstream": "db2"},
    ]
    found = record("failover_done", before={"primary": "db1", "members": members}, after=None)
    assert len(Page(topology.topology(found.before, None, alone=True) or "").all("path", "edge-stream")) == 2


def test_failed_and_unknown_writes_are_told_apart() -> None:
    clients = record("failover_unproven").clients
    assert clients is not None
    drawn = Page(curve.whole_curve(clients) or "")
    assert [text.text for text in drawn.all("text", "fail-name")] == ["failed", "unknown"]
    assert [mark.text for mark in drawn.all("path", "fail")] == ["2 failed writes", "1 unknown write"]
    assert "2 of them failed, 1 of them unknown" in drawn.one("desc").text
    odd = Page(curve.whole_curve(_clients(samples=[[0, 1, None, "b"]])) or "")
    assert "1 of them without a result" in odd.one("desc").text


def test_a_host_that_hangs_is_drawn_as_not_serving() -> None:
    found = record("failover_done", before={"members": [{"name": "db1", "role": "hung"}]}, after=None)
    assert len(Page(topology.topology(found.before, None, alone=True) or "").all("rect", "host-away")) == 1
