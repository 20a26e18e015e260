# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rejoin with real divergence and real damage. psql, sha256 and /proc say what is true."""

from __future__ import annotations

import hashlib
import json
import pathlib
import shutil
import subprocess
import sys

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.tests.real.lab import BINARIES, OS_USER, Lab, process_alive, run, until
from ansible_collections.hms.postgres.tests.real.rejoin_site import Site
from ansible_collections.hms.postgres.tests.real.rejoin_steps import (
    ROOT,
    assert_standby_of,
    diverge,
    diverge_much,
    kept,
    refusal,
    rejoin,
)

pytestmark = pytest.mark.timeout(240)


def test_killed_primary_is_rewound_and_its_losses_are_listed(lab: Lab) -> None:
    site = Site(lab)
    old, new, lost = diverge(site)

    planned = rejoin(old, check_mode=True)
    assert planned.changed
    assert planned.values["case"] == "rewind"
    assert not (old.state / "diverged").exists()
    assert not (old.state / "records").exists()
    assert old.control("Database cluster state") == "in production"

    done = rejoin(old)
    assert done.changed
    assert done.values["lost_transactions"] == len(lost)
    assert_standby_of(old, new)
    assert old.sql("SELECT count(*) FROM patients WHERE name = 'lost'") == "0"
    assert old.sql("SELECT to_regclass('lost_table')") == ""

    folder, dossier = kept(old)
    listed = {item["xid"]: item["relations"] for item in dossier["losses"]["transactions"]}
    assert sorted(listed) == sorted(lost)
    assert all(listed[xid] == ["public.patients"] for xid in lost[:-1])
    assert "public.lost_table" in listed[lost[-1]], "named from the old server's own catalog"
    waldump = [str(BINARIES / "pg_waldump"), "-p", str(folder / "pg_wal"), "-t", "1"]
    start = dossier["fork"]["lsn"]
    assert run(*waldump, "-s", start, check=False).count("COMMIT") == len(lost), "the kept log can be read"

    record = done.values["record"]
    assert record["outcome"]["status"] == "done"
    assert {step["result"] for step in record["steps"]} == {"ok"}
    assert record == json.loads((old.state / "records" / f"{record['id']}.json").read_text())

    again = rejoin(old)
    assert not again.changed
    assert again.values["case"] == "streaming"
    assert not rejoin(old, check_mode=True).changed


def test_clean_handover_needs_no_rewind_and_drops_old_slots(lab: Lab) -> None:
    site = Site(lab)
    old, new = site.members
    old.instance.stop()
    until(lambda: new.sql("SELECT count(*) FROM pg_stat_wal_receiver") == "0", "the receiver has everything")
    new.promote()
    done = rejoin(old)
    assert done.values["case"] == "start"
    assert_standby_of(old, new)
    assert old.sql("SELECT count(*) FROM pg_replication_slots") == "0", "the slot of the new primary held back WAL"
    assert not (old.state / "diverged").exists()


def test_killed_primary_without_any_loss_is_only_started(lab: Lab) -> None:
    site = Site(lab)
    old, new = site.members
    site.await_replay(new, old)
    old.kill()
    new.promote()
    old.fence()
    done = rejoin(old)
    assert done.values["case"] == "start"
    assert done.values["lost_transactions"] is None
    assert_standby_of(old, new)


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_missing_wal_is_refused_and_recloned_only_when_allowed(lab: Lab) -> None:
    site = Site(lab)
    old, new = site.members
    for _round in range(3):
        old.sql("INSERT INTO appointments (patient, note) SELECT 1, repeat('y', 1000) FROM generate_series(1, 5000)")
        old.instance.sql("SELECT pg_switch_wal()")
    old, new, lost = diverge(site)
    fork_file = new.instance.sql("SELECT pg_walfile_name(pg_current_wal_lsn())")[8:]
    gone = [path for path in (old.instance.data / "pg_wal").glob("00000001*") if path.name[8:] < fork_file]
    assert gone
    for path in gone:
        path.unlink()

    refused = refusal(old)
    assert refused.reason == "wal_missing"
    assert "allow_reclone=true" in refused.next_step
    assert not (old.state / "diverged").exists()

    done = rejoin(old, allow_reclone=True)
    assert done.values["case"] == "reclone"
    assert_standby_of(old, new)
    folder, dossier = kept(old)
    assert dossier["losses"]["count"] == len(lost)
    aside = pathlib.Path(done.values["old_data_directory"])
    assert (aside / "PG_VERSION").exists()
    assert folder.exists()


