# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an operation on a host has around it: one at a time, ended properly, with the right user's rights. PRIVATE."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import threading
import typing as t

from .._clock import Clock, iso
from .._errors import HmsError, Refused
from .._files import HeldLock
from .manifest import key_part

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Terminated(BaseException):
    """Somebody told this process to end. No Exception, so that nothing takes it for a failure that it can live with."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)


def was_ended(error: BaseException | None) -> bool:
    """Whether a failure came of being told to end: cleaning up may fail as well, and its error then stands first."""
    while error is not None and not isinstance(error, (Terminated, KeyboardInterrupt)):
        error = error.__cause__ or error.__context__
    return error is not None


@contextlib.contextmanager
def ending_properly(what: str, state: str) -> t.Iterator[None]:
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
            f"{what} was told to end ({error.args[0] if error.args else 'SIGINT'}).",
            reason="interrupted",
            state=state,
            next_step="Run again.",
        ) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


Holder = t.Mapping[str, t.Any]
"""What whoever holds a lock has written into it."""


def backup_lock(state_dir: str, database: str) -> str:
    """The file that a backup of a database locks on its host, and whoever must not meet one."""
    return os.path.join(state_dir, f"backup-{key_part(database)}.lock")


def note_of(by: str, clock: Clock) -> dict[str, t.Any]:
    """What we write into a lock."""
    return {"by": by, "since": iso(clock.now()), "pid": os.getpid()}


def busy(
    what: str,
    holder: Holder,
    *,
    state: str = "This run touched nothing.",
    next_step: str = "Wait for it, then run again.",
) -> Refused:
    """The refusal while another one is at it: `what` as in "restore of hospital"."""
    return Refused(
        f"Another {what} is at work on this host: {who(holder)}.",
        reason="busy",
        phase="lock",
        state=state,
        next_step=next_step,
        details={"holder": dict(holder)},
    )


@contextlib.contextmanager
def holding(lock: HeldLock, take: t.Callable[[], None]) -> t.Iterator[None]:
    """Hold a lock that `take` acquires, or raises about."""
    try:
        take()
    except OSError as error:
        raise HmsError(
            f"The lock {lock.path} can't be made: {error.strerror}.",
            reason="no_lock",
            phase="lock",
            state="Nothing was touched.",
            next_step="Give a state_dir that can be written.",
        ) from error
    try:
        yield
    finally:
        lock.release()


def alone(lock: HeldLock, what: str, *, by: str, clock: Clock) -> contextlib.AbstractContextManager[None]:
    """Hold a lock, or refuse because another one of the kind is at work."""

    def take() -> None:
        holder = lock.acquire(note_of(by, clock))
        if holder is not None:
            raise busy(what, holder)

    return holding(lock, take)


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
            "Correct os_user; an empty one means the user that runs this.",
        ) from None
    if os.geteuid() not in (0, entry.pw_uid):
        raise _refused(
            "not_root",
            f"Only root can run PostgreSQL's programs as {os_user}, and this runs as user id {os.geteuid()}.",
            "Run it as root (become: true), or set os_user to an empty string.",
        )


def _refused(reason: str, message: str, next_step: str) -> Refused:
    return Refused(message, reason=reason, phase="look", state="Nothing was touched.", next_step=next_step)


def who(holder: t.Mapping[str, t.Any]) -> str:
    """Whoever holds a lock, in words."""
    by, since = holder.get("by") or "somebody", holder.get("since", "an unknown time")
    return f"{by} since {since}, process {holder.get('pid')}"
