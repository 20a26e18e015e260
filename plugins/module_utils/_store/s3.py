# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A bucket as a store. PRIVATE to the collection."""

from __future__ import annotations

import contextlib
import datetime
import io
import secrets
import typing as t

from .._errors import HmsError
from . import common
from .bucket import Bucket
from .model import Debris, S3Spec, StoredObject
from .s3_errors import NO_UPLOAD, NOT_IMPLEMENTED
from .s3_reader import S3Reader, read_small
from .s3_writer import S3Writer, checksum_of, storing_options, utc

_AT_ONCE = 1000
_ATTEMPTS_OF_A_CHECK = 3
FOR_EVER = datetime.datetime.max.replace(tzinfo=datetime.timezone.utc)
"""What `locked_until` gives for a legal hold, which has no end."""


class S3Store:
    """A bucket, or what is under a prefix in it."""

    def __init__(self, spec: S3Spec) -> None:
        self._bucket = Bucket(spec)
        self.name = self._bucket.name

    def check(self) -> None:
        """Whether it can be written, read and listed now; raises `Refused`. Leaves nothing, not even a version."""
        # a wrong setting is to be told soon: fewer attempts than a backup gets
        bucket = Bucket(self._bucket.spec, attempts=min(_ATTEMPTS_OF_A_CHECK, self._bucket.attempts))
        try:
            bucket.call("list_objects_v2", "list", MaxKeys=1, Prefix=bucket.absolute(""))
            _check_reading(bucket)
            if bucket.spec.object_lock:
                _check_object_lock(bucket)
            _check_writing(bucket)
        except HmsError as error:
            raise common.as_refused(error) from error

    def free_bytes(self) -> int | None:
        """Nobody knows."""
        return None

    def create(
        self, key: str, *, size_hint: int | None = None, lock_until: datetime.datetime | None = None
    ) -> S3Writer:
        """Start an object."""
        return S3Writer(self._bucket, common.check_key(key), size_hint=size_hint, lock_until=lock_until)

    def put(self, key: str, data: bytes, *, replace: bool = False, lock_until: datetime.datetime | None = None) -> None:
        """Store a small object at once."""
        key = common.check_key(key)
        writer = S3Writer(self._bucket, key, size_hint=len(data), lock_until=lock_until, replace=replace)
        writer.write(data)
        writer.commit()

    def open(self, key: str) -> S3Reader:
        """Read an object as a stream."""
        return S3Reader(self._bucket, common.check_key(key))

    def get(self, key: str, *, limit: int = 64 * 1024 * 1024) -> bytes:
        """A small object whole."""
        return read_small(self._bucket, common.check_key(key), limit)

    def list(self, prefix: str = "") -> t.Iterator[StoredObject]:
        """All objects under a prefix, by key."""
        for page in self._bucket.pages("list_objects_v2", "list", Prefix=self._bucket.absolute(prefix)):
            for item in page.get("Contents", ()):
                # a key that ends with a slash is what consoles make as a folder
                if not item["Key"].endswith("/"):
                    yield StoredObject(
                        key=self._bucket.relative(item["Key"]),
                        size=item["Size"],
                        modified=utc(item["LastModified"]),
                        tag=str(item["ETag"]).strip('"'),
                    )

    def locked_until(self, key: str) -> datetime.datetime | None:
        """Until when object lock holds it; `FOR_EVER` under a legal hold."""
        head = self._bucket.call("head_object", "look at", common.check_key(key))
        if head.get("ObjectLockLegalHoldStatus") == "ON":
            return FOR_EVER
        until = head.get("ObjectLockRetainUntilDate")
        return None if until is None else utc(until)

    def remove(self, keys: t.Sequence[str]) -> None:
        """Remove objects, a thousand with each request."""
        problems: dict[str, str] = {}
        for start in range(0, len(keys), _AT_ONCE):
            problems.update(self._remove_some([common.check_key(key) for key in keys[start : start + _AT_ONCE]]))
        if problems:
            raise common.not_removed(self.name, problems)

    def _remove_some(self, keys: t.Sequence[str]) -> dict[str, str]:
        wanted = {"Objects": [{"Key": self._bucket.absolute(key)} for key in keys], "Quiet": True}
        try:
            answer = self._bucket.call("delete_objects", "remove objects of", Delete=wanted)
        except HmsError as error:
            if error.details.get("code") not in NOT_IMPLEMENTED:
                raise
            return self._remove_each(keys)
        return {
            self._bucket.relative(item["Key"]): f"{item.get('Code', '')} {item.get('Message', '')}".strip()
            for item in answer.get("Errors", ())
            if item.get("Code") != "NoSuchKey"
        }

    def _remove_each(self, keys: t.Sequence[str]) -> dict[str, str]:
        problems = {}
        for key in keys:
            try:
                self._bucket.call("delete_object", "remove", key)
            except HmsError as error:
                if error.reason != "not_found":
                    problems[key] = error.message
        return problems

    def debris(self, prefix: str = "") -> t.Sequence[Debris]:
        """Uploads that were begun and neither completed nor aborted; S3 doesn't tell whose writer still lives."""
        found = []
        try:
            for page in self._bucket.pages(
                "list_multipart_uploads", "list the unfinished uploads of", Prefix=self._bucket.absolute(prefix)
            ):
                found += [
                    Debris(
                        key=self._bucket.relative(item["Key"]), upload=item["UploadId"], started=utc(item["Initiated"])
                    )
                    for item in page.get("Uploads", ())
                ]
        except HmsError as error:
            # what rclone says where there was never an upload
            if error.details.get("code") not in NO_UPLOAD:
                raise
        return found

    def sweep(self, found: t.Sequence[Debris]) -> None:
        """Abort uploads; those that are gone already are no error."""
        problems: dict[str, str] = {}
        for item in found:
            try:
                self._bucket.call("abort_multipart_upload", "abort", item.key, UploadId=item.upload)
            except HmsError as error:
                if error.details.get("code") not in NO_UPLOAD and error.reason != "not_found":
                    problems[item.key] = error.message
        if problems:
            raise common.not_removed(self.name, problems)


