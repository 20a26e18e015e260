# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups that are killed, starved and pulled the rug from under, for real.

After each: no manifest, the last good backup untouched and still whole, a message that names the stage, no secret in
it, no process left, no plaintext, no scratch database, no lock.
"""

from __future__ import annotations

import contextlib
import datetime
import glob
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import threading
import time
import typing as t

import psycopg
import pytest

from ansible_collections.hms.postgres.plugins.module_utils._backup.dump import DumpOperation
from ansible_collections.hms.postgres.plugins.module_utils._backup.look import Ports
from ansible_collections.hms.postgres.plugins.module_utils._backup.manager import backup
from ansible_collections.hms.postgres.plugins.module_utils._backup.wishes import wish_from
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._postgres import connect
from ansible_collections.hms.postgres.tests.real import backup_site, held
from ansible_collections.hms.postgres.tests.real.backup_site import PASSPHRASE, Site, descendants, stage_pid
from ansible_collections.hms.postgres.tests.real.held import ProgramGate
from ansible_collections.hms.postgres.tests.real.lab import (
    BINARIES,
    Instance,
    Lab,
    as_postgres,
    process_alive,
    run,
    signal_all,
    until,
)

pytestmark = pytest.mark.timeout(400)

MARKER = "Patient-Zero-Marker-7731"
MEGABYTES = 60
SLOW: dict[str, t.Any] = {"compression_level": 12, "compression_threads": 1}
"""Compressed by one thread, which hands on what it has piece by piece, long before the last row."""


@pytest.fixture(scope="module")
def server(module_lab: Lab) -> Instance:
    """A server with a database that takes a while, whose rows can be recognised."""
    instance = module_lab.primary(shared_buffers="64MB")
    instance.sql("CREATE DATABASE hospital")
    instance.sql(
        f"CREATE TABLE marked AS SELECT '{MARKER} ' || n AS who FROM generate_series(1, 500) n", dbname="hospital"
    )
    backup_site.big_table(instance, "hospital", megabytes=MEGABYTES)
    return instance


@pytest.fixture
def site(server: Instance, tmp_path: pathlib.Path) -> t.Iterator[Site]:
    """A store with one good backup, which is still there and whole afterwards; nothing else is left."""
    made = Site(server, tmp_path / "site")
    good = made.backup(type="schema_only").values["backup"]
    before = backup_site.digest_of(made.store)
    yield made
    until(lambda: _sessions(server) == "0", "the server's sessions have ended")
    after = backup_site.digest_of(made.store)
    assert before.items() <= after.items(), "the last good backup was touched"
    for member in good["members"]:
        path = made.members(good["id"]) / member["name"]
        assert backup_site.sha256(path) == member["sha256"]
    assert server.sql("SELECT count(*) FROM pg_database WHERE datname LIKE 'hms_verify%'") == "0"
    assert _plaintext(made.folder) == []
    assert backup_site.remnants_in_memory(os.getpid()) == []


def _sessions(server: Instance) -> str:
    return server.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'hms.postgres%'")


def _plaintext(folder: pathlib.Path) -> list[str]:
    """Files below a folder that hold the marker: a database's row, readable."""
    return run("grep", "-rla", MARKER, str(folder), check=False).split()


def in_the_making(site: Site) -> int:
    """Bytes of the data member that are written by now."""
    sizes = [0]
    for path in glob.glob(f"{site.store}/**/.data.dump*.part", recursive=True):
        with contextlib.suppress(FileNotFoundError):
            sizes.append(os.stat(path).st_size)
    return max(sizes)


