# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every example in the modules' documentation does what it says, against real servers. psql and files say so too."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import typing as t

import pytest

from ansible_collections.hms.postgres.tests.real import django_site, examples_site, pgbackrest_site, restore_site
from ansible_collections.hms.postgres.tests.real.backup_site import Keys, keys_in
from ansible_collections.hms.postgres.tests.real.cutover_site import CutoverSite
from ansible_collections.hms.postgres.tests.real.engine_hosts import Database
from ansible_collections.hms.postgres.tests.real.engine_site import SETTINGS, EngineSite
from ansible_collections.hms.postgres.tests.real.examples_site import SCENES, Example
from ansible_collections.hms.postgres.tests.real.lab import (
    BINARIES,
    OS_USER,
    REPLICATION_PASSWORD,
    REWIND_RIGHTS,
    VERSION,
    Instance,
    Lab,
    as_postgres,
    listed_instances,
    remove_instance,
    run,
    until,
)
from ansible_collections.hms.postgres.tests.real.restore_site import RestoreSite
from ansible_collections.hms.postgres.tests.real.s3_server import S3Server
from ansible_collections.hms.postgres.tests.real.swap_site import LIVE, SwapSite

# Ansible starts a module for every example
pytestmark = pytest.mark.timeout(900)
PASSPHRASE = "the escrow's own"


def judge(folder: pathlib.Path, scene: str, example: Example) -> None:
    """Each example did what it says, on each host."""
    found = examples_site.outcome(scene, example, folder)
    assert found, f"no example of {example.module} was run"
    for host, results in found.items():
        told = [result.get("msg") for result in results if result.get("failed")]
        assert " ".join(str(one) for one in told) == "", f"an example of {example.module} fails on {host}"
        assert tuple(bool(result["changed"]) for result in results) == example.changed, (example.module, host)


def judge_all(folder: pathlib.Path, scene: str) -> None:
    for example in SCENES[scene]:
        judge(folder, scene, example)


def test_instances_and_what_is_in_them(lab: Lab, tmp_path: pathlib.Path) -> None:
    source = lab.primary()
    first, second = lab.plan(), lab.plan()
    address = source.conninfo("hms_replication", password=REPLICATION_PASSWORD).replace(" dbname='postgres'", "")
    shutil.chown(second.folder, OS_USER, OS_USER)
    as_postgres(str(BINARIES / "pg_basebackup"), "-d", address, "-D", str(second.data), "-c", "fast")
    passwords = {f"vault_{name}_password": f"of {name}" for name in ("owner", "app", "readonly", "replication")}
    variables = {
        **passwords,
        "lab_version": VERSION,
        "lab_instance": first.name,
        "lab_port": first.port,
        "lab_data": str(first.data),
        "lab_clone": {"name": second.name, "port": second.port, "data": str(second.data)},
        "lab_runner": str(tmp_path / "runner.pyz"),
    }
    examples_site.play("instance", tmp_path, {"vars": variables, "database": {"db1": {"ansible_host": "10.0.0.1"}}}, {})
    judge_all(tmp_path, "instance")
    where = ("-h", "/var/run/postgresql", "-p", str(first.port), "-XqAt")
    roles = "SELECT count(*) FROM pg_roles WHERE rolname IN ('hospital_owner', 'hospital_app', 'hms_replication')"
    assert as_postgres("psql", *where, "-c", roles, "hospital").strip() == "3"
    (certificate,) = tmp_path.rglob("db1.crt")
    run("openssl", "verify", "-CAfile", str(certificate.with_name("ca.crt")), str(certificate))
    assert "hms" in run("/usr/bin/python3", str(tmp_path / "runner.pyz"), "--help")
    assert {first.name, second.name} <= {line[1] for line in listed_instances()}


def escrow(keys: Keys) -> pathlib.Path:
    """A key pair of which the private half has a passphrase; the file with it."""
    unlock = ("--pinentry-mode", "loopback", "--passphrase", PASSPHRASE)
    keys.gpg(*unlock, "--quick-generate-key", "Escrow <escrow@hospital.example>", "default", "default", "never")
    (keys.home / "escrow.asc").write_bytes(keys.gpg("--armor", "--export", "escrow@hospital.example"))
    private = keys.home / "escrow-private.asc"
    private.write_bytes(keys.gpg(*unlock, "--armor", "--export-secret-keys", "escrow@hospital.example"))
    private.chmod(0o600)
    return private


