# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Three members under strict synchrony: nothing acknowledged is ever lost, and the third one follows."""

from __future__ import annotations

import contextlib
import json
import pathlib
import signal
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import Refused
from ansible_collections.hms.postgres.tests.real.engine_hosts import Database
from ansible_collections.hms.postgres.tests.real.engine_site import EngineSite
from ansible_collections.hms.postgres.tests.real.lab import Lab, until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def site(module_lab: Lab) -> t.Iterator[EngineSite]:
    """Three database hosts and a bouncer host with two processes."""
    with contextlib.closing(EngineSite(module_lab, databases=3, bouncers=1, policy="strict")) as made:
        yield made


@pytest.fixture(autouse=True)
def whole_again(site: EngineSite) -> t.Iterator[None]:
    """Each test finds three members; what fell is copied anew from who leads after it."""
    yield
    site.agents_end()
    primary = site.primary()
    for database in site.databases.values():
        if database is not primary and not database.streams_from(primary):
            site.clone(database, primary)
    site.synchronous(primary)
    assert site.whole()


def three(site: EngineSite) -> tuple[Database, Database, Database]:
    """Who leads, and the two who follow."""
    primary = site.primary()
    first, second = (database for database in site.databases.values() if database is not primary)
    return primary, first, second


def on_disk(record_path: str) -> dict[str, t.Any]:
    found: dict[str, t.Any] = json.loads(pathlib.Path(record_path).read_text())
    return found


def test_a_switchover_leaves_everybody_following_the_new_primary(site: EngineSite) -> None:
    old, new, third = three(site)
    with site.writing("strict") as writer:
        report = site.run("switchover", new.name)
        writer.goes_on()
    assert site.primary() is new
    assert writer.count("failed") + writer.count("unknown") == 0
    assert writer.missing(new) == set()
    site.standbys_stream()
    site.nothing_temporary()
    names = new.setting("synchronous_standby_names")
    assert (old.name in names, third.name in names, new.name in names) == (True, True, False)
    assert set(new.slots()) == {old.name, third.name}
    assert {step["result"] for step in on_disk(report.record_path)["steps"]} == {"ok"}
    assert not site.run("switchover", new.name).changed


@pytest.mark.parametrize("moment", ["step:commit_demotion", "after:promote"])
def test_a_killed_coordinator_leaves_three_who_agree(site: EngineSite, moment: str) -> None:
    _old, new, _third = three(site)
    with site.writing("three-" + moment.replace(":", "-")) as writer:
        assert site.child("switchover", new.name, moment=moment).end() == -signal.SIGKILL
        until(site.whole, "one member leads and nobody is held")
        site.run("switchover", new.name)
        writer.goes_on()
    assert site.primary() is new
    assert writer.missing(new) == set()
    assert not site.run("switchover", new.name).changed
    site.standbys_stream()
    site.nothing_temporary()


def test_a_killed_primary_loses_nothing_that_was_acknowledged(site: EngineSite) -> None:
    old, *_standbys = three(site)
    with site.writing("killed", rate=500) as writer, site.writing("killed too", rate=500) as other:
        old.kill()
        report = site.run("failover")
        writer.goes_on()
        other.goes_on()
    new = site.primary()
    assert new is not old
    assert writer.missing(new) | other.missing(new) == set()
    record = on_disk(report.record_path)
    assert record["outcome"]["lost_transactions"] == 0
    assert record["critical_section"]["ended"] > record["critical_section"]["started"]
    third = next(each for each in site.databases.values() if each not in (old, new))
    until(lambda: third.streams_from(new), f"{third.name} follows")
    assert not site.run("failover").changed
    site.nothing_temporary()


def test_an_unreachable_primary_is_fenced_by_its_missing_receivers(site: EngineSite) -> None:
    old, *standbys = three(site)
    old.kill()
    for standby in standbys:
        standby.hears_nobody()
    report = site.run("failover", lines=site.out_of_reach(old.name))
    record = on_disk(report.record_path)
    assert record["fence"]["method"] == "receivers"
    assert "no WAL receiver is left" in record["fence"]["proofs"][0]["evidence"]
    assert (record["losses"]["known"], record["losses"]["count"]) == (True, 0)
    assert site.primary() is not old


def test_that_proof_needs_every_standby(site: EngineSite) -> None:
    old, new, third = three(site)
    old.kill()
    new.hears_nobody()
    lines = site.out_of_reach(old.name, third.name)
    with pytest.raises(Refused) as caught:
        site.run("failover", lines=lines, force=("no_quorum", "no_sync_standby"))
    assert caught.value.reason == "no_fence_proof"
    assert f"and {third.name} neither" in caught.value.message
    assert site.paused() == []
    third.kill()
    report = site.run("failover", lines=lines, force=("no_quorum", "no_sync_standby", "no_fence_proof"))
    assert site.primary() is new
    record = on_disk(report.record_path)
    assert record["fence"]["method"] == "none"
    assert new.setting("synchronous_standby_names") == ""


def test_the_last_one_leads_alone_only_by_the_operator_s_word(site: EngineSite) -> None:
    old, new, third = three(site)
    third.kill()
    until(lambda: new.streams_from(old), "the other one streams")
    old.kill()
    with pytest.raises(Refused, match="no write is acknowledged without a standby, and none is left") as caught:
        site.run("failover")
    assert caught.value.reason == "no_sync_standby"
    report = site.run("failover", force=("no_sync_standby",))
    assert site.primary() is new
    assert new.setting("synchronous_standby_names") == ""
    assert on_disk(report.record_path)["outcome"]["status"] == "done"


def test_a_standby_that_lags_on_purpose_blocks_nothing_and_is_not_chosen(site: EngineSite) -> None:
    """Its startup process sleeps and doesn't look at its settings, so its receiver has to be ended from outside."""
    old, new, third = three(site)
    old.instance.set(synchronous_standby_names=f'ANY 1 ("{new.name}")')  # else it may be the only one that has a write
    third.instance.set(recovery_min_apply_delay="1h")
    with site.writing("delayed") as writer:
        until(lambda: writer.count("ok") > 20, "work")
        old.kill()
        report = site.run("failover", force=("no_sync_standby",))
        writer.goes_on()
    assert site.primary() is new
    assert writer.missing(new) == set()
    detached = [step for step in on_disk(report.record_path)["steps"] if step["id"] == "detach_receiver"]
    assert {step["host"]: step["result"] for step in detached} == {new.name: "ok", third.name: "ok"}
    with pytest.raises(Refused, match="delays replay by 3600 s on purpose"):
        site.run("switchover", third.name)
    third.instance.set(recovery_min_apply_delay="0")


def test_a_standby_whose_replay_is_paused_can_be_promoted(site: EngineSite) -> None:
    old, new, third = three(site)
    third.kill()
    with site.writing("paused") as writer:
        new.sql("SELECT pg_wal_replay_pause()")
        until(lambda: writer.count("ok") > 20, "work")
        old.kill()
        site.run("failover", force=("no_sync_standby",))
        writer.goes_on()
    assert site.primary() is new
    assert writer.missing(new) == set()


def test_one_that_streams_from_a_standby_stays_with_it(site: EngineSite) -> None:
    old, new, third = three(site)
    site.follow(third, new)
    site.run("switchover", new.name)
    assert site.primary() is new
    until(lambda: third.streams_from(new), "the third one still follows it")
    until(lambda: old.streams_from(new), "the old primary follows")
    site.follow(third, old)
    site.run("switchover", old.name)
    until(lambda: third.streams_from(old), "the third one still follows it")
    site.follow(third, new)
    assert not site.run("switchover", old.name).changed
