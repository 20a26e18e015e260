# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._provision.hba import render_address, render_rules

RULE: dict[str, t.Any] = {
    "type": "hostssl",
    "databases": ["h"],
    "users": ["app"],
    "addresses": ["10.0.0.1"],
    "method": "scram-sha-256",
}


def fields(rule: dict[str, t.Any]) -> list[list[str]]:
    return [line.split() for line in render_rules([rule])]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.1", "10.0.0.1/32"),
        ("10.0.0.0/24", "10.0.0.0/24"),
        ("::1", "::1/128"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("all", "all"),
        ("samenet", "samenet"),
        ("db1", "db1"),
        (".hospital.lan", ".hospital.lan"),
    ],
)
def test_addresses(address: str, expected: str) -> None:
    assert render_address(address) == expected


@pytest.mark.parametrize(
    "address", ["10.0.0.1/24", "10.0.0", "10.0.0.256", "db1/24", "a b", "", "-x", "10.0.0.1 trust"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(HmsError, match="neither an address"):
        render_address(address)


def test_a_line_for_each_address_and_none_twice() -> None:
    rule = {**RULE, "addresses": ["10.0.0.1", "10.0.0.1/32", "db2"]}
    assert fields(rule) == [
        ["hostssl", "h", "app", "10.0.0.1/32", "scram-sha-256"],
        ["hostssl", "h", "app", "db2", "scram-sha-256"],
    ]


def test_a_local_rule() -> None:
    rule = {"type": "local", "databases": "all", "users": "postgres", "method": "peer", "comment": "only\n him"}
    assert render_rules([rule])[0] == "# only him"
    assert render_rules([rule])[1].split() == ["local", "all", "postgres", "peer"]


def test_columns_stand_under_each_other() -> None:
    local = {"type": "local", "databases": ["all"], "users": ["postgres"], "method": "peer"}
    lines = render_rules([local, RULE])
    assert lines[0].index("peer") == lines[1].index("scram-sha-256")


def test_names_that_need_quotes_and_options() -> None:
    rule = {**RULE, "databases": ["my db", "x,y"], "method": "ldap", "options": {"ldapserver": "dc 1", "ldaptls": 1}}
    (line,) = render_rules([rule])
    assert '"my db","x,y"' in line
    assert line.endswith('ldap ldapserver="dc 1" ldaptls=1')


def test_a_rule_that_lets_nobody_in_is_left_out() -> None:
    assert render_rules([{**RULE, "addresses": []}, RULE]) == render_rules([RULE])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"type": "hostx"}, "no type of a rule"),
        ({"method": "trust"}, "not a method"),
        ({"method": "md5"}, "not a method"),
        ({"method": "password"}, "not a method"),
        ({"method": ""}, "not a method"),
        ({"users": []}, "names no users"),
        ({"addresses": None}, "names no addresses"),
        ({"addresses": [], "method": "trust"}, "not a method"),
        ({"databases": None}, "names no databases"),
        ({"users": ['a"b']}, "cannot be written"),
        ({"users": ["a\nb"]}, "cannot be written"),
        ({"type": "local"}, "local rule has no addresses"),
    ],
)
def test_rules_that_are_refused(change: dict[str, t.Any], words: str) -> None:
    with pytest.raises(HmsError, match=words) as caught:
        render_rules([{**RULE, **change}])
    assert caught.value.reason == "bad_hba_rule"


def test_no_rule_at_all() -> None:
    with pytest.raises(HmsError, match="nobody could log in"):
        render_rules([])
