# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a job tells of itself: to people, to a watchdog, to Prometheus. PRIVATE to the collection.

Nothing here can fail a backup: what can't be told is said in the log, and the exit code stays the backup's.
"""

from __future__ import annotations

import dataclasses
import socket
import typing as t

from .._artifact.catalog import Entry
from .._artifact.sources import look
from .._clock import Clock, parse_iso
from .._command import CommandRunner
from .._errors import HmsError
from .._files import read_bytes
from .._store.open_store import open_store
from .freshness import AS_GOOD_AS, Freshness
from .metrics import Sample, parse, update_textfile
from .notify import Event, human_bytes, human_seconds, send
from .policy import Job, Policy
from .policy_sources import of_policy

Look = t.Callable[[Policy, Job], t.Sequence[Entry]]


@dataclasses.dataclass(frozen=True)
class Report:
    """What is worth telling of a backup that was made."""

    id: str = ""
    bytes: int | None = None
    seconds: float | None = None
    verified: bool = False

    @classmethod
    def of(cls, manifest: t.Mapping[str, t.Any]) -> Report:
        """From a manifest as plain data."""
        proven = manifest.get("verification") or {}
        return cls(
            str(manifest.get("id", "")),
            sum(int(member["bytes"]) for member in manifest.get("members") or ()),
            float(manifest.get("seconds") or 0.0),
            bool(proven.get("ok")) and not proven.get("partial"),
        )

    @property
    def told(self) -> str:
        """One line for the log."""
        proven = "verified" if self.verified else "NOT verified"
        size, took = human_bytes(self.bytes or 0), human_seconds(self.seconds or 0.0)
        return f"{self.id} is complete: {size} in {took}, {proven}."


def entries_of(runner: CommandRunner) -> Look:
    """Looks up what the stores of a job hold."""

    def found(policy: Policy, job: Job) -> t.Sequence[Entry]:
        sources = of_policy(dataclasses.replace(policy, base={}, jobs=(job,)), job.wish.database)
        return look(sources, runner=runner, windows=False).catalog.entries

    return found


class Reporter:
    """Tells."""

    def __init__(self, policy: Policy, clock: Clock, say: t.Callable[[str], None], look_up: Look) -> None:
        self._policy = policy
        self._clock = clock
        self._say = say
        self._look_up = look_up

    def started(self, job: Job) -> None:
        """It begins."""
        self._send(self._event("start", "backup", job))

    def succeeded(self, job: Job, report: Report, seconds: float, warnings: t.Sequence[str]) -> None:
        """It is done."""
        event = self._event("success", "backup", job, warnings=tuple(warnings), seconds=seconds)
        self._send(dataclasses.replace(event, id=report.id, bytes=report.bytes, verified=report.verified))
        self.measure(job, success=True)

    def failed(self, job: Job, error: HmsError, seconds: float) -> None:
        """It failed, or was refused because another one is at work: no backup came of it either way."""
        self._send(self._event("failure", "backup", job, seconds=seconds, **_of_error(error)))
        self.measure(job, success=False)

    def watched(self, job: Job, verdicts: t.Sequence[Freshness]) -> None:
        """The newest verified backup of a job was looked at; people hear of it only when it is too old."""
        stale = [verdict for verdict in verdicts if not verdict.ok]
        if stale:
            told = {
                "message": " ".join(verdict.what for verdict in stale),
                "next_step": "Look why the job did not run or failed (its log is in the journal), and make a backup.",
            }
            self._send(self._event("failure", "freshness check", job, **told))
        self.measure(job)

    def verification_failed(self, error: HmsError) -> None:
        """Backups that exist were looked at, and not all of them hold."""
        if self._policy.jobs:
            job = self._policy.jobs[0]
            event = self._event("failure", "verification", job, **_of_error(error))
            self._send(dataclasses.replace(event, job="", type="", engine="", where=()))

    def drill_failed(self, error: HmsError, seconds: float) -> None:
        """A restore drill did not bring everything back."""
        self._tell_of_drill("failure", seconds, _of_error(error))

    def drilled(self, results: t.Sequence[t.Mapping[str, t.Any]], seconds: float, warnings: t.Sequence[str]) -> None:
        """A restore drill brought everything back."""
        told = ", ".join(f"{one['id']} of {one['database']} ({one['engine']})" for one in results)
        self._tell_of_drill("success", seconds, {"message": f"Came back: {told}."}, warnings)

    def _tell_of_drill(
        self,
        kind: t.Literal["success", "failure"],
        seconds: float,
        told: t.Mapping[str, str],
        warnings: t.Sequence[str] = (),
    ) -> None:
        if not self._policy.jobs:
            return
        event = self._event(kind, "restore drill", self._policy.jobs[0], seconds=seconds, **told)
        event = dataclasses.replace(event, job="", type="", engine="", where=(), database="", warnings=tuple(warnings))
        self._send(event)
        for job in self._policy.jobs:
            self.measure(job)

    def _event(self, kind: t.Literal["start", "success", "failure"], what: str, job: Job, **more: t.Any) -> Event:
        wish = job.wish
        where = [open_store(spec).name for spec in wish.stores]
        where += ["pgBackRest's repository"] if wish.engine == "pgbackrest" else []
        return Event(
            kind,
            what,
            cluster=wish.cluster,
            host=socket.gethostname(),
            environment=wish.environment,
            database=wish.database,
            job=job.name,
            type=wish.type,
            engine=wish.engine,
            where=tuple(where),
            **more,
        )

    def _send(self, event: Event) -> None:
        for problem in send(self._policy.notify, event):
            self._say(f"warning: nobody was told by {problem}")

    def measure(self, job: Job, *, success: bool | None = None) -> None:
        """Write the job's metrics; `success` None where the job did not run here."""
        path = self._policy.metrics.get("path")
        if not path:
            return
        own = {"cluster": job.wish.cluster, "job": job.name}
        labels = {**own, "database": job.wish.database, "engine": job.wish.engine, "type": job.wish.type}
        values = self._run_values(success)
        try:
            values.update(catalog_values(job, self._look_up(self._policy, job), self._clock.now().timestamp()))
        except HmsError as error:
            self._say(f"warning: the metrics keep what the catalog held before: {error.message}")
        try:
            known = {one.name: one.value for one in _known(str(path)) if own.items() <= dict(one.labels).items()}
            samples = [Sample(name, value, labels) for name, value in {**known, **values}.items()]
            update_textfile(str(path), samples, owner=own)
        except HmsError as error:
            self._say(f"warning: {error.full_text()}")

    def _run_values(self, success: bool | None) -> dict[str, float]:
        if success is None:
            return {}
        return {
            "hms_backup_last_run_timestamp_seconds": self._clock.now().timestamp(),
            "hms_backup_last_run_success": float(success),
        }


