# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The look before a restore: everything that is opened on the way is closed by the caller's stack. PRIVATE."""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t

from .._artifact.clients import DIRECTORIES, Clients, find_clients
from .._artifact.database import Connect
from .._artifact.keys import Keyring, reading_keyring
from .._artifact.scratch import open_maintenance
from .._artifact.step_record import ServerClock
from .._clock import Clock
from .._command import CommandRunner
from .._errors import HmsError, Refused
from .._module import Result
from .._postgres import Session
from .._record import new_id
from .._tools.pg_restore import PgRestore
from .facts import TargetFacts, read_target
from .find import Artifact, find
from .model import Order
from .outline import Outline, read_outline
from .pour import Pourer
from .run_sql import read_mask

OPERATION = "restore"


@dataclasses.dataclass(frozen=True)
class Ports:
    """What an operation needs of the world.

    Attributes:
        backup: makes a verified backup of the live database as it is now; None where that was not composed.
    """

    runner: CommandRunner
    clock: Clock
    connect: Connect
    host: str
    by: str
    backup: t.Callable[[], Result] | None = None
    directories: tuple[str, ...] = DIRECTORIES


@dataclasses.dataclass(frozen=True)
class Look:
    """What was seen and opened."""

    identifier: str
    clock: ServerClock
    maintenance: Session
    target: TargetFacts
    artifact: Artifact
    keyring: Keyring
    clients: Clients
    pourer: Pourer
    outline: Outline


def look(order: Order, ports: Ports, stack: contextlib.ExitStack, *, deadline: float) -> Look:
    """Look at everything."""
    try:
        return _look(order, ports, stack, deadline)
    except HmsError as error:
        error.phase = error.phase or "look"
        error.state = error.state or "Nothing was touched."
        raise


def _look(order: Order, ports: Ports, stack: contextlib.ExitStack, deadline: float) -> Look:
    maintenance = open_maintenance(order.connection, ports.connect)
    stack.callback(maintenance.close)
    for name in ("idle_session_timeout", "idle_in_transaction_session_timeout"):
        with contextlib.suppress(HmsError):  # older servers have no idle_session_timeout
            maintenance.execute(f"SET {name} = 0")
    target = read_target(order, ports.connect, maintenance)
    clock = ServerClock(ports.clock, target.now)
    clients = find_clients(target.server.major, ports.runner, ports.directories)
    if clients.pg_restore.major != target.server.major:
        raise Refused(
            f"The server is {target.server.version}, and {clients.pg_restore.path} is {clients.pg_restore.version}.",
            reason="version_mismatch",
            phase="look",
            state="Nothing was touched.",
            next_step=f"Install Debian's package postgresql-client-{target.server.major}.",
        )
    for path in order.masks:
        read_mask(path)
    artifact = find(order, ports.runner)
    keyring = stack.enter_context(reading_keyring(order.encryption, runner=ports.runner))
    pourer = Pourer(artifact, keyring, deadline=deadline, os_user=order.os_user)
    pourer.check_key()
    pg_restore = PgRestore(clients.pg_restore.path, os_user=order.os_user)
    return Look(
        identifier=new_id(OPERATION, clock),
        clock=clock,
        maintenance=maintenance,
        target=target,
        artifact=artifact,
        keyring=keyring,
        clients=clients,
        pourer=pourer,
        outline=read_outline(artifact, pourer, pg_restore),
    )
