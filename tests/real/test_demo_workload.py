# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo's writers and the judge, against a real PostgreSQL behind a real PgBouncer (TLS, SCRAM).

psql is the oracle: it deletes rows behind the judge's back, counts them, and locks the table.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import typing as t

import pytest

from ansible_collections.hms.postgres.tests.real.engine_hosts import descendants
from ansible_collections.hms.postgres.tests.real.lab import Lab, process_alive, until

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOSPITAL = ROOT / "playbooks" / "files" / "hospital"
PYTHON = "/usr/bin/python3"
BINARIES = max(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), default=pathlib.Path("/nonexistent"))

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not (BINARIES / "initdb").exists() or not shutil.which("pgbouncer"),
    reason="needs root, PostgreSQL and PgBouncer",
)


def as_postgres(*argv: str) -> str:
    """Run a program as postgres to its end."""
    done = subprocess.run(
        ["runuser", "-u", "postgres", "--", *argv], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@dataclasses.dataclass
class Site:
    """A server and a PgBouncer of the test's own."""

    folder: pathlib.Path
    port: int
    pooler_port: int
    nobody_s_port: int

    @property
    def data(self) -> pathlib.Path:
        """The data directory."""
        return self.folder / "data"

    def psql(self, sql: str) -> str:
        """What psql answers, as superuser, past PgBouncer."""
        argv = [
            "psql",
            "-XqAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            str(self.folder),
            "-p",
            str(self.port),
            "-c",
            sql,
            "hospital",
        ]
        return as_postgres(*argv).strip()

    def waiting(self) -> int:
        """Writers that wait for a lock on the ledger."""
        return int(self.psql("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'ledger_entry'::regclass"))

    def server(self, *action: str) -> None:
        """pg_ctl, without waiting for what it left running to close its output."""
        log = str(self.folder / "server.log")
        as_postgres(str(BINARIES / "pg_ctl"), "-D", str(self.data), "-l", log, "-s", "-w", *action)

    def start_again(self) -> None:
        """Start after a crash; the killed postmaster counts as running until the machine's first process reaps it."""
        deadline = time.monotonic() + 60.0
        while True:
            try:
                return self.server("start")
            except AssertionError:
                assert time.monotonic() < deadline, (self.folder / "server.log").read_text()[-2000:]
                time.sleep(0.2)

    def endpoint(self, user: str) -> str:
        """Through PgBouncer, its certificate checked."""
        return (
            f"host=127.0.0.1 port={self.pooler_port} dbname=hospital user={user} passfile={self.folder}/pass"
            f" sslmode=verify-ca sslrootcert={self.folder}/cert.pem"
        )

    def workload(self, *arguments: str, rc: int = 0) -> dict[str, t.Any]:
        """One command of the tool, as the demo runs it."""
        argv = [PYTHON, "-m", "module_utils._workload.program", *arguments]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "plugins")}
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=environment)
        assert done.returncode == rc, done.stderr
        answer: dict[str, t.Any] = json.loads(done.stdout)
        return answer

    def start(self, run: pathlib.Path, *more: str) -> dict[str, t.Any]:
        """Writers in the background."""
        endpoint = ("--endpoint", self.endpoint("hospital_app"))
        return self.workload("start", "--directory", str(run), *endpoint, "--max-seconds", "60", *more)


POOLER = """
[databases]
hospital = host=127.0.0.1 port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {pooler_port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users.txt
pool_mode = transaction
server_login_retry = 1
client_tls_sslmode = require
client_tls_key_file = {folder}/key.pem
client_tls_cert_file = {folder}/cert.pem
logfile = {folder}/pooler.log
pidfile = {folder}/pooler.pid
"""

USERS = 'SELECT format(\'"%s" "%s"\', rolname, rolpassword) FROM pg_authid WHERE rolpassword IS NOT NULL'


def build(folder: pathlib.Path, lab: Lab) -> Site:
    """initdb, roles, database, PgBouncer. Their ports are none that the machine gives to a client."""
    shutil.chown(folder, "postgres", "postgres")
    site = Site(folder, lab.port(), lab.port(), lab.port())
    as_postgres(str(BINARIES / "initdb"), "-D", str(site.data), "-A", "trust", "-N")
    with open(site.data / "postgresql.conf", "a", encoding="utf-8") as settings:
        settings.write(f"port={site.port}\nlisten_addresses='127.0.0.1'\nunix_socket_directories='{folder}'\n")
    site.server("start")
    connection = ("-h", str(folder), "-p", str(site.port), "-Xq", "-v", "ON_ERROR_STOP=1")
    for sql in (
        "CREATE ROLE hospital_owner LOGIN PASSWORD 'owner-word'",
        "CREATE ROLE hospital_app LOGIN PASSWORD 'app-word'",
        "CREATE DATABASE hospital OWNER hospital_owner",
    ):
        as_postgres("psql", *connection, "-c", sql, "postgres")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{folder}/key.pem"]
    as_postgres("openssl", "req", "-x509", *key, "-out", f"{folder}/cert.pem", "-days", "2", *subject)
    (folder / "users.txt").write_text(site.psql(USERS) + "\n")
    (folder / "pooler.ini").write_text(POOLER.format(port=site.port, pooler_port=site.pooler_port, folder=folder))
    (folder / "pass").write_text("*:*:*:hospital_app:app-word\n*:*:*:hospital_owner:owner-word\n")
    (folder / "pass").chmod(0o600)
    as_postgres("pgbouncer", "-d", f"{folder}/pooler.ini")
    return site


