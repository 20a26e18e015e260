# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PgBouncer's processes as the role's modules run them; psql on each console says whether it is true."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._module import Result
from ansible_collections.hms.postgres.plugins.module_utils._postgres import connect
from ansible_collections.hms.postgres.plugins.module_utils._provision.pooler_databases import PoolerDatabases
from ansible_collections.hms.postgres.plugins.module_utils._provision.pooler_ping import PoolerPing
from ansible_collections.hms.postgres.plugins.module_utils._provision.pooler_processes import PoolerProcesses, Request
from ansible_collections.hms.postgres.tests.real.lab import (
    OS_USER,
    Instance,
    Lab,
    Pooler,
    as_postgres,
    process_alive,
    signal_all,
    until,
)

PASSWORD = "monitor of the lab"
NAMES = ("1", "2")

pytestmark = pytest.mark.skipif(os.path.isdir("/run/systemd/system"), reason="with systemd the molecule lab tests this")


@dataclasses.dataclass
class Bouncers:
    """Two processes on one port, in front of two instances."""

    lab: Lab
    members: dict[str, Instance]
    port: int
    settings: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def folder(self) -> pathlib.Path:
        """The configuration directory."""
        return self.lab.folder / "bouncer"

    @property
    def userlist(self) -> pathlib.Path:
        """The passwords."""
        return self.folder / "userlist.txt"

    def socket(self, name: str) -> pathlib.Path:
        """The directory of one process's socket."""
        return self.folder / "run" / name

    def pid(self, name: str) -> int | None:
        """The living process."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            pid = int((self.socket(name) / "pid").read_text())
            return pid if process_alive(pid) else None
        return None

    def write(self) -> None:
        """Write the files as the role's templates do."""
        self.folder.mkdir(exist_ok=True)
        for name in NAMES:
            self.socket(name).mkdir(parents=True, exist_ok=True)
            shutil.chown(self.socket(name), OS_USER, OS_USER)
            self._private(
                self.folder / f"pgbouncer-{name}.ini",
                f"[pgbouncer]\nunix_socket_dir = {self.socket(name)}\nunix_socket_mode = 0700\n"
                f"pidfile = {self.socket(name)}/pid\nlogfile = {self.socket(name)}/log\n"
                f"%include {self.folder}/common.ini\n%include {self.folder}/databases.ini\n",
            )
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "so_reuseport": "1",
            "pool_mode": "transaction",
            "auth_type": "scram-sha-256",
            "auth_file": str(self.userlist),
            "server_login_retry": "1",
            **self.settings,
        }
        text = "".join(f"{name} = {value}\n" for name, value in settings.items())
        self._private(self.folder / "common.ini", text)
        if not self.userlist.exists():
            self._private(self.userlist, f'"hms_monitor" "{PASSWORD}"\n')
        self._private(self.folder / "monitor.pgpass", f"*:*:*:hms_monitor:{PASSWORD}\n")
        (self.folder / "member.json").write_text(json.dumps(self._member()))

    def _private(self, path: pathlib.Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o600)
        shutil.chown(path, OS_USER, OS_USER)

    def _member(self) -> dict[str, t.Any]:
        return {
            "kind": "bouncer",
            "name": "bouncer1",
            "cluster": "lab",
            "environment": "demo",
            "address": "127.0.0.1",
            "state_directory": str(self.folder / "state"),
            "database": "postgres",
            "os_user": OS_USER,
            "port": self.port,
            "listen_address_local": "127.0.0.1",
            "client_sslmode": "disable",
            "databases_file": str(self.folder / "databases.ini"),
            "databases": [{"name": "hospital", "dbname": "postgres"}],
            "processes": [
                {
                    "name": name,
                    "socket_directory": str(self.socket(name)),
                    "config_file": str(self.folder / f"pgbouncer-{name}.ini"),
                    "pidfile": str(self.socket(name) / "pid"),
                }
                for name in NAMES
            ],
            "monitor": {"user": "hms_monitor", "passfile": str(self.folder / "monitor.pgpass"), "sslmode": "prefer"},
            "members": [
                {"name": name, "address": "127.0.0.1", "port": made.port} for name, made in self.members.items()
            ],
        }

    def console(self, name: str, command: str) -> str:
        """What one process's console answers to psql."""
        return Pooler(self.port, self.socket(name)).console(command)

    def target(self, name: str) -> int:
        """The port that clients of one process come out at."""
        row = next(row for row in self.console(name, "SHOW DATABASES").splitlines() if row.startswith("hospital|"))
        return int(row.split("|")[2])

    def lead(self, primary: str, *, check_mode: bool = False) -> Result:
        """Call what pgbouncer_databases calls."""
        return PoolerDatabases(str(self.folder)).ensure(primary=primary, check_mode=check_mode)

    def ensure(self, *, state: str = "started", restart: str = "never", check_mode: bool = False) -> Result:
        """Call what pgbouncer_processes calls."""
        request = Request(
            config_directory=str(self.folder),
            service="hms-pgbouncer",
            files=(str(self.userlist),),
            state=state,
            restart=restart,
        )
        return PoolerProcesses(request, runner=SystemRunner(), clock=SystemClock()).ensure(check_mode=check_mode)

    def ping(self) -> list[dict[str, t.Any]]:
        """Call what pgbouncer_ping calls."""
        found = PoolerPing(str(self.folder), connect=connect, clock=SystemClock()).check(check_mode=False)
        return t.cast("list[dict[str, t.Any]]", found.values["ways"])


