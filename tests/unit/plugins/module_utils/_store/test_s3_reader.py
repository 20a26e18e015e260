# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading takes up a broken connection, within reason; errors of S3 are told by their cause."""

from __future__ import annotations

import importlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, ToolMissing
from ansible_collections.hms.postgres.plugins.module_utils._store import bucket as bucket_module
from ansible_collections.hms.postgres.plugins.module_utils._store.bucket import Bucket
from ansible_collections.hms.postgres.plugins.module_utils._store.model import S3Spec
from ansible_collections.hms.postgres.plugins.module_utils._store.s3_errors import s3_error
from ansible_collections.hms.postgres.plugins.module_utils._store.s3_reader import S3Reader, read_small

DATA = bytes(range(100))


class Body:
    """What boto3 gives to read from; breaks off after so many bytes."""

    def __init__(self, data: bytes, breaks: int | None) -> None:
        self._data, self._breaks = data, breaks
        self.closed = False

    def read(self, size: int) -> bytes:
        if self._breaks is not None:
            if self._breaks <= 0:
                raise ConnectionError("the connection died")
            size = min(size, self._breaks)
            self._breaks -= size
        piece, self._data = self._data[:size], self._data[size:]
        return piece

    def close(self) -> None:
        """Let the connection go."""
        self.closed = True


class FakeBucket(Bucket):
    """Serves DATA; each answer breaks off as scripted."""

    def __init__(self, *breaks: int | None, tag: str = "tag") -> None:
        super().__init__(S3Spec("bucket", attempts=3))
        self._breaks = list(breaks)
        self.asked: list[tuple[str | None, str | None]] = []
        self.bodies: list[Body] = []
        self.tag = tag

    def call(self, operation: str, what: str, key: str = "", **parameters: t.Any) -> dict[str, t.Any]:  # noqa: ARG002  the real one's
        wanted = parameters.get("Range")
        self.asked.append((wanted, parameters.get("IfMatch")))
        start = int(wanted[len("bytes=") : -1]) if wanted else 0
        tag = self.tag if wanted else "tag"
        self.bodies.append(Body(DATA[start:], self._breaks.pop(0)))
        return {"Body": self.bodies[-1], "ETag": tag, "ContentLength": len(DATA) - start}


def read(bucket: Bucket, pauses: list[float]) -> bytes:
    reader = S3Reader(bucket, "a", sleep=pauses.append)
    return b"".join(iter(lambda: reader.read(16), b""))


def test_reading_goes_on_where_it_broke_off() -> None:
    pauses: list[float] = []
    bucket = FakeBucket(40, 0, 16, None)
    assert read(bucket, pauses) == DATA
    assert bucket.asked == [(None, None), ("bytes=40-", "tag"), ("bytes=40-", "tag"), ("bytes=56-", "tag")]
    assert pauses == [1.0, 2.0, 1.0]


def test_reading_ends_where_nothing_comes_any_more() -> None:
    pauses: list[float] = []
    bucket = FakeBucket(40, 0, 0, 0)
    with pytest.raises(HmsError, match="Cannot read s3://bucket/a: ConnectionError") as caught:
        read(bucket, pauses)
    assert caught.value.reason == "store_unreachable"
    assert len(pauses) == 2
    assert [body.closed for body in bucket.bodies] == [True, True, True]


def test_reading_does_not_mix_two_objects() -> None:
    bucket = FakeBucket(40, None, tag="other")
    with pytest.raises(HmsError, match="was replaced while it was read"):
        read(bucket, [])
    assert [body.closed for body in bucket.bodies] == [True, True], "no connection is left open"


def test_small_objects_are_read_whole() -> None:
    assert read_small(FakeBucket(None), "a", 100) == DATA
    with pytest.raises(HmsError, match="100 bytes, more than the 99"):
        read_small(FakeBucket(None), "a", 99)


class Answered(Exception):
    """As botocore's ClientError is."""

    def __init__(self, code: str, status: int = 400, retries: int = 0) -> None:
        super().__init__(code)
        self.response = {
            "Error": {"Code": code, "Message": "said the server"},
            "ResponseMetadata": {"HTTPStatusCode": status, "RetryAttempts": retries},
        }


class ReadTimeoutError(Exception):
    """As botocore's."""


@pytest.mark.parametrize(
    ("error", "reason", "said"),
    [
        (Answered("SlowDown", 503, 10), "store_failed", "SlowDown said the server, tried 11 times"),
        (Answered("AccessDenied", 403), "store_denied", "AccessDenied"),
        (Answered("NoSuchBucket", 404), "no_store", "NoSuchBucket"),
        (Answered("NoSuchKey", 404), "not_found", "does not exist"),
        (Answered("PreconditionFailed", 412), "exists", "exists already"),
        (Answered("RequestTimeTooSkewed", 403), "clock_wrong", "RequestTimeTooSkewed"),
        (Answered("QuotaExceeded", 403), "store_full", "QuotaExceeded"),
        (
            ReadTimeoutError('on "https://h/b/k?uploadId=1"'),
            "store_unreachable",
            'ReadTimeoutError: on "https://h/b/k"',
        ),
        (ValueError("odd"), "store_failed", "ValueError: odd"),
        (FileNotFoundError("no bundle"), "store_unreachable", "no bundle"),
    ],
)
def test_errors_are_told_by_their_cause(error: Exception, reason: str, said: str) -> None:
    told = s3_error("s3://bucket", "a", "write", error)
    assert told.reason == reason
    assert said in told.message
    assert "s3://bucket/a" in told.message
    assert told.next_step


def test_an_error_of_ours_stays_as_it_is() -> None:
    error = HmsError("ours")
    assert s3_error("s3://bucket", "a", "write", error) is error


def test_a_missing_boto3_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> t.Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ToolMissing, match="boto3 is not installed") as caught:
        bucket_module.load()
    assert "python3-boto3" in caught.value.next_step
