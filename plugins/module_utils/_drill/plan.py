# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which backups a drill takes, and what its times say. PRIVATE. Pure."""

from __future__ import annotations

import re
import typing as t

from .._artifact.catalog import Entry
from .._errors import HmsError

_IDENT = r'(?P<name>"(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)'
_CREATE = re.compile(rf"CREATE ROLE {_IDENT};", re.MULTILINE)
_SUPERUSER = re.compile(rf"^ALTER ROLE {_IDENT} WITH SUPERUSER\b", re.MULTILINE)

DAMAGE = frozenset({"artifact_damaged", "not_an_archive", "backup_incomplete"})
"""Failures that lie in the stored bytes, wherever they are restored. Others may be this host's own."""


def newest(entries: t.Sequence[Entry], databases: t.Collection[str]) -> list[Entry]:
    """The newest full backup by pg_dump of each database that isn't known to be bad, as a restore would take it."""
    found: dict[str, Entry] = {}
    for entry in reversed(entries):
        made = entry.manifest
        if made.engine == "pg_dump" and made.type == "full" and not entry.bad:
            found.setdefault(made.database, entry)
    return [found[name] for name in sorted(found) if not databases or name in databases]


def newest_physical(entries: t.Sequence[Entry]) -> Entry | None:
    """The newest backup of a repository, of whichever type, that isn't known to be bad."""
    return next((entry for entry in reversed(entries) if not entry.bad), None)


def roles_of(globals_sql: str, named: t.Iterable[str]) -> dict[str, bool]:
    """Each role of the original cluster, and whether it was a superuser there."""
    superusers = {_unquoted(match["name"]) for match in _SUPERUSER.finditer(globals_sql)}
    names = {_unquoted(match["name"]) for match in _CREATE.finditer(globals_sql)} | set(named)
    return {name: name in superusers for name in sorted(names)}


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def is_damage(error: HmsError, assertions: t.Collection[str]) -> bool:
    """Whether a failure speaks against the backup itself, so that it must not count as verified any more."""
    if error.reason != "validation_failed":
        return error.reason in DAMAGE
    wrong = [check.get("name") for check in error.details.get("validations") or () if not check.get("ok")]
    return any(name not in assertions for name in wrong)


def projected(seconds: float, then: int, now: int | None) -> float | None:
    """How long the restore would take at another size, in proportion."""
    if not then:
        return None
    return round(seconds * (then if now is None else now) / then, 1)


def projected_physical(load: float, recover: float, then: int, now: int | None) -> float | None:
    """The same for a backup by pgBackRest: files come in proportion, WAL is as much as there is."""
    files = projected(load, then, now)
    return None if files is None else round(files + recover, 1)


def rate(stored: int, seconds: float | None) -> int | None:
    """Bytes a second."""
    return round(stored / seconds) if seconds else None