@contextlib.contextmanager
def running(lab: Lab, *, with_standby: bool) -> t.Iterator[Bouncers]:
    """Two processes that run and lead to db1; db2 is its standby, or is not there yet."""
    primary = lab.primary()
    primary.sql(f"CREATE ROLE hms_monitor LOGIN PASSWORD '{PASSWORD}'")
    second = lab.standby(primary) if with_standby else lab.plan()
    made = Bouncers(lab, {"db1": primary, "db2": second}, lab.port())
    made.write()
    try:
        made.lead("db1")
        made.ensure()
        yield made
    finally:
        signal_all([pid for pid in map(made.pid, NAMES) if pid is not None], signal.SIGKILL)


@pytest.fixture
def bouncers(lab: Lab) -> t.Iterator[Bouncers]:
    """In front of a primary alone."""
    with running(lab, with_standby=False) as made:
        yield made


@pytest.fixture
def site(lab: Lab) -> t.Iterator[Bouncers]:
    """In front of a primary and a standby."""
    with running(lab, with_standby=True) as made:
        yield made


def test_two_processes_on_one_port(bouncers: Bouncers) -> None:
    assert bouncers.pid("1") != bouncers.pid("2")
    assert [bouncers.target(name) for name in NAMES] == [bouncers.members["db1"].port] * 2
    ways = bouncers.ping()
    assert [way["way"] for way in ways] == ["process 1", "process 2", "TLS"]
    assert {way["server"] for way in ways} == {f"127.0.0.1:{bouncers.members['db1'].port}"}
    assert not bouncers.ensure().changed
    assert not bouncers.lead("db1").changed
    listed = as_postgres("psql", "-h", str(bouncers.socket("1")), "-p", str(bouncers.port), "-l", "x", check=False)
    assert "no password supplied" in listed, "the socket is no way around the passwords"


def test_a_process_that_died_is_started_again(bouncers: Bouncers) -> None:
    pid, other = bouncers.pid("2"), bouncers.pid("1")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: bouncers.pid("2") is None, "it is dead")
    said = bouncers.ensure(check_mode=True)
    assert said.values["plan"] == ["start process 2 (it is wanted running and is down)"]
    assert bouncers.pid("2") is None
    assert bouncers.ensure().values["plan"] == said.values["plan"]
    assert bouncers.pid("2")
    assert bouncers.pid("1") == other
    bouncers.ping()


def test_what_changed_on_disk_is_read_and_nobody_is_disturbed(bouncers: Bouncers) -> None:
    pids = [bouncers.pid(name) for name in NAMES]
    bouncers.settings = {"query_wait_timeout": "33"}
    bouncers.write()
    assert all("query_wait_timeout" in line for line in bouncers.ensure().values["plan"])
    assert "query_wait_timeout|33|" in bouncers.console("2", "SHOW CONFIG")
    bouncers.userlist.write_text(bouncers.userlist.read_text() + '"somebody" "else"\n')
    assert all("userlist.txt changed" in line for line in bouncers.ensure().values["plan"])
    assert "somebody" in bouncers.console("1", "SHOW USERS")
    assert not bouncers.ensure().changed
    assert [bouncers.pid(name) for name in NAMES] == pids


