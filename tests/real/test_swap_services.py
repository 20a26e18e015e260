# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Swaps with the services of an application around them.

The machine of these tests has no systemd. A stand-in (systemctl_stand_in.py) does what the agents ask of systemctl,
with real processes: each unit is a client that writes through the bouncer. systemd's own part is proven in the lab.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster.swap_model import Service
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.plugin_utils._report.html import render_html
from ansible_collections.hms.postgres.tests.real import services_site
from ansible_collections.hms.postgres.tests.real.lab import until
from ansible_collections.hms.postgres.tests.real.services_site import (
    STUBBORN,
    WEB,
    WORKER,
    ServicesSite,
)
from ansible_collections.hms.postgres.tests.real.swap_site import LIVE, SCRATCH

pytestmark = pytest.mark.timeout(300)

BEAT = Service("bouncer1", "beat.service")


site, pair = services_site.two_services, services_site.swapped_with_services


def steps(record: t.Mapping[str, t.Any]) -> list[str]:
    """The steps as they ended, in their order."""
    return [f"{step['id']}@{step['host']}" for step in record["steps"]]


def record_of(site: ServicesSite) -> dict[str, t.Any]:
    """The newest record."""
    path = max(site.records.glob("*.json"), key=lambda found: found.stat().st_mtime_ns)
    return dict(json.loads(path.read_text()))


def test_services_stop_in_their_order_and_start_in_the_other(site: ServicesSite, pair: tuple[int, int]) -> None:
    before = site.pids()
    site.apps["bouncer1"].writer(BEAT.unit, site.bouncers["bouncer1"].port)
    services = (*site.services, BEAT)
    planned = site.swap(check_mode=True, services=services)
    words = [f"{action.what}@{action.host}" for action in planned.plan.actions if action.phase == "services"]
    assert words == [
        "stop web.service@app1",
        "stop worker.service@app2",
        "start worker.service@app2",
        "start web.service@app1",
    ]
    assert any("beat.service on bouncer1 does not run" in text for text in planned.plan.warnings)
    assert site.pids() == before

    report = site.swap(services=services)
    assert site.through() == {pair[1]}
    after = site.pids()
    assert all(after.values())
    assert not set(after.values()) & set(before.values())
    assert site.pids(BEAT) == {BEAT: 0}, "what did not run is not started"
    assert report.record is not None
    order = [step for step in steps(report.record) if step.split("@")[0] in ("stop_units", "start_units", "swap")]
    assert order == ["stop_units@app1", "stop_units@app2", "swap@db1", "start_units@app2", "start_units@app1"]
    page = render_html(report.record)
    assert all(title in page for title in ("Stop web.service", "Start worker.service", "See that they still run"))
    assert "Stopped meanwhile: web.service on app1, worker.service on app2." in report.record["outcome"]["message"]
    for service in site.services:
        assert {line[2] for line in site.ledger(service)} == {"ok"}, "no client saw an error"
    assert not site.swap(services=services).changed
    assert site.pids() == after


def test_the_way_back_has_them_too(site: ServicesSite, pair: tuple[int, int]) -> None:
    site.swap()
    first = site.pids()
    report = site.swap(state="rolled_back")
    assert report.changed
    assert site.through() == {pair[0]}
    assert all(site.pids().values())
    assert not set(site.pids().values()) & set(first.values())


def test_units_of_a_host_that_has_a_role_too(site: ServicesSite, pair: tuple[int, int]) -> None:
    site.apps["bouncer1"].writer(BEAT.unit, site.bouncers["bouncer1"].port)
    begun = site.up(BEAT)[BEAT]
    site.swap(services=(BEAT,))
    assert site.through() == {pair[1]}
    assert site.pids(BEAT)[BEAT] not in (0, begun)
    site.apps["bouncer1"].run("stop", BEAT.unit)


NOWHERE = ("/bin/sh", "-c", "echo 'ssh: connect to host app1: No route to host' >&2; exit 255")


