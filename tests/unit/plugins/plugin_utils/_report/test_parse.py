# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A record may end anywhere and hold anything; what is read from it has types all the same."""

from __future__ import annotations

import itertools
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.plugin_utils._report import access
from ansible_collections.hms.postgres.plugins.plugin_utils._report.html import render_html
from ansible_collections.hms.postgres.plugins.plugin_utils._report.parse import parse_record
from ansible_collections.hms.postgres.plugins.plugin_utils._report.text import render_text
from ansible_collections.hms.postgres.tests.unit.plugins.plugin_utils._report import samples
from ansible_collections.hms.postgres.tests.unit.plugins.plugin_utils._report.pages import Page

ODD: list[t.Any] = [
    None,
    True,
    7,
    -1.5,
    float("nan"),
    float("inf"),
    "x",
    [],
    ["x", None, {}],
    {},
    {"a": 1},
    10**400,
    -1e308,
    1e308,
]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, ""),
        (True, "yes"),
        (False, "no"),
        (7, "7"),
        (0.25, "0.25"),
        (float("nan"), "not a number"),
        ({"a": [1, "ü"]}, '{"a": [1, "ü"]}'),
        ("a\x1b[31mb\x00", "a\ufffd[31mb\ufffd"),
        ("evil\u202egpj", "evil\ufffdgpj"),
        ("half \ud800 pair", "half ? pair"),
        ("two\r\nlines\tand a tab", "two\nlines and a tab"),
    ],
)
def test_text(value: t.Any, words: str) -> None:
    assert access.text(value) == words


def test_numbers() -> None:
    assert [access.number(value) for value in (1, 2.5, "3", True, None, float("inf"), 10**400)] == [
        1.0,
        2.5,
        *[None] * 5,
    ]
    assert access.integer(3.0) == 3
    assert access.integer("3") is None
    assert access.flag(1) is None
    assert access.texts("one") == ("one",)
    assert access.texts(" ") == ()
    assert access.texts(["one", None, 2]) == ("one", "2")


def _paths(value: t.Any, path: tuple[t.Any, ...] = ()) -> t.Iterator[tuple[t.Any, ...]]:
    """All keys of a record; of lists only the first element."""
    pairs: t.Iterable[tuple[t.Any, t.Any]] = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = list(enumerate(value))[:1]
    for key, inner in pairs:
        yield (*path, key)
        yield from _paths(inner, (*path, key))


def _with(record: dict[str, t.Any], path: tuple[t.Any, ...], value: t.Any) -> dict[str, t.Any]:
    place: t.Any = record
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return record


@pytest.mark.parametrize("name", ["failover_done", "rejoin_with_losses"])
def test_any_value_may_be_broken(name: str) -> None:
    small = samples.altered(name, **({"clients__samples": [[0.0, 0.1, "ok", "b"]]} if "failover" in name else {}))
    odd = itertools.cycle(ODD)
    for path in list(_paths(small)):
        broken = _with(samples.altered(name, clients__samples=[[0.0, 0.1, "ok", "b"]]), path, next(odd))
        Page(render_html(broken))
        assert render_text(broken).strip()


@pytest.mark.parametrize("value", ODD)
def test_every_top_level_value_may_be_odd(value: t.Any) -> None:
    keys = samples.load("failover_done")
    Page(render_html(dict.fromkeys(keys, value)))
    assert render_text(dict.fromkeys(keys, value)).strip()


@pytest.mark.parametrize("name", samples.NAMES)
def test_any_key_may_be_missing(name: str) -> None:
    full = samples.load(name)
    for key in full:
        less = {other: value for other, value in full.items() if other != key}
        Page(render_html(less))
        assert render_text(less).strip()


def test_broken_samples_are_passed_over() -> None:
    raw = {
        "clients": {"samples": [[2.0, 0.1, "ok", "b"], [1.0, 0.2, "failed"], [1], "x", [0, -1, "ok"], [None, 1, "ok"]]}
    }
    clients = parse_record(raw).clients
    assert clients is not None
    assert [(s.sent, s.latency, s.result, s.source) for s in clients.samples] == [
        (1.0, 0.2, "failed", ""),
        (2.0, 0.1, "ok", "b"),
    ]


def test_times_that_run_backwards() -> None:
    raw = {"steps": [{"started": 2, "ended": 1}, {"ended": 1}], "critical_section": {"started": 2, "ended": 1}}
    record = parse_record(raw)
    assert [(step.started, step.ended) for step in record.steps] == [(2.0, 2.0), (None, None)]
    assert record.critical is None


def test_software_may_be_one_version_or_one_a_host() -> None:
    record = parse_record({"software": {"hms.postgres": "0.1.0", "postgresql": {"db1": "15.18"}}})
    assert record.software == (("hms.postgres", "0.1.0"), ("postgresql on db1", "15.18"))


def test_processes_may_be_counted_or_listed() -> None:
    record = parse_record({"before": {"poolers": [{"processes": 2}, {"processes": [{}, {}, {}]}, {}]}})
    assert record.before is not None
    assert [pooler.processes for pooler in record.before.poolers] == [2, 3, None]


def test_proofs_hold_unless_the_record_says_otherwise() -> None:
    proofs = [{"claim": "a"}, {"holds": True}, {"holds": False}, {"holds": "maybe"}, {"holds": None}]
    fence = parse_record({"fence": {"method": ["stop", "hba"], "proofs": proofs}}).fence
    assert fence is not None
    assert [proof.holds for proof in fence.proofs] == [True, True, False, False, False]
    assert fence.method == "stop, hba"
    assert not fence.proven
    nothing = parse_record({"fence": {"proofs": []}}).fence
    assert nothing is None or not nothing.proven


def test_a_position_of_zero_is_none() -> None:
    member = {"name": "db1", "timeline": 0, "lsn": "0/0"}
    record = parse_record({"before": {"members": [member]}})
    assert record.before is not None
    assert (record.before.members[0].timeline, record.before.members[0].lsn) == (None, "")


def test_that_nothing_was_lost_needs_a_basis() -> None:
    known = {"known": True, "count": 0}
    assert parse_record({"losses": known}).lost is None
    assert parse_record({"losses": {**known, "basis": "seen"}}).lost == 0
    assert parse_record({"losses": {**known, "count": 2}}).lost == 2
    assert parse_record({"losses": {**known, "basis": "seen"}, "outcome": {"lost_transactions": 5}}).lost == 5
    assert parse_record({"losses": {"known": False, "count": 0, "basis": "seen"}}).lost is None
