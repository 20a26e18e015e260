# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""member.json: what a host knows of its part in the cluster, and what is said when it knows it badly."""

from __future__ import annotations

import copy
import json
import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster.member_config import (
    BouncerHost,
    DatabaseHost,
    Peer,
    load,
    parse,
    slot_name,
    synchronous_standby_names,
)
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError

MEMBERS = [
    {"name": "db1", "address": "10.0.0.1", "port": 5432},
    {"name": "db2", "address": "10.0.0.2", "port": 5433, "priority": 50, "may_be_primary": False},
]
LOGIN = {"user": "hms_monitor", "passfile": "/etc/hms/monitor.pgpass", "sslmode": "verify-ca", "sslrootcert": "/ca"}
DATABASE: dict[str, t.Any] = {
    "schema": 1,
    "kind": "database",
    "name": "db1",
    "cluster": "hospital",
    "environment": "staging",
    "address": "10.0.0.1",
    "state_directory": "/var/lib/hms",
    "database": "hospital",
    "sync_policy": "strict",
    "postgresql": {
        "version": 15,
        "instance": "main",
        "port": 5432,
        "socket_directory": "/run/postgresql",
        "data_directory": "/data",
        "config_directory": "/etc/postgresql/15/main",
        "bin_directory": "/usr/lib/postgresql/15/bin",
        "os_user": "postgres",
    },
    "replication": {**LOGIN, "user": "hms_replication", "passfile": "/etc/hms/it's.pgpass", "slot_name": "db1"},
    "monitor": LOGIN,
    "members": MEMBERS,
}
BOUNCER: dict[str, t.Any] = {
    **{key: DATABASE[key] for key in ("schema", "cluster", "environment", "state_directory", "database")},
    "kind": "bouncer",
    "name": "bouncer1",
    "address": "10.0.1.1",
    "os_user": "postgres",
    "port": 6432,
    "databases_file": "/etc/hms/databases.ini",
    "databases": [{"name": "hospital", "dbname": "hospital"}],
    "processes": [{"name": "1", "socket_directory": "/run/1", "config_file": "/etc/1.ini", "pidfile": "/run/1/pid"}],
    "monitor": LOGIN,
    "members": MEMBERS,
}


def database(**changes: t.Any) -> DatabaseHost:
    host = parse({**copy.deepcopy(DATABASE), **changes})
    assert isinstance(host, DatabaseHost)
    return host


def bouncer() -> BouncerHost:
    host = parse(copy.deepcopy(BOUNCER))
    assert isinstance(host, BouncerHost)
    return host


def test_a_database_host() -> None:
    host = database()
    assert host.slot_name == "db1"
    assert host.peer("db2") == Peer("db2", "10.0.0.2", 5433, 50, False)
    assert host.instance.local("hospital").where() == "postgres@/run/postgresql:5432/hospital"
    params = host.monitor.params(host.peer("db2"), dbname="hospital", timeout=2)
    assert (params.where(), params.connect_timeout) == ("hms_monitor@10.0.0.2:5433/hospital", 2)


def test_a_bouncer_host() -> None:
    host = bouncer()
    (process,) = host.processes
    console = host.console(process)
    assert console.where() == "pgbouncer@/run/1:6432/pgbouncer"
    assert not console.startup_options
    client = host.through(process, dbname="hospital")
    assert client.where() == "hms_monitor@/run/1:6432/hospital"
    assert not client.startup_options
    assert host.peer("db2").as_member() == ("db2", "10.0.0.2", 5433)


def test_the_standby_s_connection_string_holds_no_password_and_is_quoted() -> None:
    host = database()
    assert host.primary_conninfo(host.peer("db2")) == (
        "host='10.0.0.2' port='5433' user='hms_replication' passfile='/etc/hms/it\\'s.pgpass' sslmode='verify-ca' "
        "sslrootcert='/ca' application_name='db1' connect_timeout='5'"
    )


def test_a_root_certificate_that_isn_t_there_is_left_out() -> None:
    host = database(replication={**DATABASE["replication"], "sslrootcert": None})
    assert "sslrootcert" not in host.primary_conninfo(host.peer("db2"))


def test_an_unknown_member_is_named_with_those_there_are() -> None:
    with pytest.raises(HmsError, match="'db9' is not a member of the cluster; its members are db1, db2"):
        database().peer("db9")


@pytest.mark.parametrize("kind", [DATABASE, BOUNCER])
def test_each_key_that_is_missing_is_named(kind: dict[str, t.Any]) -> None:
    for key in set(kind) - {"schema", "listen_address_local"}:
        broken = {name: value for name, value in kind.items() if name != key}
        if kind is BOUNCER and key == "address":
            continue
        with pytest.raises(HmsError, match=rf"lacks or has too much of something: '{key}'"):
            parse(broken)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"postgresql": {**DATABASE["postgresql"], "colour": "blue"}}, "colour"),
        ({"monitor": {"user": "u"}}, "passfile"),
        ({"members": [{"name": "db1"}]}, "address"),
        ({"members": "db1"}, "lacks or has too much"),
        (
            {"members": [{**MEMBERS[0], "name": "DB-1"}, {**MEMBERS[1], "name": "db_1"}]},
            "Two members would use one slot: db_1",
        ),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, t.Any], message: str) -> None:
    with pytest.raises(HmsError, match=message) as caught:
        parse({**DATABASE, **changes})
    assert caught.value.reason == "bad_member_config"


def test_a_host_that_is_no_member(tmp_path: pathlib.Path) -> None:
    with pytest.raises(HmsError, match="this host was not set up as a member") as caught:
        load(str(tmp_path))
    assert caught.value.reason == "not_a_member"
    (tmp_path / "member.json").write_text("{")
    with pytest.raises(HmsError, match="is not JSON"):
        load(str(tmp_path))
    (tmp_path / "member.json").write_text(json.dumps(DATABASE))
    assert load(str(tmp_path)) == database()


@pytest.mark.parametrize(
    ("member", "slot"), [("db1", "db1"), ("DB-1", "db_1"), ("db1.lan", "db1_lan"), ("größe", "gr__e"), ("a_b", "a_b")]
)
def test_a_slot_is_named_after_its_member(member: str, slot: str) -> None:
    assert slot_name(member) == slot


PEERS = [Peer("db1", "a", 1), Peer("db2", "b", 2), Peer('d"3', "c", 3), Peer("report", "d", 4, may_be_primary=False)]


@pytest.mark.parametrize(
    ("policy", "primary", "expected"),
    [
        ("async", "db1", ""),
        ("strict", "db1", 'ANY 1 ("db2", "d""3")'),
        ("degrade", "db2", 'ANY 1 ("db1", "d""3")'),
        ("strict", "report", 'ANY 1 ("db1", "db2", "d""3")'),
    ],
)
def test_who_is_synchronous(policy: str, primary: str, expected: str) -> None:
    assert synchronous_standby_names(policy, primary, PEERS) == expected
    assert synchronous_standby_names(policy, "db1", PEERS[:1]) == ""
