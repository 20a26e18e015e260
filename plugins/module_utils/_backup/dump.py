# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A backup by pg_dump, from wish to result: lock, look, plan, make, keep. PRIVATE."""

from __future__ import annotations

import contextlib
import typing as t

from .._artifact.manifest import Manifest
from .._clock import Clock, iso
from .._errors import HmsError
from .._files import HeldLock
from .._module import Result
from .._record import new_id
from .artifact import Artifact
from .keeping import Keeping, keep, plan_keeping, pretended
from .look import Look, Ports, look
from .model import Wish
from .operation import alone, check_user, ending_properly, finish_failed, lock_path, start_record, who
from .plan import BackupPlan, plan_backup, refuse
from .record import OPERATION, BackupRecord


class DumpOperation:
    """One backup."""

    def __init__(self, wish: Wish, ports: Ports) -> None:
        self._wish = wish
        self._ports = ports

    def run(self, *, check_mode: bool) -> Result:
        """Make it; in check mode say what would be made."""
        check_user(self._wish.os_user)
        if check_mode:
            return self._preview()
        with ending_properly(), alone(self._wish, clock=self._ports.clock, by=self._ports.by):
            return self._run()

    def _preview(self) -> Result:
        wish = self._wish
        with contextlib.ExitStack() as stack:
            seen = look(wish, self._ports, stack, ephemeral=False, write_cache=False)
            plan = plan_backup(wish, seen.facts, identifier=seen.identifier)
            refuse(plan)
            manifest = pretended(wish, plan.id, iso(seen.clock.now()))
            keeping, _plans = plan_keeping(seen.stores, seen.catalogs, manifest, wish.retention, seen.clock.now())
        holder = HeldLock(lock_path(wish)).look()
        busy = [f"Another backup is at work now: {who(holder)}."] if holder else []
        return self._result(seen, plan, None, keeping, record=None, warnings=busy)

    def _run(self) -> Result:
        deadline = self._ports.clock.monotonic() + self._wish.timeout
        with contextlib.ExitStack() as stack:
            try:
                seen = look(self._wish, self._ports, stack, ephemeral=self._wish.verify != "none", write_cache=True)
            except HmsError as error:
                self._note_failure(error)
                raise
            record = self._record(seen.identifier, seen.clock)
            try:
                plan = plan_backup(self._wish, seen.facts, identifier=seen.identifier)
                record.put(plan=plan.as_dict(self._wish), warnings=list(plan.warnings))
                refuse(plan)
                manifest = Artifact(self._wish, seen, plan, record, self._ports, deadline=deadline).make()
            except HmsError as error:
                finish_failed(record, error)
                raise
            except BaseException as error:
                record.finish("failed", f"It was ended: {type(error).__name__}.")
                raise
            keeping = self._keep(seen, manifest, record)
            record.finish("done", f"Backup {manifest.id} is complete: {manifest.bytes} bytes.")
            return self._result(seen, plan, manifest, keeping, record=record.path)

    def _keep(self, seen: Look, manifest: Manifest, record: BackupRecord) -> Keeping:
        keeping = record.step(
            "retention",
            "Remove what no rule keeps",
            lambda: keep(seen.stores, seen.catalogs, manifest, self._wish.retention, seen.clock.now()),
            lambda done: f"{len(done.removed)} removed, {len(done.kept)} kept",
        )
        record.put(backup=manifest.as_dict(), removed=list(keeping.removed))
        return keeping

    def _record(self, identifier: str, clock: Clock) -> BackupRecord:
        return start_record(self._wish, identifier, host=self._ports.host, by=self._ports.by, clock=clock)

    def _note_failure(self, error: HmsError) -> None:
        """A run that saw nothing leaves a record all the same, under an id by this host's clock."""
        with contextlib.suppress(HmsError):
            clock = self._ports.clock
            finish_failed(self._record(new_id(OPERATION, clock), clock), error)

    def _result(
        self,
        seen: Look,
        plan: BackupPlan,
        manifest: Manifest | None,
        keeping: Keeping,
        *,
        record: str | None,
        warnings: t.Sequence[str] = (),
    ) -> Result:
        before = {name: [entry.id for entry in known.entries] for name, known in seen.catalogs.items()}
        gone = {(one["store"], one["id"]) for one in keeping.removed}
        after = {name: [*(one for one in ids if (name, one) not in gone), plan.id] for name, ids in before.items()}
        return Result(
            changed=True,
            values={
                "id": plan.id,
                "plan": plan.as_dict(self._wish),
                "backup": manifest.as_dict() if manifest else None,
                "removed": list(keeping.removed),
                "kept": list(keeping.kept),
                "record": record,
            },
            before=before,
            after=after,
            warnings=tuple(dict.fromkeys([*plan.warnings, *seen.warnings, *keeping.warnings, *warnings])),
        )
