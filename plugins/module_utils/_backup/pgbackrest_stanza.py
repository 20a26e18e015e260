# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A cluster's place in pgBackRest's repositories: made where it is missing, and archiving proven. PRIVATE."""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t

from .._clock import Clock
from .._command import CommandRunner
from .._errors import ConnectionFailed, HmsError, Refused
from .._module import Result
from .._postgres import ConnectionParams, Session
from .._tools.pgbackrest import PgBackRest
from .pgbackrest_engine import Server, check_server, read_server

_BETWEEN_ATTEMPTS = 1.0


NOT_ARCHIVED = "[082]"
"""pgBackRest's number for WAL that did not arrive in time."""


@dataclasses.dataclass(frozen=True)
class Order:
    """What is asked for: the arguments of the module pgbackrest_stanza."""

    config: str
    stanza: str
    repositories: t.Sequence[int] = (1,)
    os_user: str = "postgres"
    port: int = 5432
    socket_directory: str = "/var/run/postgresql"
    check: bool = True
    wait_seconds: float = 60.0


class Connect(t.Protocol):
    """Opens a session; `_postgres.connect` is one."""

    def __call__(self, params: ConnectionParams, *, os_user: str | None = None) -> Session:
        """A session, as that user."""


@dataclasses.dataclass(frozen=True)
class Found:
    """What there is: the instance, None where it is down; and the repositories without a stanza, by number."""

    server: Server | None
    missing: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Action:
    """What is to be done, and why."""

    what: t.Literal["create", "check"]
    why: str


def inspect(drivers: t.Sequence[PgBackRest], session: Session | None) -> Found:
    """Look at the instance and at each repository; raises `Refused` for one that can't be read."""
    missing = []
    for driver in drivers:
        try:
            driver.info()
        except Refused as error:
            if error.reason != "no_stanza":
                raise
            missing.append(driver.repo)
    return Found(read_server(session) if session is not None else None, tuple(missing))


def plan(found: Found, *, check: bool) -> list[Action]:
    """Make the stanza where it is missing; prove archiving where WAL is archived from."""
    actions = []
    if found.missing:
        numbers = ", ".join(f"repo{number}" for number in found.missing)
        actions.append(Action("create", f"{numbers} has no stanza"))
    if check and found.server is not None and not found.server.is_standby:
        actions.append(Action("check", "this is the primary, whose WAL must arrive"))
    return actions


def create(driver: PgBackRest, found: Found, *, clock: Clock, wait_seconds: float) -> None:
    """Make the stanza. The archiver of a running server holds the lock for moments: it is waited for.

    A standby's is made from its control file, so that whoever leads next can archive from the first moment on.
    """
    online = found.server is not None and not found.server.is_standby
    deadline = clock.monotonic() + wait_seconds
    while True:
        try:
            driver.stanza_create(online=online)
        except Refused as error:
            if error.reason != "busy" or clock.monotonic() >= deadline:
                raise
            clock.sleep(_BETWEEN_ATTEMPTS)
        else:
            return


def apply(
    actions: t.Sequence[Action],
    drivers: t.Sequence[PgBackRest],
    found: Found,
    *,
    clock: Clock,
    wait_seconds: float = 60.0,
) -> None:
    """Carry it out. Raises where WAL doesn't arrive: then no backup would be one."""
    for action in actions:
        if action.what == "create":
            create(drivers[0], found, clock=clock, wait_seconds=wait_seconds)
        elif found.server is not None:
            check_server(found.server, drivers[0])
            prove(drivers[0], wait_seconds=wait_seconds)


def prove(driver: PgBackRest, *, wait_seconds: float) -> None:
    """Switch WAL and wait until it is in every repository.

    Half of the time, then once more: a server whose archiver failed three times, as it does before there is a stanza,
    tries again after a minute or when it has a new segment, and each check makes one.
    """
    for last in (False, True):
        try:
            return driver.check(timeout=wait_seconds / 2)
        except HmsError as error:
            if not last and NOT_ARCHIVED in error.message:
                continue
            error.phase = "check"
            error.state = (
                "The stanza is there; the server's WAL does not arrive in the repository, and collects in pg_wal."
            )
            raise
    return None


def ensure(
    drivers: t.Sequence[PgBackRest],
    session: Session | None,
    *,
    check: bool,
    check_mode: bool,
    clock: Clock,
    wait_seconds: float,
) -> Result:
    """Look, plan, do: the module's work."""
    found = inspect(drivers, session)
    actions = plan(found, check=check)
    if not check_mode:
        apply(actions, drivers, found, clock=clock, wait_seconds=wait_seconds)
    creates = [action for action in actions if action.what == "create"]
    warnings = []
    if found.server is None:
        warnings.append("The instance is down, so whether its WAL arrives in the repository was not checked.")
    elif found.server.failing:
        warnings.append(f"The server could not archive {found.server.failing}; see its log.")
    return Result(
        changed=bool(creates),
        values={
            "plan": [f"{action.what}: {action.why}" for action in actions],
            "created": [driver.repo for driver in drivers if driver.repo in found.missing],
            "checked": any(action.what == "check" for action in actions) and not check_mode,
        },
        warnings=warnings,
    )


def work(order: Order, *, check_mode: bool, connect: Connect, runner: CommandRunner, clock: Clock) -> Result:
    """Do what is asked, whether the instance runs or not."""
    drivers = [
        PgBackRest(runner, config=order.config, stanza=order.stanza, os_user=order.os_user, repo=number)
        for number in order.repositories
    ]
    session: Session | None = None
    with contextlib.suppress(ConnectionFailed):  # it is down, which the result says
        session = connect(ConnectionParams(host=order.socket_directory, port=order.port), os_user=order.os_user)
    try:
        return ensure(
            drivers,
            session,
            check=order.check,
            check_mode=check_mode,
            clock=clock,
            wait_seconds=float(order.wait_seconds),
        )
    finally:
        if session is not None:
            session.close()
