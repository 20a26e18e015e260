# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A restore as it is asked for. PRIVATE."""

from __future__ import annotations

import dataclasses
import typing as t

from .._artifact.model import Encryption
from .._artifact.sources import Sources
from .._postgres import ConnectionParams
from .._tools.compressors import default_threads

Strategy = t.Literal["swap", "in_place"]
Sessions = t.Literal["refuse", "wait", "terminate"]

FORCEABLE = (
    "bad_artifact",
    "backup_running",
    "encoding_differs",
    "logical_slots",
    "missing_tablespaces",
    "no_room",
    "pg_cron",
    "schema_only",
    "subscriptions",
)
"""Rules that an operator may set aside, by name."""


@dataclasses.dataclass(frozen=True)
class Assertion:
    """A question to the restored database, and the answer that it must give."""

    name: str
    sql: str
    expect: str


@dataclasses.dataclass(frozen=True)
class Order:
    """One restore.

    Attributes:
        environment: where it goes: demo, development, staging or production.
        connection: the server; its dbname is the database that is to come back.
        backup: ``latest``, an id, the path of a file or of an artifact's folder, ``s3://bucket/key``.
        sources: where backups are looked for by id.
        encryption: what opens them.
        masks: SQL files that run in the scratch database before it is handed over.
        sessions: what is done with the live database's sessions before it goes (in_place).
        keep_days: how long the old database is to be kept.
        jobs: how many restore, and prove; None where nobody said.
        work_dir: where an archive lies decrypted for several jobs, and where the directory format is unpacked.
    """

    cluster: str
    environment: str
    connection: ConnectionParams
    os_user: str | None
    state_dir: str
    sources: Sources
    backup: str = "latest"
    encryption: Encryption = dataclasses.field(default_factory=Encryption)
    strategy: Strategy = "swap"
    jobs: int | None = None
    assertions: tuple[Assertion, ...] = ()
    masks: tuple[str, ...] = ()
    keep_failed: bool = False
    again: bool = False
    allow_phi: bool = False
    allow_other_system: bool = False
    allow_other_database: bool = False
    allow_plain_sql: bool = False
    backup_before: bool = True
    sessions: Sessions = "refuse"
    wait_seconds: float = 60.0
    confirm: str = ""
    force: frozenset[str] = frozenset()
    keep_days: float = 7.0
    work_dir: str = ""
    timeout: float = 24 * 3600.0

    @property
    def database(self) -> str:
        """The database that is to come back."""
        return self.connection.dbname

    @property
    def workers(self) -> int:
        """How many sessions prove it, and how many jobs read files that lie on a disk anyway."""
        return self.jobs or default_threads()
