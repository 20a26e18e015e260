# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where artifacts are kept: one protocol, a folder and an S3 bucket behind it. PRIVATE to the collection.

Keys are relative paths with ``/``; no key starts with ``/`` or holds ``..``. An object is visible only after its
writer's `commit`, whole and durable; what a killed writer left is debris, which `debris` lists and `sweep` removes.
"""

from __future__ import annotations

import dataclasses
import datetime
import typing as t


@dataclasses.dataclass(frozen=True)
class StoredObject:
    """One object as the store lists it.

    Attributes:
        key: its name.
        size: bytes.
        modified: when it was stored, by the store's clock.
        tag: changes whenever the content does (S3's ETag; inode, size and mtime in a folder).
    """

    key: str
    size: int
    modified: datetime.datetime
    tag: str


@dataclasses.dataclass(frozen=True)
class Debris:
    """What an interrupted writer left: a ``.part`` file or an unfinished multipart upload."""

    key: str
    upload: str
    started: datetime.datetime
    size: int | None = None


@dataclasses.dataclass(frozen=True)
class FolderSpec:
    """A folder of this host, or a mounted one."""

    path: str


@dataclasses.dataclass(frozen=True)
class S3Spec:
    """A bucket. Credentials not given here are found by boto3's own chain (profile, instance role)."""

    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    ca_bundle: str | None = None
    access_key_id: str | None = dataclasses.field(default=None, repr=False)
    secret_access_key: str | None = dataclasses.field(default=None, repr=False)
    session_token: str | None = dataclasses.field(default=None, repr=False)
    profile: str | None = None
    addressing_style: t.Literal["auto", "path", "virtual"] = "auto"
    storage_class: str | None = None
    sse: t.Literal["AES256", "aws:kms"] | None = None
    kms_key_id: str | None = None
    object_lock: t.Literal["GOVERNANCE", "COMPLIANCE"] | None = None
    """Data objects are locked until retention would remove them; the mode."""
    checksum: t.Literal["auto", "sha256", "md5"] = "auto"
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    attempts: int = 11


StoreSpec = t.Union[FolderSpec, S3Spec]


class ObjectWriter(t.Protocol):
    """One object in the making."""

    def write(self, data: bytes) -> None:
        """Add bytes; raises `HmsError` (reason ``store_failed``, ``store_full``) naming the store and the key."""

    def commit(self) -> StoredObject:
        """Make it visible, whole and durable."""

    def abort(self) -> None:
        """Leave nothing; harmless after `commit` or `abort`; never raises."""


class ObjectReader(t.Protocol):
    """An object being read."""

    def read(self, size: int) -> bytes:
        """At most `size` bytes, b"" at the end."""

    def close(self) -> None:
        """Let go; never raises."""


class ObjectStore(t.Protocol):
    """A place for objects."""

    name: str
    """For messages: ``/srv/backups`` or ``s3://bucket/prefix``. Never a secret."""

    def check(self) -> None:
        """Whether it can be written, read and listed now; raises `Refused` that says what is wrong and what to do."""

    def free_bytes(self) -> int | None:
        """Room left; None where nobody knows."""

    def create(
        self, key: str, *, size_hint: int | None = None, lock_until: datetime.datetime | None = None
    ) -> ObjectWriter:
        """Start an object. A key that exists is never replaced: `commit` raises (reason ``exists``).

        `size_hint` in bytes sets the size of parts where there are parts.
        """

    def put(self, key: str, data: bytes, *, replace: bool = False, lock_until: datetime.datetime | None = None) -> None:
        """Store a small object at once."""

    def open(self, key: str) -> ObjectReader:
        """Read an object as a stream; raises with reason ``not_found``."""

    def get(self, key: str, *, limit: int = 64 * 1024 * 1024) -> bytes:
        """A small object whole; one that is larger than `limit` raises."""

    def list(self, prefix: str = "") -> t.Iterator[StoredObject]:
        """All objects under a prefix, by key; pages are fetched as they are needed."""

    def locked_until(self, key: str) -> datetime.datetime | None:
        """Until when the store itself refuses to remove it; None where it doesn't."""

    def remove(self, keys: t.Sequence[str]) -> None:
        """Remove objects; those that are gone already are no error. Raises naming each that could not be removed."""

    def debris(self, prefix: str = "") -> t.Sequence[Debris]:
        """What interrupted writers left."""

    def sweep(self, found: t.Sequence[Debris]) -> None:
        """Remove debris."""
