# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real PostgreSQL instances, the Debian way, and real PgBouncers, for tests. Nothing here uses the collection.

A `Lab` makes them and removes them. Their names hold the test run's process id, so that what an interrupted run
left behind is known as such and cleared by the next one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
import typing as t

from ansible_collections.hms.postgres.tests.real import server_memory
from ansible_collections.hms.postgres.tests.real.ports import Port, keep_port

OS_USER = "postgres"
NAME = "hmstest"
DIRECTORY = "/var/tmp"
FIRST_PORT, LAST_PORT = 27000, 27999
VERSION = max((int(path.name) for path in pathlib.Path("/usr/lib/postgresql").glob("[0-9][0-9]")), default=0)
BINARIES = pathlib.Path(f"/usr/lib/postgresql/{VERSION}/bin")
REPLICATION_PASSWORD = "replication of the lab"
REWIND_RIGHTS = """
GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean), pg_catalog.pg_stat_file(text, boolean),
  pg_catalog.pg_read_binary_file(text), pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)
  TO hms_replication
"""

_STALE = re.compile(rf"^{NAME}(?P<pid>\d+)n\d+$")


def signal_all(pids: t.Iterable[int], number: int) -> list[int]:
    """A signal to each of them; those that it reached. One that has ended by itself meanwhile is no failure."""
    reached = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            reached.append(pid)
    return reached


def missing() -> str:
    """What this machine lacks for real tests, '' when it has everything."""
    if os.geteuid() != 0:
        return "real instances need root"
    lacking = [name for name in ("pg_createcluster", "psql", "pgbouncer", "runuser") if not shutil.which(name)]
    return f"not installed: {', '.join(lacking)}" if lacking or not VERSION else ""


def run(*argv: str, timeout: float = 120.0, check: bool = True, env: t.Mapping[str, str] | None = None) -> str:
    """Run a program to its end; its output, which goes through a file because servers keep it open."""
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
            cwd="/",
            env={"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": "/nonexistent", **(env or {})},
        )
        output.seek(0)
        text = output.read()
    assert done.returncode == 0 or not check, f"{' '.join(argv)} ended with {done.returncode}:\n{text}"
    return text


def as_postgres(*argv: str, timeout: float = 120.0, check: bool = True, env: t.Mapping[str, str] | None = None) -> str:
    """Run a program as the servers' user."""
    return run("runuser", "-u", OS_USER, "--", *argv, timeout=timeout, check=check, env=env)


def until(condition: t.Callable[[], bool], what: str, *, seconds: float = 60.0) -> None:
    """Wait for something to come true; on a machine that is busy or stalls that may take long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


def listed_instances() -> list[list[str]]:
    """The columns of pg_lsclusters. It fails when an instance vanishes under it, as another process's may."""
    output = ""
    for _attempt in range(100):
        output = run("pg_lsclusters", "--no-header", check=False)
        lines = [line.split() for line in output.splitlines() if line.strip()]
        if all(len(line) >= 6 and line[2].isdigit() for line in lines):
            return lines
        time.sleep(0.3)
    raise AssertionError(f"pg_lsclusters fails:\n{output}")


def _state(pid: int) -> str:
    """The kernel's letter for what a process does, '' for one that is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as source:
            return source.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return ""


def process_alive(pid: int) -> bool:
    """Whether a process lives; a zombie, not yet reaped, doesn't."""
    return _state(pid) not in ("Z", "X", "")


