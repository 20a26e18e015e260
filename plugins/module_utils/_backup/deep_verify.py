# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The proof by restoring: into a scratch database on the same server, rows counted and compared. PRIVATE.

The scratch database's name tells whose it is, and an advisory lock is held on that name while it is in use; so what a
killed run left behind is known as such, and dropped by the next one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time

from .._artifact.clients import Clients
from .._artifact.directory_restore import MOST_JOBS, restore_files
from .._artifact.keys import Keyring
from .._artifact.manifest import Manifest, Member
from .._artifact.scratch import (
    compare,
    create_statement,
    drop_abandoned,
    drop_database,
    open_maintenance,
    settle,
    take_name,
)
from .._artifact.staging import Staging
from .._artifact.streams import read_stages
from .._artifact.verify import is_directory
from .._errors import HmsError
from .._pipeline import Pipeline, Stage
from .._postgres import ConnectionParams
from .._store.model import ObjectStore
from .._tools.compressors import default_threads
from .._tools.pg_restore import PgRestore
from .facts import Connect, DatabaseFacts, countable, read_relations

PREFIX = "hms_verify_"


@dataclasses.dataclass(frozen=True)
class DeepCheck:
    """What came out of a restore."""

    problems: tuple[str, ...]
    rows_compared: int
    seconds: float


def scratch_prefix(cluster: str, database: str) -> str:
    """What the names of all scratch databases of one database begin with."""
    return PREFIX + hashlib.sha256(f"{cluster}\0{database}".encode()).hexdigest()[:10] + "_"


def scratch_name(manifest: Manifest) -> str:
    """The name of the scratch database of one backup."""
    return scratch_prefix(manifest.cluster, manifest.database) + manifest.id[-4:]


class DeepVerifier:
    """Restores one backup and compares what comes back."""

    def __init__(
        self,
        *,
        connection: ConnectionParams,
        connect: Connect,
        clients: Clients,
        os_user: str | None,
        superuser: bool,
        staging_dir: str | None = None,
    ) -> None:
        self._connection = connection
        self._connect = connect
        self._clients = clients
        self._os_user = os_user
        self._superuser = superuser
        self._staging_dir = staging_dir

    def restore_and_compare(
        self,
        store: ObjectStore,
        manifest: Manifest,
        keyring: Keyring,
        *,
        database: DatabaseFacts,
        major: int,
        deadline: float,
    ) -> DeepCheck:
        """The whole of it. A restore that fails is a problem of the backup; a server that fails is an error."""
        begun = time.monotonic()
        name = scratch_name(manifest)
        maintenance = open_maintenance(self._connection, self._connect)
        try:
            take_name(maintenance, name)
            drop_abandoned(maintenance, scratch_prefix(manifest.cluster, manifest.database))
            maintenance.execute(create_statement(name, database, major))
            try:
                settle(maintenance)
                problems, compared = self._prove(store, manifest, keyring, name, deadline)
            finally:
                drop_database(maintenance, name)
        finally:
            maintenance.close()
        return DeepCheck(problems, compared, round(time.monotonic() - begun, 3))

    def _prove(
        self, store: ObjectStore, manifest: Manifest, keyring: Keyring, name: str, deadline: float
    ) -> tuple[tuple[str, ...], int]:
        member = next(found for found in manifest.members if found.role in _RESTORED[manifest.type])
        scratch = dataclasses.replace(self._connection, dbname=name)
        try:
            self._restore(store, manifest, member, keyring, scratch, deadline)
        except HmsError as error:
            if error.reason != "stage_failed":
                raise
            return (f"{member.name} does not restore: {error.message}",), 0
        session = self._connect(scratch)
        try:
            session.execute("SET statement_timeout = 0")
            tables = countable(read_relations(session), is_standby=False)
            found = {
                table.shown: int(session.value(f"SELECT pg_catalog.count(*) FROM ONLY {table.quoted}"))
                for table in tables
            }
            large = int(session.value("SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata"))
        finally:
            session.close()
        return compare(manifest, found, large), len(found)

    def _restore(
        self,
        store: ObjectStore,
        manifest: Manifest,
        member: Member,
        keyring: Keyring,
        scratch: ConnectionParams,
        deadline: float,
    ) -> None:
        program = PgRestore(self._clients.pg_restore.path, os_user=self._os_user)
        stages: list[Stage] = read_stages(member.name, keyring, os_user=self._os_user)

        def restore(folder: str | None = None) -> Stage:
            jobs = min(MOST_JOBS, default_threads())
            made = program.into_database_stage(scratch, owners=self._superuser, directory=folder, jobs=jobs)
            # a subscription would wait for the original's slot, and keep the scratch database from being dropped
            return dataclasses.replace(made, argv=(*made.argv, "--no-publications", "--no-subscriptions"))

        reader = store.open(manifest.key(member.name))
        if is_directory(member):
            staging = Staging(self._staging_dir or "", manifest.id, os_user=self._os_user)
            restore_files(reader, stages, restore, staging=staging, os_user=self._os_user, deadline=deadline)
            return
        try:
            Pipeline([*stages, restore()], deadline=deadline, what="The restore for the verification").feed(reader.read)
        finally:
            reader.close()


_RESTORED: dict[str, tuple[str, ...]] = {"full": ("data",), "schema_only": ("schema",)}
