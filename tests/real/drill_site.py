# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A site whose dumps come back on throwaway instances, for tests."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import sys
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils import _drill_work
from ansible_collections.hms.postgres.plugins.module_utils._backup.info import info
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._module import Result
from ansible_collections.hms.postgres.tests.real import playbooks
from ansible_collections.hms.postgres.tests.real.backup_site import PASSPHRASE
from ansible_collections.hms.postgres.tests.real.lab import Instance, Lab, as_postgres
from ansible_collections.hms.postgres.tests.real.restore_site import RestoreSite

ENCRYPTION = {"passphrase": PASSPHRASE}
ASLEEP = "SELECT pg_sleep(600) IS NULL"
"""A question that takes longer than any test."""


class DrillSite(RestoreSite):
    """A site whose backups come back on throwaway instances."""

    @property
    def place(self) -> pathlib.Path:
        """Where they are made: below the server's folder, which its user gets to."""
        return self.instance.folder / f"drill-{self.folder.parent.name[-20:]}"

    def order(self, **changes: t.Any) -> dict[str, t.Any]:
        """The drill's arguments."""
        # a test has no use for times that a disk would have
        settings = {"fsync": False, **changes.pop("settings", {})}
        usual = {"directory": str(self.place), "encryption": ENCRYPTION, "settings": settings, "timeout": 300.0}
        given = super().order(**{**usual, **changes})
        del given["database"]
        return given

    def drill(self, *, check_mode: bool = False, **changes: t.Any) -> Result:
        """Drill, in this process."""
        return _drill_work.work(self.order(**changes), check_mode=check_mode)

    def failed(self, **changes: t.Any) -> HmsError:
        """Drill, and see it fail."""
        with pytest.raises(HmsError) as caught:
            self.drill(**changes)
        return caught.value

    def noted(self, identifier: str) -> list[dict[str, t.Any]]:
        """What stands beside a backup, read from its file."""
        path = self.members(identifier) / "verification.json"
        if not path.exists():
            return []
        found: list[dict[str, t.Any]] = json.loads(path.read_text(encoding="utf-8"))["verifications"]
        return found

    def write_policy(self) -> None:
        """The role's backup.json, with a job that demands drills."""
        policy = {
            **{name: self.order()[name] for name in ("cluster", "login_host", "login_port", "state_dir", "store")},
            "environment": "testing",
            "database": "second",
            "schedule": {"daily": {"type": "full", "cron": "0 2 * * *", "restored_within": "8d"}},
        }
        (self.folder / "backup.json").write_text(json.dumps(policy))

    def play(self, playbook: str, *options: str, rc: int = 0, **variables: t.Any) -> str:
        """Run a playbook on a host that has the policy; what it printed, as one line."""
        known = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "hms_cluster": "hospital",
            "hms_environment": "testing",
            "hms_config_dir": str(self.folder),
            "hms_records_dir": str(self.folder / "kept"),
            "postgresql_database": "second",
        }
        groups: dict[str, t.Any] = {"database": {"hosts": {"db1": {}}}, "bouncer": {"hosts": {"bouncer1": {}}}}
        hosts = {"all": {"vars": known, "children": groups}}
        (self.folder / "hosts.json").write_text(json.dumps(hosts))
        given = ("-e", json.dumps(variables), *options)
        path = f"playbooks/{playbook}.yml"
        return " ".join(playbooks.play(self.folder / "hosts.json", path, *given, rc=rc, seconds=200).split())

    def listed(self) -> dict[str, dict[str, t.Any]]:
        """The list of backups, as the module gives it."""
        params = {"cluster": "hospital", "store": {"folder": str(self.store)}}
        found = info(params, check_mode=True, runner=SystemRunner(), clock=SystemClock())
        return {backup["id"]: backup for backup in found.values["backups"]}


def two_databases(lab: Lab) -> Instance:
    """A server with the databases hospital and second, and a folder that its user may use."""
    instance = lab.primary()
    instance.sql("CREATE DATABASE hospital")
    instance.sql("CREATE DATABASE second")
    shutil.chown(instance.folder, "postgres")
    return instance


def is_asleep(place: pathlib.Path) -> bool:
    """Whether the throwaway instance is being asked `ASLEEP`."""
    asked = f"SELECT 'yes' FROM pg_stat_activity WHERE query = '{ASLEEP}' AND state = 'active'"
    where = ("-h", str(place / "run"), "-p", "5432", "-XqAt", "-c", asked, "postgres")
    return as_postgres("psql", *where, check=False).strip() == "yes"


def workers(place: pathlib.Path) -> list[str]:
    """The processes that work below a folder, also where that was removed under them."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            where = os.readlink(entry / "cwd") if entry.name.isdigit() else ""
            if where.startswith(str(place)):
                found.append(f"{entry.name} {where}")
    return found