def working_in(folder: pathlib.Path | str) -> list[int]:
    """Living processes whose working directory is `folder`."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and os.readlink(entry / "cwd") == str(folder):
                found.append(int(entry.name))
    return [pid for pid in found if process_alive(pid)]


@dataclasses.dataclass(frozen=True)
class Instance:
    """One PostgreSQL instance of Debian's."""

    name: str
    port: int
    folder: pathlib.Path
    version: int = VERSION

    @property
    def data(self) -> pathlib.Path:
        """The data directory."""
        return self.folder / "data"

    @property
    def config(self) -> pathlib.Path:
        """Debian's configuration directory."""
        return pathlib.Path(f"/etc/postgresql/{self.version}/{self.name}")

    @property
    def sockets(self) -> pathlib.Path:
        """Where the socket is."""
        return self.folder / "run"

    @property
    def log(self) -> pathlib.Path:
        """The server's log."""
        return pathlib.Path(f"/var/log/postgresql/postgresql-{self.version}-{self.name}.log")

    def conninfo(self, user: str, *, dbname: str = "postgres", password: str = "", **more: str) -> str:
        """A connection over TCP."""
        pairs = {"host": "127.0.0.1", "port": str(self.port), "user": user, "dbname": dbname, **more}
        if password:
            pairs["password"] = password
        return " ".join(f"{key}='{value}'" for key, value in pairs.items())

    def sql(self, statement: str, *, dbname: str = "postgres") -> str:
        """What psql answers as superuser over the socket, one row a line, columns parted by |."""
        where = ("-h", str(self.sockets), "-p", str(self.port))
        options = ("-XqAt", "-v", "ON_ERROR_STOP=1")
        return as_postgres("psql", *options, *where, "-c", statement, dbname).strip()

    def login(self, conninfo: str, statement: str = "SELECT current_user") -> str:
        """What psql answers over any connection; the error's text when it is refused."""
        return as_postgres("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", statement, conninfo, check=False).strip()

    @property
    def pid(self) -> int | None:
        """The living postmaster; not who got the number of a dead one, whose file stays."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split()[0])
            ours = os.readlink(f"/proc/{pid}/cwd") == os.path.realpath(self.data)
        except (OSError, IndexError, ValueError):
            return None
        return pid if ours and process_alive(pid) else None

    def _ctl(self, *action: str) -> None:
        config = f"-c config_file={self.config}/postgresql.conf"
        as_postgres(
            str(BINARIES / "pg_ctl"), "-D", str(self.data), "-l", str(self.log), "-s", "-w", "-o", config, *action
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._ctl("start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it and wait until it is down; nothing when it is down."""
        if self.pid is not None:
            self._ctl("stop", "-m", mode)

    def kill(self) -> None:
        """SIGKILL for the postmaster and its children, as if the power went off."""
        pid = self.pid
        assert pid is not None, f"{self.name} is down"
        kill_server(pid)

    def promote(self) -> None:
        """Make a standby a primary."""
        assert self.sql("SELECT pg_promote()") == "t"

    def set(self, **settings: str) -> None:
        """ALTER SYSTEM and reload; then every new session, and whatever the server starts, goes by it."""
        for name, value in settings.items():
            self.sql(f"ALTER SYSTEM SET {name} = '{value}'")
        before = self.sql("SELECT pg_conf_load_time(), pg_reload_conf()").partition("|")[0]
        until(lambda: self.sql("SELECT pg_conf_load_time()") != before, f"{self.name} has read its settings")


