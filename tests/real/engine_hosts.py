# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hosts of a throw-away site, as SQL, /proc and PgBouncer's own console show them. Nothing here asks the engine."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import time
import typing as t

import psycopg

from ansible_collections.hms.postgres.tests.real.lab import (
    BINARIES,
    Instance,
    as_postgres,
    process_alive,
    signal_all,
    until,
    working_in,
)

HERE = pathlib.Path(__file__).resolve().parent
PYTHON = "/usr/bin/python3"
PASSWORD = "for-tests-only"
PROCESSES = ("1", "2")


def rows_of(conninfo: str, statement: str) -> list[dict[str, str]]:
    """What a server or a console answers, all values as text."""
    with psycopg.connect(conninfo, autocommit=True, prepare_threshold=None, connect_timeout=30) as connection:
        return rows_from(connection, statement)


def rows_from(connection: psycopg.Connection[t.Any], statement: str) -> list[dict[str, str]]:
    """The same on a connection that is there already."""
    cursor = connection.execute(statement.encode())
    names = [column.name for column in cursor.description or ()]
    found = cursor.fetchall() if names else []
    return [dict(zip(names, ["" if value is None else str(value) for value in row])) for row in found]


def agents_with(argument: str) -> list[int]:
    """Living agents, and what waits for them: whoever has this as the last word of its command line."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            argv = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            if argv[-2:-1] == [argument.encode()] and argv[0] == PYTHON.encode() and process_alive(int(entry.name)):
                found.append(int(entry.name))
    return sorted(found)


class Host:
    """What database hosts and bouncer hosts have in common: a folder each."""

    def __init__(self, name: str, folder: pathlib.Path, port: int) -> None:
        self.name = name
        self.folder = folder
        self.port = port
        self.config = folder / "etc"
        self.state = folder / "state"
        for path in (self.config, self.state):
            path.mkdir(parents=True)

    def files(self) -> str:
        """Everything that the engine keeps on this host."""
        return " ".join(sorted(str(path) for path in self.state.rglob("*")))

    def notes(self) -> list[str]:
        """What the agents noted in this host's journals, oldest first."""
        events = [
            json.loads(line)
            for path in sorted((self.state / "agent").glob("*.jsonl"))
            for line in path.read_text().splitlines()
        ]
        return [event["event"] + (f": {event['error']}" if "error" in event else "") for event in events]


