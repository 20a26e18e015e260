# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbooks about backups against a primary and its standby, both of this machine.

The files in the stores, gpg and psql are the oracles; a bucket in a real S3 server is the store that hosts share.
"""

from __future__ import annotations

import json
import pathlib
import sys
import typing as t

import pytest

from ansible_collections.hms.postgres.tests.real import backup_site, playbooks
from ansible_collections.hms.postgres.tests.real.lab import Instance, Lab
from ansible_collections.hms.postgres.tests.real.s3_server import S3Server

# Ansible is started many times
pytestmark = pytest.mark.timeout(900)

PASSPHRASE = "not-to-be-seen by anybody"
SCHEDULE = {
    "daily": {"type": "full", "cron": "0 2 * * *", "retention": {"days": 30}},
    "structure": {"type": "schema_only", "cron": "30 1 * * *", "run_on": "standby", "max_age": "7d"},
}


class Cluster:
    """An inventory of two database hosts, each with its server and its backup.json."""

    def __init__(self, lab: Lab, server: S3Server, folder: pathlib.Path) -> None:
        self.primary = lab.primary()
        self.primary.sql("CREATE DATABASE hospital")
        rows = "SELECT n AS id, md5(n::text) AS name FROM generate_series(1, 500) n"
        self.primary.sql(f"CREATE TABLE patient AS {rows}", dbname="hospital")
        self.standby = lab.standby(self.primary)
        self.folder = folder
        self.bucket = server.bucket("hospital")
        self.s3 = server.settings("hospital")
        for name, instance in (("db1", self.primary), ("db2", self.standby)):
            (folder / name / "store").mkdir(parents=True)
            self.configure(name, instance)
        hosts = {name: {"hms_config_dir": f"{folder}/{name}"} for name in ("db1", "db2")}
        common = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "hms_environment": "production",
            "hms_cluster": "hospital",
        }
        inventory = {"all": {"vars": common, "children": {"database": {"hosts": hosts}}}}
        (folder / "hosts.json").write_text(json.dumps(inventory))

    def configure(self, name: str, instance: Instance, **more: t.Any) -> None:
        """Write a host's backup.json as the role does."""
        values = {
            "cluster": "hospital",
            "environment": "production",
            "database": "hospital",
            "login_host": str(instance.sockets),
            "login_port": instance.port,
            "state_dir": f"{self.folder}/{name}/state",
            "store": {"folder": f"{self.folder}/{name}/store", "s3": self.s3},
            "encryption": {"passphrase": PASSPHRASE},
            "schedule": SCHEDULE,
            **more,
        }
        path = self.folder / name / "backup.json"
        path.write_text(json.dumps(values))
        path.chmod(0o600)

    def play(self, playbook: str, *options: str, rc: int = 0) -> str:
        """Run a playbook; what it printed, on one line for each of its lines."""
        printed = playbooks.play(self.folder / "hosts.json", f"playbooks/{playbook}.yml", *options, rc=rc)
        assert "not-to-be-seen" not in printed, "the passphrase was printed"
        assert self.s3["secret_access_key"] not in printed, "the secret of the bucket was printed"
        assert "[WARNING]: Using" not in printed
        return printed

    def manifests(self, store: pathlib.Path | None = None) -> list[dict[str, t.Any]]:
        """Every manifest in the bucket, or in a host's folder."""
        found = sorted((store or self.bucket).rglob("manifest.json"))
        return sorted((json.loads(path.read_text()) for path in found), key=lambda one: str(one["id"]))


