# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.hms.postgres.plugins.filter.members import members
from ansible_collections.hms.postgres.plugins.filter.passfile import passfile
from ansible_collections.hms.postgres.plugins.filter.topology import topology
from ansible_collections.hms.postgres.plugins.filter.userlist import userlist


def test_a_host_without_variables_is_reached_by_its_name() -> None:
    assert members(["db1"], {"db1": {}}) == [
        {"name": "db1", "address": "db1", "port": 5432, "priority": 100, "may_be_primary": True, "upstream": ""}
    ]


@pytest.mark.parametrize(
    ("variables", "key", "value"),
    [
        ({"ansible_host": "10.0.0.1"}, "address", "10.0.0.1"),
        ({"ansible_host": "10.0.0.1", "hms_address": "192.0.2.1"}, "address", "192.0.2.1"),
        ({"postgresql_port": "5433"}, "port", 5433),
        ({"replication_priority": 0}, "priority", 0),
        ({"replication_may_be_primary": "no"}, "may_be_primary", False),
        ({"replication_upstream": "db2"}, "upstream", "db2"),
    ],
)
def test_what_an_inventory_says(variables: dict[str, t.Any], key: str, value: t.Any) -> None:
    assert members(["db1"], {"db1": variables})[0][key] == value


def test_an_unknown_host_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="db9"):
        members(["db9"], {})


def test_the_topology_looks_at_what_each_host_said() -> None:
    found = {"instance": {"data_present": True, "running": True, "role": "primary"}, "fence": {}}
    hostvars: dict[str, dict[str, t.Any]] = {"db1": {}, "db2": {"replication_found": found}}
    made = topology(members(["db1", "db2"], hostvars), hostvars, "db1")
    assert made["primary"] == "db2"
    assert made["unreachable"] == ["db1"]


def test_what_means_something_in_a_passfile_is_escaped() -> None:
    assert passfile("a:b\\c", "hms_monitor") == "*:*:*:hms_monitor:a\\:b\\\\c"


def test_quotes_are_doubled_in_a_userlist() -> None:
    assert userlist('a"b', "hms_pgbouncer") == '"hms_pgbouncer" "a""b"'


@pytest.mark.parametrize("line", [passfile, userlist])
@pytest.mark.parametrize("password", ["", "two\nlines", "nul\0"])
def test_what_cannot_stand_on_a_line_is_refused(line: t.Callable[[str, str], str], password: str) -> None:
    with pytest.raises(AnsibleFilterError):
        line(password, "hms_monitor")
