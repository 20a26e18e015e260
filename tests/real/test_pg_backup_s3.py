# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups into a real S3 server with TLS, alone and together with a folder, and a server that dies in the middle."""

from __future__ import annotations

import json
import pathlib
import threading
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.tests.real import backup_site, held
from ansible_collections.hms.postgres.tests.real.backup_site import PASSPHRASE, Site, odd_database
from ansible_collections.hms.postgres.tests.real.lab import Instance, Lab, until
from ansible_collections.hms.postgres.tests.real.s3_server import S3Server

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def server(module_lab: Lab) -> Instance:
    """The odd database, and something that takes a while."""
    instance = module_lab.primary()
    odd_database(instance)
    instance.sql("CREATE DATABASE large")
    backup_site.big_table(instance, "large", megabytes=60)
    return instance


def stores(site: Site, s3_server: S3Server, bucket: str, **more: t.Any) -> dict[str, t.Any]:
    """A folder and a bucket."""
    return {"folder": str(site.store), "s3": s3_server.settings(bucket, **more)}


def test_into_a_folder_and_a_bucket_at_once(server: Instance, s3_server: S3Server, tmp_path: pathlib.Path) -> None:
    site = Site(server, tmp_path / "site")
    bucket = s3_server.bucket("both")
    made = site.backup(
        store=stores(site, s3_server, "both"), encryption={"passphrase": PASSPHRASE}, verify="deep"
    ).values
    assert backup_site.digest_of(site.store) == backup_site.digest_of(bucket)
    assert made["plan"]["stores"] == [str(site.store), "s3://both"]
    assert made["backup"]["verification"]["rows_compared"] == len(backup_site.ROWS)
    path = bucket / "hospital" / "hospital" / made["id"] / "data.dump.zst.gpg"
    archive = backup_site.plain(path, backup_site.with_passphrase(tmp_path))
    backup_site.restore(server, archive, "from_s3")
    try:
        assert backup_site.dump_text(server, "from_s3") == backup_site.dump_text(server, "hospital")
    finally:
        backup_site.drop(server, "from_s3")
    second = site.backup(
        store=stores(site, s3_server, "both"), encryption={"passphrase": PASSPHRASE}, retention={"keep_last": 1}
    ).values
    assert {(one["store"], one["id"]) for one in second["removed"]} == {
        (str(site.store), made["id"]),
        ("s3://both", made["id"]),
    }
    assert backup_site.digest_of(site.store) == backup_site.digest_of(bucket)
    assert {path.parent.name for path in bucket.rglob("*.gpg")} == {second["id"]}


def test_no_secret_of_the_bucket_is_written_down(server: Instance, s3_server: S3Server, tmp_path: pathlib.Path) -> None:
    site = Site(server, tmp_path / "site")
    s3_server.bucket("quiet")
    process = site.start_module(store={"s3": s3_server.settings("quiet")})
    assert process.wait(100) == 0, site.module_output()
    process = site.start_module(store={"s3": s3_server.settings("missing")})
    assert process.wait(100) == 1
    assert site.module_output()["reason"] == "no_store"
    written = "".join(path.read_text(encoding="utf-8") for path in site.folder.rglob("*") if path.is_file())
    assert s3_server.secret_access_key not in written


def test_a_bucket_that_dies_in_the_middle_leaves_no_backup_anywhere(
    server: Instance, s3_server: S3Server, tmp_path: pathlib.Path
) -> None:
    site = Site(server, tmp_path / "site", database="large")
    bucket = s3_server.bucket("dying")
    settings = stores(site, s3_server, "dying")
    good = site.backup(store=settings).values["id"]
    impatient = stores(site, s3_server, "dying", attempts=2, connect_timeout=2.0, read_timeout=5.0)
    before = backup_site.digest_of(site.store)

    def stored() -> bool:
        try:
            return any(path.stat().st_size > 1_000_000 for path in site.store.rglob(".data.dump*.part"))
        except PermissionError:
            return False  # the module connects as postgres at this moment, and this thread is postgres with it

    reached = threading.Event()

    def kill() -> None:
        with held.unread(server, "large", "notes"):
            reached.set()
            until(stored, "some bytes are stored", seconds=100)
            s3_server.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        assert reached.wait(100)
        with pytest.raises(HmsError) as caught:
            site.backup(store=impatient, compression_level=12, compression_threads=1)
    finally:
        thread.join()
        s3_server.start()
    assert caught.value.reason in ("store_failed", "store_unreachable")
    assert "s3://dying" in caught.value.message
    assert s3_server.secret_access_key not in caught.value.full_text() + json.dumps(caught.value.details)
    assert backup_site.digest_of(site.store) == before
    assert {path.parent.name for path in bucket.rglob("manifest.json")} == {good}
    assert site.backup(store=settings).values["backup"]["verification"]["ok"]
