# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Planned switchovers of a real pair behind two bouncer hosts, with clients that write all the time.

The coordinator is killed at every step, agents are killed and cut off. Whatever happens: nobody is left waiting, one
member leads, nothing acknowledged is lost, and running it again ends it.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator import course
from ansible_collections.hms.postgres.tests.real.engine_hosts import Database, Writer
from ansible_collections.hms.postgres.tests.real.engine_site import EngineSite
from ansible_collections.hms.postgres.tests.real.lab import Lab, signal_all, until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def site(module_lab: Lab) -> t.Iterator[EngineSite]:
    """Two database hosts, two bouncer hosts with two processes each."""
    with contextlib.closing(EngineSite(module_lab, databases=2, bouncers=2)) as made:
        yield made


@pytest.fixture(scope="module")
def writers(site: EngineSite) -> list[Writer]:
    """A client on each bouncer host, for all tests of this file."""
    return [site.writer("one", "bouncer1", rate=50), site.writer("two", "bouncer2", rate=50)]


@pytest.fixture(autouse=True)
def whole_before_and_after(site: EngineSite, writers: list[Writer]) -> t.Iterator[None]:
    """Each test finds and leaves a site in order; what was acknowledged so far is there."""
    assert site.whole()
    site.standbys_stream()
    yield
    site.agents_end()
    until(site.whole, "one member leads and nobody is held")
    site.standbys_stream()
    for writer in writers:
        writer.goes_on()
        assert writer.missing(site.primary()) == set()


def both(site: EngineSite) -> tuple[Database, Database]:
    """Who leads and who follows now."""
    primary = site.primary()
    return primary, site.other(primary)


def test_a_switchover_fails_nobody_and_a_second_one_has_nothing_to_do(site: EngineSite, writers: list[Writer]) -> None:
    old, new = both(site)
    failed = [writer.count("failed") + writer.count("unknown") for writer in writers]
    report = site.run("switchover", new.name)
    assert report.changed
    assert site.primary() is new
    site.standbys_stream()
    site.nothing_temporary()
    assert [writer.count("failed") + writer.count("unknown") for writer in writers] == failed
    record = json.loads(pathlib.Path(report.record_path).read_text())
    assert record["outcome"]["status"] == "done"
    assert record["before"]["primary"] == old.name
    assert record["after"]["primary"] == new.name
    assert record["clients"]["lost"] == record["clients"]["failed"] == 0
    assert {step["result"] for step in record["steps"]} == {"ok"}
    before = site.fingerprint()
    again = site.run("switchover", new.name)
    assert not again.changed
    assert site.fingerprint() == before


