# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rejoin with real divergence, real kills and real damage. psql, sha256 and /proc say what is true."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._cluster.rejoin import Rejoin, Request
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._module import Result
from ansible_collections.hms.postgres.tests.real.lab import BINARIES, OS_USER, Lab, process_alive, run, until
from ansible_collections.hms.postgres.tests.real.rejoin_site import Member, Site

ROOT = pathlib.Path(__file__).resolve().parents[2]


def rejoin(member: Member, *, check_mode: bool = False, **allowed: bool) -> Result:
    """Run the whole thing on one member."""
    request = Request(str(member.config), by="test", **allowed)
    return Rejoin(request, runner=SystemRunner(), clock=SystemClock()).ensure(check_mode=check_mode)


def refusal(member: Member, **allowed: bool) -> Refused:
    """It must be refused."""
    with pytest.raises(Refused) as caught:
        rejoin(member, **allowed)
    return caught.value


def diverge(site: Site, *, slot: bool = True) -> tuple[Member, Member, list[str]]:
    """An asynchronous primary commits what its standby never gets, dies, and the standby is promoted."""
    old, new = site.members[:2]
    site.await_replay(new, old)
    if slot:  # as a failover does while it arms the candidate
        new.sql(f"SELECT pg_create_physical_replication_slot('{old.name}', true)")
    new.detach()
    lost = [
        old.sql(f"BEGIN; INSERT INTO patients VALUES ({5000 + n}, 'lost'); SELECT pg_current_xact_id(); COMMIT")
        for n in range(20)
    ]
    lost.append(old.sql("BEGIN; CREATE TABLE lost_table AS SELECT 1 id; SELECT pg_current_xact_id(); COMMIT"))
    old.kill()
    new.promote()
    new.sql("INSERT INTO patients VALUES (6000, 'after the failover')")
    old.fence()
    return old, new, lost


def assert_standby_of(old: Member, new: Member) -> None:
    """What done means, by psql on both sides."""
    assert old.sql("SELECT pg_is_in_recovery()") == "t"
    assert new.sql("SELECT pg_is_in_recovery()") == "f"
    receiver = old.sql("SELECT status, sender_port, slot_name FROM pg_stat_wal_receiver")
    assert receiver == f"streaming|{new.instance.port}|{old.name}"
    assert new.sql(f"SELECT active FROM pg_replication_slots WHERE slot_name = '{old.name}'") == "t"
    new.sql("CREATE TABLE IF NOT EXISTS marks (at timestamptz); INSERT INTO marks SELECT clock_timestamp()")
    Site.await_replay(old, new)
    content = "SELECT md5(string_agg(p::text, ',' ORDER BY id)) FROM patients p"
    assert old.sql(content) == new.sql(content)
    assert old.sql("SELECT count(*) FROM marks") == new.sql("SELECT count(*) FROM marks")
    assert not (old.state / "fence.json").exists()
    assert not (old.state / "rewind.in_progress").exists()
    assert (old.instance.config / "start.conf").read_text().split()[-1] == "manual"
    assert (old.instance.data / "standby.signal").exists()


