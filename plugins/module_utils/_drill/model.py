# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A restore drill as it is asked for, and what comes out of it. PRIVATE."""

from __future__ import annotations

import dataclasses
import typing as t

from .._artifact.catalog import Entry
from .._artifact.manifest import Manifest
from .._artifact.model import Encryption
from .._artifact.sources import Sources
from .._module import Result
from .._postgres import ConnectionParams
from .._store.model import ObjectStore

LEVEL = "restored"
"""The level of verification that a drill gives."""
FORCED = frozenset({"missing_tablespaces"})
"""Rules of a restore that don't hold for what is thrown away: one disk will do."""


@dataclasses.dataclass(frozen=True)
class Order:
    """One drill.

    Attributes:
        live: the server whose databases they are, to ask how large they are now; it need not be reachable.
        directory: where the throwaway instance is made; a folder of its own.
        databases: only these; all that have backups where it is empty.
        settings: of the throwaway server.
        assertions: the names of the operator's own questions: an answer to them says nothing against the bytes.
    """

    sources: Sources
    encryption: Encryption
    live: ConnectionParams
    os_user: str | None
    state_dir: str
    directory: str
    databases: tuple[str, ...] = ()
    settings: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    assertions: frozenset[str] = frozenset()
    timeout: float = 24 * 3600.0


@dataclasses.dataclass(frozen=True)
class Target:
    """One backup that is to come back, in one store."""

    entry: Entry
    store: ObjectStore
    manifest: Manifest
    sources: Sources
    """That store alone."""

    @property
    def database(self) -> str:
        """Whose backup it is."""
        return self.manifest.database

    @property
    def major(self) -> int:
        """The major version of its server."""
        return int(self.manifest.server.get("version_num") or 0) // 10000

    @property
    def database_bytes(self) -> int:
        """How large the database was."""
        return int(self.manifest.contents.get("database_bytes") or 0)

    @property
    def bytes(self) -> int:
        """What of the backup is read to make the database."""
        return sum(member.bytes for member in self.manifest.members if member.role == "data")


@dataclasses.dataclass(frozen=True)
class Task:
    """What the restore is told."""

    database: str
    backup: str
    sources: Sources
    connection: ConnectionParams
    state_dir: str
    timeout: float


Restore = t.Callable[[Task], Result]
"""Restores and proves one backup; the drill doesn't know how."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of one backup.

    Attributes:
        seconds: of each phase: prepare (the throwaway instance), look, create, load (fetched, decrypted, restored),
            analyze, validate, assertions, properties.
        restore_seconds: of all that a real restore would take too, so without the throwaway instance.
        bytes_per_second: of the stored bytes while they were loaded.
        present_bytes: how large the database is now; None where its server could not be asked.
        noted: whether the result stands beside the backup.
    """

    database: str
    id: str
    store: str
    ok: bool
    problems: tuple[str, ...]
    seconds: t.Mapping[str, float]
    restore_seconds: float
    bytes: int
    bytes_per_second: int | None
    database_bytes: int
    present_bytes: int | None
    projected_rto_seconds: float | None
    validations: tuple[t.Mapping[str, t.Any], ...] = ()
    reason: str = ""
    noted: bool = False
    engine: str = "pg_dump"

    def as_dict(self) -> dict[str, t.Any]:
        """As plain data."""
        return dataclasses.asdict(self)

    def told(self) -> str:
        """One line for people."""
        if not self.ok:
            return f"{self.id} of {self.database} in {self.store} did not come back: {'; '.join(self.problems)}"
        rto = self.projected_rto_seconds
        projected = "" if rto is None else f"; {rto:.0f} s for the size of today"
        return f"{self.id} of {self.database} in {self.store} came back in {self.restore_seconds:.1f} s{projected}"
