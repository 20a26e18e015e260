# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host's policy: ``backup.json``, written by the role, read by the jobs. PRIVATE to the collection.

It holds what the module pg_backup takes as arguments, and beside that::

    schedule: {daily: {type: full, cron: "0 2 * * *", retention: {days: 30}, run_on: primary, max_age: 30h}, …}
    notify:   where to say how it went
    metrics:  {path: the textfile that node_exporter reads}
    drill:    {cron: "30 4 * * 0", …}   what the module pg_restore_drill takes, on the host that drills

A job may give any of the module's arguments for itself. How old its newest verified backup may be follows from its
cron expression where it isn't said.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import re
import typing as t

from .._artifact.options import bad_config
from .._errors import HmsError
from .._files import read_json
from .._store.model import S3Spec
from .cron import parse_cron
from .model import Wish
from .notify import notify_from
from .wishes import wish_from

FILE_NAME = "backup.json"

_OWN = {"cron", "run_on", "max_age", "restored_within", "enabled", "watch"}
_SHARED = {"schedule", "notify", "metrics", "drill"}
DRILL_OWN = frozenset({"host", "cron", "enabled"})
"""What the drill's part says of itself; the rest are arguments of the module."""
_RUN_ON = ("primary", "standby", "any")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_AGE = re.compile(r"(?P<amount>\d+(\.\d+)?)\s*(?P<unit>[smhdw]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclasses.dataclass(frozen=True)
class Job:
    """One line of the schedule.

    Attributes:
        name: by which it is called.
        wish: the backup that it makes.
        cron: when; '' for a job that only people start.
        run_on: whose turn it is: the primary's, a standby's, everybody's.
        max_age: seconds that the newest verified backup may be old; None asks for nothing.
        restored_within: seconds within which a restore drill must have brought one of its backups back; None asks for
            no drill.
        watch: whether hosts whose turn it isn't see to it that there is a young backup: they can where all hosts
            share the store, which is taken for granted of a bucket only.
    """

    name: str
    wish: Wish
    cron: str = ""
    run_on: str = "primary"
    max_age: float | None = None
    watch: bool = False
    restored_within: float | None = None

    def as_dict(self) -> dict[str, t.Any]:
        """What readers of a catalog need of it; nothing that could be a secret."""
        return {
            "name": self.name,
            "cluster": self.wish.cluster,
            "database": self.wish.database,
            "engine": self.wish.engine,
            "type": self.wish.type,
            "cron": self.cron,
            "run_on": self.run_on,
            "max_age": self.max_age,
            "restored_within": self.restored_within,
            "watch": self.watch,
        }


@dataclasses.dataclass(frozen=True)
class Policy:
    """Everything in ``backup.json``."""

    base: t.Mapping[str, t.Any] = dataclasses.field(repr=False)
    jobs: tuple[Job, ...] = ()
    notify: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict, repr=False)
    metrics: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    drill: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict, repr=False)

    def job(self, name: str) -> Job:
        """A job by its name."""
        for job in self.jobs:
            if job.name == name:
                return job
        names = ", ".join(job.name for job in self.jobs) or "none"
        raise bad_config(f"There is no job {name!r}; the schedule has {names}.", "Name one of them.")

    def wish(self, **changes: t.Any) -> Wish:
        """A backup as the host's file has it, with changes."""
        return wish_from({**self.base, **changes})


def load(directory: str) -> Policy:
    """The policy in a folder."""
    path = os.path.join(directory, FILE_NAME)
    try:
        data = read_json(path)
    except (ValueError, OSError) as error:
        raise bad_config(f"{path} can't be read: {error}.", "Run playbooks/site.yml for this host.") from error
    if data is None:
        raise bad_config(f"There is no {path}.", "Run playbooks/site.yml for this host.")
    try:
        return parse(data)
    except HmsError as error:
        raise bad_config(f"{path}: {error.message}", error.next_step) from error


def parse(data: t.Any) -> Policy:
    """The policy from plain data; raises `HmsError` with reason ``bad_config`` that names what is wrong."""
    if not isinstance(data, dict):
        raise bad_config("The policy must be a mapping.")
    base = {key: value for key, value in data.items() if key not in _SHARED}
    parts = {name: data.get(name) or {} for name in sorted(_SHARED)}
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise bad_config(f"{name} must be a mapping.")
    notify_from(parts["notify"])
    metrics = parts["metrics"]
    path = str(metrics.get("path") or "/x.prom")
    if set(metrics) - {"path"} or not path.startswith("/") or not path.endswith(".prom"):
        raise bad_config("metrics has one setting, path, the absolute path of a file that ends in .prom.")
    _check_drill(parts["drill"])
    schedule = parts["schedule"]
    jobs = [_job(str(name), job, base) for name, job in schedule.items() if not _switched_off(name, job)]
    return Policy(base, tuple(jobs), parts["notify"], parts["metrics"], parts["drill"])


