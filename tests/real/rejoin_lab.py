# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A throw-away primary and standby, made by Debian's tools, for the tests of rejoin, dossier and start guard.

psql is the oracle everywhere: nothing here asks the code under test.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import typing as t

VERSION = max((int(path.name) for path in pathlib.Path("/usr/lib/postgresql").glob("[0-9]*")), default=15)
BINARIES = pathlib.Path(f"/usr/lib/postgresql/{VERSION}/bin")
USABLE = os.geteuid() == 0 and (BINARIES / "postgres").exists() and shutil.which("pg_createcluster") is not None
PASSWORD = "for-tests-only"
DATABASE = "hospital"
MONITOR, REPLICATION = "hms_monitor", "hms_replication"

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "wal_level": "replica",
    "wal_log_hints": "on",
    "max_prepared_transactions": "5",
    "shared_buffers": "32MB",
    "max_connections": "40",
    "fsync": "off",
    "wal_retrieve_retry_interval": "200ms",
    "autovacuum_naptime": "1h",
    "min_wal_size": "32MB",
    "max_wal_size": "1GB",
}

GRANTS = f"""
CREATE ROLE {MONITOR} LOGIN PASSWORD '{PASSWORD}' IN ROLE pg_monitor;
CREATE ROLE {REPLICATION} LOGIN REPLICATION PASSWORD '{PASSWORD}';
GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean) TO {REPLICATION};
GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_file(text, boolean) TO {REPLICATION};
GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text) TO {REPLICATION};
GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean) TO {REPLICATION};
"""
SCHEMA = """
CREATE TABLE patients (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE appointments (id serial PRIMARY KEY, patient int REFERENCES patients, note text);
INSERT INTO patients SELECT n, 'made up ' || n FROM generate_series(1, 200) n;
INSERT INTO appointments (patient, note) SELECT n, repeat('x', 500) FROM generate_series(1, 200) n;
"""


def run(*argv: str, user: str | None = None, check: bool = True, data: str | None = None) -> str:
    """Run a program to its end; its output."""
    command = ["runuser", "-u", user, "--", *argv] if user else list(argv)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, input=data, cwd="/")
    assert done.returncode == 0 or not check, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@dataclasses.dataclass
class Host:
    """One "host": an instance with its own port and state directory."""

    name: str
    port: int
    folder: pathlib.Path

    @property
    def instance(self) -> str:
        return f"hmsrej{self.name}"

    @property
    def data(self) -> pathlib.Path:
        return pathlib.Path(f"/var/lib/postgresql/{VERSION}/{self.instance}")

    @property
    def etc(self) -> pathlib.Path:
        return pathlib.Path(f"/etc/postgresql/{VERSION}/{self.instance}")

    @property
    def config(self) -> pathlib.Path:
        return self.folder / self.name / "etc"

    @property
    def state(self) -> pathlib.Path:
        return self.folder / self.name / "state"

    @property
    def slot(self) -> str:
        return self.name

    def sql(self, text: str, *, dbname: str = DATABASE, check: bool = True) -> str:
        """psql over the local socket; unaligned rows."""
        options = ["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-p", str(self.port), "-d", dbname]
        return run("psql", *options, "-f", "-", user="postgres", data=text, check=check).strip()

    def ctl(self, action: str, *options: str, check: bool = True) -> None:
        run("pg_ctlcluster", str(VERSION), self.instance, action, *options, check=check)

    def pid(self) -> int | None:
        with contextlib.suppress(FileNotFoundError, ValueError):
            pid = int((self.data / "postmaster.pid").read_text().splitlines()[0])
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            return pid if state != "Z" else None
        return None

    def kill(self) -> None:
        """The power cord: SIGKILL for every process of the instance, the postmaster first."""
        self.end(signal.SIGKILL)

    def end(self, number: int) -> None:
        pid = self.pid()
        assert pid is not None
        os.kill(pid, number)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and (self.processes() or self.pid()):
            for other in self.processes() if number == signal.SIGKILL else []:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(other, signal.SIGKILL)
            time.sleep(0.02)
        assert not self.processes()

    def processes(self) -> list[int]:
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError, IndexError):
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z" and os.readlink(entry / "cwd") == str(self.data):
                    found.append(int(entry.name))
        return found

    def control(self, key: str) -> str:
        output = run(str(BINARIES / "pg_controldata"), str(self.data), user="postgres")
        return next(line.partition(":")[2].strip() for line in output.splitlines() if line.startswith(key))

    def promote(self) -> None:
        self.sql("SELECT pg_promote(true, 30)", dbname="postgres")
        self.sql("CHECKPOINT", dbname="postgres")

    def fence(self) -> None:
        """What a failover leaves behind."""
        self.state.mkdir(parents=True, exist_ok=True)
        (self.state / "fence.json").write_text(json.dumps({"operation": "20260101T000000Z-failover-0000", "at": "t"}))
        (self.etc / "start.conf").write_text("disabled\n")
        self.signal_standby()

    def signal_standby(self) -> None:
        (self.data / "standby.signal").touch()
        shutil.chown(self.data / "standby.signal", "postgres", "postgres")

    def drop(self) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        run("pg_dropcluster", "--stop", str(VERSION), self.instance, check=False)
        shutil.rmtree(self.etc, ignore_errors=True)
        for path in self.data.parent.glob(f"{self.instance}*"):
            shutil.rmtree(path, ignore_errors=True)


