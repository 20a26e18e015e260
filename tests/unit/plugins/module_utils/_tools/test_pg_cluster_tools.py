# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, ToolFailed
from ansible_collections.hms.postgres.plugins.module_utils._tools import openssl, pg_cluster_tools
from ansible_collections.hms.postgres.tests.unit.plugins.scripted_runner import ScriptedRunner

JSON = """
[{"version":15,"cluster":"main","port":"5432","running":1,"pgdata":"/var/lib/postgresql/15/main","owneruid":101,
  "start":"auto","socketdir":"/var/run/postgresql"},
 {"version":"9.6","cluster":"old","port":null,"running":0}]
"""
COLUMNS = """\
15  main  5432 online,recovery postgres /var/lib/postgresql/15/main /var/log/postgresql/postgresql-15-main.log
9.6 old   5433 down            postgres /var/lib/postgresql/9.6/old /var/log/postgresql/postgresql-9.6-old.log
15  ghost <unknown> down       postgres <unknown>                   <unknown>
broken line
"""


def script_of(*answers: tuple[int, str]) -> ScriptedRunner:
    """Programs in their order and no others; those that fail say so."""
    return ScriptedRunner(*((rc, stdout, "what went wrong" if rc else "") for rc, stdout in answers))


@pytest.fixture(autouse=True)
def _every_program_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for tool in (pg_cluster_tools, openssl):
        monkeypatch.setattr(tool, "find_program", lambda name, **_needs: f"/usr/bin/{name}")


def test_the_list_as_json() -> None:
    script = script_of((0, JSON))
    main, old = pg_cluster_tools.PgLsClusters(script).all()
    assert script.ran == [["pg_lsclusters", "--json"]]
    assert (main.title, main.port, main.running, main.start_conf) == ("15/main", 5432, True, "auto")
    assert (old.version, old.port, old.running, old.data_directory) == (9, None, False, "")


def test_the_list_as_columns_where_there_is_no_json() -> None:
    script = script_of((1, ""), (0, COLUMNS))
    main, old, ghost = pg_cluster_tools.PgLsClusters(script).all()
    assert script.ran[1] == ["pg_lsclusters", "--no-header"]
    assert (main.title, main.port, main.running) == ("15/main", 5432, True)
    assert (old.version, old.running) == (9, False)
    assert (ghost.port, ghost.data_directory) == (None, "")


def test_json_that_is_none() -> None:
    with pytest.raises(HmsError, match="no JSON"):
        pg_cluster_tools.PgLsClusters(script_of((0, "oops"))).all()


BASE = ["pg_createcluster", "--user", "postgres", "--datadir", "/d", "--socketdir", "/s", "--port", "5433"]
BASE += ["--start-conf", "auto", "--quiet", "--no-status"]
WHERE: dict[str, t.Any] = {
    "version": 15,
    "name": "main",
    "os_user": "postgres",
    "data_directory": "/d",
    "socket_directory": "/s",
    "port": 5433,
    "start_conf": "auto",
}


@pytest.mark.parametrize(("checksums", "tail"), [(True, ["--data-checksums"]), (False, [])])
def test_creating(checksums: bool, tail: list[str]) -> None:
    script = script_of((0, ""))
    pg_cluster_tools.PgCreateCluster(script).create(**WHERE, encoding="UTF8", locale="C.UTF-8", checksums=checksums)
    assert script.ran == [[*BASE, "--encoding", "UTF8", "--locale", "C.UTF-8", "15", "main", "--", *tail]]


def test_adopting_leaves_initdb_out() -> None:
    script = script_of((0, ""))
    pg_cluster_tools.PgCreateCluster(script).adopt(**WHERE)
    assert script.ran == [[*BASE, "15", "main"]]


def test_a_failed_creation_says_what_is_left() -> None:
    with pytest.raises(ToolFailed, match="what went wrong") as caught:
        pg_cluster_tools.PgCreateCluster(script_of((1, ""))).create(
            **WHERE, encoding="UTF8", locale="C.UTF-8", checksums=True
        )
    assert caught.value.state


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_stopping(mode: str) -> None:
    script = script_of((0, ""))
    pg_cluster_tools.PgCtlCluster(script, version=15, name="main").stop(mode=mode)
    assert script.ran == [["pg_ctlcluster", "--mode", mode, "15", "main", "stop"]]


def test_stopping_what_is_down_is_no_error() -> None:
    pg_cluster_tools.PgCtlCluster(script_of((2, "")), version=15, name="main").stop()
    with pytest.raises(ToolFailed, match="Stopping the instance 15/main failed"):
        pg_cluster_tools.PgCtlCluster(script_of((1, "")), version=15, name="main").stop()


def test_setting_and_dropping() -> None:
    script = script_of((0, ""), (0, ""), (0, ""))
    pg_cluster_tools.PgConfTool(script, version=15, name="main").set("port", "5433")
    pg_cluster_tools.PgDropCluster(script).drop(version=15, name="main")
    pg_cluster_tools.PgDropCluster(script).drop(version=15, name="main", stop=True)
    assert script.ran == [
        ["pg_conftool", "15", "main", "set", "port", "5433"],
        ["pg_dropcluster", "15", "main"],
        ["pg_dropcluster", "--stop", "15", "main"],
    ]


CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


def test_openssls_arguments() -> None:
    script = script_of(*[(0, "")] * 3)
    tool = openssl.OpenSsl(script)
    tool.make_authority(key="k", certificate="c", subject="/CN=x", days=10)
    tool.make_request(key="k", request="r", subject="/CN=y")
    tool.sign(request="r", certificate="c", authority="a", authority_key="ak", extensions="e", serial="0x1", days=5)
    authority, request, sign = script.ran
    assert authority[:8] == ["openssl", "req", "-x509", *CURVE]
    assert authority[-4:] == ["-keyout", "k", "-out", "c"]
    assert request == ["openssl", "req", "-new", *CURVE, "-subj", "/CN=y", "-keyout", "k", "-out", "r"]
    assert " ".join(sign) == (
        "openssl x509 -req -sha256 -in r -CA a -CAkey ak -set_serial 0x1 -days 5 -extfile e -out c"
    )


def test_what_stands_in_a_certificate() -> None:
    names = "X509v3 Subject Alternative Name: \n    DNS:DB1, IP Address:10.0.0.1, IP Address:0:0:0:0:0:0:0:1\n"
    script = script_of((0, "notAfter=Nov  2 16:05:09 2036 GMT\n"), (0, names), (0, "PEM"))
    info = openssl.OpenSsl(script).inspect("c")
    assert info.not_after.isoformat() == "2036-11-02T16:05:09+00:00"
    assert info.names == {"db1", "10.0.0.1", "0:0:0:0:0:0:0:1"}
    assert info.public_key == "PEM"


@pytest.mark.parametrize(("rc", "expected"), [(0, True), (2, False)])
def test_who_signed(rc: int, expected: bool) -> None:
    assert openssl.OpenSsl(script_of((rc, ""))).signed_by("c", "a") is expected
