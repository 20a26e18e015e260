# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Making a host a standby of its upstream: look, plan, do. PRIVATE."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .._artifact.pgbackrest_settings import settings_from
from .._clock import Clock
from .._cluster import member_config
from .._cluster.member_config import DatabaseHost
from .._command import CommandRunner
from .._errors import HmsError, Refused
from .._files import HeldLock
from .._module import Result
from .._postgres import ConnectionParams, Session
from .._tools import pgbackrest_fetch
from .._tools.pgbackrest_standby import PgBackRestStandby
from . import standby_archive, standby_plan
from .standby_apply import StandbyApplier, wait_streaming
from .standby_inspect import inspect_local, inspect_upstream, upstream_params
from .standby_model import (
    BASEBACKUP,
    DATA,
    PGBACKREST,
    ArchiveFacts,
    LocalFacts,
    StandbyPlan,
    StandbyWish,
    UpstreamFacts,
)

LOCK_FILE = "standby.lock"
STREAMING = "streaming"

Connect = t.Callable[..., Session]
"""Like `_postgres.connect`."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What the caller asks for."""

    config_directory: str
    upstream: str
    state: str = "present"
    allow_reclone: bool = False
    reuse_data: bool = False
    clone_method: str = BASEBACKUP
    clone_fallback: bool = False
    pgbackrest: t.Mapping[str, t.Any] | None = None
    clone_timeout: float = 21600.0
    stream_timeout: float = 60.0

    @property
    def method(self) -> str:
        """What makes a copy, for people."""
        return "pgbackrest" if self.clone_method == PGBACKREST else "pg_basebackup"


class Standby:
    """One request on this host."""

    def __init__(self, request: Request, *, connect: Connect, runner: CommandRunner, clock: Clock) -> None:
        self._request = request
        self._connect = connect
        self._runner = runner
        self._clock = clock

    def ensure(self, *, check_mode: bool) -> Result:
        """Bring the host to what is asked, or in check mode say what would be done."""
        host = self._load(check_mode=check_mode)
        if host is None:
            plan = f"copy {self._request.upstream} by {self._request.method} (this host is not set up yet)"
            return Result(True, {"plan": [plan], "cloned": False}, before={"standby": False}, after={"plan": [plan]})
        if not check_mode:
            _need_root()
        if check_mode:
            return self._ensure(host, check_mode=True)
        lock = HeldLock(os.path.join(host.state_directory, LOCK_FILE))
        holder = lock.acquire({"upstream": self._request.upstream, "pid": os.getpid()})
        if holder is not None:
            raise Refused(
                f"Another run works on the standby on this host (pid {holder.get('pid', 'unknown')}).",
                reason="locked",
                state="Nothing was touched.",
                next_step="Wait until it has ended, then run again.",
            )
        try:
            return self._ensure(host, check_mode=False)
        finally:
            lock.release()

    def _load(self, *, check_mode: bool) -> DatabaseHost | None:
        try:
            host = member_config.load(self._request.config_directory)
        except HmsError as error:
            if check_mode and error.reason == "not_a_member":
                return None
            raise
        if not isinstance(host, DatabaseHost):
            raise Refused(
                f"{host.name} is a bouncer host; a standby lives on a database host.",
                reason="not_a_database_host",
                state="Nothing was touched.",
                next_step="Run this for a host of the group of database hosts.",
            )
        return host

    def _pgbackrest(self, host: DatabaseHost) -> PgBackRestStandby | None:
        """The repository that was named; a copy from it needs one."""
        if self._request.pgbackrest is None and self._request.clone_method != PGBACKREST:
            return None
        named = settings_from(
            {"os_user": host.instance.os_user, **(self._request.pgbackrest or {})}, cluster=host.cluster
        )
        return PgBackRestStandby(
            self._runner, config=named.config, stanza=named.stanza, os_user=named.os_user, repo=named.repo
        )

    def _wish(self, host: DatabaseHost, pgbackrest: PgBackRestStandby | None) -> StandbyWish:
        peer = host.peer(self._request.upstream)
        return StandbyWish(
            member=host.name,
            upstream=peer.name,
            version=host.instance.version,
            data_directory=host.instance.data_directory,
            slot=host.slot_name,
            conninfo=host.primary_conninfo(peer),
            allow_reclone=self._request.allow_reclone,
            clone_method=self._request.clone_method,
            clone_fallback=self._request.clone_fallback,
            reuse_data=self._request.reuse_data,
            restore_command=pgbackrest_fetch.for_standby(pgbackrest.config, pgbackrest.stanza)
            if pgbackrest is not None
            else "",
        )

    def _ensure(self, host: DatabaseHost, *, check_mode: bool) -> Result:
        wish = self._wish(host, self._pgbackrest(host))
        local = inspect_local(host, runner=self._runner, reuse_data=wish.reuse_data)
        try:
            upstream = self._connect(upstream_params(host, wish.upstream))
        except HmsError as error:
            return self._without_upstream(wish, local, error, check_mode=check_mode)
        try:
            return self._with_upstream(host, wish, local, upstream, check_mode=check_mode)
        finally:
            upstream.close()

    def _without_upstream(self, wish: StandbyWish, local: LocalFacts, error: HmsError, *, check_mode: bool) -> Result:
        if check_mode and local.content != DATA:
            plan = f"copy {wish.upstream} by {self._request.method} ({wish.upstream} does not answer yet)"
            return Result(True, {"plan": [plan], "cloned": False}, before=_before(local), after={"plan": [plan]})
        error.next_step = error.next_step or (
            f"Is {wish.upstream} running, and does its pg_hba.conf let the replication role in from this host? "
            "Run playbooks/status.yml, then playbooks/site.yml."
        )
        raise error

    def _with_upstream(
        self, host: DatabaseHost, wish: StandbyWish, local: LocalFacts, session: Session, *, check_mode: bool
    ) -> Result:
        upstream = inspect_upstream(
            wish.upstream,
            session,
            with_size=local.content != DATA or wish.allow_reclone,
            with_wal=bool(wish.restore_command),
        )
        plan = standby_plan.plan(wish, local, upstream, self._archive(host, wish, local, upstream))
        values = _values(wish, plan)
        warnings = list(plan.warnings)
        if self._request.state == STREAMING:
            _check_can_stream(wish, local, plan, check_mode=check_mode)
        if not check_mode:
            applier = StandbyApplier(
                host,
                wish,
                upstream=session,
                connect_local=self._local_connector(host),
                runner=self._runner,
                clock=self._clock,
                clone_timeout=self._request.clone_timeout,
                pgbackrest=self._pgbackrest(host),
            )
            applier.apply(plan, local)
            warnings += applier.warnings
            values.update(cloned=plan.clones, kept_directory=applier.kept_directory)
            if self._request.state == STREAMING:
                values["receiver"] = self._wait(host, wish)
        after = _after(wish, local, plan)
        return Result(bool(plan.actions), values, before=_before(local), after=after, warnings=tuple(warnings))

    def _archive(
        self, host: DatabaseHost, wish: StandbyWish, local: LocalFacts, upstream: UpstreamFacts
    ) -> ArchiveFacts | None:
        """What the repository holds, where that matters: it may be far away."""
        for_copy, for_catching_up = standby_plan.needs_archive(wish, local, upstream)
        pgbackrest = self._pgbackrest(host)
        if pgbackrest is None or not (for_copy or for_catching_up):
            return None
        return standby_archive.look(
            pgbackrest, wish, local, upstream, for_copy=for_copy, for_catching_up=for_catching_up
        )

    def _local_connector(self, host: DatabaseHost) -> t.Callable[[], Session]:
        params: ConnectionParams = host.instance.local(statement_timeout=30.0)
        return lambda: self._connect(params, os_user=host.instance.os_user)

    def _wait(self, host: DatabaseHost, wish: StandbyWish) -> dict[str, t.Any]:
        return wait_streaming(
            host,
            wish,
            connect_local=self._local_connector(host),
            clock=self._clock,
            timeout=self._request.stream_timeout,
            longest=self._request.clone_timeout,
        )


