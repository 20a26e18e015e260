# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pipelines with real programs, of which one dies: who is named, and what is left."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import DeadlinePassed, HmsError, ToolFailed
from ansible_collections.hms.postgres.plugins.module_utils._pipeline import Pipeline, Stage
from ansible_collections.hms.postgres.plugins.module_utils._postgres import ConnectionParams
from ansible_collections.hms.postgres.plugins.module_utils._store.model import FolderSpec
from ansible_collections.hms.postgres.plugins.module_utils._store.open_store import open_store
from ansible_collections.hms.postgres.plugins.module_utils._tools.compressors import compress_stage
from ansible_collections.hms.postgres.plugins.module_utils._tools.pg_dump import PgDump
from ansible_collections.hms.postgres.tests.real.gpg_site import children_of, processes_with
from ansible_collections.hms.postgres.tests.real.lab import (
    BINARIES,
    OS_USER,
    Instance,
    Lab,
    process_alive,
    run,
    signal_all,
    until,
)

ROWS = 1_000_000
CHILD = """
import sys, time
sys.path.insert(0, {collections!r})
from ansible_collections.hms.postgres.plugins.module_utils._pipeline import Pipeline, Stage
stages = [
    Stage("stuck", ("/bin/sleep", {marker!r}), os_user={os_user!r}),
    Stage("busy", ("/bin/sh", "-c", "while :; do :; done", {marker!r}), os_user={os_user!r}),
    Stage("reader", ("/bin/sh", "-c", "exec 0<&-; exec sleep {marker}"), os_user={os_user!r}),
]
Pipeline(stages, deadline=time.monotonic() + 600.0).read(lambda data: None)
"""


@pytest.fixture(scope="module")
def server(module_lab: Lab) -> Instance:
    """A database that compresses badly, so that a dump of it takes a moment."""
    instance = module_lab.primary()
    columns = "n, md5(n::text) || md5((n * 7)::text) || md5((n * 13)::text) AS note"
    instance.sql(f"CREATE TABLE notes AS SELECT {columns} FROM generate_series(1, {ROWS}) AS n")
    return instance


def dump(server: Instance, *, lock_timeout: float = 30.0, options: t.Mapping[str, str] | None = None) -> Stage:
    params = ConnectionParams(host=str(server.sockets), port=server.port)
    program = PgDump(str(BINARIES / "pg_dump"), os_user=OS_USER)
    return program.stage(params, lock_timeout=lock_timeout, options=options)


def stages(server: Instance) -> list[Stage]:
    compress = compress_stage("zstd", os_user=OS_USER)
    assert compress is not None
    return [dump(server), compress, Stage("last", ("/usr/bin/tail", "-c", "+1"), os_user=OS_USER)]


def pipeline(*parts: Stage, seconds: float = 100.0) -> Pipeline:
    return Pipeline(parts, deadline=time.monotonic() + seconds, what="The dump")


PROGRAMS = {"pg_dump": "pg_dump", "zstd": "zstd", "last": "tail"}


def kill_child(comm: str) -> bool:
    found = [pid for pid, name in children_of(os.getpid()).items() if name == comm]
    return bool(signal_all(found, signal.SIGKILL))


@pytest.mark.parametrize("after", [0, 5_000_000, 15_000_000])
@pytest.mark.parametrize("stage", ["pg_dump", "zstd", "last"])
def test_a_stage_that_is_killed_is_named_whenever_it_dies(server: Instance, stage: str, after: int) -> None:
    taken, killed = 0, False

    def sink(data: bytes) -> None:
        nonlocal taken, killed
        taken += len(data)
        if taken > after and not killed:
            killed = kill_child(PROGRAMS[stage])
            assert killed, f"{stage} had ended when {after} bytes had come"

    with pytest.raises(ToolFailed) as caught:
        pipeline(*stages(server)).read(sink)
    assert killed
    assert caught.value.phase == stage
    assert f"{stage} was ended by SIGKILL" in caught.value.message
    assert children_of(os.getpid()) == {}


def test_one_killed_before_the_first_byte_is_named_too(server: Instance) -> None:
    """The dump waits for a lock; nobody would notice for a while."""
    with Locked(server):
        killer = threading.Thread(target=lambda: until(lambda: kill_child("zstd"), "zstd is there"))
        killer.start()
        with pytest.raises(ToolFailed) as caught:
            pipeline(*stages(server)).read(lambda _data: None)
        killer.join()
    assert caught.value.phase == "zstd"
    assert children_of(os.getpid()) == {}
    nobody_dumps(server)


class Locked:
    """Somebody holds the table as long as this goes on."""

    def __init__(self, server: Instance) -> None:
        self.server = server

    def __enter__(self) -> None:
        where = ["-h", str(self.server.sockets), "-p", str(self.server.port), "postgres"]
        script = "BEGIN; LOCK TABLE notes; SELECT pg_sleep(300)"
        argv = ["runuser", "-u", OS_USER, "--", "psql", "-Xq", "-c", script, *where]
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
        until(lambda: self._held() == "1", "the table is locked")

    def __exit__(self, *_reason: object) -> None:
        self.server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%'")
        self.process.wait(60.0)
        # its client is told of the end before the table is free: the next one would take this lock for its own
        until(lambda: self._held() == "0", "the table is free")

    def _held(self) -> str:
        held = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 'notes'"
        return self.server.sql(f"{held}::regclass")