def test_a_primary_that_dropped_its_wal_since_the_fork_is_refused(lab: Lab) -> None:
    """No slot kept it: a rewind would work, but the standby could never catch up."""
    site = Site(lab)
    old, new, _lost = diverge_much(site, slot=False)
    refused = refusal(old)
    assert refused.reason == "source_wal_missing"
    assert old.control("Database cluster state") == "in production"
    assert rejoin(old, allow_reclone=True).values["case"] == "reclone"
    assert_standby_of(old, new)


def test_without_checksums_and_hints_it_is_refused(lab: Lab) -> None:
    site = Site(lab, wal_log_hints="off")
    old, _new, _lost = diverge(site)
    assert refusal(old).reason == "rewind_unprepared"


def test_another_cluster_is_refused(lab: Lab) -> None:
    site = Site(lab)
    old, new = site.members
    old.kill()
    new.promote()
    stranger = lab.primary(start=False)
    shutil.rmtree(old.instance.data)
    shutil.copytree(stranger.data, old.instance.data)
    for path in [old.instance.data, *old.instance.data.rglob("*")]:
        shutil.chown(path, OS_USER, OS_USER)
    refused = refusal(old, allow_reclone=True)
    assert refused.reason == "other_cluster"
    assert "system identifier" in refused.message


def test_two_primaries_are_refused_until_the_operator_allows_the_stop(lab: Lab) -> None:
    site = Site(lab)
    old, new = site.members
    site.await_replay(new, old)
    new.detach()
    new.promote()
    old.sql("INSERT INTO patients VALUES (7000, 'written on the wrong side')")

    refused = refusal(old)
    assert refused.reason == "two_primaries"
    assert old.instance.pid is not None
    planned = rejoin(old, check_mode=True, allow_stop=True)
    assert planned.values["case"] == "second_primary"
    assert old.instance.pid is not None

    done = rejoin(old, allow_stop=True)
    assert done.values["lost_transactions"] == 1
    (transaction,) = done.values["record"]["losses"]["transactions"]
    assert transaction["relations"] == ["public.patients"]
    assert_standby_of(old, new)


def test_the_primary_and_a_headless_cluster_are_refused(lab: Lab) -> None:
    site = Site(lab)
    old, new = site.members
    assert refusal(old).reason == "is_primary"
    new.instance.stop()
    assert refusal(old).reason == "is_primary"
    old.instance.stop()
    refused = refusal(new)
    assert refused.reason == "no_primary"
    assert old.name in refused.message


def test_more_log_on_the_same_timeline_is_refused(lab: Lab) -> None:
    """A primary that was put back to an older state must not get its newer standby overwritten."""
    site = Site(lab)
    old, new = site.members
    older = old.instance.folder / "older"
    old.instance.stop()
    run("cp", "-a", str(old.instance.data), str(older))
    old.instance.start()
    site.await_streaming(new, old)
    old.sql("INSERT INTO patients VALUES (8000, 'newer')")
    site.await_replay(new, old)
    new.instance.stop()
    old.instance.stop()
    shutil.rmtree(old.instance.data)
    older.rename(old.instance.data)
    old.instance.start()
    refused = refusal(new)
    assert refused.reason == "ahead_on_same_timeline"
    assert not new.processes()


