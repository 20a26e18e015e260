# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A physical backup by pgBackRest: look, plan, make, prove. PRIVATE to the collection."""

from __future__ import annotations

import dataclasses
import typing as t

from .._artifact import pgbackrest_catalog as catalog
from .._artifact import pgbackrest_verify
from .._artifact.manifest import Manifest, Verification
from .._artifact.pgbackrest_settings import driver as driver_of
from .._artifact.pgbackrest_settings import settings_from
from .._clock import Clock
from .._command import CommandRunner
from .._errors import HmsError, Refused
from .._postgres import ConnectionParams, Session
from .._tools.pgbackrest import BackupSet, PgBackRest, Stanza
from .model import Wish

OLDEST = (2, 45)
KINDS: dict[str, t.Literal["full", "diff", "incr"]] = {"full": "full", "differential": "diff", "incremental": "incr"}
_COMPRESSION = {"zstd": "zst", "gzip": "gz", "lz4": "lz4", "none": "none"}
_DEFAULT_LEVEL = {"zstd": 3, "gzip": 1, "lz4": 1, "none": None}

_SERVER = """
SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('server_version_num')::int,
       (SELECT system_identifier::text FROM pg_catalog.pg_control_system()),
       pg_catalog.current_setting('archive_mode'),
       (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'archive_command'),
       (SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size'),
       (SELECT last_failed_wal FROM pg_catalog.pg_stat_archiver
         WHERE last_failed_time > coalesce(last_archived_time, '-infinity')),
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN false
            ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8)
              <> pg_catalog.lpad(pg_catalog.upper(pg_catalog.to_hex(
                (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()))), 8, '0') END
"""


@dataclasses.dataclass(frozen=True)
class Server:
    """The instance as far as a physical backup asks.

    Attributes:
        failing: the WAL segment that can't be archived, '' for none.
        just_promoted: there was no checkpoint since; pgBackRest refuses a control file of the old timeline.
    """

    is_standby: bool
    version_num: int
    system_identifier: str
    archive_mode: str
    archive_command: str
    segment_size: int
    failing: str
    just_promoted: bool = False


@dataclasses.dataclass(frozen=True)
class Facts:
    """What there is before a backup."""

    version: tuple[int, ...]
    server: Server
    stanza: Stanza


@dataclasses.dataclass(frozen=True)
class Plan:
    """What will be made. `type` may be more than was asked for; then `reason` says why.

    `base` is the label of the backup that it builds on; the estimates are those of the last of its kind.
    """

    type: str
    reason: str = ""
    base: str = ""
    bytes_estimate: int | None = None
    seconds_estimate: float | None = None


@dataclasses.dataclass(frozen=True)
class Made:
    """What was made, what is to be known about it, and what was planned."""

    manifest: Manifest
    warnings: tuple[str, ...]
    plan: Plan


def _refused(message: str, reason: str, next_step: str) -> Refused:
    return Refused(message, reason=reason, phase="look", state="Nothing was touched.", next_step=next_step)


def read_server(session: Session) -> Server:
    """Ask the instance."""
    row = session.row(_SERVER)
    if row is None:
        raise HmsError("The server's catalogs answered with nothing.", reason="sql_failed", phase="look")
    standby, number, identifier, mode, command, size, failing, promoted = row
    return Server(standby, number, identifier, mode, command or "", int(size), failing or "", promoted)


def check_server(server: Server, driver: PgBackRest) -> None:
    """Refuse what would fail, or what would not be what it seems."""
    if server.is_standby:
        raise _refused(
            "This host's instance is a standby, and pgBackRest makes backups of the primary.",
            "not_primary",
            "Run it on the primary; a job with run_on: primary finds it by itself.",
        )
    if server.archive_mode == "off":
        raise _refused(
            "archive_mode is off: a physical backup without its WAL can't be restored.",
            "archiving_off",
            "Restart the instance with archiving: playbooks/site.yml -e postgresql_restart=allowed.",
        )
    if server.archive_command and f"--stanza={driver.stanza}" not in server.archive_command:
        raise _refused(
            f"archive_command doesn't push into the stanza {driver.stanza}: {server.archive_command[:200]}",
            "archiving_elsewhere",
            "Run playbooks/site.yml, which sets it, and see that nothing set it by ALTER SYSTEM.",
        )


def look(driver: PgBackRest, session: Session) -> Facts:
    """The program, the instance and the repository; refuses what can't be backed up."""
    version = driver.version()
    if version < OLDEST:
        raise _refused(
            f"pgBackRest {'.'.join(map(str, version))} is too old.",
            "tool_too_old",
            f"Install {'.'.join(map(str, OLDEST))} or newer; Debian 12 has it.",
        )
    server = read_server(session)
    check_server(server, driver)
    stanza = driver.info()
    known = {generation.system_identifier for generation in stanza.generations}
    if known and server.system_identifier not in known:
        raise _refused(
            f"The stanza {driver.stanza} holds the cluster {', '.join(sorted(known))}, and another one runs here: "
            f"{server.system_identifier}.",
            "foreign_stanza",
            "Give this cluster a stanza or a repository of its own. If it took the other's place for good, "
            "run pgbackrest stanza-upgrade by hand and make a full backup at once.",
        )
    return Facts(version, server, stanza)


def _flaw(backup: BackupSet) -> str:
    """Why nothing should build on a backup, '' when something may."""
    verification = catalog.verification_of(backup)
    if verification is not None and not verification.ok:
        return f"{backup.label} failed its verification"
    return f"{backup.label} holds damaged pages" if backup.error else ""


