# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a pgBackRest repository can do for a standby: which backup it can begin with, and whether WAL lets it go on.

A standby gets on when no WAL is missing between where it begins and where its upstream can stream from. `choose` and
`gap` are pure but for the reader of the archive that they are given. PRIVATE.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .._artifact import pgbackrest_wal as wal
from .._artifact.pgbackrest_catalog import TYPES, moment, verification_of
from .._clock import iso
from .._errors import HmsError, Refused
from .._postgres import format_lsn
from .._tools.pgbackrest import BackupSet, PgBackRest, Stanza
from .._tools.pgbackrest_standby import PgBackRestStandby
from .standby_model import ArchiveFacts, Backup, LocalFacts, StandbyWish, UpstreamFacts

_RESERVED = ("reserved", "extended")
_UNTOUCHED = "Nothing was touched."
_MAKE_ONE = "Make one on the primary: a job of type full with engine pgbackrest (docs/backup.md)."

ArchiveReader = t.Callable[[str, str], wal.Archive]
"""The archive of a generation, from a segment on: (archive id, oldest segment that counts)."""


def reader(driver: PgBackRest, stanza: Stanza, layout: wal.Layout) -> ArchiveReader:
    """Reads the names in the repository."""
    return lambda archive_id, since: wal.read_archive(
        driver, f"archive/{stanza.name}/{archive_id}", layout=layout, since=since
    )


def _refused(message: str, reason: str, next_step: str) -> Refused:
    return Refused(message, reason=reason, phase="look", state=_UNTOUCHED, next_step=next_step)


# -- from a point on the timelines to what the upstream has -----------------------------------------------------------


def obstacle(point: BackupSet, archive: wal.Archive, upstream: UpstreamFacts, *, slot: str) -> Refused | None:
    """Why recovery from `point` by this archive never meets the upstream; None where it does."""
    layout = wal.check_size(upstream.segment_size)
    timeline = int(point.wal_stop[:8], 16)
    foreign = sorted(number for number in archive.histories if number > upstream.timeline)
    if foreign:
        return _refused(
            f"The archive knows of timeline {foreign[-1]}, and {upstream.name} is on timeline {upstream.timeline}: "
            "a standby that reads the archive would follow the other one and never stream.",
            "foreign_timeline",
            "Find out who archived it: a server that was promoted and is gone, or a test restore that was "
            "started without --archive-mode=off. docs/standbys.md says how to go on.",
        )
    if timeline != upstream.timeline and upstream.timeline not in archive.histories:
        return _refused(
            f"{point.label} is of timeline {timeline}, {upstream.name} is on timeline {upstream.timeline}, and "
            f"{upstream.timeline:08X}.history is not in the archive.",
            "not_an_ancestor",
            "After a promotion it is archived within moments; then run again. Else make a new full backup.",
        )
    known = {number: runs for number, runs in archive.runs.items() if number <= upstream.timeline}
    judged = wal.judge(dataclasses.replace(archive, runs=known), [point], layout=layout)
    if point.label in judged.incomplete:
        return _missing(point, judged.incomplete[point.label])
    if not judged.windows:
        return _refused(
            f"The timeline of {upstream.name}, {upstream.timeline}, left timeline {timeline} before {point.label} "
            f"ended ({point.lsn_stop}).",
            "not_an_ancestor",
            "Make a new full backup, or use an older one by hand.",
        )
    covered = _covered(judged, archive, upstream, layout)
    if covered + 1 >= layout.at(_kept_from(upstream, slot)):
        return None
    if not judged.holes and upstream.oldest_segment is not None and covered + 1 >= upstream.oldest_segment:
        return None  # the archiver is behind, and what it hasn't stored yet is never removed
    first = layout.name(upstream.timeline, covered + 1)
    holes = "; ".join(hole.describe() for hole in judged.holes) or f"the archive ends before WAL segment {first}"
    return _missing(point, f"{holes}, and {upstream.name} doesn't have it any more")


def _missing(point: BackupSet, what: str) -> Refused:
    return _refused(
        f"WAL is missing after {point.label}: {what}.",
        "wal_missing",
        "Make a new full backup, and see with playbooks/backup_verify.yml what the archive lacks.",
    )


def _covered(judged: wal.Continuity, archive: wal.Archive, upstream: UpstreamFacts, layout: wal.Layout) -> int:
    """The number of the last segment that recovery gets from the archive without a break."""
    last = layout.number(judged.windows[0].last)
    if judged.holes or archive.runs.get(upstream.timeline):
        return last
    # nothing was archived since the last promotion: the timelines before it count up to where they were left
    left = [lsn for _timeline, lsn in wal.parse_history(archive.histories.get(upstream.timeline, ""))]
    return max(last, layout.at(left[-1]) - 1) if left else last


def _kept_from(upstream: UpstreamFacts, slot: str) -> int:
    """From where on the upstream certainly keeps WAL for this standby, once it has its slot."""
    found = upstream.slots.get(slot)
    if found is not None and found.wal_status in _RESERVED and found.restart_lsn:
        return found.restart_lsn
    return upstream.redo_lsn


# -- a backup to begin with -------------------------------------------------------------------------------------------


