# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent on any host can do with systemd units: look, stop, start again. PRIVATE.

What is stopped is noted on disk before it is stopped. The dead-man's rule: what was stopped is started again, whatever
became of the operation. Where the agent was killed as well, the note says to the next one what is left to be started.
"""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .._command import SystemRunner
from .._errors import DeadlinePassed, HmsError
from .._files import dump_json, read_json, remove_file, write_atomic
from .._tools.systemd_units import Systemctl, UnitState

if t.TYPE_CHECKING:  # pragma: no cover
    from .agent import Context

NOTE_FILE = "services.json"
POLL = 0.1
"""Seconds between two questions to systemd."""
SETTLE = 1.0
"""Seconds after which what was started must still run."""
ATTEMPTS, BETWEEN_ATTEMPTS = 5, 2.0
PATIENCE = 60.0
"""How often, and within how many seconds, the dead-man begins to start what doesn't start."""
NO_SYSTEMD = HmsError(
    "systemd does not run on this host, so it has no units.",
    reason="no_systemd",
    next_step="Name the hosts that run the services.",
)


@dataclasses.dataclass
class Note:
    """What was stopped on this host and not started again yet, in the order in which it was stopped."""

    operation: str = ""
    units: list[str] = dataclasses.field(default_factory=list)


class ServiceVerbs:
    """Verbs for units. Every verb checks what already holds, so that it can be given twice."""

    def __init__(self, context: Context, systemctl: Systemctl) -> None:
        self._context = context
        self._systemctl = systemctl
        self._deadline = 60.0
        self._told: set[str] = set()
        """What didn't start, and somebody was told so."""

    def verbs(self) -> dict[str, t.Callable[..., dict[str, t.Any]]]:
        """Verb → method."""
        return {
            "look_units": self.look_units,
            "stop_units": self.stop_units,
            "start_units": self.start_units,
            "settle_units": self.settle_units,
        }

    def look_units(self, *, units: t.Sequence[str]) -> dict[str, t.Any]:
        """How these units are, and what an operation that was killed left stopped."""
        if not self._systemctl.there:
            raise NO_SYSTEMD
        note = self._note()
        found = {unit: self._systemctl.show(unit) for unit in (*units, *note.units)}
        left = [unit for unit in note.units if not found[unit].runs]
        seen = [dataclasses.asdict(found[unit]) for unit in units]
        return {"units": seen, "left": left, "left_by": note.operation}

    def stop_units(self, *, units: t.Sequence[str], deadline: float) -> dict[str, t.Any]:
        """Stop them one after another, and prove each inactive. What doesn't run is left alone, and not noted."""
        self._deadline = deadline
        before: dict[str, str] = {}
        for unit in units:
            state = self._systemctl.show(unit)
            before[unit] = state.words
            if state.runs:
                self._remember(unit)
            if unit in self._note().units:
                self._context.units_down = True
            if not state.rests:
                self._stop(unit, deadline)
        return {"before": before}

    def _stop(self, unit: str, deadline: float) -> None:
        self._context.note("stopping_unit", lazy=False, unit=unit)
        self._systemctl.stop(unit)
        if not self._context.wait_for(lambda: self._systemctl.show(unit).rests, timeout=deadline, interval=POLL):
            raise DeadlinePassed(
                f"{unit} is {self._systemctl.show(unit).words} still, {deadline:g} seconds after it was to stop.",
                reason="unit_stays",
                next_step=f"See journalctl -u {unit}; let it end what it does, or raise services_deadline.",
            )

    def start_units(self, *, units: t.Sequence[str], deadline: float) -> dict[str, t.Any]:
        """Start them one after another, until each is active; one that fails keeps no other from starting.

        They stay noted until `settle_units` has seen that they still run.
        """
        seconds: dict[str, float] = {}
        failed: dict[str, str] = {}
        restarts: dict[str, int] = {}
        for unit in units:
            begun = self._context.clock.monotonic()
            try:
                restarts[unit] = self._start(unit, deadline).restarts
            except HmsError as error:
                failed[unit] = error.message
            seconds[unit] = round(self._context.clock.monotonic() - begun, 3)
        self._tell(failed)
        return {"seconds": seconds, "failed": failed, "restarts": restarts}

    def settle_units(self, *, restarts: t.Mapping[str, int]) -> dict[str, t.Any]:
        """A moment after their start: what still runs, and was not started again by systemd meanwhile, is forgotten."""
        failed: dict[str, str] = {}
        for unit, before in restarts.items():
            state = self._systemctl.show(unit)
            again = ", started again by systemd" if state.restarts > before else ""
            if state.up and not again:
                self._forget(unit)
            else:
                failed[unit] = f"{SETTLE:g} s after its start it is {state.words}{again}"
        self._tell(failed)
        return {"failed": failed}

    def _tell(self, failed: t.Iterable[str]) -> None:
        """Who asked is told what failed; only what nobody was told of is the dead-man's."""
        self._told |= set(failed)
        self._context.units_down = any(unit not in self._told for unit in self._note().units)

    def _start(self, unit: str, deadline: float) -> UnitState:
        if not self._systemctl.show(unit).up:
            self._context.note("starting_unit", lazy=False, unit=unit)
            self._systemctl.start(unit)
        found: list[UnitState] = []

        def decided() -> bool:
            found[:] = [self._systemctl.show(unit)]
            return found[0].up or found[0].gave_up

        if not self._context.wait_for(decided, timeout=deadline, interval=POLL):
            text = f"it is {found[0].words} still, after {deadline:g} seconds"
            raise DeadlinePassed(text, reason="unit_failed")
        if not found[0].up:
            raise HmsError(f"it is {found[0].words}", reason="unit_failed")
        return found[0]

    # -- the note ------------------------------------------------------------------------------------------------

    @property
    def _path(self) -> str:
        return os.path.join(self._context.state_directory, NOTE_FILE)

    def _note(self) -> Note:
        try:
            found = read_json(self._path)
            return Note(**found) if found else Note()
        except (ValueError, TypeError) as error:
            raise HmsError(
                f"{self._path} is damaged: {error}",
                reason="bad_note",
                next_step="It says which services an operation stopped. See that they run, then remove it.",
            ) from error

    def _remember(self, unit: str) -> None:
        """Note a unit before it is stopped; without a note on disk nothing is stopped."""
        note = self._note()
        if unit in note.units:
            return
        try:
            os.makedirs(self._context.state_directory, mode=0o755, exist_ok=True)
            write_atomic(self._path, dump_json({"operation": self._context.operation, "units": [*note.units, unit]}))
        except OSError as error:
            raise HmsError(
                f"That {unit} is stopped could not be noted in {self._path}: {error.strerror}. So it was not stopped.",
                reason="no_note",
                next_step="Make room there, or give a hms_state_dir that can be written.",
            ) from error

    def _forget(self, unit: str) -> None:
        note = self._note()
        if unit not in note.units:
            return
        note.units.remove(unit)
        if note.units:
            write_atomic(self._path, dump_json(dataclasses.asdict(note)))
        else:
            remove_file(self._path)

    # -- alone ---------------------------------------------------------------------------------------------------

    def alone(self) -> None:
        """The dead-man: start again what was stopped, in the other order."""
        clock = self._context.clock
        deadline = clock.monotonic() + PATIENCE
        for attempt in range(ATTEMPTS if self._context.units_down else 0):
            if attempt:
                clock.sleep(BETWEEN_ATTEMPTS)
            if clock.monotonic() > deadline:
                return
            units = list(reversed(self._note().units))
            started = self.start_units(units=units, deadline=self._deadline)
            clock.sleep(SETTLE)
            failed = {**started["failed"], **self.settle_units(restarts=started["restarts"])["failed"]}
            self._context.note("deadman_started_units", lazy=False, units=units, failed=failed)
            if not failed:
                return


class ServiceHandler:
    """A host that is no member of the cluster: it has nothing but services."""

    def verbs(self) -> t.Mapping[str, t.Callable[..., dict[str, t.Any]]]:
        return {}

    def observe(self) -> dict[str, t.Any]:
        """There is nothing to see beside its units."""
        return {"facts": {}}

    def channel_lost(self) -> None:
        """Its units are the agent's."""

    def close(self) -> None:
        """Nothing is open."""


def verbs_for(context: Context, program: str) -> ServiceVerbs:
    """The verbs with the host's own systemctl, or another `program`."""
    return ServiceVerbs(context, Systemctl(SystemRunner(), program))
