# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host's backup jobs, run as cron runs them: the on-host runner, packed as one file, with Debian's own Python.

No Ansible takes part. sha256sum, the files in the store and a listening web server are the oracles.
"""

from __future__ import annotations

import contextlib
import datetime
import http.server
import json
import os
import pathlib
import signal
import subprocess
import threading
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.plugin_utils import _bundle
from ansible_collections.hms.postgres.tests.real import backup_site, held
from ansible_collections.hms.postgres.tests.real.backup_site import Site, big_table
from ansible_collections.hms.postgres.tests.real.lab import Instance, Lab, process_alive, until
from ansible_collections.hms.postgres.tests.real.s3_server import S3Server

pytestmark = pytest.mark.timeout(400)

PYTHON = "/usr/bin/python3"
SECRET = "not-to-be-seen"
DAILY = {"type": "full", "cron": "0 2 * * *", "retention": {"days": 30}}


class Hook(http.server.ThreadingHTTPServer):
    """A web server that keeps what is posted to it."""

    def __init__(self) -> None:
        self.posted: list[tuple[str, bytes]] = []
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                hook.posted.append((self.path, body))
                self.send_response(200)
                self.end_headers()

            do_GET = do_POST  # noqa: N815  the library's name

            def log_message(self, *_words: object) -> None:
                """Say nothing."""

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def hook() -> t.Iterator[Hook]:
    """A listening web server."""
    with Hook() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The runner, as the role installs it."""
    path = tmp_path_factory.mktemp("runner") / "hms-postgres.pyz"
    path.write_bytes(_bundle.build())
    return path


@pytest.fixture(scope="module")
def primary(module_lab: Lab) -> Instance:
    """A primary with a small database."""
    instance = module_lab.primary()
    instance.sql("CREATE DATABASE hospital")
    instance.sql(
        "CREATE TABLE patient AS SELECT n AS id, md5(n::text) AS name FROM generate_series(1, 500) n", dbname="hospital"
    )
    return instance


class Host:
    """One database host: its server, its configuration, the runner."""

    def __init__(self, program: pathlib.Path, instance: Instance, folder: pathlib.Path, store: pathlib.Path) -> None:
        self.site = Site(instance, folder)
        self.site.store = store
        store.mkdir(parents=True, exist_ok=True)
        self.program = program
        self.config = folder / "etc"
        self.config.mkdir()

    def configure(self, schedule: t.Mapping[str, t.Any], **more: t.Any) -> None:
        """Write backup.json as the role does."""
        values = {**self.site.arguments(), "encryption": {"passphrase": SECRET}, "schedule": schedule, **more}
        path = self.config / "backup.json"
        path.write_text(json.dumps(values))
        path.chmod(0o600)

    def argv(self, command: str, *options: str) -> list[str]:
        """The runner's command line."""
        return [PYTHON, str(self.program), command, "--config", str(self.config), *options]

    def run(self, command: str, *options: str) -> tuple[int, list[str]]:
        """Run a command to its end: exit code and log lines."""
        done = subprocess.run(
            self.argv(command, *options),
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            timeout=200,
            check=False,
        )
        text = done.stderr.decode()
        assert done.stdout == b""
        assert SECRET not in text
        assert "Traceback" not in text, text
        assert all(line.startswith(f"hms-postgres {command}: ") for line in text.splitlines()), text
        return done.returncode, text.splitlines()

    def job(self, name: str = "daily") -> tuple[int, list[str]]:
        """Run a job."""
        return self.run("backup", "--job", name)

    def age(self, days: float) -> None:
        """Make every backup so many days older, as if it had been made then."""
        for path in list(self.site.store.rglob("manifest.json")):
            manifest = json.loads(path.read_text())
            shift = datetime.timedelta(days=days)
            for key in ("started", "ended"):
                moment = datetime.datetime.fromisoformat(manifest[key].replace("Z", "+00:00")) - shift
                manifest[key] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            begun = datetime.datetime.fromisoformat(manifest["started"].replace("Z", "+00:00"))
            manifest["id"] = f"{begun:%Y%m%dT%H%M%SZ}" + manifest["id"][16:]
            path.write_text(json.dumps(manifest))
            path.parent.rename(path.parents[1] / manifest["id"])