def plan(type_: str, facts: Facts) -> Plan:
    """What to make: what was asked for, or a full backup where there is nothing sound to build on."""
    backups = facts.stanza.backups
    fulls = [backup for backup in backups if backup.type == "full"]
    reason, base = "", ""
    if type_ != "full":
        by_label = {backup.label: backup for backup in backups}
        # the one that pgBackRest itself will choose
        chosen = (fulls if type_ == "differential" else list(backups))[-1:] if fulls else []
        if not chosen:
            reason = "there is no full backup to build on"
        else:
            base = chosen[0].label
            chain = [chosen[0], *(by_label[label] for label in chosen[0].reference if label in by_label)]
            reason = next((flaw for flaw in map(_flaw, chain) if flaw), "")
        type_, base = ("full", "") if reason else (type_, base)
    last = next((backup for backup in reversed(backups) if backup.type == KINDS[type_]), None)
    return Plan(
        type=type_,
        reason=reason,
        base=base,
        bytes_estimate=last.stored_bytes if last else None,
        seconds_estimate=float(last.stop - last.start) if last else None,
    )


def options_for(wish: Wish, planned: Plan) -> list[str]:
    """How it is compressed. What builds on another backup is compressed as that one is."""
    options = []
    if planned.type == "full":
        options.append(f"--compress-type={_COMPRESSION[wish.compression.method]}")
        level = _level(wish)
        options += [] if level is None else [f"--compress-level={level}"]
    if wish.compression.threads:
        options.append(f"--process-max={wish.compression.threads}")
    return options


def _level(wish: Wish) -> int | None:
    given = wish.compression.level
    return _DEFAULT_LEVEL[wish.compression.method] if given is None else given


def notes_for(wish: Wish, planned: Plan, facts: Facts, *, identifier: str, by: str, host: str) -> dict[str, str]:
    """What the repository is told about the backup, for its catalog."""
    compression = catalog.compression_note(wish.compression.method, _level(wish))
    base = next((backup for backup in facts.stanza.backups if backup.label == planned.base), None)
    if base is not None:
        compression = base.annotations.get(catalog.NOTE_COMPRESSION, "")
    return {
        catalog.NOTE_ID: identifier,
        catalog.NOTE_HOST: host,
        catalog.NOTE_BY: by,
        catalog.NOTE_ENVIRONMENT: wish.environment,
        catalog.NOTE_COMPRESSION: compression,
    }


def _find(driver: PgBackRest, identifier: str) -> str:
    """The label of the backup that was just made."""
    for backup in reversed(driver.info().backups):
        if catalog.identify(backup) == identifier:
            return backup.label
    raise HmsError(
        f"pgBackRest ended well, and its catalog has no backup {identifier}.",
        reason="backup_not_listed",
        phase="backup",
        state="Earlier backups are untouched.",
        next_step="Look at the repository with pgbackrest info, and run it again.",
    )


def _prove(driver: PgBackRest, label: str, wish: Wish, facts: Facts, clock: Clock) -> tuple[Verification, list[str]]:
    """Verify what was made and write the result down; returns it with what is wrong elsewhere in the repository."""
    report = pgbackrest_verify.verify(
        driver, clock=clock, timeout=wish.timeout, segment_size=facts.server.segment_size, label=label
    )
    pgbackrest_verify.store(driver, report)
    return report.verifications[label], list(report.problems)


def judge(verification: Verification, label: str) -> None:
    """Raise unless it held."""
    if verification.ok:
        return
    raise HmsError(
        f"The backup {label} was made and failed its verification: {'; '.join(verification.problems)[:1500]}",
        reason="verification_failed",
        phase="verify",
        state="It is marked as failed in the catalog, nothing will build on it, and earlier backups are untouched.",
        next_step="Mend the store or the data directory; the next backup will be a full one.",
        details={"label": label, "problems": list(verification.problems)},
    )


def check_wish(wish: Wish) -> None:
    """What this engine can't do."""
    if wish.verify == "deep":
        raise HmsError(
            "verify: deep restores into a scratch database, which the engine pgbackrest has no use for.",
            reason="bad_config",
            phase="wish",
            state="Nothing was touched.",
            next_step="Use verify: read, and prove recovery by a restore drill.",
        )


def backup(
    wish: Wish,
    *,
    identifier: str,
    by: str,
    host: str,
    runner: CommandRunner,
    clock: Clock,
    connect: t.Callable[[ConnectionParams], Session],
) -> Made:
    """Make one backup and prove it. Raises `HmsError`; what was there before stays in any case."""
    check_wish(wish)
    driver = driver_of(settings_from(wish.pgbackrest, cluster=wish.cluster), runner)
    session = connect(wish.connection)
    try:
        facts = look(driver, session)
        if facts.server.just_promoted:
            session.execute(f"SET statement_timeout = {int(min(wish.timeout, 86400.0) * 1000)}")
            session.execute("CHECKPOINT")
    finally:
        session.close()
    planned = plan(wish.type, facts)
    warnings = [f"A full backup is made instead: {planned.reason}."] if planned.reason else []
    if facts.server.failing:
        warnings.append(f"The server can't archive its WAL: {facts.server.failing} failed last.")
    warnings += driver.backup(
        KINDS[planned.type],
        annotations=notes_for(wish, planned, facts, identifier=identifier, by=by, host=host),
        options=options_for(wish, planned),
        timeout=wish.timeout,
    )
    label = _find(driver, identifier)
    if wish.verify != "none":
        verification, elsewhere = _prove(driver, label, wish, facts, clock)
        judge(verification, label)
        warnings += elsewhere
    return Made(_listed(driver, wish, identifier), tuple(warnings), planned)


def _listed(driver: PgBackRest, wish: Wish, identifier: str) -> Manifest:
    found = catalog.read(driver, cluster=wish.cluster, environment=wish.environment, database=wish.database)
    return next(manifest for manifest in found if manifest.id == identifier)
