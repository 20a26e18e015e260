# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A restore drill as it is asked for, and what comes out of it. PRIVATE."""

from __future__ import annotations

import dataclasses
import typing as t

from .._artifact.catalog import Entry, Problem
from .._artifact.manifest import Manifest
from .._artifact.model import Encryption
from .._artifact.sources import Sources
from .._errors import HmsError
from .._module import Result
from .._postgres import ConnectionParams, Session
from .._store.model import ObjectStore
from .._tools.pgbackrest import BackupSet, Generation, PgBackRest, Stanza

LEVEL = "restored"
"""The level of verification that a drill gives."""
FORCED = frozenset({"missing_tablespaces"})
"""Rules of a restore that don't hold for what is thrown away: one disk will do."""


PG_DUMP, PGBACKREST = "pg_dump", "pgbackrest"
ENGINES = (PG_DUMP, PGBACKREST)
RecoverTo = t.Literal["archive_end", "consistent"]


@dataclasses.dataclass(frozen=True)
class Application:
    """A Django application that is asked about what came back.

    Attributes:
        directory: where manage.py is.
        os_user: the system's user that it runs as; never root.
        settings: DJANGO_SETTINGS_MODULE, '' for the application's own.
        url_variable: the variable of the environment that gets the URL of the database.
        environment_file: more variables, ``NAME=value`` a line; '' for none.
        database: whose application it is; '' for the host's database.
    """

    directory: str
    os_user: str
    python: str = "/usr/bin/python3"
    settings: str = ""
    url_variable: str = "DATABASE_URL"
    environment_file: str = ""
    database: str = ""


@dataclasses.dataclass(frozen=True)
class Order:
    """One drill.

    Attributes:
        live: the server whose databases they are, to ask how large they are now; it need not be reachable.
        directory: where the throwaway instance is made; a folder of its own.
        databases: only these; all that have backups where it is empty.
        settings: of the throwaway server.
        assertions: the names of the operator's own questions: an answer to them says nothing against the bytes.
        engines: whose backups.
        recover_to: how far WAL is replayed: to the end of the archive, or until the backup is consistent.
        processes: how many processes of pgBackRest restore.
        environment: of this host. What was backed up in production comes elsewhere with `allow_phi` only.
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
    engines: tuple[str, ...] = ENGINES
    recover_to: RecoverTo = "archive_end"
    processes: int = 1
    environment: str = ""
    allow_phi: bool = False
    application: Application | None = None


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
class PhysicalTarget:
    """One backup by pgBackRest that is to come back."""

    entry: Entry
    driver: PgBackRest
    stanza: Stanza
    backup: BackupSet
    generation: Generation

    @property
    def database(self) -> str:
        """What it is listed under; it holds all databases of the instance."""
        return self.entry.manifest.database

    @property
    def major(self) -> int:
        """The major version of its server."""
        return int(self.generation.server_version.split(".")[0])

    @property
    def database_bytes(self) -> int:
        """How large the instance was."""
        return self.backup.bytes

    @property
    def bytes(self) -> int:
        """What of the repository is read, with the backups that this one builds on."""
        return self.backup.chain_bytes


AnyTarget = t.Union[Target, PhysicalTarget]


@dataclasses.dataclass(frozen=True)
class Lost:
    """A repository out of which nothing can be restored."""

    database: str
    store: str
    error: HmsError


@dataclasses.dataclass(frozen=True)
class Aims:
    """What a drill takes: the backups, the repositories that have none, and what is wrong with the catalog."""

    targets: tuple[AnyTarget, ...]
    lost: tuple[Lost, ...] = ()
    problems: tuple[Problem, ...] = ()


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
Prove = t.Callable[[t.Callable[[], Session], str, float], t.Sequence[t.Mapping[str, t.Any]]]
"""Proves one database that came back as it was, the operator's questions to it included."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of one backup.

    Attributes:
        seconds: of each phase: prepare (the throwaway instance), look, create, load (fetched, decrypted, restored),
            analyze, validate, assertions, properties; of pgBackRest's prepare, load, recover, validate, checksums.
        restore_seconds: of all that a real restore would take too, so without the throwaway instance.
        bytes_per_second: of the stored bytes while they were loaded.
        present_bytes: how large the database is now; None where its server could not be asked.
        noted: whether the result stands beside the backup.
        recovered: how far recovery came, of pgBackRest's: to, lsn, timeline, segment, last_transaction.
        rpo_seconds: how old what came back is: what would be lost if there were nothing but this backup.
        django: what the application says of it.
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
    engine: str = PG_DUMP
    label: str = ""
    recovered: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    rpo_seconds: float | None = None
    django: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of_lost(cls, lost: Lost) -> Outcome:
        """The outcome for a repository out of which nothing can be restored."""
        return cls(
            database=lost.database,
            id="",
            store=lost.store,
            ok=False,
            problems=(lost.error.message,),
            seconds={},
            restore_seconds=0.0,
            bytes=0,
            bytes_per_second=None,
            database_bytes=0,
            present_bytes=None,
            projected_rto_seconds=None,
            reason=lost.error.reason,
            engine=PGBACKREST,
        )

    def as_dict(self) -> dict[str, t.Any]:
        """As plain data."""
        return dataclasses.asdict(self)

    def told(self) -> str:
        """One line for people, without its full stop."""
        which = f"{self.id or 'A backup'} of {self.database}" if self.database else self.id or "A backup"
        if not self.ok:
            return f"{which} in {self.store} did not come back: {'; '.join(self.problems).rstrip('.')}"
        rto = self.projected_rto_seconds
        projected = "" if rto is None else f"; {rto:.1f} s for the size of today"
        return f"{which} in {self.store} came back in {self.restore_seconds:.1f} s{projected}"
