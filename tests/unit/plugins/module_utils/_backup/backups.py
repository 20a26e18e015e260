# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A store in memory and manifests out of a few words, for tests of what reads and removes backups."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import itertools
import json
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._artifact.catalog import Entry
from ansible_collections.hms.postgres.plugins.module_utils._artifact.manifest import Manifest, Member, Verification
from ansible_collections.hms.postgres.plugins.module_utils._clock import iso
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._store.model import Debris, StoredObject

NOW = datetime.datetime(2026, 11, 22, 12, 0, tzinfo=datetime.timezone.utc)
_NUMBERS = itertools.count(1)


def ago(days: float = 0, hours: float = 0) -> datetime.datetime:
    """A moment before NOW."""
    return NOW - datetime.timedelta(days=days, hours=hours)


def proven(at: datetime.datetime, *, ok: bool = True, level: str = "read", partial: str = "") -> Verification:
    """A verification."""
    return Verification(
        level=level, ok=ok, at=iso(at), seconds=1.0, partial=partial, problems=() if ok else ("broken",)
    )


def manifest(
    at: datetime.datetime, *, database: str = "hospital", type_: str = "full", verified: bool = True, **more: t.Any
) -> Manifest:
    """A manifest of a backup made at a moment."""
    values: dict[str, t.Any] = {
        "id": f"{at:%Y%m%dT%H%M%SZ}-backup-{next(_NUMBERS) % 0x10000:04x}",
        "cluster": "hospital",
        "environment": "staging",
        "database": database,
        "engine": "pg_dump",
        "type": type_,
        "format": "custom",
        "host": "db1",
        "by": "cron",
        "started": iso(at),
        "ended": iso(at + datetime.timedelta(minutes=1)),
        "seconds": 60.0,
        "members": (Member("data", "data.dump.zst", 4, hashlib.sha256(b"data").hexdigest()),),
        "server": {"version_num": 150018},
        "snapshot": {"lsn": "0/1", "time": iso(at), "id": "x"},
        "tools": {"pg_dump": "15.18"},
        "compression": {"method": "zstd"},
        "encryption": {"method": "none", "recipients": []},
        "contents": {"database_bytes": 1000, "rows": {"public.patient": 3}},
        "verification": proven(at) if verified else None,
        **more,
    }
    return Manifest(**values)


def entry(at: datetime.datetime, *, history: t.Sequence[Verification] = (), held: bool = False, **more: t.Any) -> Entry:
    """An entry of the catalog."""
    made = manifest(at, **more)
    first = () if made.verification is None else (made.verification,)
    return Entry(made, "/srv/backups", (*first, *history), at, held)


class MemoryStore:
    """An object store that counts what is asked of it and fails where it is told to."""

    def __init__(self, name: str = "memory", *, now: datetime.datetime = NOW) -> None:
        self.name = name
        self.now = now
        self.objects: dict[str, tuple[bytes, datetime.datetime]] = {}
        self.locks: dict[str, datetime.datetime] = {}
        self.left: list[Debris] = []
        self.gets: list[str] = []
        self.removed: list[str] = []
        self.broken: dict[str, HmsError] = {}

    def _may(self, what: str) -> None:
        if what in self.broken:
            raise self.broken[what]

    def add(self, made: Manifest, *, at: datetime.datetime | None = None, but: str = "") -> Manifest:
        """Store a backup as it would be stored, without one member perhaps."""
        moment = at or self.now
        for member in made.members:
            if member.name != but:
                self.objects[made.key(member.name)] = (b"x" * member.bytes, moment)
        self.objects[made.key("manifest.json")] = (json.dumps(made.as_dict()).encode(), moment)
        return made

    def check(self) -> None:
        self._may("check")

    def free_bytes(self) -> int | None:
        return None

    def put(self, key: str, data: bytes, *, replace: bool = False, lock_until: t.Any = None) -> None:  # noqa: ARG002  the protocol's
        self._may("put")
        assert replace or key not in self.objects
        self.objects[key] = (data, self.now)

    def get(self, key: str, *, limit: int = 0) -> bytes:  # noqa: ARG002  the protocol's
        self.gets.append(key)
        self._may(key)
        if key not in self.objects:
            raise HmsError(f"{key} isn't there", reason="not_found")
        return self.objects[key][0]

    def list(self, prefix: str = "") -> t.Iterator[StoredObject]:
        self._may("list")
        for key in sorted(self.objects):
            if key.startswith(prefix):
                data, moment = self.objects[key]
                yield StoredObject(key, len(data), moment, hashlib.sha256(data).hexdigest())

    def locked_until(self, key: str) -> datetime.datetime | None:
        self._may("locked_until")
        return self.locks.get(key)

    def remove(self, keys: t.Sequence[str]) -> None:
        for key in keys:
            self._may(f"remove {key}")
            self.objects.pop(key, None)
            self.removed.append(key)

    def debris(self, prefix: str = "") -> t.List[Debris]:  # noqa: UP006  `list` is a method here
        return [one for one in self.left if one.key.startswith(prefix)]

    def sweep(self, found: t.Sequence[Debris]) -> None:
        self.left = [one for one in self.left if one not in found]

    def create(self, key: str, **_more: t.Any) -> t.Any:
        raise NotImplementedError(key)

    def open(self, key: str) -> t.Any:
        raise NotImplementedError(key)


def with_parent(child: Manifest, parent: Manifest) -> Manifest:
    """The same, depending on another."""
    return dataclasses.replace(child, parent=parent.id)
