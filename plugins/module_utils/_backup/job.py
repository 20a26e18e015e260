# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A job of the schedule, run on the host with no Ansible: whose turn, backup, verdict, everybody told. PRIVATE.

Each line goes to stderr, from where cron or systemd bring it to the journal. The exit code says it too: 0 is done, or
not this host's turn while all is well; 1 failed; 2 the configuration is bad; 75 another one is at work.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import traceback
import typing as t

from .._artifact.sources import look
from .._clock import Clock, SystemClock, iso
from .._command import CommandRunner, SystemRunner
from .._errors import HmsError
from .._module import Result
from . import policy as policies
from . import reverify
from .freshness import Demand, Freshness, Point, judge
from .info import is_standby
from .job_report import Look, Report, Reporter, entries_of
from .manager import backup
from .model import Wish
from .operation import ending_properly
from .policy import Job, Policy
from .policy_sources import of_policy

DONE, FAILED, BAD_CONFIG, BUSY = 0, 1, 2, 75

Say = t.Callable[[str], None]


def exit_code(error: HmsError) -> int:
    """What an error means to whoever started the job."""
    return {"bad_config": BAD_CONFIG, "busy": BUSY}.get(error.reason, FAILED)


def freshness_of(policy: Policy, jobs: t.Sequence[Job], runner: CommandRunner, clock: Clock) -> list[Freshness]:
    """A verdict for each job that demands something, from what the stores hold now."""
    demands = [demand for job in jobs if (demand := Demand.from_dict(job.as_dict())) is not None]
    if not demands:
        return []
    sources = of_policy(dataclasses.replace(policy, base={}, jobs=tuple(jobs)))
    seen = look(sources, runner=runner, windows=False)
    return judge([Point.of(entry) for entry in seen.catalog.entries], demands, clock.now())


@dataclasses.dataclass(frozen=True)
class Ports:
    """What a job needs of the world; tests give their own."""

    runner: CommandRunner
    clock: Clock
    say: Say
    standby: t.Callable[[Wish], bool] = is_standby
    make: t.Callable[..., Result] = backup
    fresh: t.Callable[[Policy, t.Sequence[Job], CommandRunner, Clock], list[Freshness]] = freshness_of
    look_up: Look | None = None

    def reporter(self, policy: Policy) -> Reporter:
        """Whoever tells others."""
        return Reporter(policy, self.clock, self.say, self.look_up or entries_of(self.runner))


class JobRun:
    """One run of one job."""

    def __init__(self, policy: Policy, job: Job, ports: Ports) -> None:
        self._policy = policy
        self._job = job
        self._ports = ports
        self._reporter = ports.reporter(policy)

    def run(self) -> int:
        """Make the backup if it is this host's turn; the exit code."""
        begun = self._ports.clock.monotonic()
        try:
            if not self._turn():
                return self._watch()
            self._reporter.started(self._job)
            made = self._ports.make(
                self._job.wish,
                check_mode=False,
                runner=self._ports.runner,
                clock=self._ports.clock,
                by=f"job {self._job.name}",
            )
        except HmsError as error:
            return self._failed(error, begun)
        return self._done(made, begun)

    def _turn(self) -> bool:
        """Whether this host is the one that makes it."""
        if self._job.run_on == "any":
            return True
        standby = self._ports.standby(self._job.wish)
        if standby is (self._job.run_on == "standby"):
            return True
        role = "a standby" if standby else "the primary"
        self._ports.say(f"{self._job.name}: this host is {role}, and it is the {self._job.run_on}'s turn.")
        return False

    def _watch(self) -> int:
        """It is another host's turn: see that it did what it should."""
        if not self._job.watch:
            self._ports.say(f"{self._job.name}: that host's backups can't be seen from here, so nothing is checked.")
            return DONE
        verdicts = self._ports.fresh(self._policy, [self._job], self._ports.runner, self._ports.clock)
        for verdict in verdicts:
            self._ports.say(verdict.what)
        self._reporter.watched(self._job, verdicts)
        return DONE if all(verdict.ok for verdict in verdicts) else FAILED

    def _failed(self, error: HmsError, begun: float) -> int:
        self._ports.say(f"{self._job.name}: FAILED. {error.full_text()}")
        self._reporter.failed(self._job, error, self._ports.clock.monotonic() - begun)
        return exit_code(error)

    def _done(self, made: Result, begun: float) -> int:
        report = Report.of(made.values.get("backup") or {})
        for warning in made.warnings:
            self._ports.say(f"{self._job.name}: warning: {warning}")
        removed = made.values.get("removed") or ()
        self._ports.say(
            f"{self._job.name}: {report.told}" + (f" Old backups removed: {len(removed)}." if removed else "")
        )
        seconds = self._ports.clock.monotonic() - begun
        self._reporter.succeeded(self._job, report, seconds, list(made.warnings))
        return DONE


