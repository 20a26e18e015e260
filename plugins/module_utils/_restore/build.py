# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A scratch database, made from an artifact and proven. PRIVATE.

It is closed to others until it is proven, and known as proven by its comment, which is written last. An advisory lock
on its name is held by the session from which it was made; whatever ends that session makes it a leftover.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import typing as t

from .._artifact import properties as shared
from .._artifact.database import Connect, DatabaseFacts, read_database
from .._artifact.manifest import Manifest
from .._artifact.scratch import create_statement, drop_database, settle, take_name
from .._artifact.step_record import StepRecord
from .._clock import iso
from .._errors import HmsError, defect
from .._postgres import ConnectionParams, Session, quote_identifier, quote_literal
from . import properties as statements
from .load import Loader
from .look import Look
from .model import Order
from .run_sql import Deadline, read_mask, run_mask
from .team import Team, analyze
from .validate import Check, ask, failed, prove

_MARK = "SELECT pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database WHERE datname = %s"
_OID = "SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = %s"


@dataclasses.dataclass(frozen=True)
class Shape:
    """What the database is to be besides its rows."""

    database: DatabaseFacts
    properties: t.Mapping[str, t.Any]
    rights: tuple[statements.Right, ...] | None
    """None for the default ones."""


@dataclasses.dataclass(frozen=True)
class Proven:
    """A scratch database that may be handed over."""

    name: str
    oid: int
    mark: str
    checks: tuple[Check, ...]


class Builder:
    """Makes one scratch database."""

    def __init__(
        self,
        order: Order,
        seen: Look,
        shape: Shape,
        record: StepRecord,
        connect: Connect,
        *,
        name: str,
        no_tablespaces: bool = False,
    ) -> None:
        self._order = order
        self._seen = seen
        self._shape = shape
        self._record = record
        self._connect = connect
        self._name = name
        self._no_tablespaces = no_tablespaces
        self._params: ConnectionParams = dataclasses.replace(order.connection, dbname=name)

    def build(self) -> Proven:
        """All of it. Whatever fails drops the scratch database, unless it is to be looked at."""
        take_name(self._seen.maintenance, self._name)
        try:
            self._step("create", f"Make {self._name}, closed to others", self._create)
            self._step("load", f"Load {self._seen.artifact.name}", self._load)
            self._step("analyze", "Collect statistics", self._analyze)
            checks = self._checks()
            self._step("properties", "Give it owner, settings, rights and limits", self._finish)
            return self._mark(checks)
        except HmsError as error:
            if self._order.keep_failed and error.reason == "validation_failed":
                error.details["scratch"] = self._name
                raise
            drop_database(self._seen.maintenance, self._name)
            raise
        except BaseException:
            drop_database(self._seen.maintenance, self._name)
            raise

    def _step(self, name: str, title: str, work: t.Callable[[], str]) -> str:
        return self._record.step(name, title, work, str)

    def _create(self) -> str:
        maintenance, quoted = self._seen.maintenance, quote_identifier(self._name)
        maintenance.execute(f"DROP DATABASE IF EXISTS {quoted} WITH (FORCE)")
        limit = self._order.workers + 5
        made = create_statement(self._name, self._shape.database, self._seen.target.server.major, limit=limit)
        space = self._shape.properties.get("tablespace") or "pg_default"
        if space != "pg_default" and space in self._seen.target.tablespaces:
            made += f" TABLESPACE {quote_identifier(space)}"
        maintenance.execute(made)
        maintenance.execute(f"REVOKE ALL ON DATABASE {quoted} FROM PUBLIC")
        settle(maintenance)
        return f"{self._shape.database.encoding}, {self._shape.database.collate}"

    def _load(self) -> str:
        loader = Loader(self._order, self._seen, self._params, self._session, no_tablespaces=self._no_tablespaces)
        return loader.load()

    @contextlib.contextmanager
    def _session(self) -> t.Iterator[Session]:
        session = self._open()
        try:
            yield session
        finally:
            session.close()

    def _open(self) -> Session:
        session = self._connect(self._params)
        # what we run takes the time it takes; the deadline cancels it
        session.execute("SET statement_timeout = 0")
        return session

    def _team(self, what: str) -> Team:
        return Team(self._open, self._order.workers, deadline=self._seen.pourer.deadline, what=what)

    def _analyze(self) -> str:
        with self._team("ANALYZE") as team:
            return f"{analyze(team)} tables"

    def _checks(self) -> tuple[Check, ...]:
        manifest = self._seen.artifact.manifest
        proof = functools.partial(self._prove, manifest)
        checks = self._record.step("validate", "Prove what came back", proof, _told)
        self._raise_failed(checks)
        for path in self._order.masks:
            self._step("mask", f"Mask with {path}", functools.partial(self._run_mask, path))
        if self._order.masks:
            self._step("analyze masked", "Collect statistics of what was masked", self._analyze)
        if self._order.assertions:
            checks += self._record.step("assertions", "Ask the operator's own questions", self._ask, _told)
            self._raise_failed(checks)
        return checks

    def _raise_failed(self, checks: tuple[Check, ...]) -> None:
        self._record.put(validations=[check.as_dict() for check in checks])
        error = failed(checks)
        if error is not None:
            raise error

    def _prove(self, manifest: Manifest | None) -> tuple[Check, ...]:
        with self._team("The validation") as team:
            return tuple(prove(team, manifest, self._seen.outline.not_valid))

    def _run_mask(self, path: str) -> str:
        with self._session() as session:
            run_mask(session, path, read_mask(path), self._seen.pourer.deadline)
        return "committed"

    def _ask(self) -> tuple[Check, ...]:
        with self._session() as session, Deadline(session, self._seen.pourer.deadline, "The assertions"):
            return tuple(ask(session, self._order.assertions))

    def _finish(self) -> str:
        apply_shape(self._seen, self._name, self._shape)
        with self._session() as session:
            found = shared.read_properties(session, read_database(session, self._seen.target.server.major))
        wrong = statements.differences(self._shape.properties, found)
        if wrong:
            raise HmsError(
                f"{self._name} could not be given what the live database has: {'; '.join(wrong)}.",
                reason="properties_differ",
                phase="properties",
                next_step="Report this as a defect.",
            )
        return f"owner {found['owner']}, {len(found['settings'])} groups of settings"

    def _mark(self, checks: tuple[Check, ...]) -> Proven:
        seen = self._seen
        mark = statements.mark_of(seen.artifact.name, seen.identifier, iso(seen.clock.now()))
        comment = statements.comment_with_mark(self._shape.properties.get("comment"), mark)
        seen.maintenance.execute(f"COMMENT ON DATABASE {quote_identifier(self._name)} IS {quote_literal(comment)}")
        return Proven(self._name, int(seen.maintenance.value(_OID, (self._name,))), mark, checks)


