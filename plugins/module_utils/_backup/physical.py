# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A backup by pgBackRest, with what every backup has around it: lock, record, retention. PRIVATE."""

from __future__ import annotations

import contextlib
import datetime
import typing as t

from .._artifact import pgbackrest_catalog
from .._artifact.catalog import Entry
from .._artifact.manifest import Manifest
from .._artifact.pgbackrest_settings import driver as driver_of
from .._artifact.pgbackrest_settings import settings_from
from .._clock import iso, parse_iso
from .._command import CommandRunner
from .._errors import HmsError, Refused
from .._files import HeldLock
from .._module import Result
from .._postgres import Session
from .._record import new_id
from .._tools.pgbackrest import PgBackRest
from . import pgbackrest_engine, pgbackrest_retention
from .facts import NOW, open_source
from .keeping import pretended
from .look import Ports
from .model import Wish
from .operation import alone, check_user, ending_properly, finish_failed, lock_path, start_record, who
from .plan import later_id
from .record import OPERATION, BackupRecord, ServerClock
from .retention import RetentionPlan, plan_retention


class PhysicalOperation:
    """One backup of the whole instance."""

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

    def _driver(self) -> PgBackRest:
        runner: CommandRunner = self._ports.runner
        return driver_of(settings_from(self._wish.pgbackrest, cluster=self._wish.cluster), runner)

    def _known(self, driver: PgBackRest) -> list[Manifest]:
        wish = self._wish
        return pgbackrest_catalog.read(
            driver, cluster=wish.cluster, environment=wish.environment, database=wish.database
        )

    def _server_clock(self, session: Session) -> ServerClock:
        now = session.value(f"SELECT {NOW}")
        return ServerClock(self._ports.clock, parse_iso(now))

    def _preview(self) -> Result:
        wish, driver = self._wish, self._driver()
        pgbackrest_engine.check_wish(wish)
        session = open_source(wish.connection, self._ports.connect)
        try:
            clock = self._server_clock(session)
            planned = pgbackrest_engine.plan(wish.type, pgbackrest_engine.look(driver, session))
        finally:
            session.close()
        known = self._known(driver)
        identifier = _identifier(clock, known)
        new = pretended(wish, identifier, iso(clock.now()), type_=planned.type)
        keeping = self._plan_retention(driver, [*known, new], clock.now())
        holder = HeldLock(lock_path(wish)).look()
        warnings = [f"A full backup would be made: {planned.reason}."] if planned.reason else []
        warnings += [f"Another backup is at work now: {who(holder)}."] if holder else []
        return self._result(driver, identifier, planned, None, known, keeping, warnings=warnings)

    def _run(self) -> Result:
        wish, driver = self._wish, self._driver()
        session = open_source(wish.connection, self._ports.connect)
        try:
            clock = self._server_clock(session)
        finally:
            session.close()
        known = self._known(driver)
        identifier = _identifier(clock, known)
        record = start_record(wish, identifier, host=self._ports.host, by=self._ports.by, clock=clock)
        try:
            made = record.step(
                "backup",
                f"pgBackRest makes and proves a backup of type {wish.type}",
                lambda: pgbackrest_engine.backup(
                    wish,
                    identifier=identifier,
                    by=self._ports.by,
                    host=self._ports.host,
                    runner=self._ports.runner,
                    clock=clock,
                    connect=self._ports.connect,
                ),
                lambda done: f"{done.plan.type}, {done.manifest.bytes} bytes",
            )
        except HmsError as error:
            finish_failed(record, error)
            raise
        except BaseException as error:
            record.finish("failed", f"It was ended: {type(error).__name__}.")
            raise
        keeping, problems = self._keep(driver, made.manifest, known, clock, record)
        record.finish("done", f"Backup {identifier} is complete: {made.manifest.bytes} bytes.")
        return self._result(
            driver,
            identifier,
            made.plan,
            made.manifest,
            known,
            keeping,
            record=record.path,
            warnings=[*made.warnings, *problems],
        )

    def _plan_retention(
        self, driver: PgBackRest, manifests: t.Sequence[Manifest], now: datetime.datetime
    ) -> RetentionPlan:
        entries = [
            Entry(manifest, driver.place, (manifest.verification,) if manifest.verification else ())
            for manifest in manifests
        ]
        return plan_retention(entries, self._wish.retention, now)

    def _keep(
        self,
        driver: PgBackRest,
        manifest: Manifest,
        known: t.Sequence[Manifest],
        clock: ServerClock,
        record: BackupRecord,
    ) -> tuple[RetentionPlan, list[str]]:
        """Remove what no rule keeps; a repository that refuses spoils nothing."""
        planned = self._plan_retention(driver, [*known, manifest], clock.now())
        problems = [planned.refused] if planned.refused else []
        record.put(backup=manifest.as_dict(), retention=planned.as_dict())
        if planned.removals:
            try:
                record.step(
                    "retention",
                    "Remove what no rule keeps",
                    lambda: pgbackrest_retention.remove(
                        driver, [one.id for one in planned.removals], timeout=self._wish.timeout
                    ),
                    lambda gone: f"{len(gone)} removed",
                )
            except HmsError as error:
                problems.append(f"The backup is complete, but the repository could not be tidied up: {error.message}")
                with contextlib.suppress(HmsError, Refused):
                    left = {one.id for one in self._known(driver)}
                    gone = tuple(one for one in planned.removals if one.id not in left)
                    planned = RetentionPlan(gone, planned.kept, planned.refused)
        return planned, problems

    def _result(
        self,
        driver: PgBackRest,
        identifier: str,
        planned: pgbackrest_engine.Plan,
        manifest: Manifest | None,
        known: t.Sequence[Manifest],
        keeping: RetentionPlan,
        *,
        record: str | None = None,
        warnings: t.Sequence[str] = (),
    ) -> Result:
        before = [one.id for one in known]
        gone = {one.id for one in keeping.removals}
        return Result(
            changed=True,
            values={
                "id": identifier,
                "plan": {
                    "id": identifier,
                    "engine": "pgbackrest",
                    "type": planned.type,
                    "members": [],
                    "stores": [driver.place],
                    "base": planned.base or None,
                    "verify": self._wish.verify,
                    "estimate": {
                        "bytes": planned.bytes_estimate,
                        "seconds": planned.seconds_estimate,
                        "based_on": None,
                    },
                },
                "backup": manifest.as_dict() if manifest else None,
                "removed": [
                    {"store": driver.place, "id": one.id, "why": one.why, "bytes": one.bytes}
                    for one in keeping.removals
                ],
                "kept": [
                    {"store": driver.place, "id": one.id, "why": one.why}
                    for one in keeping.kept
                    if one.id != identifier
                ],
                "record": record,
            },
            before={driver.place: before},
            after={driver.place: [*(one for one in before if one not in gone), identifier]},
            warnings=tuple(dict.fromkeys(warnings)),
        )


def _identifier(clock: ServerClock, known: t.Sequence[Manifest]) -> str:
    return later_id(new_id(OPERATION, clock), max((one.id for one in known), default=""))
