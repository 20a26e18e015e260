# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looking at a database host: everything a plan needs, read in one go. PRIVATE.

Nothing here changes anything. A server that doesn't answer in time is a fact too, not an error.
"""

from __future__ import annotations

import os
import typing as t

from .._command import CommandRunner
from .._errors import HmsError, expect
from .._files import read_json
from .._postgres import ConnectionParams, PsycopgSession, Session, connect, parse_lsn
from .._record import list_records, load_record
from .._tools import pg_controldata
from .._tools.service import frozen, postmaster_pid
from .._tools.wal_files import last_written, newest_timeline
from .exposure import exposed_since
from .member_config import DatabaseHost
from .model import Busy, Control, MemberFacts, Receiver, Sender, Slot

FENCE_FILE = "fence.json"
RECORDS = "records"

SETTINGS = (
    "synchronous_standby_names",
    "synchronous_commit",
    "wal_retrieve_retry_interval",
    "restore_command",
    "archive_mode",
    "primary_conninfo",
    "primary_slot_name",
    "max_connections",
    "max_wal_senders",
    "max_worker_processes",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    "wal_log_hints",
    "full_page_writes",
    "data_checksums",
    "default_transaction_read_only",
    "hot_standby",
)

_STATE = """
SELECT pg_catalog.pg_is_in_recovery(),
       pg_catalog.current_setting('server_version_num')::int,
       pg_catalog.split_part(pg_catalog.current_setting('server_version'), ' ', 1),
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL ELSE pg_catalog.pg_current_wal_lsn()::text END,
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL
            ELSE pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) END,
       pg_catalog.pg_last_wal_receive_lsn()::text,
       pg_catalog.pg_last_wal_replay_lsn()::text,
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_is_wal_replay_paused() ELSE false END,
       pg_catalog.pg_last_xact_replay_timestamp(),
       extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())::float8,
       (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()),
       extract(epoch FROM pg_catalog.current_setting('recovery_min_apply_delay')::interval)::float8
"""

_RECEIVER = """
SELECT status, coalesce(sender_host, ''), coalesce(sender_port, 0), coalesce(slot_name, ''),
       coalesce(received_tli, 0),
       coalesce(extract(epoch FROM pg_catalog.clock_timestamp() - last_msg_receipt_time)::float8, 1e9),
       coalesce(flushed_lsn::text, '0/0')
  FROM pg_catalog.pg_stat_wal_receiver
"""

_SENDERS = """
SELECT application_name, state, sync_state, coalesce(sent_lsn::text, '0/0'), coalesce(replay_lsn::text, '0/0'),
       coalesce(extract(epoch FROM pg_catalog.clock_timestamp() - reply_time)::float8, 1e9)
  FROM pg_catalog.pg_stat_replication WHERE state <> 'backup'
"""

_SLOTS = """
SELECT slot_name, active, coalesce(wal_status, ''),
       coalesce(pg_catalog.pg_wal_lsn_diff(
           CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
                ELSE pg_catalog.pg_current_wal_lsn() END, restart_lsn), 0)::bigint
  FROM pg_catalog.pg_replication_slots
"""

_BUSY = """
SELECT pid, coalesce(usename, ''), application_name, state,
       extract(epoch FROM pg_catalog.clock_timestamp() - xact_start)::float8
  FROM pg_catalog.pg_stat_activity
 WHERE backend_type = 'client backend' AND xact_start IS NOT NULL AND pid <> pg_catalog.pg_backend_pid()
   AND pg_catalog.clock_timestamp() - xact_start > interval '1 second'
 ORDER BY xact_start LIMIT 50
"""

COUNTS = """
SELECT ((SELECT count(*) FROM pg_catalog.pg_stat_progress_basebackup) + (
            SELECT count(*) FROM pg_catalog.pg_stat_activity
             WHERE backend_type = 'client backend' AND application_name = 'pgBackRest [backup]'))::int,
       (SELECT count(*) FROM pg_catalog.pg_prepared_xacts)::int,
       (SELECT pg_catalog.json_object_agg(address, sessions) FROM (
            SELECT pg_catalog.host(client_addr) AS address, count(*) AS sessions FROM pg_catalog.pg_stat_activity
             WHERE backend_type = 'client backend' AND client_addr IS NOT NULL GROUP BY 1) AS clients)
