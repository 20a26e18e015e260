# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bringing an old primary, or a lost standby, back: look, plan, do, prove. PRIVATE."""

from __future__ import annotations

import dataclasses
import functools
import os
import typing as t

from .._clock import Clock
from .._command import CommandRunner
from .._errors import HmsError, Refused, defect
from .._files import HeldLock
from .._module import Result
from .._postgres import connect
from . import member_config, rejoin_plan
from .agent import LOCK_FILE
from .member_config import DatabaseHost
from .rejoin_apply import Patience, Recloner, RejoinApplier
from .rejoin_facts import RejoinInspector
from .rejoin_model import RejoinFacts, RejoinPlan, RejoinWish
from .rejoin_peers import Connect
from .rejoin_record import RejoinRecord, situation, software
from .rejoin_rewind import RewindJob

_ROUNDS = 4
"""Plans that only make it possible to look again: wait for an orphan, stop a server, then the real one."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What the caller asks for."""

    config_directory: str
    by: str = ""
    allow_reclone: bool = False
    allow_stop: bool = False
    patience: Patience = dataclasses.field(default_factory=Patience)

    def parameters(self, host: str) -> dict[str, t.Any]:
        """For the record."""
        return {"host": host, "allow_reclone": self.allow_reclone, "allow_stop": self.allow_stop}


class Rejoin:
    """One request on this host."""

    def __init__(
        self,
        request: Request,
        *,
        recloner: Recloner,
        runner: CommandRunner,
        clock: Clock,
        connector: Connect = connect,
    ) -> None:
        self._request = request
        self._recloner = recloner
        self._runner = runner
        self._clock = clock
        self._connector = connector
        self._wish = RejoinWish(allow_reclone=request.allow_reclone, allow_stop=request.allow_stop)

    def ensure(self, *, check_mode: bool) -> Result:
        """Bring the host to streaming, or in check mode say how."""
        host = self._load()
        inspector = RejoinInspector(host, runner=self._runner, connector=self._connector)
        if check_mode:
            found = inspector.inspect()
            return _planned(found, rejoin_plan.plan(found, self._wish))
        lock = HeldLock(os.path.join(host.state_directory, LOCK_FILE))
        holder = lock.acquire({"id": "rejoin", "by": self._request.by, "pid": os.getpid()})
        if holder is not None:
            raise Refused(
                f"Another operation works on {host.name}: {holder.get('id', '?')} by {holder.get('by', '?')}.",
                reason="locked",
                state="Nothing was touched.",
                next_step="Wait until it has ended, then run again.",
            )
        try:
            found = inspector.inspect()
            plan = rejoin_plan.plan(found, self._wish)
            if not plan.actions:
                return _planned(found, plan)
            return self._carry_out(host, inspector, found, plan)
        finally:
            lock.release()

    def _load(self) -> DatabaseHost:
        host = member_config.load(self._request.config_directory)
        if not isinstance(host, DatabaseHost):
            raise Refused(
                f"{host.name} is a bouncer host; only a database host can rejoin.",
                reason="not_a_database_host",
                state="Nothing was touched.",
                next_step="Name a host of the group of database hosts.",
            )
        if os.geteuid() != 0:
            raise Refused(
                "A rejoin runs as root: it stops and starts the server and changes its files.",
                reason="not_root",
                state="Nothing was touched.",
                next_step="Set become: true.",
            )
        return host

    def _carry_out(
        self, host: DatabaseHost, inspector: RejoinInspector, found: RejoinFacts, plan: RejoinPlan
    ) -> Result:
        parameters = self._request.parameters(host.name)
        record = RejoinRecord(host, by=self._request.by, parameters=parameters, clock=self._clock)
        job = RewindJob(host, inspector, operation=record.identifier, runner=self._runner, clock=self._clock)
        if found.mark is not None and found.mark_state in ("killed", "finished"):
            job.adopt(found.mark)
        applier = RejoinApplier(
            host,
            inspector,
            job,
            runner=self._runner,
            clock=self._clock,
            connector=self._connector,
            recloner=self._recloner,
            patience=self._request.patience,
        )
        lines = plan.lines()
        record.put(system_identifier=found.control.system_identifier if found.control else "", before=situation(found))
        try:
            for _round in range(_ROUNDS):
                if found.primary is None:
                    raise defect("primary")
                record.plan(plan, found.primary.name)
                self._apply(record, applier, found, plan)
                if not plan.look_again:
                    break
                found = inspector.inspect()
                plan = rejoin_plan.plan(found, self._wish)
                lines += plan.lines()
            after = inspector.inspect()
        except HmsError as error:
            _give_up(record, job, error)
            raise
        return _done(record, job, applier, after, lines, plan)

    @staticmethod
    def _apply(record: RejoinRecord, applier: RejoinApplier, found: RejoinFacts, plan: RejoinPlan) -> None:
        for action in plan.actions:
            record.step(action, functools.partial(applier.do, action, found))


def _values(found: RejoinFacts, plan: RejoinPlan) -> dict[str, t.Any]:
    return {
        "primary": found.primary.name if found.primary else "",
        "case": plan.case,
        "message": plan.summary,
        "plan": plan.lines(),
        "lost_transactions": None,
        "kept_directory": "",
        "old_data_directory": "",
        "record": {},
    }


def _planned(found: RejoinFacts, plan: RejoinPlan) -> Result:
    before = situation(found)
    after = {"plan": plan.lines()} if plan.actions else before
    return Result(bool(plan.actions), _values(found, plan), before=before, after=after)


def _keep_losses(record: RejoinRecord, job: RewindJob) -> None:
    if job.losses is not None:
        record.put(losses=job.losses, kept_directory=job.folder)


def _give_up(record: RejoinRecord, job: RewindJob, error: HmsError) -> None:
    _keep_losses(record, job)
    next_steps = [error.next_step] if error.next_step else []
    document = record.finish("incomplete", error.full_text(), next_steps)
    error.details["record"] = document


def _done(
    record: RejoinRecord,
    job: RewindJob,
    applier: RejoinApplier,
    after: RejoinFacts,
    lines: t.Sequence[str],
    plan: RejoinPlan,
) -> Result:
    _keep_losses(record, job)
    record.put(after=situation(after), software=software(after))
    values = _values(after, plan)
    message = f"{after.name} is a standby of {values['primary']} and streams."
    count = None
    if job.losses is not None:
        count = job.losses.get("count")
        message += f" {'An unknown number of' if count is None else count} transactions never replicated; "
        message += f"they are listed, and what held them is kept in {job.folder}."
    document = record.finish("done", message)
    values.update(
        message=message,
        plan=list(lines),
        lost_transactions=count,
        kept_directory=job.folder if job.losses is not None else "",
        old_data_directory=applier.kept_directory,
        record=document,
    )
    return Result(True, values, before=document.get("before"), after=document.get("after"))
