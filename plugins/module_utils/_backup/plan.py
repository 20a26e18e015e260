# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From facts and wishes to what a dump will do, or why it will not. Pure. PRIVATE."""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from .._artifact.clients import Clients
from .._artifact.manifest import Manifest
from .._artifact.staging import StagingFacts
from .._artifact.streams import suffix
from .._errors import Refused
from .estimate import Estimate, comfortable, estimate, size, staged_bytes
from .facts import INVALID_DATABASE, SourceFacts
from .model import Wish
from .staging_plan import jobs_of, needs_staging, staging_problems, staging_warnings

_SHOWN = 12
"""Names told in one message; the rest is counted."""
_MANY_LARGE_OBJECTS = 100_000
_HASTE = datetime.timedelta(seconds=60)
"""Ids run ahead of the clock by a second each where several backups are made in one."""
_STEMS = {
    "properties": "properties.json",
    "globals": "globals.sql",
    "schema": "schema.dump",
    "data": "data.dump",
}
_DATA = {"plain": "data.sql", "directory": "data.tar"}


@dataclasses.dataclass(frozen=True)
class StoreFacts:
    """One store, as it answered."""

    name: str
    free: int | None = None
    problem: Refused | None = None


@dataclasses.dataclass(frozen=True)
class Facts:
    """Everything that the plan looks at."""

    source: SourceFacts
    clients: Clients
    stores: tuple[StoreFacts, ...]
    previous: Manifest | None = None
    """The last backup of the same kind."""
    newest_id: str = ""
    """The newest id in the catalog, of whatever kind."""
    server_id: str = ""
    """An id by the server's clock as it is."""
    encryption_problem: Refused | None = None
    scratch_free: int | None = None
    """Room where the server keeps its data, for a deep verification."""
    staging: StagingFacts | None = None
    """The place for the format directory, where one is given."""


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why nothing is done."""

    rule: str
    message: str
    next_step: str

    def as_dict(self) -> dict[str, str]:
        """For the result."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class MemberPlan:
    """One object that will be made."""

    role: str
    name: str


@dataclasses.dataclass(frozen=True)
class BackupPlan:
    """What will be made, where, and what stands against it."""

    id: str
    members: tuple[MemberPlan, ...]
    stores: tuple[str, ...]
    estimate: Estimate
    refusals: tuple[Refusal, ...] = ()
    warnings: tuple[str, ...] = ()

    def as_dict(self, wish: Wish) -> dict[str, t.Any]:
        """For check mode, the diff and the record."""
        told: dict[str, t.Any] = {}
        if needs_staging(wish):
            told = {"jobs": jobs_of(wish), "staging_dir": wish.staging_dir}
        return {
            "id": self.id,
            "engine": wish.engine,
            "type": wish.type,
            "format": wish.format,
            "members": [member.name for member in self.members],
            "stores": list(self.stores),
            "compression": wish.compression.method,
            "encryption": wish.encryption.method,
            "verify": wish.verify,
            "estimate": self.estimate.as_dict(),
            **told,
        }


def plan_members(wish: Wish) -> tuple[MemberPlan, ...]:
    """The artifact's objects; the small ones first, so that what is wrong with the pipe is known early."""

    roles = []
    if wish.type != "data_only":
        roles += ["properties", *(["globals"] if wish.globals else []), "schema"]
    if wish.type != "schema_only":
        roles += ["data"]
    return tuple(MemberPlan(role, _name(role, wish)) for role in roles)


def _name(role: str, wish: Wish) -> str:
    stem = _DATA.get(wish.format, _STEMS[role]) if role == "data" else _STEMS[role]
    return stem + suffix(wish.compression, wish.encryption)


def stamp_of(identifier: str) -> datetime.datetime:
    """The moment that an id begins with."""
    return datetime.datetime.strptime(identifier[:16], "%Y%m%dT%H%M%S%z")


def later_id(identifier: str, newest: str) -> str:
    """`identifier`, moved behind the newest one of the catalog when the clock was set back since that was made."""
    if not newest or identifier[:16] > newest[:16]:
        return identifier
    return f"{stamp_of(newest) + datetime.timedelta(seconds=1):%Y%m%dT%H%M%SZ}{identifier[16:]}"


