# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A restore from order to result: lock, look, plan, build, prove, hand over. PRIVATE."""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._artifact.manifest import key_part
from .._artifact.running import alone, busy, check_user, ending_properly
from .._artifact.scratch import drop_abandoned
from .._artifact.step_record import StepRecord
from .._clock import Clock
from .._errors import HmsError, Refused
from .._files import HeldLock
from .._module import Result
from .._record import new_id
from . import state
from .build import Builder, Proven, Shape, apply_shape, is_proven
from .look import OPERATION, Look, Ports, look
from .model import Order
from .names import scratch_prefix
from .plan import RestorePlan, left_of, plan_restore, refuse
from .shape import shape_of
from .validate import Check

UNTOUCHED = "The live database was not touched."
PERHAPS_GONE = "Where the live database was dropped already there is none of its name; the same run again goes on."


class RestoreRecord(StepRecord):
    """Journal of one restore."""

    operation = OPERATION


def lock_path(order: Order) -> str:
    """The lock of one database on this host."""
    return os.path.join(order.state_dir, f"restore-{key_part(order.database)}.lock")


class Planned(t.NamedTuple):
    """What is left to do, and what an earlier run for the very same order has done."""

    plan: RestorePlan
    live: bool
    ready: Proven | None


class RestoreOperation:
    """One restore."""

    def __init__(self, order: Order, ports: Ports) -> None:
        self.order = order
        self.ports = ports

    def run(self, *, check_mode: bool) -> Result:
        """Do it; in check mode say what would be done."""
        check_user(self.order.os_user)
        if check_mode:
            return self._preview()
        state_then = PERHAPS_GONE if self.order.strategy == "in_place" else UNTOUCHED
        with ending_properly("The restore", state_then), contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._alone())
            except HmsError as error:
                self._note_failure(error)
                raise
            return self._run()

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        return alone(HeldLock(lock_path(self.order)), self._what, by=self.ports.by, clock=self.ports.clock)

    @property
    def _what(self) -> str:
        return f"restore of {self.order.database}"

    def _preview(self) -> Result:
        order = self.order
        deadline = self.ports.clock.monotonic() + order.timeout
        holder = HeldLock(lock_path(order)).look()
        if holder is not None:
            raise busy(self._what, holder)
        with contextlib.ExitStack() as stack:
            seen = look(order, self.ports, stack, deadline=deadline)
            planned = self._planned(seen, check=True)
            refuse(planned.plan)
            changed = not planned.live and planned.ready is None
            return self._result(seen, planned.plan, planned.ready, changed=changed, record=None, already=planned.live)

    def _run(self) -> Result:
        deadline = self.ports.clock.monotonic() + self.order.timeout
        with contextlib.ExitStack() as stack:
            try:
                seen = look(self.order, self.ports, stack, deadline=deadline)
            except HmsError as error:
                self._note_failure(error)
                raise
            record = self._start(seen.identifier, seen.clock)
            try:
                planned = self._planned(seen, check=False)
                record.put(plan=planned.plan.as_dict(), warnings=list(planned.plan.warnings))
                refuse(planned.plan)
                result = self._carry_out(seen, planned, record)
            except HmsError as error:
                error.state = error.state or UNTOUCHED
                _finish_failed(record, error)
                raise
            except BaseException as error:
                record.finish("failed", f"It was ended: {type(error).__name__}.")
                raise
            return result

    def _note_failure(self, error: HmsError) -> None:
        """A run that saw too little leaves a record all the same, under an id by this host's clock."""
        with contextlib.suppress(HmsError):
            clock = self.ports.clock
            _finish_failed(self._start(new_id(OPERATION, clock), clock), error)

    def _start(self, identifier: str, clock: Clock) -> RestoreRecord:
        order = self.order
        return RestoreRecord(
            order.state_dir,
            identifier,
            cluster=order.cluster,
            environment=order.environment,
            host=self.ports.host,
            by=self.ports.by,
            parameters={
                "database": order.database,
                "backup": order.backup,
                "strategy": order.strategy,
                "jobs": order.workers,
                "masks": list(order.masks),
                "force": sorted(order.force),
                "confirm": order.confirm,
            },
            clock=clock,
        )

    def _planned(self, seen: Look, *, check: bool) -> Planned:
        plan = plan_restore(self.order, seen.artifact, seen.outline, seen.target, check=check)
        # what was proven was swapped in: OID and mark stay with it
        live = not self.order.again and self._proven_as(seen, plan.live) is not None
        ready = None if live else self._proven_as(seen, plan.scratch)
        return Planned(left_of(plan, live=live, ready=ready is not None), live, ready)

    def _carry_out(self, seen: Look, planned: Planned, record: RestoreRecord) -> Result:
        plan, live, ready = planned
        if self.order.strategy == "in_place":
            from .in_place import InPlace

            done = InPlace(self, seen, plan, record).run()
            record.finish("done", f"{plan.live} was restored in place from {seen.artifact.name}.")
            return self._result(seen, plan, done, changed=True, record=record.path)
        if live:
            record.finish("nothing_to_do", f"{plan.live} was made of {seen.artifact.name} already.")
            return self._result(seen, plan, None, changed=False, record=record.path, already=True)
        if ready is not None:
            apply_shape(seen, ready.name, shape_of(seen, self.order.database))
            record.put(validations=[check.as_dict() for check in ready.checks])
            record.finish("done", f"{ready.name} was proven before and waits for the swap.")
            return self._result(seen, plan, ready, changed=False, record=record.path)
        proven = self.build(seen, plan, record, shape_of(seen, self.order.database))
        record.finish("done", f"{proven.name} is proven and waits for the swap.")
        return self._result(seen, plan, proven, changed=True, record=record.path)

    def build(self, seen: Look, plan: RestorePlan, record: StepRecord, shape: Shape) -> Proven:
        """Make the scratch database, and remember that it is proven."""
        order = self.order
        state.save(order, scratch=None)
        drop_abandoned(seen.maintenance, scratch_prefix(order.cluster, order.database))
        builder = Builder(
            order, seen, shape, record, self.ports.connect, name=plan.scratch, no_tablespaces=plan.no_tablespaces
        )
        proven = builder.build()
        state.save(
            order,
            scratch={
                "name": proven.name,
                "oid": proven.oid,
                "mark": proven.mark,
                "order": state.digest(order, seen.artifact),
                "record": seen.identifier,
                "checks": [check.as_dict() for check in proven.checks],
            },
        )
        return proven

    def _proven_as(self, seen: Look, name: str) -> Proven | None:
        """What an earlier run proved for the very same order, if it is called `name` now."""
        known = state.load(self.order).get("scratch") or {}
        if self.order.strategy != "swap" or known.get("order") != state.digest(self.order, seen.artifact):
            return None
        if not is_proven(seen, name, int(known.get("oid", 0)), str(known.get("mark", ""))):
            return None
        checks = tuple(Check(**check) for check in known.get("checks", ()))
        return Proven(name, int(known["oid"]), str(known["mark"]), checks)

    def _result(
        self,
        seen: Look,
        plan: RestorePlan,
        proven: Proven | None,
        *,
        changed: bool,
        record: str | None,
        already: bool = False,
    ) -> Result:
        return Result(
            changed=changed,
            values={
                "id": seen.identifier,
                "ready": proven is not None and plan.strategy == "swap",
                "restored": proven is not None and plan.strategy == "in_place",
                "scratch": plan.scratch,
                "live_already": already,
                "live": plan.live,
                "live_exists": plan.live_exists,
                "before_name": plan.before,
                "strategy": plan.strategy,
                "plan": plan.as_dict(),
                "validations": [check.as_dict() for check in proven.checks] if proven else [],
                "record": record,
            },
            before={"plan": []},
            after={"plan": list(plan.steps)},
            warnings=plan.warnings,
        )


def _finish_failed(record: StepRecord, error: HmsError) -> None:
    with contextlib.suppress(HmsError):
        record.put(error=error.as_dict())
    status = "refused" if isinstance(error, Refused) else "failed"
    record.finish(status, error.message, [error.next_step] if error.next_step else [])
    error.details.setdefault("record", record.path)
