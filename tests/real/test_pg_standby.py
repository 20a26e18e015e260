# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Standbys made from a real primary; psql and the file system say whether it is true."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import DeadlinePassed, HmsError, Refused
from ansible_collections.hms.postgres.tests.real.gate_relay import GateRelay
from ansible_collections.hms.postgres.tests.real.lab import Lab, process_alive, run, signal_all, until
from ansible_collections.hms.postgres.tests.real.standby_site import GRANTS, Site, beside

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def site(lab: Lab) -> Site:
    """db1 is a primary; db2 and db3 are not there yet."""
    primary = lab.primary()
    primary.sql(GRANTS)
    made = Site(lab, {"db1": primary, "db2": lab.plan(), "db3": lab.plan()})
    made.write()
    return made


def test_a_standby_from_nothing(site: Site) -> None:
    primary, planned = site.members["db1"], site.members["db2"]
    said = site.ensure("db2", "db1", check_mode=True)
    assert said.changed
    assert any("pg_basebackup" in line for line in said.values["plan"])
    assert beside(planned) == []
    assert primary.sql("SELECT count(*) FROM pg_replication_slots") == "0"

    done = site.ensure("db2", "db1")
    assert done.changed
    assert done.values["cloned"]
    assert beside(planned) == ["data"]
    assert (planned.data / "standby.signal").exists()
    assert oct(planned.data.stat().st_mode)[-3:] == "700"
    slots = "SELECT slot_name, active, wal_status FROM pg_replication_slots"
    until(lambda: primary.sql(slots) == "db2|f|reserved", "the copy has let go of the slot")
    assert not site.ensure("db2", "db1").changed, "a second run finds the copy in order, started or not"

    site.adopt("db2")
    streaming = site.ensure("db2", "db1", state="streaming")
    assert not streaming.changed
    assert streaming.values["receiver"]["status"] == "streaming"
    primary.sql("INSERT INTO patients VALUES (1, 'made up')")
    until(lambda: planned.sql("SELECT count(*) FROM patients") == "1", "the row arrives")
    senders = "SELECT application_name, state FROM pg_stat_replication"
    until(lambda: primary.sql(senders) == "db2|streaming", "it has caught up")
    assert not site.ensure("db2", "db1").changed
    assert not site.ensure("db2", "db1", allow_reclone=True).changed, "a word that is not needed changes nothing"


def test_what_belongs_to_the_primary_alone_is_not_copied(site: Site) -> None:
    site.members["db1"].sql("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (\"db2\")'")
    site.members["db1"].sql("ALTER SYSTEM SET work_mem = '5MB'")
    site.ensure("db2", "db1")
    text = (site.members["db2"].data / "postgresql.auto.conf").read_text()
    assert "synchronous_standby_names" not in text
    assert "work_mem = '5MB'" in text


def test_cascading_and_changing_the_upstream(site: Site) -> None:
    site.standby("db2", "db1")
    third = site.standby("db3", "db2")
    assert site.members["db2"].sql("SELECT application_name FROM pg_stat_replication") == "db3"
    changed = site.ensure("db3", "db1", state="streaming")
    assert changed.changed
    assert not changed.values["cloned"]
    primary = site.members["db1"]
    assert primary.sql("SELECT application_name FROM pg_stat_replication ORDER BY 1") == "db2\ndb3"
    assert not site.ensure("db3", "db1").changed
    primary.sql("INSERT INTO patients VALUES (2, 'made up')")
    until(lambda: third.sql("SELECT count(*) FROM patients WHERE id = 2") == "1", "the row arrives")


def test_a_stopped_standby_is_pointed_on_disk(site: Site) -> None:
    standby = site.standby("db2", "db1")
    standby.stop()
    text = (standby.data / "postgresql.auto.conf").read_text()
    (standby.data / "postgresql.auto.conf").write_text(text.replace("primary_slot_name = 'db2'\n", ""))
    assert site.ensure("db2", "db1").changed
    assert "primary_slot_name = 'db2'" in (standby.data / "postgresql.auto.conf").read_text()
    standby.start()
    site.ensure("db2", "db1", state="streaming")


_RUN = """
import sys
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._postgres import connect
from ansible_collections.hms.postgres.plugins.module_utils._provision.standby import Request, Standby
request = Request(config_directory=sys.argv[1], upstream="db1")
Standby(request, connect=connect, runner=SystemRunner(), clock=SystemClock()).ensure(check_mode=False)
"""


def copying_into(folder: pathlib.Path) -> list[int]:
    """Living pg_basebackup processes that name a folder."""
    found = run("pgrep", "-f", f"pg_basebackup .*{folder}", check=False).split()
    return [int(pid) for pid in found if process_alive(int(pid))]


