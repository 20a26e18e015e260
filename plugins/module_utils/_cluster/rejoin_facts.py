# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looking at a host that is to rejoin, and at the primary it will follow. Changes nothing. PRIVATE."""

from __future__ import annotations

import dataclasses
import os

from .._command import CommandRunner
from .._errors import HmsError
from .._postgres import Session, connect
from .._tools import pg_rewind
from .._tools.pg_controldata import ControlData, PgControldata
from .._tools.pg_waldump import PgWaldump, segment_name
from .._tools.postgres_single import PostgresSingle
from . import facts, fencing, rejoin_mark
from .dossier_wal import Wal, common_checkpoint, own_timeline
from .member_config import DatabaseHost
from .model import MemberFacts, Slot
from .rejoin_history import Fork, History, find_fork, history_file, local_history, parse_history, past_fork
from .rejoin_model import Divergence, PrimaryFacts, RejoinFacts
from .rejoin_peers import Answer, Connect, ask_others

REPLICATION_DATABASE = "postgres"

_SLOTS = "SELECT slot_name, active, coalesce(wal_status, '') FROM pg_catalog.pg_replication_slots"
_STREAMING = "SELECT application_name FROM pg_catalog.pg_stat_replication WHERE state = 'streaming'"
_HISTORY = "SELECT pg_catalog.pg_read_binary_file(%s)"
_HAS_WAL = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_ls_waldir() AS f
                WHERE f.name ~ '^[0-9A-F]{24}$' AND pg_catalog.substr(f.name, 9) = %s
                  AND pg_catalog.substr(f.name, 1, 8) > %s)
