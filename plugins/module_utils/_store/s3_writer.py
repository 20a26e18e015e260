# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An object on its way into a bucket: our own multipart upload. PRIVATE to the collection.

Completing is ours to decide: a source that ends early never becomes an object, which no file-like interface of
boto3 can promise. Memory holds the part that fills and those on their way, never more.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import itertools
import secrets
import threading
import time
import typing as t

from .._errors import HmsError
from . import common
from .bucket import Bucket, md5_of, sha256_of
from .model import StoredObject
from .s3_errors import NO_UPLOAD, NOT_IMPLEMENTED

MIB = 1024 * 1024
SMALLEST_PART = 8 * MIB
LARGEST_PART = 5 * 1024 * MIB
MOST_PARTS = 10_000
_MEMORY = 64 * MIB
_WRITER = "hms-writer"
_PATIENCE_AFTER_ABORT = 5.0
_TRIES_TO_ABORT = 2


def part_size(size_hint: int | None) -> int:
    """The size of parts for an object of about this size: a tenth of the possible parts stays in reserve."""
    wanted = -(-(size_hint or 0) // (MOST_PARTS * 9 // 10))
    return max(SMALLEST_PART, min(-(-wanted // MIB) * MIB, LARGEST_PART))


def size_of_part(number: int, base: int, *, hinted: bool) -> int:
    """How large the part with this number is: all alike, until an object outgrows what was expected of it."""
    first, step = (MOST_PARTS * 9 // 10, 200) if hinted else (MOST_PARTS // 5, MOST_PARTS // 10)
    doublings = max(0, -(-(number - first) // step))
    return int(min(base << doublings, LARGEST_PART))


def parts_in_flight(size: int) -> int:
    """How many parts may be on their way at once, besides the one that fills: three, as far as memory allows."""
    return max(1, min(3, _MEMORY // size - 1))


def utc(moment: datetime.datetime) -> datetime.datetime:
    """What boto3 gives, which may be local time."""
    return moment.astimezone(datetime.timezone.utc)


def storing_options(bucket: Bucket, lock_until: datetime.datetime | None) -> dict[str, t.Any]:
    """What the spec asks of a new object: storage class, encryption by the server, retention."""
    spec = bucket.spec
    options: dict[str, t.Any] = {}
    if spec.storage_class:
        options["StorageClass"] = spec.storage_class
    if spec.sse:
        options["ServerSideEncryption"] = spec.sse
    if spec.kms_key_id:
        options["SSEKMSKeyId"] = spec.kms_key_id
    if spec.object_lock and lock_until:
        options["ObjectLockMode"] = spec.object_lock
        options["ObjectLockRetainUntilDate"] = lock_until
    return options


def checksum_of(bucket: Bucket, body: io.BytesIO) -> dict[str, str]:
    """The checksum that the server holds a body against.

    ``auto`` is Content-MD5: the only one that AWS (with object lock and KMS as well) and every other server check.
    """
    with body.getbuffer() as view:
        if bucket.spec.checksum == "sha256":
            return {"ChecksumSHA256": sha256_of(view)}
        return {"ContentMD5": md5_of(view)}


class _Part(threading.Thread):
    """One part on its way. A daemon: a server that hangs doesn't keep our process alive."""

    def __init__(self, send: t.Callable[[], dict[str, t.Any]], number: int) -> None:
        super().__init__(name=f"part-{number}", daemon=True)
        self._send: t.Callable[[], dict[str, t.Any]] | None = send
        self.number = number
        self.answer: dict[str, t.Any] = {}
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.answer = self._send() if self._send else {}
        except BaseException as error:  # noqa: BLE001  told by whoever waits for the part
            self.error = error
        finally:
            self._send = None


class S3Writer:
    """An object in the making."""

    def __init__(
        self,
        bucket: Bucket,
        key: str,
        *,
        size_hint: int | None = None,
        lock_until: datetime.datetime | None = None,
        replace: bool = False,
    ) -> None:
        self._bucket, self._key, self._replace = bucket, key, replace
        self._base, self._hinted = part_size(size_hint), size_hint is not None
        self._token = secrets.token_hex(16)
        self._options = {**storing_options(bucket, lock_until), "Metadata": {_WRITER: self._token}}
        self._upload = ""
        self._filling = io.BytesIO()
        self._flying: list[_Part] = []
        self._landed: list[dict[str, t.Any]] = []
        self._bytes = 0
        self._over = False
        self._stopped = threading.Event()
        if not replace:
            self._refuse_taken()

    def _error(self, what: str, why: str) -> HmsError:
        return HmsError(
            f"Cannot {what} {self._bucket.name}/{self._key}: {why}.",
            reason="store_failed",
            state=common.UNTOUCHED,
            next_step="Look at the server's log; run it again when it is well.",
            details={"store": self._bucket.name, "key": self._key},
        )

    def _refuse_taken(self) -> None:
        if self._head() is not None:
            raise common.exists(self._bucket.name, self._key)

    def _head(self) -> dict[str, t.Any] | None:
        try:
            return self._bucket.call("head_object", "look at", self._key)
        except HmsError as error:
            if error.reason == "not_found":
                return None
            raise

    # filling parts and sending them

    def write(self, data: bytes) -> None:
        """Add bytes; waits while as many parts as allowed are on their way."""
        if self._over:
            raise HmsError(f"{self._bucket.name}/{self._key} was written to after its end.", reason="defect")
        rest = memoryview(data)
        try:
            while rest:
                size = self._current_size()
                room = size - self._filling.tell()
                self._bytes += self._filling.write(rest[:room])
                rest = rest[room:]
                if self._filling.tell() == size:
                    self._send(parts_in_flight(size))
            self._judge_landed()
        except BaseException:
            self.abort()
            raise

    def _number(self) -> int:
        return len(self._landed) + len(self._flying) + 1

    def _current_size(self) -> int:
        return size_of_part(self._number(), self._base, hinted=self._hinted)

    def _send(self, at_most: int) -> None:
        """Let the part that is full fly, once there is room in the air."""
        if not self._upload:
            self._begin()
        number, body = self._number(), self._filling
        if number > MOST_PARTS:
            raise self._error("write", f"it is larger than {MOST_PARTS} parts")
        while len(self._flying) >= at_most:
            self._await_oldest()
        part = _Part(lambda: self._upload_part(number, body), number)
        self._flying.append(part)
        self._filling = io.BytesIO()
        part.start()

    def _begin(self) -> None:
        extra = {"ChecksumAlgorithm": "SHA256"} if self._bucket.spec.checksum == "sha256" else {}
        answer = self._bucket.call("create_multipart_upload", "write", self._key, **self._options, **extra)
        self._upload = answer["UploadId"]

    def _upload_part(self, number: int, body: io.BytesIO) -> dict[str, t.Any]:
        checksum = checksum_of(self._bucket, body)
        body.seek(0)
        with self._bucket.until(self._stopped.is_set):
            answer = self._bucket.call(
                "upload_part",
                f"write part {number} of",
                self._key,
                UploadId=self._upload,
                PartNumber=number,
                Body=body,
                ContentLength=body.getbuffer().nbytes,
                **checksum,
            )
        known = {"PartNumber": number, "ETag": answer["ETag"]}
        return {**known, **{key: value for key, value in checksum.items() if key != "ContentMD5"}}

    def _await_oldest(self) -> None:
        spec = self._bucket.spec
        part = self._flying[0]
        # as long as boto3 may take for all its attempts
        part.join(self._bucket.attempts * (spec.connect_timeout + spec.read_timeout + 20.0))
        if part.is_alive():
            raise self._error(f"write part {part.number} of", "the server takes it too slowly")
        self._flying.pop(0)
        if part.error is not None:
            raise part.error
        self._landed.append(part.answer)

    def _judge_landed(self) -> None:
        """Take in what has landed, so that a failure is told soon and memory is free early."""
        while self._flying and not self._flying[0].is_alive():
            self._await_oldest()

    # the end

    def commit(self) -> StoredObject:
        """Make it visible, whole and durable."""
        if self._over:
            raise HmsError(f"{self._bucket.name}/{self._key} was ended before it was whole.", reason="defect")
        try:
            if self._upload:
                if self._filling.tell():
                    self._send(parts_in_flight(self._base))
                while self._flying:
                    self._await_oldest()
                self._finish("complete_multipart_upload", **self._completion())
            else:
                self._finish("put_object", **self._options, **self._body())
            stored = self._look()
        except BaseException:
            self.abort()
            raise
        self._over = True
        return stored

    def _completion(self) -> dict[str, t.Any]:
        return {"UploadId": self._upload, "MultipartUpload": {"Parts": self._landed}}

    def _body(self) -> dict[str, t.Any]:
        checksum = checksum_of(self._bucket, self._filling)
        self._filling.seek(0)
        return {"Body": self._filling, "ContentLength": self._bytes, **checksum}

    def _finish(self, operation: str, **parameters: t.Any) -> None:
        """The request after which the object is there, told not to replace one."""
        if self._replace:
            self._bucket.call(operation, "complete", self._key, **parameters)
            return
        self._refuse_taken()
        try:
            with self._bucket.only_if_absent():
                self._bucket.call(operation, "complete", self._key, **parameters)
        except HmsError as error:
            code = error.details.get("code", "")
            if code in NOT_IMPLEMENTED:
                # this server knows no conditions; that there was nothing a moment ago has to do
                self._filling.seek(0)
                self._bucket.call(operation, "complete", self._key, **parameters)
            elif not (error.reason in ("exists", "not_found") or code in NO_UPLOAD) or not self._is_ours():
                raise

    def _is_ours(self) -> bool:
        """Whether the object is the one that we made: the first try succeeded, its answer was lost on the way."""
        head = self._head()
        metadata = {key.lower(): value for key, value in (head or {}).get("Metadata", {}).items()}
        return metadata.get(_WRITER) == self._token

    def _look(self) -> StoredObject:
        head = self._head()
        if head is None or head["ContentLength"] != self._bytes:
            found = "nothing" if head is None else f"{head['ContentLength']} bytes"
            if head is not None and self._is_ours():
                with contextlib.suppress(HmsError):
                    self._bucket.call("delete_object", "remove", self._key)
            raise self._error("complete", f"{self._bytes} bytes were sent, and {found} is there")
        self._upload = ""
        return StoredObject(
            key=self._key, size=self._bytes, modified=utc(head["LastModified"]), tag=str(head["ETag"]).strip('"')
        )

    def abort(self) -> None:
        """Leave nothing."""
        if self._over:
            return
        self._over = True
        self._stopped.set()
        self._filling = io.BytesIO()
        deadline = time.monotonic() + _PATIENCE_AFTER_ABORT
        for part in self._flying:
            # a part that lands after the abort would bring the upload back to life on some servers
            part.join(max(0.0, deadline - time.monotonic()))
        self._flying = []
        if self._upload:
            tries = itertools.count(1)
            with contextlib.suppress(HmsError), self._bucket.until(lambda: next(tries) >= _TRIES_TO_ABORT):
                self._bucket.call("abort_multipart_upload", "abort", self._key, UploadId=self._upload)
