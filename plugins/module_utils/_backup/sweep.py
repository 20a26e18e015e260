# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Debris: what interrupted backups and removals left in a store. PRIVATE to the collection.

Only what this collection makes is touched: folders that are named like a backup's id and hold no manifest, and what
the store itself knows to be unfinished. Whatever is younger than a day may still be in the making, perhaps by another
host, and stays.
"""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from .._artifact.catalog import HOLD, prefix_of
from .._artifact.manifest import MANIFEST
from .._record import is_id
from .._store.model import Debris, ObjectStore

AGE = datetime.timedelta(days=1)


@dataclasses.dataclass(frozen=True)
class Orphan:
    """A folder without a manifest."""

    folder: str
    keys: tuple[str, ...]
    bytes: int
    newest: datetime.datetime


@dataclasses.dataclass(frozen=True)
class Found:
    """Debris that is old enough to go, and how much of it is too young."""

    orphans: tuple[Orphan, ...] = ()
    unfinished: tuple[Debris, ...] = ()
    young: int = 0

    @property
    def anything(self) -> bool:
        """Whether there is something to remove."""
        return bool(self.orphans or self.unfinished)

    def as_dict(self) -> dict[str, t.Any]:
        """As plain data, for records and results."""
        return {
            "folders": [orphan.folder for orphan in self.orphans],
            "unfinished": [one.key for one in self.unfinished],
            "bytes": sum(orphan.bytes for orphan in self.orphans) + sum(one.size or 0 for one in self.unfinished),
            "young": self.young,
        }


def debris(
    store: ObjectStore, cluster: str, database: str, now: datetime.datetime, *, older_than: datetime.timedelta = AGE
) -> Found:
    """What can go. Times are the store's own; a clock of ours that is ahead of it makes nothing older."""
    prefix = prefix_of(cluster, database)
    folders: dict[str, list[tuple[str, int, datetime.datetime]]] = {}
    latest: datetime.datetime | None = None
    for found in store.list(prefix):
        latest = found.modified if latest is None else max(latest, found.modified)
        parts = found.key.split("/")
        if len(parts) == 4 and is_id(parts[2]):
            folders.setdefault("/".join(parts[:3]), []).append((parts[3], found.size, found.modified))
    unfinished = store.debris(prefix)
    # the newest thing in the store tells what time it is there; its own clock is the one that its times are by
    for one in unfinished:
        latest = one.started if latest is None else max(latest, one.started)
    limit = min(now, latest or now) - older_than
    orphans = [_orphan(folder, inside) for folder, inside in sorted(folders.items()) if _is_debris(inside)]
    old = tuple(orphan for orphan in orphans if orphan.newest < limit)
    stale = tuple(one for one in unfinished if one.started < limit)
    return Found(old, stale, len(orphans) + len(unfinished) - len(old) - len(stale))


def _is_debris(inside: t.Sequence[tuple[str, int, datetime.datetime]]) -> bool:
    names = {name for name, _size, _modified in inside}
    return MANIFEST not in names and HOLD not in names


def _orphan(folder: str, inside: t.Sequence[tuple[str, int, datetime.datetime]]) -> Orphan:
    return Orphan(
        folder,
        tuple(f"{folder}/{name}" for name, _size, _modified in inside),
        sum(size for _name, size, _modified in inside),
        max(modified for _name, _size, modified in inside),
    )


def sweep(store: ObjectStore, found: Found) -> None:
    """Remove debris."""
    keys = [key for orphan in found.orphans for key in orphan.keys]
    if keys:
        store.remove(keys)
    if found.unfinished:
        store.sweep(found.unfinished)
