# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is proven about a pgBackRest repository. PRIVATE to the collection.

Three witnesses, none of which sees all: pgBackRest's `verify` reads every file and compares its checksum (and ends
with 0 whatever it finds), its catalog knows of pages that were damaged already in the data directory, and the names
in the archive tell whether WAL is missing.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from .._clock import Clock, iso
from .._tools.pgbackrest import BackupSet, PgBackRest, Stanza
from . import pgbackrest_wal as wal
from .manifest import Verification
from .pgbackrest_catalog import NOTE_VERIFICATION, note_of

ONE_BACKUP_SINCE = (2, 55)
"""From this version on `verify` can be asked about one backup."""
ARCHIVE = "archive"

_STATUS = re.compile(r"^status: (?P<status>\w+)", re.MULTILINE)
_WAL = re.compile(
    r"^  archiveId: (?P<id>\S+), total WAL checked: (?P<checked>\d+), total valid WAL: (?P<valid>\d+)", re.M
)
_BACKUP = re.compile(
    r"^  backup: (?P<label>\S+), status: (?P<status>[\w -]+), "
    r"total files checked: (?P<checked>\d+), total valid files: (?P<valid>\d+)",
    re.MULTILINE,
)
_NAMED = re.compile(
    r"^(?:INFO|WARN|ERROR): +(?P<text>(?:invalid|missing|unable|no |duplicate|file |path ).*)$", re.MULTILINE
)
_PATH = re.compile(r"[^\s'\":]+/[^\s'\":]+")
_NAMED_KEPT = 20


@dataclasses.dataclass(frozen=True)
class Checked:
    """What `verify` said of one backup."""

    status: str
    files: int
    valid: int

    @property
    def ok(self) -> bool:
        """Whether every file of it is as it was stored."""
        return self.status == "valid" and self.files == self.valid


@dataclasses.dataclass(frozen=True)
class Parsed:
    """The report of `verify`, and what its log names."""

    status: str
    backups: t.Mapping[str, Checked]
    wal: t.Mapping[str, tuple[int, int]]
    named: tuple[str, ...]

    @property
    def damaged(self) -> frozenset[str]:
        """WAL segments that are there and are not what was stored."""
        return wal.damaged_segments(path for text in self.named for path in _PATH.findall(text))


def parse(report: str, log: str) -> Parsed:
    """The report as data. A report without a status says nothing, and `status` is then empty."""
    status = _STATUS.search(report)
    named = list(dict.fromkeys(match["text"].strip() for match in _NAMED.finditer(log)))
    return Parsed(
        status=status["status"] if status else "",
        backups={
            match["label"]: Checked(match["status"].strip(), int(match["checked"]), int(match["valid"]))
            for match in _BACKUP.finditer(report)
        },
        wal={match["id"]: (int(match["checked"]), int(match["valid"])) for match in _WAL.finditer(report)},
        named=tuple(named),
    )


@dataclasses.dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        verifications: by label; of the backups that were asked about.
        problems: of the repository as a whole: holes in the archive, damage wherever it is.
        windows: to which times the cluster can be recovered.
    """

    verifications: t.Mapping[str, Verification]
    problems: tuple[str, ...]
    windows: tuple[wal.Window, ...]

    @property
    def ok(self) -> bool:
        """Whether there is nothing to worry about."""
        return not self.problems and all(found.ok for found in self.verifications.values())


def continuity(
    driver: PgBackRest, stanza: Stanza, *, layout: wal.Layout, damaged: t.AbstractSet[str] = frozenset()
) -> wal.Continuity:
    """Whether the archive of each generation is whole, put together."""
    parts = []
    for generation in stanza.generations:
        backups = [backup for backup in stanza.backups if backup.database_id == generation.database_id]
        starts = sorted(backup.wal_start for backup in backups if backup.wal_start)
        if not starts:
            continue  # WAL without a backup is of no use, so nothing of it can be missing
        path = f"{ARCHIVE}/{stanza.name}/{generation.archive_id}"
        archive = wal.read_archive(driver, path, layout=layout, since=starts[0], damaged=damaged)
        parts.append(wal.judge(archive, backups, layout=layout))
    return wal.Continuity(
        holes=tuple(hole for part in parts for hole in part.holes),
        windows=tuple(window for part in parts for window in part.windows),
        incomplete={label: text for part in parts for label, text in part.incomplete.items()},
        problems=tuple(problem for part in parts for problem in part.problems),
    )


def problems_of(backup: BackupSet, parsed: Parsed, incomplete: t.Mapping[str, str]) -> list[str]:
    """What speaks against one backup."""
    found = []
    checked = parsed.backups.get(backup.label)
    if checked is None:
        found.append(f"pgBackRest's verify says nothing about {backup.label}")
    elif not checked.ok:
        bad = checked.files - checked.valid
        found.append(f"{bad} of {checked.files} files of {backup.label} are damaged or missing ({checked.status})")
        chain = {backup.label, *backup.reference}
        found += [text for text in parsed.named if any(label in text for label in chain)][:_NAMED_KEPT]
    if backup.error:
        found.append("the data directory had pages with wrong checksums when it was made; the server's log names them")
    if backup.label in incomplete:
        found.append(incomplete[backup.label])
    return found


def problems_of_all(parsed: Parsed, found: wal.Continuity) -> list[str]:
    """What speaks against the repository."""
    problems = [hole.describe() for hole in found.holes]
    problems += found.problems
    for archive_id, (checked, valid) in parsed.wal.items():
        if checked != valid:
            problems.append(f"{checked - valid} of {checked} WAL segments of {archive_id} are damaged")
    for label, checked_backup in parsed.backups.items():
        if checked_backup.status != "in-progress" and not checked_backup.ok:
            problems.append(f"the backup {label} is {checked_backup.status}")
    if parsed.status != "ok":
        problems += parsed.named[:_NAMED_KEPT] or [f"pgBackRest's verify says {parsed.status or 'nothing'}"]
    return list(dict.fromkeys(problems))


def verify(
    driver: PgBackRest,
    *,
    clock: Clock,
    timeout: float,
    segment_size: int = wal.DEFAULT_SEGMENT_SIZE,
    label: str = "",
) -> Report:
    """Read the repository, or what one backup needs of it, and judge it by all that can be known.

    Before 2.55 pgBackRest reads everything even when one backup is asked about.
    """
    begun = clock.monotonic()
    layout = wal.check_size(segment_size)
    one = label if label and driver.version() >= ONE_BACKUP_SINCE else ""
    parsed = parse(*driver.verify(label=one, timeout=timeout))
    stanza = driver.info()
    found = continuity(driver, stanza, layout=layout, damaged=parsed.damaged)
    seconds = round(clock.monotonic() - begun, 3)
    verifications = {}
    for backup in stanza.backups:
        if label in ("", backup.label):
            problems = problems_of(backup, parsed, found.incomplete)
            verifications[backup.label] = Verification(
                level="read", ok=not problems, at=iso(clock.now()), seconds=seconds, problems=tuple(problems)
            )
    return Report(verifications, tuple(problems_of_all(parsed, found)), found.windows)


def store(driver: PgBackRest, report: Report) -> None:
    """Write what was found to the backups themselves, where the catalog reads it."""
    for label, verification in report.verifications.items():
        driver.annotate(label, {NOTE_VERIFICATION: note_of(verification)})
