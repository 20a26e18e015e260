# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a drill has to know before it begins: which backups, which programs, what is left of another run. PRIVATE."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .._artifact import pgbackrest_settings
from .._artifact.catalog import Problem, read_manifest
from .._artifact.clients import bin_directory
from .._artifact.database import Connect, read_server
from .._artifact.keys import reading_keyring
from .._artifact.sources import look, physical_entries
from .._artifact.streams import copy, read_stages
from .._command import CommandRunner
from .._errors import HmsError, Refused
from .._pipeline import Pipeline
from .._store.open_store import open_store
from .._tools.pgbackrest import PgBackRest
from .model import PG_DUMP, PGBACKREST, Aims, AnyTarget, Lost, Order, PhysicalTarget, Target
from .plan import newest, newest_physical, roles_of

_GLOBALS_LIMIT = 16 * 1024 * 1024
_KINDS = {PG_DUMP: "store with backups by pg_dump", PGBACKREST: "pgBackRest repository"}
_GIVEN = {PG_DUMP: "store", PGBACKREST: "pgbackrest"}
_ALL = "SELECT pg_catalog.sum(pg_catalog.pg_database_size(oid)) FROM pg_catalog.pg_database"
_SIZE = "SELECT pg_catalog.pg_database_size(oid) FROM pg_catalog.pg_database WHERE datname = %s"


def aims_of(order: Order, runner: CommandRunner, *, write_cache: bool) -> Aims:
    """The backups that are to come back. Raises `Refused` where there is none at all, or none of a database named."""
    physical, lost = physical_targets(order, runner) if PGBACKREST in order.engines else ([], [])
    dumps, problems = dump_targets(order, runner, write_cache=write_cache) if PG_DUMP in order.engines else ([], ())
    found: tuple[AnyTarget, ...] = (*dumps, *physical)
    missing = set(order.databases) - {one.database for one in (*found, *lost)}
    if lost and not (found or missing):
        raise lost[0].error
    if missing or not found:
        raise _none(order, missing, problems)
    return Aims(found, tuple(lost), problems)


def physical_targets(order: Order, runner: CommandRunner) -> tuple[list[PhysicalTarget], list[Lost]]:
    """The newest backup in each pgBackRest repository, and the repositories that should have one and have none."""
    found, lost = [], []
    for settings, database in order.sources.pgbackrest:
        if order.databases and database not in order.databases:
            continue
        driver = pgbackrest_settings.driver(settings, runner)
        try:
            found.append(_newest_in(driver, order, database))
        except HmsError as error:
            lost.append(Lost(database, driver.place, error))
    return found, lost


def _newest_in(driver: PgBackRest, order: Order, database: str) -> PhysicalTarget:
    stanza = driver.info()
    entries = physical_entries(driver, stanza, order.sources, database)
    entry = newest_physical(sorted(entries, key=lambda one: (one.moment, one.id)))
    if entry is None:
        raise _nothing(f"There is no backup in {driver.place} that isn't bad.", "Make one: playbooks/backup.yml.")
    backup = next(one for one in stanza.backups if one.label == entry.manifest.contents["label"])
    generation = next(one for one in stanza.generations if one.database_id == backup.database_id)
    return PhysicalTarget(entry, driver, stanza, backup, generation)


def dump_targets(order: Order, runner: CommandRunner, *, write_cache: bool) -> tuple[list[Target], tuple[Problem, ...]]:
    """The newest dump of each database, and what is wrong: there need be none where pgBackRest is what is used."""
    sources = dataclasses.replace(order.sources.only({"folder", "s3"}), database=None)
    specs = {open_store(spec).name: spec for spec in sources.specs}
    if not specs:
        return [], ()
    seen = look(sources, runner=runner, write_cache=write_cache, windows=False)
    found = []
    for entry in newest(seen.catalog.entries, order.databases):
        only = dataclasses.replace(sources, specs=(specs[entry.store],))
        store = only.stores()[entry.store]
        found.append(Target(entry, store, read_manifest(store, entry), only))
    problems = seen.catalog.problems
    missing = sorted(set(order.databases) - {target.database for target in found})
    if missing or not found:
        told = f"There is no full backup{_of(missing)} by pg_dump in {', '.join(specs)}."
        problems = (*problems, Problem("", "", "no_backup", told))
    return found, problems


def _of(databases: t.Collection[str]) -> str:
    return f" of {', '.join(sorted(databases))}" if databases else ""


def _none(order: Order, missing: t.Collection[str], problems: t.Iterable[Problem]) -> Refused:
    """Why there is nothing to drill."""
    told = [problem.what for problem in problems]
    listed = {database or "no database" for _settings, database in order.sources.pgbackrest}
    if missing and listed and PGBACKREST in order.engines:
        wrong, right = ", ".join(sorted(missing)), ", ".join(sorted(listed))
        told.append(f"No pgBackRest repository is listed under {wrong}; those here are under {right}.")
    if not told:
        kinds = " and no ".join(_KINDS[engine] for engine in order.engines)
        given = " and ".join(_GIVEN[engine] for engine in order.engines)
        return _nothing(f"There is no {kinds} here.", f"Give config_directory, or {given}.")
    return _nothing(" ".join(told), "See playbooks/backups.yml for what there is; or make one: playbooks/backup.yml.")


def _nothing(message: str, next_step: str) -> Refused:
    return Refused(message, reason="no_backup", phase="look", state="Nothing was touched.", next_step=next_step)


def programs_of(target: AnyTarget) -> str:
    """The folder with the server's programs of the backup's own version."""
    found = bin_directory(target.major)
    if found is None or not os.access(os.path.join(found, "initdb"), os.X_OK):
        raise HmsError(
            f"{target.entry.id} is of PostgreSQL {target.major}, whose server is not installed on this host.",
            reason="tool_missing",
            phase="prepare",
            next_step=f"Install Debian's package postgresql-{target.major}, or name another host for the drill.",
        )
    return found


def roles_in(target: Target, order: Order, runner: CommandRunner, deadline: float) -> dict[str, bool]:
    """The roles that the original cluster had, by the backup's globals and by its manifest."""
    member = next((found for found in target.manifest.members if found.role == "globals"), None)
    named = tuple(target.manifest.contents.get("roles") or ())
    if member is None:
        return roles_of("", named)
    data = bytearray()

    def sink(part: bytes) -> None:
        data.extend(part[: _GLOBALS_LIMIT - len(data)])

    with reading_keyring(order.encryption, runner=runner) as ring:
        if not ring.can_read(target.manifest.encryption):
            return roles_of("", named)
        stages = read_stages(member.name, ring, os_user=order.os_user)
        reader = target.store.open(target.manifest.key(member.name))
        try:
            if stages:
                Pipeline(stages, deadline=deadline, what="Reading the roles").feed(reader.read, sink)
            else:
                copy(reader.read, sink)
        finally:
            reader.close()
    return roles_of(bytes(data).decode("utf-8", "replace"), named)


def present_bytes(order: Order, target: AnyTarget, connect: Connect) -> int | None:
    """How large the database is now, or all of them; None where their server doesn't answer, or another one does."""
    params = dataclasses.replace(order.live, dbname="postgres", application_name="hms.postgres drill")
    try:
        session = connect(params)
    except HmsError:
        return None
    try:
        server, _now = read_server(session)
        if server.system_identifier != str(target.entry.manifest.server.get("system_identifier", "")):
            return None
        physical = isinstance(target, PhysicalTarget)
        found: t.Any = session.value(_ALL) if physical else session.value(_SIZE, (target.database,))
        return None if found is None else int(found)
    except HmsError:
        return None
    finally:
        session.close()
