# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A throw-away site for the engine: database hosts and bouncer hosts on this machine, each with its own folder."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._cluster import databases_file
from ansible_collections.hms.postgres.plugins.module_utils._cluster.plan import Operation, Request
from ansible_collections.hms.postgres.plugins.plugin_utils import _bundle
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.course import Job, Report, RequestT
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.line import LineSpec, agent_command
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.overview import Site
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.run import run
from ansible_collections.hms.postgres.tests.real.engine_hosts import (
    HERE,
    PASSWORD,
    PROCESSES,
    PYTHON,
    Bouncer,
    Child,
    Database,
    Host,
    Writer,
    agents_with,
)
from ansible_collections.hms.postgres.tests.real.lab import (
    BINARIES,
    OS_USER,
    VERSION,
    Instance,
    Lab,
    as_postgres,
    signal_all,
    until,
)

CLUSTER = "hospital"
HOLD_SECONDS, GREET_SECONDS = 10.0, 30.0
"""For clients' transactions to end and for agents to come up, where a test doesn't say: a busy machine may be slow."""

SETTINGS = {"shared_buffers": "32MB", "max_connections": "60", "autovacuum": "off", "wal_keep_size": "64MB"}
ROLES = (
    f"CREATE ROLE hms_monitor LOGIN PASSWORD '{PASSWORD}' IN ROLE pg_monitor",
    f"CREATE ROLE hms_pgbouncer LOGIN PASSWORD '{PASSWORD}'",
    f"CREATE ROLE hospital_app LOGIN PASSWORD '{PASSWORD}'",
    f"ALTER ROLE hms_replication PASSWORD '{PASSWORD}'",
    "CREATE DATABASE hospital",
)
SCHEMA = """
CREATE SCHEMA hms;
CREATE TABLE hms.write_probe (operation text, source text, seq bigint, at timestamptz DEFAULT clock_timestamp(),
    PRIMARY KEY (operation, source, seq));
GRANT USAGE ON SCHEMA hms TO hms_monitor, hms_pgbouncer;
GRANT INSERT, SELECT, DELETE ON hms.write_probe TO hms_monitor;
CREATE FUNCTION hms.pgbouncer_auth(p_user text) RETURNS TABLE (usename name, passwd text)
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog
    AS $$ SELECT usename, passwd FROM pg_shadow WHERE usename = p_user $$;
CREATE TABLE ledger (source text, seq bigint, PRIMARY KEY (source, seq));
GRANT INSERT, SELECT ON ledger TO hospital_app;
"""
POOLER = """%include {databases}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
so_reuseport = 1
unix_socket_dir = {sockets}
auth_type = scram-sha-256
auth_file = {users}
auth_user = hms_pgbouncer
admin_users = hms_pgbouncer
auth_query = SELECT usename, passwd FROM hms.pgbouncer_auth($1)
pool_mode = transaction
server_login_retry = 1
query_wait_timeout = 60
max_client_conn = 200
logfile = {sockets}/log
pidfile = {sockets}/pid
"""

_BUNDLE: list[bytes] = []


def bundle() -> bytes:
    """The agents' code, packed once for all tests."""
    if not _BUNDLE:
        _BUNDLE.append(_bundle.build())
    return _BUNDLE[0]