def _check_drill(data: t.Mapping[str, t.Any]) -> None:
    """Refuse a schedule of drills that never comes."""
    cron = data.get("cron") or ""
    try:
        if cron and parse_cron(str(cron)).longest_gap() is None:
            raise bad_config(f"drill: {cron!r} never comes twice.")
    except ValueError as error:
        raise bad_config(f"drill: {error}.") from error


def _switched_off(name: t.Any, data: t.Any) -> bool:
    if not isinstance(data, dict):
        raise bad_config(f"schedule.{name} must be a mapping.")
    enabled = data.get("enabled", True)
    if not isinstance(enabled, bool):
        raise bad_config(f"schedule.{name}: enabled must be true or false.")
    return not enabled


def _job(name: str, data: t.Mapping[str, t.Any], base: t.Mapping[str, t.Any]) -> Job:
    if not _NAME.fullmatch(name):
        raise bad_config(f"{name!r} can't be a job's name: small letters, digits, _ and - only, 40 at most.")
    run_on = data.get("run_on", "primary")
    if run_on not in _RUN_ON:
        raise bad_config(f"schedule.{name}: run_on is {run_on!r}; it can be {', '.join(_RUN_ON)}.")
    cron = data.get("cron") or ""
    try:
        gap = parse_cron(str(cron)).longest_gap() if cron else None
        max_age = seconds_of("max_age", data["max_age"]) if data.get("max_age") is not None else _usual_age(gap)
        drilled = data.get("restored_within")
        restored_within = None if drilled is None else seconds_of("restored_within", drilled)
        wish = wish_from({**base, **{key: value for key, value in data.items() if key not in _OWN}})
        check_retention(wish)
    except (HmsError, ValueError) as error:
        message = error.message if isinstance(error, HmsError) else f"{error}."
        raise bad_config(f"schedule.{name}: {message}") from error
    if cron and gap is None:
        raise bad_config(f"schedule.{name}: {cron!r} never comes twice.")
    if wish.engine == "pgbackrest" and run_on != "primary":
        raise bad_config(f"schedule.{name}: pgBackRest backs up primaries only; run_on must be primary.")
    watch = data.get("watch", any(isinstance(spec, S3Spec) for spec in wish.stores))
    if not isinstance(watch, bool):
        raise bad_config(f"schedule.{name}: watch must be true or false.")
    _check_drilled(name, wish, restored_within)
    return Job(name, wish, str(cron), run_on, max_age, watch, restored_within)


def _check_drilled(name: str, wish: Wish, restored_within: float | None) -> None:
    """Refuse to demand what no drill can give."""
    if restored_within is not None and wish.engine == "pg_dump" and wish.type != "full":
        raise bad_config(f"schedule.{name}: restored_within is for full backups: the drill restores those.")


def seconds_of(name: str, value: t.Any) -> float:
    """Seconds, from a number or from ``90m``, ``26h``, ``8d``, ``2w``."""
    match = _AGE.fullmatch(str(value).strip())
    seconds = float(match["amount"]) * _SECONDS[match["unit"]] if match else 0.0
    if isinstance(value, bool) or seconds <= 0:
        raise ValueError(f"{name} is {value!r}; it is a number of seconds, or like 90m, 26h, 8d, 2w")
    return seconds


def _usual_age(gap: datetime.timedelta | None) -> float | None:
    """How old a backup may be where nobody says: the time between two runs and a quarter, or two hours at least."""
    return None if gap is None else gap.total_seconds() + max(gap.total_seconds() / 4, 7200.0)


def check_retention(wish: Wish) -> None:
    """Refuse rules that aren't numbers: what is removed hangs on them."""
    for type_, rules in wish.retention.items():
        for name, value in dataclasses.asdict(rules).items():
            if value is None:
                continue
            kinds = (int, float) if name == "days" else (int,)
            if isinstance(value, bool) or not isinstance(value, kinds) or value < 0:
                raise bad_config(f"retention of {type_}: {name} is {value!r}; it is a number, 0 or more.")
