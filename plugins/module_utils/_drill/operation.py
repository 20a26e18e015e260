# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A restore drill from order to result: each backup on an instance of its own, its result noted. PRIVATE."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing as t

from .._artifact.catalog import note_verification
from .._artifact.database import Connect
from .._artifact.manifest import Verification
from .._artifact.running import alone, busy, check_user, ending_properly, was_ended
from .._artifact.step_record import RECORDS, StepRecord
from .._clock import Clock, iso
from .._command import CommandRunner
from .._errors import HmsError
from .._files import HeldLock
from .._module import Result
from .._record import list_records, load_record, new_id
from . import plan
from .instance import Folder, Throwaway, create_roles
from .look import present_bytes, programs_of, roles_in, targets_of
from .model import LEVEL, Order, Outcome, Restore, Target, Task

OPERATION = "drill"
_WHAT = "restore drill"
STATE = "The databases of this host were not touched."
_ENDED = ("interrupted", "deadline_passed")
"""After these the drill goes on with no other backup."""


class DrillRecord(StepRecord):
    """Journal of one drill."""

    operation = OPERATION


@dataclasses.dataclass(frozen=True)
class Ports:
    """What a drill needs of the world."""

    runner: CommandRunner
    clock: Clock
    connect: Connect
    restore: Restore
    host: str
    by: str


def phases(state_dir: str) -> dict[str, float]:
    """How long each step of the restore took, as its own record says."""
    directory = os.path.join(state_dir, RECORDS)
    names = list_records(directory)
    steps = (load_record(directory, names[-1]) or {}).get("steps", ()) if names else ()
    return {
        str(step["id"]): round(float(step["ended"]) - float(step["started"]), 3)
        for step in steps
        if step.get("ended") is not None
    }


class Drill:
    """One drill."""

    def __init__(self, order: Order, ports: Ports) -> None:
        self.order = order
        self.ports = ports
        self.folder = Folder(order.directory)
        self.outcomes: list[Outcome] = []
        self.warnings: list[str] = []
        self._deadline = ports.clock.monotonic() + order.timeout

    def run(self, *, check_mode: bool) -> Result:
        """Do it; in check mode say what would be done."""
        check_user(self.order.os_user)
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
        targets, problems = targets_of(self.order, self.ports.runner, write_cache=False)
        planned = [self._planned(target) for target in targets]
        values: dict[str, t.Any] = {"id": None, "planned": planned, "leftovers": left, "results": [], "record": None}
        told = [problem.what for problem in problems]
        return Result(changed=True, values=values, before=None, after={"drill": planned}, warnings=told)

    def _planned(self, target: Target) -> dict[str, t.Any]:
        problem = ""
        try:
            programs_of(target)
        except HmsError as error:
            problem = error.full_text()
        return {
            "database": target.database,
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
        targets, problems = targets_of(order, self.ports.runner, write_cache=True)
        self.warnings += [problem.what for problem in problems]
        if order.sources.pgbackrest:
            self.warnings.append("Backups by pgBackRest were not restored: the drill restores those by pg_dump.")
        record = self._start()
        try:
            if left:
                record.step("leftovers", f"Remove what is left in {self.folder.path}", self.remove, str)
            for target in targets:
                self._take(target, record)
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
        record.finish("failed" if bad else "done", told)
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
                next_step="Look at the problem, make a new backup, and run the drill again.",
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
                "directory": order.directory,
                "settings": dict(order.settings),
                "assertions": sorted(order.assertions),
            },
            clock=self.ports.clock,
        )

    def remove(self) -> str:
        """Remove the throwaway instance."""
        self.folder.remove(self.ports.clock)
        return "removed"

    def _take(self, target: Target, record: DrillRecord) -> None:
        """One backup: brought back, proven, noted; its instance goes whatever came of it."""
        taken = Attempt(self, target, record)
        outcome = taken.run()
        self.outcomes.append(outcome)
        self.warnings += taken.warnings
        record.put(results=self._results())
        if outcome.reason in _ENDED:
            raise HmsError(
                f"The drill ended with {outcome.id}: {'; '.join(outcome.problems)}",
                reason=outcome.reason,
                phase="restore",
                next_step="Run it again, with more time if that was short.",
            )

    def left(self) -> float:
        """Seconds that are left."""
        return self._deadline - self.ports.clock.monotonic()