"""

_WEAK_COMMIT = """
SELECT coalesce(r.rolname, '*') || '@' || coalesce(d.datname, '*') || ': ' || c
  FROM pg_catalog.pg_db_role_setting s
  LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
  LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase,
       pg_catalog.unnest(s.setconfig) AS c
 WHERE c IN ('synchronous_commit=off', 'synchronous_commit=local', 'synchronous_commit=remote_write')
"""

_SETTINGS = "SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY(%s)"
_PENDING = "SELECT name FROM pg_catalog.pg_settings WHERE pending_restart ORDER BY name"


def observe(host: DatabaseHost, *, runner: CommandRunner, session: Session | None = None) -> MemberFacts:
    """Look at this database host. `session` is an open local session, or None to open one."""
    values = _from_disk(host, runner)
    if values["running"]:
        own = None
        try:
            if frozen(postmaster_pid(host.instance.data_directory) or 0):
                raise HmsError(f"The server of {host.name} is stopped by a signal and answers nothing.")
            if session is None:
                own = session = connect(_probing(host), os_user=host.instance.os_user)
            values.update(_from_server(session, values.get("timeline", 0)))
            values["responsive"] = True
        except HmsError as error:
            values["error"] = error.message
        finally:
            if own is not None:
                own.close()
    return MemberFacts(**values)


def _probing(host: DatabaseHost) -> ConnectionParams:
    return host.instance.local(statement_timeout=5.0)


def _from_disk(host: DatabaseHost, runner: CommandRunner) -> dict[str, t.Any]:
    """What holds whether or not the server runs."""
    own = host.peer(host.name)
    data = host.instance.data_directory
    values: dict[str, t.Any] = {
        "name": host.name,
        "address": own.address,
        "port": own.port,
        "priority": own.priority,
        "may_be_primary": own.may_be_primary,
        "running": postmaster_pid(data) is not None,
        "standby_signal": os.path.exists(os.path.join(data, "standby.signal")),
        "fence": read_json(os.path.join(host.state_directory, FENCE_FILE)),
        "last_operation": last_operation(host.state_directory),
        "exposed_since": exposed_since(host),
    }
    if os.path.exists(os.path.join(data, "global", "pg_control")):
        try:
            values.update(_control(host, runner))
            values["wal_written_at"] = last_written(data)
            values["ready_segments"] = _ready_segments(data)
            room = os.statvfs(data)
            values["free_bytes"] = room.f_bavail * room.f_frsize
        except (HmsError, OSError) as error:  # a broken disk is a fact too
            values["error"] = str(error)
    return values


def _control(host: DatabaseHost, runner: CommandRunner) -> dict[str, t.Any]:
    tool = pg_controldata.PgControldata(runner, bin_directory=host.instance.bin_directory)
    data = tool.read(host.instance.data_directory)
    control = Control(
        state=data.state,
        checkpoint_lsn=data.checkpoint_lsn,
        timeline=data.timeline,
        system_identifier=data.system_identifier,
        checkpoint_at=data.checkpoint_at,
        checksums=data.checksums,
        written_at=os.stat(os.path.join(host.instance.data_directory, "global", "pg_control")).st_mtime,
    )
    timeline = max(data.timeline, newest_timeline(host.instance.data_directory))
    return {"control": control, "timeline": timeline, "lsn": max(data.checkpoint_lsn, data.min_recovery_lsn)}


def _ready_segments(data_directory: str) -> int:
    try:
        names = os.listdir(os.path.join(data_directory, "pg_wal", "archive_status"))
    except FileNotFoundError:
        return 0
    return sum(1 for name in names if name.endswith(".ready"))


def last_operation(state_directory: str) -> dict[str, t.Any] | None:
    """A line about the newest record on this host."""
    directory = os.path.join(state_directory, RECORDS)
    known = list_records(directory)
    if not known:
        return None
    record = load_record(directory, known[-1]) or {}
    outcome = record.get("outcome") or {}
    return {
        "id": known[-1],
        "operation": record.get("operation", ""),
        "status": outcome.get("status", "unfinished"),
        "at": (record.get("asked") or {}).get("at", ""),
        "message": outcome.get("message", ""),
    }


def _from_server(session: Session, timeline_on_disk: int) -> dict[str, t.Any]:
    row = expect(session.row(_STATE), "the row of a SELECT without FROM")
    recovering = bool(row[0])
    values: dict[str, t.Any] = {
        "in_recovery": recovering,
        "version_number": row[1],
        "version": row[2],
        "replay_paused": bool(row[7]),
        "apply_delay": float(row[11] or 0.0),
        "last_commit_at": row[8].isoformat() if row[8] else "",
        "replay_age": row[9] if recovering else None,
        "replay_lsn": parse_lsn(row[6] or "0/0"),
    }
    receiver, flushed = _receiver(session)
    values["receiver"] = receiver
    if recovering:
        values["lsn"] = max(parse_lsn(row[5] or "0/0"), parse_lsn(row[6] or "0/0"), flushed)
        values["timeline"] = max(timeline_on_disk, row[10] or 0, receiver.timeline if receiver else 0)
    else:
        values["lsn"] = parse_lsn(row[3])
        values["timeline"] = int(row[4][:8], 16)
    values.update(_replication(session))
    values.update(_activity(session))
    return values


def _receiver(session: Session) -> tuple[Receiver | None, int]:
    row = session.row(_RECEIVER)
    if row is None or row[0] is None:
        return None, 0
    found = Receiver(
        status=row[0], sender_host=row[1], sender_port=row[2], slot_name=row[3], timeline=row[4], message_age=row[5]
    )
    return found, parse_lsn(row[6])


def _replication(session: Session) -> dict[str, t.Any]:
    senders = tuple(
        Sender(row[0], row[1] or "", row[2] or "", parse_lsn(row[3]), parse_lsn(row[4]), row[5])
        for row in session.rows(_SENDERS)
    )
    slots = tuple(Slot(row[0], bool(row[1]), row[2], int(row[3])) for row in session.rows(_SLOTS))
    return {"senders": senders, "slots": slots}


def _activity(session: Session) -> dict[str, t.Any]:
    counts = session.row(COUNTS) or (0, 0, None)
    return {
        "busy": tuple(Busy(row[0], row[1], row[2] or "", row[3] or "", row[4]) for row in session.rows(_BUSY)),
        "backups_running": counts[0],
        "prepared_transactions": counts[1],
        "client_addresses": counts[2] or {},
        "weak_commit_roles": tuple(row[0] for row in session.rows(_WEAK_COMMIT)),
        "settings": dict(session.rows(_SETTINGS, (list(SETTINGS),))),
        "pending_restart": tuple(row[0] for row in session.rows(_PENDING)),
    }


def peer_role(params: ConnectionParams) -> tuple[bool, int, str] | None:
    """Whether a peer is in recovery, its timeline and system identifier, over the network; None when it is silent."""
    try:
        session: PsycopgSession = connect(params)
    except HmsError:
        return None
    try:
        row = session.row(
            "SELECT pg_catalog.pg_is_in_recovery(),"
            " CASE WHEN pg_catalog.pg_is_in_recovery()"
            " THEN (SELECT greatest(c.timeline_id, r.min_recovery_end_timeline)"
            " FROM pg_catalog.pg_control_checkpoint() c, pg_catalog.pg_control_recovery() r)::text"
            " ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END,"
            " (SELECT system_identifier::text FROM pg_catalog.pg_control_system())"
        )
    except HmsError:
        return None
    finally:
        session.close()
    if row is None:
        return None
    recovering = bool(row[0])
    return recovering, int(row[1]) if recovering else int(row[1], 16), str(row[2])