def _need_root() -> None:
    if os.geteuid() != 0:
        raise Refused(
            "A standby is set up as root: directories change their owner and their place.",
            reason="not_root",
            state="Nothing was touched.",
            next_step="Set become: true.",
        )


def _check_can_stream(wish: StandbyWish, local: LocalFacts, plan: StandbyPlan, *, check_mode: bool) -> None:
    if plan.clones and not check_mode:
        raise Refused(
            f"{wish.member} has no standby yet.",
            reason="no_standby",
            state="Nothing was touched.",
            next_step="Call the module with state: present first, then start the instance.",
        )
    if not local.member.running and not check_mode:
        raise Refused(
            f"The instance on {wish.member} is not running.",
            reason="not_running",
            state="Nothing was touched.",
            next_step="Start it, then wait for streaming.",
        )


def _values(wish: StandbyWish, plan: StandbyPlan) -> dict[str, t.Any]:
    return {
        "plan": plan.lines(),
        "upstream": wish.upstream,
        "slot": wish.slot,
        "cloned": False,
        "kept_directory": "",
        "backup": plan.backup.as_value() if plan.backup is not None else {},
    }


def _before(local: LocalFacts) -> dict[str, t.Any]:
    return {
        "data_directory": local.content,
        "standby": local.member.standby_signal,
        "primary_conninfo": local.primary_conninfo,
        "primary_slot_name": local.primary_slot_name,
    }


def _after(wish: StandbyWish, local: LocalFacts, plan: StandbyPlan) -> dict[str, t.Any]:
    if not plan.actions:
        return _before(local)
    return {
        "data_directory": DATA,
        "standby": True,
        "primary_conninfo": wish.conninfo,
        "primary_slot_name": wish.slot,
        "plan": plan.lines(),
    }
