# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One backup on one throwaway instance, of whichever engine: its frame, its times, its outcome. PRIVATE."""

from __future__ import annotations

import abc
import dataclasses
import typing as t

from .._artifact.database import Connect
from .._artifact.manifest import Verification
from .._artifact.running import was_ended
from .._artifact.step_record import StepRecord
from .._clock import Clock, iso, parse_iso
from .._command import CommandRunner
from .._errors import HmsError
from . import plan
from .django import CHECKS, Answer, Django
from .instance import Folder, Throwaway
from .look import present_bytes
from .model import LEVEL, AnyTarget, Application, Order, Outcome, Prove, Restore

OPERATION = "drill"


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
    prove: Prove
    host: str
    by: str


@dataclasses.dataclass(frozen=True)
class Frame:
    """What the attempts of one drill have in common."""

    order: Order
    ports: Ports
    folder: Folder
    record: DrillRecord
    deadline: float

    def left(self) -> float:
        """Seconds that are left."""
        return max(self.deadline - self.ports.clock.monotonic(), 1.0)

    def remove(self) -> str:
        """Remove the throwaway instance."""
        self.folder.remove(self.ports.clock)
        return "removed"


class Attempt(abc.ABC):
    """One backup on one throwaway instance."""

    def __init__(self, frame: Frame, target: AnyTarget) -> None:
        self.frame = frame
        self.order = frame.order
        self.ports = frame.ports
        self.any_target = target
        self.instance = Throwaway(frame.folder, os_user=frame.order.os_user, runner=frame.ports.runner)
        self.seconds: dict[str, float] = {}
        self.validations: list[t.Mapping[str, t.Any]] = []
        self.recovered: dict[str, t.Any] = {}
        self.warnings: list[str] = []
        self._answer: Answer | None = None

    @abc.abstractmethod
    def work(self) -> None:
        """Bring it back and prove it; raises where that fails."""

    @abc.abstractmethod
    def spent(self) -> dict[str, float]:
        """How long each phase took."""

    @abc.abstractmethod
    def restore_seconds(self) -> float:
        """What a real restore would take too."""

    @abc.abstractmethod
    def projected(self, now: int | None) -> float | None:
        """How long it would take at today's size."""

    @abc.abstractmethod
    def moment(self) -> str:
        """The moment that came back."""

    @abc.abstractmethod
    def write_note(self, found: Verification) -> None:
        """Write the result beside the backup."""

    def run(self) -> Outcome:
        """Do it; the instance goes whatever comes of it."""
        failed: HmsError | None = None
        try:
            self.work()
        except HmsError as error:
            failed = error
            failed.reason = "interrupted" if was_ended(error) else error.reason
            self.validations = list(error.details.get("validations") or self.validations)
        finally:
            spent = self.spent()
            name = f"remove {self.any_target.database}"
            self.frame.record.step(name, "Remove the throwaway instance", self.frame.remove, str)
        return self._outcome(failed, spent)

    def timed(self, phase: str, work: t.Callable[[], t.Any], title: str, tell: t.Callable[[t.Any], str] = str) -> t.Any:
        """A step of the record whose seconds are kept."""
        begun = self.ports.clock.monotonic()
        try:
            return self.frame.record.step(f"{phase} {self.any_target.database}", title, work, tell)
        finally:
            self.seconds[phase] = round(self.ports.clock.monotonic() - begun, 3)

    def note(self) -> dict[str, t.Any]:
        """What the marker says of this instance."""
        return {
            "cluster": self.order.sources.cluster,
            "id": self.frame.record.identifier,
            "backup": self.any_target.entry.id,
            "since": iso(self.ports.clock.now()),
        }

    @property
    def _application(self) -> Application | None:
        """The application, where it is this backup's."""
        found = self.order.application
        return found if found is not None and found.database in ("", self.any_target.database) else None

    @property
    def guest(self) -> str:
        """The user of the system that the application runs as, '' for none."""
        return self._application.os_user if self._application else ""

    def ask_application(self, database: str) -> None:
        """Django's own words about what came back, where there is an application."""
        application = self._application
        if application is None:
            return
        django = Django(application, self.instance, self.ports.runner, self.ports.connect, self.frame.left)
        self._answer = self.timed("django", lambda: django.ask(database), "Ask Django", Answer.told)
        self.validations += self._answer.checks()
        self.warnings += self._answer.warnings(self.any_target.entry.id)

    def refuse_what_fails(self) -> None:
        """Raise about the checks that don't hold."""
        wrong = [check for check in self.validations if not check.get("ok")]
        if wrong:
            told = "; ".join(f"{_where(check)}: {check.get('detail')}" for check in wrong)
            raise HmsError(
                f"What came back is not as it should be: {told}.",
                reason="wal_missing" if {check.get("name") for check in wrong} == {"wal"} else "validation_failed",
                phase="validate",
                details={"validations": list(self.validations)},
            )

    def _outcome(self, failed: HmsError | None, spent: t.Mapping[str, float]) -> Outcome:
        target, seconds = self.any_target, self.restore_seconds()
        now = present_bytes(self.order, target, self.ports.connect)
        ok = failed is None
        moment = self.moment() if ok else ""
        return Outcome(
            database=target.database,
            id=target.entry.id,
            store=target.entry.store,
            ok=ok,
            problems=() if failed is None else (failed.message,),
            reason="" if failed is None else failed.reason,
            seconds=dict(spent),
            restore_seconds=seconds,
            bytes=target.bytes,
            bytes_per_second=plan.rate(target.bytes, spent.get("load")),
            database_bytes=target.database_bytes,
            present_bytes=now,
            projected_rto_seconds=self.projected(now) if ok else None,
            validations=tuple(self.validations),
            noted=self._note(failed, seconds),
            engine=target.entry.manifest.engine,
            label=str(target.entry.manifest.contents.get("label") or ""),
            recovered=dict(self.recovered),
            rpo_seconds=round((self.ports.clock.now() - parse_iso(moment)).total_seconds(), 1) if moment else None,
            django=self._answer.as_dict() if self._answer else {},
        )

    def _note(self, failed: HmsError | None, seconds: float) -> bool:
        """Write the result beside the backup: a success, or a failure that is the backup's own."""
        if failed is not None and not plan.is_damage(failed, {*self.order.assertions, *CHECKS}):
            return False
        found = Verification(
            LEVEL,
            ok=failed is None,
            at=iso(self.ports.clock.now()),
            seconds=seconds,
            problems=() if failed is None else (failed.message,),
        )
        try:
            self.write_note(found)
        except HmsError as error:
            self.warnings.append(f"The result can't be noted beside {self.any_target.entry.id}: {error.message}")
            return False
        return True


def _where(check: t.Mapping[str, t.Any]) -> str:
    database = check.get("database")
    return f"{check.get('name')} in {database}" if database else str(check.get("name"))
