# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The side cluster brought to its target, step by step; each can be run again after a kill. PRIVATE."""

from __future__ import annotations

import dataclasses
import typing as t

from .._artifact import pgbackrest_restore
from .._artifact.recovery_log import stopped_at
from .._clock import Clock
from .._command import CommandRunner
from .._errors import HmsError
from .._pipeline import Pipeline
from .._tools import pgbackrest_fetch
from .._tools.pgbackrest import PgBackRest
from . import side
from .facts import libraries_here, limits_of
from .model import Action, Choice, Live, Marker, Order, Position, Target
from .record import PitrRecord
from .server import Server

UNTOUCHED = "The live cluster was not touched."
OTHERWISE = "Mend what the message names and run again: what is restored already stays."


@dataclasses.dataclass(frozen=True)
class Recovery:
    """Everything that the steps need."""

    order: Order
    live: Live
    folder: side.Folder
    server: Server
    driver: PgBackRest
    bin_directory: str
    runner: CommandRunner
    clock: Clock
    record: PitrRecord
    system_identifier: str
    deadline: float

    def left(self) -> float:
        """Seconds that are left."""
        return max(1.0, self.deadline - self.clock.monotonic())

    def apply(self, actions: t.Sequence[Action], marker: Marker, choice: Choice) -> Position:
        """Carry the actions out and wait for the pause at the target."""
        for action in actions:
            if action.what == "restore":
                marker = self._restore(dataclasses.replace(marker, label=choice.label), choice)
            if action.what == "advance":
                self._stop()
            if action.what in ("restore", "advance"):
                marker = dataclasses.replace(marker, stage="recovering", reached={})
                self._set_target(marker.target)
                side.write_marker(self.folder, marker)
            if action.what != "wait":
                self.record.step("start", "Start the side cluster", self.server.start, lambda _none: self.folder.data)
        return self._wait(marker)

    def _stop(self) -> None:
        self.record.step("stop", "Stop the side cluster", self.server.stop, lambda _none: "it is down")

    def _restore(self, marker: Marker, choice: Choice) -> Marker:
        side.make(self.folder, self.order.os_user, marker)
        self._stop()
        side.clear_remains(self.folder, self.clock)
        delta = side.prepare_data(self.folder)
        stage = self.driver.restore_stage(
            data=self.folder.data,
            label=choice.label,
            tablespaces=self.folder.tablespaces,
            spool_path=self.folder.part("spool"),
            lock_path=self.folder.part("lock"),
            processes=self.order.processes,
            delta=delta,
            timeline=marker.target.timeline,
        )
        pipeline = Pipeline([stage], deadline=self.deadline, what=f"Restoring {choice.label}", state=UNTOUCHED)
        how = "what differs of" if delta else "all of"
        title = f"Restore {how} {choice.label}"
        self.record.step(
            "restore",
            title,
            lambda: pgbackrest_restore.restore(pipeline, self.folder.data, otherwise=OTHERWISE),
            lambda _none: f"{choice.bytes} bytes",
        )
        self._write_settings(marker)
        return marker

    def _write_settings(self, marker: Marker) -> None:
        data = self.folder.data
        limits = limits_of(self.live.limits, self.runner, data, self.bin_directory, self.order.os_user)
        settings = side.server_settings(
            self.folder,
            port=marker.port,
            limits=limits,
            libraries=libraries_here(self.live.libraries, self.bin_directory),
            more=self.order.settings,
        )
        side.write_settings(self.folder, self.order.os_user, settings)

    def _set_target(self, target: Target) -> None:
        command = pgbackrest_fetch.for_recovery(
            self.driver, data=self.folder.data, spool_path=self.folder.part("spool"), lock_path=self.folder.part("lock")
        )
        side.write_recovery(self.folder, self.order.os_user, target, command)

    def _wait(self, marker: Marker) -> Position:
        position = self.record.step(
            "recover",
            f"Recover to {marker.target.describe()}",
            lambda: self.server.wait(self.left()),
            lambda found: f"paused at {found.as_dict()['lsn']}, last commit {found.last_commit or 'unknown'}",
        )
        reached = {**position.as_dict(), "log": stopped_at(side.read_log(self.folder))}
        side.write_marker(self.folder, dataclasses.replace(marker, stage="recovered", reached=reached))
        return position


def missing_segment(error: HmsError, hole: str, description: str) -> HmsError:
    """The end of the WAL, where it is a hole and not the end."""
    return HmsError(
        f"Recovery stopped before its target: {description}.",
        reason="wal_missing",
        phase="recover",
        state=error.state,
        next_step="Bring it back from another repository (repo2), or choose an earlier target or a later backup.",
        details={**error.details, "segment": hole},
    )
