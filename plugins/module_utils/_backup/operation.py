# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every backup has around it: one at a time, ended properly, with the right user's rights. PRIVATE."""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._artifact import running
from .._artifact.running import check_user, who
from .._clock import Clock
from .._errors import DeadlinePassed, HmsError, Refused
from .._files import HeldLock
from .model import Wish
from .record import BackupRecord

__all__ = [
    "alone",
    "busy",
    "check_user",
    "ending_properly",
    "finish_failed",
    "lock_path",
    "start_record",
    "who",
]

_POLL = 1.0


def ending_properly() -> contextlib.AbstractContextManager[None]:
    """A backup that is told to end ends with an error."""
    return running.ending_properly("The backup", "No backup was made by this run; earlier ones are as they were.")


def lock_path(wish: Wish) -> str:
    """The lock of a database, or of the host's pgBackRest, which backs all databases up at once."""
    if wish.engine == "pg_dump":
        return running.backup_lock(wish.state_dir, wish.database)
    return os.path.join(wish.state_dir, "backup-@pgbackrest.lock")


def busy(wish: Wish, holder: t.Mapping[str, t.Any]) -> Refused:
    """The refusal while another one is at it."""
    return running.busy(
        f"backup of {wish.database}",
        holder,
        state="This run touched nothing and made no backup.",
        next_step="Wait for it; or let this one wait, with if_busy: wait.",
    )


def alone(wish: Wish, *, clock: Clock, by: str) -> contextlib.AbstractContextManager[None]:
    """Be the only backup of this database on this host, or refuse, or wait, as is wished."""
    lock = HeldLock(lock_path(wish))
    note = {**running.note_of(by, clock), "database": wish.database}
    return running.holding(lock, lambda: _acquire(lock, note, wish, clock))


def _acquire(lock: HeldLock, note: t.Mapping[str, t.Any], wish: Wish, clock: Clock) -> None:
    deadline = clock.monotonic() + wish.wait_seconds
    while True:
        holder = lock.acquire(note)
        if holder is None:
            return
        if wish.if_busy != "wait":
            raise busy(wish, holder)
        if clock.monotonic() >= deadline:
            raise DeadlinePassed(
                f"Another backup of {wish.database} did not end within {wish.wait_seconds:g} s: {who(holder)}.",
                reason="busy",
                phase="lock",
                state="This run touched nothing and made no backup.",
                next_step="Look at what it does; end it if it hangs.",
                details={"holder": dict(holder)},
            )
        clock.sleep(_POLL)


def start_record(wish: Wish, identifier: str, *, host: str, by: str, clock: Clock) -> BackupRecord:
    """The record of a backup, begun."""
    return BackupRecord(
        wish.state_dir,
        identifier,
        cluster=wish.cluster,
        environment=wish.environment,
        host=host,
        by=by,
        parameters={
            "database": wish.database,
            "engine": wish.engine,
            "type": wish.type,
            "format": wish.format,
            "server": wish.connection.where(),
            "compression": wish.compression.method,
            "encryption": wish.encryption.method,
            "verify": wish.verify,
        },
        clock=clock,
    )


def finish_failed(record: BackupRecord, error: HmsError) -> None:
    """End the record of a backup that isn't one."""
    with contextlib.suppress(HmsError):
        record.put(error=error.as_dict())
    status = "refused" if isinstance(error, Refused) else "failed"
    record.finish(status, error.message, [error.next_step] if error.next_step else [])
