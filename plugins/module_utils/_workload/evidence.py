# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the ledgers say about each operation, and its place in the operation's record. PRIVATE to the collection.

A record's ``clients`` then tells what the writers saw; what the engine's own probe saw stays under ``probe``.
"""

from __future__ import annotations

import dataclasses
import os
import pwd
import typing as t

from .._clock import parse_iso
from .._errors import HmsError
from .._files import dump_json, read_json, write_atomic
from .._postgres import Session
from .._record import list_records
from . import judge, ledger
from .ledger import Entry, Mark
from .timeline import Sampler, Waits, Window, measure

KILL = "kill"
"""The mark that says when an instance was killed."""
FELT = ("failover", "switchover")
"""Operations during which writers wait: their records get the ledgers' findings."""
MARGIN = 1.0
"""Seconds before and after an operation that its curve shows."""
SAMPLES = 2500
"""Points of a record's curve at most."""


@dataclasses.dataclass
class Operation:
    """An operation of which the ledgers are asked."""

    path: str
    record: dict[str, t.Any]
    window: Window
    origin: float
    """The record's start on the wall clock."""
    after: float
    """When the operation before it had ended: what was lost since then was lost by this one."""
    tally: judge.Tally
    sampler: Sampler

    def watch(self, entry: Entry, present: bool) -> None:
        """Take an entry into account if it belongs to this operation."""
        if self.window.holds(entry.sent) or self.window.holds(entry.answered):
            self.tally.count(entry, present)
        elif entry.outcome == ledger.ACKED and not present and self.after < entry.sent < self.window.since:
            self.tally.lose(entry)
        self.sampler.add(entry)


def open_records(paths: t.Sequence[str], marks: t.Sequence[Mark]) -> list[Operation]:
    """Records in the order in which their operations were."""
    operations: list[Operation] = []
    after = 0.0
    for path in sorted(paths, key=lambda path: _origin(_read(path))):
        operations.append(_operation(path, marks, after))
        after = operations[-1].window.until
    return operations


def records_since(directory: str, moment: float) -> list[str]:
    """The finished records of a folder whose operations were asked for after a moment."""
    found = []
    for identifier in list_records(directory):
        path = os.path.join(directory, identifier + ".json")
        if os.path.exists(path) and _origin(_read(path)) >= moment:
            found.append(path)
    return found


def _read(path: str) -> dict[str, t.Any]:
    record = read_json(path)
    if not isinstance(record, dict) or "asked" not in record:
        raise HmsError(f"{path} is not an operation's record.", reason="no_record", next_step="Name a file <id>.json.")
    return record


def _origin(record: t.Mapping[str, t.Any]) -> float:
    return parse_iso(str(record["asked"]["at"])).timestamp()


def _operation(path: str, marks: t.Sequence[Mark], after: float) -> Operation:
    """A record and the stretch of time it speaks of; a failover's begins with the kill."""
    record = _read(path)
    origin = _origin(record)
    ended = [float(step["ended"]) for step in record.get("steps", []) if step.get("ended") is not None]
    since, until = origin, origin + max(ended, default=0.0)
    kills = [mark.at for mark in marks if mark.name == KILL and after < mark.at <= until]
    if record.get("operation") == "failover" and kills:
        since = min(since, kills[-1])
    return Operation(
        path=path,
        record=record,
        window=Window(since, until),
        origin=origin,
        after=after,
        tally=judge.Tally(),
        sampler=Sampler(Window(since - MARGIN, until + MARGIN), limit=SAMPLES),
    )


def clients(operation: Operation, waits: Waits, settings: ledger.Settings) -> dict[str, t.Any]:
    """The value of a record's ``clients``."""
    stall: dict[str, float] | None = None
    if waits.stall and waits.stall.ended is not None:
        stall = {
            "started": round(waits.stall.started - operation.origin, 4),
            "ended": round(waits.stall.ended - operation.origin, 4),
        }
    tally = operation.tally
    return {
        "source": f"acknowledgement ledgers of {settings.writers} writers through PgBouncer",
        "samples": operation.sampler.samples(origin=operation.origin),
        "acknowledged": tally.acknowledged,
        "failed": tally.failed,
        "unknown": tally.unknown,
        "unknown_but_present": tally.unknown_but_present,
        "lost": tally.lost,
        "longest_stall_seconds": _rounded(waits.stall.seconds if waits.stall else None),
        "stall": stall,
        "longest_transaction_seconds": _rounded(waits.longest_transaction),
        "longest_writer_wait_seconds": _rounded(waits.longest_writer_wait),
    }


def merge(operation: Operation, found: dict[str, t.Any]) -> bool:
    """Put the ledgers' findings into the record; returns whether the file changed."""
    record = dict(operation.record)
    if "clients" in record and "probe" not in record:
        record["probe"] = record["clients"]
    record["clients"] = found
    status = os.stat(operation.path)  # the record stays its owner's
    owner = pwd.getpwuid(status.st_uid).pw_name
    return write_atomic(operation.path, dump_json(record), mode=status.st_mode & 0o777, owner=owner)


def examine(directory: str, session: Session, paths: t.Sequence[str]) -> dict[str, t.Any]:
    """Judge a run as a whole and for each of the operations; their records get the findings. Plain data."""
    settings, marks = ledger.read_settings(directory), ledger.read_marks(directory)
    operations = open_records(paths, marks)
    total = judge.Tally()
    watchers = [operation.watch for operation in operations]
    for source in ledger.sources(directory):
        rows = judge.stored_rows(session, source, settings.first_seq)
        judge.compare(ledger.read_ledger(directory, source), rows, total, *watchers)
    found = measure(ledger.merged(directory), [operation.window for operation in operations])
    verdict: dict[str, t.Any] = {"writers": settings.writers, **total.as_dict(), "operations": []}
    for operation, waits in zip(operations, found):
        seen = clients(operation, waits, settings)
        if operation.record.get("operation") in FELT:
            merge(operation, seen)
        verdict["operations"].append(_summary(operation, waits, seen))
    return verdict


def _summary(operation: Operation, waits: Waits, seen: dict[str, t.Any]) -> dict[str, t.Any]:
    """What a person wants to know of one operation; no samples."""
    lost_at = operation.tally.first_lost_at
    rpo = 0.0 if lost_at is None else max(0.0, operation.window.since - lost_at)
    return {
        "id": operation.record.get("id"),
        "operation": operation.record.get("operation"),
        "status": (operation.record.get("outcome") or {}).get("status"),
        "new_primary": (operation.record.get("plan") or {}).get("new_primary"),
        "stalled_at": waits.stall.started if waits.stall else None,
        "resumed_at": waits.stall.ended if waits.stall else None,
        "rpo_seconds": round(rpo, 3),
        "record": operation.path,
        "report": os.path.splitext(operation.path)[0] + ".html",
        **{key: value for key, value in seen.items() if key not in ("samples", "stall", "source")},
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
