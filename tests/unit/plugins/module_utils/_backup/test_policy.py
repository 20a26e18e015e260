# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._backup import policy
from ansible_collections.hms.postgres.plugins.module_utils._backup.model import Retention
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError

BASE: dict[str, t.Any] = {
    "cluster": "hospital",
    "environment": "production",
    "database": "hospital",
    "store": {"folder": "/srv/backups"},
    "encryption": {"passphrase": "not-to-be-seen"},
}
DAY, HOUR = 86400.0, 3600.0
PRODUCTION = {
    "daily": {"type": "full", "engine": "pgbackrest", "cron": "0 2 * * *", "retention": {"days": 30}},
    "often": {"type": "incremental", "engine": "pgbackrest", "cron": "0 */4 * * *", "retention": {"days": 7}},
}
STAGING = {"daily": {"cron": "0 3 * * *", "retention": {"days": 14}}}
DEVELOPMENT = {"weekly": {"cron": "0 3 * * 0", "retention": {"days": 7}}}


def parsed(schedule: t.Any, **more: t.Any) -> policy.Policy:
    """A policy with a schedule."""
    return policy.parse({**BASE, "schedule": schedule, **more})


def refusal(data: t.Any) -> str:
    """What a policy is refused for."""
    with pytest.raises(HmsError) as raised:
        policy.parse(data)
    assert raised.value.reason == "bad_config"
    return raised.value.message


def test_production() -> None:
    daily, often = parsed(PRODUCTION).jobs
    assert (daily.name, daily.wish.type, daily.wish.engine, daily.run_on) == ("daily", "full", "pgbackrest", "primary")
    assert daily.wish.retention == {"full": Retention(days=30)}
    assert daily.max_age == 30 * HOUR
    assert often.wish.retention == {"incremental": Retention(days=7)}
    assert often.max_age == 6 * HOUR


@pytest.mark.parametrize(("schedule", "days", "age"), [(STAGING, 14, 30 * HOUR), (DEVELOPMENT, 7, 8.75 * DAY)])
def test_the_smaller_ones(schedule: dict[str, t.Any], days: int, age: float) -> None:
    (job,) = parsed(schedule).jobs
    assert (job.wish.engine, job.wish.type) == ("pg_dump", "full")
    assert job.wish.retention == {"full": Retention(days=days)}
    assert job.max_age == age


def test_a_job_gives_arguments_for_itself() -> None:
    own = {"compression": "gzip", "verify": "deep", "run_on": "standby", "max_age": "26h", "database": "archive"}
    made = parsed({"weekly": {"cron": "0 3 * * 0", **own}})
    job = made.job("weekly")
    assert (job.wish.compression.method, job.wish.verify, job.run_on) == ("gzip", "deep", "standby")
    assert (job.max_age, job.wish.database) == (26 * HOUR, "archive")
    assert made.wish(type="schema_only").type == "schema_only"
    assert made.wish().database == "hospital"


def test_a_job_that_only_people_start_demands_nothing() -> None:
    (job,) = parsed({"now-and-then": {}}).jobs
    assert (job.cron, job.max_age) == ("", None)


def test_a_job_that_is_switched_off_is_none() -> None:
    assert parsed({"daily": {"enabled": False, "cron": "0 2 * * *"}}).jobs == ()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(90, 90.0), ("90", 90.0), ("90m", 5400.0), ("1.5h", 5400.0), ("8 d", 8 * DAY), ("2w", 14 * DAY)],
)
def test_ages(value: t.Any, seconds: float) -> None:
    made = parsed({"daily": {"max_age": value, "restored_within": value}}).jobs[0]
    assert (made.max_age, made.restored_within) == (seconds, seconds)
    assert made.as_dict()["restored_within"] == seconds


def test_what_others_may_know_of_a_job_holds_no_secret() -> None:
    made = parsed(PRODUCTION, notify={"webhook": "https://hooks.example.org/not-to-be-seen"})
    assert made.jobs[0].as_dict()["max_age"] == 30 * HOUR
    assert "not-to-be-seen" not in json.dumps(made.jobs[0].as_dict()) + repr(made) + repr(made.jobs[0])


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"Daily": {}}, "'Daily' can't be a job's name"),
        ({"../x": {}}, "can't be a job's name"),
        ({"daily": []}, "schedule.daily must be a mapping"),
        ({"daily": {"enabled": "no"}}, "enabled must be true or false"),
        ({"daily": {"run_on": "leader"}}, "run_on is 'leader'; it can be primary, standby, any"),
        ({"daily": {"cron": "0 2 * *"}}, "schedule.daily: '0 2 * *' has 4 fields"),
        ({"daily": {"cron": "0 0 30 2 *"}}, "never comes twice"),
        ({"daily": {"max_age": "soon"}}, "max_age is 'soon'"),
        ({"daily": {"max_age": 0}}, "max_age is 0"),
        ({"daily": {"restored_within": "often"}}, "restored_within is 'often'"),
        ({"daily": {"restored_within": "8d", "type": "schema_only"}}, "restored_within is for full backups"),
        ({"daily": {"max_age": True}}, "max_age is True"),
        ({"daily": {"compresion": "zstd"}}, "compresion"),
        ({"daily": {"type": "incremental"}}, "pg_dump makes no 'incremental'"),
        ({"daily": {"retention": {"days": -1}}}, "days is -1"),
        ({"daily": {"retention": {"days": "30"}}}, "days is '30'"),
        ({"daily": {"retention": {"keep_last": 1.5}}}, "keep_last is 1.5"),
        ({"daily": {"retention": {"keep_last": True}}}, "keep_last is True"),
        ({"daily": {"retention": {"forever": 1}}}, "forever"),
    ],
)
def test_a_mistake_is_named_with_its_job(schedule: t.Any, words: str) -> None:
    assert words in refusal({**BASE, "schedule": schedule})


def test_other_mistakes() -> None:
    assert "must be a mapping" in refusal([])
    assert "schedule must be a mapping" in refusal({**BASE, "schedule": [1]})
    for path in ("backups.prom", "/var/lib/node_exporter/backups.txt"):
        assert "a file that ends in .prom" in refusal({**BASE, "metrics": {"path": path}})
    with pytest.raises(HmsError, match=r"There is no job 'hourly'; the schedule has daily\."):
        parsed(STAGING).job("hourly")
    with pytest.raises(HmsError, match="the schedule has none"):
        parsed({}).job("hourly")


def test_the_file(tmp_path: pathlib.Path) -> None:
    with pytest.raises(HmsError, match=r"There is no .*backup\.json") as raised:
        policy.load(str(tmp_path))
    assert raised.value.reason == "bad_config"
    path = tmp_path / "backup.json"
    path.write_text("{")
    with pytest.raises(HmsError, match="can't be read"):
        policy.load(str(tmp_path))
    path.write_text(json.dumps({**BASE, "schedule": {"daily": {"cron": "x"}}}))
    with pytest.raises(HmsError, match=r"backup\.json: schedule\.daily: 'x' has 1 fields"):
        policy.load(str(tmp_path))
    path.write_text(json.dumps({**BASE, "schedule": STAGING}))
    assert [job.name for job in policy.load(str(tmp_path)).jobs] == ["daily"]