def bucket_access(s3_server: S3Server) -> dict[str, str]:
    """What an environment says of the buckets that an example names."""
    return {
        "AWS_ACCESS_KEY_ID": s3_server.access_key_id,
        "AWS_SECRET_ACCESS_KEY": s3_server.secret_access_key,
        "AWS_ENDPOINT_URL_S3": s3_server.endpoint_url.replace("localhost", "127.0.0.1"),
        "AWS_CA_BUNDLE": str(s3_server.ca),
    }


def test_backups(lab: Lab, s3_server: S3Server, tmp_path: pathlib.Path) -> None:
    instance = lab.primary()
    instance.sql("CREATE DATABASE hospital")
    instance.sql("CREATE TABLE patient AS SELECT generate_series(1, 50) AS id", dbname="hospital")
    store, config, passphrase = tmp_path / "store", tmp_path / "etc", tmp_path / "passphrase"
    for folder in (store, config):
        folder.mkdir()
    passphrase.write_text("a passphrase of the hospital's own")
    passphrase.chmod(0o600)
    for bucket in ("hospital-backups", "hospital-staging-backups"):
        s3_server.bucket(bucket)
    endpoint = bucket_access(s3_server)["AWS_ENDPOINT_URL_S3"]
    policy = {
        "cluster": "hospital",
        "environment": "production",
        "database": "hospital",
        "login_host": str(instance.sockets),
        "login_port": instance.port,
        "state_dir": str(tmp_path / "state"),
        "store": {"folder": str(store), "s3": {"bucket": "hospital-backups", "region": "eu-central-1"}},
        "encryption": {"passphrase_file": str(passphrase)},
        "schedule": {"daily": {"type": "full", "cron": "0 2 * * *", "max_age": "30h"}},
    }
    (config / "backup.json").write_text(json.dumps(policy))
    (config / "backup.json").chmod(0o600)
    # the dumping user gets to the server's folder, unlike to pytest's
    staging = instance.folder / "staging"
    staging.mkdir(mode=0o700)
    shutil.chown(staging, "postgres")
    with keys_in(tmp_path) as keys:
        shutil.copyfile(keys.make("ops@hospital.example"), keys.home / "ops.asc")
        variables = {
            "lab_keys": str(keys.home),
            "lab_escrow_key": str(escrow(keys)),
            "vault_escrow_passphrase": PASSPHRASE,
            "lab_passphrase_file": str(passphrase),
            "lab_store": str(store),
            "lab_staging": str(staging),
            "lab_s3": {"endpoint_url": endpoint, "ca_bundle": str(s3_server.ca)},
            "lab_sockets": str(instance.sockets),
            "lab_port": instance.port,
            "lab_state": policy["state_dir"],
        }
        hosts = {"vars": variables, "database": {"db1": {"hms_config_dir": str(config)}}}
        examples_site.play("backup", tmp_path, hosts, bucket_access(s3_server))
    judge_all(tmp_path, "backup")
    kept = [next(path.parent.glob("data.*")).name for path in sorted(store.rglob("manifest.json"))]
    assert kept == ["data.dump.zst.gpg", "data.tar.zst.gpg"]
    assert list(staging.iterdir()) == []
    assert len(list((s3_server.data / "hospital-backups").rglob("verification.json"))) == 1


APPOINTMENTS = "CREATE TABLE appointments AS SELECT 'Ada Byron'::text AS patient, now() AS starts"
MASK = "UPDATE appointments SET patient = 'nobody';"


def put_aside(instance: Instance, days: int) -> str:
    """A database as a swap so many days ago would have left it."""
    moment = f"to_char((now() - interval '{days} days') AT TIME ZONE 'UTC', 'YYYYMMDD\"T\"HH24MISS\"Z\"')"
    name = f"hospital_before_{instance.sql(f'SELECT {moment}')}"
    instance.sql(f'CREATE DATABASE "{name}"')
    instance.sql(f"ALTER DATABASE \"{name}\" SET hms.swapped = '20200101T000000Z-swap-3fa9 hospital'")
    return name