def _of_error(error: HmsError) -> dict[str, str]:
    return {"message": error.message, "state": error.state, "next_step": error.next_step}


def _known(path: str) -> list[Sample]:
    try:
        return parse((read_bytes(path) or b"").decode("utf-8", "replace"))
    except OSError:
        return []


def _of_repository(job: Job, entry: Entry) -> bool:
    return (entry.manifest.database, entry.manifest.engine) == (job.wish.database, job.wish.engine)


def catalog_values(job: Job, entries: t.Sequence[Entry], now: float) -> dict[str, float]:
    """What the catalog says about a job's backups."""
    values = {} if job.max_age is None else {"hms_backup_max_age_seconds": job.max_age}
    own = [
        entry
        for entry in entries
        if (entry.manifest.database, entry.manifest.engine, entry.manifest.type)
        == (job.wish.database, job.wish.engine, job.wish.type)
    ]
    good = AS_GOOD_AS.get(job.wish.type, frozenset({job.wish.type}))
    alike = [entry for entry in entries if entry.manifest.engine == job.wish.engine and entry.manifest.type in good]
    if job.restored_within is not None:
        values["hms_backup_restored_within_seconds"] = job.restored_within
    # pgBackRest's backups build on each other, so a drill of any of them will do
    drilled = own if job.wish.engine != "pgbackrest" else [one for one in entries if _of_repository(job, one)]
    drills = [parse_iso(entry.restored.at).timestamp() for entry in drilled if entry.restored]
    if drills:
        values["hms_backup_last_restored_timestamp_seconds"] = max(drills)
    values["hms_backup_count"] = float(len({entry.id for entry in own}))
    if own:
        newest = max(own, key=lambda entry: (entry.moment, entry.verified))
        values["hms_backup_last_success_timestamp_seconds"] = newest.moment.timestamp()
        values["hms_backup_size_bytes"] = float(newest.manifest.bytes)
        values["hms_backup_duration_seconds"] = newest.manifest.seconds
        values["hms_backup_verified"] = float(newest.verified)
    verified = [entry.moment.timestamp() for entry in alike if entry.verified]
    if verified:
        values["hms_backup_last_verified_timestamp_seconds"] = max(verified)
        values["hms_backup_age_seconds"] = round(now - max(verified))
    return values
