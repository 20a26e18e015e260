# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import Refused
from ansible_collections.hms.postgres.plugins.module_utils._provision import pooler_plan
from ansible_collections.hms.postgres.plugins.module_utils._provision.pooler_model import ProcessState

FINE = ProcessState(
    name="1",
    running=True,
    pid=7,
    wanted={"pool_mode": "transaction", "listen_port": "6432", "unix_socket_mode": "0700"},
    shown={"pool_mode": "transaction", "listen_port": "6432", "unix_socket_mode": "448"},
    restart_only=frozenset({"listen_port", "unix_socket_mode"}),
)


def plan(*states: ProcessState, wish: str = "started", restart: str = "never") -> t.Any:
    return pooler_plan.plan(states, wish=wish, restart=restart)


def changed(**values: t.Any) -> ProcessState:
    return dataclasses.replace(FINE, **values)


def test_a_process_in_order_is_left_alone() -> None:
    made = plan(FINE)
    assert (made.actions, made.warnings, made.pending) == ((), (), {})


def test_what_is_down_is_started() -> None:
    made = plan(ProcessState(name="2"), FINE)
    assert [(action.id, action.process) for action in made.actions] == [("start", "2")]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"stale_files": ("/etc/userlist.txt",)}, "/etc/userlist.txt changed"),
        ({"shown": {**FINE.shown, "pool_mode": "session"}}, "pool_mode is 'session', wanted 'transaction'"),
    ],
)
def test_what_it_has_not_read_is_reloaded(values: dict[str, t.Any], why: str) -> None:
    made = plan(changed(**values))
    assert [action.line() for action in made.actions] == [f"reload process 1 ({why})"]


def test_what_needs_a_restart_is_said() -> None:
    state = changed(shown={**FINE.shown, "listen_port": "6433"})
    made = plan(state)
    assert made.actions == ()
    assert made.pending == {"1": ["listen_port"]}
    assert "listen_port" in made.warnings[0]
    allowed = plan(state, restart="allowed")
    assert [action.id for action in allowed.actions] == ["restart"]
    assert allowed.pending == {}


def test_a_replaced_program_is_said() -> None:
    state = changed(binary_replaced=True)
    assert "replaced on disk" in plan(state).warnings[0]
    assert [action.id for action in plan(state, restart="allowed").actions] == ["restart"]


def test_a_setting_of_a_newer_version_is_said() -> None:
    state = changed(wanted={**FINE.wanted, "max_prepared_statements": "100"})
    assert "does not know these settings: max_prepared_statements" in plan(state).warnings[0]


def test_stopping() -> None:
    assert [action.id for action in plan(FINE, ProcessState(name="2"), wish="stopped").actions] == ["stop"]


def test_a_process_whose_clients_are_held_is_left_alone() -> None:
    assert plan(changed(paused=True)).actions == ()
    with pytest.raises(Refused) as caught:
        plan(changed(paused=True, stale_files=("/x",)))
    assert caught.value.reason == "pool_held"


def test_a_console_that_does_not_answer() -> None:
    with pytest.raises(Refused) as caught:
        plan(changed(unreachable="timeout"))
    assert caught.value.reason == "console_unreachable"


@pytest.mark.parametrize(
    ("name", "wanted", "shown", "same"),
    [
        ("unix_socket_mode", "0700", "448", True),
        ("unix_socket_mode", "0700", "0700", True),
        ("unix_socket_mode", "0777", "448", False),
        ("unix_socket_mode", "x", "448", False),
        ("query_wait_timeout", "60", "60", True),
        ("query_wait_timeout", "60", "120", False),
    ],
)
def test_values_are_compared_as_pgbouncer_shows_them(name: str, wanted: str, shown: str, same: bool) -> None:
    assert pooler_plan.same_value(name, wanted, shown) is same
