# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The catalog: which backups there are, as the stores themselves say. PRIVATE to the collection.

A store is listed page by page; manifests that didn't change since the last time come from one cache object for each
database, and only the others are read. The cache is never trusted with more than that: what is listed decides what
there is. Whatever can't be understood is a problem that is told, never a backup and never the end of the listing.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import datetime
import typing as t

from .._clock import parse_iso
from .._errors import HmsError
from .._record import is_id
from .._store.model import ObjectStore, StoredObject
from . import catalog_cache
from .catalog_parse import (
    Pool,
    history_from_bytes,
    history_to_bytes,
    manifest_from_bytes,
    short,
    verifications_from,
)
from .manifest import CATALOG, MANIFEST, VERIFICATION, Manifest, Verification, key_part

HOLD = "hold.json"
"""An object of this name in a backup's folder is a legal hold: nothing removes that backup while it is there."""

RESTORED = ("deep", "restored")
"""Levels of a verification at which the backup was restored: beside the live database, or by a restore drill."""

WORKERS = 16
MANIFEST_LIMIT = 16 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something in a store that isn't as it should be.

    Attributes:
        store: the store's name.
        key: the object, '' for the store as a whole.
        kind: garbled, foreign, incomplete, orphan (its parent is missing) or unreachable.
        what: one sentence for people.
    """

    store: str
    key: str
    kind: str
    what: str

    def as_dict(self) -> dict[str, str]:
        """As plain data."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One backup in one store.

    Attributes:
        manifest: its manifest, shortened: no checksums, and of `contents` only single values, for row counts of a
            thousand tables fill a catalog. `read_manifest` gives the whole one.
        store: the store's name.
        verifications: what was proven, oldest first; the one made with the backup stands in its manifest.
        stored: when the manifest was stored, by the store's clock.
        held: whether a legal hold lies on it.
        doubtful: a later verification is there and can't be read.
    """

    manifest: Manifest
    store: str
    verifications: tuple[Verification, ...] = ()
    stored: datetime.datetime | None = None
    held: bool = False
    doubtful: bool = False

    @property
    def id(self) -> str:
        """The backup's id."""
        return self.manifest.id

    @property
    def moment(self) -> datetime.datetime:
        """The moment it shows: when it was started, by the database server's clock."""
        return parse_iso(self.manifest.started)

    @property
    def verification(self) -> Verification | None:
        """The newest verification, whatever it said."""
        return self.verifications[-1] if self.verifications else None

    @property
    def proof(self) -> Verification | None:
        """The best verification that still counts.

        One that failed takes back everything before it. One that couldn't look at everything proves nothing by itself,
        and takes nothing back. After a restore that failed only a restore that works counts.
        """
        best, restore_failed = None, False
        for found in self.verifications:
            deep = found.level in RESTORED
            if not found.ok:
                best, restore_failed = None, restore_failed or deep
            elif not found.partial and (deep or not (restore_failed or (best is not None and best.level in RESTORED))):
                best, restore_failed = found, False
        return best

    @property
    def verified(self) -> bool:
        """Whether it was proven, and nothing later spoke against it."""
        return self.proof is not None

    @property
    def restored(self) -> Verification | None:
        """The newest restore drill that it came through, where nothing later spoke against it."""
        newest = None
        for found in self.verifications:
            newest = found if found.ok and found.level == "restored" else newest if found.ok else None
        return newest

    @property
    def bad(self) -> bool:
        """Whether a verification failed, and none has taken that back."""
        return self.proof is None and any(not found.ok for found in self.verifications)


@dataclasses.dataclass(frozen=True)
class Catalog:
    """What there is, oldest first, and what isn't as it should be."""

    entries: tuple[Entry, ...] = ()
    problems: tuple[Problem, ...] = ()
    read: int = 0
    """How many objects had to be read, the cache aside."""

    def of(self, database: str) -> tuple[Entry, ...]:
        """The entries of one database."""
        return tuple(entry for entry in self.entries if entry.manifest.database == database)


@dataclasses.dataclass
class _Folder:
    """What is listed of one backup."""

    manifest: StoredObject | None = None
    verification: StoredObject | None = None
    held: bool = False
    sizes: dict[str, int] = dataclasses.field(default_factory=dict)


def prefix_of(cluster: str, database: str | None = None) -> str:
    """The prefix of every key of a cluster, or of one database of it."""
    return f"{key_part(cluster)}/" + (f"{key_part(database)}/" if database is not None else "")