class Watch:
    """Every process that a module's process ever had, and every argument of theirs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.seen: set[int] = set()
        self.arguments: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.is_set():
            found = descendants(self._pid)
            self.seen |= found
            self.arguments |= {backup_site.command_line(pid) for pid in found | {self._pid}}
            time.sleep(0.01)

    def let_the_seen(self, gate: ProgramGate) -> bool:
        """Look at the arguments of all who wait at a gate, then let them go; never true, for whoever polls."""
        for pid in gate.waiting():
            self.arguments |= {backup_site.command_line(pid)}
            gate.let(pid)
        return False

    def end(self) -> None:
        """Stop watching; every process is gone within seconds."""
        self._stop.set()
        self._thread.join()
        until(lambda: not any(process_alive(pid) for pid in self.seen), f"{self._alive()} have ended")

    def _alive(self) -> list[str]:
        return [backup_site.command_line(pid) for pid in self.seen if process_alive(pid)]


def _usable(site: Site) -> None:
    """Nothing of the dead run is in the way of the next one."""
    count = len(site.manifests())
    assert site.backup(type="schema_only").values["backup"]["verification"]["ok"]
    assert len(site.manifests()) == count + 1


DUMPING: dict[str, t.Callable[[Site, int], bool]] = {
    "the dump has begun": lambda _site, pid: stage_pid(pid, "pg_dump") is not None,
    "some bytes are stored": lambda site, _pid: in_the_making(site) > 1_000_000,
    "much of it is stored": lambda site, _pid: in_the_making(site) > MEGABYTES * 100_000,
}
READ_BACK = "it is read back"


def _wait_for(moment: str, site: Site, process: subprocess.Popen[bytes]) -> None:
    until(lambda: DUMPING[moment](site, process.pid) or process.poll() is not None, moment, seconds=100)
    assert process.poll() is None, f"too late: {site.module_output()}"


@contextlib.contextmanager
def module_at(moment: str, site: Site, **changes: t.Any) -> t.Iterator[tuple[subprocess.Popen[bytes], Watch]]:
    """The module at work and whoever watches it. It gets no further than to this moment as long as this goes on."""
    if moment == READ_BACK:
        with read_back(site, **changes) as (process, watch):
            yield process, watch
        return
    with held.unread(site.instance, site.database, "notes"):
        process = site.start_module(**changes)
        watch = Watch(process.pid)
        _wait_for(moment, site, process)
        yield process, watch


@contextlib.contextmanager
def read_back(site: Site, **changes: t.Any) -> t.Iterator[tuple[subprocess.Popen[bytes], Watch]]:
    """The module while it reads the data back: pg_restore has the beginning, and zstd is stopped, so no more comes."""
    folder = site.instance.folder / f"restore-{time.monotonic_ns()}"
    folder.mkdir()
    gate = ProgramGate(folder, BINARIES / "pg_restore")
    process = site.start_module(prefix=gate.prefix, **changes)
    watch = Watch(process.pid)
    # the small members come first
    reader = gate.hold(process, lambda _pid: _reads_data(process.pid), "the data is read back")
    feeder = stage_pid(process.pid, "zstd")
    assert feeder is not None
    os.kill(feeder, signal.SIGSTOP)
    gate.let(reader)
    until(lambda: stage_pid(process.pid, "pg_restore") == reader, "pg_restore reads")
    try:
        yield process, watch
    finally:
        signal_all([feeder], signal.SIGCONT)
        gate.open()


@pytest.mark.parametrize("moment", [*DUMPING, READ_BACK])
def test_the_module_is_killed(site: Site, moment: str, tmp_path: pathlib.Path) -> None:
    with backup_site.keys_in(tmp_path) as keys:
        encryption = {"recipients": ["ops@example.org"], "key_files": [str(keys.make("ops@example.org"))]}
        with module_at(moment, site, encryption=encryption, **SLOW) as (process, watch):
            process.kill()
            process.wait(100)
    watch.end()
    assert len(site.manifests()) == 1
    # what it left can't be taken for a backup, and the private key of its verification can't be used by anybody else
    for home in backup_site.remnants_in_memory(process.pid):
        assert home.stat().st_mode & 0o777 == 0o700
        shutil.rmtree(home)  # as the next run does, a minute later
    _usable(site)


@pytest.mark.parametrize("moment", ["some bytes are stored", READ_BACK])
def test_the_module_is_told_to_end(site: Site, moment: str) -> None:
    with module_at(moment, site, encryption={"passphrase": PASSPHRASE}, **SLOW) as (process, watch):
        process.terminate()
        assert process.wait(100) == 1
    watch.end()
    assert backup_site.remnants_in_memory(process.pid) == []
    found = site.module_output()
    assert (found["reason"], "SIGTERM" in found["msg"]) == ("interrupted", True)
    assert len(site.manifests()) == 1
    assert site.loose() == []
    (record,) = [
        json.loads(path.read_bytes())
        for path in (site.state / "records").glob("*.json")
        if path.stem not in {manifest["id"] for manifest in site.manifests()}
    ]
    assert record["outcome"]["status"] == "failed"
    _usable(site)


@pytest.mark.parametrize("program", ["pg_dump", "zstd", "gpg"])
@pytest.mark.parametrize("moment", ["some bytes are stored", "much of it is stored"])
def test_a_stage_is_killed(site: Site, program: str, moment: str) -> None:
    with module_at(moment, site, encryption={"passphrase": PASSPHRASE}, **SLOW) as (process, watch):
        victim = stage_pid(process.pid, program)
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
    assert process.wait(100) == 1
    watch.end()
    assert backup_site.remnants_in_memory(process.pid) == []
    found = site.module_output()
    assert (found["reason"], found["phase"]) == ("stage_failed", program)
    assert f"{program} was ended by SIGKILL" in found["msg"]
    assert "nothing of it is left in the store" in found["state"]
    assert len(site.manifests()) == 1
    assert site.loose() == []
    _usable(site)


@pytest.mark.parametrize("program", ["gpg", "zstd", "pg_restore"])
def test_a_stage_of_the_verification_is_killed(site: Site, program: str) -> None:
    """What could not be read to its end is not verified, so it is no backup."""
    with read_back(site, encryption={"passphrase": PASSPHRASE}, compression_level=1) as (process, watch):
        victim = stage_pid(process.pid, program)
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
    assert process.wait(100) == 1
    watch.end()
    found = site.module_output()
    assert found["reason"] == "verification_failed"
    assert program in found["msg"]
    assert len(site.manifests()) == 1
    assert site.loose() == []


def _reads_data(pid: int) -> bool:
    with contextlib.suppress(OSError):
        folder = pathlib.Path(f"/proc/{pid}/fd")
        return any("data.dump" in os.readlink(entry) for entry in folder.iterdir())
    return False


def test_no_secret_in_any_argument_or_record(site: Site, server: Instance) -> None:
    server.sql("CREATE ROLE dumper SUPERUSER LOGIN PASSWORD 'Geheimnis-4711'")
    try:
        secrets = {"login_user": "dumper", "login_host": "127.0.0.1", "login_password": "Geheimnis-4711"}
        folder = server.folder / "secrets"
        folder.mkdir()
        programs = [BINARIES / name for name in ("pg_dump", "pg_dumpall", "pg_restore")]
        gate = ProgramGate(folder, *programs, "/usr/bin/zstd", "/usr/bin/gpg")
        process = site.start_module(prefix=gate.prefix, encryption={"passphrase": PASSPHRASE}, verify="deep", **secrets)
        watch = Watch(process.pid)
        # none of them goes on before its arguments have been seen
        until(lambda: watch.let_the_seen(gate) or process.poll() is not None, "the backup is made", seconds=100)
        watch.end()
        assert process.returncode == 0, site.module_output()
        seen = " ".join(watch.arguments)
        assert {"pg_dump", "zstd", "gpg", "pg_restore", "pg_dumpall"} <= set(re.findall(r"[\w]+", seen))
        written = (site.folder / "module.out").read_text(encoding="utf-8")
        for path in site.state.rglob("*"):
            written += path.read_text(encoding="utf-8") if path.is_file() else ""
        written += site.members(site.module_output()["id"]).joinpath("manifest.json").read_text(encoding="utf-8")
        for secret in ("Geheimnis-4711", PASSPHRASE, PASSPHRASE[:8]):
            assert secret not in seen
            assert secret not in written
    finally:
        until(lambda: _sessions(server) == "0", "sessions have ended")
        server.sql("DROP ROLE dumper")


def test_the_store_runs_full(site: Site, tmp_path: pathlib.Path) -> None:
    """The estimate has nothing to go by, so it starts, and finds out."""
    folder = tmp_path / "small"
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=8m", "hmstest", str(folder))
    try:
        tried: list[dict[str, t.Any]] = [{}, {"encryption": {"passphrase": PASSPHRASE}}]
        for changes in tried:
            with pytest.raises(HmsError) as caught:
                site.backup(store={"folder": str(folder)}, **changes)
            assert caught.value.reason == "store_full"
            assert str(folder) in caught.value.message
            assert "Make room" in caught.value.next_step
            assert list(folder.rglob("*")) == []
    finally:
        run("umount", str(folder))


class Hook:
    """Runs something in this process at the moment when pg_dump is started for the data, before it connects.

    The stand-in for pg_dump says that it is there, waits until it may go on, and becomes the real one.
    """

    def __init__(self, site: Site, tmp_path: pathlib.Path) -> None:
        self._site = site
        self._folder = tmp_path / "bin"
        self._folder.mkdir()
        self._folder.chmod(0o755)
        self.reached, self.go = self._folder / "reached", self._folder / "go"
        for name in ("pg_dumpall", "pg_restore"):
            (self._folder / name).symlink_to(BINARIES / name)
        (self._folder / "pg_dump").write_text(
            f'#!/bin/sh\ncase "$*" in *--blobs*) touch {self.reached}; while [ ! -e {self.go} ]; do sleep 0.02; done;;'
            f' esac\nexec {BINARIES}/pg_dump "$@"\n'
        )
        (self._folder / "pg_dump").chmod(0o755)
        tmp_path.chmod(0o755)
        shutil.chown(self._folder, "postgres")

    def run(self, between: t.Callable[[], None], **changes: t.Any) -> dict[str, t.Any]:
        """A backup with `between` done before the data is dumped."""
        ports = Ports(
            runner=SystemRunner(),
            clock=SystemClock(),
            connect=lambda params: connect(params, os_user="postgres"),
            host="here",
            by="test",
            directories=(str(self._folder),),
        )
        trouble: list[BaseException] = []

        def meanwhile() -> None:
            try:
                until(lambda: os.path.exists(self.reached), "pg_dump is started")
                between()
            except BaseException as error:  # noqa: BLE001  raised again in the test's own thread
                trouble.append(error)
            finally:
                self.go.touch()

        thread = threading.Thread(target=meanwhile)
        thread.start()
        try:
            done = DumpOperation(wish_from(self._site.arguments(**changes)), ports).run(check_mode=False)
        finally:
            thread.join()
        assert not trouble, trouble
        found: dict[str, t.Any] = done.values["backup"]
        return found


def test_truncate_between_snapshot_and_dump(site: Site, server: Instance, tmp_path: pathlib.Path) -> None:
    """Without the leader's locks the table comes out empty, with exit code 0. Proven first, so that the test is one."""
    server.sql("CREATE TABLE fleeting AS SELECT n FROM generate_series(1, 321) n", dbname="hospital")
    try:
        with psycopg.connect(_where(server)) as naive:
            naive.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            (snapshot,) = naive.execute("SELECT pg_export_snapshot()").fetchone() or ("",)
            server.sql("TRUNCATE fleeting", dbname="hospital")
            argv = [
                str(BINARIES / "pg_dump"),
                "-h",
                str(server.sockets),
                "-p",
                str(server.port),
                "-a",
                "-t",
                "fleeting",
            ]
            text = as_postgres(*argv, f"--snapshot={snapshot}", "hospital")
            assert "COPY public.fleeting (n) FROM stdin;\n\\.\n" in text
        server.sql("INSERT INTO fleeting SELECT n FROM generate_series(1, 321) n", dbname="hospital")
        refusals = []

        def truncate() -> None:
            told = server.login(
                f"host={server.sockets} port={server.port} dbname=hospital user=postgres",
                "SET lock_timeout = 300; TRUNCATE fleeting",
            )
            refusals.append(as_postgres_truncate(server) + told)

        made = Hook(site, tmp_path).run(truncate, verify="deep")
        assert "lock timeout" in refusals[0]
        assert made["contents"]["rows"]["public.fleeting"] == 321
        archive = backup_site.plain(site.members(made["id"]) / "data.dump.zst")
        backup_site.restore(server, archive, "whole")
        assert server.sql("SELECT count(*) FROM fleeting", dbname="whole") == "321"
    finally:
        server.sql("DROP TABLE fleeting", dbname="hospital")
        backup_site.drop(server, "whole")


