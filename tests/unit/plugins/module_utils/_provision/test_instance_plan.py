# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import Refused
from ansible_collections.hms.postgres.plugins.module_utils._provision.instance import describe
from ansible_collections.hms.postgres.plugins.module_utils._provision.instance_model import (
    ConfigError,
    DataDirectory,
    InstanceFacts,
    InstancePlan,
    InstanceWish,
    PendingSetting,
    PortHolder,
    Postmaster,
    RunningFacts,
)
from ansible_collections.hms.postgres.plugins.module_utils._provision.instance_plan import plan_instance
from ansible_collections.hms.postgres.plugins.module_utils._tools.pg_cluster_tools import ListedInstance

DATA = "/srv/pg/data"
WISH = InstanceWish(version=15, name="main", port=5432, data_directory=DATA)
STARTED = dataclasses.replace(WISH, state="started")
RESTARTING = dataclasses.replace(STARTED, restart="allowed")
CLONE_ONLY = dataclasses.replace(WISH, initialise=False)

CLUSTER = DataDirectory(
    kind="cluster", version=15, owner="postgres", started_before=True, checksums=True, system_identifier="73"
)
VIRGIN = InstanceFacts()
INSTALLED = InstanceFacts(installed_version="15.18", tools_present=True)
DOWN = dataclasses.replace(
    INSTALLED,
    configured=True,
    configured_data_directory=DATA,
    configured_port=5432,
    start_conf="auto",
    data=CLUSTER,
)
RUNNING = RunningFacts(
    "15.18", in_recovery=False, timeline=1, config_loaded_at=100.0, encoding="UTF8", locale="C.UTF-8"
)
UP = dataclasses.replace(DOWN, postmaster=Postmaster(7, "/usr/lib/postgresql/15/bin/postgres", False), running=RUNNING)
OTHER = ListedInstance(15, "other", 5433, True, "/srv/pg/other", 101, "auto", "/var/run/postgresql")
PENDING = PendingSetting("shared_buffers", "128MB", "4GB")


def ids(plan: InstancePlan) -> list[str]:
    return [action.id for action in plan.actions]


def facts(base: InstanceFacts, **values: t.Any) -> InstanceFacts:
    return dataclasses.replace(base, **values)


def running(**values: t.Any) -> InstanceFacts:
    return facts(UP, running=dataclasses.replace(RUNNING, **values))


@pytest.mark.parametrize(
    ("wish", "found", "expected"),
    [
        pytest.param(WISH, INSTALLED, ["create"], id="nothing there"),
        pytest.param(WISH, facts(INSTALLED, data=DataDirectory("empty")), ["create"], id="an empty folder"),
        pytest.param(STARTED, INSTALLED, ["create", "start"], id="create and start"),
        pytest.param(WISH, facts(INSTALLED, others=(OTHER,)), ["create"], id="beside another instance"),
        pytest.param(WISH, facts(INSTALLED, data=CLUSTER), ["adopt"], id="a clone"),
        pytest.param(CLONE_ONLY, facts(INSTALLED, data=CLUSTER), ["adopt"], id="a clone, where it was expected"),
        pytest.param(WISH, facts(DOWN, configured_data_directory=DATA + "/"), [], id="there, down, present is enough"),
        pytest.param(STARTED, DOWN, ["start"], id="down"),
        pytest.param(STARTED, UP, [], id="up"),
        pytest.param(WISH, running(pending=(PENDING,)), [], id="present leaves a running server alone"),
        pytest.param(STARTED, facts(UP, config_changed_at=101.0), ["reload"], id="configuration newer than loaded"),
        pytest.param(STARTED, facts(UP, config_changed_at=100.0), [], id="configuration loaded"),
        pytest.param(STARTED, running(pending=(PENDING,)), [], id="pending, restart never"),
        pytest.param(RESTARTING, running(pending=(PENDING,)), ["restart"], id="pending, restart allowed"),
        pytest.param(RESTARTING, UP, [], id="nothing pending, restart allowed"),
        pytest.param(WISH, facts(DOWN, configured_port=5000), ["set_port"], id="another port"),
        pytest.param(STARTED, facts(UP, configured_port=5000), ["set_port"], id="another port, running"),
        pytest.param(RESTARTING, facts(UP, configured_port=5000), ["set_port", "restart"], id="port, restart allowed"),
        pytest.param(
            RESTARTING,
            dataclasses.replace(running(pending=(PENDING,)), configured_port=5000),
            ["set_port", "restart"],
            id="port and settings need one restart",
        ),
        pytest.param(
            WISH,
            facts(DOWN, configured_data_directory=WISH.scaffold_directory),
            ["finish_adoption"],
            id="an adoption that was cut short",
        ),
    ],
)
def test_what_is_planned(wish: InstanceWish, found: InstanceFacts, expected: list[str]) -> None:
    assert ids(plan_instance(wish, found)) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(DataDirectory("missing"), ["clear_interrupted_creation", "create"], id="killed before initdb"),
        pytest.param(DataDirectory("incomplete", 15), ["clear_interrupted_creation", "create"], id="killed in initdb"),
        pytest.param(
            dataclasses.replace(CLUSTER, started_before=False),
            ["clear_interrupted_creation", "create"],
            id="killed at the end of initdb",
        ),
        pytest.param(CLUSTER, ["adopt"], id="a server ran on it since: never cleared"),
        pytest.param(dataclasses.replace(CLUSTER, started_before=False, standby=True), ["adopt"], id="a clone since"),
    ],
)
def test_an_interrupted_creation_is_cleared_only_where_nothing_can_be_lost(
    data: DataDirectory, expected: list[str]
) -> None:
    assert ids(plan_instance(WISH, facts(INSTALLED, creation_interrupted=True, data=data))) == expected


