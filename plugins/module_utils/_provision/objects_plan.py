# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has to be done to roles, databases and rights: pure functions of wish and facts. PRIVATE to the collection.

Rights are added where they lack and taken from everybody (PUBLIC) where they are too wide. What somebody granted to
roles that aren't declared here is theirs, and stays.
"""

from __future__ import annotations

import re
import typing as t

from .._errors import Refused
from .._postgres import quote_identifier, quote_literal
from . import scram
from .objects_databases import DatabasePlanner
from .objects_model import ObjectsAction, ObjectsFacts, ObjectsPlan, ObjectsWish, RoleFacts, RoleWish

Salts = t.Callable[[], bytes]

_FUNCTION = re.compile(r"^[a-z_][a-z0-9_]*\.[a-z_][a-z0-9_]*\([a-z0-9_ ,\[\]]*\)$")
_RESERVED_DATABASES = ("postgres", "template0", "template1")
_NEW_ROLE = RoleFacts(login=False)


def _refuse(message: str, *, reason: str, next_step: str) -> Refused:
    return Refused(message, reason=reason, phase="plan", state="Nothing was touched.", next_step=next_step)


def _check_names(kind: str, names: t.Sequence[str]) -> None:
    for name in names:
        if not name or "\x00" in name or len(name.encode()) > 63:
            raise _refuse(
                f"{name!r} cannot be the name of a {kind}: 1 to 63 bytes are possible.",
                reason="bad_name",
                next_step="Correct the declaration.",
            )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise _refuse(
            f"Declared twice: the {kind} {', '.join(twice)}.", reason="declared_twice", next_step="Keep one of them."
        )


def check_wish(wish: ObjectsWish) -> None:
    """Refuse a declaration that can never be met."""
    _check_names("role", [role.name for role in wish.roles])
    _check_names("database", [database.name for database in wish.databases])
    for role in wish.roles:
        if role.name.startswith("pg_") or role.name in ("public", "none"):
            raise _refuse(
                f"{role.name!r} is a name that PostgreSQL keeps for itself.",
                reason="reserved_name",
                next_step="Choose another name for this role.",
            )
        for function in role.execute:
            if not _FUNCTION.match(function):
                raise _refuse(
                    f"{function!r} (role {role.name}) is not a function as schema.name(type, type).",
                    reason="bad_function",
                    next_step="Write it like pg_catalog.pg_ls_dir(text,boolean,boolean).",
                )
    for database in wish.databases:
        if database.name in _RESERVED_DATABASES:
            raise _refuse(
                f"The database {database.name} belongs to PostgreSQL itself and isn't managed.",
                reason="reserved_name",
                next_step="Choose another name for the database.",
            )


def _check_against(wish: ObjectsWish, facts: ObjectsFacts) -> None:
    if any(role.name == facts.superuser for role in wish.roles):
        raise _refuse(
            f"The role {facts.superuser} is the cluster's superuser; declaring it would take its rights away.",
            reason="superuser_declared",
            next_step="Leave it out of the declaration.",
        )
    known = set(facts.roles) | {role.name for role in wish.roles}
    needed = {(f"the role {role.name}", group) for role in wish.roles for group in role.member_of}
    for database in wish.databases:
        named = [database.owner, *database.writers, *database.readers, database.monitor, database.pooler]
        needed |= {(f"the database {database.name}", name) for name in named if name}
    for who, name in sorted(needed):
        # the predefined roles are not looked up when there is no server to ask
        if name not in known and not (name.startswith("pg_") and not facts.roles):
            raise _refuse(
                f"The role {name}, named by {who}, is neither declared nor there.",
                reason="unknown_role",
                next_step="Declare it, or correct the name.",
            )
    if facts.missing_functions:
        raise _refuse(
            f"This server has no such function: {', '.join(sorted(facts.missing_functions))}.",
            reason="unknown_function",
            next_step="Correct the declaration.",
        )


class _RolePlanner:
    """The actions for one role."""

    def __init__(self, role: RoleWish, facts: ObjectsFacts, salts: Salts) -> None:
        self._role = role
        self._name = quote_identifier(role.name)
        self._there = facts.roles.get(role.name)
        self._found = self._there or _NEW_ROLE
        self._database = facts.maintenance_database
        self._salts = salts

    def _action(self, identifier: str, what: str, why: str, *statements: str, secret: bool = False) -> ObjectsAction:
        return ObjectsAction(identifier, self._database, what, why, statements, secret)

    def _password(self) -> str:
        if self._role.password is None:
            return ""
        return f" PASSWORD {quote_literal(scram.build(self._role.password, salt=self._salts()))}"

    def _attributes(self) -> str:
        """All attributes, spelled out: what isn't declared is off."""
        words = [
            "LOGIN" if self._role.login else "NOLOGIN",
            "REPLICATION" if self._role.replication else "NOREPLICATION",
            "NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS INHERIT",
            f"CONNECTION LIMIT {self._role.connection_limit}",
        ]
        return " ".join(words)

    def _drift(self) -> list[str]:
        found, wish = self._found, self._role
        checks = {
            "login": found.login != wish.login,
            "replication": found.replication != wish.replication,
            "connection limit": found.connection_limit != wish.connection_limit,
            "superuser": found.superuser,
            "createdb": found.createdb,
            "createrole": found.createrole,
            "bypassrls": found.bypassrls,
            "inherit": not found.inherit,
        }
        return [name for name, differs in checks.items() if differs]

    def existence(self) -> t.Iterator[ObjectsAction]:
        """Create it, or bring attributes and password into line."""
        if self._there is None:
            statement = f"CREATE ROLE {self._name} {self._attributes()}{self._password()}"
            yield self._action(
                "create_role",
                f"create the role {self._role.name} ({self._attributes().lower()})",
                "it is declared and isn't there",
                statement,
                secret=self._role.password is not None,
            )
            return
        drift = self._drift()
        if drift:
            yield self._action(
                "alter_role",
                f"set the attributes of the role {self._role.name}: {self._attributes().lower()}",
                f"these differ from what is declared: {', '.join(drift)}",
                f"ALTER ROLE {self._name} {self._attributes()}",
            )
        if self._role.password is not None and not scram.matches(self._role.password, self._found.verifier):
            yield self._action(
                "set_password",
                f"set the password of the role {self._role.name}",
                "the stored verifier is not that of the declared password",
                f"ALTER ROLE {self._name}{self._password()}",
                secret=True,
            )

    def rights(self) -> t.Iterator[ObjectsAction]:
        """Memberships, which are exactly the declared ones, and functions."""
        wanted = frozenset(self._role.member_of)
        for group in sorted(wanted - self._found.member_of):
            yield self._action(
                "grant_membership",
                f"make {self._role.name} a member of {group}",
                "it is declared",
                f"GRANT {quote_identifier(group)} TO {self._name}",
            )
        for group in sorted(self._found.member_of - wanted):
            yield self._action(
                "revoke_membership",
                f"take {self._role.name} out of {group}",
                "this membership isn't declared",
                f"REVOKE {quote_identifier(group)} FROM {self._name}",
            )
        for function in sorted(frozenset(self._role.execute) - self._found.execute):
            yield self._action(
                "grant_execute",
                f"let {self._role.name} call {function}",
                "it is declared",
                f"GRANT EXECUTE ON FUNCTION {function} TO {self._name}",
            )


def _role_warnings(wish: ObjectsWish) -> t.Iterator[str]:
    for role in wish.roles:
        if role.login and role.password == "":
            yield f"The role {role.name} is declared with an empty password: nobody can log in with that."


def plan_objects(wish: ObjectsWish, facts: ObjectsFacts, *, salts: Salts) -> ObjectsPlan:
    """The actions that bring the cluster to what is declared; none on a standby, which gets them by replication."""
    check_wish(wish)
    if facts.in_recovery:
        return ObjectsPlan(skipped="This instance is a standby: roles and databases come from its primary.")
    _check_against(wish, facts)
    planners = [_RolePlanner(role, facts, salts) for role in wish.roles]
    actions = [action for planner in planners for action in planner.existence()]
    actions += [action for planner in planners for action in planner.rights()]
    warnings = list(_role_warnings(wish))
    for database in wish.databases:
        planner = DatabasePlanner(database, facts)
        actions += planner.actions()
        warnings += planner.warnings()
    return ObjectsPlan(actions=tuple(actions), warnings=tuple(warnings))
