# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What there is: the live server, the repository, the side directory. PRIVATE."""

from __future__ import annotations

import os
import typing as t

from .._artifact import pgbackrest_wal as wal
from .._artifact.clients import bin_directory
from .._artifact.pgbackrest_catalog import moment
from .._clock import Clock, wait_until
from .._command import CommandRunner
from .._errors import ConnectionFailed, HmsError, Refused, ToolMissing
from .._postgres import Session
from .._tools.pgbackrest import PgBackRest, Stanza
from . import side
from .choose import Known, newest_generation
from .model import Live, Order, Side
from .server import Connect, Server

LIMITS = (
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
)
"""Settings of which a hot standby must not have less than its primary."""
ARCHIVE = "archive"

_LIVE = """
SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('server_version_num')::int,
       (SELECT system_identifier::text FROM pg_catalog.pg_control_system()),
       pg_catalog.current_setting('data_directory'),
       (SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size'),
       pg_catalog.clock_timestamp(), pg_catalog.current_setting('shared_preload_libraries'),
       pg_catalog.current_setting('TimeZone')
"""
_SETTINGS = "SELECT name, setting::int FROM pg_catalog.pg_settings WHERE name = ANY(%s)"


def read_live(order: Order, connect: Connect) -> Live:
    """Ask the live server; one that is down is no obstacle."""
    try:
        session = connect(order.connection, os_user=order.os_user)
    except ConnectionFailed:
        return Live(running=False, data_directory=order.data_directory)
    try:
        row = session.row(_LIVE)
        if row is None:
            raise HmsError("The live server's catalogs answered with nothing.", reason="sql_failed", phase="look")
        limits = {name: int(value) for name, value in session.rows(_SETTINGS, [list(LIMITS)])}
        return Live(
            running=True,
            is_standby=row[0],
            version_num=row[1],
            system_identifier=row[2],
            data_directory=order.data_directory or row[3],
            segment_size=int(row[4]),
            now=row[5],
            libraries=tuple(name.strip().strip('"') for name in (row[6] or "").split(",") if name.strip()),
            limits=limits,
            timezone=row[7],
        )
    finally:
        session.close()


def check_stanza(live: Live, stanza: Stanza) -> None:
    """Refuse a repository that is another cluster's."""
    generation = newest_generation(stanza)
    if live.running and live.system_identifier != generation.system_identifier:
        raise Refused(
            f"The stanza {stanza.name} holds the cluster {generation.system_identifier}, and another one runs here: "
            f"{live.system_identifier}.",
            reason="foreign_stanza",
            phase="look",
            state="Nothing was touched.",
            next_step="Give the configuration file and the stanza of this cluster.",
        )


def archive_path(stanza: Stanza) -> str:
    """The archive's folder of the newest generation."""
    return f"{ARCHIVE}/{stanza.name}/{newest_generation(stanza).archive_id}"


def read_known(driver: PgBackRest, stanza: Stanza, segment_size: int) -> Known:
    """The newest generation's backups and what WAL there is of it."""
    generation = newest_generation(stanza)
    backups = tuple(backup for backup in stanza.backups if backup.database_id == generation.database_id)
    layout = wal.check_size(segment_size)
    since = min((backup.wal_start for backup in backups if backup.wal_start), default="")
    archive = wal.read_archive(driver, archive_path(stanza), layout=layout, since=since)
    return Known(generation, backups, archive, layout)


def stored_at(driver: PgBackRest, stanza: Stanza, segment: str) -> t.Any:
    """When a segment was stored, None where it isn't there."""
    for entry in driver.repo_ls(f"{archive_path(stanza)}/{segment[:16]}"):
        if entry.name.startswith(segment + "-"):
            return moment(entry.time + 1)  # it is told in whole seconds
    return None


def major_of(live: Live, stanza: Stanza) -> int:
    """PostgreSQL's major version."""
    return live.version_num // 10000 if live.running else int(newest_generation(stanza).server_version.split(".")[0])


def programs(major: int) -> str:
    """The folder with this version's programs."""
    found = bin_directory(major)
    if found is None:
        raise ToolMissing(
            f"The programs of PostgreSQL {major} are not installed on this host; the side cluster needs them.",
            reason="tool_missing",
            phase="look",
            state="Nothing was touched.",
            next_step=f"Install postgresql-{major}.",
        )
    return found


def side_directory(order: Order, live: Live) -> str:
    """Where the side cluster goes: beside the live data directory where nothing else is said, on its filesystem."""
    if order.directory:
        return os.path.normpath(order.directory)
    if live.data_directory:
        return os.path.normpath(live.data_directory) + ".pitr"
    raise Refused(
        "The live server doesn't answer, so where its data directory is can't be asked.",
        reason="no_directory",
        phase="look",
        state="Nothing was touched.",
        next_step="Give directory: where the side cluster is to be.",
    )


def read_side(folder: side.Folder, server: t.Callable[[int, int], Server]) -> Side:
    """Look at the side directory; `server` makes the driver for a port and a version."""
    if not os.path.lexists(folder.path):
        return Side(folder.path, "absent")
    marker = side.read_marker(folder)
    if marker is None:
        return Side(folder.path, "foreign" if os.path.islink(folder.path) or os.listdir(folder.path) else "empty")
    running = side.postmaster(folder) is not None
    position = None
    if running:
        try:
            position = server(marker.port, marker.version_num).position()
        except ConnectionFailed:
            position = None
    return Side(folder.path, "ours", marker, running, position, side.occupied(folder.path))


def libraries_here(names: t.Sequence[str], bin_dir: str) -> tuple[str, ...]:
    """Of the libraries that the live server loads, those that are here: one that is missing keeps a server down."""
    folders = (os.path.join(os.path.dirname(bin_dir), "lib"), "/usr/lib64/pgsql")
    return tuple(
        name
        for name in names
        if any(os.path.exists(os.path.join(folder, f"{os.path.basename(name)}.so")) for folder in folders)
    )


def flush(session: Session, clock: Clock, seconds: float) -> str:
    """Bring the live server's WAL up to this moment into the archive; the name of the last segment.

    A transaction that changes nothing comes first: recovery to a time is at its target only when it meets a later one.
    """
    session.execute("SET synchronous_commit TO local")
    session.execute("SELECT pg_catalog.pg_current_xact_id()")
    name = str(session.value("SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_switch_wal())"))
    archived = "SELECT coalesce(last_archived_wal >= %s, false) FROM pg_catalog.pg_stat_archiver"
    if not wait_until(lambda: bool(session.value(archived, [name])), clock=clock, timeout=seconds, interval=0.2):
        raise Refused(
            f"The live server's newest WAL segment {name} was not archived within {seconds:g} s.",
            reason="not_archived",
            phase="flush",
            state="A segment was closed on the live server, nothing else was done.",
            next_step="See in the server's log why archive-push fails; or give flush_wal: false for an older target.",
        )
    return name


def limits_of(
    found: t.Mapping[str, int], runner: CommandRunner, data: str, bin_dir: str, os_user: str
) -> dict[str, int]:
    """The higher of the live server's limits and those of the moment of the backup."""
    from .._tools.pg_controldata import PgControldata

    restored = PgControldata(runner, bin_directory=bin_dir, os_user=os_user).limits(data)
    return {name: max(found.get(name, 0), restored.get(name, 0)) for name in {*found, *restored}}
