# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How big a backup will be and how long it will take, from the last one of its kind. Pure. PRIVATE."""

from __future__ import annotations

import dataclasses
import typing as t

from .._artifact.manifest import Manifest
from .model import Wish

_FIRST = {"zstd": 0.35, "gzip": 0.40, "lz4": 0.60, "none": 0.95}
"""Bytes stored for a byte of the database, where nothing is known yet: on the high side of what text makes."""
_CERTAIN = {"zstd": 0.02, "gzip": 0.03, "lz4": 0.05, "none": 0.20}
"""The same on the low side: less room than this cannot do."""
_FIRST_BYTES_PER_SECOND = 50_000_000
_SCHEMA_BYTES = 2_000_000
_HEADROOM = 1.1


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What is expected.

    Attributes:
        bytes: stored, in one store.
        seconds: without the verification; None where nothing is known.
        least: bytes below which a store certainly is too small.
        based_on: the id of the backup it is computed from, '' where there is none.
    """

    bytes: int
    seconds: float | None
    least: int
    based_on: str = ""

    def as_dict(self) -> dict[str, t.Any]:
        """For people and programs."""
        return {"bytes": self.bytes, "seconds": self.seconds, "based_on": self.based_on or None}


def alike(manifest: Manifest, wish: Wish) -> bool:
    """Whether a backup tells something about the size of the one that is wished."""
    return (
        manifest.engine == wish.engine
        and manifest.database == wish.database
        and manifest.type == wish.type
        and manifest.compression.get("method") == wish.compression.method
    )


def newest_alike(manifests: t.Iterable[Manifest], wish: Wish) -> Manifest | None:
    """The last backup of the same kind."""
    return max((found for found in manifests if alike(found, wish)), key=lambda found: found.id, default=None)


def estimate(wish: Wish, database_bytes: int, previous: Manifest | None) -> Estimate:
    """Size and duration; they grow as the database has grown."""
    if wish.type == "schema_only":
        size = previous.bytes if previous else _SCHEMA_BYTES
        return Estimate(size, previous.seconds if previous else None, 0, previous.id if previous else "")
    method = wish.compression.method
    before = int(previous.contents.get("database_bytes") or 0) if previous else 0
    if previous is None or before <= 0:
        return Estimate(
            bytes=int(database_bytes * _FIRST[method]),
            seconds=round(database_bytes / _FIRST_BYTES_PER_SECOND, 1),
            least=int(database_bytes * _CERTAIN[method]),
        )
    growth = database_bytes / before
    size = int(previous.bytes * growth)
    # a database may have been emptied without having shrunk; growth is believed, shrinking only to a half
    least = int(previous.bytes * min(max(growth, 0.5), 1.0) * 0.5)
    return Estimate(size, round(previous.seconds * growth, 1), least, previous.id)


def staged_bytes(database_bytes: int, previous: Manifest | None) -> int:
    """Room that the dump itself needs, uncompressed: as much as the last one had, or as the database has now."""
    before = int(previous.contents.get("database_bytes") or 0) if previous else 0
    plain = sum(member.plain_bytes or 0 for member in previous.members if member.role == "data") if previous else 0
    expected = plain * database_bytes / before if plain and before else database_bytes
    return int(expected * _HEADROOM)


def comfortable(expected: Estimate) -> int:
    """Bytes that a store should have free."""
    return int(expected.bytes * _HEADROOM)


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
