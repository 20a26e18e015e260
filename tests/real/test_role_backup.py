# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role backup on this machine: check, apply, check, apply; then its jobs are run as cron would, without Ansible."""

from __future__ import annotations

import json
import pathlib
import re
import shlex
import stat
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.hms.postgres.tests.real import playbooks
from ansible_collections.hms.postgres.tests.real.gpg_site import Operator
from ansible_collections.hms.postgres.tests.real.lab import VERSION, Instance, Lab, run
from ansible_collections.hms.postgres.tests.real.s3_server import S3Server

# Ansible runs four times before the first test
pytestmark = pytest.mark.timeout(900)

SECRET = "not-to-be-seen-{}"
BEFORE = [("backup", "preflight"), ("backup", "configure")]
SERVER = [("postgresql", name) for name in ("instance", "configure", "service", "objects")]
AFTER = [("backup", "schedule"), ("backup", "stanza")]
PLAY = """
- name: The roles, without installing packages
  hosts: all
  gather_facts: false
  tasks:
    - name: Call the entry point
      ansible.builtin.include_role:
        name: "hms.postgres.{{ entry[0] }}"
        tasks_from: "{{ entry[1] }}"
      loop: "{{ entries }}"
      loop_control:
        loop_var: entry
"""


class Site:
    """An inventory of one host, which is this machine, with a bucket and two people who have keys."""

    def __init__(self, lab: Lab, server: S3Server, operator: Operator) -> None:
        self.instance: Instance = lab.plan()
        self.folder = lab.folder / "site"
        self.folder.mkdir()
        self.server = server
        self.operator = operator
        self.config = self.folder / "etc"
        self.cron = self.folder / "cron.d" / "hms-postgres-backup-hospital"
        self.cron.parent.mkdir()
        self.bucket = server.bucket("hospital-backups")
        # its own folder is closed to the instance's user
        self.ca = self.folder / "bucket.crt"
        self.ca.write_bytes(pathlib.Path(server.settings("hospital-backups")["ca_bundle"]).read_bytes())
        self.variables: dict[str, t.Any] = {
            **self._site(),
            **self._postgresql(),
            "backup_store": {
                "folder": f"{self.folder}/backups",
                "s3": self.s3("dumps"),
            },
            "backup_recipients": [operator.make("ops@hospital.example"), operator.make("escrow@hospital.example")],
            "backup_public_keys": [operator.export("ops@hospital.example"), operator.export("escrow@hospital.example")],
            "backup_metrics_path": f"{self.folder}/backup.prom",
            "backup_pgbackrest": True,
            "backup_pgbackrest_repositories": [{"s3": self.s3("physical")}],
            "backup_pgbackrest_passphrase": SECRET.format("repository"),
            "backup_pgbackrest_log_dir": f"{self.folder}/log",
            "backup_runner_path": f"{self.folder}/lib/hms-postgres.pyz",
            "backup_jobs": {
                "daily": {"type": "full", "cron": "0 2 * * *", "retention": {"days": 30, "keep_last": 7}},
                "schema": {"type": "schema_only", "cron": "0 1 * * *"},
                "physical": {"engine": "pgbackrest", "type": "full", "cron": "0 3 * * 0", "retention": {"days": 30}},
                "incremental": {"engine": "pgbackrest", "type": "incremental", "cron": "0 */4 * * *"},
                "of_a_standby": {"type": "full", "cron": "5 2 * * *", "run_on": "standby"},
                "never": {"type": "full", "cron": "0 0 1 1 *", "enabled": False},
            },
            "backup_drill": {
                "host": "db1",
                "cron": "30 4 * * 0",
                "engines": ["pgbackrest"],
                "directory": f"{lab.folder}/drill",
                "settings": {"fsync": False},
                "assertions": [
                    {"name": "patients", "database": "hospital", "sql": "SELECT count(*) FROM patient", "expect": 1234}
                ],
            },
        }

    def s3(self, prefix: str) -> dict[str, t.Any]:
        """A part of the bucket as the role takes it."""
        settings: dict[str, t.Any] = self.server.settings("hospital-backups", prefix=prefix)
        return {**settings, "region": "lab", "addressing_style": "path", "ca_bundle": str(self.ca)}

    def _site(self) -> dict[str, t.Any]:
        return {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "hms_environment": "staging",
            "hms_cluster": "hospital",
            "hms_address": "127.0.0.1",
            "hms_config_dir": str(self.config),
            "hms_state_dir": f"{self.folder}/state",
        }

    def _postgresql(self) -> dict[str, t.Any]:
        passwords = ("owner", "app", "readonly", "monitor", "replication", "pgbouncer")
        return {
            "postgresql_version": VERSION,
            "postgresql_instance": self.instance.name,
            "postgresql_port": self.instance.port,
            "postgresql_data_dir": str(self.instance.data),
            "postgresql_socket_dir": str(self.instance.sockets),
            "postgresql_start_conf": "manual",
            "postgresql_memory_mb": 300,
            "postgresql_max_connections": 40,
            "postgresql_settings": {"fsync": False},
            "postgresql_tls_ca_dir": f"{self.folder}/secrets",
            **{f"postgresql_{name}_password": SECRET.format(name) for name in passwords},
        }

    def play(
        self,
        *options: str,
        entries: t.Sequence[tuple[str, str]] = (*BEFORE, *SERVER, *AFTER),
        rc: int = 0,
        **changes: t.Any,
    ) -> str:
        """Run entry points; what was printed."""
        inventory = {"all": {"hosts": {"db1": {**self.variables, "entries": entries, **changes}}}}
        (self.folder / "hosts.json").write_text(json.dumps(inventory))
        (self.folder / "play.yml").write_text(PLAY)
        # not into this machine's own cron
        cron = ["-e", f"__backup_cron_file={self.cron}"]
        files = (self.folder / "hosts.json", self.folder / "play.yml")
        printed = playbooks.play(*files, *cron, *options, rc=rc, seconds=200)
        assert "not-to-be-seen" not in printed, "a password was printed"
        assert self.variables["backup_store"]["s3"]["secret_access_key"] not in printed, "a bucket's key was printed"
        return printed

    def changed(self, *options: str, **changes: t.Any) -> list[str]:
        """Run everything; the tasks that changed something."""
        tasks = self.play(*options, **changes).split("\nTASK [")[1:]
        return [task.partition("]")[0] for task in tasks if re.search(r"^changed: ", task, re.MULTILINE)]

    def job(self, command: str, *, rc: int = 0) -> str:
        """Run what cron would run; what goes to the journal."""
        program = [sys.executable, str(self.variables["backup_runner_path"])]
        done = subprocess.run(
            [*program, *shlex.split(command)], capture_output=True, text=True, timeout=200, check=False, cwd="/"
        )
        assert done.returncode == rc, done.stdout + done.stderr
        assert "not-to-be-seen" not in done.stdout + done.stderr
        return done.stdout + done.stderr

    def backup(self, job: str, *, rc: int = 0) -> str:
        """One job."""
        return self.job(f"backup --config {self.config} --job {job}", rc=rc)


