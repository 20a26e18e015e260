# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A bucket as a store, against a real S3 server with TLS; what was stored is looked at in the server's folder."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._store.model import ObjectStore
from ansible_collections.hms.postgres.plugins.module_utils._store.open_store import open_store, store_spec_from
from ansible_collections.hms.postgres.tests.real.s3_relay import S3Relay
from ansible_collections.hms.postgres.tests.real.s3_server import S3Server, make_ca

MIB = 1024 * 1024
CHILD = pathlib.Path(__file__).with_name("store_child.py")


@pytest.fixture
def bucket(s3_server: S3Server, request: pytest.FixtureRequest) -> pathlib.Path:
    """A bucket for one test; its folder."""
    digest = hashlib.sha256(request.node.nodeid.encode()).hexdigest()
    return s3_server.bucket(f"b{digest[:20]}")


def opened(server: S3Server, bucket: pathlib.Path, **more: t.Any) -> ObjectStore:
    return open_store(store_spec_from({"s3": server.settings(bucket.name, **more)}))


def read_all(store: ObjectStore, key: str) -> bytes:
    reader = store.open(key)
    try:
        return b"".join(iter(lambda: reader.read(MIB), b""))
    finally:
        reader.close()


def visible(folder: pathlib.Path) -> list[str]:
    """What is in a folder of the server, its temporary files left out."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in files if not path.name.startswith(".rclone_temp"))


def test_a_large_object_arrives_as_it_was(s3_server: S3Server, bucket: pathlib.Path) -> None:
    store = opened(s3_server, bucket, prefix="of/this cluster")
    store.check()
    assert visible(bucket) == []
    data = os.urandom(29 * MIB + 17)
    writer = store.create("c/d%2Fé/data.dump", size_hint=len(data))
    for start in range(0, len(data), MIB):
        writer.write(data[start : start + MIB])
        assert visible(bucket) == []
    stored = writer.commit()
    writer.abort()
    assert (bucket / "of/this cluster/c/d%2Fé/data.dump").read_bytes() == data
    assert stored.size == len(data)
    (listed,) = store.list("c/d%2F")
    assert (listed.key, listed.size, listed.tag) == (stored.key, stored.size, stored.tag)
    assert abs(listed.modified - datetime.datetime.now(datetime.timezone.utc)) < datetime.timedelta(minutes=5)
    assert read_all(store, stored.key) == data
    assert store.debris() == []


@pytest.mark.parametrize("checksum", ["auto", "md5", "sha256"])
@pytest.mark.parametrize("size", [0, 1, 8 * MIB, 8 * MIB + 1, 24 * MIB])
def test_every_size_and_checksum(s3_server: S3Server, bucket: pathlib.Path, size: int, checksum: str) -> None:
    store = opened(s3_server, bucket, checksum=checksum)
    writer = store.create("a", size_hint=size)
    data = os.urandom(size)
    writer.write(data)
    assert writer.commit().size == size
    assert (bucket / "a").read_bytes() == data == read_all(store, "a")


def test_an_object_is_never_replaced_unless_asked(s3_server: S3Server, bucket: pathlib.Path) -> None:
    store = opened(s3_server, bucket)
    late = store.create("c/d")
    late.write(b"late")
    store.put("c/d", b"one")
    for attempt in (lambda: store.put("c/d", b"two"), lambda: store.create("c/d"), late.commit):
        with pytest.raises(HmsError, match="exists already and is never replaced") as caught:
            attempt()
        assert caught.value.reason == "exists"
    large = store.create("c/e", size_hint=20 * MIB)
    large.write(b"x" * 20 * MIB)
    store.put("c/e", b"first")
    with pytest.raises(HmsError, match="exists already"):
        large.commit()
    assert [(bucket / "c/d").read_bytes(), (bucket / "c/e").read_bytes()] == [b"one", b"first"]
    store.put("c/d", b"three", replace=True)
    assert store.get("c/d") == b"three"
    assert store.debris() == []


def test_listings_come_in_pages(s3_server: S3Server, bucket: pathlib.Path) -> None:
    keys = [f"c/d/{number:05}/manifest.json" for number in range(2300)]
    for key in keys:
        path = bucket / key
        path.parent.mkdir(parents=True)
        path.write_bytes(b"{}")
    s3_server.forget()
    with S3Relay(s3_server) as relay:
        store = open_store(store_spec_from({"s3": relay.settings(bucket.name)}))
        listing = store.list("c/d/")
        assert next(listing).key == keys[0]
        assert len(relay.seen) == 1
        assert [item.key for item in listing] == keys[1:]
        assert len(relay.seen) == 3
        store.remove([*keys[:2200], "c/never"])
        assert len([request for request in relay.seen if request.method == "POST"]) == 3
    assert visible(bucket) == keys[2200:]


def test_what_is_asked_of_the_server_reaches_it(s3_server: S3Server, bucket: pathlib.Path) -> None:
    until = datetime.datetime(2031, 2, 3, 4, 5, 6, tzinfo=datetime.timezone.utc)
    wanted = {
        "x-amz-storage-class": "STANDARD_IA",
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id": "arn:aws:kms:eu-central-1:1:key/k",
        "x-amz-object-lock-mode": "COMPLIANCE",
        "x-amz-object-lock-retain-until-date": "2031-02-03T04:05:06Z",
    }
    with S3Relay(s3_server) as relay:
        settings = relay.settings(
            bucket.name,
            storage_class="STANDARD_IA",
            kms_key_id="arn:aws:kms:eu-central-1:1:key/k",
            object_lock="COMPLIANCE",
        )
        store = open_store(store_spec_from({"s3": settings}))
        store.put("small", b"1", lock_until=until)
        writer = store.create("large", size_hint=9 * MIB, lock_until=until)
        writer.write(b"x" * 9 * MIB)
        writer.commit()
        begun = [request for request in relay.seen if request.method == "POST" and "uploads" in request.path]
        put = [request for request in relay.seen if request.method == "PUT" and "partNumber" not in request.path]
        for request in (*begun, *put):
            assert {name: request.header(name) for name in wanted} == wanted
        assert (len(begun), len(put)) == (1, 1)
        parts = [request for request in relay.seen if request.is_part]
        assert [bool(request.header("content-md5")) for request in parts] == [True, True]
        ends = [request for request in relay.seen if request.completes]
        assert [request.header("if-none-match") for request in (*ends, *put)] == ["*", "*"]


def test_a_bucket_without_object_lock_is_refused_where_it_is_asked_for(
    s3_server: S3Server, bucket: pathlib.Path
) -> None:
    with pytest.raises(Refused, match="object_lock is asked for"):
        opened(s3_server, bucket, object_lock="GOVERNANCE").check()


def test_wrong_settings_are_told_apart(s3_server: S3Server, bucket: pathlib.Path, tmp_path: pathlib.Path) -> None:
    other = make_ca(tmp_path)
    not_a_ca = tmp_path / "broken.crt"
    not_a_ca.write_text("no certificate")
    cases: list[tuple[dict[str, t.Any], str, str]] = [
        ({"secret_access_key": "wrong-secret-of-mine"}, "store_denied", "credentials"),
        ({"access_key_id": "AKIANOBODY", "secret_access_key": "wrong-secret-of-mine"}, "store_denied", "credentials"),
        ({"ca_bundle": str(other)}, "store_unreachable", "ca_bundle"),
        ({"ca_bundle": str(not_a_ca)}, "store_unreachable", "ca_bundle"),
        ({"ca_bundle": str(tmp_path / "absent.crt")}, "bad_config", "certificate"),
        ({"endpoint_url": "https://localhost:1"}, "store_unreachable", "endpoint_url"),
        ({"endpoint_url": "https://nowhere.invalid"}, "store_unreachable", "endpoint_url"),
        ({"bucket": "no-such-bucket"}, "no_store", "bucket"),
        ({"profile": "no-such-profile"}, "bad_config", "profile"),
    ]
    for changes, reason, next_step in cases:
        settings = {**s3_server.settings(bucket.name), **changes}
        store = open_store(store_spec_from({"s3": settings}))
        with pytest.raises(Refused) as caught:
            store.check()
        assert (caught.value.reason, changes) == (reason, changes)
        assert next_step in caught.value.next_step
        assert store.name in caught.value.message
        text = json.dumps(caught.value.as_dict())
        assert "wrong-secret-of-mine" not in text
        assert s3_server.secret_access_key not in text
    assert visible(bucket) == []


def test_no_credentials_at_all(
    s3_server: S3Server, bucket: pathlib.Path, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = s3_server.settings(bucket.name)
    del settings["access_key_id"], settings["secret_access_key"]
    with pytest.raises(Refused, match="NoCredentialsError") as caught:
        open_store(store_spec_from({"s3": settings})).check()
    assert caught.value.reason == "store_denied"


def test_what_does_not_exist(s3_server: S3Server, bucket: pathlib.Path) -> None:
    store = opened(s3_server, bucket)
    for attempt in (lambda: store.open("no"), lambda: store.get("no"), lambda: store.locked_until("no")):
        with pytest.raises(HmsError, match="does not exist") as caught:
            attempt()
        assert caught.value.reason == "not_found"
    store.remove(["no"])
    store.remove([])
    assert list(store.list("no")) == []
    assert store.free_bytes() is None


def test_what_is_too_large_is_not_read_into_memory(s3_server: S3Server, bucket: pathlib.Path) -> None:
    (bucket / "huge").write_bytes(b"x" * 1000)
    s3_server.forget()
    with pytest.raises(HmsError, match="1000 bytes, more than the 999") as caught:
        opened(s3_server, bucket).get("huge", limit=999)
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize("python", [sys.executable, "/usr/bin/python3"])
def test_every_boto3_that_there_is(
    s3_server: S3Server, bucket: pathlib.Path, tmp_path: pathlib.Path, python: str
) -> None:
    """The tests' own boto3, and the one that the distribution gives to managed hosts."""
    (tmp_path / "folder").mkdir()
    settings = tmp_path / "settings.json"
    settings.write_text(
        json.dumps({"folder": str(tmp_path / "folder"), "s3": s3_server.settings(bucket.name, prefix="p")})
    )
    done = subprocess.run(
        [python, "-W", "ignore", str(CHILD), str(settings), "tour"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    expected: list[dict[str, t.Any]] = [
        {"refused": "exists"},
        {"keys": ["c/d/large", "c/d/small"], "size": 40 * MIB, "small": "three", "unfinished": [], "debris": 0},
        {"left": []},
    ]
    for line in said:
        line.pop("peak", None)
    assert said[:3] == expected
    expected[1]["unfinished"] = ["c/d/aborted"]
    assert said[3:] == expected
