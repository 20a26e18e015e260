# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What networks and servers do to an upload: nothing half ever becomes visible, and the error says what happened."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._store.model import ObjectStore
from ansible_collections.hms.postgres.plugins.module_utils._store.open_store import open_store, store_spec_from
from ansible_collections.hms.postgres.plugins.module_utils._store.tee import Tee
from ansible_collections.hms.postgres.tests.real.lab import until
from ansible_collections.hms.postgres.tests.real.s3_relay import Answer, Fault, Request, S3Relay, times
from ansible_collections.hms.postgres.tests.real.s3_server import S3Server
from ansible_collections.hms.postgres.tests.real.test_store_s3 import CHILD, MIB, read_all, visible

BUSY = Answer(503, "SlowDown")
IMPATIENT = {"read_timeout": 5}
"""Where a server hangs. Elsewhere the store's own patience holds: whoever is slow is asked no second time."""


@pytest.fixture
def bucket(s3_server: S3Server, request: pytest.FixtureRequest) -> pathlib.Path:
    """A bucket for one test; its folder."""
    digest = hashlib.sha256(request.node.nodeid.encode()).hexdigest()
    return s3_server.bucket(f"f{digest[:20]}")


@pytest.fixture
def relay(s3_server: S3Server) -> t.Iterator[S3Relay]:
    """What stands between us and the server."""
    with S3Relay(s3_server) as made:
        yield made


def opened(relay: S3Relay, bucket: pathlib.Path, **more: t.Any) -> ObjectStore:
    return open_store(store_spec_from({"s3": relay.settings(bucket.name, **more)}))


def upload(store: ObjectStore, data: bytes, key: str = "c/d/data") -> t.Any:
    writer = store.create(key, size_hint=len(data))
    for start in range(0, len(data), MIB):
        writer.write(data[start : start + MIB])
    return writer.commit()


def is_part(request: Request) -> bool:
    return request.is_part


def patience(fault: t.Any) -> dict[str, t.Any]:
    return IMPATIENT if fault == Fault("hang") else {}


@pytest.mark.parametrize(
    "fault",
    [
        BUSY,
        Answer(500, "InternalError"),
        Fault("cut_request", after=3 * MIB),
        Fault("lose_answer"),
        Fault("hang"),
    ],
    ids=["503", "500", "cut", "lost", "hang"],
)
def test_a_part_that_fails_for_a_while_is_sent_again(relay: S3Relay, bucket: pathlib.Path, fault: t.Any) -> None:
    relay.rule = times(2, is_part, fault)
    data = os.urandom(20 * MIB)
    stored = upload(opened(relay, bucket, **patience(fault)), data)
    assert (bucket / "c/d/data").read_bytes() == data
    assert stored.size == len(data)
    assert len([request for request in relay.seen if request.is_part]) == 5


@pytest.mark.parametrize(
    ("fault", "reason", "said"),
    [
        (BUSY, "store_failed", "SlowDown injected, tried 2 times"),
        (Fault("cut_request", after=MIB), "store_unreachable", ""),
        (Fault("hang"), "store_unreachable", ""),
        (Answer(403, "AccessDenied"), "store_denied", "AccessDenied"),
        (Answer(403, "ExpiredToken"), "store_denied", "ExpiredToken"),
        (Answer(507, "InsufficientStorage"), "store_full", "InsufficientStorage"),
    ],
    ids=["503", "cut", "hang", "denied", "expired", "full"],
)
def test_a_part_that_fails_for_good_ends_it(
    relay: S3Relay, bucket: pathlib.Path, fault: t.Any, reason: str, said: str
) -> None:
    opened(relay, bucket).put("c/d/good", b"the last good one")
    store = opened(relay, bucket, attempts=2, **patience(fault))
    relay.rule = times(1000, lambda request: request.is_part and "partNumber=1" not in request.path, fault)
    with pytest.raises(HmsError, match=r"Cannot write part 2 of s3://\w+/c/d/data") as caught:
        upload(store, os.urandom(40 * MIB))
    assert caught.value.reason == reason
    assert said in caught.value.message
    assert "uploadId" not in caught.value.message
    assert "Nothing became visible" in caught.value.state
    assert visible(bucket) == ["c/d/good"]
    until(lambda: store.debris() == [], "the upload was aborted")


