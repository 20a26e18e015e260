# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which backup to start from, and whether the WAL leads from there to the target. Pure. PRIVATE."""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from .._artifact import pgbackrest_wal as wal
from .._artifact.pgbackrest_catalog import moment
from .._clock import iso
from .._errors import Refused
from .._postgres import parse_lsn
from .._tools.pgbackrest import BackupSet, Generation, Stanza
from .model import Choice, Located, Target
from .target import moment_of


@dataclasses.dataclass(frozen=True)
class Known:
    """The repository as far as the choice asks: the newest generation's backups and its archive."""

    generation: Generation
    backups: tuple[BackupSet, ...]
    archive: wal.Archive
    layout: wal.Layout

    @property
    def newest(self) -> datetime.datetime | None:
        """When the newest segment was stored, to the second: nothing later can be in it."""
        return moment(max(self.archive.newest.values()) + 1) if self.archive.newest else None


def refused(message: str, reason: str, next_step: str, **details: t.Any) -> Refused:
    """A target that can't be reached."""
    return Refused(
        message, reason=reason, phase="choose", state="Nothing was touched.", next_step=next_step, details=details
    )


def newest_generation(stanza: Stanza) -> Generation:
    """The cluster as it is now in the repository."""
    if not stanza.generations or not stanza.backups:
        raise refused(
            f"The repository of {stanza.name} holds no backup.", "no_backup", "Make one: playbooks/backup.yml."
        )
    return max(stanza.generations, key=lambda generation: generation.database_id)


def along(archive: wal.Archive, timeline: int) -> wal.Archive:
    """The archive as it would be had nothing come after `timeline`; all of it for 0."""
    if not timeline:
        return archive
    kept = {timeline, *(left for left, _lsn in wal.parse_history(archive.histories.get(timeline, "")))}
    return wal.Archive(
        runs={number: runs for number, runs in archive.runs.items() if number in kept},
        histories={number: text for number, text in archive.histories.items() if number in kept},
        newest={number: stored for number, stored in archive.newest.items() if number in kept},
        flaws=archive.flaws,
    )


def _end(backup: BackupSet) -> str:
    """From when on it can be used. Its end is told in whole seconds, so a second is added."""
    return iso(moment(backup.stop + 1))


def _ends_before(backup: BackupSet, target: Target, located: Located | None) -> bool:
    """Whether a backup was complete before the target."""
    if target.kind == "time":
        return moment(backup.stop + 1) <= moment_of(target)
    if target.kind == "lsn":
        return parse_lsn(backup.lsn_stop) <= parse_lsn(target.value)
    return located is None or parse_lsn(backup.lsn_stop) <= located.lsn


def usable(known: Known, timeline: int) -> list[BackupSet]:
    """The backups from which recovery along a timeline can start, oldest first."""
    archive = along(known.archive, timeline)
    found = []
    for backup in sorted(known.backups, key=lambda one: one.stop):
        if timeline and backup.wal_stop and int(backup.wal_stop[:8], 16) > timeline:
            continue
        if not (backup.wal_start and backup.lsn_stop):
            continue
        verdict = wal.judge(archive, [backup], layout=known.layout)
        if verdict.windows:
            found.append(backup)
    return found


def holes_after(known: Known, label: str, timeline: int) -> tuple[wal.Hole, ...]:
    """What the archive lacks between a backup and its end."""
    backup = next(one for one in known.backups if one.label == label)
    return wal.judge(along(known.archive, timeline), [backup], layout=known.layout).holes


def choose(target: Target, known: Known, *, located: Located | None, label: str = "") -> Choice:
    """The newest backup that was complete before the target; raises `Refused` where there is none."""
    candidates = usable(known, target.timeline)
    if not candidates:
        line = f" along timeline {target.timeline}" if target.timeline else ""
        raise refused(
            f"No backup in the repository can be recovered from{line}: each lacks WAL or is of another timeline.",
            "no_backup",
            "Look at playbooks/backup_verify.yml; name another timeline if an abandoned one is meant.",
        )
    if label:
        candidates = [backup for backup in candidates if backup.label == label]
        if not candidates:
            raise refused(f"There is no backup {label} to start from.", "no_such_backup", "See playbooks/backups.yml.")
    before = [backup for backup in candidates if _ends_before(backup, target, located)]
    if not before:
        first = candidates[0]
        raise refused(
            f"{target.describe()} is before the end of the oldest backup that can be used, {first.label}: "
            f"the earliest possible is {_end(first)} (LSN {first.lsn_stop}).",
            "before_backup",
            "Choose a later target; what was before can only come from a dump.",
            earliest=_end(first),
            earliest_lsn=first.lsn_stop,
        )
    chosen = before[-1]
    warnings = []
    if chosen.error:
        warnings.append(f"{chosen.label} holds pages that were damaged already in the live cluster.")
    return Choice(chosen.label, chosen.bytes, chosen.stop, tuple(warnings))


def check_holes(
    target: Target,
    holes: t.Sequence[wal.Hole],
    *,
    located: Located | None,
    layout: wal.Layout,
    stored_before: datetime.datetime | None,
) -> list[str]:
    """Refuse a target behind a hole; the warnings where it can't be told yet.

    `stored_before` is when the last segment before the first hole was stored: nothing in it is later.
    """
    if not holes or target.kind == "immediate":
        return []
    hole = holes[0]
    begin = layout.number(hole.first) * layout.size
    at = parse_lsn(target.value) if target.kind == "lsn" else (located.lsn if located else None)
    behind = at is not None and at >= begin
    if target.kind == "time" and stored_before is not None:
        behind = moment_of(target) > stored_before
    if behind:
        newest = f" The newest moment that can be reached is before {iso(stored_before)}." if stored_before else ""
        raise refused(
            f"{hole.describe()}, and {target.describe()} is behind it.{newest}",
            "wal_missing",
            "Bring the segment back from another repository (repo2), or choose an earlier target or a later backup.",
            segment=hole.first,
        )
    return [f"{hole.describe()}; recovery stops there if the target isn't before it."]


def check_future(target: Target, newest: datetime.datetime | None, now: datetime.datetime, *, can_flush: bool) -> None:
    """Refuse a moment that has not come, or whose WAL is nowhere."""
    if target.kind != "time":
        return
    wanted = moment_of(target)
    limit = now if can_flush else min(now, newest or now)
    if wanted > limit:
        source = "it is now" if can_flush else "the newest WAL in the archive was stored at"
        raise refused(
            f"{target.describe()} is in the future: {source} {iso(limit)}.",
            "in_the_future",
            f"Choose a target up to {iso(limit)}.",
            latest=iso(limit),
        )


def needs_flush(target: Target, newest: datetime.datetime | None, archived_to: int) -> bool:
    """Whether WAL up to the target may not be in the archive yet.

    For a time a transaction later than it must be there too: recovery knows that it is at its target by that only.
    """
    if target.kind == "immediate":
        return False
    if target.kind == "lsn":
        return parse_lsn(target.value) >= archived_to
    if target.kind == "time" and newest is not None:
        return moment_of(target) > newest - datetime.timedelta(hours=1)
    return True


def archived_to(archive: wal.Archive, layout: wal.Layout) -> int:
    """The position up to which the newest timeline is in the archive."""
    if not archive.runs:
        return 0
    runs = archive.runs[max(archive.runs)]
    return (runs[-1].last + 1) * layout.size if runs else 0
