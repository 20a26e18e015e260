# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has to be done in and to one database: a pure function of wish and facts. PRIVATE to the collection."""

from __future__ import annotations

import typing as t

from .._errors import Refused
from .._postgres import quote_identifier, quote_literal
from . import support_schema
from .objects_model import PUBLIC, DatabaseFacts, DatabaseWish, Grant, ObjectsAction, ObjectsFacts, SchemaFacts

WRITE = ("SELECT", "INSERT", "UPDATE", "DELETE")
SEQUENCE_WRITE = ("USAGE", "SELECT", "UPDATE")
READ = ("SELECT",)
_KINDS = {"r": "TABLES", "S": "SEQUENCES", "n": "SCHEMAS"}
_FRESH_PUBLIC_GRANTS = frozenset({(PUBLIC, "CONNECT"), (PUBLIC, "TEMPORARY")})


def _list(names: t.Iterable[str]) -> str:
    return ", ".join(names)


class DatabasePlanner:
    """The actions for one database, in the order in which they have to be done."""

    def __init__(self, wish: DatabaseWish, facts: ObjectsFacts) -> None:
        self._wish = wish
        self._name = quote_identifier(wish.name)
        self._there = facts.databases.get(wish.name)
        # a new database as PostgreSQL makes it from template0
        fresh_schema = SchemaFacts("pg_database_owner", frozenset({(PUBLIC, "USAGE")}))
        fresh = DatabaseFacts(
            owner=wish.owner,
            encoding=wish.encoding,
            locale=wish.locale,
            grants=_FRESH_PUBLIC_GRANTS,
            schemas={"public": fresh_schema},
            available_extensions=frozenset(wish.extensions),
        )
        self._found = self._there or fresh
        self._maintenance = facts.maintenance_database

    def actions(self) -> list[ObjectsAction]:
        """Everything that is to be done."""
        steps = (
            self._existence,
            self._public_rights,
            self._connections,
            self._schemas,
            self._default_grants,
            self._relations,
            self._extensions,
            self._support,
        )
        return [action for step in steps for action in step()]

    def warnings(self) -> list[str]:
        """What cannot be changed, or not by us."""
        found, wish = self._found, self._wish
        warnings = []
        if (found.encoding, found.locale) != (wish.encoding, wish.locale):
            warnings.append(
                f"The database {wish.name} has encoding {found.encoding} and locale {found.locale}, wanted is "
                f"{wish.encoding} and {wish.locale}. This cannot be changed without a dump and restore."
            )
        definition = found.support.table_definition
        if definition and definition != support_schema.TABLE_COLUMNS:
            warnings.append(
                f"The table {support_schema.TABLE} in {wish.name} isn't as this collection makes it. It holds nothing "
                "of worth: drop it and run again."
            )
        return warnings

    def _action(self, identifier: str, what: str, why: str, *statements: str) -> ObjectsAction:
        return ObjectsAction(identifier, self._wish.name, what, why, statements)

    def _outside(self, identifier: str, what: str, why: str, *statements: str) -> ObjectsAction:
        return ObjectsAction(identifier, self._maintenance, what, why, statements)

    def _existence(self) -> t.Iterator[ObjectsAction]:
        wish = self._wish
        if self._there is None:
            yield self._outside(
                "create_database",
                f"create the database {wish.name} for {wish.owner} ({wish.encoding}, {wish.locale})",
                "it is declared and isn't there",
                f"CREATE DATABASE {self._name} OWNER {quote_identifier(wish.owner)} TEMPLATE template0 "
                f"ENCODING {quote_literal(wish.encoding)} LOCALE {quote_literal(wish.locale)}",
            )
        elif self._found.owner != wish.owner:
            yield self._outside(
                "alter_owner",
                f"make {wish.owner} the owner of the database {wish.name}",
                f"it belongs to {self._found.owner}",
                f"ALTER DATABASE {self._name} OWNER TO {quote_identifier(wish.owner)}",
            )

    def _public_rights(self) -> t.Iterator[ObjectsAction]:
        wide = sorted(privilege for grantee, privilege in self._found.grants if grantee == PUBLIC)
        if wide:
            yield self._outside(
                "revoke_public",
                f"take {_list(wide)} on the database {self._wish.name} from PUBLIC",
                "only declared roles may connect",
                f"REVOKE ALL ON DATABASE {self._name} FROM PUBLIC",
            )

    def _connections(self) -> t.Iterator[ObjectsAction]:
        wish = self._wish
        wanted: dict[str, set[str]] = {}
        for role in (*wish.writers, *wish.readers, wish.monitor, wish.pooler):
            if role and role != wish.owner:
                wanted.setdefault(role, set()).add("CONNECT")
        for role in wish.writers:
            wanted.setdefault(role, {"CONNECT"}).add("TEMPORARY")
        for role, privileges in sorted(wanted.items()):
            lacking = self._lacking(self._found.grants, role, sorted(privileges))
            if lacking:
                yield self._outside(
                    "grant_database",
                    f"grant {_list(lacking)} on the database {wish.name} to {role}",
                    "it is declared",
                    f"GRANT {_list(lacking)} ON DATABASE {self._name} TO {quote_identifier(role)}",
                )

    @staticmethod
    def _lacking(grants: t.Collection[Grant], role: str, privileges: t.Iterable[str]) -> list[str]:
        return [privilege for privilege in privileges if (role, privilege) not in grants]

    def _schemas(self) -> t.Iterator[ObjectsAction]:
        wish = self._wish
        for name in wish.schemas:
            found, quoted = self._found.schemas.get(name), quote_identifier(name)
            if found is None:
                yield self._action(
                    "create_schema",
                    f"create the schema {name} in {wish.name} for {wish.owner}",
                    "it is declared and isn't there",
                    f"CREATE SCHEMA {quoted} AUTHORIZATION {quote_identifier(wish.owner)}",
                )
                found = SchemaFacts(wish.owner)
            if (PUBLIC, "CREATE") in found.grants:
                yield self._action(
                    "revoke_public",
                    f"take CREATE on the schema {name} in {wish.name} from PUBLIC",
                    "only the owner makes objects",
                    f"REVOKE CREATE ON SCHEMA {quoted} FROM PUBLIC",
                )
            for role in self._users():
                if self._lacking(found.grants, role, ["USAGE"]):
                    yield self._action(
                        "grant_schema",
                        f"grant USAGE on the schema {name} in {wish.name} to {role}",
                        "it is declared",
                        f"GRANT USAGE ON SCHEMA {quoted} TO {quote_identifier(role)}",
                    )

    def _users(self) -> list[str]:
        """Writers and readers; the owner needs no grants."""
        return [role for role in dict.fromkeys((*self._wish.writers, *self._wish.readers)) if role != self._wish.owner]

    def _privileges(self, role: str, kind: str) -> tuple[str, ...]:
        """What a role gets on the owner's objects of a kind (r, S, n)."""
        if kind == "n":
            return ("USAGE",)
        if role in self._wish.writers:
            return WRITE if kind == "r" else SEQUENCE_WRITE
        return READ

    def _default_grants(self) -> t.Iterator[ObjectsAction]:
        owner = self._wish.owner
        for role in self._users():
            for kind, word in _KINDS.items():
                have = {entry[2:] for entry in self._found.default_grants if entry[:2] == (owner, kind)}
                lacking = self._lacking(have, role, self._privileges(role, kind))
                if lacking:
                    yield self._action(
                        "default_privileges",
                        f"grant {_list(lacking)} on future {word.lower()} of {owner} in {self._wish.name} to {role}",
                        "it is declared",
                        f"ALTER DEFAULT PRIVILEGES FOR ROLE {quote_identifier(owner)} "
                        f"GRANT {_list(lacking)} ON {word} TO {quote_identifier(role)}",
                    )

    def _relations(self) -> t.Iterator[ObjectsAction]:
        """Objects from before the default privileges; those on which somebody set rights are left as they are."""
        for role in self._users():
            for kind, word, letter in (("table", "TABLE", "r"), ("sequence", "SEQUENCE", "S")):
                found = [item for item in self._found.relations if item.kind == kind and role in item.without]
                names = [(item.schema, item.name) for item in found]
                if names:
                    rights = _list(self._privileges(role, letter))
                    targets = _list(f"{quote_identifier(schema)}.{quote_identifier(name)}" for schema, name in names)
                    yield self._action(
                        "grant_relations",
                        f"grant {rights} on {len(names)} existing {kind}(s) in {self._wish.name} to {role}",
                        f"it has no right on {_list('.'.join(pair) for pair in names[:3])}"
                        + ("" if len(names) <= 3 else " …"),
                        f"GRANT {rights} ON {word} {targets} TO {quote_identifier(role)}",
                    )

    def _extensions(self) -> t.Iterator[ObjectsAction]:
        for name in self._wish.extensions:
            if name in self._found.extensions:
                continue
            if name not in self._found.available_extensions:
                raise Refused(
                    f"The extension {name} for the database {self._wish.name} is not installed on this host.",
                    reason="extension_missing",
                    phase="plan",
                    state="Nothing was touched.",
                    next_step="Install its package on every database host, or leave it out.",
                )
            yield self._action(
                "create_extension",
                f"create the extension {name} in {self._wish.name}",
                "it is declared and isn't there",
                f"CREATE EXTENSION {quote_identifier(name)}",
            )

    def _support(self) -> t.Iterator[ObjectsAction]:
        """The schema ``hms``: ours whole."""
        found = self._found.support
        if found.foreign_owner:
            raise Refused(
                f"The schema {support_schema.SCHEMA} in the database {self._wish.name} belongs to "
                f"{found.foreign_owner}, not to a superuser.",
                reason="support_schema_not_ours",
                phase="plan",
                state="Nothing was touched.",
                next_step="This collection keeps its probe and its login function there. Rename that schema.",
            )
        schema = self._found.schemas.get(support_schema.SCHEMA)
        if schema is None:
            yield self._action(
                "create_schema",
                f"create the support schema {support_schema.SCHEMA} in {self._wish.name}",
                "it isn't there",
                f"CREATE SCHEMA {support_schema.SCHEMA}",
            )
            schema = SchemaFacts("")
        yield from self._support_objects()
        yield from self._support_grants(schema)

    def _support_objects(self) -> t.Iterator[ObjectsAction]:
        found = self._found.support
        if not found.table_definition:
            yield self._action(
                "create_probe_table",
                f"create the table {support_schema.TABLE} in {self._wish.name}",
                "it isn't there",
                support_schema.CREATE_TABLE,
            )
        current = (found.function_body, found.function_options)
        if current != (support_schema.FUNCTION_BODY, support_schema.FUNCTION_OPTIONS):
            yield self._action(
                "create_login_function",
                f"create the function {support_schema.FUNCTION} in {self._wish.name}",
                "it differs from what this collection needs" if found.function_body else "it isn't there",
                support_schema.CREATE_FUNCTION,
            )

    def _support_grants(self, schema: SchemaFacts) -> t.Iterator[ObjectsAction]:
        found, wish = self._found.support, self._wish
        # a new function may be called by everybody until that is taken away
        if not found.function_body or (PUBLIC, "EXECUTE") in found.function_grants:
            yield self._action(
                "revoke_public",
                f"take EXECUTE on {support_schema.FUNCTION} in {wish.name} from PUBLIC",
                "only the pooler asks for verifiers",
                f"REVOKE ALL ON FUNCTION {support_schema.FUNCTION} FROM PUBLIC",
            )
        table, function = support_schema.TABLE, support_schema.FUNCTION
        wanted: list[tuple[str | None, str, str, t.Collection[Grant], tuple[str, ...]]] = [
            (wish.monitor, "SCHEMA", support_schema.SCHEMA, schema.grants, ("USAGE",)),
            (wish.pooler, "SCHEMA", support_schema.SCHEMA, schema.grants, ("USAGE",)),
            (wish.monitor, "TABLE", table, found.table_grants, support_schema.PROBE_PRIVILEGES),
            (wish.pooler, "FUNCTION", function, found.function_grants, ("EXECUTE",)),
        ]
        for role, kind, name, grants, privileges in wanted:
            lacking = self._lacking(grants, role, privileges) if role else []
            if role and lacking:
                yield self._action(
                    "grant_support",
                    f"grant {_list(lacking)} on {kind.lower()} {name} in {wish.name} to {role}",
                    "it is declared",
                    f"GRANT {_list(lacking)} ON {kind} {name} TO {quote_identifier(role)}",
                )
