# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After a backup: what retention removes and what interrupted runs left, store by store. PRIVATE.

Nothing here can spoil the backup that was made: a store that refuses to remove is told as a warning.
"""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from .._artifact.catalog import Catalog, Entry, load_store
from .._artifact.manifest import Manifest, Verification
from .._errors import HmsError
from .._store.model import ObjectStore
from . import sweep
from .model import Retention, Wish
from .retention import RetentionPlan, apply_retention, plan_for_store


@dataclasses.dataclass(frozen=True)
class Keeping:
    """What goes and what stays, over all stores."""

    removed: tuple[dict[str, t.Any], ...] = ()
    kept: tuple[dict[str, t.Any], ...] = ()
    warnings: tuple[str, ...] = ()


def with_new(catalog: Catalog, store: str, manifest: Manifest) -> tuple[Entry, ...]:
    """The entries of a store once a backup is among them."""
    proven = () if manifest.verification is None else (manifest.verification,)
    others = (entry for entry in catalog.entries if entry.id != manifest.id)
    return (*others, Entry(manifest=manifest, store=store, verifications=proven))


def plan_keeping(
    stores: t.Sequence[ObjectStore],
    catalogs: t.Mapping[str, Catalog],
    manifest: Manifest,
    rules: t.Mapping[str, Retention],
    now: datetime.datetime,
) -> tuple[Keeping, dict[str, RetentionPlan]]:
    """What would go, with `manifest` among what there is."""
    removed: list[dict[str, t.Any]] = []
    kept: list[dict[str, t.Any]] = []
    warnings: list[str] = []
    plans = {}
    for store in stores:
        plan = plan_for_store(store, with_new(catalogs[store.name], store.name, manifest), rules, now)
        plans[store.name] = plan
        removed += [{"store": store.name, "id": one.id, "why": one.why, "bytes": one.bytes} for one in plan.removals]
        kept += [{"store": store.name, "id": one.id, "why": one.why} for one in plan.kept if one.id != manifest.id]
        if plan.refused:
            warnings.append(f"{store.name}: {plan.refused}")
    return Keeping(tuple(removed), tuple(kept), tuple(dict.fromkeys(warnings))), plans


def keep(
    stores: t.Sequence[ObjectStore], manifest: Manifest, rules: t.Mapping[str, Retention], now: datetime.datetime
) -> Keeping:
    """Remove what no rule keeps, and debris that is older than a day.

    The catalogs are read anew: hours may have gone by, in which something was verified, put on hold or removed.
    """
    catalogs: dict[str, Catalog] = {}
    warnings: list[str] = []
    for store in stores:
        try:
            catalogs[store.name] = load_store(store, manifest.cluster, manifest.database, write_cache=True)
        except HmsError as error:
            warnings.append(_untidy(store, error))
    stores = [store for store in stores if store.name in catalogs]
    planned, plans = plan_keeping(stores, catalogs, manifest, rules, now)
    warnings += planned.warnings
    gone: set[tuple[str, str]] = set()
    for store in stores:
        entries = with_new(catalogs[store.name], store.name, manifest)
        try:
            gone |= {(store.name, one) for one in apply_retention(store, entries, plans[store.name])}
            found = sweep.debris(store, manifest.cluster, manifest.database, now)
            if found.anything:
                sweep.sweep(store, found)
        except HmsError as error:
            gone |= {(store.name, one) for one in error.details.get("removed", ())}
            warnings.append(_untidy(store, error))
    removed = tuple(one for one in planned.removed if (one["store"], one["id"]) in gone)
    return dataclasses.replace(planned, removed=removed, warnings=tuple(warnings))


def _untidy(store: ObjectStore, error: HmsError) -> str:
    return f"The backup is complete, but {store.name} could not be tidied up: {error.message}"


def pretended(wish: Wish, identifier: str, now: str, *, type_: str = "") -> Manifest:
    """The manifest as it would be, as far as retention asks."""
    proven = Verification(level=wish.verify, ok=True, at=now, seconds=0.0) if wish.verify != "none" else None
    return Manifest(
        id=identifier,
        cluster=wish.cluster,
        environment=wish.environment,
        database=wish.database,
        engine=wish.engine,
        type=type_ or wish.type,
        format=wish.format,
        host="",
        by="",
        started=now,
        ended=now,
        seconds=0.0,
        members=(),
        server={},
        snapshot={},
        tools={},
        compression={},
        encryption={},
        contents={},
        verification=proven,
    )