def kept(old: Member) -> tuple[pathlib.Path, dict[str, t.Any]]:
    """The one folder of kept WAL, verified by our own SHA-256."""
    (folder,) = (old.state / "diverged").iterdir()
    dossier = json.loads((folder / "dossier.json").read_text())
    assert (folder / "dossier.json").stat().st_mode & 0o777 == 0o600
    for item in dossier["files"]:
        data = (folder / item["name"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (item["bytes"], item["sha256"])
    return folder, dossier


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


# -- kills ------------------------------------------------------------------------------------------------------------


def _rewind_process(old: Member) -> int | None:
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else [b""]
            if os.path.basename(words[0]) == b"pg_rewind" and str(old.instance.data).encode() in words:
                return int(entry.name)
    return None


def _in_background(member: Member) -> subprocess.Popen[str]:
    code = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(ROOT / ".collections")!r})
        from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
        from ansible_collections.hms.postgres.plugins.module_utils._cluster.rejoin import Rejoin, Request
        from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
        Rejoin(Request({str(member.config)!r}), runner=SystemRunner(), clock=SystemClock()).ensure(check_mode=False)
        """
    )
    return subprocess.Popen([sys.executable, "-c", code], text=True, stderr=subprocess.PIPE, cwd="/")


def _stop_rewind_midway(old: Member, running: subprocess.Popen[str]) -> int:
    """SIGSTOP pg_rewind once it has begun to change the big table and not yet pg_control; its pid."""
    bulk = old.instance.data / (old.instance.folder / "bulk").read_text()
    size = bulk.stat().st_size
    while running.poll() is None:
        pid = _rewind_process(old)
        if pid is None:
            continue
        control = (old.instance.data / "global" / "pg_control").read_bytes()
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.kill(pid, signal.SIGSTOP)
                if bulk.stat().st_size > size:
                    assert (old.instance.data / "global" / "pg_control").read_bytes() == control, "it was too quick"
                    return pid
                os.kill(pid, signal.SIGCONT)
                time.sleep(0.0005)
    raise AssertionError(f"pg_rewind was not met at work: {running.communicate()}")


def _diverge_much(site: Site, *, slot: bool = True) -> tuple[Member, Member, list[str]]:
    """Divergence with much to copy, so that there is a middle."""
    primary = site.members[0]
    primary.sql("CREATE TABLE bulk AS SELECT n, repeat('bulk', 200) AS filler FROM generate_series(1, 100000) n")
    path = primary.sql("SELECT pg_relation_filepath('bulk')")
    (primary.instance.folder / "bulk").write_text(path)
    primary.instance.sql("CHECKPOINT")
    old, new, lost = diverge(site, slot=slot)
    new.sql("UPDATE bulk SET filler = repeat('new!', 200)")
    new.instance.sql("CHECKPOINT")
    return old, new, lost


def test_pg_rewind_killed_midway_is_repeated(lab: Lab) -> None:
    site = Site(lab)
    old, new, lost = _diverge_much(site)
    running = _in_background(old)
    pid = _stop_rewind_midway(old, running)
    os.kill(pid, signal.SIGKILL)
    _out, errors = running.communicate(timeout=60)
    assert running.returncode != 0
    assert "killed by signal 9" in errors
    assert (old.state / "rewind.in_progress").exists()
    assert (old.instance.config / "start.conf").read_text().strip() == "disabled", "nobody may start half of a rewind"

    assert rejoin(old, check_mode=True).values["case"] == "resume"
    done = rejoin(old)
    assert done.values["case"] == "resume"
    assert done.values["lost_transactions"] == len(lost)
    assert_standby_of(old, new)
    bulk = "SELECT count(*), md5(string_agg(b::text, ',' ORDER BY n)) FROM bulk b"
    assert old.sql(bulk) == new.sql(bulk)
    old.instance.stop()
    old.instance.start()
    checked = run("runuser", "-u", OS_USER, "--", str(BINARIES / "pg_amcheck"), "-a", "--install-missing",
                  "-h", str(new.instance.sockets), "-p", str(new.instance.port), check=False)  # fmt: skip
    assert "error" not in checked.lower()


def test_the_whole_run_killed_midway_leaves_pg_rewind_to_end_and_is_finished(lab: Lab) -> None:
    """kill -9 of our own program: pg_rewind goes on alone; the next run waits for it."""
    site = Site(lab)
    old, new, lost = _diverge_much(site)
    running = _in_background(old)
    pid = _stop_rewind_midway(old, running)
    running.kill()
    running.communicate(timeout=20)
    assert rejoin(old, check_mode=True).values["case"] == "rewind_running"
    os.kill(pid, signal.SIGCONT)
    done = rejoin(old)
    assert done.values["case"] in ("rewound", "resume")
    assert done.values["lost_transactions"] == len(lost)
    assert_standby_of(old, new)


@pytest.mark.parametrize("step", ["recover", "keep_wal", "rewind", "configure", "unfence", "start"])
def test_killed_after_any_step_it_is_finished_by_the_next_run(lab: Lab, step: str) -> None:
    """The program is killed when the named step begins."""
    site = Site(lab)
    old, new, lost = diverge(site)
    code = textwrap.dedent(
        f"""
        import os, signal, sys
        sys.path.insert(0, {str(ROOT / ".collections")!r})
        from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
        from ansible_collections.hms.postgres.plugins.module_utils._cluster.rejoin import Rejoin, Request
        from ansible_collections.hms.postgres.plugins.module_utils._cluster.rejoin_apply import RejoinApplier
        from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
        do = RejoinApplier.do
        def killing(self, action, facts):
            result = do(self, action, facts)
            if action.id == {step!r}:
                os.kill(os.getpid(), signal.SIGKILL)
            return result
        RejoinApplier.do = killing
        Rejoin(Request({str(old.config)!r}), runner=SystemRunner(), clock=SystemClock()).ensure(check_mode=False)
        """
    )
    killed = subprocess.run([sys.executable, "-c", code], check=False, timeout=120, cwd="/")
    assert killed.returncode == -signal.SIGKILL
    if step == "start":
        until(lambda: old.instance.pid is not None, "the server comes up")
        until(lambda: "accepting" in run(str(BINARIES / "pg_isready"), "-h", str(old.instance.sockets), "-p",
                                         str(old.instance.port), check=False), "it answers")  # fmt: skip
    else:
        assert not old.processes()
        assert (old.instance.data / "standby.signal").exists() or step == "rewind"
    rejoin(old)
    assert_standby_of(old, new)
    dossiers = [json.loads(path.read_text()) for path in (old.state / "diverged").glob("*/dossier.json")]
    assert dossiers
    assert all(item["losses"]["count"] == len(lost) for item in dossiers)


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
    old, new, _lost = _diverge_much(site, slot=False)
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
        return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)

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