def test_a_command_that_comes_before_the_standby_does_waits_for_it(
    site: EngineSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a run that was killed: the primary is back, and its standby tries again only every five seconds."""
    old, new = both(site)
    with old.first_rule("replication", "hms_replication", "reject"):
        old.instance.stop()
        old.instance.start()
        assert not new.streams_from(old)
        seen = site.run("switchover", new.name, check_mode=True)
    assert [refusal.rule for refusal in seen.plan.blocked] == ["not_streaming"]
    monkeypatch.setattr(course, "PASSING_PATIENCE", 60.0)
    report = site.run("switchover", new.name)
    assert report.changed
    assert site.primary() is new


def test_an_archive_that_does_not_answer_holds_up_no_promotion(site: EngineSite, writers: list[Writer]) -> None:
    _old, new = both(site)
    asked = new.data / "asked_the_archive"
    new.instance.set(restore_command=f"touch {asked}; sleep 600; false")
    failed = [writer.count("failed") + writer.count("unknown") for writer in writers]
    site.run("switchover", new.name)
    assert site.primary() is new
    assert not asked.exists(), "the promotion asked the archive"
    assert "asked_the_archive" in new.setting("restore_command"), "it has its setting back"
    assert [writer.count("failed") + writer.count("unknown") for writer in writers] == failed
    new.sql("ALTER SYSTEM RESET restore_command")
    new.sql("SELECT pg_reload_conf()")


def test_check_mode_touches_nothing(site: EngineSite) -> None:
    old, new = both(site)
    before = site.fingerprint()
    report = site.run("switchover", new.name, check_mode=True)
    assert report.changed
    assert not report.plan.blocked
    assert [action.id for action in report.plan.actions][-1] == "verify"
    assert report.plan.old_primary == old.name
    site.agents_end()
    assert site.fingerprint() == before


REFUSED: dict[str, tuple[str, dict[str, t.Any], str]] = {
    "unknown candidate": (
        "switchover",
        {"candidate": "db9"},
        "'db9' is not a database host of hospital; its members are db1, db2",
    ),
    "no candidate": ("switchover", {}, "No candidate was named."),
    "wrong confirm": (
        "switchover",
        {"candidate": "standby", "confirm": "clinic"},
        "confirm is 'clinic', but this cluster is 'hospital'",
    ),
    "failover of a living primary": ("failover", {"candidate": "standby"}, "is alive and takes writes"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_and_nothing_is_touched(site: EngineSite, case: str) -> None:
    operation, wish, message = REFUSED[case]
    if wish.get("candidate") == "standby":
        wish = {**wish, "candidate": both(site)[1].name}
    before = site.fingerprint()
    with pytest.raises(Refused) as caught:
        site.run(t.cast("t.Any", operation), **wish)
    assert message in caught.value.message
    assert caught.value.state == "Nothing was touched."
    site.agents_end()
    after = site.fingerprint()
    del before["controller"], after["controller"]  # that it was asked for and refused is written down
    assert after == before


def test_a_standby_that_doesn_t_stream_is_no_candidate(site: EngineSite) -> None:
    _old, new = both(site)
    conninfo = new.setting("primary_conninfo").replace("'", "''")
    new.instance.set(primary_conninfo="")
    new.hears_nobody()
    try:
        with pytest.raises(Refused, match=rf"{new.name} is not streaming from"):
            site.run("switchover", new.name)
    finally:
        new.instance.set(primary_conninfo=conninfo)
    site.standbys_stream()


def test_a_candidate_that_is_down_is_named_so(site: EngineSite) -> None:
    _old, new = both(site)
    new.kill()
    try:
        with pytest.raises(Refused, match=rf"{new.name} is not a running standby: it is down"):
            site.run("switchover", new.name)
    finally:
        new.start()
    site.standbys_stream()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cluster": "clinic"}, "of cluster 'clinic'"),
        ({"environment": "production"}, "(production), not the database host"),
        ({"name": "db7"}, "database host 'db7'"),
    ],
)
def test_an_agent_of_another_cluster_is_not_worked_with(
    site: EngineSite, changes: dict[str, str], message: str
) -> None:
    before = site.fingerprint()
    with site.changed_member("db2", **changes), pytest.raises(Refused) as caught:
        site.run("switchover", "db2")
    assert message in caught.value.message
    assert site.fingerprint() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"monitor": None}, "lacks or has too much of something: 'monitor'"), ({"shoe_size": 43}, "")],
)
def test_a_broken_member_file_is_said_so(site: EngineSite, changes: dict[str, t.Any], message: str) -> None:
    _old, new = both(site)
    with site.changed_member(new.name, **changes):
        report = site.run("switchover", new.name, check_mode=True)
    if message:
        assert report.plan.blocked[0].rule == "candidate_unreachable"
        assert message in report.plan.blocked[0].message
    else:
        assert not report.plan.blocked


def test_a_dead_bouncer_process_blocks_until_it_is_given_up_by_name(site: EngineSite, writers: list[Writer]) -> None:
    bouncer = site.bouncers["bouncer2"]
    _old, new = both(site)
    bouncer.kill("2")
    try:
        with pytest.raises(Refused, match="PgBouncer processes 2 on bouncer2 don't answer"):
            site.run("switchover", new.name)
        assert site.run("switchover", new.name, force=("bouncer_unreachable",)).changed
        assert site.primary() is new
        for writer in writers:
            writer.goes_on()
    finally:
        bouncer.start("2")


def test_a_login_path_that_is_broken_is_found_before_anything_is_touched(site: EngineSite) -> None:
    _old, new = both(site)
    with new.first_rule("all", "hms_monitor", "reject"), pytest.raises(Refused) as caught:
        site.run("switchover", new.name)
    assert f"From bouncer1 there is no login to {new.name}: " in caught.value.message
    assert caught.value.reason == "login_path"


def test_a_transaction_that_doesn_t_end_leads_back(site: EngineSite, writers: list[Writer]) -> None:
    """Two-phase: one client of one process keeps its transaction open, so nobody is moved."""
    old, new = both(site)
    before = site.fingerprint()
    with site.open_transaction("bouncer2"):
        with pytest.raises(HmsError, match="not every transaction through bouncer2 came to its end") as caught:
            site.run("switchover", new.name, hold_seconds=3.0, force=("long_transactions",))
        assert caught.value.state.startswith(f"{old.name} leads as before")
        assert site.paused() == []
        for writer in writers:
            writer.goes_on()
    site.agents_end()
    assert site.primary() is old
    after = site.fingerprint()
    for name in ("settings", "slots", "auto.conf", "state", "standby.signal"):
        assert [after[host][name] for host in site.databases] == [before[host][name] for host in site.databases], name
    for name in ("file", "inode", "leads", "paused"):
        assert [after[host][name] for host in site.bouncers] == [before[host][name] for host in site.bouncers], name
    record = json.loads(pathlib.Path(caught.value.details["record"]).read_text())
    assert record["outcome"]["status"] == "rolled_back"


def test_of_two_operators_one_is_refused_by_name(site: EngineSite) -> None:
    _old, new = both(site)
    with site.open_transaction("bouncer1"):
        first = site.child("switchover", new.name, hold_seconds=45.0)  # clients are thrown out after sixty
        until(lambda: bool(site.paused()), "the first operator holds the pools")
        with pytest.raises(Refused) as caught:
            site.run("switchover", new.name)
    assert "Another operation is at work" in caught.value.message
    assert "started by tester@here" in caught.value.message
    assert caught.value.reason == "operation_running"
    assert first.end() == 0
    assert site.primary() is new


MOMENTS = [
    "before:hold",
    "step:hold_pools",
    "after:stop_primary",
    "step:stop_primary",
    "step:prove_caught_up",
    "after:commit_demotion",
    "step:commit_demotion",
    "after:promote",
    "after:repoint",
    "step:promote",
    "step:resume_pools",
    "before:finish",
]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_coordinator_leaves_the_old_state_or_the_new(
    site: EngineSite, writers: list[Writer], moment: str
) -> None:
    _old, new = both(site)
    failed = sum(writer.count("failed") for writer in writers)
    assert site.child("switchover", new.name, moment=moment).end() == -signal.SIGKILL
    until(site.whole, f"after {moment} one member leads and nobody is held")
    assert sum(writer.count("failed") for writer in writers) == failed
    site.run("switchover", new.name)
    assert site.primary() is new
    assert not site.run("switchover", new.name).changed
    site.standbys_stream()
    site.nothing_temporary()


VICTIMS = [
    ("bouncer1", "step:hold_pools"),
    ("old", "step:stop_primary"),
    ("new", "step:stop_primary"),
    ("new", "after:promote"),
    ("bouncer2", "after:promote"),
]


@pytest.mark.parametrize(("victim", "moment"), VICTIMS)
def test_a_killed_agent_leaves_nobody_waiting(
    site: EngineSite, writers: list[Writer], victim: str, moment: str
) -> None:
    """The coordinator lives: it starts the agent again, and goes on or back."""
    old, new = both(site)
    host = {"old": old.name, "new": new.name}.get(victim, victim)
    child = site.child("switchover", new.name, moment=moment, accident={"kill": str(site.folder / host / "etc")})
    child.end()
    assert child.mark.exists()
    until(site.whole, "one member leads and nobody is held")
    for writer in writers:
        writer.goes_on()
    site.run("switchover", new.name)
    assert site.primary() is new
    assert not site.run("switchover", new.name).changed


def test_a_bouncer_process_that_freezes_in_the_middle_holds_up_only_its_own_clients(
    site: EngineSite, writers: list[Writer]
) -> None:
    """It was well when it was looked at. Its siblings, and the other bouncer host, go on."""
    _old, new = both(site)
    bouncer = site.bouncers["bouncer2"]
    pidfile = bouncer.sockets("2") / "pid"
    child = site.child("switchover", new.name, moment="step:hold_pools", accident={"stop": [str(pidfile)]})
    try:
        until(child.mark.exists, "it is frozen")
        writers[0].goes_on()
        until(lambda: bouncer.paused_among("1") == [], "its sibling lets its clients go")
        assert child.result()["reason"] == "bouncer_failed"
    finally:
        os.kill(bouncer.pid("2"), signal.SIGCONT)
    site.agents_end()
    assert site.primary() is new
    site.run("switchover", new.name)
    assert site.whole()
    assert not site.run("switchover", new.name).changed


CUTS = [
    ("bouncer1", "step:hold_pools"),
    ("new", "step:commit_demotion"),
    ("old", "step:commit_demotion"),
    ("all", "step:stop_primary"),
]


@pytest.mark.parametrize(("cut", "moment"), CUTS)
def test_a_line_that_falls_silent_leaves_nobody_waiting(
    site: EngineSite, writers: list[Writer], tmp_path: pathlib.Path, cut: str, moment: str
) -> None:
    """Nothing is closed, nothing arrives: the agents take five seconds of it for the coordinator's death."""
    old, new = both(site)
    hosts = {"old": [old.name], "new": [new.name], "all": [*site.databases, *site.bouncers]}.get(cut, [cut])
    relays = {host: tmp_path / host for host in hosts}
    accident = {"stop": [str(path) for path in relays.values()]}
    child = site.child("switchover", new.name, lines=site.lines(**relays), moment=moment, accident=accident)
    try:
        until(child.mark.exists, "the lines are cut")
        until(site.whole, "one member leads and nobody is held")
        for writer in writers:
            writer.goes_on()
    finally:
        signal_all((int(path.read_text()) for path in relays.values()), signal.SIGCONT)
    child.end()
    until(site.whole, "one member leads and nobody is held")
    site.run("switchover", new.name)
    assert site.primary() is new
