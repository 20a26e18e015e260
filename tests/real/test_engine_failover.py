# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Failovers of a real asynchronous pair: the primary killed, frozen, out of reach, without its disk.

What was acknowledged and never replicated is lost here, and must be listed, exactly.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import shutil
import signal
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.tests.real.engine_hosts import Database, seconds_until
from ansible_collections.hms.postgres.tests.real.engine_site import EngineSite
from ansible_collections.hms.postgres.tests.real.lab import Lab, process_alive, run, until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def site(module_lab: Lab) -> t.Iterator[EngineSite]:
    """Two database hosts and a bouncer host with two processes."""
    with contextlib.closing(EngineSite(module_lab, databases=2, bouncers=1)) as made:
        yield made


@pytest.fixture(autouse=True)
def whole_again(site: EngineSite) -> t.Iterator[None]:
    """Each test finds a pair; what fell is copied anew from who leads after it."""
    yield
    site.agents_end()
    primary = site.primary()
    fallen = site.other(primary)
    if not fallen.streams_from(primary):
        site.clone(fallen, primary)
    assert site.whole()


def both(site: EngineSite) -> tuple[Database, Database]:
    """Who leads and who follows now."""
    primary = site.primary()
    return primary, site.other(primary)


def on_disk(record_path: str) -> dict[str, t.Any]:
    found: dict[str, t.Any] = json.loads(pathlib.Path(record_path).read_text())
    return found


def test_the_primary_dies_and_its_standby_takes_over(site: EngineSite) -> None:
    old, new = both(site)
    with site.writing("dies") as writer:
        old.kill()
        report = site.run("failover")
        writer.goes_on()
    assert report.changed
    assert site.primary() is new
    record = on_disk(report.record_path)
    assert record["outcome"]["status"] == "done"
    assert record["fence"]["method"] == "stop"
    assert all(proof["holds"] for proof in record["fence"]["proofs"])
    assert record["critical_section"]["ended"] > record["critical_section"]["started"]
    lost = writer.missing(new)
    assert record["losses"]["known"]
    assert record["outcome"]["lost_transactions"] == record["losses"]["count"] >= len(lost)
    assert not site.run("failover").changed
    with pytest.raises(Refused, match=f"{old.name} is not a running standby: it is fenced"):
        site.run("failover", old.name)
    # a reboot doesn't bring it back writable: start.conf says disabled, and standby.signal stands
    assert (old.instance.config / "start.conf").read_text() == "disabled\n"
    old.start()
    assert old.role() == "standby"


def test_a_frozen_primary_is_killed_at_once(site: EngineSite) -> None:
    """Every process stopped: its port accepts, nothing answers, and no shutdown would be heard."""
    old, new = both(site)
    with site.writing("frozen") as writer:
        with old.ledger_locked():  # a write hangs, and what was acknowledged before it has arrived at the standby
            until(lambda: new.has(old.ask("SELECT pg_current_wal_lsn()")), "the standby has everything")
            victims = old.processes()
            old.signal(signal.SIGSTOP)
        report = site.run("failover", hold_seconds=1.5)
        writer.goes_on()
    assert site.primary() is new
    assert not any(process_alive(pid) for pid in victims)
    record = on_disk(report.record_path)
    assert record["fence"]["stopped_by"].startswith("SIGKILL of")
    section = record["critical_section"]
    assert section["ended"] > section["started"]
    assert writer.missing(new) == set()


