# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The members of a pg_dump backup: each dumped, compressed, encrypted and stored in one stream. PRIVATE.

The format directory is the exception: dumped into a staging folder first, then packed up from there.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import typing as t

from .._artifact import directory
from .._artifact.clients import Clients
from .._artifact.keys import Keyring
from .._artifact.manifest import MANIFEST, Member, key_part
from .._artifact.staging import Staging
from .._artifact.streams import StreamResult, store_bytes, store_stream
from .._errors import HmsError
from .._files import dump_json
from .._pipeline import Pipeline, Stage
from .._postgres import ConnectionParams
from .._store.model import ObjectStore
from .._store.tee import Tee
from .._tools.pg_dump import PgDump
from .._tools.pg_dumpall import PgDumpAll
from .._tools.tar import Tar
from .estimate import Estimate
from .model import Wish
from .plan import MemberPlan
from .staging_plan import jobs_of

FROM_SNAPSHOT = ("schema", "data")
"""Members that are dumped from the leader's snapshot."""
_PATIENCE = 2.0
"""Seconds that pg_dump waits for a table that the leader holds already.

It can only have to wait where somebody asked for the table exclusively in the meantime: he waits for the leader,
pg_dump stands behind him in the queue, and the leader waits for pg_dump. The server can't see that circle.
"""
_SMALL = 4_000_000
_NOTICE_A_KILL = {"client_connection_check_interval": "5s"}
"""A server that waits for a lock on behalf of a dump that is dead goes on waiting otherwise."""
_HINTS = (
    (
        "invalid memory alloc request size",
        "A bytea value is larger than pg_dump can write (about 512 MB): use the engine pgbackrest for this database.",
    ),
    (
        "Cannot enlarge string buffer",
        "A row is larger than pg_dump can write (1 GB of text): use the engine pgbackrest for this database.",
    ),
    ("No space left on device", "Make room in the store, then run again."),
    ("terminating connection", "Somebody ended the dump's connection: an administrator, or DROP DATABASE. Run again."),
    (
        "server closed the connection",
        "The server stopped, or somebody ended the connection, as DROP DATABASE does: look in its log, then run again.",
    ),
    (
        "conflict with recovery",
        "The standby's replay ended the dump. Raise max_standby_streaming_delay, or back up the primary.",
    ),
    (
        "could not obtain lock on relation",
        "Somebody keeps asking for tables exclusively (a migration, VACUUM FULL, TRUNCATE). Run again afterwards.",
    ),
    (
        "LOCK TABLE",
        "Somebody keeps asking for tables exclusively (a migration, VACUUM FULL, TRUNCATE). Run again afterwards.",
    ),
    ("connection slots", "Dump with fewer jobs: each worker needs a connection. Or raise max_connections."),
    ("too many connections", "Dump with fewer jobs: each worker needs a connection. Or raise the connection limit."),
    ("out of shared memory", "Raise max_locks_per_transaction: the dump locks every table."),
    ("permission denied", "Grant the role what the message names, then run again."),
    ("cache lookup failed", "Something was dropped while it was dumped. Run again."),
)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the objects of one backup go."""

    stores: tuple[ObjectStore, ...]
    cluster: str
    database: str
    id: str
    lock_until: datetime.datetime | None = None

    def key(self, name: str) -> str:
        """The key of one of its objects."""
        return f"{key_part(self.cluster)}/{key_part(self.database)}/{self.id}/{name}"

    def clear(self) -> list[str]:
        """Remove whatever of this backup is stored; what could not be removed, in words. Never raises `HmsError`."""
        problems = []
        for store in self.stores:
            try:
                found = [stored.key for stored in store.list(self.key(""))]
                # what makes it a backup goes first
                for keys in ([self.key(MANIFEST)], [key for key in found if key != self.key(MANIFEST)]):
                    if set(keys) & set(found):
                        store.remove(keys)
            except HmsError as error:
                problems.append(error.message)
        return problems


class DumpEngine:
    """Makes members, one after the other."""

    def __init__(
        self,
        wish: Wish,
        *,
        clients: Clients,
        keyring: Keyring,
        place: Place,
        snapshot: str | None,
        major: int,
        deadline: float,
    ) -> None:
        self._wish = wish
        self._major = major
        self._keyring = keyring
        self._place = place
        self._snapshot = snapshot
        self._deadline = deadline
        # the timeouts for our own statements are none for a dump, which may well take hours
        self._connection: ConnectionParams = dataclasses.replace(wish.connection, startup_options=False)
        self._pg_dump = PgDump(clients.pg_dump.path, os_user=wish.os_user)
        self._pg_dumpall = PgDumpAll(clients.pg_dumpall.path, os_user=wish.os_user)

    def make(self, plan: MemberPlan, *, properties: t.Mapping[str, t.Any], expected: Estimate) -> Member:
        """One member, stored whole and durable in every store."""
        return self._store(plan, expected, lambda writer: self._stream(plan.role, properties, writer))

    def dump_files(self, staging: Staging) -> None:
        """Dump into a staging folder, by several workers."""
        stage = self._pg_dump.directory_stage(
            self._connection,
            os.path.join(staging.path, directory.NAME),
            jobs=jobs_of(self._wish),
            contents=self._contents,
            snapshot=self._snapshot,
            lock_timeout=min(self._wish.lock_timeout, _PATIENCE),
            options=self._options,
        )
        try:
            Pipeline([stage], deadline=self._deadline, what="The dump").feed(_nothing)
        except HmsError as error:
            if not error.next_step and "No space left on device" in error.message:
                error.next_step = (
                    f"Make room in {self._wish.staging_dir}, or use format custom, which needs none there."
                )
            raise explained(error) from error

    def pack(self, plan: MemberPlan, staging: Staging, *, expected: Estimate) -> Member:
        """The member made of the files in a staging folder, stored like the others."""
        source = Tar(os_user=self._wish.os_user).create_stage(staging.path, directory.NAME)
        return self._store(plan, expected, lambda writer: store_stream(source, **self._how(writer)))

    def _store(self, plan: MemberPlan, expected: Estimate, stream: t.Callable[[Tee], StreamResult]) -> Member:
        size_hint = expected.bytes if plan.role == "data" else _SMALL
        key = self._place.key(plan.name)
        writer = Tee.create(self._place.stores, key, size_hint=size_hint, lock_until=self._place.lock_until)
        try:
            made = stream(writer)
            writer.commit()
        except HmsError as error:
            raise explained(error) from error
        finally:
            writer.abort()
        return Member(role=plan.role, name=plan.name, bytes=made.bytes, sha256=made.sha256)

    def _how(self, writer: Tee) -> dict[str, t.Any]:
        return {
            "compression": self._wish.compression,
            "keyring": self._keyring,
            "writer": writer,
            "deadline": self._deadline,
            "os_user": self._wish.os_user,
        }

    def _stream(self, role: str, properties: t.Mapping[str, t.Any], writer: Tee) -> StreamResult:
        if role == "properties":
            return store_bytes(dump_json(dict(properties)).encode(), **self._how(writer))
        return store_stream(self._source(role), **self._how(writer))

    @property
    def _contents(self) -> str:
        return {"data_only": "data"}.get(self._wish.type, "all")

    @property
    def _options(self) -> t.Mapping[str, str] | None:
        return _NOTICE_A_KILL if self._major >= 14 else None

    def _source(self, role: str) -> Stage:
        """The program that a member comes from."""
        if role == "globals":
            return self._pg_dumpall.globals_stage(self._connection, passwords=self._wish.role_passwords)
        return self._pg_dump.stage(
            self._connection,
            file_format="plain" if role == "data" and self._wish.format == "plain" else "custom",
            contents="schema" if role == "schema" else self._contents,
            snapshot=self._snapshot,
            lock_timeout=min(self._wish.lock_timeout, _PATIENCE),
            options=self._options,
        )


def _nothing(_size: int) -> bytes:
    """What goes into a pg_dump that writes files. Its stdout isn't read: workers that outlive it would keep it open."""
    return b""


def lost_race(error: HmsError) -> bool:
    """Whether pg_dump failed because somebody else stood before it in the queue for a table."""
    tail = str(error.details.get("stderr_tail", ""))
    # the workers of a parallel dump don't wait at all
    known = ("LOCK TABLE" in tail and "timeout" in tail) or "could not obtain lock on relation" in tail
    return error.phase == "pg_dump" and known


def explained(error: HmsError) -> HmsError:
    """The same error with what to do next, where its text tells."""
    if error.next_step:
        return error
    text = error.message + str(error.details.get("stderr_tail", ""))
    error.next_step = next((hint for word, hint in _HINTS if word in text), "Remove the cause, then run again.")
    return error
