# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scratch databases: made beside the real one, held by name while in use, known for what they are when left. PRIVATE.

An advisory lock is held on a scratch database's name while it is in use; so what a killed run left behind is known as
such, and dropped by the next one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t

from .._clock import SystemClock, wait_until
from .._errors import HmsError
from .._postgres import ConnectionParams, Session, quote_identifier, quote_literal
from .database import Connect, DatabaseFacts
from .manifest import Manifest

_MAINTENANCE = ("postgres", "template1")
_SHOWN = 10
_NO_RIGHT = "42501"
_LEAVING = 5.0
"""Seconds for the session of a run that has just ended, or was killed: the server notices a moment later."""
_TAKE = "SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended(%s, 0))"
_RELEASE = "SELECT pg_catalog.pg_advisory_unlock(pg_catalog.hashtextextended(%s, 0))"


def open_maintenance(params: ConnectionParams, connect: Connect) -> Session:
    """A session to another database of the same server, from which databases are made, dropped and renamed."""
    failed: HmsError | None = None
    for name in _MAINTENANCE:
        # creating and dropping a database copies and syncs files, for which there is no telling how long it takes
        where = dataclasses.replace(params, dbname=name, statement_timeout=600.0)
        try:
            return connect(where)
        except HmsError as error:
            failed = failed or error
    raise failed or HmsError("There is no database to connect to.", reason="connection_failed")


def create_statement(name: str, database: DatabaseFacts, major: int, *, limit: int = 5) -> str:
    """CREATE DATABASE with the original's encoding and locale, without anything of a template in it."""
    parts = [
        f"CREATE DATABASE {quote_identifier(name)} TEMPLATE template0 CONNECTION LIMIT {limit}",
        f"ENCODING {quote_literal(database.encoding)}",
        f"LC_COLLATE {quote_literal(database.collate)} LC_CTYPE {quote_literal(database.ctype)}",
    ]
    if major >= 15 and database.provider == "i":
        parts.append(f"LOCALE_PROVIDER icu ICU_LOCALE {quote_literal(database.locale)}")
    if major >= 17 and database.provider == "b":
        parts.append(f"LOCALE_PROVIDER builtin BUILTIN_LOCALE {quote_literal(database.locale)}")
    return " ".join(parts)


def settle(session: Session) -> None:
    """Sync what was made: on a disk that fills up later no checkpoint could be written, and without one no drop."""
    try:
        session.execute("CHECKPOINT")
    except HmsError as error:
        # the server makes one by itself within minutes; a role that may not ask for it is no reason to fail
        if error.details.get("sqlstate") != _NO_RIGHT:
            raise


def compare(manifest: Manifest, found: t.Mapping[str, int], large_objects: int) -> tuple[str, ...]:
    """What a restored database lacks or has too much, by the manifest's counts. Pure."""
    problems = []
    counted: t.Mapping[str, int] | None = manifest.contents.get("rows")
    expected = counted or {}
    if counted is not None and manifest.type == "full":
        wrong = [
            f"{name} has {found[name]} rows in place of {count}"
            for name, count in expected.items()
            if name in found and found[name] != count
        ]
        problems += _few(wrong)
        problems += _few([f"{name} is missing" for name in expected if name not in found])
    elif len(found) < int(manifest.contents.get("restorable_tables", 0)):
        problems.append(f"{len(found)} tables came back of {manifest.contents['restorable_tables']}")
    wanted = int(manifest.contents.get("large_objects") or 0)
    if manifest.type == "full" and large_objects != wanted:
        problems.append(f"{large_objects} large objects came back of {wanted}")
    return tuple(problems)


def _few(found: list[str]) -> list[str]:
    return found if len(found) <= _SHOWN else [*found[:_SHOWN], f"and {len(found) - _SHOWN} more"]


def take_name(session: Session, name: str) -> None:
    """Hold a scratch database's name as long as the session lives."""
    free = wait_until(lambda: bool(session.value(_TAKE, (name,))), clock=SystemClock(), timeout=_LEAVING, interval=0.1)
    if not free:
        raise HmsError(
            f"The scratch database {name} is in use by another run.",
            reason="busy",
            phase="scratch",
            next_step="Wait for it, then run again.",
        )


def drop_abandoned(session: Session, prefix: str) -> None:
    """Drop the scratch databases whose name begins with `prefix` and that nobody works with."""
    found = session.rows(
        "SELECT datname FROM pg_catalog.pg_database WHERE pg_catalog.starts_with(datname::text, %s)", (prefix,)
    )
    for (name,) in found:
        if session.value(_TAKE, (name,)):
            drop_database(session, name)
            session.execute(_RELEASE, (name,))


def drop_database(session: Session, name: str) -> None:
    """Drop one, whoever is still connected to it. One that can't be dropped now is dropped by the next run."""
    with contextlib.suppress(HmsError):
        session.execute(f"DROP DATABASE IF EXISTS {quote_identifier(name)} WITH (FORCE)")
