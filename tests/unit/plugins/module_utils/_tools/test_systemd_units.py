# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What systemctl is told, and what is read from what it says."""

from __future__ import annotations

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import ToolFailed
from ansible_collections.hms.postgres.plugins.module_utils._tools.systemd_units import Systemctl, is_unit, parse
from ansible_collections.hms.postgres.tests.unit.plugins.scripted_runner import ScriptedRunner

# systemd 252 and 257: properties that a kind of unit lacks are left out, and so is Job while there is none
RUNNING = "Result=success\nNRestarts=0\nLoadState=loaded\nActiveState=active\nSubState=running\n"
ENDING = RUNNING.replace("=active", "=deactivating").replace("=running", "=stop-sigterm") + "Job=4711\n"
FAILED = RUNNING.replace("=active", "=failed").replace("=running", "=failed").replace("=success", "=exit-code")
CRASHES = RUNNING.replace("=active", "=activating").replace("=running", "=auto-restart").replace("ts=0", "ts=7")
TIMER = "Result=success\nLoadState=loaded\nActiveState=active\nSubState=waiting\n"
UNKNOWN = "Result=success\nNRestarts=0\nLoadState=not-found\nActiveState=inactive\nSubState=dead\n"
WILL_START = UNKNOWN.replace("not-found", "loaded") + "Job=12\n"


@pytest.mark.parametrize(
    ("output", "known", "runs", "rests", "up", "words"),
    [
        (RUNNING, True, True, False, True, "active (running)"),
        (ENDING, True, False, False, False, "deactivating (stop-sigterm)"),
        (FAILED, True, False, True, False, "failed (exit-code)"),
        (CRASHES, True, True, False, False, "activating (auto-restart)"),
        (TIMER, True, True, False, True, "active (waiting)"),
        (UNKNOWN, False, False, True, False, "inactive (dead)"),
        (WILL_START, True, False, False, False, "inactive (dead)"),
        (RUNNING + "Job=9\n", True, True, False, False, "active (running)"),
        ("", False, False, False, False, "in no known state"),
    ],
)
def test_a_state_is_read(output: str, known: bool, runs: bool, rests: bool, up: bool, words: str) -> None:
    found = parse("web.service", output)
    assert (found.known, found.runs, found.rests, found.up, found.words) == (known, runs, rests, up, words)
    assert found.gave_up is rests


def test_restarts_are_counted() -> None:
    assert parse("x.service", CRASHES).restarts == 7
    assert parse("x.timer", TIMER).restarts == 0


@pytest.mark.parametrize("name", ["hms-web.service", "celery@1.service", "a.timer", "dev\\x2d.socket", "p:q_r.path"])
def test_names_of_units(name: str) -> None:
    assert is_unit(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "hms-web",
            "*.service",
            "hms-?.service",
            "-H.service",
            "a b.service",
            "x/y.service",
            "x.service\n",
            ".target",
        ),
        *("multi-user.target", "", ".service", "a" * 250 + ".service", "a.service;b.service"),
    ],
)
def test_what_is_no_name_of_a_unit(name: str) -> None:
    assert not is_unit(name)


def runner_of(rc: int = 0, stdout: str = "") -> ScriptedRunner:
    """Answers as told."""
    return ScriptedRunner(always=(rc, stdout, "Access denied"))


def test_what_systemctl_is_told() -> None:
    runner = runner_of(stdout=RUNNING)
    systemctl = Systemctl(runner, "/bin/systemctl")
    assert systemctl.there
    assert systemctl.show("web.service").up
    systemctl.stop("web.service")
    systemctl.start("web.service")
    properties = "--property=LoadState,ActiveState,SubState,Result,Job,NRestarts"
    assert [call.argv for call in runner.calls] == [
        ["/bin/systemctl", "show", "--no-pager", properties, "--", "web.service"],
        ["/bin/systemctl", "stop", "--no-block", "--", "web.service"],
        ["/bin/systemctl", "reset-failed", "--", "web.service"],
        ["/bin/systemctl", "start", "--no-block", "--", "web.service"],
    ]


@pytest.mark.parametrize("verb", ["show", "stop", "start"])
def test_what_it_refuses_is_told(verb: str) -> None:
    with pytest.raises(ToolFailed, match=r"web\.service failed: systemctl ended with 4: Access denied"):
        getattr(Systemctl(runner_of(rc=4), "/bin/systemctl"), verb)("web.service")