class Lab:
    """Hosts a (primary), b and, when asked for, c (standbys)."""

    def __init__(self, names: t.Sequence[str] = ("a", "b"), *, base_port: int = 28010, options: str = "-k") -> None:
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="hmsrej-"))
        self.folder.chmod(0o755)
        self.hosts = {name: Host(name, base_port + index, self.folder) for index, name in enumerate(names)}
        self._options = options

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def build(self) -> None:
        """Create the instances and let the standbys stream."""
        for host in self.hosts.values():
            host.drop()
        primary, *standbys = self.hosts.values()
        self._create(primary)
        primary.ctl("start")
        primary.sql(GRANTS, dbname="postgres")
        primary.sql(f"CREATE DATABASE {DATABASE}", dbname="postgres")
        primary.sql(SCHEMA)
        for host in self.hosts.values():
            self.write_member(host)
        for host in standbys:
            self._clone(host, primary)
        for host in standbys:
            self.wait_streaming(host, primary)

    def _create(self, host: Host) -> None:
        run("pg_createcluster", str(VERSION), host.instance, "-p", str(host.port), "--", *self._options.split())
        lines = [f"{name} = '{value}'\n" for name, value in SETTINGS.items()]
        (host.etc / "conf.d" / "lab.conf").write_text("".join(lines))

    def _clone(self, host: Host, primary: Host) -> None:
        self._create(host)
        shutil.rmtree(host.data)
        primary.sql(f"SELECT pg_create_physical_replication_slot('{host.slot}', true)", dbname="postgres")
        run(str(BINARIES / "pg_basebackup"), "-D", str(host.data), "-p", str(primary.port), "-c", "fast", user="postgres")
        self.follow(host, primary)
        host.signal_standby()
        host.ctl("start")

    def conninfo(self, host: Host, upstream: Host) -> str:
        return (
            f"host='127.0.0.1' port='{upstream.port}' user='{REPLICATION}' passfile='{self.passfile(REPLICATION)}' "
            f"sslmode='prefer' application_name='{host.name}' connect_timeout='5'"
        )

    def follow(self, host: Host, upstream: Host) -> None:
        """Point a stopped standby at its upstream."""
        text = self.conninfo(host, upstream).replace("'", "''")
        lines = f"primary_conninfo = '{text}'\nprimary_slot_name = '{host.slot}'\n"
        path = host.data / "postgresql.auto.conf"
        path.write_text(lines)
        shutil.chown(path, "postgres", "postgres")

    def passfile(self, user: str) -> pathlib.Path:
        path = self.folder / f"{user}.pgpass"
        if not path.exists():
            path.write_text(f"*:*:*:{user}:{PASSWORD}\n")
            path.chmod(0o600)
            entry = pwd.getpwnam("postgres")
            os.chown(path, entry.pw_uid, entry.pw_gid)
        return path

    def member(self, host: Host, **changes: t.Any) -> dict[str, t.Any]:
        """member.json's content."""
        login = {"sslmode": "prefer", "sslrootcert": None}
        return {
            "schema": 1,
            "kind": "database",
            "name": host.name,
            "cluster": "lab",
            "environment": "demo",
            "address": "127.0.0.1",
            "state_directory": str(host.state),
            "database": DATABASE,
            "sync_policy": "async",
            "postgresql": {
                "version": VERSION,
                "instance": host.instance,
                "port": host.port,
                "socket_directory": "/var/run/postgresql",
                "data_directory": str(host.data),
                "config_directory": str(host.etc),
                "bin_directory": str(BINARIES),
                "os_user": "postgres",
            },
            "replication": {
                "user": REPLICATION, "passfile": str(self.passfile(REPLICATION)), "slot_name": host.slot, **login
            },
            "monitor": {"user": MONITOR, "passfile": str(self.passfile(MONITOR)), **login},
            "members": [{"name": each.name, "address": "127.0.0.1", "port": each.port} for each in self.hosts.values()],
            **changes,
        }  # fmt: skip

    def write_member(self, host: Host, **changes: t.Any) -> None:
        host.config.mkdir(parents=True, exist_ok=True)
        host.state.mkdir(parents=True, exist_ok=True)
        (host.config / "member.json").write_text(json.dumps(self.member(host, **changes)))

    def wait_streaming(self, host: Host, upstream: Host, *, seconds: float = 30) -> None:
        sql = f"SELECT state FROM pg_stat_replication WHERE application_name = '{host.name}'"
        wait(lambda: upstream.sql(sql, dbname="postgres", check=False) == "streaming", seconds)

    def wait_replayed(self, host: Host, upstream: Host, *, seconds: float = 30) -> None:
        """Until everything that the upstream has written now is replayed."""
        position = upstream.sql("SELECT pg_current_wal_lsn()", dbname="postgres")
        sql = f"SELECT pg_last_wal_replay_lsn() >= '{position}'"
        wait(lambda: host.sql(sql, dbname="postgres", check=False) == "t", seconds)

    def detach(self, host: Host) -> None:
        """Let a standby receive nothing any more."""
        host.sql("ALTER SYSTEM SET primary_conninfo = '';\nSELECT pg_reload_conf()", dbname="postgres")
        wait(lambda: host.sql("SELECT count(*) FROM pg_stat_wal_receiver", dbname="postgres") == "0", 10)

    def destroy(self) -> None:
        for host in self.hosts.values():
            host.drop()
        shutil.rmtree(self.folder, ignore_errors=True)


def wait(condition: t.Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
