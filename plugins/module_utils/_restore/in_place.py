# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A restore without room for two copies: backup, drop, build, rename; and the way back by itself. PRIVATE.

The live database's name is given only to what was proven: until then there is no database of that name, rather than
half a one. What is needed to go on after a kill is remembered in the host's state before anything is dropped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t

from .._artifact.database import DatabaseFacts
from .._artifact.directory import DirectoryArchive, judge
from .._artifact.step_record import StepRecord
from .._artifact.verify import is_directory
from .._clock import wait_until
from .._errors import HmsError, Refused, defect
from .._postgres import quote_identifier
from .._tools.pg_restore import PgRestore
from . import state
from .build import Builder, Proven, Shape
from .facts import count_sessions
from .find import find
from .look import Look
from .names import scratch_name
from .outline import read_outline
from .plan import RestorePlan
from .pour import Pourer
from .shape import shape_of

if t.TYPE_CHECKING:
    from .operation import RestoreOperation

_EXISTS = "SELECT 1 FROM pg_catalog.pg_database WHERE datname = %s"
_LEAVING = 5.0
"""Seconds for sessions to leave that have ended, as the backup's own: what DROP DATABASE gives them, too."""


class InPlace:
    """One restore in place."""

    def __init__(self, operation: RestoreOperation, seen: Look, plan: RestorePlan, record: StepRecord) -> None:
        self._operation = operation
        self._order = operation.order
        self._seen = seen
        self._plan = plan
        self._record = record

    def run(self) -> Proven:
        """All of it; what fails after the drop is put back from the backup that was made before."""
        shape, backup = self._give_way()
        try:
            proven = self._operation.build(self._seen, self._plan, self._record, shape)
        except HmsError as error:
            self._put_back(shape, backup, error)
            raise
        try:
            self._rename(proven.name)
        except HmsError as error:
            # what stands in the way of this name, or of an answer, stands in the way of the backup's too
            error.state = f"{self._plan.live} is restored and proven; it is called {proven.name} if not renamed yet."
            error.next_step = f"Run the same again: it goes on. {error.next_step}".strip()
            raise
        return proven

    def _give_way(self) -> tuple[Shape, str]:
        """Make room for it; what the database is to be, and the backup that leads back ('' for none)."""
        if self._seen.target.live is None:
            known = state.load(self._order).get("in_place")
            if known:
                return _shape_from(known), str(known["backup"])
            return shape_of(self._seen, self._order.database), ""
        shape = shape_of(self._seen, self._order.database)
        self._record.step("read", "Read the whole artifact before anything goes", self._read_all, str)
        backup = ""
        if self._order.backup_before:
            backup = self._record.step("backup", "Back up the live database as it is now", self._back_up, str)
        self._record.step("drop", f"Drop {self._plan.live}", lambda: self._drop(shape, backup), str)
        return shape, backup

    def _read_all(self) -> str:
        artifact, pourer = self._seen.artifact, self._seen.pourer
        if artifact.kind == "sql":
            return "read to its end before"
        program = PgRestore(self._seen.clients.pg_restore.path, os_user=self._order.os_user)
        what = f"Reading {artifact.name}"
        if is_directory(artifact.member):
            found = DirectoryArchive()
            stored = pourer.pour(artifact.member, what=what, sink=found)
            self._raise_doubts(found, program)
        else:
            stored = pourer.pour(artifact.member, what=what, last=[program.parse_stage()])
        return f"{stored.bytes} bytes, SHA-256 {stored.sha256}"

    def _raise_doubts(self, found: DirectoryArchive, program: PgRestore) -> None:
        deadline, os_user = self._seen.pourer.deadline, self._order.os_user
        _entries, doubts = judge(found, program, deadline=deadline, os_user=os_user)
        if doubts:
            raise HmsError(
                f"{self._seen.artifact.name} can't be restored: {'; '.join(doubts)}.",
                reason="artifact_damaged",
                phase="read",
                state="Nothing was touched.",
                next_step="Use another copy, or another backup.",
            )

    def _back_up(self) -> str:
        make = self._operation.ports.backup
        if make is None:
            raise defect("What makes the backup before the restore")
        made = make().values.get("backup") or {}
        verification = made.get("verification") or {}
        identifier = str(made.get("id", ""))
        if not verification.get("ok"):
            raise HmsError(
                f"The backup before the restore ({identifier}) is not verified.", reason="not_verified", phase="backup"
            )
        self._look_at(identifier)[1].check_key()
        return identifier

    def _look_at(self, identifier: str) -> tuple[Look, Pourer]:
        """The same look with the backup that was made before as its artifact."""
        seen = self._seen
        artifact = find(dataclasses.replace(self._order, backup=identifier), self._operation.ports.runner)
        pourer = Pourer(artifact, seen.keyring, deadline=seen.pourer.deadline, os_user=self._order.os_user)
        return dataclasses.replace(seen, artifact=artifact, pourer=pourer), pourer

    def _drop(self, shape: Shape, backup: str) -> str:
        order, maintenance = self._order, self._seen.maintenance
        params = order.connection
        if order.sessions != "terminate":
            wait_until(
                lambda: not count_sessions(maintenance, params),
                clock=self._operation.ports.clock,
                timeout=order.wait_seconds if order.sessions == "wait" else _LEAVING,
                interval=0.2,
            )
        sessions = count_sessions(maintenance, params)
        if sessions and order.sessions != "terminate":
            raise Refused(
                f"{sessions} sessions are connected to {self._plan.live}.",
                reason="sessions",
                phase="drop",
                state="The live database was not touched.",
                next_step="Stop the application, or say what to do with them (sessions: wait or terminate).",
            )
        state.save(order, in_place={**_shape_as_dict(shape), "backup": backup})
        force = " WITH (FORCE)" if order.sessions == "terminate" else ""
        try:
            maintenance.execute(f"DROP DATABASE {quote_identifier(self._plan.live)}{force}")
        except HmsError:
            # an answer that got lost is no answer: what the database was is forgotten only where it still is
            with contextlib.suppress(HmsError):
                if maintenance.value(_EXISTS, (self._plan.live,)):
                    state.save(order, in_place=None)
            raise
        return f"{sessions} sessions were ended" if sessions else "nobody was connected"

    def _rename(self, scratch: str) -> None:
        live = self._plan.live

        def rename() -> str:
            self._seen.maintenance.execute(
                f"ALTER DATABASE {quote_identifier(scratch)} RENAME TO {quote_identifier(live)}"
            )
            state.save(self._order, in_place=None, scratch=None)
            return f"{live} is back"

        self._record.step("rename", f"Give {scratch} the name {live}", rename, str)

    def _put_back(self, shape: Shape, backup: str, error: HmsError) -> None:
        """Bring the database back as it was; `error` tells how that went."""
        live = self._plan.live
        if not backup:
            error.state = f"{live} is gone: no backup was made before it was dropped, as was asked for."
            error.next_step = f"Restore another backup: there is room for it now. {error.next_step}".strip()
            return
        try:
            self._record.put(going_back=backup)
            name = self._build_from(backup, shape)
            self._rename(name)
        except HmsError as second:
            error.state = f"{live} is gone, and its backup {backup} could not be restored either: {second.message}"
            error.next_step = f"Remove the cause, then run again with backup={backup}. {second.next_step}".strip()
            return
        error.state = f"{live} is back as it was before, from the backup {backup} that was made for this."

    def _build_from(self, backup: str, shape: Shape) -> str:
        order = dataclasses.replace(self._order, backup=backup, masks=(), assertions=(), keep_failed=False)
        seen, pourer = self._look_at(backup)
        program = PgRestore(seen.clients.pg_restore.path, os_user=order.os_user)
        seen = dataclasses.replace(seen, outline=read_outline(seen.artifact, pourer, program))
        name = scratch_name(order.cluster, order.database, seen.artifact.identity)
        Builder(order, seen, shape, self._record, self._operation.ports.connect, name=name).build()
        return name


def _shape_as_dict(shape: Shape) -> dict[str, t.Any]:
    rights = None if shape.rights is None else [list(right) for right in shape.rights]
    return {"database": dataclasses.asdict(shape.database), "properties": dict(shape.properties), "rights": rights}


def _shape_from(data: t.Mapping[str, t.Any]) -> Shape:
    rights = data.get("rights")
    return Shape(
        DatabaseFacts(**data["database"]),
        data["properties"],
        None if rights is None else tuple((who, right, bool(grantable)) for who, right, grantable in rights),
    )