def test_what_only_a_restart_can_change_is_said(bouncers: Bouncers) -> None:
    pids = [bouncers.pid(name) for name in NAMES]
    bouncers.settings = {"listen_backlog": "99"}
    bouncers.write()
    said = bouncers.ensure()
    assert not said.changed
    assert said.values["pending_restart"] == {name: ["listen_backlog"] for name in NAMES}
    assert "listen_backlog" in said.warnings[0]
    assert [bouncers.pid(name) for name in NAMES] == pids
    assert bouncers.ensure(restart="allowed").changed
    assert "listen_backlog|99|" in bouncers.console("1", "SHOW CONFIG")
    assert not set(pids) & {bouncers.pid(name) for name in NAMES}
    assert not bouncers.ensure(restart="allowed").changed


def test_a_value_that_pgbouncer_does_not_take(bouncers: Bouncers) -> None:
    bouncers.settings = {"pool_mode": "nonsense"}
    bouncers.write()
    with pytest.raises(HmsError) as caught:
        bouncers.ensure()
    assert "pool_mode" in caught.value.message
    assert bouncers.ping()


def test_a_standby_is_no_target(site: Bouncers) -> None:
    before = (site.folder / "databases.ini").read_text()
    with pytest.raises(Refused) as caught:
        site.lead("db2")
    assert caught.value.reason == "target_is_standby"
    site.members["db2"].stop()
    with pytest.raises(Refused) as caught:
        site.lead("db2")
    assert caught.value.reason == "target_unreachable"
    assert (site.folder / "databases.ini").read_text() == before
    assert site.target("1") == site.members["db1"].port


def test_the_cluster_changed_its_primary(site: Bouncers) -> None:
    old, new = site.members["db1"], site.members["db2"]
    old.stop()
    new.promote()
    said = site.lead("db2", check_mode=True)
    assert said.changed
    assert site.target("1") == old.port
    done = site.lead("db2")
    assert done.values["previous_primary"] == "db1"
    assert [site.target(name) for name in NAMES] == [new.port] * 2
    assert {way["server"] for way in site.ping()} == {f"127.0.0.1:{new.port}"}
    assert not site.lead("db2").changed


def test_a_process_that_lags_behind_its_file(site: Bouncers) -> None:
    path = site.folder / "databases.ini"
    right = path.read_text()
    first, second = (site.members[name].port for name in ("db1", "db2"))
    path.write_text(
        right.replace(f"hospital = host=127.0.0.1 port={first}", f"hospital = host=127.0.0.1 port={second}")
    )
    site.console("2", "RELOAD")
    path.write_text(right)
    assert site.target("2") == second
    with pytest.raises(HmsError, match="leads to a standby"):
        site.ping()
    assert site.lead("db1").values["reloaded"] == ["2"]
    assert site.target("2") == first


def test_clients_that_are_held_are_left_to_the_operation(site: Bouncers) -> None:
    site.console("1", "PAUSE hospital")
    site.settings = {"query_wait_timeout": "33"}
    site.write()
    with pytest.raises(Refused) as caught:
        site.ensure()
    assert caught.value.reason == "pool_held"
    site.members["db1"].stop()
    site.members["db2"].promote()
    with pytest.raises(Refused) as caught:
        site.lead("db2")
    assert caught.value.reason == "pool_held"
    assert "query_wait_timeout|120|" in site.console("2", "SHOW CONFIG")


def test_the_port_is_taken(bouncers: Bouncers) -> None:
    assert bouncers.ensure(state="stopped").changed
    assert [bouncers.pid(name) for name in NAMES] == [None, None]
    assert not bouncers.ensure(state="stopped").changed
    bouncers.port = bouncers.members["db1"].port
    bouncers.write()
    with pytest.raises(Refused) as caught:
        bouncers.ensure()
    assert caught.value.reason == "port_taken"
    assert "postgres" in caught.value.message