@pytest.fixture(scope="module")
def operator() -> t.Iterator[Operator]:
    """Somebody who has the private keys."""
    made = Operator()
    yield made
    made.close()


@pytest.fixture(scope="module")
def site(module_lab: Lab, s3_server: S3Server, operator: Operator) -> Site:
    """A host on which the roles ran: planned, done, planned again, done again."""
    made = Site(module_lab, s3_server, operator)
    # nothing is there yet: what would be written can't be compared with anything
    assert made.changed("--check", "--diff")
    assert not (made.config / "backup.json").exists()
    assert made.changed("--diff", "-vv")
    assert made.changed("--check", "--diff") == []
    assert made.changed() == []
    made.instance.sql(
        "CREATE TABLE public.patient AS SELECT g AS id FROM generate_series(1, 1234) g", dbname="hospital"
    )
    return made


def test_secrets_are_readable_by_their_users_alone(site: Site) -> None:
    wanted = {"backup.json": "root", "pgbackrest.conf": "postgres"}
    found = {name: (site.config / name).stat() for name in wanted}
    assert {name: stat.S_IMODE(status.st_mode) for name, status in found.items()} == dict.fromkeys(wanted, 0o600)
    assert {name: (site.config / name).owner() for name in wanted} == wanted
    assert stat.S_IMODE((site.folder / "backups").stat().st_mode) == 0o700