def test_an_answer_that_is_lost_at_the_end_is_no_failure(relay: S3Relay, bucket: pathlib.Path) -> None:
    """The object is there and the second try meets it: it has to be known as our own."""
    store = opened(relay, bucket)
    data = os.urandom(10 * MIB)
    relay.rule = times(1, lambda request: request.completes, Fault("lose_answer"))
    assert upload(store, data).size == len(data)
    relay.rule = times(1, lambda request: request.method == "PUT", Fault("lose_answer"))
    upload(store, b"small", "small")
    assert [(bucket / "c/d/data").read_bytes() == data, store.get("small")] == [True, b"small"]


@pytest.mark.parametrize("size", [1, 10 * MIB])
def test_a_server_that_refuses_to_replace_what_came_meanwhile(
    s3_server: S3Server, relay: S3Relay, bucket: pathlib.Path, size: int
) -> None:
    """As AWS answers a condition that does not hold, between our look and our request."""
    store = opened(relay, bucket)

    def rule(request: Request) -> Answer | None:
        if request.header("if-none-match") != "*":
            return None
        (bucket / "c/d").mkdir(parents=True, exist_ok=True)
        (bucket / "c/d/data").write_bytes(b"theirs")
        s3_server.forget()
        return Answer(412, "PreconditionFailed")

    relay.rule = rule
    with pytest.raises(HmsError, match="exists already") as caught:
        upload(store, b"x" * size)
    assert caught.value.reason == "exists"
    assert (bucket / "c/d/data").read_bytes() == b"theirs"
    assert store.debris() == []


@pytest.mark.parametrize("size", [1, 10 * MIB])
def test_a_server_that_knows_no_conditions(relay: S3Relay, bucket: pathlib.Path, size: int) -> None:
    relay.rule = lambda request: Answer(501, "NotImplemented") if request.header("if-none-match") else None
    assert upload(opened(relay, bucket), b"x" * size).size == size
    assert (bucket / "c/d/data").stat().st_size == size


def test_a_server_that_removes_one_by_one_only(relay: S3Relay, bucket: pathlib.Path) -> None:
    store = opened(relay, bucket)
    store.put("a", b"1")
    relay.rule = lambda request: Answer(501, "NotImplemented") if request.path.endswith("?delete") else None
    store.remove(["a", "gone"])
    assert visible(bucket) == []


def test_what_cannot_be_removed_is_named(relay: S3Relay, bucket: pathlib.Path) -> None:
    store = opened(relay, bucket)
    relay.rule = lambda request: (
        Answer(403, "AccessDenied")
        if request.method == "DELETE"
        else Answer(501, "NotImplemented")
        if request.path.endswith("?delete")
        else None
    )
    with pytest.raises(
        HmsError, match=r"2 objects of s3://.* could not be removed: a: .*AccessDenied.*; b: "
    ) as caught:
        store.remove(["a", "b"])
    assert set(caught.value.details["problems"]) == {"a", "b"}


def test_reading_goes_on_where_it_broke_off(s3_server: S3Server, relay: S3Relay, bucket: pathlib.Path) -> None:
    data = os.urandom(9 * MIB)
    (bucket / "data").write_bytes(data)
    s3_server.forget()
    relay.rule = times(3, lambda request: request.method == "GET", Fault("cut_answer", after=2 * MIB))
    assert read_all(opened(relay, bucket), "data") == data
    assert [bool(request.header("range")) for request in relay.seen] == [False, True, True, True]


def test_reading_does_not_go_on_in_another_object(s3_server: S3Server, relay: S3Relay, bucket: pathlib.Path) -> None:
    (bucket / "data").write_bytes(b"a" * 5 * MIB)
    s3_server.forget()
    store = opened(relay, bucket)

    def rule(request: Request) -> Fault | None:
        if request.header("range"):
            (bucket / "data").write_bytes(b"b" * 5 * MIB)
            s3_server.forget()
            return None
        return Fault("cut_answer", after=MIB)

    relay.rule = rule
    with pytest.raises(HmsError) as caught:
        read_all(store, "data")
    assert caught.value.reason in ("store_failed", "exists")


