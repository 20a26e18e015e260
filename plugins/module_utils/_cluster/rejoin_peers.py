# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asking the other members over the network what they are, as hms_monitor. PRIVATE."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import typing as t

from .._errors import HmsError, defect
from .._postgres import ConnectionParams, Session, connect, parse_lsn
from .member_config import DatabaseHost, Peer

State = t.Literal["writable", "standby", "starting", "refused", "unreachable"]

_STARTING = "57P03"
_AUTHORISATION = ("28000", "28P01", "3D000", "42501")

# A standby's control file learns of a new timeline late, and a receiver that is gone tells nothing; its WAL files do.
_ROLE = """
SELECT pg_catalog.pg_is_in_recovery(),
       (SELECT system_identifier::text FROM pg_catalog.pg_control_system()),
       pg_catalog.current_setting('server_version_num')::int,
       (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()),
       (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()),
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL
            ELSE pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) END,
       CASE WHEN pg_catalog.pg_is_in_recovery()
            THEN coalesce(pg_catalog.pg_last_wal_replay_lsn(), '0/0')::text
            ELSE pg_catalog.pg_current_wal_insert_lsn()::text END,
       (SELECT max(pg_catalog.substr(f.name, 1, 8)) FROM pg_catalog.pg_ls_waldir() AS f
         WHERE f.name ~ '^[0-9A-F]{24}$')
"""
_RECEIVER = """
SELECT coalesce(sender_host, ''), coalesce(sender_port, 0), coalesce(received_tli, 0)
  FROM pg_catalog.pg_stat_wal_receiver WHERE status = 'streaming'
"""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a member said, or why it said nothing."""

    name: str
    state: State
    address: str = ""
    port: int = 5432
    error: str = ""
    system_identifier: str = ""
    timeline: int = 0
    control_timeline: int = 0
    """The timeline in its control file; behind `timeline` until its first checkpoint after a promotion."""
    lsn: int = 0
    version_number: int = 0
    fed_by: str = ""
    """``host:port`` that it streams from."""

    @property
    def answered(self) -> bool:
        """Whether it told its role."""
        return self.state in ("writable", "standby")


def classify_failure(error: HmsError) -> State:
    """What a failed connection means: a server that is starting, one that doesn't let us in, or none."""
    sqlstate = error.details.get("sqlstate") or ""
    text = error.message
    if sqlstate == _STARTING or "the database system is" in text:
        return "starting"
    if sqlstate in _AUTHORISATION or "authentication failed" in text or "pg_hba.conf" in text or "certificate" in text:
        return "refused"
    return "unreachable"


Connect = t.Callable[[ConnectionParams], Session]


def ask(peer: Peer, params: ConnectionParams, connector: Connect = connect) -> Answer:
    """Ask one member. Never raises."""
    unknown = Answer(peer.name, "unreachable", peer.address, peer.port)
    try:
        session = connector(params)
    except HmsError as error:
        return dataclasses.replace(unknown, state=classify_failure(error), error=error.message)
    try:
        return _told(unknown, session)
    except HmsError as error:
        state = classify_failure(error)
        return dataclasses.replace(unknown, state=state, error=error.message)
    finally:
        session.close()


def _told(unknown: Answer, session: Session) -> Answer:
    row = session.row(_ROLE)
    if row is None:
        raise defect("row")
    recovering = bool(row[0])
    known = dataclasses.replace(
        unknown,
        state="standby" if recovering else "writable",
        system_identifier=str(row[1]),
        version_number=int(row[2]),
        control_timeline=int(row[3]),
        lsn=parse_lsn(row[6]),
    )
    if not recovering:
        return dataclasses.replace(known, timeline=int(row[5][:8], 16))
    receiver = session.row(_RECEIVER) or ("", 0, 0)
    timeline = max(int(row[3]), int(row[4] or 0), int(receiver[2]), int(row[7] or "0", 16))
    return dataclasses.replace(known, timeline=timeline, fed_by=f"{receiver[0]}:{receiver[1]}" if receiver[0] else "")


def ask_others(host: DatabaseHost, *, timeout: int = 3, connector: Connect = connect) -> tuple[Answer, ...]:
    """Ask every other member at the same time."""
    others = [peer for peer in host.members if peer.name != host.name]
    if not others:
        return ()
    with concurrent.futures.ThreadPoolExecutor(max_workers=len(others)) as pool:
        asked = [
            pool.submit(ask, peer, host.monitor.params(peer, dbname=host.database, timeout=timeout), connector)
            for peer in others
        ]
        return tuple(future.result() for future in asked)