def test_what_was_acknowledged_and_never_replicated_is_listed_exactly(site: EngineSite) -> None:
    """Replication breaks while clients write on; then the primary dies. More than the RPO is refused first."""
    old, new = both(site)
    with site.writing("lag") as writer:
        new.instance.set(primary_conninfo="")
        new.hears_nobody()
        begun = writer.count("ok")
        until(lambda: writer.count("ok") > begun + 100, "work that the standby doesn't get")
    written = dict(row.split("|") for row in old.sql("SELECT seq, xmin FROM ledger WHERE source = 'lag'").splitlines())
    old.kill()
    with pytest.raises(Refused, match=rf"{new.name} may lack the last \d+ s of the old primary's work") as caught:
        site.run("failover", rpo_seconds=0.5)
    assert caught.value.reason == "behind_rpo"
    report = site.run("failover", rpo_seconds=100.0)
    assert site.primary() is new
    record = on_disk(report.record_path)
    missing = writer.missing(new)
    assert len(missing) > 100
    assert record["losses"]["known"]
    assert {item["xid"] for item in record["losses"]["transactions"]} == {written[str(seq)] for seq in missing}
    assert record["losses"]["count"] == record["outcome"]["lost_transactions"] == len(missing)
    assert 0.5 < record["outcome"]["rpo_seconds"] < 100.0
    assert record["outcome"]["rpo_met"]


def test_a_primary_without_its_data_directory_is_fenced(site: EngineSite) -> None:
    """The disk is gone. Nothing can be marked or read there, and nothing can start from it either."""
    old, new = both(site)
    old.kill()
    aside = old.data.with_suffix(".aside")
    old.data.rename(aside)
    try:
        report = site.run("failover")
    finally:
        aside.rename(old.data)
    assert site.primary() is new
    record = on_disk(report.record_path)
    evidence = [proof["evidence"] for proof in record["fence"]["proofs"]]
    assert f"there is no data directory at {old.data} to start from" in evidence
    assert not record["losses"]["known"]


def test_a_primary_with_a_broken_control_file_is_fenced(site: EngineSite) -> None:
    old, new = both(site)
    old.kill()
    (old.data / "global" / "pg_control").write_bytes(b"\0" * 8192)
    report = site.run("failover")
    assert site.primary() is new
    assert (old.data / "standby.signal").exists()
    assert on_disk(report.record_path)["outcome"]["status"] == "done"


def test_a_primary_out_of_reach_blocks_until_there_is_a_proof(site: EngineSite, tmp_path: pathlib.Path) -> None:
    old, new = both(site)
    old.kill()
    new.hears_nobody()
    lines = site.out_of_reach(old.name)
    with pytest.raises(Refused) as caught:
        site.run("failover", lines=lines)
    assert caught.value.reason == "no_fence_proof"
    assert f"Nothing proves that {old.name} is down or cut off" in caught.value.message
    with pytest.raises(Refused, match="ended with 7"):
        site.run("failover", lines=lines, fence_command=("/bin/sh", "-c", "echo no such host; exit 7"))
    assert site.paused() == []
    assert new.role() == "standby"
    proof = tmp_path / "power"
    report = site.run("failover", lines=lines, fence_command=("/usr/bin/tee", str(proof)))
    assert proof.exists()
    assert site.primary() is new
    assert on_disk(report.record_path)["fence"]["method"] == "command"
    assert not on_disk(report.record_path)["losses"]["known"]


def test_a_primary_out_of_reach_that_feeds_its_standby_lives(site: EngineSite) -> None:
    old, new = both(site)
    with site.writing("feeds"), pytest.raises(Refused) as caught:  # a stream without writes is silent for long
        site.run("failover", lines=site.out_of_reach(old.name), fence_command=("/bin/true",))
    assert caught.value.reason == "primary_alive"
    assert f"but {new.name} still receives WAL from it: it lives" in caught.value.message
    assert site.primary() is old


def test_a_host_that_swallows_everything_is_given_up_in_time(site: EngineSite) -> None:
    """Nothing answers and nothing is read, as with ssh to a host that fell off the net: greeting ends on time."""
    old, new = both(site)
    mute = ("/bin/sleep", "60")
    lines = tuple(type(line)(line.host, mute) if line.host == old.name else line for line in site.lines())
    seconds_until(
        lambda: bool(site.run("failover", lines=lines, check_mode=True, greet_seconds=2.0).plan.blocked),
        "the plan",
        seconds=50.0,
    )
    assert site.primary() is old
    assert new.role() == "standby"