class Attempt:
    """One backup on one throwaway instance."""

    def __init__(self, drill: Drill, target: Target, record: DrillRecord) -> None:
        self._drill = drill
        self._order = drill.order
        self._ports = drill.ports
        self._target = target
        self._record = record
        self._instance = Throwaway(drill.folder, os_user=drill.order.os_user, runner=drill.ports.runner)
        self._seconds: dict[str, float] = {}
        self.warnings: list[str] = []

    def run(self) -> Outcome:
        """Do it."""
        name = self._target.database
        failed: HmsError | None = None
        validations: t.Sequence[t.Mapping[str, t.Any]] = ()
        try:
            self._timed("prepare", self._prepare, f"Make a throwaway instance for {name}")
            done = self._timed("restore", self._restore, f"Bring {self._target.entry.id} back, and prove it")
            validations = done.values["validations"]
        except HmsError as error:
            failed = error
            failed.reason = "interrupted" if was_ended(error) else error.reason
            validations = error.details.get("validations") or ()
        finally:
            spent = self._phases()
            self._record.step(f"remove {name}", "Remove the throwaway instance", self._drill.remove, str)
        return self._outcome(failed, validations, spent)

    def _timed(self, phase: str, work: t.Callable[[], t.Any], title: str) -> t.Any:
        begun = self._ports.clock.monotonic()
        try:
            return self._record.step(f"{phase} {self._target.database}", title, work, _told)
        finally:
            self._seconds[phase] = round(self._ports.clock.monotonic() - begun, 3)

    def _prepare(self) -> str:
        target, order = self._target, self._order
        programs = programs_of(target)
        note = {"cluster": order.sources.cluster, "id": self._record.identifier, "backup": target.entry.id}
        self._instance.make(programs, order.settings, {**note, "since": iso(self._ports.clock.now())})
        roles = roles_in(target, order, self._ports.runner, self._ports.clock.monotonic() + self._drill.left())
        session = self._ports.connect(self._instance.params("postgres"))
        try:
            made = create_roles(session, roles)
        finally:
            session.close()
        return f"PostgreSQL {target.major} in {self._drill.folder.path}, {len(made)} roles"

    def _restore(self) -> Result:
        target = self._target
        return self._ports.restore(
            Task(
                database=target.database,
                backup=target.entry.id,
                sources=target.sources,
                connection=self._instance.params(target.database),
                state_dir=self._drill.folder.state,
                timeout=max(self._drill.left(), 1.0),
            )
        )

    def _phases(self) -> dict[str, float]:
        """The restore's own steps; what it took beside them is its look at the backup."""
        steps = phases(self._drill.folder.state)
        found = {"prepare": self._seconds.get("prepare", 0.0)}
        if "restore" in self._seconds:
            found["look"] = round(max(self._seconds["restore"] - sum(steps.values()), 0.0), 3)
        return {**found, **steps}

    def _outcome(
        self, failed: HmsError | None, validations: t.Sequence[t.Mapping[str, t.Any]], spent: t.Mapping[str, float]
    ) -> Outcome:
        target, seconds = self._target, self._seconds.get("restore", 0.0)
        now = present_bytes(self._order, target, self._ports.connect)
        return Outcome(
            database=target.database,
            id=target.entry.id,
            store=target.entry.store,
            ok=failed is None,
            problems=() if failed is None else (failed.message,),
            reason="" if failed is None else failed.reason,
            seconds=dict(spent),
            restore_seconds=seconds,
            bytes=target.bytes,
            bytes_per_second=plan.rate(target.bytes, spent.get("load")),
            database_bytes=target.database_bytes,
            present_bytes=now,
            projected_rto_seconds=plan.projected(seconds, target.database_bytes, now) if failed is None else None,
            validations=tuple(validations),
            noted=self._note(failed, seconds, len(validations)),
        )

    def _note(self, failed: HmsError | None, seconds: float, checks: int) -> bool:
        """Write the result beside the backup: a success, or a failure that is the backup's own."""
        if failed is not None and not plan.is_damage(failed, self._order.assertions):
            return False
        target = self._target
        rows = target.manifest.contents.get("rows")
        found = Verification(
            LEVEL,
            ok=failed is None,
            at=iso(self._ports.clock.now()),
            seconds=seconds,
            problems=() if failed is None else (failed.message,),
            rows_compared=len(rows) if checks and isinstance(rows, dict) else None,
        )
        try:
            note_verification(target.store, target.entry, target.manifest, found)
        except HmsError as error:
            self.warnings.append(f"The result can't be noted beside {target.entry.id}: {error.message}")
            return False
        return True


def _told(found: t.Any) -> str:
    return f"{len(found.values['validations'])} checks hold" if isinstance(found, Result) else str(found)