def _check_reading(bucket: Bucket) -> None:
    try:
        bucket.call("get_object", "read from", f".probe-{secrets.token_hex(8)}")["Body"].close()
    except HmsError as error:
        if error.reason != "not_found":
            raise


def _check_object_lock(bucket: Bucket) -> None:
    try:
        answer = bucket.call("get_object_lock_configuration", "read the object lock of")
        enabled = answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled"
    except HmsError as error:
        if error.details.get("code") not in ("ObjectLockConfigurationNotFoundError", *NOT_IMPLEMENTED):
            raise
        enabled = False
    if not enabled:
        raise HmsError(
            f"object_lock is asked for, and the bucket {bucket.spec.bucket} has none.",
            reason="bad_config",
            next_step="Make a bucket with object lock, or leave object_lock out.",
        )


def _check_writing(bucket: Bucket) -> None:
    """A part of an upload that is aborted: needs the same rights as an object, and becomes none."""
    key, body = f".probe-{secrets.token_hex(8)}", io.BytesIO(b"hms")
    extra = {"ChecksumAlgorithm": "SHA256"} if bucket.spec.checksum == "sha256" else {}
    upload = bucket.call("create_multipart_upload", "write to", key, **storing_options(bucket, None), **extra)[
        "UploadId"
    ]
    try:
        checksum = checksum_of(bucket, body)
        bucket.call(
            "upload_part", "write to", key, UploadId=upload, PartNumber=1, Body=body, ContentLength=3, **checksum
        )
    except HmsError:
        with contextlib.suppress(HmsError):
            bucket.call("abort_multipart_upload", "abort an upload to", key, UploadId=upload)
        raise
    bucket.call("abort_multipart_upload", "abort an upload to", key, UploadId=upload)
