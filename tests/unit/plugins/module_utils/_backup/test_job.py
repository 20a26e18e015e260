# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Jobs with a scripted world: whose turn, what is said, what the exit code is."""

from __future__ import annotations

import dataclasses
import datetime
import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils import _runner
from ansible_collections.hms.postgres.plugins.module_utils._backup import job as jobs
from ansible_collections.hms.postgres.plugins.module_utils._backup import job_report, policy
from ansible_collections.hms.postgres.plugins.module_utils._backup.freshness import Freshness
from ansible_collections.hms.postgres.plugins.module_utils._backup.metrics import parse
from ansible_collections.hms.postgres.plugins.module_utils._backup.notify import Event
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._module import Result
from ansible_collections.hms.postgres.tests.unit.plugins.module_utils._backup.backups import (
    NOW,
    ago,
    entry,
    manifest,
    proven,
)

S3 = {"s3": {"bucket": "hospital"}}


class StandingClock:
    """A clock that stands."""

    def monotonic(self) -> float:
        return 100.0

    def now(self) -> datetime.datetime:
        return NOW

    def sleep(self, seconds: float) -> None:
        raise AssertionError(f"nobody sleeps {seconds} s")


class World:
    """What the jobs see, and what they do to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, schedule: t.Mapping[str, t.Any], **more: t.Any) -> None:
        base = {"cluster": "hospital", "environment": "staging", "database": "hospital", "store": S3}
        self.policy = policy.parse({**base, "schedule": schedule, **more})
        self.said: list[str] = []
        self.events: list[Event] = []
        self.made: list[str] = []
        self.standby = False
        self.error: HmsError | None = None
        self.fresh = True
        self.entries = [entry(ago(hours=1))]
        monkeypatch.setattr(job_report, "send", self._send)

    def _send(self, _config: t.Any, event: Event) -> list[str]:
        self.events.append(event)
        return ["webhook: refused"]

    def _make(self, wish: t.Any, *, check_mode: bool, by: str, **_ports: t.Any) -> Result:
        assert not check_mode
        self.made.append(by)
        if self.error is not None:
            raise self.error
        assert wish.database == "hospital"
        return Result(True, {"backup": manifest(ago()).as_dict(), "removed": [{}, {}]}, warnings=["a remark"])

    def _verdicts(self, _policy: t.Any, wanted: t.Sequence[policy.Job], *_ports: t.Any) -> list[Freshness]:
        told = "young" if self.fresh else "old"
        return [Freshness(job.name, "hospital", "full", self.fresh, f"{job.name}: {told}") for job in wanted]

    def _standby(self, _wish: t.Any) -> bool:
        if self.error is not None:
            raise self.error
        return self.standby

    def ports(self) -> jobs.Ports:
        """The world as ports."""
        return jobs.Ports(
            SystemRunner(),
            StandingClock(),
            self.said.append,
            self._standby,
            self._make,
            self._verdicts,
            lambda _policy, _job: self.entries,
        )

    def run(self, name: str = "daily") -> int:
        """Run a job."""
        return jobs.JobRun(self.policy, self.policy.job(name), self.ports()).run()

    def check(self) -> int:
        """Look at all of them."""
        return jobs.check(self.policy, self.policy.jobs, self.ports())


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """One daily job of the primary's, in a bucket."""
    return World(monkeypatch, {"daily": {"cron": "0 2 * * *"}})


def test_a_backup_is_made_and_told(world: World) -> None:
    assert world.run() == 0
    assert world.made == ["job daily"]
    assert [(event.kind, event.what) for event in world.events] == [("start", "backup"), ("success", "backup")]
    done = world.events[1]
    assert (done.database, done.job, done.bytes, done.verified, done.where) == (
        *("hospital", "daily", 4, True),
        ("s3://hospital",),
    )
    assert done.warnings == ("a remark",)
    assert "daily: warning: a remark" in world.said
    assert any("is complete: 4 bytes in 1 min 0 s, verified. Old backups removed: 2." in line for line in world.said)
    assert "warning: nobody was told by webhook: refused" in world.said


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (HmsError("gpg died", reason="stage_failed", next_step="Look at gpg."), 1),
        (Refused("another one", reason="busy"), 75),
        (HmsError("no such option", reason="bad_config"), 2),
        (HmsError("no answer", reason="connection_failed"), 1),
    ],
)
def test_a_failure_is_told_and_never_passes_for_success(world: World, error: HmsError, code: int) -> None:
    world.policy = dataclasses.replace(
        world.policy, jobs=tuple(dataclasses.replace(job, run_on="any") for job in world.policy.jobs)
    )
    world.error = error
    assert world.run() == code
    assert world.events[-1].kind == "failure"
    assert world.events[-1].message == error.message
    assert any(line.startswith("daily: FAILED. ") for line in world.said)


def test_a_server_that_does_not_answer_fails_the_job(world: World) -> None:
    world.error = HmsError("no answer", reason="connection_failed")
    assert world.run() == 1
    assert world.made == []
    assert [event.kind for event in world.events] == ["failure"]


@pytest.mark.parametrize(("fresh", "code", "kinds"), [(True, 0, []), (False, 1, ["failure"])])
def test_a_host_whose_turn_it_is_not_watches(world: World, fresh: bool, code: int, kinds: list[str]) -> None:
    world.standby, world.fresh = True, fresh
    assert world.run() == code
    assert world.made == []
    assert world.said[0] == "daily: this host is a standby, and it is the primary's turn."
    assert [event.kind for event in world.events] == kinds
    if kinds:
        assert world.events[0].what == "freshness check"
        assert world.events[0].message == "daily: old"


