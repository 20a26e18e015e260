# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The start guard among real servers: as main() and as the packed program that systemd calls."""

from __future__ import annotations

import json
import pathlib
import subprocess
import types
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._cluster import member_config, start_guard
from ansible_collections.hms.postgres.plugins.module_utils._cluster.agent_primary import PrimaryVerbs
from ansible_collections.hms.postgres.plugins.plugin_utils import _bundle
from ansible_collections.hms.postgres.tests.real.lab import Lab
from ansible_collections.hms.postgres.tests.real.rejoin_site import Member, Site

if t.TYPE_CHECKING:
    from ansible_collections.hms.postgres.plugins.module_utils._cluster.agent_database import DatabaseHandler


@pytest.fixture(scope="module")
def site(module_lab: Lab) -> Site:
    """A primary and two standbys."""
    return Site(module_lab, standbys=2)


@pytest.fixture(autouse=True)
def standbys_up_primary_down(site: Site) -> None:
    """The situation of a boot: the primary's server is down, the standbys run."""
    primary, *standbys = site.members
    primary.instance.stop()
    for standby in standbys:
        if standby.instance.pid is None:
            standby.instance.start()


def guard(member: Member, capsys: pytest.CaptureFixture[str], *, patience: float = 1.0) -> tuple[int, str]:
    """Exit code and what the journal would show."""
    rc = start_guard.main(str(member.config), patience=patience)
    return rc, capsys.readouterr().err


def test_the_primary_of_a_healthy_cluster_may_start(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    rc, text = guard(site.members[0], capsys)
    assert rc == 0, text
    assert "3 of 3 members are seen" in text
    site.members[1].instance.stop()
    rc, text = guard(site.members[0], capsys)
    assert rc == 0, text
    assert "2 of 3 members are seen" in text


def test_a_standby_may_always_start(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    for member in site.members[1:]:
        member.instance.stop()
    rc, text = guard(site.members[1], capsys)
    assert rc == 0, text
    assert "members are seen" not in text, "nobody needs to be asked"


def test_alone_it_is_refused_and_the_override_counts_once(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    primary, *standbys = site.members
    for member in standbys:
        member.instance.stop()
    rc, text = guard(primary, capsys)
    assert rc == 1
    assert "Only 1 of 3 members are seen" in text
    override = primary.state / "start-anyway"
    assert str(override) in text
    assert not (primary.instance.data / "standby.signal").exists(), "nothing is known against it"
    override.touch()
    assert guard(primary, capsys)[0] == 0
    assert not override.exists()
    assert guard(primary, capsys)[0] == 1


def test_a_rollback_starts_the_primary_although_the_candidate_died(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    """The agent stopped it a moment ago and knows that nobody was promoted; the guard alone would refuse."""
    primary, *standbys = site.members
    for member in standbys:
        member.instance.stop()
    asked: list[int] = []

    def start(**_timeout: float) -> None:
        asked.append(guard(primary, capsys)[0])

    host = member_config.load(str(primary.config))
    context = types.SimpleNamespace(clock=SystemClock())
    service = types.SimpleNamespace(start=start)
    handler = types.SimpleNamespace(
        host=host, context=context, service=service, state="stopped", restore_values={}, close=lambda: None
    )
    PrimaryVerbs(t.cast("DatabaseHandler", handler)).restart_primary(deadline=5.0)
    assert asked == [0]
    assert not (primary.state / "start-anyway").exists()
    assert guard(primary, capsys)[0] == 1


def test_a_cold_start_waits_for_the_standbys(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    primary, *standbys = site.members
    for member in standbys:
        member.instance.stop()

    class Meanwhile(SystemClock):
        """While the guard waits, a standby comes up."""

        def sleep(self, seconds: float) -> None:
            if standbys[0].instance.pid is None:
                standbys[0].instance.start()
            super().sleep(seconds)

    monkeypatch.setattr(start_guard, "SystemClock", Meanwhile)
    rc, text = guard(primary, capsys, patience=60.0)
    assert rc == 0, text
    assert standbys[0].instance.pid is not None, "it waited until then"
    assert "Waiting" in text


def test_members_of_another_cluster_are_refused(site: Site, capsys: pytest.CaptureFixture[str], lab: Lab) -> None:
    primary, standby, _other = site.members
    stranger = lab.primary()
    stranger.sql("CREATE ROLE hms_monitor LOGIN PASSWORD 'monitor of the lab' IN ROLE pg_monitor")
    stranger.sql("CREATE DATABASE hospital")
    members = [
        {"name": primary.name, "address": "127.0.0.1", "port": primary.instance.port},
        {"name": standby.name, "address": "127.0.0.1", "port": stranger.port},
    ]
    stranger.sql("SELECT 1")
    site.write_member(primary, members=members)
    try:
        rc, text = guard(primary, capsys)
    finally:
        site.write_member(primary)
    assert rc == 1
    assert "another cluster" in text


# The last ones: here a failover has happened.
def test_a_replaced_primary_is_refused_and_cannot_come_up_writable(site: Site, tmp_path: pathlib.Path) -> None:
    primary, standby, _other = site.members
    standby.promote()
    program = tmp_path / "hms-postgres.pyz"
    program.write_bytes(_bundle.build())
    (primary.state / "start-anyway").touch()
    done = subprocess.run(
        ["/usr/bin/python3", str(program), "start-guard", "--config", str(primary.config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == 1, done.stderr
    assert f"{standby.name} is the primary now, on timeline 2" in done.stderr
    assert f"playbooks/rejoin.yml -e host={primary.name}" in done.stderr
    assert (primary.state / "start-anyway").exists(), "no override against a living primary"
    assert json.loads((primary.state / "fence.json").read_text())["operation"] == "start-guard"
    assert (primary.instance.data / "standby.signal").exists()
    primary.instance.start()
    assert primary.sql("SELECT pg_is_in_recovery()") == "t", "even past the guard it is no second primary"
    primary.instance.stop()
    (primary.instance.data / "standby.signal").unlink()
    (primary.state / "fence.json").unlink()
    (primary.state / "start-anyway").unlink()


def test_a_newer_timeline_is_enough(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """The new primary is down too, but a standby has followed it."""
    primary, standby, other = site.members
    if standby.instance.sql("SELECT pg_is_in_recovery()") == "t":
        standby.promote()
    other.instance.set(primary_conninfo=site.conninfo(other, standby), primary_slot_name="")
    site.await_streaming(other, standby)
    site.await_replay(other, standby)
    standby.instance.stop()
    rc, text = guard(primary, capsys)
    assert rc == 1
    assert "follows timeline 2; this host was left on timeline 1" in text
