# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Our side of the bench: a site made by playbooks/site.yml, driven by the playbooks that an operator types."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import typing as t

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIRECTORY = pathlib.Path("/var/lib/hms-bench")
BOUNCER_PORT = 24440
INSTANCES = {"db1": ("hmsbench1", 24432), "db2": ("hmsbench2", 24433), "db3": ("hmsbench3", 24434)}
VARIABLES: dict[str, t.Any] = {
    "hms_demo_dir": str(DIRECTORY),
    "pgbouncer_port": BOUNCER_PORT,
    "pgbouncer_service": "hms-bench-pgbouncer",
}


class Site:
    """Three database hosts and one bouncer host with two processes."""

    def __init__(self, policy: str) -> None:
        self._variables = {**VARIABLES, "replication_sync_policy": policy}

    @property
    def conninfo(self) -> str:
        """As the application connects: through PgBouncer, TLS verified, SCRAM."""
        password = (DIRECTORY / "secrets" / "app").read_text().strip()
        return (
            f"host=127.0.0.1 port={BOUNCER_PORT} dbname=hospital user=hospital_app password={password} "
            f"sslmode=verify-ca sslrootcert={DIRECTORY}/ca/ca.crt"
        )

    def play(self, playbook: str, **variables: t.Any) -> str:
        """Run a playbook and return what it printed. Raises when it fails."""
        command = os.path.join(os.path.dirname(sys.executable), "ansible-playbook")
        shared = ROOT / "inventories" / "demo" / "group_vars" / "all.yml"
        argv = [command, "-i", str(ROOT / "tests" / "bench" / "hosts.yml"), "-e", f"@{shared}"]
        argv += ["-e", json.dumps({**self._variables, **variables}), str(ROOT / "playbooks" / playbook)]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
        if done.returncode:
            raise RuntimeError(f"{playbook} ended with {done.returncode}:\n{done.stdout[-6000:]}{done.stderr[-2000:]}")
        return done.stdout

    def start(self, table: str) -> None:
        """Set the site up and give the application the writers' table."""
        self.stop()
        self.play("site.yml")
        self.sql(f"{table}; GRANT SELECT, INSERT ON bench_ledger TO hospital_app")

    def sql(self, statement: str) -> str:
        """Run SQL on the primary's socket as its superuser."""
        _name, port = INSTANCES[self.primary()]
        argv = ["runuser", "-u", "postgres", "--", "psql", "-XqAt", "-p", str(port), "-d", "hospital", "-c", statement]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    def primary(self) -> str:
        """The member that takes writes, asked on each socket."""
        for name, (_instance, port) in INSTANCES.items():
            argv = ["runuser", "-u", "postgres", "--", "psql", "-XqAt", "-p", str(port), "-d", "postgres"]
            argv += ["-c", "SELECT pg_catalog.pg_is_in_recovery()"]
            done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10)
            if done.stdout.strip() == "f":
                return name
        raise RuntimeError("no member takes writes")

    def kill_primary(self) -> str:
        """SIGKILL for the postmaster and all its children; returns the member's name."""
        name = self.primary()
        data = DIRECTORY / name / "data"
        postmaster = int((data / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGKILL)
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and os.readlink(f"/proc/{entry}/cwd") == str(data):
                    os.kill(int(entry), signal.SIGKILL)
            except OSError:  # it is gone, or not ours to look at
                continue
        return name

    def freeze_wal_senders(self) -> None:
        """Let the primary replicate nothing from now on; it acknowledges all the same."""
        postmaster = int((DIRECTORY / self.primary() / "data" / "postmaster.pid").read_text().split()[0])
        children = pathlib.Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for child in children:
            if b"walsender" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), signal.SIGSTOP)

    def records(self) -> list[dict[str, t.Any]]:
        """All records, oldest first."""
        return [json.loads(path.read_text()) for path in sorted((DIRECTORY / "records").glob("*.json"))]

    def stop(self) -> None:
        """End and remove everything of this site."""
        for pidfile in DIRECTORY.glob("bouncer*/run/*/pid"):
            self._end_pgbouncer(pidfile)
        for instance, _port in INSTANCES.values():
            if pathlib.Path(f"/etc/postgresql/15/{instance}").exists():
                subprocess.run(["pg_dropcluster", "--stop", "15", instance], check=False, timeout=120)
        shutil.rmtree(DIRECTORY, ignore_errors=True)

    @staticmethod
    def _end_pgbouncer(pidfile: pathlib.Path) -> None:
        try:
            pid = int(pidfile.read_text())
            if pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == "pgbouncer":
                os.kill(pid, signal.SIGTERM)
        except (FileNotFoundError, ValueError, ProcessLookupError):
            return
