# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looking at a host that is, or is to be, a standby, and at its upstream. Changes nothing. PRIVATE."""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._cluster import facts
from .._cluster.member_config import DatabaseHost
from .._command import CommandRunner
from .._errors import HmsError
from .._files import read_bytes
from .._postgres import ConnectionParams, Session, parse_lsn
from .._tools import auto_conf
from .._tools.pgbackrest_standby import UNFINISHED, restoring_into
from .._tools.service import alive
from .standby_model import ABSENT, DATA, EMPTY, FOREIGN, LocalFacts, SlotFacts, UpstreamFacts

CLONE_MARK = ".clone-"

_UPSTREAM = """
SELECT pg_catalog.current_setting('server_version_num')::int,
       (SELECT system_identifier::text FROM pg_catalog.pg_control_system()),
       pg_catalog.pg_is_in_recovery(),
       CASE WHEN pg_catalog.pg_is_in_recovery()
            THEN pg_catalog.to_hex((SELECT greatest(c.timeline_id, r.min_recovery_end_timeline)
                   FROM pg_catalog.pg_control_checkpoint() AS c, pg_catalog.pg_control_recovery() AS r))
            ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END,
       (SELECT count(*) FROM pg_catalog.pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global'))::int,
       (SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size'),
       (SELECT redo_lsn::text FROM pg_catalog.pg_control_checkpoint())
"""

_SLOTS = """
SELECT slot_name, active, coalesce(wal_status, ''), coalesce(restart_lsn::text, '0/0')
  FROM pg_catalog.pg_replication_slots
"""

# By number alone: after a promotion the same positions may be in files of two timelines.
_OLDEST_SEGMENT = """
SELECT min(pg_catalog.substr(name, 9)) FROM pg_catalog.pg_ls_dir('pg_wal', true, false) AS name
 WHERE name ~ '^[0-9A-F]{24}$'
"""

# What pg_basebackup will copy, seen with the rights that pg_rewind needs too. WAL is left out: it is streamed.
_SIZE = """
WITH RECURSIVE files (path, size, isdir) AS (
    SELECT name, stat.size, stat.isdir
      FROM pg_catalog.pg_ls_dir('.', true, false) AS name,
           LATERAL pg_catalog.pg_stat_file(name, true) AS stat
    UNION ALL
    SELECT files.path || '/' || name, stat.size, stat.isdir
      FROM files,
           LATERAL pg_catalog.pg_ls_dir(files.path, true, false) AS name,
           LATERAL pg_catalog.pg_stat_file(files.path || '/' || name, true) AS stat
     WHERE files.isdir AND files.path <> 'pg_wal'
)
SELECT coalesce(sum(size), 0)::bigint FROM files WHERE NOT isdir
"""


def upstream_params(host: DatabaseHost, upstream: str) -> ConnectionParams:
    """How the replication role reaches the upstream with SQL."""
    return host.replication.params(host.peer(upstream), dbname="postgres", timeout=5)


def inspect_upstream(name: str, session: Session, *, with_size: bool, with_wal: bool = False) -> UpstreamFacts:
    """What the upstream says of itself."""
    (row,) = session.rows(_UPSTREAM)
    slots = {
        slot[0]: SlotFacts(active=bool(slot[1]), wal_status=slot[2], restart_lsn=parse_lsn(slot[3]))
        for slot in session.rows(_SLOTS)
    }
    return UpstreamFacts(
        name=name,
        version_number=row[0],
        system_identifier=row[1],
        in_recovery=bool(row[2]),
        timeline=int(row[3], 16),
        slots=slots,
        tablespaces=row[4],
        size_bytes=int(_measure(session, _SIZE)) if with_size else None,
        segment_size=int(row[5]),
        redo_lsn=parse_lsn(row[6]),
        oldest_segment=_oldest_segment(session, int(row[5])) if with_wal else None,
    )


def _oldest_segment(session: Session, segment_size: int) -> int | None:
    name = _measure(session, _OLDEST_SEGMENT)
    return int(name[:8], 16) * (0x100000000 // segment_size) + int(name[8:], 16) if name else None


def _measure(session: Session, sql: str) -> t.Any:
    try:
        return session.value(sql)
    except HmsError as error:
        raise HmsError(
            f"The upstream's data directory could not be looked at: {error.message}",
            reason="size_unknown",
            state="Nothing was touched.",
            next_step="The replication role needs EXECUTE on pg_ls_dir and pg_stat_file; "
            "run playbooks/site.yml on the primary, which grants it.",
            details=error.details,
        ) from error


def inspect_local(host: DatabaseHost, *, runner: CommandRunner, reuse_data: bool = False) -> LocalFacts:
    """This host's instance and the room beside it."""
    data = host.instance.data_directory
    member = facts.observe(host, runner=runner)
    content, version = _content(data)
    left = leftovers(data)
    resumable = next((path for path in reversed(left) if os.path.exists(os.path.join(path, UNFINISHED))), "")
    reused = resumable or (data if reuse_data and content == DATA else "")
    on_disk = _settings_on_disk(data, strict=not member.responsive)
    settings = dict(member.settings) if member.responsive else on_disk
    return LocalFacts(
        member=member,
        content=content,
        version=version,
        fresh_copy=os.path.exists(os.path.join(data, "backup_label")),
        primary_conninfo=settings.get("primary_conninfo", ""),
        primary_slot_name=settings.get("primary_slot_name", ""),
        restore_command=on_disk.get("restore_command"),
        leftovers=left,
        resumable=resumable,
        reusable_bytes=_used_bytes(reused) if reused else 0,
        orphans=tuple(pid for path in left for pid in copies_into(path)),
        free_bytes=_free_bytes(data),
        mount_point=os.path.ismount(data),
    )


def _content(data_directory: str) -> tuple[str, int]:
    try:
        names = os.listdir(data_directory)
    except FileNotFoundError:
        return ABSENT, 0
    if not names:
        return EMPTY, 0
    version = read_bytes(os.path.join(data_directory, "PG_VERSION"))
    if version is None or not os.path.exists(os.path.join(data_directory, "global", "pg_control")):
        return FOREIGN, 0
    return DATA, int(version.split(b".")[0])


def _settings_on_disk(data_directory: str, *, strict: bool) -> t.Mapping[str, str]:
    try:
        return auto_conf.read(data_directory)
    except NotADirectoryError:
        return {}
    except HmsError:
        if strict:
            raise
        return {}


def leftovers(data_directory: str) -> tuple[str, ...]:
    """Side directories beside the data directory that an ended copy left."""
    parent, name = os.path.split(data_directory.rstrip("/"))
    try:
        entries = os.listdir(parent)
    except FileNotFoundError:
        return ()
    return tuple(sorted(os.path.join(parent, entry) for entry in entries if entry.startswith(name + CLONE_MARK)))


def copies_into(path: str) -> list[int]:
    """Living processes of pg_basebackup or pgBackRest that write into exactly this directory."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as source:
                argv = source.read().split(b"\0")
        except OSError:
            continue
        copying = os.path.basename(argv[0]) == b"pg_basebackup" and path.encode() in argv
        if (copying or restoring_into(argv, path)) and alive(int(entry)):
            found.append(int(entry))
    return found


def _used_bytes(path: str) -> int:
    """What the files below `path` hold; one that vanishes meanwhile doesn't count."""
    total = 0
    for folder, _folders, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def _free_bytes(path: str) -> int:
    """Free space at `path`, or at the nearest folder above that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    room = os.statvfs(path)
    return room.f_bavail * room.f_frsize