@pytest.fixture(scope="module")
def site(module_lab: Lab) -> t.Iterator[Site]:
    """A hospital of the test's own, gone afterwards."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="hms-test-demo-"))
    found: Site | None = None
    try:
        found = build(folder, module_lab)
        files = [str(HOSPITAL / "schema.sql"), str(HOSPITAL / "data.sql")]
        found.workload("load", "--endpoint", found.endpoint("hospital_owner"), *files)
        yield found
    finally:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((folder / "pooler.pid").read_text()), signal.SIGTERM)
        if found is not None:
            with contextlib.suppress(AssertionError):  # a test may have killed it
                found.server("stop", "-m", "immediate")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def run(site: Site, tmp_path: pathlib.Path) -> t.Iterator[pathlib.Path]:
    """A run's folder; its writers end with the test."""
    folder = tmp_path / "run"
    yield folder
    if folder.exists():
        site.workload("stop", "--directory", str(folder))


def test_the_hospital_is_loaded_and_always_the_same(site: Site) -> None:
    fingerprint = "SELECT md5(string_agg(p::text, '' ORDER BY id)) FROM patients_patient p"
    files = [str(HOSPITAL / "schema.sql"), str(HOSPITAL / "data.sql")]
    before = site.psql(fingerprint)
    loaded = site.workload("load", "--endpoint", site.endpoint("hospital_owner"), *files)
    assert site.psql(fingerprint) == before
    assert loaded["rows"] > 30_000
    assert loaded["seconds"] > 0
    assert site.psql("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'") == "hospital_owner"


def test_the_application_can_t_rewrite_the_audit_trail(site: Site) -> None:
    for table, right, expected in (
        ("patients_patient", "UPDATE", "t"),
        ("audit_auditlog", "INSERT", "t"),
        ("audit_auditlog", "UPDATE", "f"),
        ("audit_auditlog", "DELETE", "f"),
        ("ledger_entry", "DELETE", "f"),
    ):
        assert site.psql(f"SELECT has_table_privilege('hospital_app', 'public.{table}', '{right}')") == expected


def test_another_s_tables_are_never_dropped(site: Site) -> None:
    site.psql("COMMENT ON TABLE public.users_user IS 'somebody''s own'")
    try:
        argv = ("load", "--endpoint", site.endpoint("hospital_owner"), str(HOSPITAL / "schema.sql"))
        answer = site.workload(*argv, rc=1)
        assert "was not made by the demo" in answer["error"]["message"]
        assert site.psql("SELECT count(*) FROM public.users_user") == "400"
    finally:
        site.psql("COMMENT ON TABLE public.users_user IS 'hms.postgres demo: made-up data'")


