# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The arithmetic of parts, and that an upload is completed by us or by nobody."""

from __future__ import annotations

import datetime
import io
import itertools
import threading
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._store.bucket import Bucket
from ansible_collections.hms.postgres.plugins.module_utils._store.model import S3Spec
from ansible_collections.hms.postgres.plugins.module_utils._store.s3_writer import (
    LARGEST_PART,
    MIB,
    MOST_PARTS,
    SMALLEST_PART,
    S3Writer,
    part_size,
    parts_in_flight,
    size_of_part,
    storing_options,
)

GIB = 1024 * MIB


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (None, SMALLEST_PART),
        (0, SMALLEST_PART),
        (50 * GIB, SMALLEST_PART),
        (100 * GIB, 12 * MIB),
        (1024 * GIB, 117 * MIB),
        (10**18, LARGEST_PART),
    ],
)
def test_parts_are_as_large_as_they_must_be(hint: int | None, expected: int) -> None:
    assert part_size(hint) == expected
    assert hint is None or expected == LARGEST_PART or expected * MOST_PARTS * 9 // 10 >= hint


@pytest.mark.parametrize("hint", [None, 1, 200 * GIB])
def test_an_object_that_outgrows_its_estimate_still_fits(hint: int | None) -> None:
    base = part_size(hint)
    sizes = [size_of_part(number, base, hinted=hint is not None) for number in range(1, MOST_PARTS + 1)]
    assert sizes == sorted(sizes)
    assert set(sizes[: MOST_PARTS // 5]) == {base}
    assert sum(sizes) >= 2 * max(hint or 0, 500 * GIB if hint is None else 0)


@pytest.mark.parametrize(
    ("size", "expected"), [(SMALLEST_PART, 3), (16 * MIB, 3), (24 * MIB, 1), (64 * MIB, 1), (LARGEST_PART, 1)]
)
def test_memory_bounds_what_is_on_its_way(size: int, expected: int) -> None:
    assert parts_in_flight(size) == expected


def test_options_of_the_spec() -> None:
    until = datetime.datetime(2030, 1, 1, tzinfo=datetime.timezone.utc)
    plain = Bucket(S3Spec("bucket"))
    assert storing_options(plain, until) == {}
    rich = Bucket(S3Spec("bucket", storage_class="GLACIER_IR", sse="aws:kms", kms_key_id="k", object_lock="GOVERNANCE"))
    kept = {"StorageClass": "GLACIER_IR", "ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "k"}
    assert storing_options(rich, None) == kept
    lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until}
    assert storing_options(rich, until) == {**kept, **lock}


class FakeBucket(Bucket):
    """Keeps what is sent, as a server would; `fail` raises where it likes."""

    def __init__(self, fail: t.Callable[[str, int], None] = lambda _operation, _number: None) -> None:
        super().__init__(S3Spec("bucket", prefix="p"))
        self.fail = fail
        self.calls: list[str] = []
        self.parts: dict[int, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.metadata: dict[str, str] = {}
        self.short = 0
        self.most_at_once = 0
        self._now = 0
        self._guard = threading.Lock()

    def call(self, operation: str, what: str, key: str = "", **parameters: t.Any) -> dict[str, t.Any]:  # noqa: ARG002  the real one's
        with self._guard:
            self.calls.append(operation)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            self.fail(operation, parameters.get("PartNumber", 0))
            answer: dict[str, t.Any] = getattr(self, operation)(key, parameters)
        finally:
            with self._guard:
                self._now -= 1
        return answer

    def head_object(self, key: str, _parameters: t.Any) -> dict[str, t.Any]:
        if key not in self.objects:
            raise HmsError("not there", reason="not_found")
        now = datetime.datetime.now(datetime.timezone.utc)
        size = len(self.objects[key]) - self.short
        return {"ContentLength": size, "LastModified": now, "ETag": '"tag"', "Metadata": self.metadata}

    def create_multipart_upload(self, _key: str, parameters: t.Any) -> dict[str, t.Any]:
        self.metadata = parameters["Metadata"]
        return {"UploadId": "upload"}

    def upload_part(self, _key: str, parameters: t.Any) -> dict[str, t.Any]:
        self.parts[parameters["PartNumber"]] = parameters["Body"].read()
        assert parameters["ContentLength"] == len(self.parts[parameters["PartNumber"]])
        return {"ETag": f"part{parameters['PartNumber']}"}

    def complete_multipart_upload(self, key: str, parameters: t.Any) -> dict[str, t.Any]:
        numbers = [part["PartNumber"] for part in parameters["MultipartUpload"]["Parts"]]
        assert numbers == list(range(1, len(numbers) + 1))
        self.objects[key] = b"".join(self.parts[number] for number in numbers)
        return {}

    def put_object(self, key: str, parameters: t.Any) -> dict[str, t.Any]:
        self.metadata = parameters["Metadata"]
        self.objects[key] = parameters["Body"].read()
        return {}

    def abort_multipart_upload(self, _key: str, _parameters: t.Any) -> dict[str, t.Any]:
        return {}

    def delete_object(self, key: str, _parameters: t.Any) -> dict[str, t.Any]:
        del self.objects[key]
        return {}


def fail_once(operation: str, error: HmsError, *, after: bool = False) -> t.Callable[[str, int], None]:
    left = itertools.count()

    def fail(called: str, _number: int) -> None:
        if called == operation and next(left) == 0 and not after:
            raise error

    return fail


def test_parts_fly_in_order_and_not_too_many_at_once() -> None:
    bucket = FakeBucket()
    data = b"".join(bytes([number]) * MIB for number in range(50))
    writer = S3Writer(bucket, "a", size_hint=len(data))
    for start in range(0, len(data), 3 * MIB):
        writer.write(data[start : start + 3 * MIB])
        assert bucket.objects == {}
    assert writer.commit().size == len(data)
    assert bucket.objects == {"a": data}
    assert [len(bucket.parts[number]) for number in sorted(bucket.parts)] == [8 * MIB] * 6 + [2 * MIB]
    assert bucket.most_at_once <= 3
    writer.abort()
    assert "abort_multipart_upload" not in bucket.calls


def test_a_small_object_is_one_request() -> None:
    bucket = FakeBucket()
    writer = S3Writer(bucket, "a")
    writer.write(b"small")
    writer.commit()
    assert bucket.objects == {"a": b"small"}
    assert bucket.calls == ["head_object", "head_object", "put_object", "head_object"]


def test_a_part_that_fails_aborts_and_is_told() -> None:
    def fail(operation: str, number: int) -> None:
        if operation == "upload_part" and number == 2:
            raise HmsError("part 2 failed", reason="store_failed")

    bucket = FakeBucket(fail)
    writer = S3Writer(bucket, "a")
    with pytest.raises(HmsError, match="part 2 failed"):
        writer.write(b"x" * 80 * MIB)
    assert bucket.calls[-1] == "abort_multipart_upload"
    assert bucket.objects == {}
    for attempt in (writer.commit, lambda: writer.write(b"x")):
        with pytest.raises(HmsError, match=r"after its end|before it was whole"):
            attempt()


@pytest.mark.parametrize("size", [1, 9 * MIB])
@pytest.mark.parametrize("reason", ["exists", "not_found"])
def test_our_own_object_is_known_again(size: int, reason: str) -> None:
    """The server did it, the answer was lost, and the second try met it."""
    bucket = FakeBucket()
    real = {name: getattr(bucket, name) for name in ("put_object", "complete_multipart_upload")}

    def lose(name: str) -> t.Any:
        def lost(key: str, parameters: t.Any) -> dict[str, t.Any]:
            real[name](key, parameters)
            raise HmsError("met it", reason=reason)

        return lost

    for name in real:
        setattr(bucket, name, lose(name))
    writer = S3Writer(bucket, "a")
    writer.write(b"x" * size)
    assert writer.commit().size == size
    bucket.objects.clear()
    other = S3Writer(bucket, "a")
    other.write(b"y" * size)
    real.update({name: lambda key, _parameters: bucket.objects.update({key: b"theirs"}) for name in real})
    bucket.metadata = {}
    with pytest.raises(HmsError, match="met it"):
        other.commit()


def test_an_object_of_another_size_is_removed_again() -> None:
    bucket = FakeBucket()
    writer = S3Writer(bucket, "a")
    writer.write(b"x" * 9 * MIB)
    bucket.short = 1
    with pytest.raises(HmsError, match="9437184 bytes were sent, and 9437183 bytes is there"):
        writer.commit()
    assert bucket.objects == {}


def test_a_server_without_conditions_gets_the_body_again() -> None:
    bucket = FakeBucket()
    real, calls = bucket.put_object, itertools.count()

    def once(key: str, parameters: t.Any) -> dict[str, t.Any]:
        if next(calls) == 0:
            parameters["Body"].read()
            raise HmsError("no conditions", details={"code": "NotImplemented"})
        return real(key, parameters)

    setattr(bucket, "put_object", once)  # noqa: B010  mypy lets no method be assigned
    writer = S3Writer(bucket, "a")
    writer.write(b"body")
    writer.commit()
    assert bucket.objects == {"a": b"body"}


def test_checksums() -> None:
    from ansible_collections.hms.postgres.plugins.module_utils._store.s3_writer import checksum_of

    body = io.BytesIO(b"hello")
    assert checksum_of(Bucket(S3Spec("b")), body) == {"ContentMD5": "XUFAKrxLKna5cZ2REBfFkg=="}
    wanted = {"ChecksumSHA256": "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="}
    assert checksum_of(Bucket(S3Spec("b", checksum="sha256")), body) == wanted
