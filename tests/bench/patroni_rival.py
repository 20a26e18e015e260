# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rival: Patroni on etcd with two members, and PgBouncer repointed by its role-change callback.

Everything lies in one folder and is ended by process id. Patroni comes from PyPI, etcd from Debian.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import subprocess
import time
import typing as t
import urllib.error
import urllib.request

import yaml

PASSWORD = "bench"
ETCD_CLIENT, ETCD_PEER = 23790, 23800
BOUNCER_PORT = 23432
POSTGRES = {"p1": 23431, "p2": 23433}
REST = {"p1": 23008, "p2": 23009}
BINARIES = "/usr/lib/postgresql/15/bin"
VENV = pathlib.Path("/var/cache/hms-bench/patroni")
REQUIREMENTS = pathlib.Path(__file__).resolve().parents[2] / "requirements-bench.txt"

_CALLBACK = """#!/bin/sh
# Patroni calls: <script> on_role_change <role> <cluster>. A new primary leads PgBouncer to itself.
case "$2" in
  primary|master)
    printf '[databases]\\npostgres = host=127.0.0.1 port=%s dbname=postgres\\n' "{port}" > "{databases}.new"
    mv "{databases}.new" "{databases}"
    kill -HUP "$(cat "{pidfile}")"
    ;;
esac
"""


def install() -> None:
    """Patroni in a virtual environment that the user postgres may read."""
    if not (VENV / "bin" / "patronictl").exists():
        VENV.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["/usr/bin/python3", "-m", "venv", str(VENV)], check=True)
        pip = str(VENV / "bin" / "pip")
        subprocess.run([pip, "install", "--quiet", "--requirement", str(REQUIREMENTS)], check=True, timeout=600)


