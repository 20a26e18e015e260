# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A backup by pgBackRest, from wish to result. PRIVATE."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import typing as t

from .._artifact import pgbackrest_catalog
from .._artifact.catalog import Entry
from .._artifact.manifest import Manifest
from .._artifact.pgbackrest_settings import driver as driver_of
from .._artifact.pgbackrest_settings import settings_from
from .._clock import iso, parse_iso
from .._errors import HmsError, Refused
from .._record import new_id
from .._tools.pgbackrest import PgBackRest
from . import pgbackrest_engine, pgbackrest_retention
from .facts import NOW, open_source
from .frame import Made, Operation
from .keeping import Keeping, pretended
from .plan import later_id
from .record import OPERATION, BackupRecord, ServerClock
from .retention import RetentionPlan, plan_retention


@dataclasses.dataclass(frozen=True)
class Sight:
    """What was seen of the server and the repository."""

    driver: PgBackRest
    clock: ServerClock
    known: tuple[Manifest, ...]
    identifier: str
    planned: pgbackrest_engine.Plan | None = None
    """What would be made. Looked at in check mode only: before it makes one, the engine looks by itself."""


class PhysicalOperation(Operation[Sight]):
    """One backup of the whole instance."""

    def _look(self, _stack: contextlib.ExitStack, /, *, check_mode: bool) -> Sight:
        wish = self._wish
        driver = driver_of(settings_from(wish.pgbackrest, cluster=wish.cluster), self._ports.runner)
        planned = None
        if check_mode:
            pgbackrest_engine.check_wish(wish)
        session = open_source(wish.connection, self._ports.connect)
        try:
            clock = ServerClock(self._ports.clock, parse_iso(session.value(f"SELECT {NOW}")))
            if check_mode:
                planned = pgbackrest_engine.plan(wish.type, pgbackrest_engine.look(driver, session))
        finally:
            session.close()
        known = self._manifests(driver)
        identifier = later_id(new_id(OPERATION, clock), max((one.id for one in known), default=""))
        return Sight(driver, clock, known, identifier, planned)

    def _manifests(self, driver: PgBackRest) -> tuple[Manifest, ...]:
        wish = self._wish
        found = pgbackrest_catalog.read(
            driver, cluster=wish.cluster, environment=wish.environment, database=wish.database
        )
        return tuple(found)

    def _planned(self, seen: Sight) -> tuple[Made, Keeping]:
        planned = t.cast(pgbackrest_engine.Plan, seen.planned)
        new = pretended(self._wish, seen.identifier, iso(seen.clock.now()), type_=planned.type)
        keeping = _keeping(seen, self._plan_retention(seen, [*seen.known, new]))
        warnings = (f"A full backup would be made: {planned.reason}.",) if planned.reason else ()
        return Made(self._told(seen, planned), None, warnings), keeping

    def _make(self, seen: Sight, record: BackupRecord) -> tuple[Made, Manifest]:
        made = record.step(
            "backup",
            f"pgBackRest makes and proves a backup of type {self._wish.type}",
            lambda: pgbackrest_engine.backup(
                self._wish,
                identifier=seen.identifier,
                by=self._ports.by,
                host=self._ports.host,
                runner=self._ports.runner,
                clock=seen.clock,
                connect=self._ports.connect,
            ),
            lambda done: f"{done.plan.type}, {done.manifest.bytes} bytes",
        )
        return Made(self._told(seen, made.plan), made.manifest, made.warnings), made.manifest

    def _plan_retention(self, seen: Sight, manifests: t.Sequence[Manifest]) -> RetentionPlan:
        entries = [
            Entry(manifest, seen.driver.place, (manifest.verification,) if manifest.verification else ())
            for manifest in manifests
        ]
        now: datetime.datetime = seen.clock.now()
        return plan_retention(entries, self._wish.retention, now)

    def _keep(self, seen: Sight, manifest: Manifest, record: BackupRecord) -> Keeping:
        """Remove what no rule keeps; a repository that refuses spoils nothing."""
        planned = self._plan_retention(seen, [*seen.known, manifest])
        problems = [planned.refused] if planned.refused else []
        record.put(backup=manifest.as_dict(), retention=planned.as_dict())
        if planned.removals:
            try:
                record.step(
                    "retention",
                    "Remove what no rule keeps",
                    lambda: pgbackrest_retention.remove(
                        seen.driver, [one.id for one in planned.removals], timeout=self._wish.timeout
                    ),
                    lambda gone: f"{len(gone)} removed",
                )
            except HmsError as error:
                problems.append(f"The backup is complete, but the repository could not be tidied up: {error.message}")
                with contextlib.suppress(HmsError, Refused):
                    left = {one.id for one in self._manifests(seen.driver)}
                    gone = tuple(one for one in planned.removals if one.id not in left)
                    planned = RetentionPlan(gone, planned.kept, planned.refused)
        return _keeping(seen, planned, problems)

    def _known(self, seen: Sight) -> t.Mapping[str, t.Sequence[str]]:
        return {seen.driver.place: [one.id for one in seen.known]}

    def _told(self, seen: Sight, planned: pgbackrest_engine.Plan) -> dict[str, t.Any]:
        return {
            "id": seen.identifier,
            "engine": "pgbackrest",
            "type": planned.type,
            "members": [],
            "stores": [seen.driver.place],
            "base": planned.base or None,
            "verify": self._wish.verify,
            "estimate": {"bytes": planned.bytes_estimate, "seconds": planned.seconds_estimate, "based_on": None},
        }


def _keeping(seen: Sight, planned: RetentionPlan, problems: t.Sequence[str] = ()) -> Keeping:
    """What goes and what stays, in the words of all engines."""
    place = seen.driver.place
    return Keeping(
        tuple({"store": place, "id": one.id, "why": one.why, "bytes": one.bytes} for one in planned.removals),
        tuple({"store": place, "id": one.id, "why": one.why} for one in planned.kept if one.id != seen.identifier),
        tuple(problems),
    )