def as_postgres_truncate(server: Instance) -> str:
    where = ("-h", str(server.sockets), "-p", str(server.port))
    return as_postgres(
        "psql", "-Xq", *where, "-c", "SET lock_timeout = 300; TRUNCATE fleeting", "hospital", check=False
    )


def _where(server: Instance, dbname: str = "hospital") -> str:
    """A superuser's connection over TCP, for which a password is set."""
    server.sql("ALTER ROLE postgres PASSWORD 'postgres of the lab'")
    return server.conninfo("postgres", dbname=dbname, password="postgres of the lab")


def test_a_migration_that_waits_at_the_wrong_moment(site: Site, server: Instance, tmp_path: pathlib.Path) -> None:
    """It stands in the queue before pg_dump, behind the leader: a circle that the server can't see. We begin again."""
    server.sql("CREATE TABLE changing AS SELECT n FROM generate_series(1, 10) n", dbname="hospital")
    done: list[str] = []
    migration = threading.Thread(
        target=lambda: done.append(server.sql("ALTER TABLE changing ADD COLUMN more int DEFAULT 5", dbname="hospital"))
    )
    try:

        def alter() -> None:
            migration.start()
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'changing'::regclass"
            until(lambda: server.sql(waiting, dbname="hospital") == "1", "the migration waits")

        made = Hook(site, tmp_path).run(alter)
        migration.join(60)
        assert done == [""]
        archive = backup_site.plain(site.members(made["id"]) / "data.dump.zst")
        backup_site.restore(server, archive, "migrated")
        assert server.sql("SELECT sum(more) FROM changing", dbname="migrated") == "50"
        assert site.loose() == []
    finally:
        server.sql("DROP TABLE changing", dbname="hospital")
        backup_site.drop(server, "migrated")