def choose(stanza: Stanza, upstream: UpstreamFacts, read: ArchiveReader, *, slot: str, place: str) -> Backup:
    """The newest backup that a standby of `upstream` can be made of; raises `Refused` where there is none."""
    ours = {
        generation.database_id: generation.archive_id
        for generation in stanza.generations
        if generation.system_identifier == upstream.system_identifier
    }
    if stanza.generations and not ours:
        others = ", ".join(sorted({generation.system_identifier for generation in stanza.generations}))
        raise _refused(
            f"{place} holds the cluster {others}, and {upstream.name} is of another one: {upstream.system_identifier}.",
            "foreign_stanza",
            "Name the stanza of this cluster, or correct the repository in pgBackRest's configuration.",
        )
    candidates = [backup for backup in stanza.backups if backup.database_id in ours]
    if not candidates:
        raise _refused(f"There is no backup in {place}.", "no_backup", _MAKE_ONE)
    passed_over: list[Refused] = []
    for backup in sorted(candidates, key=lambda found: found.stop, reverse=True):
        problem = _unfit(backup) or obstacle(
            backup, read(ours[backup.database_id], backup.wal_start), upstream, slot=slot
        )
        if problem is None:
            return _chosen(backup, place, passed_over)
        passed_over.append(problem)
    first = passed_over[0]
    more = " No older backup will do either." if len(passed_over) > 1 else ""
    raise _refused(first.message + more, first.reason, first.next_step)


def _unfit(backup: BackupSet) -> Refused | None:
    """What speaks against a backup by itself."""
    verification = verification_of(backup)
    problem = ""
    if backup.error:
        problem = "pages of the data directory had wrong checksums when it was made"
    elif not (backup.wal_start and backup.wal_stop and backup.lsn_stop):
        problem = "it does not say which WAL it needs"
    elif verification is not None and not verification.ok:
        problem = f"its verification failed: {'; '.join(verification.problems) or 'no reason given'}"
    return _refused(f"{backup.label} is of no use: {problem}.", "bad_backup", _MAKE_ONE) if problem else None


def _chosen(backup: BackupSet, place: str, passed_over: t.Sequence[Refused]) -> Backup:
    return Backup(
        label=backup.label,
        type=TYPES.get(backup.type, backup.type),
        ended=iso(moment(backup.stop)),
        bytes=backup.bytes,
        fetch_bytes=backup.chain_bytes,
        place=place,
        notes=tuple(f"A newer backup was passed over: {problem.message}" for problem in passed_over),
    )


# -- a standby that fell behind ---------------------------------------------------------------------------------------


def gap(stanza: Stanza, upstream: UpstreamFacts, local: LocalFacts, read: ArchiveReader, *, slot: str) -> str:
    """Why this standby can't catch up from the archive, '' where it can. It is judged like a backup that ends there."""
    layout = wal.check_size(upstream.segment_size)
    here = layout.at(local.member.lsn)
    if upstream.oldest_segment is not None and here >= upstream.oldest_segment:
        return ""
    name = layout.name(local.member.timeline, here)
    for generation in stanza.generations:
        if generation.system_identifier == upstream.system_identifier:
            point = _as_point(local, name)
            problem = obstacle(point, read(generation.archive_id, name), upstream, slot=slot)
            return problem.message if problem else ""
    return f"the stanza {stanza.name} is of another cluster"


def _as_point(local: LocalFacts, segment: str) -> BackupSet:
    return BackupSet(
        label=f"the position of {local.member.name}",
        type="",
        start=0,
        stop=0,
        wal_start=segment,
        wal_stop=segment,
        lsn_start=format_lsn(local.member.lsn),
        lsn_stop=format_lsn(local.member.lsn),
        prior="",
        reference=(),
        database_id=0,
        bytes=0,
        copied_bytes=0,
        stored_bytes=0,
        chain_bytes=0,
        error=False,
        version="",
        annotations={},
    )


# -- looking ----------------------------------------------------------------------------------------------------------


def look(
    driver: PgBackRestStandby,
    wish: StandbyWish,
    local: LocalFacts,
    upstream: UpstreamFacts,
    *,
    for_copy: bool,
    for_catching_up: bool,
) -> ArchiveFacts:
    """Read the repository as far as it matters; what speaks against it is kept, for the plan to say."""
    try:
        stanza = driver.info()
        read = reader(driver, stanza, wal.check_size(upstream.segment_size))
        missing = gap(stanza, upstream, local, read, slot=wish.slot) if for_catching_up else ""
    except HmsError as error:
        return ArchiveFacts(refusal=error, gap=error.message)
    if not for_copy:
        return ArchiveFacts(gap=missing)
    try:
        backup = choose(stanza, upstream, read, slot=wish.slot, place=driver.place)
        tablespaces = driver.tablespaces(backup.label)
        if tablespaces:
            raise _refused(
                f"{backup.label} holds tablespaces of its own ({', '.join(tablespaces)}); "
                "copies with tablespaces are not made here.",
                "tablespaces",
                "Restore it with pgbackrest --tablespace-map by hand; an existing standby is followed up as it is.",
            )
    except HmsError as error:
        return ArchiveFacts(refusal=error, gap=missing)
    return ArchiveFacts(backup=backup, gap=missing)