def test_restores(lab: Lab, s3_server: S3Server, tmp_path: pathlib.Path) -> None:
    production, staging = lab.primary(), lab.primary()
    production.sql("CREATE DATABASE hospital")
    production.sql(APPOINTMENTS, dbname="hospital")
    put_aside(production, 20)
    younger = put_aside(production, 10)
    s3_server.bucket("hospital-backups")
    site = RestoreSite(production, tmp_path / "site")
    config, mask = tmp_path / "etc", tmp_path / "mask.sql"
    config.mkdir()
    mask.write_text(MASK)
    with keys_in(tmp_path) as keys:
        encryption = {
            "recipients": ["escrow@hospital.example"],
            "key_files": [str(keys.make("escrow@hospital.example"))],
        }
        store = {"folder": str(site.store), "s3": s3_server.settings("hospital-backups")}
        made = site.backup(environment="production", store=store, encryption=encryption).values["backup"]
        private = keys.home / "escrow-private.asc"
        private.write_bytes(keys.gpg("--armor", "--export-secret-keys", "escrow@hospital.example"))
        private.chmod(0o600)
        policy = {**site.arguments(environment="production", encryption=encryption), "schedule": {}}
        (config / "backup.json").write_text(json.dumps(policy))
        (config / "backup.json").chmod(0o600)
        variables = {"lab_escrow_key": str(private), "lab_backup": made["id"], "lab_mask": str(mask)}
        variables["lab_drill"] = str(production.folder / "drill")
        elsewhere = {
            "lab_sockets": str(staging.sockets),
            "lab_port": staging.port,
            "lab_state": str(tmp_path / "staging"),
        }
        hosts = {"vars": variables, "database": {"db1": {"hms_config_dir": str(config)}, "db2": elsewhere}}
        examples_site.play("restore", tmp_path, hosts, bucket_access(s3_server))
    judge_all(tmp_path, "restore")
    (proof,) = json.loads((site.members(made["id"]) / "verification.json").read_text())["verifications"]
    assert (proof["level"], proof["ok"]) == ("restored", True)
    assert not (production.folder / "drill").exists()
    for server, patient in ((production, "Ada Byron"), (staging, "nobody")):
        (scratch,) = restore_site.scratches(server)
        assert server.sql("SELECT patient FROM appointments", dbname=scratch) == patient
    left = production.sql("SELECT datname FROM pg_database WHERE datname LIKE 'hospital%' ORDER BY 1").split()
    assert left == ["hospital", younger]


def test_a_repository(lab: Lab, tmp_path: pathlib.Path) -> None:
    site = pgbackrest_site.make_site(lab)
    site.instance.set(archive_command=site.archive_command)
    variables = {
        "lab_config": str(site.config),
        "lab_port": site.instance.port,
        "lab_sockets": str(site.instance.sockets),
    }
    examples_site.play("repository", tmp_path, {"vars": variables, "database": {"db1": {}}}, {})
    judge_all(tmp_path, "repository")
    assert "wal archive min/max" in site.program("info").stdout


def test_a_point_in_time(lab: Lab, tmp_path: pathlib.Path) -> None:
    site = pgbackrest_site.make_site(lab)
    pgbackrest_site.begin(site)
    site.instance.sql("CREATE DATABASE hospital")
    site.instance.sql("CREATE TABLE patients_patient AS SELECT generate_series(1, 50) AS id", dbname="hospital")
    site.instance.sql("ALTER TABLE patients_patient ADD PRIMARY KEY (id)", dbname="hospital")
    site.backup(verify="none")
    since = site.instance.sql("SELECT clock_timestamp()")
    site.instance.sql("DELETE FROM patients_patient WHERE id > 10", dbname="hospital")
    config = {
        "cluster": "hospital",
        "environment": "production",
        "database": "hospital",
        "login_host": str(site.instance.sockets),
        "login_port": site.instance.port,
        "state_dir": str(site.folder),
        "pgbackrest": {"config": str(site.config), "stanza": pgbackrest_site.STANZA},
        "schedule": {"physical": {"type": "full", "engine": "pgbackrest", "cron": "0 2 * * *"}},
    }
    (tmp_path / "backup.json").write_text(json.dumps(config))
    side = site.instance.folder / "data.pitr"
    variables = {
        "lab_since": since,
        "lab_until": site.instance.sql("SELECT clock_timestamp()"),
        "lab_port": lab.port(),
        "lab_side": str(side),
        "lab_app": str(django_site.Application(lab.folder / "application").folder),
        "lab_drill": str(lab.folder / "drill"),
    }
    hosts = {"vars": variables, "database": {"db1": {"hms_config_dir": str(tmp_path)}}}
    examples_site.play("pitr", tmp_path, hosts, {})
    judge_all(tmp_path, "pitr")
    assert site.instance.sql("SELECT count(*) FROM patients_patient", dbname="hospital") == "50"
    assert not side.exists()
    assert not (lab.folder / "drill").exists()
    assert "hms-restored" in site.info()[-1]["annotation"]