def clock_is_behind(server_id: str, newest: str) -> bool:
    """Whether a backup was made at a moment that, by the server's clock, is still to come."""
    return bool(newest) and stamp_of(newest) - stamp_of(server_id) > _HASTE


def plan_backup(wish: Wish, facts: Facts, *, identifier: str) -> BackupPlan:
    """The plan, with every refusal at once: who corrects one should not run into the next."""
    expected = estimate(wish, facts.source.database.bytes, facts.previous)
    refusals = [
        refusal
        for rule in (_versions, _staging, _database, _rights, _globals, _deep, _encryption)
        for refusal in rule(wish, facts)
    ]
    refusals += _stores(facts, expected)
    return BackupPlan(
        id=identifier,
        members=plan_members(wish),
        stores=tuple(store.name for store in facts.stores),
        estimate=expected,
        refusals=tuple(refusals),
        warnings=tuple(_warnings(wish, facts, expected)),
    )


def refuse(plan: BackupPlan) -> None:
    """Raise `Refused` when anything stands against the plan."""
    if not plan.refusals:
        return
    first = plan.refusals[0]
    raise Refused(
        " ".join(refusal.message for refusal in plan.refusals),
        reason=first.rule,
        phase="plan",
        state="Nothing was touched.",
        next_step=" ".join(dict.fromkeys(refusal.next_step for refusal in plan.refusals)),
        details={"refusals": [refusal.as_dict() for refusal in plan.refusals]},
    )


def _versions(_wish: Wish, facts: Facts) -> list[Refusal]:
    major = facts.source.server.major
    wrong = [client for client in facts.clients.all() if client.major != major]
    if not wrong:
        return []
    told = ", ".join(f"{client.path} is {client.version}" for client in wrong)
    relation = "newer" if wrong[0].major < major else "older"
    return [
        Refusal(
            "version_mismatch",
            f"The server is {facts.source.server.version}, {relation} than the client programs here: {told}. "
            f"A dump must be made by programs of the server's own major version, or it may not restore on it.",
            f"Install Debian's package postgresql-client-{major}.",
        )
    ]


def _staging(wish: Wish, facts: Facts) -> list[Refusal]:
    needed = staged_bytes(facts.source.database.bytes, facts.previous)
    return [Refusal(*problem) for problem in staging_problems(wish, facts.staging, needed)]


def _database(_wish: Wish, facts: Facts) -> list[Refusal]:
    database = facts.source.database
    if database.connection_limit != INVALID_DATABASE:
        return []
    return [
        Refusal(
            "database_invalid",
            f"The database {database.name!r} is invalid: a DROP DATABASE of it was interrupted.",
            "Finish dropping it; an earlier backup brings it back.",
        )
    ]


def names(found: t.Sequence[str]) -> str:
    """A few names and the number of the others."""
    shown = ", ".join(found[:_SHOWN])
    return shown if len(found) <= _SHOWN else f"{shown} and {len(found) - _SHOWN} more"


def _rights(wish: Wish, facts: Facts) -> list[Refusal]:
    """Tables are locked whatever the type is, which takes SELECT; rows are only read for those with data."""
    source, refusals = facts.source, []
    role = source.role.name
    closed = [relation.shown for relation in source.relations if not relation.readable]
    if closed:
        refusals.append(
            Refusal(
                "no_select",
                f"The role {role} may not read {names(closed)}.",
                f"Grant it SELECT on them, or pg_read_all_data for all: GRANT pg_read_all_data TO {role}.",
            )
        )
    hidden = [relation.shown for relation in source.relations if relation.filtered]
    if hidden and wish.type != "schema_only":
        refusals.append(
            Refusal(
                "row_security",
                f"Row level security hides rows of {names(hidden)} from the role {role}.",
                f"Back up as a role that sees all rows: ALTER ROLE {role} BYPASSRLS, or the tables' owner.",
            )
        )
    if source.unreadable_large_objects and wish.type != "schema_only":
        refusals.append(
            Refusal(
                "no_select",
                f"The role {role} may not read {source.unreadable_large_objects} large objects.",
                "Back up as their owner or as a superuser.",
            )
        )
    return refusals