@pytest.fixture(scope="module")
def cluster(module_lab: Lab, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """Two hosts, no backup yet."""
    return Cluster(module_lab, s3_server, tmp_path_factory.mktemp("cluster"))


def test_no_backup_at_all_is_a_failure(cluster: Cluster) -> None:
    printed = " ".join(cluster.play("backups", rc=2).split())
    assert "There is no backup." in printed
    assert "there is no full backup of hospital: it was never made, or what was made is gone" in printed
    assert "Make a backup now (playbooks/backup.yml)" in printed


def test_a_plan_makes_nothing(cluster: Cluster) -> None:
    printed = cluster.play("backup", "--check", "--diff")
    assert "db1 would make" in printed
    assert f"It would go to {cluster.folder}/db1/store, s3://hospital" in printed
    assert cluster.manifests() == []


def test_the_policy_says_how_and_the_primary_makes_it(cluster: Cluster) -> None:
    printed = cluster.play("backup")
    (made,) = cluster.manifests()
    assert [made] == cluster.manifests(cluster.folder / "db1")
    assert cluster.manifests(cluster.folder / "db2") == []
    assert f"{made['id']} is complete: full of hospital, made on db1 with pg_dump." in printed
    assert ", encrypted, verified (read back to its end in " in printed
    assert made["encryption"]["method"] == "passphrase"
    (member,) = [one for one in made["members"] if one["role"] == "data"]
    path = next(cluster.bucket.rglob(made["id"])) / member["name"]
    archive = backup_site.plain(path, backup_site.with_passphrase(cluster.folder, PASSPHRASE))
    backup_site.restore(cluster.primary, archive, "elsewhere")
    assert cluster.primary.sql("SELECT count(*) FROM patient", dbname="elsewhere") == "500"
    backup_site.drop(cluster.primary, "elsewhere")


def test_what_is_asked_for_goes_before_the_policy(cluster: Cluster) -> None:
    """The schema's turn is the standby's; another compression; to the folder only; not encrypted."""
    asked = ("type=schema_only", "compress=gzip", "encrypt=false", "upload=false")
    printed = cluster.play("backup", *(word for pair in asked for word in ("-e", pair)))
    (made,) = cluster.manifests(cluster.folder / "db2")
    assert (made["type"], made["compression"]["method"], made["encryption"]["method"]) == (
        "schema_only",
        "gzip",
        "none",
    )
    assert "made on db2 with pg_dump" in printed
    assert "NOT encrypted" in printed
    assert len(cluster.manifests()) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("type=everything",), "type=everything is not known; there are full, schema_only"),
        (("compress=rar",), "compress=rar is not known; there are zstd, gzip, lz4, none"),
        (("encrypt=perhaps",), "encrypt=perhaps is neither true nor false"),
        (("host=db9",), "db9 is not a database host; these are: db1, db2"),
        (("type=incremental", "encrypt=true"), "encrypt can't be chosen for pgBackRest"),
    ],
)
def test_bad_input_gets_one_clear_message(cluster: Cluster, options: tuple[str, ...], words: str) -> None:
    printed = cluster.play("backup", *(word for pair in options for word in ("-e", pair)), rc=2)
    assert words in " ".join(printed.split())
    assert len(cluster.manifests()) == 1


def test_verified_in_every_store(cluster: Cluster) -> None:
    (full,) = cluster.manifests()
    assert "would be verified" in cluster.play("backup_verify", "--check")
    printed = cluster.play("backup_verify")
    assert f"db1: {full['id']} in s3://hospital was read to its end" in printed
    assert f"db1: {full['id']} in {cluster.folder}/db1/store was read to its end" in printed
    assert f"in {cluster.folder}/db2/store was read to its end" in printed
    assert len(list(cluster.bucket.rglob("verification.json"))) == 1
    printed = cluster.play("backup_verify", "-e", "level=deep", "-e", f"id={full['id']}", "-e", "host=db1")
    assert "was restored, 1 table compared" in printed
    assert cluster.primary.sql("SELECT count(*) FROM pg_database WHERE datname LIKE 'hms_verify%'") == "0"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("level=deeper",), "level is read or deep"),
        (("id=../../etc",), "id is one that playbooks/backups.yml shows"),
        (("id=20200101T000000Z-backup-0000",), "No host holds the backup 20200101T000000Z-backup-0000"),
    ],
)
def test_what_can_not_be_verified(cluster: Cluster, options: tuple[str, ...], words: str) -> None:
    assert words in " ".join(cluster.play("backup_verify", "-e", options[0], rc=2).split())


def test_one_screen(cluster: Cluster) -> None:
    printed = cluster.play("backups")
    (full,) = cluster.manifests()
    assert "Every job has a verified backup that is young enough." in printed
    line = next(line for line in printed.splitlines() if full["id"] in line)
    assert " full " in line
    assert " deep " in line
    assert "s3://hospital" in line
    assert printed.count(full["id"]) == 1, "what two hosts see is one backup"
    assert "schema_only *" in printed
    assert "Not encrypted (*): 1." in printed


def test_a_host_that_is_away_or_knows_nothing_is_told(cluster: Cluster) -> None:
    path = cluster.folder / "db2" / "backup.json"
    path.rename(path.with_suffix(".away"))
    try:
        printed = " ".join(cluster.play("backups").split())
        assert f"PROBLEM db2: There is no {path}" in printed
    finally:
        path.with_suffix(".away").rename(path)
    address = ("-e", '{"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}')
    printed = " ".join(cluster.play("backups", "--limit", "database:localhost", *address, rc=2).split())
    assert "No host could tell its backups. db1: " in printed


def test_a_flipped_bit_is_told_where_it_matters(cluster: Cluster) -> None:
    (full,) = cluster.manifests()
    for store in (cluster.bucket, cluster.folder / "db1" / "store"):
        path = next(store.rglob(full["id"])) / "data.dump.zst.gpg"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    printed = " ".join(cluster.play("backup_verify", rc=2).split())
    assert f"{full['id']} in s3://hospital is BAD" in printed
    assert "Make a new backup now, and look at the store" in printed
    printed = cluster.play("backups", rc=2)
    assert "BAD" in next(line for line in printed.splitlines() if full["id"] in line)
    assert "none of them is verified" in " ".join(printed.split())
    cluster.play("backup", "-e", "type=full", "-e", "database=hospital")
    assert "Every job has a verified backup" in cluster.play("backups")