def test_tables_that_come_and_go(site: Site, server: Instance) -> None:
    """Created and dropped all the time by somebody else, as by an import: nothing fails, and nothing is missing.

    Between two changes there is as much time as ten of them take, on a slow machine too: who looks at all tables and
    locks them needs some of it undisturbed.
    """
    stop, where = threading.Event(), _where(server)

    def churn() -> None:
        with psycopg.connect(where, autocommit=True) as connection:
            number = 0
            while not stop.is_set():
                number += 1
                begun = time.monotonic()
                connection.execute(f"CREATE TABLE IF NOT EXISTS churn_{number % 7} AS SELECT 1 AS n")
                connection.execute("SET lock_timeout = '20ms'")
                with contextlib.suppress(psycopg.errors.LockNotAvailable):
                    connection.execute(f"DROP TABLE IF EXISTS churn_{(number + 3) % 7}")
                time.sleep(max(0.02, 10 * (time.monotonic() - begun)))
            connection.execute("SET lock_timeout = 0")
            for number in range(7):
                connection.execute(f"DROP TABLE IF EXISTS churn_{number}")

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        made = site.backup(verify="deep").values["backup"]
    finally:
        stop.set()
        thread.join(60)
    assert made["contents"]["rows"]["public.marked"] == 500
    assert made["verification"]["ok"]