class EngineSite:
    """Database hosts db1… and bouncer hosts bouncer1…; db1 leads at first."""

    def __init__(self, lab: Lab, *, databases: int = 2, bouncers: int = 1, policy: str = "async") -> None:
        self.lab = lab
        self.folder = lab.folder
        self.policy = policy
        self.records = self.folder / "records"
        self.databases: dict[str, Database] = {}
        self.bouncers: dict[str, Bouncer] = {}
        self._writers: list[Writer] = []
        self._build_databases([f"db{number}" for number in range(1, databases + 1)])
        for number in range(1, bouncers + 1):
            self._build_bouncer(f"bouncer{number}")

    # -- building ------------------------------------------------------------------------------------------------

    def _build_databases(self, names: t.Sequence[str]) -> None:
        first = self._add(names[0], self.lab.primary("", start=True, checksums=True, **SETTINGS))
        first.instance.sql("SELECT pg_reload_conf()")
        for statement in ROLES:
            first.sql(statement, dbname="postgres")
        first.sql(SCHEMA)
        for name in names[1:]:
            self._add(name, self.lab.primary("", start=False, checksums=True, **SETTINGS))
        for database in self.databases.values():
            self.write_member(database)
        for name in names[1:]:
            self.clone(self.databases[name], first)
        self.synchronous(first)

    def _add(self, name: str, instance: Instance) -> Database:
        hba = instance.config / "pg_hba.conf"
        hba.write_text("host all postgres 127.0.0.1/32 trust\n" + hba.read_text())
        database = Database(name, self.folder / name, instance)
        shutil.chown(instance.folder, OS_USER, OS_USER)
        self.databases[name] = database
        return database

    def clone(self, database: Database, upstream: Database) -> None:
        """Make `database` a fresh standby of `upstream`, whatever it was before."""
        database.kill()
        database.reaped()
        shutil.rmtree(database.data)
        (database.state / "fence.json").unlink(missing_ok=True)
        (database.instance.config / "start.conf").write_text("auto\n")
        if database.name not in upstream.slots():
            upstream.sql(f"SELECT pg_create_physical_replication_slot('{database.name}')")
        conninfo = (
            f"host=127.0.0.1 port={upstream.port} user=hms_replication passfile={database.config}/replication.pgpass"
        )
        as_postgres(str(BINARIES / "pg_basebackup"), "-d", conninfo, "-D", str(database.data), "-c", "fast", "-N")
        text = " ".join(f"{key}=''{value}''" for key, value in (pair.split("=") for pair in conninfo.split()))
        (database.data / "postgresql.auto.conf").write_text(
            f"primary_conninfo = '{text} application_name=''{database.name}'''\nprimary_slot_name = '{database.name}'\n"
        )
        (database.data / "standby.signal").touch()
        for name in ("postgresql.auto.conf", "standby.signal"):
            shutil.chown(database.data / name, OS_USER, OS_USER)
        database.start()
        until(lambda: database.streams_from(upstream), f"{database.name} streams")

    def follow(self, database: Database, upstream: Database) -> None:
        """Let a standby stream from another member."""
        if database.name not in upstream.slots():
            upstream.sql(f"SELECT pg_create_physical_replication_slot('{database.name}')")
        conninfo = re.sub(r"port='?\d+'?", f"port={upstream.port}", database.setting("primary_conninfo"))
        database.instance.set(primary_conninfo=conninfo.replace("'", "''"))
        until(lambda: database.streams_from(upstream), f"{database.name} streams from {upstream.name}")

    def synchronous(self, primary: Database) -> None:
        """synchronous_standby_names as the policy wants them."""
        others = ", ".join(f'"{name}"' for name in self.databases if name != primary.name)
        names = "" if self.policy == "async" else f"ANY 1 ({others})"
        primary.instance.set(synchronous_standby_names=names)

    def _common(self, kind: str, host: Host) -> dict[str, t.Any]:
        return {
            "schema": 1,
            "kind": kind,
            "name": host.name,
            "cluster": CLUSTER,
            "environment": "staging",
            "address": "127.0.0.1",
            "state_directory": str(host.state),
            "database": "hospital",
            "monitor": self._login(host, "hms_monitor", "root"),
            "members": [
                {"name": each.name, "address": "127.0.0.1", "port": each.port} for each in self.databases.values()
            ],
        }

    @staticmethod
    def _login(host: Host, user: str, owner: str) -> dict[str, str]:
        path = host.config / f"{user.removeprefix('hms_')}.pgpass"
        path.write_text(f"*:*:*:{user}:{PASSWORD}\n")
        path.chmod(0o600)
        shutil.chown(path, owner, owner)
        return {"user": user, "passfile": str(path), "sslmode": "prefer"}

    def member(self, database: Database) -> dict[str, t.Any]:
        """member.json of a database host."""
        return {
            **self._common("database", database),
            "sync_policy": self.policy,
            "postgresql": {
                "version": VERSION,
                "instance": database.instance.name,
                "port": database.port,
                "socket_directory": str(database.instance.sockets),
                "data_directory": str(database.data),
                "config_directory": str(database.instance.config),
                "bin_directory": str(BINARIES),
                "os_user": OS_USER,
            },
            "replication": {**self._login(database, "hms_replication", OS_USER), "slot_name": database.name},
        }

    def write_member(self, host: Host, **changes: t.Any) -> None:
        """Write member.json, changed as told."""
        path = host.config / "member.json"
        base = self.member(host) if isinstance(host, Database) else json.loads(path.read_text())
        path.write_text(json.dumps({**base, **changes}))

    @contextlib.contextmanager
    def changed_member(self, host: str, **changes: t.Any) -> t.Iterator[None]:
        """member.json of a host changed for a while; None takes a key away."""
        path = {**self.databases, **self.bouncers}[host].config / "member.json"
        before = path.read_text()
        merged = {**json.loads(before), **changes}
        path.write_text(json.dumps({key: value for key, value in merged.items() if value is not None}))
        try:
            yield
        finally:
            path.write_text(before)

    def _build_bouncer(self, name: str) -> None:
        bouncer = Bouncer(name, self.folder / name, self.lab.port())
        self.bouncers[name] = bouncer
        bouncer.databases.write_text(
            databases_file.render(
                cluster=CLUSTER,
                operation="site",
                primary=next(iter(self.databases)),
                databases=[{"name": "hospital", "dbname": "hospital"}],
                members=[databases_file.Member(each.name, "127.0.0.1", each.port) for each in self.databases.values()],
            )
        )
        users = bouncer.config / "users.txt"
        users.write_text(f'"hms_pgbouncer" "{PASSWORD}"\n')
        processes = []
        for process in PROCESSES:
            sockets = bouncer.sockets(process)
            sockets.mkdir(parents=True)
            config = bouncer.config / f"pgbouncer-{process}.ini"
            values = {"databases": bouncer.databases, "port": bouncer.port, "sockets": sockets, "users": users}
            config.write_text(POOLER.format(**values))
            place = {"socket_directory": str(sockets), "config_file": str(config), "pidfile": f"{sockets}/pid"}
            processes.append({"name": process, **place})
            shutil.chown(sockets, OS_USER, OS_USER)
        member = {
            **self._common("bouncer", bouncer),
            "os_user": OS_USER,
            "port": bouncer.port,
            "listen_address_local": "127.0.0.1",
            "databases_file": str(bouncer.databases),
            "databases": [{"name": "hospital", "dbname": "hospital"}],
            "processes": processes,
        }
        (bouncer.config / "member.json").write_text(json.dumps(member))
        for process in PROCESSES:
            bouncer.start(process)

    def close(self) -> None:
        """End what the lab doesn't know of."""
        for writer in self._writers:
            writer.stop()
        for name in (*self.databases, *self.bouncers):
            signal_all(self.agents(name), signal.SIGKILL)
        for database in self.databases.values():
            database.kill()
        for bouncer in self.bouncers.values():
            for process in PROCESSES:
                with contextlib.suppress(OSError, ValueError):
                    os.kill(bouncer.pid(process), signal.SIGKILL)

    # -- looking -------------------------------------------------------------------------------------------------

    def primaries(self) -> list[Database]:
        return [database for database in self.databases.values() if database.role() == "primary"]

    def primary(self) -> Database:
        """The one that takes writes."""
        found = self.primaries()
        assert len(found) == 1, [each.name for each in found]
        return found[0]

    def standby(self) -> Database:
        """A standby that runs, the first one."""
        return next(database for database in self.databases.values() if database.role() == "standby")

    def paused(self) -> list[str]:
        """PgBouncer processes that hold clients."""
        return [f"{bouncer.name}/{process}" for bouncer in self.bouncers.values() for process in bouncer.paused()]

    def led_to(self) -> set[str]:
        """The members that bouncers lead to."""
        ports = {database.port: name for name, database in self.databases.items()}
        return {ports[port] for bouncer in self.bouncers.values() for port in bouncer.leads_to()}

    def fingerprint(self) -> dict[str, dict[str, str]]:
        """What a refused operation must leave as it was."""
        found = {database.name: database.fingerprint() for database in self.databases.values()}
        found.update({bouncer.name: bouncer.fingerprint() for bouncer in self.bouncers.values()})
        found["controller"] = {"records": " ".join(sorted(str(path) for path in self.records.rglob("*.json*")))}
        return found

    def agents(self, host: str) -> list[int]:
        """Agents of one host, with what waits for them."""
        return agents_with(str(self.folder / host / "etc"))

    def agents_end(self, seconds: float = 60.0) -> None:
        """Wait until no agent works any more."""
        hosts = [*self.databases, *self.bouncers]
        until(lambda: not any(self.agents(host) for host in hosts), "all agents have ended", seconds=seconds)

    # -- working -------------------------------------------------------------------------------------------------

    def writer(self, source: str, bouncer: str = "bouncer1", *, rate: float = 100.0) -> Writer:
        """A client that writes through a bouncer until it is stopped."""
        ledger = self.folder / f"ledger-{source}.jsonl"
        writer = Writer(source, ledger, self.bouncers[bouncer].port, rate=rate)
        self._writers.append(writer)
        return writer

    @contextlib.contextmanager
    def writing(self, source: str, bouncer: str = "bouncer1", *, rate: float = 100.0) -> t.Iterator[Writer]:
        """A client that writes until the end of the block."""
        writer = self.writer(source, bouncer, rate=rate)
        try:
            yield writer
        finally:
            writer.stop()

    def lines(self, **relays: pathlib.Path) -> tuple[LineSpec, ...]:
        """A line to each host; those named in `relays` go through a relay that leaves its pid in that file."""
        found = []
        for name in (*self.databases, *self.bouncers):
            argv = ["/bin/sh", "-c", agent_command(PYTHON, str(self.folder / name / "etc"))]
            if name in relays:
                argv = [PYTHON, str(HERE / "engine_relay.py"), str(relays[name]), *argv]
            found.append(LineSpec(name, tuple(argv)))
        return tuple(found)

    def out_of_reach(self, *hosts: str) -> tuple[LineSpec, ...]:
        """Lines of which some fail at once, as ssh to a host without power."""
        command = "echo 'ssh: connect to host: No route to host' >&2; exit 255"
        broken = ("/bin/sh", "-c", command)
        return tuple(LineSpec(line.host, broken) if line.host in hosts else line for line in self.lines())

    def job(self, operation: Operation, candidate: str = "", **more: t.Any) -> Job[Request]:
        """A job for this site; `more` are fields of the request or of the job."""
        more.setdefault("hold_seconds", HOLD_SECONDS)
        request = functools.partial(Request, operation=operation, candidate=candidate)
        return self.ordered(request, {"parameters": {"candidate": candidate}, **more})

    def ordered(self, request: t.Callable[..., RequestT], wishes: t.Mapping[str, t.Any]) -> Job[RequestT]:
        """A job of any kind for this site; `wishes` are fields of the job, or else of its request."""
        fields = {field.name for field in dataclasses.fields(Job)}
        job = Job(
            request=request(**{key: value for key, value in wishes.items() if key not in fields}),
            site=Site(CLUSTER, "staging", tuple(self.databases), tuple(self.bouncers)),
            lines=self.lines(),
            bundle=bundle(),
            by="tester@here",
            records_directory=str(self.records),
            parameters={},
            version="0",
            greet_seconds=GREET_SECONDS,
        )
        return dataclasses.replace(job, **{key: value for key, value in wishes.items() if key in fields})

    def run(self, operation: Operation, candidate: str = "", *, check_mode: bool = False, **more: t.Any) -> Report:
        """Carry an operation out in this process."""
        return run(self.job(operation, candidate, **more), SystemClock(), check_mode=check_mode)

    def child(
        self, operation: Operation, candidate: str = "", *, moment: str = "", accident: t.Any = None, **more: t.Any
    ) -> Child:
        """The same in a process of its own, to which something happens at the `moment` (see engine_child.py)."""
        return self.coordinator("engine_child.py", self.job(operation, candidate, **more), moment, accident)

    def coordinator(self, program: str, job: Job[t.Any], moment: str, accident: t.Any) -> Child:
        """A job of any kind in a process of its own."""
        output = self.folder / f"child-{time.monotonic_ns()}"
        mark = output.with_suffix(".mark")
        wish = {
            "request": dataclasses.asdict(job.request),
            "site": list(job.site),
            "lines": [[line.host, list(line.argv)] for line in job.lines],
            "by": job.by,
            "records_directory": job.records_directory,
            "greet_seconds": job.greet_seconds,
            "accident": {"moment": moment, "mark": str(mark), **(accident or {})} if moment else {},
        }
        environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1] / ".collections")}
        with output.open("wb") as target:
            process = subprocess.Popen(
                [sys.executable, str(HERE / program), json.dumps(wish)],
                stdin=subprocess.DEVNULL,
                stdout=target,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        return Child(process, output, mark)

    @contextlib.contextmanager
    def open_transaction(self, bouncer: str) -> t.Iterator[None]:
        """A client that has written through a bouncer and doesn't commit; it does in the end, and succeeds."""
        port = self.bouncers[bouncer].port
        argv = ["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(port), "-U", "hospital_app"]
        environment = {"PATH": os.environ["PATH"], "PGPASSWORD": PASSWORD}
        with subprocess.Popen(
            [*argv, "hospital"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, cwd="/"
        ) as psql:
            assert psql.stdin is not None
            assert psql.stdout is not None
            psql.stdin.write(f"BEGIN;\nINSERT INTO ledger VALUES ('open', {time.monotonic_ns()});\nSELECT 'open';\n")
            psql.stdin.flush()
            assert psql.stdout.readline() == "open\n"
            yield
            psql.stdin.write("COMMIT;\n")
            psql.stdin.close()
            assert psql.wait(60) == 0

    # -- judging -------------------------------------------------------------------------------------------------

    def whole(self) -> bool:
        """One member leads, every process of every bouncer leads to it, and nobody is held."""
        found = self.primaries()
        return len(found) == 1 and not self.paused() and self.led_to() == {found[0].name}

    def other(self, database: Database) -> Database:
        """Some other database host."""
        return next(each for each in self.databases.values() if each is not database)

    def standbys_stream(self, seconds: float = 60.0) -> None:
        """Everybody but the primary streams from it."""
        primary = self.primary()
        for database in self.databases.values():
            if database is not primary:
                until(lambda d=database: d.streams_from(primary), f"{database.name} streams", seconds=seconds)  # type: ignore[misc]  # bound now, on purpose

    def nothing_temporary(self) -> None:
        """No setting that was only for the operation is left, and no slot that keeps WAL for nobody."""
        primary = self.primary()
        for database in self.databases.values():
            if database.role() == "down":
                continue
            left = {"retry": database.setting("wal_retrieve_retry_interval"), "slots": database.slots()}
            wanted = {"retry": "5s", "slots": left["slots"] if database is primary else {}}
            assert left == wanted, (database.name, database.notes())
        until(lambda: all(bouncer.retry() == {"1"} for bouncer in self.bouncers.values()), "settings as configured")
