# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Roles, databases and rights from declaration to result: inspect, plan, apply. PRIVATE to the collection."""

from __future__ import annotations

import dataclasses
import os
import pwd
import typing as t

from .._errors import ConnectionFailed, HmsError, ToolMissing
from .._module import Result
from .._postgres import UNLOGGED, ConnectionParams, Session, connect
from . import scram
from .objects_facts import Opener, read_objects
from .objects_model import DatabaseWish, ObjectsAction, ObjectsFacts, ObjectsPlan, ObjectsWish, RoleWish
from .objects_plan import Salts, plan_objects


def _random_salt() -> bytes:
    return os.urandom(scram.SALT_BYTES)


def wish_from_params(params: t.Mapping[str, t.Any]) -> ObjectsWish:
    """The declaration from a module's arguments."""

    def build(cls: type[t.Any], given: t.Mapping[str, t.Any]) -> t.Any:
        known = {field.name for field in dataclasses.fields(cls)}
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
        return cls(**{key: value for key, value in values.items() if key in known and value is not None})

    return ObjectsWish(
        roles=tuple(build(RoleWish, role) for role in params["roles"]),
        databases=tuple(build(DatabaseWish, database) for database in params["databases"]),
    )


def _hide(error: HmsError, action: ObjectsAction) -> HmsError:
    """The same error without the statement, which holds a verifier."""
    return HmsError(
        f"{action.what} failed with SQLSTATE {error.details.get('sqlstate')}.",
        reason=error.reason,
        details={"sqlstate": error.details.get("sqlstate")},
    )


def apply_objects(plan: ObjectsPlan, *, opener: Opener) -> None:
    """Carry the plan out, over one connection for each database. An error tells what was done before it."""
    sessions: dict[str, Session] = {}
    done: list[dict[str, t.Any]] = []
    try:
        for action in plan.actions:
            if action.database not in sessions:
                sessions[action.database] = opener(action.database)
                sessions[action.database].execute(UNLOGGED)
            _execute(sessions[action.database], action, done)
            done.append(action.as_dict())
    finally:
        for session in sessions.values():
            session.close()


def _execute(session: Session, action: ObjectsAction, done: list[dict[str, t.Any]]) -> None:
    try:
        for statement in action.statements:
            session.execute(statement)
    except HmsError as error:
        told = _hide(error, action) if action.secret else error
        told.phase = "apply"
        told.state = f"{len(done)} action(s) were done before it; none has to be undone."
        told.next_step = "Correct what the message names and run again: what is done already will be left alone."
        told.details.update(done=done, failed=action.as_dict())
        raise told from None


class ObjectsManager:
    """The objects module's work, with its ports given."""

    def __init__(self, opener: Opener, *, maintenance_database: str, superuser: str, salts: Salts) -> None:
        self._opener = opener
        self._maintenance_database = maintenance_database
        self._superuser = superuser
        self._salts = salts

    def _read(self, wish: ObjectsWish, *, check_mode: bool) -> tuple[ObjectsFacts, list[str]]:
        try:
            facts = read_objects(
                wish,
                opener=self._opener,
                maintenance_database=self._maintenance_database,
                superuser=self._superuser,
            )
        except (ConnectionFailed, ToolMissing) as error:
            if not check_mode:
                raise
            nothing = ObjectsFacts(maintenance_database=self._maintenance_database, superuser=self._superuser)
            return nothing, [f"Planned as for a new, empty instance, because: {error.message}"]
        return facts, []

    def ensure(self, wish: ObjectsWish, *, check_mode: bool) -> Result:
        """Bring roles, databases and rights to what is declared; in check mode only say how."""
        facts, warnings = self._read(wish, check_mode=check_mode)
        plan = plan_objects(wish, facts, salts=self._salts)
        if plan.actions and not check_mode:
            apply_objects(plan, opener=self._opener)
        return Result(
            changed=bool(plan.actions),
            values={"actions": [action.as_dict() for action in plan.actions], "skipped_because": plan.skipped or None},
            before="",
            after="".join(f"{action.what} ({action.why})\n" for action in plan.actions),
            warnings=[*warnings, *plan.warnings],
        )


def objects_manager(*, host: str, port: int, os_user: str, maintenance_database: str) -> ObjectsManager:
    """The manager for an instance of this machine, over its socket."""

    def opener(database: str) -> Session:
        try:
            pwd.getpwnam(os_user)
        except KeyError:
            raise ConnectionFailed(
                f"This host has no user {os_user} to connect as.",
                reason="no_such_user",
                next_step="Install PostgreSQL first, or correct the variable postgresql_os_user.",
            ) from None
        return connect(ConnectionParams(host=host, port=port, user=os_user, dbname=database), os_user=os_user)

    return ObjectsManager(opener, maintenance_database=maintenance_database, superuser=os_user, salts=_random_salt)