def test_an_interrupted_creation_is_not_cleared_for_a_clone() -> None:
    found = facts(INSTALLED, creation_interrupted=True, data=dataclasses.replace(CLUSTER, started_before=False))
    assert ids(plan_instance(CLONE_ONLY, found)) == ["adopt"]


def test_a_virgin_host_can_be_planned() -> None:
    assert ids(plan_instance(STARTED, VIRGIN, dry_run=True)) == ["create", "start"]
    assert ids(plan_instance(dataclasses.replace(STARTED, initialise=False), VIRGIN, dry_run=True)) == [
        "adopt",
        "start",
    ]


@pytest.mark.parametrize(
    ("wish", "found", "reason", "words"),
    [
        pytest.param(WISH, VIRGIN, "not_installed", "not installed", id="not installed"),
        pytest.param(
            WISH, facts(INSTALLED, tools_present=False), "not_installed", "not installed", id="no Debian tools"
        ),
        pytest.param(CLONE_ONLY, INSTALLED, "no_data", "There is no data", id="no clone"),
        pytest.param(
            WISH,
            facts(INSTALLED, data=DataDirectory("foreign", sample=("lost+found",))),
            "data_directory_not_ours",
            "lost+found",
            id="not a cluster",
        ),
        pytest.param(
            WISH,
            facts(INSTALLED, data=DataDirectory("not_a_directory")),
            "data_directory_not_ours",
            "not a directory",
            id="a file",
        ),
        pytest.param(
            WISH,
            facts(INSTALLED, data=DataDirectory("incomplete", 15)),
            "data_directory_not_ours",
            "part of a cluster",
            id="half a clone",
        ),
        pytest.param(
            WISH,
            facts(INSTALLED, data=dataclasses.replace(CLUSTER, version=13)),
            "wrong_data_version",
            "PostgreSQL 13",
            id="data of another version",
        ),
        pytest.param(
            WISH,
            facts(INSTALLED, data=dataclasses.replace(CLUSTER, owner="alice")),
            "wrong_owner",
            "alice",
            id="somebody else's data",
        ),
        pytest.param(
            WISH,
            facts(INSTALLED, data=CLUSTER, postmaster=UP.postmaster),
            "foreign_server",
            "pid 7",
            id="a server outside Debian's tools",
        ),
        pytest.param(
            dataclasses.replace(WISH, data_directory="/srv/pg/other/"),
            facts(INSTALLED, others=(OTHER,)),
            "data_directory_taken",
            "15/other",
            id="another instance's data",
        ),
        pytest.param(
            dataclasses.replace(WISH, port=5433),
            facts(INSTALLED, others=(OTHER,)),
            "port_taken",
            "15/other",
            id="another instance's port",
        ),
        pytest.param(
            dataclasses.replace(WISH, port=5433),
            facts(INSTALLED, others=(OTHER._replace(running=False),)),
            "port_taken",
            "stopped",
            id="a stopped instance's port",
        ),
        pytest.param(
            WISH, facts(INSTALLED, port_holder=PortHolder(9, "nginx")), "port_taken", "nginx (pid 9)", id="port taken"
        ),
        pytest.param(
            WISH, facts(INSTALLED, port_holder=PortHolder(None, "")), "port_taken", "cannot be seen", id="by a stranger"
        ),
        pytest.param(
            WISH,
            facts(DOWN, configured_data_directory="/elsewhere"),
            "other_data_directory",
            "/elsewhere",
            id="configured elsewhere",
        ),
        pytest.param(
            WISH, facts(DOWN, data=DataDirectory("missing")), "data_missing", "missing", id="not mounted, perhaps"
        ),
        pytest.param(WISH, facts(DOWN, data=DataDirectory("empty")), "data_missing", "empty", id="an empty mount"),
        pytest.param(STARTED, facts(DOWN, start_conf="disabled"), "instance_disabled", "fenced", id="fenced"),
        pytest.param(
            STARTED,
            facts(UP, running=None, unreachable="too many clients"),
            "unreachable",
            "too many clients",
            id="cannot be asked",
        ),
        pytest.param(
            STARTED,
            running(errors=(ConfigError("/etc/x.conf", 3, "work_mem = abc: bad"),)),
            "config_invalid",
            "/etc/x.conf:3: work_mem = abc: bad",
            id="a bad setting",
        ),
        pytest.param(dataclasses.replace(WISH, name="a-b"), INSTALLED, "bad_instance_name", "a-b", id="bad name"),
        pytest.param(dataclasses.replace(WISH, version=9), INSTALLED, "unsupported_version", "too old", id="too old"),
        pytest.param(dataclasses.replace(WISH, port=80), INSTALLED, "bad_port", "80", id="privileged port"),
        pytest.param(dataclasses.replace(WISH, data_directory="pg"), INSTALLED, "bad_path", "pg", id="relative path"),
        pytest.param(dataclasses.replace(WISH, socket_directory="/"), INSTALLED, "bad_path", "'/'", id="the root"),
    ],
)
def test_what_is_refused(wish: InstanceWish, found: InstanceFacts, reason: str, words: str) -> None:
    with pytest.raises(Refused) as caught:
        plan_instance(wish, found)
    assert caught.value.reason == reason
    assert words in caught.value.message
    assert caught.value.state
    assert caught.value.next_step


