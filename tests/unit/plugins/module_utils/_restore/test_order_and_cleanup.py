# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Arguments become orders; what was put aside is judged by its name, its age and who uses it."""

from __future__ import annotations

import datetime
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact.model import Encryption
from ansible_collections.hms.postgres.plugins.module_utils._artifact.sources import Sources
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._restore.cleanup import Old, decide, wish_from
from ansible_collections.hms.postgres.plugins.module_utils._restore.order import backup_arguments, opens, order_from
from ansible_collections.hms.postgres.plugins.module_utils._restore.validate import Check, failed, text_of

NOW = datetime.datetime(2026, 11, 22, 12, 0, tzinfo=datetime.timezone.utc)
BASE = {
    "login_port": 5433,
    "os_user": "pg",
    "state_dir": "/var/state",
    "store": {"folder": "/b"},
    "retention": {"days": 1},
}


def test_what_is_given_comes_before_what_the_host_says() -> None:
    params = {"database": "hospital", "login_port": 6000, "login_host": None, "mask": ["/m.sql"], "force": ["no_room"]}
    made = order_from(params, base=BASE, sources=Sources("c", "staging"))
    assert (made.connection.port, made.connection.host, made.os_user) == (6000, "/var/run/postgresql", "pg")
    assert (made.state_dir, made.work_dir, made.environment) == ("/var/state", "/var/state/restore", "staging")
    assert (made.masks, made.force, made.backup) == (("/m.sql",), frozenset({"no_room"}), "latest")
    asked = order_from(
        {**params, "assertions": [{"name": "a", "sql": "SELECT 1", "expect": True}], "os_user": ""},
        base={},
        sources=Sources("c"),
    )
    assert (asked.assertions[0].expect, asked.os_user) == ("true", None)
    assert asked.state_dir == "/var/lib/hms-postgres/c"


@pytest.mark.parametrize("params", [{"database": ""}, {"database": "x", "jobs": 0}])
def test_what_is_no_order(params: dict[str, t.Any]) -> None:
    with pytest.raises(HmsError) as caught:
        order_from(params, base={}, sources=Sources("c"))
    assert caught.value.reason == "bad_config"


def test_what_opens_a_backup() -> None:
    known = [Encryption(recipients=("a@b",), key_files=("/public",)), Encryption(passphrase_file="/p")]
    assert opens({}, known) == Encryption(passphrase_file="/p")
    assert opens({"key_files": ["/private"], "recipients": []}, known) == Encryption(key_files=("/private",))
    assert opens({}, []) == Encryption()


def test_the_backup_before_is_the_hosts_and_removes_nothing() -> None:
    made = order_from({"database": "hospital"}, base=BASE, sources=Sources("c", "staging"))
    told = backup_arguments({"database": "hospital"}, base=BASE, order=made)
    assert "retention" not in told
    assert (told["type"], told["verify"], told["store"], told["login_port"]) == ("full", "read", {"folder": "/b"}, 5433)
    params = {"database": "hospital", "store": {"folder": "/c"}, "encryption": {"passphrase": "x", "key_files": []}}
    told = backup_arguments(params, base={}, order=made)
    assert told["encryption"] == {"passphrase": "x"}
    with pytest.raises(HmsError, match="private keys"):
        backup_arguments({**params, "encryption": {"key_files": ["/private"]}}, base={}, order=made)


@pytest.mark.parametrize(
    ("value", "expected"), [(True, "true"), ("True", "true"), (None, "null"), (5, "5"), (" 5 ", "5"), ("Text", "Text")]
)
def test_answers_are_the_same_from_sql_and_yaml(value: t.Any, expected: str) -> None:
    assert text_of(value) == expected


def test_what_does_not_hold_is_told_with_all_that_was_looked_at() -> None:
    assert failed([Check("a", True, "x")]) is None
    error = failed([Check("a", True, "x"), Check("b", False, "y")])
    assert error is not None
    assert "b: y" in error.message
    assert len(error.details["validations"]) == 2


def old(days: float, *, sessions: int = 0, replication: tuple[str, ...] = ()) -> Old:
    """One that was put aside."""
    since = NOW - datetime.timedelta(days=days)
    return Old(f"hospital_before_{since:%Y%m%dT%H%M%SZ}", since, 10, sessions, replication)


def wish(**changes: t.Any) -> t.Any:
    """What is to go."""
    return wish_from({"cluster": "c", "environment": "staging", "database": "hospital", **changes}, base={})


def test_what_goes_and_what_stays() -> None:
    found = [old(30, replication=("slot",)), old(20, sessions=2), old(10), old(3)]
    assert [one.drop for one in decide(wish(), found, NOW)] == [False, False, True, False]
    assert [one.drop for one in decide(wish(with_sessions=True), found, NOW)] == [False, True, True, False]
    assert [one.drop for one in decide(wish(older_than_days=1), found, NOW)] == [False, False, True, True]
    named = decide(wish(names=[found[3].name]), found, NOW)
    assert [one.drop for one in named] == [False, False, False, True]
    assert named[3].as_dict()["why"] == "it is named"


def test_a_name_that_is_none_of_them() -> None:
    with pytest.raises(Refused) as caught:
        decide(wish(names=["hospital"]), [old(10)], NOW)
    assert caught.value.reason == "unknown_name"
    with pytest.raises(HmsError, match="cluster"):
        wish_from({"database": "hospital"}, base={})