@contextlib.contextmanager
def engine(lab: Lab) -> t.Iterator[SwapSite]:
    """A site, ended before the lab is removed."""
    site = SwapSite(lab, policy="strict")
    try:
        yield site
    finally:
        site.close()


def forget(site: EngineSite) -> None:
    """A site in which db2 is still to be made."""
    first, second = site.databases["db1"], site.databases["db2"]
    first.sql(REWIND_RIGHTS, dbname="postgres")
    first.instance.set(synchronous_standby_names="")
    second.kill()
    second.reaped()
    remove_instance(second.instance.name, second.data)
    until(lambda: first.slots() == {"db2": False}, "db1 has noticed")
    first.sql("SELECT pg_drop_replication_slot('db2')")
    os.utime(site.bouncers["bouncer1"].config / "users.txt")


def as_before(lab: Lab, database: Database) -> None:
    """The settings of the tests for an instance that was made by an example; the tests can ask it things again."""
    lab.configure(database.instance, **SETTINGS)
    hba = database.instance.config / "pg_hba.conf"
    hba.write_text("host all postgres 127.0.0.1/32 trust\n" + hba.read_text())
    database.instance.stop()
    database.start()


def let_go(site: EngineSite) -> None:
    """No commit waits: with one standby left over, strict would rightly refuse to lead without any."""
    site.policy = "async"
    for database in site.databases.values():
        site.write_member(database)
    site.synchronous(site.primary())


def test_a_cluster(lab: Lab, tmp_path: pathlib.Path) -> None:
    with engine(lab) as site:
        first, second, bouncer = site.databases["db1"], site.databases["db2"], site.bouncers["bouncer1"]
        site.write_member(bouncer, client_sslmode="disable")
        fence = tmp_path / "power-off-and-check"
        fence.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/fenced\n')
        fence.chmod(0o755)
        variables = {
            "lab_version": VERSION,
            "lab_records": str(site.records),
            "lab_fence": str(fence),
            "lab_instance": second.instance.name,
            "lab_port": second.port,
            "lab_data": str(second.data),
            "lab_sockets": str(second.instance.sockets),
            "replication_topology": {"primary": "db2"},
        }
        hosts: dict[str, dict[str, t.Any]] = {
            "vars": variables,
            "database": {name: {"hms_config_dir": str(site.databases[name].config)} for name in ("db1", "db2")},
            "bouncer": {"bouncer1": {"hms_config_dir": str(bouncer.config)}},
        }
        forget(site)
        examples_site.play("standby", tmp_path, hosts, {})
        judge_all(tmp_path, "standby")
        as_before(lab, second)
        until(lambda: second.streams_from(first), "db2 streams")

        examples_site.play("switchover", tmp_path, hosts, {})
        judge_all(tmp_path, "switchover")
        assert site.primary() is second
        until(lambda: first.streams_from(second), "db1 streams")

        live, restored = site.oid(LIVE), site.make()
        examples_site.play("swap", tmp_path, hosts, {})
        judge_all(tmp_path, "swap")
        assert site.oid(LIVE) == live
        (after,) = (name for name in site.oids() if name.startswith("hospital_after_"))
        assert site.oid(after) == restored

        let_go(site)
        second.kill()
        examples_site.play("failover", tmp_path, hosts, {})
        judge_all(tmp_path, "failover")
        assert site.primary() is first
        until(lambda: second.streams_from(first), "db2 streams again")

        first.kill()
        # no line to its host: only the power switch knows
        hosts["database"]["db1"]["hms_agent_line"] = {"line": {"argv": ["/bin/sh", "-c", "exit 255"], "prompt": ""}}
        examples_site.play("fenced", tmp_path, hosts, {})
        judge_all(tmp_path, "fenced")
        assert site.primary() is second
        assert (tmp_path / "fenced").read_text() == "db1\n"


def test_a_cutover(lab: Lab, tmp_path: pathlib.Path) -> None:
    site = CutoverSite(lab, databases=2)
    try:
        site.recover(time=site.harm().before)
        variables = {"lab_records": str(site.records)}
        hosts: dict[str, dict[str, t.Any]] = {
            "vars": variables,
            "database": {name: {"hms_config_dir": str(host.config)} for name, host in site.databases.items()},
            "bouncer": {name: {"hms_config_dir": str(host.config)} for name, host in site.bouncers.items()},
        }
        examples_site.play("cutover", tmp_path, hosts, {})
        judge_all(tmp_path, "cutover")
        assert not site.has_harm()
        assert site.timeline() == 2
    finally:
        site.close()
