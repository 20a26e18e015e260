# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Swaps with services around them, whose coordinator or agents are killed: no service stays down.

The units are real processes under a stand-in for systemctl (systemctl_stand_in.py): see test_swap_services.py.
"""

from __future__ import annotations

import pathlib
import signal

import pytest

from ansible_collections.hms.postgres.tests.real import services_site
from ansible_collections.hms.postgres.tests.real.lab import until
from ansible_collections.hms.postgres.tests.real.services_site import WEB, ServicesSite
from ansible_collections.hms.postgres.tests.real.swap_site import settled

pytestmark = pytest.mark.timeout(300)

site, pair = services_site.two_services, services_site.swapped_with_services


MOMENTS = ["after:stop_units", "step:hold_pools", "after:swap", "before:start_units"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_coordinator_leaves_no_service_down(site: ServicesSite, pair: tuple[int, int], moment: str) -> None:
    assert site.swap_child(moment=moment).end() == -signal.SIGKILL
    until(lambda: all(site.pids().values()), f"after {moment} the services run")
    until(lambda: settled(site, pair), "nobody is held")
    site.agents_end()
    assert "deadman_started_units" in site.apps["app1"].events()
    site.swap()
    assert site.through() == {pair[1]}


def test_a_killed_agent_is_started_again_in_the_same_run(site: ServicesSite, pair: tuple[int, int]) -> None:
    accident = {"kill": str(site.apps["app1"].state)}
    child = site.swap_child(moment="step:hold_pools", accident=accident)
    assert child.end() == 0, child.result()
    assert site.through() == {pair[1]}
    assert all(site.pids().values())


def test_a_line_that_breaks_leaves_no_service_down(
    site: ServicesSite, pair: tuple[int, int], tmp_path: pathlib.Path
) -> None:
    """Its agent lives and starts them alone, while the coordinator goes on with the swap."""
    pidfile = tmp_path / "relay"
    accident = {"run": ["/bin/sh", "-c", f"kill -9 $(cat {pidfile})"]}
    child = site.swap_child(moment="step:hold_pools", accident=accident, relays={"app1": pidfile})
    code = child.end()
    assert site.through() == {pair[1]}, "the swap itself is not held up"
    if code:
        assert child.result()["reason"] == "service_failed"
        assert "web.service on app1: the line to the host is lost; if its agent lives" in child.result()["message"]
    until(lambda: all(site.pids().values()), "the services run")
    site.agents_end()
    assert "deadman_started_units" in site.apps["app1"].events()
    assert not site.swap().changed


@pytest.mark.parametrize("state", ["swapped", "rolled_back"])
def test_what_coordinator_and_agent_left_behind_the_next_run_starts(
    site: ServicesSite, pair: tuple[int, int], state: str
) -> None:
    if state == "rolled_back":
        site.swap()
    accident = {"kill": str(site.apps["app1"].state), "itself": True}
    assert site.swap_child(state=state, moment="step:hold_pools", accident=accident).end() == -signal.SIGKILL
    assert site.apps["app1"].note() == [WEB.unit]
    until(lambda: settled(site, pair), "nobody is held")
    site.agents_end()
    assert site.pids(WEB) == {WEB: 0}, "nobody was left to start it"
    planned = site.swap(check_mode=True, state=state)
    assert any(action.why.endswith("stopped it and did not start it again") for action in planned.plan.actions)
    assert site.swap(state=state).changed
    assert all(site.pids().values())
    assert not site.swap(state=state).changed