@dataclasses.dataclass
class Rival:
    """A running Patroni cluster of two."""

    directory: pathlib.Path
    processes: list[subprocess.Popen[bytes]] = dataclasses.field(default_factory=list)

    @property
    def conninfo(self) -> str:
        """Through PgBouncer."""
        return f"host=127.0.0.1 port={BOUNCER_PORT} dbname=postgres user=postgres password={PASSWORD} sslmode=disable"

    def start(self) -> None:
        """Start etcd, both members and PgBouncer; returns when a leader with a streaming follower stands."""
        install()
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(mode=0o755, parents=True)
        shutil.chown(self.directory, "postgres", "postgres")
        self._run(self._etcd(), "etcd", user="postgres")
        time.sleep(1.0)
        (self.directory / "databases.ini").write_text("[databases]\n")
        for name in POSTGRES:
            self._write_member(name)
        for path in self.directory.iterdir():
            shutil.chown(path, "postgres", "postgres")
        for name in POSTGRES:
            self._run([self._tool("patroni"), str(self.directory / f"{name}.yml")], name, user="postgres")
            self._wait(lambda: bool(self.leader()), "a leader", 60.0)
        self._wait(self.settled, "a streaming follower", 90.0)
        self._write_bouncer()
        self._run(["/usr/sbin/pgbouncer", "-q", str(self.directory / "pgbouncer.ini")], "pgbouncer", user="postgres")
        time.sleep(0.5)

    def stop(self) -> None:
        """End everything that was started, by process id, and remove the folder."""
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def members(self) -> list[dict[str, t.Any]]:
        """The members as Patroni's REST API tells."""
        for port in REST.values():
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/cluster", timeout=3) as answer:
                    found: list[dict[str, t.Any]] = json.load(answer)["members"]
                    return found
            except (OSError, urllib.error.URLError, ValueError, KeyError):
                continue
        return []

    def leader(self) -> str:
        """The leader's name, or nothing."""
        return next((m["name"] for m in self.members() if m["role"] == "leader" and m["state"] == "running"), "")

    def settled(self) -> bool:
        """A leader, and the other one streaming."""
        states = {member["role"]: member["state"] for member in self.members()}
        return states.get("leader") == "running" and states.get("replica") == "streaming"

    def switchover(self) -> None:
        """`patronictl switchover` to the other member; returns when it says it is done."""
        leader = self.leader()
        other = next(name for name in POSTGRES if name != leader)
        config = str(self.directory / "p1.yml")
        argv = [self._tool("patronictl"), "-c", config, "switchover", "bench", "--primary", leader]
        subprocess.run([*argv, "--candidate", other, "--force"], check=True, capture_output=True, timeout=120)

    def wait_settled(self) -> None:
        """Wait until the next switchover may begin."""
        self._wait(self.settled, "a settled cluster", 90.0)

    # -- its files -----------------------------------------------------------------------------------------------------

    @staticmethod
    def _tool(name: str) -> str:
        return str(VENV / "bin" / name)

    def _etcd(self) -> list[str]:
        client, peer = f"http://127.0.0.1:{ETCD_CLIENT}", f"http://127.0.0.1:{ETCD_PEER}"
        return [
            "/usr/bin/etcd",
            "--name=bench",
            f"--data-dir={self.directory}/etcd",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=bench={peer}",
        ]

    def _write_member(self, name: str) -> None:
        callback = self.directory / f"{name}-callback.sh"
        callback.write_text(
            _CALLBACK.format(
                port=POSTGRES[name],
                databases=self.directory / "databases.ini",
                pidfile=self.directory / "pgbouncer.pid",
            )
        )
        callback.chmod(0o755)
        login = {"username": "postgres", "password": PASSWORD}
        config = {
            "scope": "bench",
            "name": name,
            "restapi": {"listen": f"127.0.0.1:{REST[name]}", "connect_address": f"127.0.0.1:{REST[name]}"},
            "etcd3": {"host": f"127.0.0.1:{ETCD_CLIENT}"},
            "bootstrap": {
                "dcs": {"postgresql": {"use_pg_rewind": True, "parameters": {"wal_log_hints": "on"}}},
                "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "data-checksums"],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{POSTGRES[name]}",
                "connect_address": f"127.0.0.1:{POSTGRES[name]}",
                "data_dir": str(self.directory / name),
                "pgpass": str(self.directory / f"{name}.pgpass"),
                "bin_dir": BINARIES,
                "authentication": {"superuser": login, "replication": {"username": "replica", "password": PASSWORD}},
                "pg_hba": [
                    "host all all 127.0.0.1/32 scram-sha-256",
                    "host replication all 127.0.0.1/32 scram-sha-256",
                ],
                "parameters": {"unix_socket_directories": str(self.directory)},
                "callbacks": {"on_role_change": str(callback)},
            },
        }
        (self.directory / f"{name}.yml").write_text(yaml.safe_dump(config))

    def _write_bouncer(self) -> None:
        directory, leader = self.directory, self.leader()
        target = f"postgres = host=127.0.0.1 port={POSTGRES[leader]} dbname=postgres\n"
        (directory / "databases.ini").write_text("[databases]\n" + target)
        (directory / "userlist.txt").write_text(f'"postgres" "{PASSWORD}"\n')
        # server_login_retry as we set it ourselves: with PgBouncer's default the rival's stall would be 15 s
        (directory / "pgbouncer.ini").write_text(
            f"%include {directory}/databases.ini\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {BOUNCER_PORT}\n"
            f"unix_socket_dir = {directory}\nauth_type = scram-sha-256\nauth_file = {directory}/userlist.txt\n"
            f"pool_mode = transaction\nserver_login_retry = 1\nmax_client_conn = 200\n"
            f"pidfile = {directory}/pgbouncer.pid\nlogfile = {directory}/pgbouncer.log\n"
        )
        for name in ("databases.ini", "userlist.txt", "pgbouncer.ini"):
            shutil.chown(directory / name, "postgres", "postgres")

    def _run(self, argv: list[str], name: str, *, user: str) -> None:
        with open(self.directory / f"{name}.out", "wb") as output:
            self.processes.append(
                subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    user=user,
                    group=user,
                    extra_groups=[],
                    cwd=self.directory,
                    env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.directory), "LC_ALL": "C.UTF-8"},
                )
            )

    @staticmethod
    def _wait(condition: t.Callable[[], bool], what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not come within {seconds:g} seconds")
            time.sleep(0.2)
