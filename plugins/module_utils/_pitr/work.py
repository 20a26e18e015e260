# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Point-in-time recovery into a side cluster, from the look to the record. PRIVATE."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing as t

from .._artifact.pgbackrest_restore import end_workers
from .._artifact.recovery_log import stopped_at
from .._errors import HmsError
from .._module import Result
from . import choose, facts, plan, side
from .decide import Decided, decide, stands
from .look import Questions, look
from .model import Marker, Order, Position, Side, Target
from .record import PitrRecord
from .recover import Recovery, missing_segment
from .see import Seen, World, alone, make_server, see
from .server import Server


def recovered(order: Order, target: Target, questions: Questions, world: World, *, check_mode: bool) -> Result:
    """Have the side cluster stand at the target, and look at it."""
    plan.check_confirm(order, check_mode=check_mode)
    if check_mode:
        seen = see(order, world)
        decided = decide(order, target, seen, world, check_mode=True)
        return _planned(target, seen, decided)
    with alone(order, world.clock):
        seen = see(order, world)
        if seen.side.marker is not None and stands(seen, target, order):
            return _unchanged(order, target, seen, questions, world)
        parameters = {"state": "recovered", "target": target.describe(), "directory": seen.folder.path}
        record = PitrRecord(order, host=world.host, parameters=parameters, clock=world.clock)
        try:
            return _recover(order, target, seen, questions, world, record)
        except HmsError as error:
            record.fail(error)
            error.details.setdefault("record", record.path)
            raise
        except BaseException as error:
            record.finish("failed", f"It was interrupted: {type(error).__name__}.", ["Run again: it goes on."])
            raise


def _recover(
    order: Order, target: Target, seen: Seen, questions: Questions, world: World, record: PitrRecord
) -> Result:
    deadline = world.clock.monotonic() + order.timeout
    decided = record.step(
        "look",
        "Choose the backup and the way",
        lambda: decide(order, target, seen, world, check_mode=False),
        lambda found: "; ".join(map(str, found.actions)) or "nothing to do",
    )
    record.put(plan=[str(action) for action in decided.actions], backup=decided.choice.label)
    server = make_server(order, seen.folder, seen.bin_directory, world)(seen.port, seen.version_num)
    recovery = Recovery(
        order=order,
        live=seen.live,
        folder=seen.folder,
        server=server,
        driver=seen.driver,
        bin_directory=seen.bin_directory,
        runner=world.runner,
        clock=world.clock,
        record=record,
        system_identifier=seen.system_identifier,
        deadline=deadline,
    )
    marker = Marker(
        cluster=order.cluster,
        system_identifier=seen.system_identifier,
        label=seen.side.marker.label if seen.side.marker else decided.choice.label,
        target=target,
        stage="restoring",
        version_num=seen.version_num,
        port=seen.port,
        record=record.identifier,
    )
    try:
        position = recovery.apply(decided.actions, marker, decided.choice)
    except HmsError as error:
        raise _explained(error, marker, decided) from error
    answers = record.step(
        "inspect", "Look at what is there", lambda: ask(server, order, questions), lambda _found: "asked"
    )
    record.put(reached=position.as_dict())
    record.finish("done", f"The side cluster is paused at {target.describe()}.")
    values = _made(order, target, seen, decided, position, record, answers)
    return Result(
        changed=True,
        values=values,
        before=_told(seen.side),
        after=_tell_target(target, seen.folder),
        warnings=decided.warnings,
    )


def _made(
    order: Order,
    target: Target,
    seen: Seen,
    decided: Decided,
    position: Position,
    record: PitrRecord,
    answers: t.Mapping[str, t.Any],
) -> dict[str, t.Any]:
    """The result of a recovery as plain data."""
    return {
        **_place(seen.folder, seen.port, order),
        "target": dataclasses.asdict(target),
        "backup": decided.choice.label,
        "plan": [str(action) for action in decided.actions],
        "reached": {**position.as_dict(), "log": stopped_at(side.read_log(seen.folder))},
        "located": decided.located.as_dict() if decided.located else None,
        "found": answers,
        "seconds": record.seconds,
        "record": record.path,
    }


