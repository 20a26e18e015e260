# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A dump on a throwaway instance: an empty one is made, and the restore does the rest. PRIVATE."""

from __future__ import annotations

import dataclasses
import os

from .._artifact.catalog import note_verification
from .._artifact.manifest import Verification
from .._artifact.step_record import RECORDS
from .._module import Result
from .._record import list_records, load_record
from . import plan
from .attempt import Attempt, Frame
from .instance import create_roles
from .look import programs_of, roles_in
from .model import Target, Task


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


class DumpAttempt(Attempt):
    """One dump."""

    def __init__(self, frame: Frame, target: Target) -> None:
        super().__init__(frame, target)
        self.target = target

    def work(self) -> None:
        name = self.target.database
        self.timed("prepare", self._prepare, f"Make a throwaway instance for {name}")
        done = self.timed("restore", self._restore, f"Bring {self.target.entry.id} back, and prove it", _told)
        self.validations = list(done.values["validations"])
        self.ask_application(str(done.values["scratch"]))
        self.refuse_what_fails()

    def _prepare(self) -> str:
        target, order = self.target, self.order
        self.instance.make(programs_of(target), order.settings, self.note(), guest=self.guest)
        deadline = self.ports.clock.monotonic() + self.frame.left()
        roles = roles_in(target, order, self.ports.runner, deadline)
        session = self.ports.connect(self.instance.params("postgres"))
        try:
            made = create_roles(session, roles)
        finally:
            session.close()
        return f"PostgreSQL {target.major} in {self.frame.folder.path}, {len(made)} roles"

    def _restore(self) -> Result:
        target = self.target
        return self.ports.restore(
            Task(
                database=target.database,
                backup=target.entry.id,
                sources=target.sources,
                connection=self.instance.params(target.database),
                state_dir=self.frame.folder.state,
                timeout=self.frame.left(),
            )
        )

    def spent(self) -> dict[str, float]:
        """The restore's own steps; what it took beside them is its look at the backup."""
        steps = phases(self.frame.folder.state)
        found = {"prepare": self.seconds.get("prepare", 0.0)}
        if "restore" in self.seconds:
            found["look"] = round(max(self.seconds["restore"] - sum(steps.values()), 0.0), 3)
        if "django" in self.seconds:
            steps["django"] = self.seconds["django"]
        return {**found, **steps}

    def restore_seconds(self) -> float:
        return self.seconds.get("restore", 0.0)

    def projected(self, now: int | None) -> float | None:
        return plan.projected(self.restore_seconds(), self.target.database_bytes, now)

    def moment(self) -> str:
        return str(self.target.manifest.snapshot.get("time") or self.target.manifest.started)

    def write_note(self, found: Verification) -> None:
        rows = self.target.manifest.contents.get("rows")
        compared = len(rows) if self.validations and isinstance(rows, dict) else None
        whole = dataclasses.replace(found, rows_compared=compared)
        note_verification(self.target.store, self.target.entry, self.target.manifest, whole)


def _told(found: Result) -> str:
    return f"{len(found.values['validations'])} checks hold"
