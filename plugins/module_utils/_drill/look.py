# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a drill has to know before it begins: which backups, which programs, what is left of another run. PRIVATE."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .._artifact.catalog import Problem, read_manifest
from .._artifact.clients import bin_directory
from .._artifact.database import Connect, read_server
from .._artifact.keys import reading_keyring
from .._artifact.sources import look
from .._artifact.streams import copy, read_stages
from .._command import CommandRunner
from .._errors import HmsError, Refused
from .._pipeline import Pipeline
from .._store.open_store import open_store
from .model import Order, Target
from .plan import newest, roles_of

_GLOBALS_LIMIT = 16 * 1024 * 1024
_SIZE = "SELECT pg_catalog.pg_database_size(oid) FROM pg_catalog.pg_database WHERE datname = %s"


def targets_of(order: Order, runner: CommandRunner, *, write_cache: bool) -> tuple[list[Target], tuple[Problem, ...]]:
    """The backups that are to come back, and what is wrong with the catalog. Raises `Refused` where there is none."""
    sources = dataclasses.replace(order.sources.only({"folder", "s3"}), database=None)
    specs = {open_store(spec).name: spec for spec in sources.specs}
    if not specs:
        raise _nothing("There is no store with backups by pg_dump here.", "Give config_directory, or store.")
    seen = look(sources, runner=runner, write_cache=write_cache, windows=False)
    found = []
    for entry in newest(seen.catalog.entries, order.databases):
        only = dataclasses.replace(sources, specs=(specs[entry.store],))
        store = only.stores()[entry.store]
        found.append(Target(entry, store, read_manifest(store, entry), only))
    lacking = sorted(set(order.databases) - {target.database for target in found})
    if lacking or not found:
        problems = " ".join(problem.what for problem in seen.catalog.problems)
        meant = f" of {', '.join(lacking)}" if lacking else ""
        raise _nothing(
            f"There is no full backup{meant} by pg_dump in {', '.join(specs)}. {problems}".strip(),
            "Make one: playbooks/backup.yml.",
        )
    return found, seen.catalog.problems


def _nothing(message: str, next_step: str) -> Refused:
    return Refused(message, reason="no_backup", phase="look", state="Nothing was touched.", next_step=next_step)


def programs_of(target: Target) -> str:
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


def present_bytes(order: Order, target: Target, connect: Connect) -> int | None:
    """How large the database is now; None where its server does not answer, or where another one does."""
    params = dataclasses.replace(order.live, dbname="postgres", application_name="hms.postgres drill")
    try:
        session = connect(params)
    except HmsError:
        return None
    try:
        server, _now = read_server(session)
        if server.system_identifier != str(target.manifest.server.get("system_identifier", "")):
            return None
        found: t.Any = session.value(_SIZE, (target.database,))
        return None if found is None else int(found)
    except HmsError:
        return None
    finally:
        session.close()
