# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The search for the transaction that did the harm: from a table and a time to candidates. PRIVATE."""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from .._artifact.pgbackrest_catalog import moment
from .._errors import Refused
from .._module import Result
from .._postgres import Session
from .._tools.pgbackrest import PgBackRest, Stanza
from . import candidates, decide, facts
from .changes import RMGRS, RMGRS_TO_FOLLOW, Collector
from .choose import Known
from .look import quoted
from .model import Order
from .see import World, see
from .stream import Leg, WalReader, route
from .target import parse_time

DEFAULT_WINDOW = datetime.timedelta(hours=1)
SLACK = datetime.timedelta(seconds=60)
"""Commits are in the log nearly, not strictly, in the order of their times."""

_TABLE = """
SELECT (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()),
       pg_catalog.to_regclass(%s)::oid
"""
_FILES = """
SELECT relid::oid, pg_catalog.pg_relation_filenode(relid) FROM (
    SELECT relid FROM pg_catalog.pg_partition_tree(%s::oid::regclass)
    UNION SELECT %s::oid::regclass) AS parts
"""
_LOCAL = "SELECT pg_catalog.to_char(%s::timestamptz, 'YYYY-MM-DD HH24:MI:SS.USTZH:TZM')"


@dataclasses.dataclass(frozen=True)
class Question:
    """A table and a time. Times are moments with a zone."""

    table: str
    since: datetime.datetime
    until: datetime.datetime


def question(table: str, since: str, until: str, now: datetime.datetime) -> Question:
    """The question out of what was typed; by default the last hour."""
    end = parse_time(until, "until") if until else now
    begin = parse_time(since, "since") if since else end - DEFAULT_WINDOW
    if begin >= end:
        raise Refused(
            f"since ({begin:%Y-%m-%d %H:%M:%S%z}) is not before until ({end:%Y-%m-%d %H:%M:%S%z}).",
            reason="bad_window",
            phase="search",
            state="Nothing was touched.",
            next_step="Correct the window.",
        )
    return Question(table, begin, end)


def stamp(when: datetime.datetime) -> str:
    """A moment in the form that commits are told in, so that texts compare as times do."""
    return f"{when.astimezone(datetime.timezone.utc):%Y-%m-%dT%H:%M:%S.%f}Z"


def legs_since(driver: PgBackRest, stanza: Stanza, known: Known, since: datetime.datetime) -> list[Leg]:
    """The segments that may hold what was committed after `since`: nothing is in one that was stored before."""
    oldest = min(backup.wal_start for backup in known.backups)
    wanted: list[Leg] = []
    for leg in reversed(route(known, 0, oldest)):
        first = _first_stored_after(driver, stanza, known, leg, since)
        if first <= leg.last:
            wanted.insert(0, Leg(leg.timeline, first, leg.last))
        if first > leg.first:
            break
    return wanted


def _first_stored_after(driver: PgBackRest, stanza: Stanza, known: Known, leg: Leg, since: datetime.datetime) -> int:
    """The number of the first segment of a leg that was stored at `since` or later."""
    listed: dict[str, dict[str, int]] = {}
    number = leg.last
    while number >= leg.first:
        name = known.layout.name(leg.timeline, number)
        folder = name[:16]
        if folder not in listed:
            entries = driver.repo_ls(f"{facts.archive_path(stanza)}/{folder}")
            listed = {folder: {entry.name[:24]: entry.time for entry in entries}}
        stored = listed[folder].get(name)
        if stored is not None and moment(stored + 1) < since:
            return number + 1
        number -= 1
    return leg.first


def collect(collector: Collector, reader: WalReader, legs: t.Sequence[Leg], until: datetime.datetime) -> None:
    """Count until the window is over, then only follow files to the end of the log."""
    limit = stamp(until + SLACK)
    stopped: tuple[int, int] | None = None
    for timeline, record in reader.records(legs, RMGRS):
        collector.add(timeline, record)
        if collector.last_time > limit:
            stopped = (timeline, record.lsn)
            break
    if stopped is None:
        return
    for timeline, record in reader.records(reader.legs_from(legs, *stopped), RMGRS_TO_FOLLOW):
        if (timeline, record.lsn) > stopped:
            collector.add(timeline, record)


def files_of(session: Session, table: str) -> tuple[int, dict[int, int | None]]:
    """The database's OID and the files of a table and its partitions by their OIDs; none for one that isn't there."""
    row = session.row(_TABLE, [quoted(table)])
    database, relation = row if row else (0, None)
    if relation is None:
        return int(database), {}
    return int(database), {int(oid): node for oid, node in session.rows(_FILES, [relation, relation])}


def search(order: Order, asked: t.Mapping[str, str], world: World, *, flush: bool) -> Result:
    """The module's work for ``state: candidates``."""
    found, warnings, segments = find(order, asked, world, flush=flush)
    values = {
        "candidates": [one.as_dict(number) for number, one in enumerate(found, 1)],
        "lines": [f"{number}: {candidates.describe(one)}" for number, one in enumerate(found, 1)],
        "segments_read": segments,
    }
    return Result(changed=False, values=values, warnings=warnings)


def find(
    order: Order, asked: t.Mapping[str, str], world: World, *, flush: bool
) -> tuple[list[candidates.Candidate], list[str], int]:
    """The candidates, what to know about them, and how many segments were read."""
    seen = see(order, world)
    if not seen.live.running:
        raise Refused(
            "The live server doesn't answer, and only it knows which file is the table's.",
            reason="connection_failed",
            phase="search",
            state="Nothing was touched.",
            next_step="Start it, or give the target as a time.",
        )
    now = seen.live.now or world.clock.now()
    wanted = question(asked["table"], asked.get("since", ""), asked.get("until", ""), now)
    if flush and seen.live.can_flush and order.flush_wal:
        decide.flush(order, world)
    session = world.connect(dataclasses.replace(order.connection, dbname=order.database), os_user=order.os_user)
    try:
        database, nodes = files_of(session, wanted.table)
        known = facts.read_known(seen.driver, seen.stanza, seen.live.segment_size)
        collector = Collector(database, since=stamp(wanted.since), until=stamp(wanted.until))
        legs = legs_since(seen.driver, seen.stanza, known, wanted.since)
        with decide.wal_reader(order, seen, known) as reader:
            collect(collector, reader, legs, wanted.until)
            segments = reader.segments
        found = _judge(nodes, collector)
        found = [dataclasses.replace(one, local=str(session.value(_LOCAL, [one.time]))) for one in found]
    finally:
        session.close()
    return found, _warnings(wanted, nodes, legs), segments


def _judge(nodes: t.Mapping[int, int | None], collector: Collector) -> list[candidates.Candidate]:
    if not nodes:
        return candidates.of_lost_table(collector)
    return candidates.of_table([node for node in nodes.values() if node], set(nodes), collector)


def _warnings(wanted: Question, nodes: t.Mapping[int, int | None], legs: t.Sequence[Leg]) -> list[str]:
    told = []
    if not nodes:
        told.append(
            f"There is no table {wanted.table} now, and the WAL knows files, not names: these are all that "
            "dropped files. Recover to just before one and see whether the table is there."
        )
    gaps = [
        f"{second.timeline:08X}"
        for one, second in zip(legs, legs[1:])
        if one.timeline == second.timeline and second.first > one.last + 1
    ]
    if gaps:
        told.append("WAL segments are missing from the archive within the window: what was in them is not shown.")
    return told
