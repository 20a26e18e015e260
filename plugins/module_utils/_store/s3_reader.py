# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An object read from a bucket: a connection that dies is taken up again where it broke off. PRIVATE."""

from __future__ import annotations

import contextlib
import time
import typing as t

from .._errors import HmsError
from . import common
from .bucket import Bucket
from .s3_errors import s3_error

_LONGEST_PAUSE = 20.0


class S3Reader:
    """An object being read."""

    def __init__(self, bucket: Bucket, key: str, *, sleep: t.Callable[[float], None] = time.sleep) -> None:
        self._bucket, self._key, self._sleep = bucket, key, sleep
        answer = bucket.call("get_object", "read", key)
        self._body: t.Any = answer["Body"]
        self._etag: str = answer["ETag"]
        self._total: int = answer["ContentLength"]
        self._offset = 0

    def size(self) -> int:
        """How large it is."""
        return self._total

    def read(self, size: int) -> bytes:
        """At most `size` bytes, b"" at the end."""
        failures = 0
        while self._offset < self._total:
            # boto3's and urllib3's errors have no common base
            try:
                if self._body is None:
                    self._reopen()
                data: bytes = self._body.read(min(size, self._total - self._offset))
                if data:
                    self._offset += len(data)
                    return data
            except HmsError:
                raise
            except Exception as error:
                failures += 1
                if failures >= self._bucket.attempts:
                    self.close()
                    raise s3_error(self._bucket.name, self._key, "read", error) from error
            self.close()
            self._sleep(min(0.5 * 2**failures, _LONGEST_PAUSE))
        return b""

    def _reopen(self) -> None:
        answer = self._bucket.call("get_object", "read", self._key, Range=f"bytes={self._offset}-", IfMatch=self._etag)
        self._body = answer["Body"]
        if answer["ETag"] != self._etag or answer["ContentLength"] != self._total - self._offset:
            self.close()
            raise HmsError(
                f"{self._bucket.name}/{self._key} was replaced while it was read.",
                reason="store_failed",
                state="Nothing was changed.",
                next_step="Find out who writes there; objects of backups are never replaced.",
                details={"store": self._bucket.name, "key": self._key},
            )

    def close(self) -> None:
        """Let go."""
        body, self._body = self._body, None
        if body is not None:
            with contextlib.suppress(Exception):
                body.close()


def read_small(bucket: Bucket, key: str, limit: int) -> bytes:
    """An object whole."""
    reader = S3Reader(bucket, key)
    try:
        if reader.size() > limit:
            raise common.too_large(bucket.name, key, reader.size(), limit)
        return b"".join(iter(lambda: reader.read(1024 * 1024), b""))
    finally:
        reader.close()
