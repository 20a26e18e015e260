# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pgBackRest's backups in the shape of all backups. PRIVATE to the collection.

What its catalog has no place for (our id, who asked, what was proven) lies in it as annotations of the backup, so
that there is one truth: a backup that somebody made by hand is listed too, and one that is gone leaves nothing behind.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import typing as t

from .._clock import iso
from .._record import is_id
from .._tools.pgbackrest import BackupSet, Generation, PgBackRest, Stanza
from .catalog import RESTORED
from .manifest import Manifest, Member, Verification, verification_from

ENGINE = "pgbackrest"
ROLE = "physical"
TYPES = {"full": "full", "diff": "differential", "incr": "incremental"}

NOTE_ID = "hms-id"
NOTE_HOST = "hms-host"
NOTE_BY = "hms-by"
NOTE_ENVIRONMENT = "hms-environment"
NOTE_COMPRESSION = "hms-compression"
NOTE_VERIFICATION = "hms-verification"
NOTE_RESTORED = "hms-restored"
"""What the last restore drill came to: a note of its own, for the next verification writes over the other."""
_PROBLEMS_KEPT = 5
_PROBLEM_LENGTH = 200


def moment(seconds: int) -> datetime.datetime:
    """Seconds since 1970 as a moment."""
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)


def identify(backup: BackupSet) -> str:
    """Our id of a backup; one made by hand gets the same every time."""
    noted = backup.annotations.get(NOTE_ID, "")
    if is_id(noted):
        return noted
    digest = hashlib.sha256(backup.label.encode()).hexdigest()[:4]
    return f"{moment(backup.start):%Y%m%dT%H%M%SZ}-backup-{digest}"


def note_of(verification: Verification) -> str:
    """A verification as an annotation."""
    problems = [problem[:_PROBLEM_LENGTH] for problem in verification.problems[:_PROBLEMS_KEPT]]
    data = {
        "level": verification.level,
        "ok": verification.ok,
        "at": verification.at,
        "seconds": verification.seconds,
        "problems": problems,
        "partial": verification.partial[:_PROBLEM_LENGTH],
    }
    return json.dumps(data, ensure_ascii=True, separators=(",", ":"))


def verifications_of(backup: BackupSet) -> tuple[Verification, ...]:
    """What was proven about a backup, oldest first; a note that isn't ours counts as none."""
    found = [one for name in (NOTE_VERIFICATION, NOTE_RESTORED) if (one := _noted(backup, name)) is not None]
    return tuple(sorted(found, key=lambda one: one.at))


def _noted(backup: BackupSet, name: str) -> Verification | None:
    text = backup.annotations.get(name, "")
    try:
        return verification_from(json.loads(text)) if text else None
    except (ValueError, TypeError, KeyError):
        return None


def verification_of(backup: BackupSet) -> Verification | None:
    """The one of them that counts: the newest, but after a restore that failed only a restore that works."""
    found = verifications_of(backup)
    failed = [one for one in found if one.level in RESTORED and not one.ok]
    return failed[-1] if failed else found[-1] if found else None


def compression_note(method: str, level: int | None) -> str:
    """How it was compressed, as an annotation."""
    return method if level is None else f"{method}:{level}"


def _compression(backup: BackupSet) -> dict[str, t.Any]:
    method, _separator, level = backup.annotations.get(NOTE_COMPRESSION, "").partition(":")
    return {"method": method or "unknown", "level": int(level) if level.isdigit() else None}


def _timeline(backup: BackupSet) -> int | None:
    try:
        return int(backup.wal_start[:8], 16)
    except ValueError:
        return None


def manifest_of(
    backup: BackupSet,
    stanza: Stanza,
    *,
    parent: str,
    generation: Generation | None,
    cluster: str,
    environment: str,
    database: str,
) -> Manifest:
    """One backup as a manifest."""
    notes = backup.annotations
    return Manifest(
        id=identify(backup),
        cluster=cluster,
        environment=notes.get(NOTE_ENVIRONMENT) or environment,
        database=database,
        engine=ENGINE,
        type=TYPES.get(backup.type, backup.type),
        format=ENGINE,
        host=notes.get(NOTE_HOST, ""),
        by=notes.get(NOTE_BY, ""),
        started=iso(moment(backup.start)),
        ended=iso(moment(backup.stop)),
        seconds=float(backup.stop - backup.start),
        members=(Member(role=ROLE, name=backup.label, bytes=backup.stored_bytes, sha256=""),),
        server={
            "system_identifier": generation.system_identifier if generation else "",
            "version": generation.server_version if generation else "",
            "timeline": _timeline(backup),
            "is_standby": False,
            "host": notes.get(NOTE_HOST, ""),
        },
        # it can be recovered to any moment from here on
        snapshot={"lsn": backup.lsn_stop, "time": iso(moment(backup.stop)), "id": ""},
        tools={ENGINE: backup.version},
        compression=_compression(backup),
        encryption={"method": stanza.cipher, "recipients": []},
        contents={
            "database_bytes": backup.bytes,
            "repository_bytes": backup.chain_bytes,
            "label": backup.label,
            "stanza": stanza.name,
            "wal_start": backup.wal_start,
            "wal_stop": backup.wal_stop,
            "page_errors": backup.error,
        },
        verification=verification_of(backup),
        parent=parent,
    )


def entries(stanza: Stanza, *, cluster: str, environment: str, database: str) -> list[Manifest]:
    """All backups of a stanza, oldest first."""
    ids = {backup.label: identify(backup) for backup in stanza.backups}
    generations = {generation.database_id: generation for generation in stanza.generations}
    return [
        manifest_of(
            backup,
            stanza,
            # the label of one that is gone stays readable: it says that the chain is broken
            parent=ids.get(backup.prior, backup.prior),
            generation=generations.get(backup.database_id),
            cluster=cluster,
            environment=environment,
            database=database,
        )
        for backup in stanza.backups
    ]


def read(driver: PgBackRest, *, cluster: str, environment: str, database: str) -> list[Manifest]:
    """The backups in the repository, oldest first. Raises `Refused` where it has no stanza or can't be read."""
    return entries(driver.info(), cluster=cluster, environment=environment, database=database)