"""


def config_file(host: DatabaseHost) -> str:
    """postgresql.conf: Debian keeps it outside the data directory."""
    return os.path.join(host.instance.config_directory, "postgresql.conf")


class RejoinInspector:
    """Looks at this host and at its peers."""

    def __init__(self, host: DatabaseHost, *, runner: CommandRunner, connector: Connect = connect) -> None:
        self._host = host
        self._runner = runner
        self._connector = connector

    def inspect(self) -> RejoinFacts:
        """Everything a plan needs. The own position is read before the primary's, which only grows."""
        host = self._host
        member = facts.observe(host, runner=self._runner)
        control = None if member.control is None else self.control()
        mark, mark_state = rejoin_mark.read_state(host)
        answers = ask_others(host, connector=self._connector)
        writable = [answer for answer in answers if answer.state == "writable"]
        primary = self._primary(writable[0]) if len(writable) == 1 else None
        found = RejoinFacts(
            name=host.name,
            slot_name=host.slot_name,
            member=member,
            answers=answers,
            control=control,
            primary=primary,
            mark=mark,
            mark_state=mark_state,
            rewinding=tuple(pg_rewind.running_on(host.instance.data_directory)),
            start_conf=fencing.start_conf(host),
            points_at_primary=primary is not None and self._points_at(primary.name, member),
        )
        return dataclasses.replace(found, divergence=self._compare(found))

    def control(self) -> ControlData:
        """pg_control as it is now."""
        instance = self._host.instance
        return PgControldata(self._runner, bin_directory=instance.bin_directory).read(instance.data_directory)

    def _points_at(self, primary: str, member: MemberFacts) -> bool:
        wanted = (self._host.primary_conninfo(self._host.peer(primary)), self._host.slot_name)
        return (member.settings.get("primary_conninfo"), member.settings.get("primary_slot_name")) == wanted

    # -- the primary ----------------------------------------------------------------------------------------------

    def monitor(self, name: str, dbname: str | None = None) -> Session:
        """A session on a member as the monitoring role."""
        host = self._host
        return self._connector(host.monitor.params(host.peer(name), dbname=dbname or host.database))

    def replication(self, name: str) -> Session:
        """A session on a member as the replication role, which may read what pg_rewind reads."""
        host = self._host
        try:
            return self._connector(host.replication.params(host.peer(name), dbname=REPLICATION_DATABASE, timeout=5))
        except HmsError as error:
            error.state = error.state or "Nothing was touched."
            error.next_step = error.next_step or (
                f"{host.replication.user} must be let in to the database {REPLICATION_DATABASE} on {name} from this "
                "host, for pg_rewind needs it: run playbooks/site.yml, which writes pg_hba.conf and the passfile."
            )
            raise

    def _primary(self, answer: Answer) -> PrimaryFacts:
        session = self.monitor(answer.name)
        try:
            slots = tuple(Slot(row[0], bool(row[1]), row[2], 0) for row in session.rows(_SLOTS))
            streaming = tuple(str(row[0]) for row in session.rows(_STREAMING))
        finally:
            session.close()
        return PrimaryFacts(answer, self._history(answer), slots, streaming)

    def _history(self, answer: Answer) -> History:
        if answer.timeline <= 1:
            return parse_history("", 1)
        session = self.replication(answer.name)
        try:
            content = session.value(_HISTORY, ("pg_wal/" + history_file(answer.timeline),))
        finally:
            session.close()
        return parse_history(bytes(content).decode("ascii", "replace"), answer.timeline)

    def _source_has_wal(self, primary: PrimaryFacts, fork: Fork, segment_size: int) -> bool:
        name = segment_name(fork.timeline, fork.lsn, segment_size)
        session = self.monitor(primary.name)
        try:
            return bool(session.value(_HAS_WAL, (name[8:], name[:8])))
        finally:
            session.close()

    # -- comparing ------------------------------------------------------------------------------------------------

    def _compare(self, found: RejoinFacts) -> Divergence | None:
        primary, control, member = found.primary, found.control, found.member
        if primary is None or control is None or control.system_identifier != primary.answer.system_identifier:
            return None
        if found.mark_state in ("killed", "finished") or found.rewinding or member.writable:
            return None
        try:
            if member.running:
                return self._compare_running(member, primary)
            return self._compare_stopped(control, primary)
        except HmsError as problem:
            return Divergence(fork=None, diverged=not member.running, problem=problem)

    def _compare_running(self, member: MemberFacts, primary: PrimaryFacts) -> Divergence:
        fork = find_fork(local_history(self._host.instance.data_directory, member.timeline), primary.history)
        if fork is None:
            return Divergence(fork=None, diverged=False, ahead=member.lsn > primary.answer.lsn)
        return Divergence(fork=fork, diverged=member.lsn > fork.lsn)

    def wal(self, control: ControlData) -> Wal:
        """This host's log; its server is stopped."""
        instance = self._host.instance
        tool = PgWaldump(bin_directory=instance.bin_directory, os_user=instance.os_user)
        history = local_history(instance.data_directory, own_timeline(instance.data_directory, control))
        return Wal(data_directory=instance.data_directory, control=control, history=history, tool=tool)

    def _compare_stopped(self, control: ControlData, primary: PrimaryFacts) -> Divergence:
        wal = self.wal(control)
        fork = find_fork(wal.history, primary.history)
        if fork is None:
            position = primary.answer.lsn
            ahead = _has_log_from(wal, wal.timeline, position)
            return Divergence(fork=None, diverged=False, ahead=ahead, restore_command=self._restore_command())
        if not goes_beyond(wal, fork):
            return Divergence(fork=fork, diverged=False, restore_command=self._restore_command())
        return Divergence(
            fork=fork,
            diverged=True,
            common=common_checkpoint(wal, fork),
            source_has_wal=self._source_has_wal(primary, fork, wal.segment_size),
            restore_command=self._restore_command(),
        )

    def _restore_command(self) -> str:
        instance = self._host.instance
        single = PostgresSingle(self._runner, bin_directory=instance.bin_directory, os_user=instance.os_user)
        return single.setting(instance.data_directory, config_file=config_file(self._host), name="restore_command")


def goes_beyond(wal: Wal, fork: Fork) -> bool:
    """Whether there is any record behind the fork."""
    if wal.timeline > fork.timeline or wal.control.checkpoint_lsn >= fork.lsn:
        return True
    return any(_has_log_from(wal, stretch.timeline, stretch.begin) for stretch in past_fork(wal.history, fork))


def _has_log_from(wal: Wal, timeline: int, lsn: int) -> bool:
    if timeline == wal.control.timeline and wal.control.checkpoint_lsn >= lsn:
        return True
    wanted = segment_name(timeline, lsn, wal.segment_size)
    if wanted not in wal.segments():
        return False  # a log that ends in an earlier file; what lies behind would have left a checkpoint or files
    return wal.tool.first_at_or_after(wal.directory, lsn, timeline=timeline) is not None
