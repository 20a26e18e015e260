# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is asked of a backup: one shape for the module's arguments and the host's ``backup.json``. PRIVATE."""

from __future__ import annotations

import dataclasses
import typing as t

from .._artifact.model import Compression, Encryption
from .._postgres import ConnectionParams
from .._store.model import StoreSpec

Engine = t.Literal["pg_dump", "pgbackrest"]
Type = t.Literal["full", "schema_only", "data_only", "differential", "incremental"]
Format = t.Literal["custom", "directory", "plain"]
Verify = t.Literal["none", "read", "deep"]

TYPES: dict[Engine, tuple[Type, ...]] = {
    "pg_dump": ("full", "schema_only", "data_only"),
    "pgbackrest": ("full", "differential", "incremental"),
}


@dataclasses.dataclass(frozen=True)
class Retention:
    """What is kept of one database, engine and type; None and 0 ask for nothing. All rules keep, none removes alone.

    Attributes:
        days: everything younger.
        keep_last: the newest so many, whatever their age.
        daily, weekly, monthly, yearly: the newest of each of the last so many days, weeks, months, years (UTC).
    """

    days: float | None = None
    keep_last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0

    @property
    def keeps_everything(self) -> bool:
        """Whether no rule was given: then nothing is ever removed."""
        return self == Retention()


@dataclasses.dataclass(frozen=True)
class Wish:
    """One backup, wished.

    Attributes:
        cluster: the cluster's name, the first part of every key.
        environment: demo, development, staging or production.
        connection: where the server is; its dbname is the database that is backed up (pg_dump).
        os_user: whose rights the programs run with; None for our own.
        stores: where the artifact goes, at least one; written at the same time.
        retention: by type; a type that is missing is kept for ever.
        if_busy: what to do while another backup of the same runs.
        wait_seconds: how long to wait for it.
        lock_timeout: seconds that pg_dump waits for a table.
        timeout: seconds for the whole.
        jobs: workers that dump at once in the format directory; None for one per core, at most 4.
        staging_dir: where the format directory lies, unencrypted, while it is made: ours alone, on this host.
        state_dir: the host's folder for records and locks (``/var/lib/hms-postgres/<cluster>``).
        pgbackrest: its settings (stanza, config file, os_user); see the driver.
    """

    cluster: str
    environment: str
    connection: ConnectionParams
    stores: tuple[StoreSpec, ...]
    state_dir: str
    engine: Engine = "pg_dump"
    type: Type = "full"
    format: Format = "custom"
    jobs: int | None = None
    staging_dir: str | None = None
    os_user: str | None = "postgres"
    compression: Compression = dataclasses.field(default_factory=Compression)
    encryption: Encryption = dataclasses.field(default_factory=Encryption)
    retention: t.Mapping[str, Retention] = dataclasses.field(default_factory=dict)
    verify: Verify = "read"
    globals: bool = True
    role_passwords: bool = False
    row_counts: bool = True
    if_busy: t.Literal["wait", "refuse"] = "refuse"
    wait_seconds: float = 3600.0
    lock_timeout: float = 30.0
    timeout: float = 24 * 3600.0
    pgbackrest: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)

    @property
    def database(self) -> str:
        """The database's name."""
        return self.connection.dbname