@pytest.mark.parametrize(
    ("services", "lines", "rule", "words"),
    [
        ((WEB, Service("app2", "wroker.service")), {}, "unknown_unit", "can't run wroker.service: it is not-found"),
        ((WEB, WORKER), {"app1": NOWHERE}, "service_unreachable", "No route to host"),
        ((Service("app1", "web"),), {}, "bad_service", "'web' on app1 is no name"),
        ((WEB, WORKER, WEB), {}, "bad_service", "named twice"),
        ((Service("db1", "postgresql.service"),), {}, "no_systemd", "systemd does not run on this host"),
    ],
)
def test_what_is_not_known_is_refused_before_anything_is_touched(
    site: ServicesSite, pair: tuple[int, int], services: tuple[Service, ...], lines: t.Any, rule: str, words: str
) -> None:
    before = (site.catalog(), site.pids())
    with pytest.raises(HmsError) as caught:
        site.swap(services=services, app_lines=lines)
    assert caught.value.reason == rule
    assert words in caught.value.message
    assert (site.catalog(), site.pids()) == before
    assert site.through() == {pair[0]}
    assert record_of(site)["outcome"]["status"] == "refused"


def ignores(pid: int, number: int) -> bool:
    """Whether a process ignores a signal."""
    status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigIgn"], 16) & 1 << number - 1)


def test_one_that_does_not_stop_leads_back(site: ServicesSite, pair: tuple[int, int]) -> None:
    slow = Service("app2", "slow.service")
    site.apps["app2"].define(slow.unit, ["/usr/bin/python3", "-c", STUBBORN])
    site.apps["app2"].run("start", slow.unit)
    before = site.catalog()
    stays = site.pids(slow)
    until(lambda: ignores(stays[slow], signal.SIGTERM), "it hears nobody any more")
    with pytest.raises(HmsError) as caught:
        site.swap(services=(*site.services, slow), services_deadline=3.0)
    error = caught.value
    assert (error.reason, error.phase) == ("unit_stays", "services")
    assert "slow.service is deactivating (stop-sigterm) still, 3 seconds after" in error.message
    assert "journalctl -u slow.service" in error.next_step
    assert error.state.endswith("no client was held. The services that were stopped run again.")
    assert site.catalog() == before
    assert all(site.pids().values())
    assert site.pids(slow) == stays
    assert site.through() == {pair[0]}
    assert record_of(site)["outcome"]["status"] == "rolled_back"
    os.kill(stays[slow], signal.SIGKILL)


@pytest.mark.parametrize("argv", [["/bin/false"], ["/bin/sleep", "0.5"]], ids=["at once", "in a moment"])
def test_one_that_does_not_start_is_named_and_the_swap_stands(
    site: ServicesSite, pair: tuple[int, int], argv: list[str]
) -> None:
    app = site.app(WEB)
    good = (app.units / f"{WEB.unit}.json").read_text()
    app.define(WEB.unit, argv)
    with pytest.raises(HmsError) as caught:
        site.swap()
    error = caught.value
    assert error.reason == "service_failed"
    assert "Not started again: web.service on app1: " in error.message
    assert "journalctl -u web.service on app1" in error.next_step
    assert f"{SCRATCH} is {LIVE} now, and proven. {LIVE} serves." == error.state
    assert site.through() == {pair[1]}
    assert site.pids(WORKER)[WORKER], "one that fails keeps no other from starting"
    outcome = record_of(site)["outcome"]
    assert outcome["status"] == "incomplete"
    assert "web.service on app1" in outcome["message"]
    assert app.note() == [WEB.unit]
    (app.units / f"{WEB.unit}.json").write_text(good)
    site.agents_end()
    again = site.swap()
    assert again.changed
    assert [action.id for action in again.plan.actions] == ["start_units"]
    assert again.record is not None
    assert again.record["outcome"]["message"] == f"{LIVE} is what was asked for. Started: web.service on app1."
    assert not site.swap().changed