def check(policy: Policy, jobs: t.Sequence[Job], ports: Ports) -> int:
    """Whether each job's newest verified backup is young enough. Started apart from them, it sees that none ran."""
    mine = [job for job in jobs if _to_be_checked_here(job, ports)]
    verdicts = ports.fresh(policy, mine, ports.runner, ports.clock)
    for verdict in verdicts:
        ports.say(("" if verdict.ok else "TOO OLD. ") + verdict.what)
    reporter = ports.reporter(policy)
    for job in mine:
        reporter.watched(job, [verdict for verdict in verdicts if verdict.job == job.name])
    if not verdicts:
        ports.say("No job demands anything of this host's backups.")
    return DONE if all(verdict.ok for verdict in verdicts) else FAILED


def _to_be_checked_here(job: Job, ports: Ports) -> bool:
    if job.watch or job.run_on == "any":
        return True
    try:
        standby = ports.standby(job.wish)
    except HmsError as error:
        ports.say(f"{job.name}: whose turn it is can't be told ({error.message}), so what is here is checked.")
        return True
    if standby is (job.run_on == "standby"):
        return True
    ports.say(f"{job.name}: it is the {job.run_on}'s turn, and its backups can't be seen from here.")
    return False


def _speaker(command: str) -> Say:
    def say(text: str) -> None:
        sys.stderr.write(f"hms-postgres {command}: {' '.join(text.split())}\n")
        sys.stderr.flush()

    return say


def guarded(command: str, work: t.Callable[[Say], int]) -> int:
    """Whatever goes wrong is one line and an exit code, never a stack of calls."""
    say = _speaker(command)
    try:
        with ending_properly():
            return work(say)
    except HmsError as error:
        say(f"FAILED. {error.full_text()}")
        return exit_code(error)
    # A defect must be said aloud as well, with the exit code that the schedule knows: cron would only mail the stack.
    except Exception as error:  # noqa: BLE001  a defect has any type
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(frame.filename)}:{frame.lineno}"
        say(f"FAILED at {where}, which cannot be: {type(error).__name__}: {error}. Report this as a defect.")
        return FAILED


def main_backup(config: str, name: str) -> int:
    """``hms-postgres backup``."""

    def work(say: Say) -> int:
        policy = policies.load(config)
        ports = Ports(SystemRunner(), SystemClock(), say)
        job = policy.job(name)
        say(f"{name}: {job.wish.type} of {job.wish.database} with {job.wish.engine}, {iso(ports.clock.now())}.")
        return JobRun(policy, job, ports).run()

    return guarded("backup", work)


def main_check(config: str, name: str) -> int:
    """``hms-postgres backup-check``."""

    def work(say: Say) -> int:
        policy = policies.load(config)
        return check(policy, [policy.job(name)] if name else policy.jobs, Ports(SystemRunner(), SystemClock(), say))

    return guarded("backup-check", work)


def main_verify(config: str, name: str, *, identifier: str, which: str, level: str) -> int:
    """``hms-postgres backup-verify``."""

    def work(say: Say) -> int:
        params: dict[str, t.Any] = {"config_directory": config, "id": identifier, "which": which, "level": level}
        policy = policies.load(config)
        ports = Ports(SystemRunner(), SystemClock(), say)
        said: list[str] = []

        def tell(line: str) -> None:
            said.append(line)
            say(line)

        if name:
            params["database"] = policy.job(name).wish.database
        try:
            done = reverify.verify(params, check_mode=False, runner=ports.runner, clock=ports.clock, say=tell)
        except HmsError as error:
            ports.reporter(policy).verification_failed(error)
            raise
        for warning in done.warnings:
            if warning not in said:
                say(f"warning: {warning}")
        return DONE

    return guarded("backup-verify", work)