def test_a_login_that_fails_is_named_before_anything_changes(lab: Lab) -> None:
    site = Site(lab)
    old, new, _lost = diverge(site)
    new.instance.sql("ALTER ROLE hms_replication PASSWORD 'changed'")
    with pytest.raises(HmsError) as caught:
        rejoin(old)
    assert caught.value.reason == "connection_failed"
    assert "hms_replication" in caught.value.message
    assert "site.yml" in caught.value.next_step
    assert old.control("Database cluster state") == "in production"
    assert not (old.state / "records").exists()


# -- standbys ---------------------------------------------------------------------------------------------------------


def test_a_standby_that_follows_nobody_is_pointed_at_the_primary(lab: Lab) -> None:
    site = Site(lab)
    primary, standby = site.members
    standby.detach()
    done = rejoin(standby)
    assert done.values["case"] == "follow"
    site.await_streaming(standby, primary)
    assert not rejoin(standby).changed


def test_a_running_standby_that_received_more_is_stopped_and_rewound(lab: Lab) -> None:
    """Two standbys; the one that got more is passed over: what it got more must go."""
    site = Site(lab, standbys=2)
    old, new, ahead = site.members
    site.await_replay(new, old)
    new.detach()
    old.sql("INSERT INTO patients VALUES (9000, 'only on one standby')")
    site.await_replay(ahead, old)
    old.kill()
    new.promote()
    assert ahead.sql("SELECT count(*) FROM patients WHERE id = 9000") == "1"
    done = rejoin(ahead)
    assert done.values["lost_transactions"] == 1
    site.await_streaming(ahead, new)
    site.await_replay(ahead, new)
    assert ahead.sql("SELECT count(*) FROM patients WHERE id = 9000") == "0"


def test_a_checkpoint_is_waited_for(lab: Lab) -> None:
    """pg_rewind believes the source's control file, which is old until the first checkpoint."""
    site = Site(lab)
    old, new = site.members
    old.sql("CREATE TABLE bulk AS SELECT n, repeat('bulk', 200) FROM generate_series(1, 12000) n")
    site.await_replay(new, old)
    new.detach()
    old.sql("INSERT INTO patients VALUES (5000, 'lost')")
    old.kill()
    new.instance.promote()  # its own checkpoint is spread over minutes, for there is much to write
    new.instance.sql("GRANT pg_checkpoint TO hms_replication")
    done = rejoin(old)
    assert any(line.startswith("wait for a checkpoint") for line in done.values["plan"])
    assert done.values["lost_transactions"] == 1
    assert_standby_of(old, new)


# -- the playbook -----------------------------------------------------------------------------------------------------


def test_playbook(lab: Lab) -> None:
    site = Site(lab)
    old, new, lost = diverge(site)
    records = lab.folder / "records"
    inventory = site.inventory(lab.folder / "inventory.json", hms_records_dir=str(records))

    def play(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = pathlib.Path(sys.executable).with_name("ansible-playbook")
        argv = [str(program), "-i", str(inventory), "playbooks/rejoin.yml", *arguments]
        return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)

    nobody = play("-e", "host=nobody")
    assert nobody.returncode != 0
    assert "nobody is not a database host" in nobody.stdout + nobody.stderr
    primary = play("-e", f"host={new.name}")
    assert primary.returncode != 0
    assert "is the primary itself" in primary.stdout + primary.stderr

    done = play("-e", f"host={old.name}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_standby_of(old, new)
    assert f"{len(lost)} transactions" in done.stdout
    (record,) = records.glob("*.json")
    assert json.loads(record.read_text())["losses"]["count"] == len(lost)
    assert record.read_bytes() == (old.state / "records" / record.name).read_bytes()
    page = record.with_suffix(".html").read_text()
    assert hashlib.sha256(record.read_bytes()).hexdigest() in page
    again = play("-e", f"host={old.name}")
    assert again.returncode == 0
    assert "changed=0" in again.stdout
    assert "changed=1" not in again.stdout
    assert process_alive(new.instance.pid or 0)