def _explained(error: HmsError, marker: Marker, decided: Decided) -> HmsError:
    """Name the segment where the WAL did not end but has a hole."""
    if error.reason != "target_not_reached" or decided.known is None:
        return error
    holes = choose.holes_after(decided.known, decided.choice.label, marker.target.timeline)
    return missing_segment(error, holes[0].first, holes[0].describe()) if holes else error


def ask(server: Server, order: Order, questions: Questions) -> dict[str, t.Any]:
    """Look at the side cluster."""
    if not (questions.count or questions.newest or questions.queries):
        return {"tables": {}, "newest": {}, "queries": []}
    session = server.session(order.database, timeout=min(order.timeout, 600.0))
    try:
        return look(session, questions)
    finally:
        session.close()


def _place(folder: side.Folder, port: int, order: Order) -> dict[str, t.Any]:
    return {
        "directory": folder.path,
        "port": port,
        "socket_directory": folder.sockets,
        "psql": f"psql -h {folder.sockets} -p {port} -d {order.database}",
    }


def _told(found: Side) -> dict[str, t.Any]:
    """A side cluster for ``--diff``."""
    if found.marker is None:
        return {"directory": found.directory, "state": found.state}
    return {"directory": found.directory, "target": found.marker.target.describe(), "stage": found.marker.stage}


def _tell_target(target: Target, folder: side.Folder) -> dict[str, t.Any]:
    return {"directory": folder.path, "target": target.describe(), "stage": "recovered"}


def _unchanged(order: Order, target: Target, seen: Seen, questions: Questions, world: World) -> Result:
    server = make_server(order, seen.folder, seen.bin_directory, world)(seen.port, seen.version_num)
    position = seen.side.position.as_dict() if seen.side.position else {}
    values = {
        **_place(seen.folder, seen.port, order),
        "target": dataclasses.asdict(target),
        "backup": seen.side.marker.label if seen.side.marker else "",
        "plan": [],
        "reached": {**(seen.side.marker.reached if seen.side.marker else {}), **position},
        "located": None,
        "found": ask(server, order, questions),
        "seconds": {},
        "record": "",
    }
    return Result(changed=False, values=values, before=_told(seen.side), after=_tell_target(target, seen.folder))


def _planned(target: Target, seen: Seen, decided: Decided) -> Result:
    values = {
        "directory": seen.folder.path,
        "port": seen.port,
        "target": dataclasses.asdict(target),
        "backup": decided.choice.label,
        "plan": [str(action) for action in decided.actions],
        "located": decided.located.as_dict() if decided.located else None,
    }
    return Result(
        changed=bool(decided.actions),
        values=values,
        before=_told(seen.side),
        after=_tell_target(target, seen.folder),
        warnings=decided.warnings,
    )


def absent(order: Order, world: World, *, check_mode: bool) -> Result:
    """Stop the side cluster and remove its directory; only what carries our marker."""
    with contextlib.ExitStack() as held:
        if not check_mode:
            held.enter_context(alone(order, world.clock))
        live = facts.read_live(order, world.connect)
        folder = side.Folder(facts.side_directory(order, live))
        if not os.path.lexists(folder.path):
            return Result(changed=False, values={"directory": folder.path}, before=None, after=None)
        marker = side.read_marker(folder)
        if marker is None and os.path.isdir(folder.path) and not os.listdir(folder.path):
            return Result(changed=False, values={"directory": folder.path})
        found = Side(folder.path, "ours" if marker else "foreign", marker)
        plan.check_ours(found, order, live.system_identifier)
        left: list[str] = []
        if marker is not None and not check_mode:
            bin_directory = facts.programs(marker.version_num // 10000)
            make_server(order, folder, bin_directory, world)(marker.port, marker.version_num).stop(mode="immediate")
            end_workers(folder.data)
            left = side.remove(folder)
        warnings = [f"{folder.path} holds what isn't ours and was left: {', '.join(left)}."] if left else []
        return Result(
            changed=True,
            values={"directory": folder.path},
            before=_told(found),
            after={"directory": folder.path, "state": "absent"},
            warnings=warnings,
        )
