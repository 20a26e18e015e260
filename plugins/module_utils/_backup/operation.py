# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every backup has around it: one at a time, ended properly, with the right user's rights. PRIVATE."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import threading
import typing as t

from .._artifact.manifest import key_part
from .._clock import Clock, iso
from .._errors import DeadlinePassed, HmsError, Refused
from .._files import HeldLock
from .model import Wish
from .record import BackupRecord

_POLL = 1.0
_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Terminated(BaseException):
    """Somebody told this process to end. No Exception, so that nothing takes it for a failure that it can live with."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)


@contextlib.contextmanager
def ending_properly() -> t.Iterator[None]:
    """Turn SIGTERM and SIGHUP into an exception, once: what is being cleaned up after the first is left to end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: object) -> None:
        for each in _ENDING:
            signal.signal(each, signal.SIG_IGN)
        raise Terminated(number)

    before = {number: signal.signal(number, end) for number in _ENDING}
    try:
        yield
    except (Terminated, KeyboardInterrupt) as error:
        raise HmsError(
            f"The backup was told to end ({error.args[0] if error.args else 'SIGINT'}).",
            reason="interrupted",
            state="No backup was made by this run; earlier ones are as they were.",
            next_step="Run again.",
        ) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_user(os_user: str | None) -> None:
    """Whether programs can run with the rights of `os_user`; raises `Refused`."""
    if os_user is None:
        return
    try:
        entry = pwd.getpwnam(os_user)
    except KeyError:
        raise _refused(
            "no_such_user",
            f"This host has no user {os_user} to connect and to run PostgreSQL's programs as.",
            "Correct os_user; an empty one means the user that runs the backup.",
        ) from None
    if os.geteuid() not in (0, entry.pw_uid):
        raise _refused(
            "not_root",
            f"Only root can run PostgreSQL's programs as {os_user}, and this runs as user id {os.geteuid()}.",
            "Run it as root (become: true), or set os_user to an empty string.",
        )


def _refused(reason: str, message: str, next_step: str) -> Refused:
    return Refused(message, reason=reason, phase="look", state="Nothing was touched.", next_step=next_step)


def lock_path(wish: Wish) -> str:
    """The lock of a database, or of the host's pgBackRest, which backs all databases up at once."""
    name = key_part(wish.database) if wish.engine == "pg_dump" else "@pgbackrest"
    return os.path.join(wish.state_dir, f"backup-{name}.lock")


def who(holder: t.Mapping[str, t.Any]) -> str:
    """Whoever holds a lock, in words."""
    return f"{holder.get('by', 'somebody')} since {holder.get('since', 'an unknown time')}, process {holder.get('pid')}"


def busy(wish: Wish, holder: t.Mapping[str, t.Any]) -> Refused:
    """The refusal while another one is at it."""
    return Refused(
        f"Another backup of {wish.database} is at work on this host: {who(holder)}.",
        reason="busy",
        phase="lock",
        state="This run touched nothing and made no backup.",
        next_step="Wait for it; or let this one wait, with if_busy: wait.",
        details={"holder": dict(holder)},
    )


@contextlib.contextmanager
def alone(wish: Wish, *, clock: Clock, by: str) -> t.Iterator[HeldLock]:
    """Be the only backup of this database on this host, or refuse, or wait, as is wished."""
    lock = HeldLock(lock_path(wish))
    note = {"by": by, "since": iso(clock.now()), "pid": os.getpid(), "database": wish.database}
    try:
        _acquire(lock, note, wish, clock)
    except OSError as error:
        raise HmsError(
            f"The lock {lock.path} can't be made: {error.strerror}.",
            reason="no_lock",
            phase="lock",
            state="Nothing was touched.",
            next_step="Give a state_dir that can be written.",
        ) from error
    try:
        yield lock
    finally:
        lock.release()


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