def test_the_server_archives(site: Site) -> None:
    shown = site.instance.sql(
        "SELECT string_agg(setting, ' ' ORDER BY name) FROM pg_settings WHERE name IN"
        " ('archive_mode', 'archive_timeout')"
    )
    assert shown == "on 60"
    assert list((site.bucket / "physical").glob("archive/hospital/*/*/*")), "WAL is in the bucket"
    assert list((site.bucket / "physical").glob("backup/hospital/backup.info"))


def test_the_cron_file_holds_what_is_to_run(site: Site) -> None:
    lines = [line for line in site.cron.read_text().splitlines() if "python3" in line and not line.startswith("#")]
    assert set(re.findall(r"--job (\S+)", "\n".join(lines))) == {
        "daily",
        "schema",
        "physical",
        "incremental",
        "of_a_standby",
    }
    assert sum("backup-check" in line for line in lines) == 1
    (drill,) = (line for line in lines if f"restore-drill --config {site.config}" in line)
    assert drill.startswith("30 4 * * 0 root nice -n 10 ")
    assert all(re.match(r"^(\S+ ){5}root nice -n 10 ionice -c best-effort -n 7 ", line) for line in lines)
    assert stat.S_IMODE(site.cron.stat().st_mode) == 0o644


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_a_dump_is_restored_with_nothing_but_gpg_zstd_and_pg_restore(site: Site, place: str) -> None:
    said = site.backup("daily")
    assert "hospital" in said
    root = site.folder / "backups" if place == "folder" else site.bucket / "dumps"
    manifest = sorted(root.glob("hospital/hospital/*/manifest.json"))[-1]
    (member,) = (found for found in json.loads(manifest.read_text())["members"] if found["role"] == "data")
    target = f"restored_{place}"
    site.instance.sql(f"CREATE DATABASE {target} TEMPLATE template0")
    where = f"-h {site.instance.sockets} -p {site.instance.port}"
    stored = shlex.quote(str(manifest.parent / member["name"]))
    pipe = (
        f"gpg --homedir {site.operator.home} --batch --quiet --decrypt {stored}"
        f" | zstd -dc | runuser -u postgres -- pg_restore --exit-on-error {where} -d {target}"
    )
    run("bash", "-euo", "pipefail", "-c", pipe)
    assert site.instance.sql("SELECT count(*), sum(id) FROM public.patient", dbname=target) == "1234|761995"


def test_physical_backups_are_made_and_listed(site: Site) -> None:
    site.backup("physical")
    site.backup("incremental")
    listed = run(
        "runuser",
        "-u",
        "postgres",
        "--",
        "pgbackrest",
        f"--config={site.config}/pgbackrest.conf",
        "info",
        "--output=json",
    )
    assert [found["type"] for found in json.loads(listed)[0]["backup"]] == ["full", "incr"]


def test_the_drill_of_the_schedule_brings_the_repository_back(site: Site) -> None:
    """From the bucket, through WAL that the server archived, to the last patient."""
    site.backup("incremental")
    said = site.job(f"restore-drill --config {site.config}")
    assert re.search(r"of hospital \(pgbackrest\) came back in", said)
    assert not (site.folder.parent / "drill").exists()
    notes = run(
        *("runuser", "-u", "postgres", "--", "pgbackrest", f"--config={site.config}/pgbackrest.conf"),
        *("--stanza=hospital", "info", "--output=json"),
    )
    newest = json.loads(notes)[0]["backup"][-1]
    assert json.loads(newest["annotation"]["hms-restored"])["ok"] is True