def nobody_dumps(server: Instance) -> None:
    """The server has noticed that the dump is gone."""
    others = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hms.postgres'"
    until(lambda: server.sql(others) == "0", "the session of the dump is gone")


def test_the_deadline_ends_a_dump_that_waits_for_a_lock(server: Instance) -> None:
    with Locked(server):
        with pytest.raises(DeadlinePassed) as caught:
            pipeline(*stages(server), seconds=2.0).read(lambda _data: None)
        assert caught.value.phase == "pg_dump"
        nobody_dumps(server)
    assert children_of(os.getpid()) == {}


def test_a_dump_waits_for_a_lock_no_longer_than_it_may(server: Instance) -> None:
    with Locked(server), pytest.raises(ToolFailed) as caught:
        pipeline(dump(server, lock_timeout=0.5)).read(lambda _data: None)
    assert caught.value.phase == "pg_dump"
    assert "Query was: LOCK TABLE public.notes" in caught.value.message


def test_the_server_notices_a_killed_dump_that_waits_for_a_lock(server: Instance) -> None:
    with Locked(server):
        stage = dump(server, lock_timeout=300.0, options={"client_connection_check_interval": "500ms"})
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hms.postgres' AND wait_event_type = 'Lock'"
        )

        def kill() -> None:
            until(lambda: server.sql(waiting) == "1", "the dump waits")
            kill_child("pg_dump")

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(ToolFailed):
            pipeline(stage).read(lambda _data: None)
        killer.join()
        nobody_dumps(server)


def test_a_session_that_the_server_ends_is_pg_dump_s_failure(server: Instance) -> None:
    ended = False

    def sink(_data: bytes) -> None:
        nonlocal ended
        if not ended:
            ended = True
            server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'hms.postgres'")

    with pytest.raises(ToolFailed) as caught:
        pipeline(*stages(server)).read(sink)
    assert caught.value.phase == "pg_dump"
    assert 'Dumping the contents of table "notes" failed' in caught.value.message


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> t.Iterator[pathlib.Path]:
    """A file system of four mebibytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        run("umount", str(folder))


def test_a_full_disk_is_the_cause_and_nothing_stays(server: Instance, small_disk: pathlib.Path) -> None:
    store = open_store(FolderSpec(str(small_disk)))
    writer = store.create("a/b/c/data")
    try:
        with pytest.raises(HmsError) as caught:
            pipeline(*stages(server)).read(writer.write)
    finally:
        writer.abort()
    assert caught.value.reason == "store_full"
    assert children_of(os.getpid()) == {}
    assert [path for path in small_disk.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("os_user", [None, OS_USER])
def test_nothing_survives_our_own_violent_end(os_user: str | None, tmp_path: pathlib.Path) -> None:
    """Not even what waits, what is busy, and what reads and writes nothing."""
    marker = f"60{os.getpid()}{time.monotonic_ns()}"
    collections = str(pathlib.Path(__file__).resolve().parents[2] / ".collections")
    script = tmp_path / "child.py"
    script.write_text(CHILD.format(collections=collections, marker=marker, os_user=os_user))
    child = subprocess.Popen([sys.executable, str(script)], cwd="/")
    try:
        until(lambda: set(children_of(child.pid).values()) == {"sleep", "sh"} and len(children_of(child.pid)) == 3, "3")
        until(lambda: list(children_of(child.pid).values()).count("sleep") == 2, "all have begun")
        started = list(children_of(child.pid))
    finally:
        child.kill()
        child.wait(60.0)
    until(lambda: not any(process_alive(pid) for pid in started), "all are gone")
    assert processes_with(marker) == {}


NICE = """
import sys, time
sys.path.insert(0, {collections!r})
from ansible_collections.hms.postgres.plugins.module_utils._pipeline import Pipeline, Stage
known = "[ -e /proc/self/autogroup ] || break; grep -q ' nice 7$' /proc/self/autogroup && break; sleep 0.05"
wait = "for n in $(seq 800); do " + known + "; done"
stage = Stage("nice", ("/bin/sh", "-c", wait + "; nice; cat /proc/self/autogroup 2>/dev/null || echo none nice 7"))
Pipeline([stage], deadline=time.monotonic() + 60.0).read(sys.stdout.buffer.write)
"""


def test_programs_are_as_nice_as_we_are(tmp_path: pathlib.Path) -> None:
    """Also towards other sessions, whose processes the kernel weighs against ours as a group."""
    script = tmp_path / "nice.py"
    script.write_text(NICE.format(collections=str(pathlib.Path(__file__).resolve().parents[2] / ".collections")))
    answer = run("nice", "-n", str(7 - os.getpriority(os.PRIO_PROCESS, 0)), sys.executable, str(script)).split()
    assert answer[0] == "7"
    assert answer[-1] == "7"