def test_a_disabled_instance_that_runs_is_left_running() -> None:
    assert ids(plan_instance(STARTED, facts(UP, start_conf="disabled"))) == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        pytest.param(
            facts(UP, postmaster=Postmaster(7, "/usr/lib/postgresql/15/bin/postgres", True)),
            "still runs version 15.18",
            id="program file replaced",
        ),
        pytest.param(facts(UP, installed_version="15.19"), "replaced by 15.19", id="older than the installed version"),
        pytest.param(
            facts(UP, running=None, postmaster=Postmaster(7, "", True), installed_version="15.19"),
            "version unknown",
            id="replaced, and it doesn't answer",
        ),
        pytest.param(
            facts(UP, data=dataclasses.replace(CLUSTER, checksums=False)), "no data checksums", id="no checksums"
        ),
        pytest.param(running(encoding="SQL_ASCII"), "SQL_ASCII", id="another encoding"),
        pytest.param(running(pending=(PENDING,)), "shared_buffers", id="pending"),
    ],
)
def test_what_the_operator_is_told(found: InstanceFacts, words: str) -> None:
    plan = plan_instance(WISH, found)
    assert ids(plan) == [], "nothing of this is acted upon"
    (warning,) = plan.warnings
    assert words in warning


def test_nothing_is_told_of_a_sound_instance() -> None:
    assert plan_instance(STARTED, UP).warnings == ()


def test_pending_settings_are_returned_unless_they_are_met() -> None:
    found = running(pending=(PENDING,))
    assert plan_instance(STARTED, found).pending_restart == (PENDING,)
    assert plan_instance(RESTARTING, found).pending_restart == ()


@pytest.mark.parametrize(
    ("found", "role"),
    [
        (INSTALLED, "none"),
        (DOWN, "primary"),
        (facts(DOWN, data=dataclasses.replace(CLUSTER, standby=True)), "standby"),
        (UP, "primary"),
        (running(in_recovery=True), "standby"),
    ],
)
def test_the_role_is_what_the_server_says(found: InstanceFacts, role: str) -> None:
    assert describe(WISH, found)["role"] == role


def test_arguments_that_are_not_given_take_debians_defaults() -> None:
    wish = InstanceWish.from_params({"version": 15, "name": "main", "data_directory": None, "unknown": 1})
    assert (wish.data_directory, wish.port) == ("/var/lib/postgresql/15/main", 5432)
    assert wish.scaffold_directory == "/var/lib/postgresql/15/.main.hms-scaffold"
    assert wish.creation_marker == "/var/lib/postgresql/15/.main.hms-creating"