def test_the_database_is_dropped_meanwhile(server: Instance, tmp_path: pathlib.Path) -> None:
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'hospital' AND backend_type = 'client backend'"
    until(lambda: server.sql(others) == "0", "nobody is in the database that is copied")
    server.sql("CREATE DATABASE doomed TEMPLATE hospital")
    doomed = Site(server, tmp_path / "doomed", database="doomed")
    with module_at("some bytes are stored", doomed, **SLOW) as (process, watch):
        server.sql("DROP DATABASE doomed WITH (FORCE)")
        assert process.wait(100) == 1
    watch.end()
    found = doomed.module_output()
    assert (found["reason"], found["phase"]) == ("stage_failed", "pg_dump")
    assert "DROP DATABASE" in found["next_step"]
    assert doomed.manifests() == []
    assert doomed.loose() == []


def test_the_server_dies_meanwhile(lab: Lab, tmp_path: pathlib.Path) -> None:
    instance = lab.primary()
    instance.sql("CREATE DATABASE hospital")
    backup_site.big_table(instance, "hospital", megabytes=MEGABYTES)
    site = Site(instance, tmp_path / "site")
    with module_at("some bytes are stored", site, **SLOW) as (process, watch):
        instance.kill()
        assert process.wait(100) == 1
    watch.end()
    found = site.module_output()
    assert found["phase"] == "pg_dump"
    assert (site.manifests(), site.loose()) == ([], [])


class LyingClock(SystemClock):
    """A host's clock that says whatever it was set to."""

    def __init__(self, year: int) -> None:
        self._year = year

    def now(self) -> datetime.datetime:
        return datetime.datetime(self._year, 1, 1, tzinfo=datetime.timezone.utc)


@pytest.mark.parametrize("year", [1999, 2077])
def test_the_hosts_clock_lies(site: Site, server: Instance, year: int) -> None:
    """Ids, stamps and ages come from the database server; nothing is removed because the host thinks it is 2077."""
    wish = wish_from(site.arguments(retention={"days": 3}))
    today = "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')"
    before = server.sql(today)
    done = backup(wish, check_mode=False, runner=SystemRunner(), clock=LyingClock(year), by="test")
    made = done.values["backup"]
    assert before <= made["id"][:8] <= server.sql(today)
    assert done.values["removed"] == []
    assert made["started"] <= made["ended"] <= made["verification"]["at"]


def test_the_servers_clock_was_set_back(site: Site) -> None:
    """The catalog has a backup from the future: the new one still sorts after it, and it is said."""
    (old,) = site.manifests()
    future = "20770101T000000Z-backup-beef"
    folder = site.members(old["id"])
    shutil.copytree(folder, folder.parent / future)
    manifest = {**old, "id": future, "started": "2077-01-01T00:00:00.000Z", "ended": "2077-01-01T00:00:00.000Z"}
    (folder.parent / future / "manifest.json").write_text(json.dumps(manifest))
    try:
        done = site.backup(retention={"days": 1})
        assert done.values["id"].startswith("20770101T000001Z-backup-")
        assert any("set back" in warning for warning in done.warnings)
        assert done.values["removed"] == []
    finally:
        backup_site.remove_tree(folder.parent / future)