@dataclasses.dataclass(frozen=True)
class Pooler:
    """One PgBouncer process."""

    port: int
    folder: pathlib.Path

    @property
    def config(self) -> pathlib.Path:
        """Its configuration file."""
        return self.folder / "pgbouncer.ini"

    @property
    def pid(self) -> int | None:
        """The living process."""
        try:
            pid = int((self.folder / "pgbouncer.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if process_alive(pid) else None

    def console(self, command: str) -> str:
        """What the admin console answers, over its own socket."""
        where = ("-h", str(self.folder), "-p", str(self.port), "-U", "pgbouncer")
        return as_postgres("psql", "-XqAt", *where, "-c", command, "pgbouncer").strip()

    def conninfo(self, user: str, *, dbname: str, password: str = "") -> str:
        """A connection through it."""
        secret = f" password='{password}'" if password else ""
        return f"host=127.0.0.1 port={self.port} user={user} dbname={dbname}{secret}"

    def start(self) -> None:
        """Start it and wait until its console answers."""
        as_postgres("pgbouncer", "-q", "-d", str(self.config))
        # its file is there before its socket
        where = ("-h", str(self.folder), "-p", str(self.port), "-U", "pgbouncer")
        ask = ("psql", "-XqAt", *where, "-c", "SHOW VERSION", "pgbouncer")
        until(lambda: self.pid is not None and as_postgres(*ask, check=False).startswith("PgBouncer"), "it answers")

    def stop(self) -> None:
        """End it at once."""
        pid = self.pid
        if pid is not None:
            signal_all([pid], signal.SIGKILL)
            until(lambda: not process_alive(pid), "the pooler is gone")


_HBA = """\
local all postgres peer
local all all trust
local replication postgres peer
host replication hms_replication 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
"""

_POOLER = """\
[databases]
{databases}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir = {folder}
auth_type = any
logfile = {folder}/pgbouncer.log
pidfile = {folder}/pgbouncer.pid
{settings}
"""


class Lab:
    """Makes instances and poolers, and removes what it made."""

    def __init__(self, directory: str = DIRECTORY) -> None:
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{NAME}-{os.getpid()}-", dir=directory))
        self.folder.chmod(0o755)
        self._instances: list[Instance] = []
        self._poolers: list[Pooler] = []
        self._ports: list[Port] = []

    def port(self) -> int:
        """A port that nobody listens on and no instance of this machine is configured for."""
        configured = {int(line[2]) for line in listed_instances()}
        self._ports.append(keep_port(FIRST_PORT, LAST_PORT, taken=configured))
        return self._ports[-1].number

    def name(self) -> str:
        """A name that no instance has."""
        taken = {path.name for path in pathlib.Path(f"/etc/postgresql/{VERSION}").glob("*")}
        taken |= {instance.name for instance in self._instances}
        number = 1
        while f"{NAME}{os.getpid()}n{number}" in taken:
            number += 1
        return f"{NAME}{os.getpid()}n{number}"

    def plan(self, name: str = "") -> Instance:
        """An instance that isn't there yet; it is removed like the others, should a test make it."""
        name = name or self.name()
        instance = Instance(name, self.port(), self.folder / name)
        instance.folder.mkdir()
        self._instances.append(instance)
        return instance

    def primary(self, name: str = "", *, start: bool = True, checksums: bool = True, **settings: str) -> Instance:
        """A new instance that can be a primary, with a role hms_replication; it syncs nothing to disk."""
        instance = self.plan(name)
        argv = ["pg_createcluster", "-d", str(instance.data), "-s", str(instance.sockets), "-p", str(instance.port)]
        argv += ["--start-conf", "manual", "-e", "UTF8", "--locale", "C.UTF-8", "-q", "--no-status"]
        argv += [str(instance.version), instance.name, "--", *(["--data-checksums"] if checksums else [])]
        run(*argv)
        self.configure(instance, **settings)
        if start:
            instance.start()
            instance.sql(f"CREATE ROLE hms_replication LOGIN REPLICATION PASSWORD '{REPLICATION_PASSWORD}'")
        return instance

    @staticmethod
    def configure(instance: Instance, **settings: str) -> None:
        """Write an instance's settings and who may log in."""
        wanted = {
            "listen_addresses": "127.0.0.1",
            "fsync": "off",
            "wal_log_hints": "on",
            "hot_standby": "on",
            "shared_buffers": "16MB",
            # in the data directory, which goes: a killed server would leave a megabyte in /dev/shm
            "dynamic_shared_memory_type": "mmap",
            "max_connections": "50",
            **settings,
        }
        text = "".join(f"{name} = '{value}'\n" for name, value in wanted.items())
        (instance.config / "conf.d" / "00-lab.conf").write_text(text)
        (instance.config / "pg_hba.conf").write_text(_HBA)

    def standby(self, upstream: Instance, name: str = "", *, start: bool = True, slot: bool = True) -> Instance:
        """A copy of `upstream` that follows it, through a slot of its own name."""
        instance = self.primary(name, start=False)
        shutil.rmtree(instance.data)
        address = upstream.conninfo(
            "hms_replication", password=REPLICATION_PASSWORD, application_name=instance.name
        ).replace(" dbname='postgres'", "")
        argv = [str(BINARIES / "pg_basebackup"), "-d", address, "-D", str(instance.data), "-R", "-c", "fast"]
        shutil.chown(instance.folder, OS_USER, OS_USER)
        as_postgres(*argv, *(["-C", "-S", instance.name] if slot else []))
        if start:
            instance.start()
            streams = f"SELECT count(*) FROM pg_stat_replication WHERE application_name = '{instance.name}'"
            until(lambda: upstream.sql(streams + " AND state = 'streaming'") == "1", f"{instance.name} streams")
        return instance

    def pooler(self, databases: t.Mapping[str, Instance | str], **settings: str) -> Pooler:
        """A PgBouncer that trusts everybody; `databases` maps each to an instance or a connection string."""
        folder = self.folder / f"pooler{len(self._poolers) + 1}"
        folder.mkdir()
        shutil.chown(folder, OS_USER, OS_USER)
        pooler = Pooler(self.port(), folder)
        entries = {
            name: f"host={to.sockets} port={to.port} user={OS_USER}" if isinstance(to, Instance) else to
            for name, to in databases.items()
        }
        pooler.config.write_text(
            _POOLER.format(
                databases="".join(f"{name} = {entry}\n" for name, entry in entries.items()),
                port=pooler.port,
                folder=folder,
                settings="".join(f"{name} = {value}\n" for name, value in settings.items()),
            )
        )
        self._poolers.append(pooler)
        pooler.start()
        return pooler

    def close(self) -> None:
        """Remove everything that was made."""
        for pooler in self._poolers:
            pooler.stop()
        for instance in reversed(self._instances):
            remove_instance(instance.name, instance.data)
        _remove_folder(self.folder)
        for port in self._ports:
            port.kept.close()


def kill_server(pid: int) -> None:
    """SIGKILL for a postmaster and its children; stopped before, it starts none while they are looked up."""
    signal_all([pid], signal.SIGSTOP)
    until(lambda: _state(pid) in ("T", "Z", "X", ""), f"{pid} has stopped")
    family = [pid, *map(int, run("pgrep", "-P", str(pid), check=False).split())]
    signal_all(family, signal.SIGKILL)
    until(lambda: not any(map(process_alive, family)), f"{family} are dead")


def remove_instance(name: str, data: pathlib.Path) -> None:
    """End an instance's server and remove what Debian's tools keep of it."""
    instance = Instance(name, 0, data.parent)
    pid = instance.pid
    if pid is not None:
        kill_server(pid)
    server_memory.free([data / "postmaster.pid"])
    run("pg_dropcluster", str(VERSION), name, check=False)
    shutil.rmtree(instance.config, ignore_errors=True)
    instance.log.unlink(missing_ok=True)


def clear_stale(directory: str = DIRECTORY) -> None:
    """Remove what interrupted runs left: instances and folders that hold the id of a process which is gone."""
    for path in pathlib.Path(f"/etc/postgresql/{VERSION}").glob(f"{NAME}*"):
        match = _STALE.match(path.name)
        if match and not process_alive(int(match["pid"])):
            found = re.search(r"^data_directory = '(?P<data>[^']+)'", _read(path / "postgresql.conf"), re.MULTILINE)
            remove_instance(path.name, pathlib.Path(found["data"] if found else "/nonexistent/data"))
    for folder in pathlib.Path(directory).glob(f"{NAME}-*"):
        pid = folder.name.split("-")[1]
        if pid.isdigit() and not process_alive(int(pid)):
            _remove_folder(folder)


def _remove_folder(folder: pathlib.Path) -> None:
    server_memory.free(folder.rglob("postmaster.pid"))
    shutil.rmtree(folder, ignore_errors=True)


def _read(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