def test_one_that_rises_again_before_its_fence_is_left_alone(site: EngineSite) -> None:
    """It was seen down, and something starts it while we prepare."""
    old, _new = both(site)
    old.kill()
    child = site.child("failover", moment="before:hold", accident={"run": start_command(old)})
    result = child.result()
    assert result["reason"] == "primary_alive"
    assert "was down and takes writes again" in result["message"]
    assert site.primary() is old
    assert site.whole()
    site.standbys_stream()


def start_command(database: Database) -> list[str]:
    database.reaped()
    return ["pg_ctlcluster", str(database.instance.version), database.instance.name, "start"]


def test_a_failover_that_fails_after_the_fence_says_what_is_left(site: EngineSite) -> None:
    """The candidate falls too: nobody leads, and the message doesn't call that the state before."""
    old, new = both(site)
    old.kill()
    child = site.child("failover", moment="step:fence", accident={"killall": str(new.data)})
    result = child.result()
    assert f"{old.name} is fenced" in result["state"]
    assert "Nobody takes writes" in result["state"]
    assert site.paused() == []
    site.agents_end()
    new.start()
    assert site.run("failover").changed
    assert site.primary() is new


VICTIMS = [("new", "step:detach_receiver"), ("old", "step:hold_pools"), ("new", "after:promote")]


@pytest.mark.parametrize(("victim", "moment"), VICTIMS)
def test_a_killed_agent_leaves_nobody_waiting(site: EngineSite, victim: str, moment: str) -> None:
    """The coordinator lives: it starts the agent again, and goes on or back."""
    old, new = both(site)
    host = {"old": old.name, "new": new.name}.get(victim, victim)
    old.kill()
    child = site.child("failover", moment=moment, accident={"kill": str(site.folder / host / "etc")})
    child.end()
    assert child.mark.exists()
    site.agents_end()
    assert site.paused() == []
    site.run("failover")
    assert site.primary() is new
    assert site.whole()
    assert not site.run("failover").changed


MOMENTS = ["before:hold", "after:fence", "after:promote", "step:promote", "step:resume_pools"]
PROMOTED = MOMENTS[-3:]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_coordinator_leaves_the_old_state_or_the_new(site: EngineSite, moment: str) -> None:
    old, new = both(site)
    with site.writing("killed-" + moment.replace(":", "-")) as writer:
        old.kill()
        assert site.child("failover", moment=moment).end() == -signal.SIGKILL
        if moment in PROMOTED:
            until(site.whole, "the new primary leads and nobody is held")
        else:
            assert [site.primaries(), new.role()] == [[], "standby"]
        site.run("failover")
        assert site.primary() is new
        assert site.whole()
        writer.goes_on()
    assert not site.run("failover").changed
    site.nothing_temporary()


def test_disk_full_on_the_primary_s_host_keeps_nobody_from_leaving_it(site: EngineSite) -> None:
    """The state directory's file system has no byte left: notes can't be written, the fence holds all the same."""
    old, new = both(site)
    shutil.rmtree(old.state)
    old.state.mkdir()
    with full_disk(old.state):
        old.kill()
        report = site.run("failover")
        site.agents_end()  # theirs is a lock there
    assert site.primary() is new
    assert (old.data / "standby.signal").exists()
    assert on_disk(report.record_path)["outcome"]["status"] == "done"


@contextlib.contextmanager
def full_disk(where: pathlib.Path) -> t.Iterator[None]:
    """A small file system without room at this place."""
    run("mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(where))
    try:
        with contextlib.suppress(OSError), (where / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(b"\0" * 4096)
        yield
    finally:
        run("umount", str(where))


def test_a_records_folder_that_can_t_be_written_is_said_first(site: EngineSite, tmp_path: pathlib.Path) -> None:
    old, new = both(site)
    blocked = tmp_path / "file"
    blocked.write_text("")
    old.kill()
    before = site.fingerprint()
    with pytest.raises(HmsError, match="record"):
        site.run("failover", records_directory=str(blocked / "records"))
    site.agents_end()
    assert site.fingerprint() == before
    assert site.run("failover").changed
    assert site.primary() is new
