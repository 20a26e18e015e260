# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sync guard as it runs on a host, the packed runner in a process of its own, against real servers.

psql, and the clients' own waiting, say what happened.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import pathlib
import signal
import subprocess
import time
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster import facts, member_config
from ansible_collections.hms.postgres.plugins.module_utils._cluster.exposure import ExposureFile, Mark
from ansible_collections.hms.postgres.plugins.module_utils._cluster.member_config import DatabaseHost
from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import MemberFacts
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._files import HeldLock
from ansible_collections.hms.postgres.plugins.plugin_utils import _bundle
from ansible_collections.hms.postgres.tests.real.engine_site import EngineSite
from ansible_collections.hms.postgres.tests.real.lab import Lab, as_postgres, signal_all, until
from ansible_collections.hms.postgres.tests.real.rejoin_site import DATABASE, Member, Site
from ansible_collections.hms.postgres.tests.real.rejoin_steps import rejoin

pytestmark = pytest.mark.timeout(300)

PYTHON = "/usr/bin/python3"
AFTER = 3
"""Seconds that commits wait in these tests."""

HELD = AFTER + 4
"""Seconds after which a guard that may act would have acted."""

LONG_AFTER = 15
"""Seconds that commits wait where a server is stopped and started again meanwhile."""


class Guard:
    """The service of one host."""

    def __init__(self, member: Member, runner: pathlib.Path) -> None:
        self._member = member
        self._journal = member.state / "journal"
        argv = [PYTHON, str(runner), "sync-guard", "--config", str(member.config)]
        with self._journal.open("ab") as target:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=target, cwd="/")

    def said(self) -> str:
        return self._journal.read_text()

    def marks(self) -> list[dict[str, t.Any]]:
        path = self._member.state / "exposure.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def events(self) -> list[str]:
        return [mark["event"] for mark in self.marks()]

    @contextlib.contextmanager
    def asleep(self) -> t.Iterator[None]:
        """Meanwhile it sees and does nothing."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30.0)


class Ward:
    """A primary and a standby under the policy degrade, and the guards that were started."""

    def __init__(self, lab: Lab, folder: pathlib.Path) -> None:
        self._runner = folder / "hms-postgres.pyz"
        self._runner.write_bytes(_bundle.build())
        self._guards: list[Guard] = []
        self._clients = itertools.count(1)
        self.site = Site(lab, standbys=1, wal_sender_timeout="600s", wal_keep_size="64MB")
        self.primary, self.standby = self.site.members
        self.policy("degrade")
        self.primary.instance.set(synchronous_standby_names=self.names)
        until(lambda: self.write() == "written", "commits are confirmed")

    @property
    def names(self) -> str:
        """What the policy wants on the first primary."""
        return f'ANY 1 ("{self.standby.name}")'

    def policy(self, policy: str, *, after: int = AFTER) -> None:
        for member in self.site.members:
            self.site.write_member(member, sync_policy=policy, degrade_after_seconds=after)

    def guard(self, member: Member) -> Guard:
        made = Guard(member, self._runner)
        self._guards.append(made)
        until(lambda: made.said() != "", "the guard says what it sees")
        return made

    def replace_runner(self) -> None:
        other = self._runner.with_suffix(".new")
        other.write_bytes(self._runner.read_bytes())
        other.replace(self._runner)

    def once(self, member: Member) -> dict[str, t.Any]:
        argv = [PYTHON, str(self._runner), "sync-guard", "--config", str(member.config), "--once"]
        done = subprocess.run(argv, check=True, capture_output=True, timeout=60, cwd="/")
        said: dict[str, t.Any] = json.loads(done.stdout)
        return said

    def setting(self, member: Member | None = None) -> str:
        return (member or self.primary).instance.sql("SHOW synchronous_standby_names")

    def write(self, member: Member | None = None) -> str:
        """Whether a client that writes gets its answer, or waits for a standby; PostgreSQL itself ends its waiting."""
        name = f"client {next(self._clients)}"
        client = self.client(member, name)
        waiting = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}' AND wait_event = 'SyncRep'"

        def waits() -> bool:
            """For a second: each commit waits a moment for the standby that confirms it."""
            begun = time.monotonic()
            while (member or self.primary).instance.sql(waiting) == "1":
                if time.monotonic() - begun > 1.0:
                    return True
            return False

        try:
            until(lambda: client.poll() is not None or waits(), "the client is answered, or waits")
            return {None: "waits", 0: "written"}.get(client.poll(), "failed")
        finally:
            client.kill()
            client.wait()

    def client(self, member: Member | None = None, name: str = "client") -> subprocess.Popen[bytes]:
        """A client whose write may wait."""
        instance = (member or self.primary).instance
        sql = "INSERT INTO appointments (patient, note) VALUES (1, 'urgent')"
        argv = ["runuser", "-u", "postgres", "--", "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", sql]
        where = f"host={instance.sockets} port={instance.port} dbname={DATABASE} application_name='{name}'"
        argv.append(where)
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, cwd="/", stderr=subprocess.DEVNULL)

    def announce(self, change: str) -> None:
        """Change the bulletin. A setting that nobody has defined must exist in the session that does."""
        where = ("-h", str(self.primary.instance.sockets), "-p", str(self.primary.instance.port))
        options = {"PGOPTIONS": "-c hms.operation="}
        as_postgres("psql", "-XqAt", *where, "-c", f"ALTER SYSTEM {change}", "postgres", env=options)
        self.primary.instance.sql("SELECT pg_reload_conf()")

    def facts(self, member: Member) -> MemberFacts:
        host = member_config.load(str(member.config))
        assert isinstance(host, DatabaseHost)
        return facts.observe(host, runner=SystemRunner())

    def close(self) -> None:
        for guard in self._guards:
            guard.stop()


@pytest.fixture
def ward(lab: Lab, tmp_path: pathlib.Path) -> t.Iterator[Ward]:
    """A ward for one test."""
    with contextlib.closing(Ward(lab, tmp_path)) as made:
        yield made


def test_writes_wait_then_go_on_then_are_held_again(ward: Ward) -> None:
    guard = ward.guard(ward.primary)
    assert ward.once(ward.primary)["action"] == "none"

    with guard.asleep():  # until it is certain that writes wait
        ward.standby.instance.stop()
        client = ward.client()
        assert ward.write() == "waits"
        begun = time.monotonic()
    assert client.wait(60.0) == 0, "the write that waited goes through"
    assert time.monotonic() - begun > AFTER - 0.5
    assert ward.setting() == ""
    assert "synchronous_standby_names = ''" in (ward.primary.instance.data / "postgresql.auto.conf").read_text()
    until(lambda: "DEGRADED" in guard.said(), "it says so")
    assert ward.write() == "written"
    assert guard.events() == ["started"]
    assert (ward.primary.state / "exposure.jsonl").stat().st_mode & 0o777 == 0o600
    assert ward.facts(ward.primary).exposed_since == guard.marks()[0]["at"]

    # a host that dies now comes back exposed, and its guard goes on where it was
    pids = ward.primary.processes()
    ward.primary.instance.kill()
    until(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids), "all of it is gone")
    ward.primary.instance.start()
    time.sleep(2.5)
    assert guard.process.poll() is None
    assert guard.events() == ["started"]

    ward.standby.instance.start()
    until(lambda: ward.setting() == ward.names, "commits wait for the standby again")
    until(lambda: guard.events() == ["started", "ended"], "the interval ends")
    assert ward.write() == "written"
    started, ended = guard.marks()
    order = f"SELECT pg_lsn '{started['confirmed_lsn']}' <= pg_lsn '{started['lsn']}' AND pg_lsn '{started['lsn']}'"
    assert ward.primary.instance.sql(f"{order} < pg_lsn '{ended['lsn']}'") == "t"
    assert ward.standby.instance.sql(f"SELECT pg_last_wal_receive_lsn() >= pg_lsn '{ended['lsn']}'") == "t"
    assert ward.facts(ward.primary).exposed_since == ""


def test_a_standby_that_hangs_is_let_go_long_before_its_connection_times_out(ward: Ward) -> None:
    guard = ward.guard(ward.primary)
    pids = ward.standby.processes()
    signal_all(pids, signal.SIGSTOP)
    try:
        with guard.asleep():
            assert ward.write() == "waits"
        streaming = f"SELECT state FROM pg_stat_replication WHERE application_name = '{ward.standby.name}'"
        until(lambda: ward.write() == "written", "writes go on")
        assert ward.primary.instance.sql(streaming) == "streaming", "as far as the server knows"
    finally:
        signal_all(pids, signal.SIGCONT)
    until(lambda: guard.events() == ["started", "ended"], "the interval ends")
    assert ward.setting() == ward.names


def test_a_short_absence_is_waited_out(ward: Ward) -> None:
    ward.policy("degrade", after=LONG_AFTER)
    guard = ward.guard(ward.primary)
    begun = time.monotonic()
    ward.standby.instance.stop()
    client = ward.client()
    until(lambda: "Commits wait for at most" in guard.said(), "it has seen that the standby is gone")
    ward.standby.instance.start()
    assert client.wait(60.0) == 0
    time.sleep(max(0.0, begun + LONG_AFTER + 2.0 - time.monotonic()))
    assert guard.events() == []
    assert ward.setting() == ward.names


def test_while_an_operation_works_it_keeps_its_hands_off(ward: Ward) -> None:
    guard = ward.guard(ward.primary)
    lock = HeldLock(str(ward.primary.state / "operation.lock"))
    assert lock.acquire({"id": "20260101T000000Z-switchover-0000", "by": "the test"}) is None
    ward.standby.instance.stop()
    time.sleep(HELD)
    assert (ward.setting(), guard.events()) == (ward.names, [])
    until(lambda: "switchover-0000" in guard.said(), "it says why")

    # the lock goes with its holder; what the bulletin announces goes on
    ward.announce("SET hms.operation = '20260101T000000Z-x-0000:armed'")
    lock.release()
    time.sleep(HELD)
    assert (ward.setting(), guard.events()) == (ward.names, [])

    ward.announce("RESET hms.operation")
    until(lambda: ward.setting() == "", "it acts")
    assert guard.events() == ["started"]


@pytest.mark.parametrize("policy", ["strict", "async"])
def test_under_another_policy_it_never_acts(ward: Ward, policy: str) -> None:
    ward.policy(policy)
    guard = ward.guard(ward.primary)
    ward.standby.instance.stop()
    time.sleep(HELD)
    assert (ward.setting(), guard.events()) == (ward.names, [])
    assert ward.write() == "waits"


def test_the_primary_changes_and_each_guard_goes_on(ward: Ward) -> None:
    old, new = ward.primary, ward.standby
    guards = {member: ward.guard(member) for member in (old, new)}
    new.detach()
    until(lambda: ward.setting() == "", "the old primary is let go")
    assert guards[new].events() == [], "a standby does nothing"

    # a failover that leaves no standby leaves the setting empty; the guard of the new primary writes that down
    old.instance.stop()
    new.promote()
    until(lambda: guards[new].events() == ["started"], "the new primary's exposure is written down")
    assert "found empty" in guards[new].marks()[0]["reason"]
    assert ward.write(new) == "written"

    assert rejoin(old).changed
    until(lambda: ward.setting(new) == f'ANY 1 ("{old.name}")', "commits wait for the old primary")
    until(lambda: guards[new].events() == ["started", "ended"], "its interval ends")
    until(lambda: guards[old].events() == ["started", "ended"], "the old primary's interval ends")
    assert guards[old].marks()[-1]["reason"] == "it is no primary any more"
    assert ward.write(new) == "written"


def test_a_replaced_runner_ends_for_the_new_one(ward: Ward) -> None:
    guard = ward.guard(ward.primary)
    ward.replace_runner()
    assert guard.process.wait(60.0) == 0
    assert "replaced" in guard.said()


def test_a_failover_says_that_nothing_is_waited_for_and_believes_the_interval(lab: Lab) -> None:
    site = EngineSite(lab, policy="degrade")
    try:
        db1, db2 = site.databases["db1"], site.databases["db2"]
        db2.instance.set(primary_conninfo="")
        until(lambda: db1.sql("SELECT count(*) FROM pg_stat_replication") == "0", "nobody streams")
        # commits wait again by the setting, but it is not proven yet that a standby has what was written alone
        ExposureFile(str(db1.state)).append(Mark("started", "2026-01-01T00:00:00.000Z", 1, "the test"))
        db1.sql("SET synchronous_commit = local; INSERT INTO ledger VALUES ('alone', 1)")
        db1.kill()
        record = site.run("failover").record
        assert record is not None
        assert "waited for" not in record["losses"]["basis"]
        assert record["losses"]["count"] == 1, "it may have been acknowledged"
        assert record["exposure"]["host"] == "db2"
        assert record["exposure"]["message"] in record["outcome"]["next_steps"]
        assert db2.setting("synchronous_standby_names") == ""
    finally:
        site.close()