@pytest.fixture
def host(program: pathlib.Path, primary: Instance, tmp_path: pathlib.Path) -> Host:
    """The primary's host, with a folder of its own."""
    return Host(program, primary, tmp_path / "db1", tmp_path / "store")


def test_a_job_makes_a_backup_and_tells_everybody(host: Host, hook: Hook, tmp_path: pathlib.Path) -> None:
    metrics = tmp_path / "hms_backup.prom"
    notify = {"webhook": {"url": f"{hook.url}/hook"}, "ping": {"url": f"{hook.url}/ping"}}
    host.configure({"daily": DAILY}, notify=notify, metrics={"path": str(metrics)})
    code, lines = host.job()
    assert code == 0, lines
    (manifest,) = host.site.manifests()
    assert manifest["by"] == "job daily"
    assert manifest["verification"]["ok"]
    assert manifest["encryption"]["method"] == "passphrase"
    for member in manifest["members"]:
        path = host.site.members(manifest["id"]) / member["name"]
        assert backup_site.sha256(path) == member["sha256"]
    assert f"daily: {manifest['id']} is complete" in "\n".join(lines)
    assert ", verified" in "\n".join(lines)

    paths = [path for path, _body in hook.posted]
    assert paths.count("/ping/start") == 1
    assert paths.count("/ping") == 1
    assert paths.count("/hook") == 1
    assert manifest["id"] in next(body for path, body in hook.posted if path == "/hook").decode()
    text = metrics.read_text()
    assert (
        'hms_backup_last_run_success{cluster="hospital",database="hospital",engine="pg_dump",job="daily",type="full"} 1'
        in text
    )
    assert "hms_backup_max_age_seconds" in text
    assert host.run("backup-check") == (0, host.run("backup-check")[1])
    assert host.run("backup-verify", "--level", "deep")[0] == 0


def test_a_failure_is_said_aloud(host: Host, hook: Hook, tmp_path: pathlib.Path) -> None:
    metrics = tmp_path / "hms_backup.prom"
    notify = {"webhook": f"{hook.url}/hook", "ping": f"{hook.url}/ping"}
    host.configure({"daily": DAILY}, notify=notify, metrics={"path": str(metrics)})
    assert host.job()[0] == 0
    hook.posted.clear()
    host.configure({"daily": {**DAILY, "login_port": 1}}, notify=notify, metrics={"path": str(metrics)})
    code, lines = host.job()
    assert code == 1
    assert "daily: FAILED. No connection to" in lines[-1]
    assert "/ping/fail" in [path for path, _body in hook.posted]
    assert b"FAILED" in next(body for path, body in hook.posted if path == "/hook")
    text = metrics.read_text()
    assert 'last_run_success{cluster="hospital",database="hospital",engine="pg_dump",job="daily",type="full"} 0' in text
    assert "hms_backup_last_verified_timestamp_seconds{" in text, "what the catalog holds is still told"
    assert len(host.site.manifests()) == 1


def test_what_nobody_hears_spoils_nothing(host: Host) -> None:
    host.configure(
        {"daily": DAILY},
        notify={"webhook": "http://127.0.0.1:9/", "timeout": 1},
        metrics={"path": "/dev/null/x.prom"},
    )
    code, lines = host.job()
    assert code == 0
    assert any("warning: nobody was told by webhook" in line for line in lines)
    assert any("warning: Cannot" in line for line in lines)