def load(
    stores: t.Sequence[ObjectStore],
    cluster: str,
    database: str | None = None,
    *,
    write_cache: bool = True,
    workers: int = WORKERS,
) -> Catalog:
    """Everything that the stores hold of a cluster. A store that can't be listed is a problem while another one can."""
    entries: list[Entry] = []
    problems: list[Problem] = []
    read, failed = 0, None
    for store in stores:
        try:
            found = load_store(store, cluster, database, write_cache=write_cache, workers=workers)
        except HmsError as error:
            failed = error
            problems.append(Problem(store.name, "", "unreachable", f"{store.name} can't be listed: {error.message}"))
            continue
        entries += found.entries
        problems += found.problems
        read += found.read
    if failed is not None and len(stores) == sum(problem.kind == "unreachable" for problem in problems):
        raise failed
    return Catalog(_sorted(entries), tuple(problems), read)


def load_store(
    store: ObjectStore,
    cluster: str,
    database: str | None = None,
    *,
    write_cache: bool = True,
    workers: int = WORKERS,
) -> Catalog:
    """Everything that one store holds of a cluster; raises when the store can't be listed."""
    folders, caches = _listed(store, prefix_of(cluster, database))
    reader = _Reader(store, caches)
    wanted = [
        found for folder in folders.values() for found in (folder.manifest, folder.verification) if found is not None
    ]
    reader.fetch(wanted, workers=workers)
    entries: list[Entry] = []
    problems: list[Problem] = []
    for folder in folders.values():
        if folder.manifest is None or folder.manifest.key in reader.gone:
            continue
        made = _entry(store.name, cluster, folder.manifest, folder, reader)
        if isinstance(made, Problem):
            problems.append(made)
            continue
        entries.append(made)
        if made.doubtful:
            told = (
                f"The verification of {made.manifest.folder} in {store.name} can't be read. It counts as not verified."
            )
            problems.append(Problem(store.name, made.manifest.key(VERIFICATION), "garbled", told))
    whole, orphans = _without_orphans(entries)
    if write_cache:
        reader.save(wanted)
    return Catalog(_sorted(whole), (*problems, *orphans), reader.read)


def read_manifest(store: ObjectStore, entry: Entry) -> Manifest:
    """The whole manifest of an entry, with its checksums and everything in `contents`."""
    key = entry.manifest.key(MANIFEST)
    found = manifest_from_bytes(store.get(key, limit=MANIFEST_LIMIT))
    if isinstance(found, str):
        raise HmsError(f"{key} in {store.name} {found}.", reason="garbled", next_step="Use another backup.")
    return found


def note_verification(store: ObjectStore, entry: Entry, manifest: Manifest, found: Verification) -> None:
    """Write the result of a later verification beside a backup; the one made with it stays in its manifest."""
    later = entry.verifications[1:] if manifest.verification is not None else entry.verifications
    store.put(manifest.key(VERIFICATION), history_to_bytes(entry.id, [*later, found]), replace=True)


def _sorted(entries: t.Iterable[Entry]) -> tuple[Entry, ...]:
    return tuple(sorted(entries, key=lambda entry: (entry.moment, entry.id, entry.store)))


def _listed(store: ObjectStore, prefix: str) -> tuple[dict[str, _Folder], set[str]]:
    """The backups' folders by their key, and the databases (``cluster/database``) that have a cache."""
    folders: dict[str, _Folder] = {}
    caches: set[str] = set()
    for found in store.list(prefix):
        parts = found.key.split("/")
        if len(parts) == 3 and parts[2] == CATALOG:
            caches.add(f"{parts[0]}/{parts[1]}")
        if len(parts) != 4:
            continue
        folder = folders.setdefault("/".join(parts[:3]), _Folder())
        name = parts[3]
        if name == MANIFEST:
            folder.manifest = found
        elif name == VERIFICATION:
            folder.verification = found
        elif name == HOLD:
            folder.held = True
        else:
            folder.sizes[name] = found.size
    return folders, caches


def _entry(store: str, cluster: str, listed: StoredObject, folder: _Folder, reader: _Reader) -> Entry | Problem:
    """The entry that a folder amounts to, or what is wrong with it."""
    key = listed.key
    manifest = reader.manifest(key)
    if isinstance(manifest, str):
        return Problem(store, key, "garbled", f"{key} in {store} {manifest}. It counts as no backup.")
    if manifest.cluster != cluster or manifest.key(MANIFEST) != key or not is_id(manifest.id):
        told = f"{key} in {store} is the manifest of {manifest.folder}. It counts as no backup."
        return Problem(store, key, "foreign", told)
    flaws = [flaw for member in manifest.members if (flaw := _flaw(member.name, member.bytes, folder.sizes))]
    if flaws:
        told = f"{manifest.folder} in {store} is not whole: {'; '.join(flaws)}. It counts as no backup."
        return Problem(store, key, "incomplete", told)
    first = () if manifest.verification is None else (manifest.verification,)
    if folder.verification is None or folder.verification.key in reader.gone:
        return Entry(manifest, store, first, listed.modified, folder.held)
    later = reader.verifications(folder.verification.key)
    if not later:  # something was found out, and nobody knows what
        return Entry(manifest, store, (), listed.modified, folder.held, doubtful=True)
    return Entry(manifest, store, (*first, *later), listed.modified, folder.held)


