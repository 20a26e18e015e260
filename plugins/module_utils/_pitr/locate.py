# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where in the WAL a transaction or a restore point is: the backup to start from follows from it. PRIVATE."""

from __future__ import annotations

import re
import typing as t

from .._errors import Refused
from .._tools.pg_waldump import WalRecord
from .choose import Known, usable
from .model import Located, Target
from .stream import Leg, WalReader, route
from .transactions import parse_end

_NEVER = re.compile(r"(?!)")
_POINT = re.compile(r"RESTORE_POINT (?P<name>.*)$")


def intervals(known: Known, target: Target) -> list[list[Leg]]:
    """The archive from backup to backup, the newest first: what is looked for is most often young."""
    starts = sorted({backup.wal_start for backup in usable(known, target.timeline)})
    found: list[list[Leg]] = []
    until: tuple[int, int] | None = None
    for start in reversed(starts):
        legs = []
        for leg in route(known, target.timeline, start):
            last = leg.last if until is None or leg.timeline < until[0] else min(leg.last, until[1])
            if (until is None or leg.timeline <= until[0]) and last >= leg.first:
                legs.append(Leg(leg.timeline, leg.first, last))
        found.append(legs)
        until = (int(start[:8], 16), known.layout.number(start))
    return found


def _match(record: WalRecord, target: Target) -> tuple[bool, str]:
    """Whether a record is the one that is looked for, and its time where it has one."""
    if target.kind == "name":
        # the XLOG record's own words
        point = _POINT.match(record.description)
        return (point is not None and point["name"] == target.value), ""
    ended = parse_end(record.xid, record.description)
    if ended is None:
        return False, ""
    wanted = int(target.value)
    if wanted in ended.subxacts:
        raise Refused(
            f"{wanted} is a part (subtransaction) of transaction {ended.xid}.",
            reason="subtransaction",
            phase="choose",
            state="Nothing was touched.",
            next_step=f"Give target_xid={ended.xid}.",
        )
    return ended.xid == wanted, ended.time


def locate(target: Target, known: Known, reader: WalReader) -> Located:
    """Find it; raises `Refused` where the archive doesn't hold it."""
    rmgrs: t.Sequence[str] = ("XLOG",) if target.kind == "name" else ("Standby", "Transaction")
    locked = re.compile(rf"LOCK .*\bxid {target.value} db ") if target.kind == "xid" else _NEVER
    for legs in intervals(known, target):
        first = 0
        for timeline, record in reader.records(legs, rmgrs):
            if not first and locked.match(record.description):
                first = record.lsn
            hit, time = _match(record, target)
            if hit:
                return Located(record.lsn, timeline, time, first)
    raise Refused(
        f"{target.describe()} is nowhere in the archive since the oldest backup that can be used.",
        reason="not_found",
        phase="choose",
        state="Nothing was touched.",
        next_step="See the name or the number; what is young is found once its segment was archived.",
    )
