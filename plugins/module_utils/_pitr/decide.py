# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From where recovery starts and by which way it gets to the target; refuses what can't be. PRIVATE."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import typing as t

from .._artifact.pgbackrest_restore import free_bytes
from .._postgres import format_lsn
from .._tools.pg_waldump import PgWaldump
from . import choose, facts, plan
from .locate import locate
from .model import Action, Choice, Located, Order, Target
from .see import Seen, World
from .stream import WalReader, scratch

MARGIN = 16
"""Segments of room that recovery itself needs."""


@dataclasses.dataclass(frozen=True)
class Decided:
    """What recovery will be: from where, and by which actions."""

    actions: tuple[Action, ...]
    choice: Choice
    located: Located | None
    known: choose.Known | None
    warnings: tuple[str, ...] = ()


def stands(seen: Seen, target: Target, order: Order) -> bool:
    """Whether it is paused at this very target already."""
    marker = seen.side.marker
    return (
        marker is not None
        and marker.target == target
        and order.label in ("", marker.label)
        and not plan.plan(target, marker.label, seen.side, port=seen.port, located=None)
    )


def decide(order: Order, target: Target, seen: Seen, world: World, *, check_mode: bool) -> Decided:
    """The backup, the way and the actions; refuses what can't be reached, before anything is touched."""
    marker = seen.side.marker
    if marker is not None and stands(seen, target, order):
        return Decided((), Choice(marker.label, 0, 0), None, None)
    known = facts.read_known(seen.driver, seen.stanza, seen.live.segment_size)
    now = seen.live.now or world.clock.now()
    can_flush = seen.live.can_flush and order.flush_wal
    choose.check_future(target, known.newest, now, can_flush=can_flush)
    _check_oldest(target, known, order)
    reachable = choose.archived_to(known.archive, known.layout)
    if can_flush and not check_mode and choose.needs_flush(target, known.newest, reachable):
        flush(order, world)
        known = facts.read_known(seen.driver, seen.stanza, seen.live.segment_size)
    located = None
    if target.kind in ("xid", "name"):
        with wal_reader(order, seen, known) as reader:
            located = locate(target, known, reader)
    choice = choose.choose(target, known, located=located, label=order.label)
    warnings = [*choice.warnings, *_locked(target, located), *_check_holes(target, choice, known, located, seen)]
    actions = plan.plan(target, choice.label, seen.side, port=seen.port, located=located, wanted=order.label)
    if any(action.what == "restore" for action in actions):
        check_room(choice, seen, known.layout.size)
        check_port(seen)
    return Decided(tuple(actions), choice, located, known, tuple(warnings))


def _check_oldest(target: Target, known: choose.Known, order: Order) -> None:
    """Refuse by time or LSN what is before every backup, before WAL is closed for it."""
    if target.kind in ("time", "lsn"):
        choose.choose(target, known, located=None, label=order.label)


def _locked(target: Target, located: Located | None) -> list[str]:
    """Why a table may not be readable at the target."""
    if located is None or not located.locked or target.inclusive:
        return []
    text = f"{target.describe()} the tables that it has locked (TRUNCATE, DROP, ALTER) are locked here too."
    return [f"{text} To read them, recover to LSN {format_lsn(located.locked)} with inclusive: false."]


def _reference(seen: Seen) -> str:
    """A data directory of this cluster: pgBackRest compares its identity with the archive's."""
    return seen.live.data_directory or seen.folder.data


@contextlib.contextmanager
def wal_reader(order: Order, seen: Seen, known: choose.Known) -> t.Iterator[WalReader]:
    """What reads the archive's WAL, in a folder of its own beside the side directory."""
    tool = PgWaldump(bin_directory=seen.bin_directory, os_user=order.os_user)
    with scratch(seen.folder.path, order.os_user) as folder:
        yield WalReader(
            seen.driver,
            tool,
            layout=known.layout,
            data=_reference(seen),
            folder=folder,
            many_rmgrs=seen.version_num >= 150000,
            timeout=order.timeout,
        )


def flush(order: Order, world: World) -> None:
    session = world.connect(order.connection, os_user=order.os_user)
    try:
        facts.flush(session, world.clock, order.archive_wait)
    finally:
        session.close()


def _check_holes(target: Target, choice: Choice, known: choose.Known, located: Located | None, seen: Seen) -> list[str]:
    holes = choose.holes_after(known, choice.label, target.timeline)
    if not holes:
        return []
    before = known.layout.name(holes[0].timeline, known.layout.number(holes[0].first) - 1)
    stored = facts.stored_at(seen.driver, seen.stanza, before)
    return choose.check_holes(target, holes, located=located, layout=known.layout, stored_before=stored)


def check_room(choice: Choice, seen: Seen, segment_size: int) -> None:
    """Refuse a restore that the disk has no room for; what a restore finds there already counts as room."""
    needed = choice.bytes + MARGIN * segment_size
    free = free_bytes(seen.folder.path) + seen.side.bytes
    if free < needed:
        raise plan.refused(
            f"The restore needs {needed} bytes at {seen.folder.path}, and {free} are there.",
            "no_room",
            "Name a directory on a larger disk, or make room.",
        )


def check_port(seen: Seen) -> None:
    """Refuse a port at which somebody listens: the two would be taken for each other."""
    if seen.side.running:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", seen.port))
        except OSError as error:
            raise plan.refused(
                f"Port {seen.port} is in use on this host.", "port_in_use", "Give another port for the side cluster."
            ) from error
