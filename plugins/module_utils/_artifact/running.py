# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every operation on a host has around it: ended properly, with the right user's rights. PRIVATE."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import threading
import typing as t

from .._errors import HmsError, Refused

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
    return f"{holder.get('by', 'somebody')} since {holder.get('since', 'an unknown time')}, process {holder.get('pid')}"