class Database(Host):
    """A database host."""

    def __init__(self, name: str, folder: pathlib.Path, instance: Instance) -> None:
        super().__init__(name, folder, instance.port)
        self.instance = instance
        self.data = instance.data

    def sql(self, statement: str, *, dbname: str = "hospital") -> str:
        """What the server answers to a superuser: a line for each row, columns parted by |."""
        conninfo = f"host=127.0.0.1 port={self.port} user=postgres dbname={dbname}"
        return "\n".join("|".join(row.values()) for row in rows_of(conninfo, statement))

    def ask(self, statement: str) -> str:
        """The same; nothing where the server doesn't answer."""
        try:
            return self.sql(statement, dbname="postgres")
        except psycopg.Error:
            return ""

    def role(self) -> str:
        """primary, standby, or down."""
        return {"False": "primary", "True": "standby"}.get(self.ask("SELECT pg_is_in_recovery()"), "down")

    def processes(self) -> list[int]:
        """Living processes of this instance."""
        return working_in(self.data)

    def worker(self, title: str) -> int:
        """The process of this instance whose title holds `title`, e.g. walreceiver."""
        for pid in self.processes():
            if title in pathlib.Path(f"/proc/{pid}/cmdline").read_text():
                return pid
        raise AssertionError(f"{self.name} has no {title}")

    def signal(self, number: int) -> None:
        """A signal to all processes of the instance at once, those included that one of them begins meanwhile."""
        reached: set[int] = set()
        while found := set(self.processes()) - reached:
            signal_all(found, number)
            reached |= found

    def kill(self) -> None:
        """kill -9 of everything: the power cord."""

        def dead() -> bool:
            self.signal(signal.SIGKILL)
            return not self.processes()

        until(dead, f"{self.name} is dead")

    def start(self) -> None:
        """As an operator would, or a reboot. A killed postmaster is in the way until the machine has reaped it."""
        self.reaped()
        self.instance.start()

    def reaped(self) -> None:
        """Wait until nothing is left of a killed server, not even in the process table."""
        until(lambda: not self.processes(), f"{self.name} has ended")
        with contextlib.suppress(FileNotFoundError, ValueError, IndexError):
            pid = int((self.data / "postmaster.pid").read_text().split()[0])
            until(lambda: not pathlib.Path(f"/proc/{pid}").exists(), f"{self.name} is reaped")

    def control(self, key: str) -> str:
        """A line of pg_controldata."""
        output = as_postgres(str(BINARIES / "pg_controldata"), str(self.data))
        return next(line.partition(":")[2].strip() for line in output.splitlines() if line.startswith(key))

    def streams_from(self, upstream: Database) -> bool:
        return self.ask("SELECT status, sender_port FROM pg_stat_wal_receiver") == f"streaming|{upstream.port}"

    @contextlib.contextmanager
    def first_rule(self, database: str, user: str, method: str) -> t.Iterator[None]:
        """Meanwhile this is pg_hba.conf's first word on who may log in."""
        path = self.instance.config / "pg_hba.conf"
        before = path.read_text()
        try:
            path.write_text(f"host {database} {user} 127.0.0.1/32 {method}\n{before}")
            self.ask("SELECT pg_reload_conf()")
            yield
        finally:
            path.write_text(before)
            self.ask("SELECT pg_reload_conf()")

    @contextlib.contextmanager
    def ledger_locked(self) -> t.Iterator[None]:
        """Meanwhile every write of a client waits, and nothing is acknowledged."""
        where = f"host=127.0.0.1 port={self.port} user=postgres dbname=hospital"
        with contextlib.closing(psycopg.connect(where, connect_timeout=30)) as connection:
            connection.execute("LOCK TABLE ledger IN EXCLUSIVE MODE")
            yield

    def hears_nobody(self) -> None:
        """Wait until a standby has noticed that its upstream is gone."""
        until(lambda: self.ask("SELECT count(*) FROM pg_stat_wal_receiver") == "0", f"the receiver of {self.name} ends")

    def has(self, position: str) -> bool:
        """Whether a standby has replayed up to `position`."""
        return self.ask(f"SELECT pg_last_wal_replay_lsn() >= '{position}'") == "True"

    def slots(self) -> dict[str, bool]:
        """Replication slots and whether they are in use."""
        rows = self.sql("SELECT slot_name, active FROM pg_replication_slots").splitlines()
        return {name: active == "True" for name, active in (row.split("|") for row in rows)}

    def setting(self, name: str) -> str:
        return self.sql(f"SELECT current_setting('{name}', true)")

    def auto_conf(self) -> list[str]:
        return (self.data / "postgresql.auto.conf").read_text().splitlines()

    def fingerprint(self) -> dict[str, str]:
        """What a refused operation must leave as it was."""
        names = "name NOT IN ('in_hot_standby', 'transaction_read_only')"
        settings = f"SELECT string_agg(name || '=' || setting, E'\\n' ORDER BY name) FROM pg_settings WHERE {names}"
        slots = "SELECT string_agg(slot_name || active, ',' ORDER BY slot_name) FROM pg_replication_slots"
        down = not self.processes()
        return {
            "settings": "" if down else self.ask(settings),
            "slots": "" if down else self.ask(slots),
            "auto.conf": "\n".join(sorted(line for line in self.auto_conf() if not line.startswith("#"))),
            "state": self.control("Database cluster state"),
            "timeline": self.control("Latest checkpoint's TimeLineID"),
            "checkpoint": self.control("Latest checkpoint location") if down else "",
            "files": self.files(),
            "standby.signal": str((self.data / "standby.signal").exists()),
            "start.conf": (self.instance.config / "start.conf").read_text(),
        }