def test_reading_a_server_that_is_gone_ends(s3_server: S3Server, bucket: pathlib.Path) -> None:
    with S3Relay(s3_server) as relay:
        (bucket / "data").write_bytes(b"a" * 5 * MIB)
        s3_server.forget()
        relay.rule = lambda request: Fault("hang") if request.header("range") else Fault("cut_answer", after=MIB)
        store = opened(relay, bucket, attempts=2, **IMPATIENT)
        with pytest.raises(HmsError, match=r"Cannot read s3://.*/data") as caught:
            read_all(store, "data")
        assert caught.value.reason == "store_unreachable"


@pytest.mark.parametrize("fault", [Fault("hang"), BUSY], ids=["hang", "503"])
def test_a_server_that_never_answers_is_refused_soon(relay: S3Relay, bucket: pathlib.Path, fault: t.Any) -> None:
    relay.rule = lambda _request: fault
    with pytest.raises(Refused, match="Cannot list s3://"):
        opened(relay, bucket, **patience(fault)).check()
    until(lambda: len(relay.seen) >= 3, "the last request has come")
    assert len(relay.seen) == 3


def test_an_aborted_writer_does_not_wait_for_a_server_that_hangs(relay: S3Relay, bucket: pathlib.Path) -> None:
    store = opened(relay, bucket, read_timeout=60)
    writer = store.create("c/d/data", size_hint=20 * MIB)
    relay.rule = lambda request: Fault("hang") if request.is_part else None
    writer.write(b"x" * 20 * MIB)
    assert len(store.debris()) == 1
    writer.abort()
    writer.abort()
    assert store.debris() == []
    with pytest.raises(HmsError, match="ended before it was whole"):
        writer.commit()


def test_a_server_that_is_killed_in_the_middle(tmp_path: pathlib.Path) -> None:
    with S3Server(tmp_path / "s3") as server:
        folder = server.bucket("bucket")
        store = open_store(store_spec_from({"s3": server.settings("bucket", attempts=2)}))
        writer = store.create("c/d/data", size_hint=40 * MIB)
        writer.write(b"x" * 17 * MIB)
        server.kill()
        with pytest.raises(HmsError) as caught:
            writer.write(b"x" * 40 * MIB)
        assert caught.value.reason == "store_unreachable"
        assert visible(folder) == []
        server.start()
        assert upload(store, b"again", "c/d/data").size == 5


def test_a_part_that_was_changed_on_its_way_is_refused(relay: S3Relay, bucket: pathlib.Path) -> None:
    """The server compares: a relay that says nothing of a flipped bit is found out."""
    relay.corrupt = lambda request: request.is_part
    with pytest.raises(HmsError, match="BadDigest"):
        upload(opened(relay, bucket, attempts=2), os.urandom(10 * MIB))
    assert visible(bucket) == []


def start_child(settings: t.Mapping[str, t.Any], tmp_path: pathlib.Path, mebibytes: int) -> subprocess.Popen[str]:
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(settings))
    return subprocess.Popen(
        [sys.executable, str(CHILD), str(path), "write", "c/d/data", str(mebibytes), "hold"],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_kill_9_leaves_nothing_visible_and_debris_that_is_swept(
    s3_server: S3Server, bucket: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    settings = {"folder": str(folder), "s3": s3_server.settings(bucket.name, prefix="p")}
    with start_child(settings, tmp_path, 30) as child:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline()) == {"written": 30}
        in_folder = open_store(store_spec_from({"folder": str(folder)}))
        in_s3 = open_store(store_spec_from({"s3": settings["s3"]}))
        assert in_folder.debris() == [], "a living writer's file is no debris"
        child.send_signal(signal.SIGKILL)
        child.wait(60)
    for store in (in_folder, in_s3):
        assert list(store.list()) == []
        assert [item.key for item in store.debris("c/d")] == ["c/d/data"]
        assert store.debris("c/other") == []
        (found,) = store.debris()
        assert abs(found.started.timestamp() - time.time()) < 300
        store.sweep([found])
        store.sweep([found])
        assert store.debris() == []
        tee = Tee.create([store], "c/d/data", size_hint=4)
        tee.write(b"good")
        tee.commit()
        assert store.get("c/d/data") == b"good"
    assert [path for path in folder.rglob("*") if path.is_file()] == [folder / "c/d/data"]
    assert visible(bucket) == ["p/c/d/data"]