def test_it_is_another_hosts_turn(site: Site) -> None:
    site.backup("daily")
    before = sorted((site.folder / "backups").rglob("manifest.json"))
    said = site.backup("of_a_standby")
    assert "this host is the primary, and it is the standby's turn" in said
    assert "the newest verified full backup of hospital" in said
    assert sorted((site.folder / "backups").rglob("manifest.json")) == before


def test_an_unknown_job_is_a_bad_configuration(site: Site) -> None:
    assert "nothing-like-it" in site.backup("nothing-like-it", rc=2)


def test_the_check_sees_that_nothing_was_made(site: Site) -> None:
    site.backup("daily")
    assert "daily" in site.job(f"backup-check --config {site.config} --job daily")
    policy = json.loads((site.config / "backup.json").read_text())
    empty = site.folder / "empty"
    (empty / "backups").mkdir(parents=True)
    (empty / "backup.json").write_text(json.dumps({**policy, "store": {"folder": str(empty / "backups")}}))
    said = site.job(f"backup-check --config {empty} --job daily", rc=1)
    assert "TOO OLD" in said


def test_the_jobs_leave_metrics(site: Site) -> None:
    site.backup("daily")
    text = (site.folder / "backup.prom").read_text()
    assert 'job="daily"' in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backup_store": {}}, "names neither a folder nor a bucket"),
        ({"backup_recipients": [], "backup_public_keys": []}, "as anybody can read them"),
        ({"backup_passphrase": "a passphrase as well"}, "exclude backup_passphrase"),
        ({"backup_public_keys": []}, "need their public keys"),
        ({"backup_pgbackrest_passphrase": "short"}, "16 characters"),
        ({"backup_pgbackrest": False}, "backup_pgbackrest is false"),
        ({"backup_pgbackrest_options": {"archive-push-queue-max": "1GB"}}, "throws WAL away"),
        ({"backup_jobs": {"daily": {"cron": "every night"}}}, "five"),
        ({"backup_jobs": {"daily": {"type": "half"}}}, "half"),
        ({"backup_notify": {"pigeon": {}}}, "pigeon"),
        ({"backup_drill": {"cron": "@weekly"}}, "must name a host of this inventory"),
        ({"backup_drill": {"host": "db1", "cron": "every sunday"}}, "drill"),
        ({"backup_drill": {"host": "db1", "assertion": []}}, "has no argument assertion"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_changes(
    site: Site, changes: dict[str, t.Any], message: str
) -> None:
    before = {
        path: path.read_bytes() for path in (site.config / "backup.json", site.config / "pgbackrest.conf", site.cron)
    }
    printed = " ".join(site.play(entries=[("backup", "preflight")], rc=2, **changes).split())
    assert message in printed
    assert {path: path.read_bytes() for path in before} == before


def test_a_private_key_is_refused(site: Site) -> None:
    private = site.operator.export("ops@hospital.example", secret=True)
    printed = site.play(entries=[("backup", "preflight")], rc=2, backup_public_keys=[private])
    assert "holds a private key" in printed
    assert "BEGIN PGP PRIVATE" not in printed


def test_what_is_no_longer_wanted_goes(site: Site) -> None:
    site.play(entries=[("backup", "configure"), ("backup", "schedule")], backup_scheduler="none")
    assert not site.cron.exists()
    one = {"backup_recipients": site.variables["backup_recipients"][:1]}
    site.play(entries=[("backup", "configure")], backup_public_keys=site.variables["backup_public_keys"][:1], **one)
    assert len(list((site.config / "backup-keys").iterdir())) == 1