class Bouncer(Host):
    """A bouncer host with its PgBouncer processes."""

    @property
    def databases(self) -> pathlib.Path:
        return self.config / "databases.ini"

    def sockets(self, process: str) -> pathlib.Path:
        return self.folder / "run" / process

    def start(self, process: str) -> None:
        as_postgres("pgbouncer", "-q", "-d", str(self.config / f"pgbouncer-{process}.ini"))
        until(lambda: bool(self.console("SHOW VERSION", process)), f"{self.name}/{process} answers")

    def pid(self, process: str) -> int:
        return int((self.sockets(process) / "pid").read_text())

    def kill(self, process: str) -> None:
        pid = self.pid(process)
        os.kill(pid, signal.SIGKILL)
        until(lambda: not process_alive(pid), f"{self.name}/{process} is dead")

    def console(self, command: str, process: str) -> list[dict[str, str]]:
        """What the console of one process answers; nothing where it is dead."""
        where = f"host={self.sockets(process)} port={self.port} dbname=pgbouncer user=hms_pgbouncer password={PASSWORD}"
        try:
            return rows_of(where, command)
        except psycopg.Error:
            return []

    def _ours(self, process: str) -> list[dict[str, str]]:
        return [row for row in self.console("SHOW DATABASES", process) if row["name"] == "hospital"]

    def paused(self) -> list[str]:
        """Processes that hold the clients of our database."""
        return self.paused_among(*PROCESSES)

    def paused_among(self, *processes: str) -> list[str]:
        """The same of some processes."""
        return [process for process in processes if any(row["paused"] == "1" for row in self._ours(process))]

    def leads_to(self) -> set[int]:
        """The ports that the processes lead to."""
        return {int(row["port"]) for process in PROCESSES for row in self._ours(process)}

    def retry(self) -> set[str]:
        """server_login_retry of each process."""
        rows = [row for process in PROCESSES for row in self.console("SHOW CONFIG", process)]
        return {row["value"] for row in rows if row["key"] == "server_login_retry"}

    def fingerprint(self) -> dict[str, str]:
        """What a refused operation must leave as it was."""
        return {
            "file": self.databases.read_text(),
            "inode": str(self.databases.stat().st_ino),
            "leads": str(self.leads_to()),
            "paused": str(self.paused()),
            "retry": str(self.retry()),
            "files": self.files(),
        }


class Writer:
    """A client with a ledger: it writes numbered rows through a bouncer and notes which were acknowledged."""

    def __init__(self, source: str, ledger: pathlib.Path, port: int, *, rate: float) -> None:
        self.source = source
        self._ledger = ledger
        argv = [PYTHON, str(HERE / "engine_writer.py"), source, str(ledger), str(rate), str(port)]
        environment = {"PATH": os.environ["PATH"], "PGPASSWORD": PASSWORD}
        self._process = subprocess.Popen(argv, env=environment, stdin=subprocess.PIPE)
        until(lambda: self.count("ok") > 3, "the first writes are acknowledged")

    def lines(self) -> list[list[t.Any]]:
        """``[sequence, "ok" | "failed" | "unknown", sent, latency]``."""
        if not self._ledger.exists():
            return []
        return [json.loads(line) for line in self._ledger.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def count(self, outcome: str) -> int:
        return sum(1 for line in self.lines() if line[1] == outcome)

    def acknowledged(self) -> set[int]:
        return {line[0] for line in self.lines() if line[1] == "ok"}

    def longest(self) -> float:
        """The longest time that a write took which was acknowledged in the end."""
        return max(float(line[3]) for line in self.lines() if line[1] == "ok")

    def goes_on(self, seconds: float = 60.0) -> None:
        """New writes are acknowledged."""
        before = self.count("ok")
        until(lambda: self.count("ok") > before + 2, f"{self.source} goes on writing", seconds=seconds)

    def stop(self) -> None:
        stdin = self._process.stdin
        if stdin is not None and not stdin.closed:
            stdin.close()
        try:
            self._process.wait(30.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def missing(self, primary: Database) -> set[int]:
        """Acknowledged rows that `primary` doesn't have."""
        acknowledged = self.acknowledged()
        rows = primary.sql(f"SELECT seq FROM ledger WHERE source = '{self.source}'").split()
        return acknowledged - {int(row) for row in rows}


class Child:
    """A coordinator in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], output: pathlib.Path, mark: pathlib.Path) -> None:
        self.process = process
        self.mark = mark
        """There once the accident has happened."""
        self._output = output

    @property
    def pid(self) -> int:
        return self.process.pid

    def end(self, seconds: float = 100.0) -> int:
        """Wait for its end; its exit code, negative where a signal ended it."""
        return self.process.wait(seconds)

    def result(self) -> dict[str, t.Any]:
        """What it said at its end."""
        self.end()
        found: dict[str, t.Any] = json.loads(self._output.read_text().splitlines()[-1])
        return found


def descendants(pid: int) -> list[int]:
    """All living processes below `pid`, nearest first."""
    parents: dict[int, int] = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found.extend(child for child, parent in parents.items() if parent == one)
    return [one for one in found[1:] if process_alive(one)]


def seconds_until(condition: t.Callable[[], bool], what: str, *, seconds: float) -> float:
    """Wait for something; how long it took."""
    started = time.monotonic()
    until(condition, what, seconds=seconds)
    return time.monotonic() - started