def _told(checks: t.Sequence[Check]) -> str:
    wrong = [check.name for check in checks if not check.ok]
    return f"{len(checks)} checks, {'failed: ' + ', '.join(wrong) if wrong else 'all hold'}"


def apply_shape(seen: Look, name: str, shape: Shape) -> None:
    """Owner, settings, rights and limits."""
    maintenance = seen.maintenance
    owner = shape.properties.get("owner")
    if owner:
        maintenance.execute(f"ALTER DATABASE {quote_identifier(name)} OWNER TO {quote_identifier(owner)}")
    settings = {
        "settings": [
            one for one in shape.properties.get("settings") or () if one.get("role") in {None, *seen.target.roles}
        ]
    }
    for statement in statements.settings_statements(name, settings):
        maintenance.execute(statement)
    found = read_rights(maintenance, name)
    wanted = shape.rights if shape.rights is not None else default_rights(maintenance, name)
    for statement in statements.rights_statements(name, wanted, found):
        maintenance.execute(statement)
    for statement in statements.limits_statements(name, shape.properties):
        maintenance.execute(statement)


def read_rights(session: Session, name: str) -> tuple[statements.Right, ...]:
    """Who may do what with a database, the default ones spelled out."""
    return tuple((who, right, grantable) for who, right, grantable in session.rows(statements.ACL, (name,)))


def default_rights(session: Session, name: str) -> tuple[statements.Right, ...]:
    """What a database has that nobody granted or revoked anything on."""
    owner = session.value(
        "SELECT pg_catalog.pg_get_userbyid(datdba) FROM pg_catalog.pg_database WHERE datname = %s", (name,)
    )
    if owner is None:
        raise defect(f"The database {name}")
    mine = tuple((str(owner), right, False) for right in ("CONNECT", "CREATE", "TEMPORARY"))
    return (*mine, (None, "CONNECT", False), (None, "TEMPORARY", False))


def is_proven(seen: Look, name: str, oid: int, mark: str) -> bool:
    """Whether a scratch database is the very one that was proven."""
    if int(seen.maintenance.value(_OID, (name,)) or 0) != oid or not mark:
        return False
    return str(seen.maintenance.value(_MARK, (name,)) or "").endswith(mark)