def test_a_killed_copy_never_looks_like_a_data_directory(site: Site) -> None:
    primary, planned = site.members["db1"], site.members["db2"]
    primary.sql("INSERT INTO patients SELECT n, repeat('x', 1000) FROM generate_series(1, 100000) n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    gate = GateRelay(site.lab.port(), primary.port, lambda passed: passed > 30_000_000)
    site.write(db1=gate.port)
    victim = subprocess.Popen([sys.executable, "-c", _RUN, str(site.folder("db2"))], env=environment)
    try:
        until(lambda: gate.held.is_set() or victim.poll() is not None, "the copy is in the middle")
        site.write()
        signal_all(copying_into(planned.folder), signal.SIGSTOP)
        victim.kill()
        victim.wait()
        assert beside(planned)
        assert not planned.data.exists()
        assert copying_into(planned.folder), "the copy hangs, and nobody waits for it"
        done = site.ensure("db2", "db1")
    finally:
        victim.kill()
        signal_all(copying_into(planned.folder), signal.SIGKILL)
        gate.close()
    assert done.values["cloned"]
    assert beside(planned) == ["data"]
    assert copying_into(planned.folder) == []
    site.adopt("db2")
    site.ensure("db2", "db1", state="streaming")


def refused(site: Site, name: str, upstream: str, **options: t.Any) -> str:
    """The reason of a refusal, which has touched nothing."""
    before = beside(site.members[name])
    with pytest.raises(Refused) as caught:
        site.ensure(name, upstream, **options)
    assert beside(site.members[name]) == before
    return caught.value.reason


def test_a_former_primary_is_kept_until_told_otherwise(site: Site) -> None:
    standby = site.standby("db2", "db1")
    old = site.members["db1"]
    old.stop("immediate")
    standby.promote()
    standby.sql(GRANTS.splitlines()[1])
    assert refused(site, "db1", "db2") == "was_primary"
    done = site.ensure("db1", "db2", allow_reclone=True)
    kept = pathlib.Path(done.values["kept_directory"])
    assert kept.parent == old.folder
    assert (kept / "PG_VERSION").exists()
    assert beside(old) == ["data", kept.name]
    old.start()
    site.ensure("db1", "db2", state="streaming")
    assert old.sql("SELECT pg_is_in_recovery()") == "t"


def test_a_running_primary_is_never_replaced(site: Site) -> None:
    other = site.lab.primary()
    site.members["db2"] = other
    site.write()
    assert refused(site, "db2", "db1", allow_reclone=True) == "runs_as_primary"
    other.stop()
    (other.data / "standby.signal").touch()
    assert refused(site, "db2", "db1") == "other_cluster"


def test_a_directory_that_is_not_ours(site: Site) -> None:
    data = site.members["db2"].data
    data.mkdir()
    (data / "precious").write_text("x")
    assert refused(site, "db2", "db1", allow_reclone=True) == "not_a_data_directory"
    assert (data / "precious").read_text() == "x"


def test_a_fenced_host_is_left_alone(site: Site) -> None:
    state = site.members["db2"].folder / "state"
    state.mkdir()
    (state / "fence.json").write_text('{"at": "now", "operation": "x"}')
    assert refused(site, "db2", "db1") == "fenced"


def test_a_standby_whose_wal_is_gone(site: Site) -> None:
    primary, standby = site.members["db1"], site.standby("db2", "db1")
    standby.stop()
    primary.set(max_slot_wal_keep_size="1MB", wal_keep_size="0", max_wal_size="32MB", min_wal_size="32MB")
    for _round in range(4):
        primary.sql("SELECT pg_logical_emit_message(true, 'x', repeat('y', 1000)); SELECT pg_switch_wal()")
    primary.sql("CHECKPOINT")
    assert primary.sql("SELECT wal_status FROM pg_replication_slots") == "lost"
    standby.start()
    assert refused(site, "db2", "db1") == "wal_lost"
    primary.set(max_slot_wal_keep_size="-1")
    done = site.ensure("db2", "db1", allow_reclone=True)
    assert done.values["kept_directory"]
    standby.start()
    site.ensure("db2", "db1", state="streaming")


def test_no_room(site: Site) -> None:
    planned = site.members["db2"]
    small = planned.folder / "small"
    small.mkdir()
    if "denied" in run("mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(small), check=False):
        pytest.skip("this machine may not mount")
    try:
        raw = json.loads((site.folder("db2") / "member.json").read_text())
        raw["postgresql"]["data_directory"] = str(small / "data")
        (site.folder("db2") / "member.json").write_text(json.dumps(raw))
        assert refused(site, "db2", "db1") == "disk_full"
        assert list(small.iterdir()) == []
        raw["postgresql"]["data_directory"] = str(small)
        (site.folder("db2") / "member.json").write_text(json.dumps(raw))
        assert refused(site, "db2", "db1") == "mount_point"
    finally:
        run("umount", str(small))


def test_an_upstream_that_does_not_answer(site: Site) -> None:
    site.members["db1"].stop()
    with pytest.raises(HmsError) as caught:
        site.ensure("db2", "db1")
    assert "pg_hba.conf" in caught.value.next_step
    assert site.ensure("db2", "db1", check_mode=True).changed
    assert beside(site.members["db2"]) == []


def test_waiting_has_an_end(site: Site) -> None:
    standby = site.standby("db2", "db1")
    (site.members["db1"].config / "pg_hba.conf").write_text(
        "local all postgres peer\nhost postgres hms_replication 127.0.0.1/32 scram-sha-256\n"
    )
    site.members["db1"].sql("SELECT pg_reload_conf()")
    standby.stop()
    standby.start()
    with pytest.raises(DeadlinePassed) as caught:
        site.ensure("db2", "db1", state="streaming", stream_timeout=2.0)
    assert caught.value.reason == "not_streaming"


def test_two_at_once(site: Site) -> None:
    import fcntl

    state = site.members["db2"].folder / "state"
    state.mkdir()
    with open(state / "standby.lock", "w", encoding="utf-8") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write('{"pid": 4711}')
        held.flush()
        assert refused(site, "db2", "db1") == "locked"