def test_a_second_one_is_refused_and_does_not_pass_for_success(host: Host) -> None:
    big_table(host.site.instance, "hospital", megabytes=40)
    try:
        host.configure({"daily": DAILY})
        argv = host.argv("backup", "--job", "daily")
        with held.unread(host.site.instance, "hospital", "notes"):
            first = subprocess.Popen(argv, stderr=subprocess.PIPE, cwd="/")
            until(lambda: backup_site.stage_pid(first.pid, "pg_dump") is not None, "the dump runs")
            code, lines = host.job()
            assert code == 75, lines
            assert "Another backup of hospital is at work" in lines[-1]
            assert first.poll() is None
        _out, said = first.communicate(timeout=200)
        assert first.returncode == 0, said
        assert len(host.site.manifests()) == 1
    finally:
        host.site.instance.sql("DROP TABLE notes", dbname="hospital")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_job_leaves_nothing_that_looks_whole(host: Host, hook: Hook, number: signal.Signals) -> None:
    big_table(host.site.instance, "hospital", megabytes=40)
    try:
        host.configure({"daily": DAILY}, notify={"ping": f"{hook.url}/ping"})
        argv = host.argv("backup", "--job", "daily")
        with held.unread(host.site.instance, "hospital", "notes"):
            first = subprocess.Popen(argv, stderr=subprocess.PIPE, cwd="/")
            until(lambda: backup_site.stage_pid(first.pid, "pg_dump") is not None, "the dump runs")
            children = backup_site.descendants(first.pid)
            first.send_signal(number)
            _out, said = first.communicate(timeout=200)
        until(lambda: not any(process_alive(child) for child in children), "no stray process")
        assert host.site.manifests() == []
        if number == signal.SIGTERM:
            assert first.returncode == 1
            assert b"was told to end (SIGTERM)" in said
            assert "/ping/fail" in [path for path, _body in hook.posted]
        code, lines = host.run("backup-check")
        assert code == 1
        assert "TOO OLD. daily: there is no full backup of hospital" in "\n".join(lines)
        assert host.job()[0] == 0
        assert len(host.site.manifests()) == 1
    finally:
        host.site.instance.sql("DROP TABLE notes", dbname="hospital")


def test_what_is_too_old_goes_and_the_last_verified_one_stays(host: Host) -> None:
    host.configure({"daily": {**DAILY, "retention": {"days": 3}}})
    for _day in range(5):
        assert host.job()[0] == 0
        host.age(1)
    kept = host.site.manifests()
    assert len(kept) == 3
    assert [folder.name for folder in sorted((host.site.store / "hospital" / "hospital").glob("2*"))] == [
        manifest["id"] for manifest in kept
    ]
    # nothing was made for a month: what is there stays, and everybody hears of it
    host.age(40)
    code, lines = host.run("backup-check")
    assert code == 1
    assert "30 h are allowed: it was skipped or it failed" in "\n".join(lines)
    assert len(host.site.manifests()) == 3
    # once there is a new one, the old ones are what they are: older than three days
    assert host.job()[0] == 0
    assert len(host.site.manifests()) == 1


def test_debris_goes_when_it_is_a_day_old(host: Host) -> None:
    host.configure({"daily": DAILY})
    folder = host.site.store / "hospital" / "hospital"
    old, young = folder / "20260101T000000Z-backup-0001", folder / "20260101T000000Z-backup-0002"
    for path, days in ((old, 2), (young, 0.5)):
        path.mkdir(parents=True)
        (path / "data.dump.zst").write_bytes(b"half")
        when = datetime.datetime.now(datetime.timezone.utc).timestamp() - days * 86400
        os.utime(path / "data.dump.zst", (when, when))
    assert host.job()[0] == 0
    assert not old.exists()
    assert young.exists()


def test_a_flipped_bit_is_found_and_counts_from_then_on(host: Host) -> None:
    host.configure({"daily": DAILY})
    assert host.job()[0] == 0
    (manifest,) = host.site.manifests()
    path = host.site.members(manifest["id"]) / next(m["name"] for m in manifest["members"] if m["role"] == "data")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    code, lines = host.run("backup-verify")
    assert code == 1
    assert f"{manifest['id']} in {host.site.store} is BAD" in "\n".join(lines)
    assert "SHA-256 differs" in "\n".join(lines)
    code, lines = host.run("backup-check")
    assert code == 1
    assert "none of them is verified" in "\n".join(lines)
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert host.run("backup-verify", "--id", manifest["id"])[0] == 0
    assert host.run("backup-check")[0] == 0


