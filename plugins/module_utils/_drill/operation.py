# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A restore drill from order to result: each backup on an instance of its own, its result noted. PRIVATE."""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._artifact.running import alone, busy, check_user, ending_properly
from .._errors import HmsError
from .._files import HeldLock
from .._module import Result
from .._record import new_id
from .attempt import OPERATION, Attempt, DrillRecord, Frame, Ports
from .django import check_application
from .dump import DumpAttempt
from .instance import Folder
from .look import aims_of, programs_of
from .model import AnyTarget, Order, Outcome, Target
from .physical import STATE, PhysicalAttempt

_WHAT = "restore drill"
NEXT = "Look at the problem, make a new backup, and run the drill again."
_ENDED = ("interrupted", "deadline_passed")
"""After these the drill goes on with no other backup."""


class Drill:
    """One drill."""

    def __init__(self, order: Order, ports: Ports) -> None:
        self.order = order
        self.ports = ports
        self.folder = Folder(order.directory)
        self.outcomes: list[Outcome] = []
        self.warnings: list[str] = []

    def run(self, *, check_mode: bool) -> Result:
        """Do it; in check mode say what would be done."""
        check_user(self.order.os_user)
        if self.order.application is not None:
            check_application(self.order.application)
        if check_mode:
            return self._preview()
        with ending_properly("The restore drill", STATE), self._alone():
            return self._run()

    def _lock(self) -> HeldLock:
        return HeldLock(os.path.join(self.order.state_dir, "drill.lock"))

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        return alone(self._lock(), _WHAT, by=self.ports.by, clock=self.ports.clock)

    def _preview(self) -> Result:
        holder = self._lock().look()
        if holder is not None:
            raise busy(_WHAT, holder)
        left = self.folder.check(self.order.sources.cluster)
        aims = aims_of(self.order, self.ports.runner, write_cache=False)
        planned = [self._planned(target) for target in aims.targets]
        values: dict[str, t.Any] = {"id": None, "planned": planned, "leftovers": left, "results": [], "record": None}
        told = [*(problem.what for problem in aims.problems), *(lost.error.full_text() for lost in aims.lost)]
        return Result(changed=True, values=values, before=None, after={"drill": planned}, warnings=told)

    def _planned(self, target: AnyTarget) -> dict[str, t.Any]:
        problem = ""
        try:
            programs_of(target)
        except HmsError as error:
            problem = error.full_text()
        return {
            "database": target.database,
            "engine": target.entry.manifest.engine,
            "id": target.entry.id,
            "store": target.entry.store,
            "bytes": target.bytes,
            "database_bytes": target.database_bytes,
            "version": target.major,
            "directory": self.folder.path,
            "problem": problem,
        }

    def _run(self) -> Result:
        order = self.order
        left = self.folder.check(order.sources.cluster)
        aims = aims_of(order, self.ports.runner, write_cache=True)
        self.warnings += [problem.what for problem in aims.problems]
        record = self._start()
        deadline = self.ports.clock.monotonic() + order.timeout
        frame = Frame(order, self.ports, self.folder, record, deadline)
        try:
            if left:
                record.step("leftovers", f"Remove what is left in {self.folder.path}", frame.remove, str)
            self.outcomes += [Outcome.of_lost(lost) for lost in aims.lost]
            for target in aims.targets:
                self._take(frame, target)
        except HmsError as error:
            error.state = error.state or STATE
            error.details.setdefault("results", self._results())
            record.finish("failed", error.message, [error.next_step] if error.next_step else [])
            raise
        except BaseException as error:
            record.finish("failed", f"It was ended: {type(error).__name__}.")
            raise
        bad = [outcome for outcome in self.outcomes if not outcome.ok]
        told = " ".join(outcome.told() + "." for outcome in bad or self.outcomes)
        record.finish("failed" if bad else "done", told, [NEXT] if bad else [])
        values = {
            "id": record.identifier,
            "planned": [],
            "leftovers": left,
            "results": self._results(),
            "record": record.path,
        }
        if bad:
            raise HmsError(
                told,
                reason="drill_failed",
                phase="restore",
                state=f"{STATE} {len(bad)} of {len(self.outcomes)} backups did not come back.",
                next_step=NEXT,
                details=values,
            )
        return Result(changed=True, values=values, warnings=self.warnings)

    def _results(self) -> list[dict[str, t.Any]]:
        return [outcome.as_dict() for outcome in self.outcomes]

    def _start(self) -> DrillRecord:
        order = self.order
        return DrillRecord(
            order.state_dir,
            new_id(OPERATION, self.ports.clock),
            cluster=order.sources.cluster,
            environment=order.sources.environment,
            host=self.ports.host,
            by=self.ports.by,
            parameters={
                "databases": list(order.databases),
                "engines": list(order.engines),
                "recover_to": order.recover_to,
                "directory": order.directory,
                "settings": dict(order.settings),
                "assertions": sorted(order.assertions),
            },
            clock=self.ports.clock,
        )

    def _attempt(self, frame: Frame, target: AnyTarget) -> Attempt:
        return DumpAttempt(frame, target) if isinstance(target, Target) else PhysicalAttempt(frame, target)

    def _take(self, frame: Frame, target: AnyTarget) -> None:
        """One backup: brought back, proven, noted; its instance goes whatever came of it."""
        taken = self._attempt(frame, target)
        outcome = taken.run()
        self.outcomes.append(outcome)
        self.warnings += taken.warnings
        frame.record.put(results=self._results())
        if outcome.reason in _ENDED:
            raise HmsError(
                f"The drill ended with {outcome.id}: {'; '.join(outcome.problems)}",
                reason=outcome.reason,
                phase="restore",
                next_step="Run it again, with more time if that was short.",
            )
