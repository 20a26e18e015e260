# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A backup by pg_dump, from wish to result: look, plan, make, keep. PRIVATE."""

from __future__ import annotations

import contextlib
import typing as t

from .._artifact.manifest import Manifest
from .._clock import iso
from .._errors import HmsError
from .._record import new_id
from .artifact import Artifact
from .frame import Made, Operation
from .keeping import Keeping, keep, plan_keeping, pretended
from .look import Look, look
from .operation import finish_failed
from .plan import BackupPlan, plan_backup, refuse
from .record import OPERATION, BackupRecord


class DumpOperation(Operation[Look]):
    """One backup of one database."""

    def _look(self, stack: contextlib.ExitStack, /, *, check_mode: bool) -> Look:
        ephemeral = not check_mode and self._wish.verify != "none"
        try:
            return look(self._wish, self._ports, stack, ephemeral=ephemeral, write_cache=not check_mode)
        except HmsError as error:
            if not check_mode:
                self._note_failure(error)
            raise

    def _note_failure(self, error: HmsError) -> None:
        """A run that saw nothing leaves a record all the same, under an id by this host's clock."""
        with contextlib.suppress(HmsError):
            clock = self._ports.clock
            finish_failed(self._record(new_id(OPERATION, clock), clock), error)

    def _plan(self, seen: Look) -> BackupPlan:
        return plan_backup(self._wish, seen.facts, identifier=seen.identifier)

    def _planned(self, seen: Look) -> tuple[Made, Keeping]:
        plan = self._plan(seen)
        refuse(plan)
        manifest = pretended(self._wish, plan.id, iso(seen.clock.now()))
        keeping, _plans = plan_keeping(seen.stores, seen.catalogs, manifest, self._wish.retention, seen.clock.now())
        return self._made(seen, plan, None), keeping

    def _make(self, seen: Look, record: BackupRecord) -> tuple[Made, Manifest]:
        plan = self._plan(seen)
        record.put(plan=plan.as_dict(self._wish), warnings=list(plan.warnings))
        refuse(plan)
        seen.catalogs.clear()  # thousands of backups need memory, and nobody asks until the dump is made
        manifest = Artifact(self._wish, seen, plan, record, self._ports, deadline=self._deadline).make()
        return self._made(seen, plan, manifest), manifest

    def _made(self, seen: Look, plan: BackupPlan, manifest: Manifest | None) -> Made:
        return Made(plan.as_dict(self._wish), manifest, (*plan.warnings, *seen.warnings))

    def _keep(self, seen: Look, manifest: Manifest, record: BackupRecord) -> Keeping:
        keeping = record.step(
            "retention",
            "Remove what no rule keeps",
            lambda: keep(seen.stores, manifest, self._wish.retention, seen.clock.now()),
            lambda done: f"{len(done.removed)} removed, {len(done.kept)} kept",
        )
        record.put(backup=manifest.as_dict(), removed=list(keeping.removed))
        return keeping

    def _known(self, seen: Look) -> t.Mapping[str, t.Sequence[str]]:
        return seen.known