def _globals(wish: Wish, facts: Facts) -> list[Refusal]:
    role = facts.source.role
    if wish.type == "data_only" or not (wish.globals and wish.role_passwords) or role.superuser:
        return []
    return [
        Refusal(
            "no_superuser",
            f"The role {role.name} may not read the roles' passwords; only a superuser may.",
            "Leave role_passwords off, or back up as a superuser.",
        )
    ]


def _deep(wish: Wish, facts: Facts) -> list[Refusal]:
    if wish.verify != "deep":
        return []
    return [Refusal(rule, message, next_step) for rule, message, next_step in _deep_problems(wish, facts)]


def _deep_problems(wish: Wish, facts: Facts) -> t.Iterator[tuple[str, str, str]]:
    source = facts.source
    if wish.type == "data_only":
        yield (
            "deep_needs_schema",
            "A data_only backup has no tables to restore into, so it cannot be verified deep.",
            "Use verify read, or type full.",
        )
    if wish.format == "plain":
        yield (
            "deep_needs_archive",
            "A plain SQL file is not restored for a verification: it may run anything.",
            "Use verify read, or format custom.",
        )
    if source.server.is_standby:
        yield (
            "deep_needs_primary",
            "This server is a standby: no scratch database can be made on it.",
            "Use verify read here, and verify deep on the primary.",
        )
    if not (source.role.createdb or source.role.superuser):
        yield (
            "no_createdb",
            f"The role {source.role.name} may not create the scratch database that a deep verification restores into.",
            f"ALTER ROLE {source.role.name} CREATEDB, or use verify read.",
        )
    if facts.scratch_free is not None and facts.scratch_free < source.database.bytes * 1.2 + 1_000_000_000:
        told = (
            f"A deep verification restores {size(source.database.bytes)} beside the database, but only "
            f"{size(facts.scratch_free)} are free where the server keeps its data."
        )
        yield "no_room_for_scratch", told, "Make room, or use verify read."


def _encryption(_wish: Wish, facts: Facts) -> list[Refusal]:
    problem = facts.encryption_problem
    return [] if problem is None else [Refusal(problem.reason, problem.message, problem.next_step)]


def _stores(facts: Facts, expected: Estimate) -> list[Refusal]:
    refusals = []
    for store in facts.stores:
        if store.problem is not None:
            refusals.append(Refusal(store.problem.reason, store.problem.message, store.problem.next_step))
        elif store.free is not None and store.free < expected.least:
            refusals.append(
                Refusal(
                    "store_full",
                    f"{store.name} has {size(store.free)} free; this backup needs about {size(expected.bytes)}.",
                    "Make room there: keep fewer backups, or use another store.",
                )
            )
    return refusals


def _warnings(wish: Wish, facts: Facts, expected: Estimate) -> t.Iterator[str]:
    source = facts.source
    for store in facts.stores:
        if store.free is not None and expected.least <= store.free < comfortable(expected):
            yield f"{store.name} has {size(store.free)} free and this backup may need {size(comfortable(expected))}."
    if wish.encryption.method == "none":
        yield "This backup is not encrypted: whoever can read the store reads every patient's data."
    yield from staging_warnings(wish, facts.staging)
    if source.large_objects > _MANY_LARGE_OBJECTS:
        yield f"The database has {source.large_objects} large objects, for which pg_dump needs much memory and time."
    if 3 * len(source.tables) > source.server.lock_slots:
        yield (
            f"The database has {len(source.tables)} tables; with room for {source.server.lock_slots} locks the server "
            "may run out of them. Raise max_locks_per_transaction."
        )
    if source.server.is_standby and any(relation.unlogged for relation in source.relations):
        yield "This server is a standby: unlogged tables are empty in this backup."
    if clock_is_behind(facts.server_id, facts.newest_id):
        yield (
            f"The server's clock is behind the newest backup, {facts.newest_id}: it was set back. "
            "The new backup's id is made to sort after it."
        )