def acknowledged(run: pathlib.Path) -> list[list[float]]:
    """For each writer, when its writes were acknowledged."""
    found = []
    for path in sorted(run.glob("writer-*.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        found.append([line[2] + line[3] for line in lines if line[4] == "acked"])
    return found


def all_write(run: pathlib.Path, writers: int, *, since: float = 0.0) -> bool:
    """Whether each of them had some writes acknowledged since a moment."""
    counts = [sum(at >= since for at in moments) for moments in acknowledged(run)]
    return len(counts) == writers and min(counts) > 5


def test_all_that_was_acknowledged_is_there_and_what_is_not_is_found(site: Site, run: pathlib.Path) -> None:
    site.start(run, "--writers", "4", "--rate", "50")
    until(lambda: all_write(run, 4), "all of them write")
    verdict = site.workload("judge", "--stop", "--directory", str(run))
    assert verdict["acknowledged"] > 20
    assert (verdict["failed"], verdict["unknown"], verdict["lost"], verdict["unrecorded"]) == (0, 0, 0, 0)
    rows = int(site.psql("SELECT count(*) FROM ledger_entry"))
    assert rows == verdict["acknowledged"]
    booked = "SELECT count(*) FROM appointments_appointment WHERE reason LIKE 'Booked online by writer %'"
    assert int(site.psql(booked)) == rows

    seq = int(
        site.psql(
            "DELETE FROM ledger_entry WHERE (source, seq) = (2, (SELECT min(seq) FROM ledger_entry)) RETURNING seq"
        )
    )
    site.psql("INSERT INTO ledger_entry (source, seq) VALUES (3, 999999)")
    verdict = site.workload("judge", "--directory", str(run), rc=3)
    assert (verdict["lost"], verdict["unrecorded"]) == (1, 1)
    assert [(lost["source"], lost["seq"]) for lost in verdict["examples"]] == [(2, seq)]


def test_a_second_run_needs_its_own_folder_or_a_word(site: Site, run: pathlib.Path) -> None:
    site.start(run, "--writers", "2")
    answer = site.workload("start", "--directory", str(run), "--endpoint", site.endpoint("hospital_app"), rc=1)
    assert answer["error"]["reason"] == "run_exists"
    answer = site.workload("judge", "--directory", str(run), rc=1)
    assert answer["error"]["reason"] == "still_running"
    site.start(run, "--writers", "1", "--replace")
    assert [path.name for path in sorted(run.glob("writer-*.jsonl"))] == ["writer-1.jsonl"]


def test_writers_that_reach_nothing_are_said_to_and_ended(site: Site, run: pathlib.Path) -> None:
    good = site.endpoint("hospital_app")
    wrong = good.replace(f"port={site.pooler_port}", f"port={site.nobody_s_port}")
    argv = (
        "start",
        "--directory",
        str(run),
        "--endpoint",
        good,
        "--endpoint",
        wrong,
        "--writers",
        "2",
        "--ready-timeout",
        "8",
    )
    answer = site.workload(*argv, rc=1)
    assert answer["error"]["reason"] == "writers_not_ready"
    assert "1 of 2 writers" in answer["error"]["message"]
    assert site.workload("stop", "--directory", str(run)) == {"stopped": False}


def test_a_writer_that_waits_for_its_answer_can_be_stopped(site: Site, run: pathlib.Path) -> None:
    """Its last transaction waits for a lock; told to end, it gives up after some seconds and says so."""
    site.start(run, "--writers", "2", "--rate", "50")
    connection = ("-h", str(site.folder), "-p", str(site.port), "-Xq")
    lock = "BEGIN; LOCK TABLE ledger_entry IN EXCLUSIVE MODE; SELECT pg_sleep(600)"
    with subprocess.Popen(["runuser", "-u", "postgres", "--", "psql", *connection, "-c", lock, "hospital"]) as holder:
        until(lambda: site.waiting() == 2, "both writers wait")
        site.workload("stop", "--directory", str(run))
        assert holder.poll() is None, "it ended only with the lock that it waited for"
        site.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%'")
        holder.wait(60)
    verdict = site.workload("judge", "--directory", str(run))
    assert (verdict["failed"], verdict["unknown"], verdict["lost"]) == (2, 0, 0)
    last = [json.loads(path.read_text().splitlines()[-1]) for path in sorted(run.glob("writer-*.jsonl"))]
    assert {line[5] for line in last} == {"work: the writer was told to end while it waited"}


def test_writers_end_when_their_supervisor_is_killed(site: Site, run: pathlib.Path) -> None:
    pid = site.start(run, "--writers", "2", "--rate", "50")["pid"]
    writers = descendants(pid)
    assert len(writers) == 2
    os.kill(pid, signal.SIGKILL)
    until(lambda: not any(process_alive(writer) for writer in writers), "the writers end")
    size = [path.stat().st_size for path in sorted(run.glob("writer-*.jsonl"))]
    time.sleep(0.3)
    assert [path.stat().st_size for path in sorted(run.glob("writer-*.jsonl"))] == size


def test_a_killed_server_makes_a_stall_and_nothing_acknowledged_is_lost(site: Site, run: pathlib.Path) -> None:
    """The whole instance dies by SIGKILL and is started again: crash recovery must bring back what was acknowledged."""
    site.start(run, "--writers", "8", "--rate", "0")
    clients = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename = 'hospital_app'"
    until(lambda: all_write(run, 8) and int(site.psql(clients)) > 3, "all of them write")
    killed = site.workload("kill", "--data-directory", str(site.data), "--directory", str(run))
    assert killed["processes"] > 8
    time.sleep(1.0)
    back = time.time()
    site.start_again()
    until(lambda: all_write(run, 8, since=back), "all of them write again")
    record = run / "20261122T154510Z-failover-3fa9.json"
    asked = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(killed["at"]))
    record.write_text(
        json.dumps({"id": record.stem, "operation": "failover", "asked": {"at": asked}, "steps": [{"ended": 3.0}]})
    )
    verdict = site.workload("judge", "--stop", "--directory", str(run), "--record", str(record))
    judged = time.time()
    assert verdict["lost"] == 0
    assert verdict["failed_but_present"] == 0
    assert verdict["failed"] > 0
    (operation,) = verdict["operations"]
    last = max(at for moments in acknowledged(run) for at in moments if at < back)
    assert operation["stalled_at"] == pytest.approx(last, abs=0.01)
    # at least as long as the server was down, and over before the judge came
    assert 1.0 < operation["longest_stall_seconds"] < judged - killed["at"]
    assert operation["resumed_at"] >= back
    samples = json.loads(record.read_text())["clients"]["samples"]
    assert {sample[2] for sample in samples} >= {"ok", "failed"}
    assert len(samples) <= 2500