def _flaw(name: str, size: int, sizes: t.Mapping[str, int]) -> str:
    if name not in sizes:
        return f"{name} is missing"
    return "" if sizes[name] == size else f"{name} has {sizes[name]} bytes in place of {size}"


def _without_orphans(entries: list[Entry]) -> tuple[list[Entry], list[Problem]]:
    """Entries whose whole chain of parents is there, and a problem for each of the others."""
    problems: list[Problem] = []
    left = entries
    while True:
        known = {(entry.manifest.database, entry.id) for entry in left}
        lost = [
            entry
            for entry in left
            if entry.manifest.parent and (entry.manifest.database, entry.manifest.parent) not in known
        ]
        if not lost:
            return left, problems
        for entry in lost:
            told = (
                f"{entry.id} in {entry.store} needs {entry.manifest.parent}, which isn't there. It counts as no backup."
            )
            problems.append(Problem(entry.store, entry.manifest.key(MANIFEST), "orphan", told))
        gone = {id(entry) for entry in lost}
        left = [entry for entry in left if id(entry) not in gone]


class _Reader:
    """Reads manifests and verifications, from the caches where their tags agree."""

    def __init__(self, store: ObjectStore, caches: set[str]) -> None:
        self._store = store
        self._caches = caches
        self._pool = Pool()
        self._known: dict[str, catalog_cache.Known] = {}
        self._unread: dict[str, str] = {}
        self._outdated: set[str] = set()
        self.gone: set[str] = set()
        self.read = 0

    def fetch(self, wanted: t.Sequence[StoredObject], *, workers: int) -> None:
        """Have all of `wanted`."""
        parts: dict[str, dict[str, str]] = {part: {} for part in self._caches}
        for found in wanted:
            parts.setdefault(_part(found.key), {})[found.key] = found.tag
        for part, tags in parts.items():
            known, current = (
                catalog_cache.read(self._store, part, tags, self._pool) if part in self._caches else ({}, True)
            )
            self._known.update(known)
            if not current:
                self._outdated.add(part)
        missing = [found for found in wanted if found.key not in self._known]
        self.read = len(missing)
        if not missing:
            return
        with concurrent.futures.ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
            # in slices, so that not every object that there is waits as a future
            for start in range(0, len(missing), 2048):
                some = missing[start : start + 2048]
                for found, value in zip(some, pool.map(self._get, some)):
                    self._take(found.key, value)

    def _get(self, found: StoredObject) -> catalog_cache.Known | HmsError:
        """What one object says. Understood at once: a manifest as it is stored may be large."""
        try:
            data = self._store.get(found.key, limit=MANIFEST_LIMIT)
        except HmsError as error:
            return error
        if found.key.endswith("/" + VERIFICATION):
            return verifications_from(history_from_bytes(data))
        manifest = manifest_from_bytes(data)
        return manifest if isinstance(manifest, str) else short(manifest, self._pool)

    def _take(self, key: str, value: catalog_cache.Known | HmsError) -> None:
        """Remember what was read; what could not be read is asked for again the next time."""
        if not isinstance(value, HmsError):
            self._known[key] = value
            self._outdated.add(_part(key))
            return
        if value.reason == "not_found":  # removed between the listing and now
            self.gone.add(key)
        self._unread[key] = f"could not be read: {value.message}"

    def manifest(self, key: str) -> Manifest | str:
        """The manifest, or what is wrong with it."""
        value = self._known.get(key, self._unread.get(key, "could not be read"))
        return "is not a manifest" if isinstance(value, tuple) else value

    def verifications(self, key: str) -> tuple[Verification, ...]:
        """The verifications of this key, none when they can't be understood."""
        value = self._known.get(key, ())
        return value if isinstance(value, tuple) else ()

    def save(self, wanted: t.Sequence[StoredObject]) -> None:
        """Write the caches of the databases of which something was read, or of which the cache holds too much."""
        for part in self._outdated:
            catalog_cache.write(
                self._store,
                part,
                (
                    (found.key, found.tag, self._known[found.key])
                    for found in wanted
                    if found.key in self._known and _part(found.key) == part
                ),
            )


def _part(key: str) -> str:
    return "/".join(key.split("/", 2)[:2])
