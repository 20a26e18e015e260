# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A hospital's database with a history that is known to the second, for recovery to a point in it."""

from __future__ import annotations

import dataclasses
import pathlib
import time
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._artifact.pgbackrest_settings import Settings
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._module import Result
from ansible_collections.hms.postgres.plugins.module_utils._pitr import target as targets
from ansible_collections.hms.postgres.plugins.module_utils._pitr import work
from ansible_collections.hms.postgres.plugins.module_utils._pitr.look import Questions
from ansible_collections.hms.postgres.plugins.module_utils._pitr.model import Order
from ansible_collections.hms.postgres.plugins.module_utils._pitr.see import World
from ansible_collections.hms.postgres.plugins.module_utils._postgres import ConnectionParams, connect
from ansible_collections.hms.postgres.tests.real.lab import Instance, as_postgres, run, until
from ansible_collections.hms.postgres.tests.real.pgbackrest_site import STANZA, Site

NOTHING = Questions()
NOW = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"


@dataclasses.dataclass
class Moment:
    """One transaction of the history, and how to say when it was."""

    xid: str
    before: str
    after: str
    lsn_before: str
    lsn_after: str


class History:
    """Does things to the live database and notes when."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.live = site.instance
        newest = max(entry["timestamp"]["stop"] for entry in site.info())
        # a backup's end is known to the second only
        until(lambda: time.time() > newest + 1.1, "the backup is over by a second")

    def clock(self) -> str:
        """The server's time in UTC, with its zone."""
        return self.live.sql(NOW) + "+00"

    def do(self, statement: str) -> Moment:
        """One transaction, with time on both sides of it."""
        before, lsn_before = self.clock(), self.live.sql("SELECT pg_current_wal_lsn()")
        time.sleep(0.05)
        xid = self.live.sql(f"BEGIN; SELECT pg_current_xact_id(); {statement}; COMMIT").splitlines()[0]
        lsn_after = self.live.sql("SELECT pg_current_wal_lsn()")
        time.sleep(0.05)
        return Moment(xid, before, self.clock(), lsn_before, lsn_after)


class Recovery:
    """Point-in-time recovery of a site into a directory of its own."""

    def __init__(self, site: Site, directory: pathlib.Path, **changes: t.Any) -> None:
        self.site = site
        self.directory = directory
        self.port = site.lab.port()
        self.order = dataclasses.replace(
            Order(
                cluster="hospital",
                environment="development",
                database="postgres",
                pgbackrest=Settings(config=str(site.config), stanza=STANZA),
                connection=ConnectionParams(host=str(site.instance.sockets), port=site.instance.port),
                state_dir=str(site.folder),
                directory=str(directory),
                port=self.port,
                timeout=200.0,
            ),
            **changes,
        )

    @property
    def world(self) -> World:
        """The real one."""
        return World(connect=connect, runner=SystemRunner(), clock=SystemClock(), host="db1")

    def to(
        self,
        *,
        questions: Questions = NOTHING,
        check_mode: bool = False,
        inclusive: bool | None = None,
        timeline: int = 0,
        order: Order | None = None,
        **target: t.Any,
    ) -> Result:
        """Recover to a target, e.g. ``time="…"``."""
        given = {f"target_{name}": value for name, value in target.items()}
        found = targets.parse_target(given, inclusive=inclusive, timeline=timeline)
        assert found is not None
        return work.recovered(order or self.order, found, questions, self.world, check_mode=check_mode)

    def absent(self, *, check_mode: bool = False) -> Result:
        """Remove the side cluster."""
        return work.absent(self.order, self.world, check_mode=check_mode)

    @property
    def side(self) -> Instance:
        """The side cluster as an instance that psql can ask."""
        return SideInstance("side", self.port, self.directory)

    def sql(self, statement: str) -> str:
        """What psql answers from the side cluster."""
        return self.side.sql(statement)

    def close(self) -> None:
        """End the side cluster's server, however it is."""
        if self.side.pid is not None:
            as_postgres("/bin/kill", "-QUIT", str(self.side.pid), check=False)
        for pid in run("pgrep", "-f", f"pgbackrest .*--pg1-path={self.directory}/data", check=False).split():
            as_postgres("/bin/kill", "-KILL", pid, check=False)


class SideInstance(Instance):
    """The side cluster has the layout of an instance of the lab."""
