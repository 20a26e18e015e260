# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a host's backups are to be found, and what is there: its stores, its pgBackRest repository. PRIVATE."""

from __future__ import annotations

import dataclasses
import typing as t

from .._command import CommandRunner
from .._errors import HmsError
from .._store.model import FolderSpec, ObjectStore, StoreSpec
from .._store.open_store import open_store
from .._tools.pgbackrest import PgBackRest, Stanza
from . import catalog, pgbackrest_catalog, pgbackrest_settings, pgbackrest_verify
from . import pgbackrest_wal as wal
from .catalog import Catalog, Entry, Problem
from .options import bad_config, stores_from

KINDS = ("folder", "s3", "pgbackrest")


@dataclasses.dataclass(frozen=True)
class Sources:
    """What to look at.

    Attributes:
        database: only this one's backups; None for all.
        specs: the stores.
        pgbackrest: the repositories, each with the database that its backups are listed under.
    """

    cluster: str
    environment: str = ""
    database: str | None = None
    specs: tuple[StoreSpec, ...] = ()
    pgbackrest: tuple[tuple[pgbackrest_settings.Settings, str], ...] = ()

    def only(self, kinds: t.Collection[str]) -> Sources:
        """The same with some kinds of stores only."""
        specs = tuple(spec for spec in self.specs if kind_of(spec) in kinds)
        return dataclasses.replace(self, specs=specs, pgbackrest=self.pgbackrest if "pgbackrest" in kinds else ())

    def stores(self) -> dict[str, ObjectStore]:
        """The stores, opened, by name."""
        opened = [open_store(spec) for spec in self.specs]
        return {store.name: store for store in opened}


def kind_of(spec: StoreSpec) -> str:
    """folder or s3."""
    return "folder" if isinstance(spec, FolderSpec) else "s3"


def of_params(params: t.Mapping[str, t.Any]) -> Sources:
    """From a module's arguments: cluster, environment, database, store, pgbackrest."""
    specs = stores_from(params["store"]) if params.get("store") else ()
    physical: tuple[tuple[pgbackrest_settings.Settings, str], ...] = ()
    if not params.get("cluster"):
        raise bad_config("Neither config_directory nor cluster is given.", "Give one of them.")
    if params.get("pgbackrest") is not None:
        settings = pgbackrest_settings.settings_from(params["pgbackrest"], cluster=params["cluster"])
        physical = ((settings, params.get("database") or ""),)
    if not (specs or physical):
        raise bad_config("Neither store nor pgbackrest is given.", "Say where the backups are.")
    return Sources(params["cluster"], params.get("environment") or "", params.get("database"), specs, physical)


@dataclasses.dataclass(frozen=True)
class Seen:
    """A catalog, and to which times each backup can be recovered (by id) where that is more than one moment."""

    catalog: Catalog
    windows: t.Mapping[str, wal.Window] = dataclasses.field(default_factory=dict)


def look(sources: Sources, *, runner: CommandRunner, write_cache: bool = True, windows: bool = True) -> Seen:
    """Everything there is. What can't be reached is a problem while something else can; else it is an error."""
    stores = list(sources.stores().values())
    entries: list[Entry] = []
    problems: list[Problem] = []
    found: dict[str, wal.Window] = {}
    failed: HmsError | None = None
    for store in stores:
        try:
            listed = catalog.load_store(store, sources.cluster, sources.database, write_cache=write_cache)
        except HmsError as error:
            failed = error
            problems.append(_unreachable(store.name, error))
            continue
        entries += listed.entries
        problems += listed.problems
    for settings, database in sources.pgbackrest:
        if sources.database not in (None, database):
            continue
        driver = pgbackrest_settings.driver(settings, runner)
        try:
            stanza = driver.info()
            entries += physical_entries(driver, stanza, sources, database)
        except HmsError as error:
            failed = error
            problems.append(_unreachable(driver.place, error))
            continue
        if windows:
            problems += _look_at_wal(driver, stanza, found)
    tried = len(stores) + len(sources.pgbackrest)
    if failed is not None and sum(problem.kind == "unreachable" for problem in problems) == tried:
        raise failed
    ordered = tuple(sorted(entries, key=lambda entry: (entry.moment, entry.id, entry.store)))
    return Seen(Catalog(ordered, tuple(problems)), found)


def physical_entries(driver: PgBackRest, stanza: Stanza, sources: Sources, database: str) -> list[Entry]:
    """pgBackRest's backups as entries."""
    made = pgbackrest_catalog.entries(
        stanza, cluster=sources.cluster, environment=sources.environment, database=database
    )
    proofs = {backup.label: pgbackrest_catalog.verifications_of(backup) for backup in stanza.backups}
    return [Entry(one, driver.place, proofs[str(one.contents["label"])]) for one in made]


def _look_at_wal(driver: PgBackRest, stanza: Stanza, found: dict[str, wal.Window]) -> list[Problem]:
    """To which times the cluster can be recovered, into `found`; holes in the archive are problems."""
    try:
        continuity = pgbackrest_verify.continuity(driver, stanza, layout=wal.Layout())
    except HmsError as error:
        told = f"Whether the WAL archive of {driver.place} is whole can't be seen: {error.message}"
        return [Problem(driver.place, "", "wal_unknown", told)]
    labels = {backup.label: pgbackrest_catalog.identify(backup) for backup in stanza.backups}
    found.update({labels[window.label]: window for window in continuity.windows if window.label in labels})
    told_of = [hole.describe() for hole in continuity.holes] + list(continuity.problems)
    return [Problem(driver.place, "", "wal_hole", text) for text in told_of]


def _unreachable(name: str, error: HmsError) -> Problem:
    return Problem(name, "", "unreachable", f"{name} can't be listed: {error.message}")