def test_a_standbys_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, {"daily": {"cron": "0 2 * * *", "run_on": "standby", "watch": False}})
    assert world.run() == 0
    assert world.made == []
    assert "can't be seen from here" in world.said[-1]
    world.standby = True
    assert world.run() == 0
    assert world.made == ["job daily"]


def test_the_check_looks_at_what_can_be_seen_here(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"cron": "0 2 * * *", "watch": False}
    world = World(monkeypatch, {"daily": own, "other": {**own, "run_on": "standby"}, "shared": {**own, "watch": True}})
    assert world.check() == 0
    assert [line for line in world.said if line.endswith("young")] == ["daily: young", "shared: young"]
    assert "other: it is the standby's turn, and its backups can't be seen from here." in world.said
    world.fresh = False
    assert world.check() == 1
    assert "TOO OLD. daily: old" in world.said
    assert [event.job for event in world.events] == ["daily", "shared"]


def test_the_check_of_a_host_whose_server_is_down(world: World) -> None:
    world.policy = dataclasses.replace(
        world.policy, jobs=tuple(dataclasses.replace(job, watch=False) for job in world.policy.jobs)
    )
    world.error = HmsError("no answer")
    assert world.check() == 0
    assert "whose turn it is can't be told (no answer), so what is here is checked" in world.said[0]


def test_nothing_is_demanded(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, {})
    assert world.check() == 0
    assert world.said == ["No job demands anything of this host's backups."]


def test_metrics_keep_what_can_not_be_known_now(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "x.prom"
    world = World(monkeypatch, {"daily": {"cron": "0 2 * * *", "run_on": "any"}}, metrics={"path": str(path)})
    assert world.run() == 0
    values = {one.name: one.value for one in parse(path.read_text())}
    assert values["hms_backup_last_run_success"] == 1
    assert values["hms_backup_age_seconds"] == 3600
    assert values["hms_backup_max_age_seconds"] == 30 * 3600
    assert values["hms_backup_count"] == 1
    assert values["hms_backup_verified"] == 1

    def away(_policy: t.Any, _job: t.Any) -> t.Any:
        raise HmsError("no answer")

    ports = dataclasses.replace(world.ports(), look_up=away)
    world.error = HmsError("gpg died")
    assert jobs.JobRun(world.policy, world.policy.job("daily"), ports).run() == 1
    values = {one.name: one.value for one in parse(path.read_text())}
    assert values["hms_backup_last_run_success"] == 0
    assert values["hms_backup_age_seconds"] == 3600
    assert "warning: the metrics keep what the catalog held before: no answer" in world.said


def test_the_last_drill_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, {"daily": {"restored_within": "8d"}})
    drilled = entry(ago(days=3), history=[proven(ago(days=2), level="restored")])
    values = job_report.catalog_values(world.policy.job("daily"), [drilled], 0.0)
    assert values["hms_backup_restored_within_seconds"] == 8 * 86400
    assert values["hms_backup_last_restored_timestamp_seconds"] == ago(days=2).timestamp()


def test_a_drill_counts_for_all_jobs_of_a_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    job = {"engine": "pgbackrest", "type": "full", "restored_within": "8d"}
    world = World(monkeypatch, {"weekly": job})
    drilled = entry(ago(days=3), engine="pgbackrest", type_="incremental")
    drilled = dataclasses.replace(drilled, verifications=(proven(ago(days=2), level="restored"),))
    values = job_report.catalog_values(world.policy.job("weekly"), [drilled], 0.0)
    assert values["hms_backup_last_restored_timestamp_seconds"] == ago(days=2).timestamp()
    assert values["hms_backup_count"] == 0


def test_an_empty_catalog_has_few_metrics(world: World) -> None:
    values = job_report.catalog_values(world.policy.job("daily"), [], 0.0)
    assert values == {"hms_backup_max_age_seconds": 30 * 3600, "hms_backup_count": 0.0}
    assert job_report.Report.of({}).told == " is complete: 0 bytes in 0.0 s, NOT verified."


def test_a_verification_that_failed_is_told(world: World) -> None:
    world.ports().reporter(world.policy).verification_failed(HmsError("BAD", next_step="Make a new one."))
    assert [(event.kind, event.what, event.job) for event in world.events] == [("failure", "verification", "")]


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["backup", "--config", "/nonexistent", "--job", "daily"], 2),
        (["backup-check", "--config", "/nonexistent"], 2),
        (["backup-verify", "--config", "/nonexistent"], 2),
    ],
)
def test_the_command_line(argv: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert _runner.main(argv) == code
    said = capsys.readouterr().err
    assert said.startswith(f"hms-postgres {argv[0]}: FAILED. There is no /nonexistent/backup.json.")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "argv",
    [
        ["backup", "--config", "/x"],
        ["backup-check", "--config", "/x", "--level", "deep"],
        ["backup-verify", "--config", "/x", "--level", "deeper"],
        ["backup-verify", "--config", "/x", "--which", "some"],
    ],
)
def test_a_bad_command_line_ends_with_two(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        _runner.main(argv)
    assert raised.value.code == 2


def test_a_defect_is_one_line_and_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    def work(_say: t.Any) -> int:
        raise KeyError("surprise")

    assert jobs.guarded("backup", work) == 1
    said = capsys.readouterr().err
    assert "which cannot be: KeyError: 'surprise'" in said
    assert said.count("\n") == 1
