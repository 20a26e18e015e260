# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is looked at before anything is decided. PRIVATE."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import typing as t

from .._artifact import pgbackrest_settings, running
from .._clock import Clock
from .._command import CommandRunner
from .._files import HeldLock
from .._tools.pgbackrest import PgBackRest, Stanza
from . import choose, facts, plan, side
from .model import Live, Order, Side
from .server import Connect, Server
from .side import Folder

FIRST_PORT = 5499


@dataclasses.dataclass(frozen=True)
class World:
    """What the work is done with."""

    connect: Connect
    runner: CommandRunner
    clock: Clock
    host: str = dataclasses.field(default_factory=socket.gethostname)


@dataclasses.dataclass(frozen=True)
class Seen:
    """What was looked at before anything is decided."""

    live: Live
    driver: PgBackRest
    stanza: Stanza
    folder: Folder
    side: Side
    bin_directory: str
    version_num: int
    port: int

    @property
    def system_identifier(self) -> str:
        """Of the cluster in the repository."""
        return choose.newest_generation(self.stanza).system_identifier


def make_server(order: Order, folder: side.Folder, bin_directory: str, world: World) -> t.Callable[[int, int], Server]:
    """What makes the driver of the side cluster's server, for a port and a version."""

    def make(port: int, version_num: int) -> Server:
        return Server(
            folder,
            port=port,
            version_num=version_num,
            bin_directory=bin_directory,
            os_user=order.os_user,
            runner=world.runner,
            clock=world.clock,
            connect=world.connect,
        )

    return make


def see(order: Order, world: World) -> Seen:
    """Look at the live server, the repository and the side directory; refuse what belongs to others."""
    live = facts.read_live(order, world.connect)
    driver = pgbackrest_settings.driver(order.pgbackrest, world.runner)
    stanza = driver.info()
    facts.check_stanza(live, stanza)
    folder = side.Folder(facts.side_directory(order, live))
    major = facts.major_of(live, stanza)
    bin_directory = facts.programs(major)
    found = facts.read_side(folder, make_server(order, folder, bin_directory, world))
    plan.check_ours(found, order, choose.newest_generation(stanza).system_identifier)
    port = order.port or (found.marker.port if found.marker else FIRST_PORT)
    side.check_path(folder, port)
    return Seen(live, driver, stanza, folder, found, bin_directory, live.version_num or major * 10000, port)


def alone(order: Order, clock: Clock) -> contextlib.AbstractContextManager[None]:
    """Be the only one at work on the side cluster."""
    lock = HeldLock(os.path.join(order.state_dir, "pitr.lock"))
    return running.alone(lock, "point-in-time recovery", by=order.by, clock=clock)