def test_a_host_without_the_key_proves_what_it_can(host: Host, tmp_path: pathlib.Path) -> None:
    with backup_site.keys_in(tmp_path) as keys:
        public = keys.make("ops@example.org")
        encryption = {"recipients": ["ops@example.org"], "key_files": [str(public)]}
        host.configure({"daily": DAILY}, encryption=encryption)
        assert host.job()[0] == 0
        code, lines = host.run("backup-verify")
        assert code == 0, lines
        assert any("not looked at: " in line for line in lines)
        code, lines = host.run("backup-verify", "--level", "deep")
        assert code == 1
        assert "this host has no key that opens it" in lines[-1]
        # the proof that was made with the backup goes on counting
        assert host.run("backup-check")[0] == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "can't be read"),
        ('{"cluster": "hospital"}', "There is no job 'daily'"),
        (None, "There is no "),
    ],
)
def test_a_bad_configuration_is_told_apart(host: Host, content: str | None, words: str) -> None:
    if content is not None:
        (host.config / "backup.json").write_text(content)
    code, lines = host.job()
    assert code == 2
    assert words in lines[-1]


def test_a_bad_schedule_is_told_apart(host: Host) -> None:
    host.configure({"daily": {**DAILY, "cron": "every day"}})
    assert host.run("backup-check")[0] == 2
    host.configure({"daily": DAILY}, notify={"webhok": "x"})
    code, lines = host.job()
    assert code == 2
    assert "notify has no setting webhok" in lines[-1]


def test_the_standby_sees_to_it_that_the_primary_did_its_part(
    program: pathlib.Path, primary: Instance, module_lab: Lab, s3_server: S3Server, tmp_path: pathlib.Path
) -> None:
    """Two hosts and one bucket: turns, a skipped run, and a failover after which the other one makes them."""
    standby = module_lab.standby(primary)
    s3_server.bucket("turns")
    store = {"s3": s3_server.settings("turns")}
    first = Host(program, primary, tmp_path / "db1", tmp_path / "unused1")
    second = Host(program, standby, tmp_path / "db2", tmp_path / "unused2")
    for one in (first, second):
        one.configure({"daily": DAILY, "second": {**DAILY, "run_on": "standby", "type": "schema_only"}}, store=store)
    code, lines = second.job()
    assert code == 1
    assert "this host is a standby, and it is the primary's turn" in lines[1]
    assert "there is no full backup of hospital: it was never made" in lines[2]
    assert first.job()[0] == 0
    assert second.job()[0] == 0
    assert "it is the standby's turn" in first.job("second")[1][1]
    assert second.job("second")[0] == 0
    manifests = list((s3_server.data / "turns").rglob("manifest.json"))
    assert sorted(json.loads(path.read_text())["type"] for path in manifests) == ["full", "schema_only"]
    standby.promote()
    until(lambda: standby.sql("SELECT pg_is_in_recovery()") == "f", "the standby leads")
    code, lines = second.job()
    assert code == 0, lines
    assert len(list((s3_server.data / "turns").rglob("manifest.json"))) == 3
    with contextlib.suppress(AssertionError):
        primary.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")


def test_with_a_folder_of_its_own_a_standby_checks_nothing(
    program: pathlib.Path, primary: Instance, module_lab: Lab, tmp_path: pathlib.Path
) -> None:
    standby = module_lab.standby(primary)
    host = Host(program, standby, tmp_path / "db2", tmp_path / "own")
    host.configure({"daily": DAILY})
    for command, options in (("backup", ("--job", "daily")), ("backup-check", ())):
        code, lines = host.run(command, *options)
        assert code == 0
        assert "can't be seen from here" in "\n".join(lines)
