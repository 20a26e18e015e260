# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A throw-away site that archives with pgBackRest and can be cut over to a recovered side cluster."""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._cluster.cutover_model import CutoverRequest
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.course import Job, Report
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.cutover_run import run_cutover
from ansible_collections.hms.postgres.tests.real import pgbackrest_site
from ansible_collections.hms.postgres.tests.real.engine_hosts import Child, Database, Writer
from ansible_collections.hms.postgres.tests.real.engine_site import EngineSite
from ansible_collections.hms.postgres.tests.real.lab import REWIND_RIGHTS, Lab, until
from ansible_collections.hms.postgres.tests.real.pitr_site import History, Moment, Recovery


class CutoverSite(EngineSite):
    """An `EngineSite` whose first host archives; its bouncers and standbys are those of any site."""

    def __init__(self, lab: Lab, *, databases: int = 2, bouncers: int = 1, policy: str = "async") -> None:
        super().__init__(lab, databases=databases, bouncers=bouncers, policy=policy)
        for database in self.databases.values():
            (database.instance.config / "conf.d" / "01-archive.conf").write_text(
                "archive_mode = on\narchive_command = '/bin/true'\n"
            )
            database.instance.stop()
            database.start()
        self.db1 = self.databases["db1"]
        self.db1.sql(REWIND_RIGHTS, dbname="postgres")
        self.repo = pgbackrest_site.own(pgbackrest_site._made(lab.folder / "repo"))
        self.archive = pgbackrest_site.Site(lab, self.db1.instance, self.repo)
        pgbackrest_site.begin(self.archive)
        self.archive.backup()
        self.recoveries: list[Recovery] = []
        if databases > 1:
            self.standbys_stream()

    def harm(self) -> Moment:
        """Something that should not have happened, with the moments around it."""
        return History(self.archive).do("CREATE TABLE harm AS SELECT 1")

    @property
    def side(self) -> pathlib.Path:
        """The side directory."""
        return pathlib.Path(f"{self.db1.data}.pitr")

    def recover(self, *, timeline: int = 0, **target: t.Any) -> Recovery:
        """Recover beside the live cluster."""
        recovery = Recovery(self.archive, self.side, state_dir=str(self.db1.state))
        self.recoveries.append(recovery)
        recovery.to(timeline=timeline, **target)
        return recovery

    def close(self) -> None:
        for recovery in self.recoveries:
            recovery.close()
        super().close()

    # -- working ---------------------------------------------------------------------------------------------------

    def cutover_job(self, **wishes: t.Any) -> Job[CutoverRequest]:
        stamp = f"{datetime.datetime.now(datetime.timezone.utc):%Y%m%dT%H%M%S.%fZ}"
        return self.ordered(functools.partial(CutoverRequest, stamp=stamp, hold_seconds=10.0), wishes)

    def cutover(self, *, check_mode: bool = False, **wishes: t.Any) -> Report:
        """Cut over in this process."""
        return run_cutover(self.cutover_job(**wishes), SystemClock(), check_mode=check_mode)

    def cutover_child(self, *, moment: str = "", accident: t.Any = None, **wishes: t.Any) -> Child:
        """The same in a process of its own, to which something happens at the `moment` (see engine_child.py)."""
        return self.coordinator("cutover_child.py", self.cutover_job(**wishes), moment, accident)

    # -- looking ---------------------------------------------------------------------------------------------------

    def timeline(self, database: Database | None = None) -> int:
        """The timeline that a server writes."""
        return int((database or self.db1).sql("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"), 16)

    def has_harm(self) -> bool:
        return self.db1.sql("SELECT to_regclass('harm') IS NOT NULL", dbname="postgres") == "True"

    def kept(self) -> list[pathlib.Path]:
        """Data directories that were put aside."""
        return sorted(self.db1.data.parent.glob("data.before_*"))

    def journal(self) -> dict[str, t.Any]:
        """What the host's journal says."""
        found: dict[str, t.Any] = json.loads((self.db1.state / "cutover.json").read_text())
        return found

    def archived(self, name: str) -> None:
        """Wait until a file is in the archive."""
        until(lambda: bool(list(self.archive.archive.rglob(f"{name}*"))), f"{name} is archived")


@pytest.fixture(scope="module")
def alone(module_lab: Lab) -> t.Iterator[CutoverSite]:
    """A primary with an archive, and a bouncer host with two processes."""
    with contextlib.closing(CutoverSite(module_lab, databases=1)) as made:
        yield made


@pytest.fixture(scope="module")
def one_writer(site: CutoverSite) -> Writer:
    """A client, for all tests of a file."""
    return site.writer("one", rate=30)


def recover(site: CutoverSite) -> None:
    """Something happens, and the cluster from before it is recovered beside the live one."""
    site.recover(time=site.harm().before)


def settled(site: CutoverSite) -> bool:
    """The primary takes writes, and nobody is held."""
    return site.db1.role() == "primary" and not site.paused()


def is_old(site: CutoverSite, writer: Writer, timeline: int, gone: set[int]) -> None:
    """The cluster that was live is live, with all that was written to it but what had been given up before."""
    assert site.timeline() == timeline
    assert site.has_harm()
    writer.goes_on()
    assert writer.missing(site.db1) <= gone
    assert site.side.exists()


def is_new(site: CutoverSite, writer: Writer, timeline: int, kept: int) -> None:
    """The recovered cluster is live, and the other one is kept."""
    assert site.timeline() == timeline + 1
    assert not site.has_harm()
    writer.goes_on()
    assert len(site.kept()) == kept + 1
    assert not site.side.exists()
    assert site.journal()["stage"] == "done"


def finished_by_another_run(site: CutoverSite, writer: Writer, timeline: int, kept: int) -> None:
    """A second run ends it, a third has nothing to do."""
    site.agents_end()
    site.cutover()
    is_new(site, writer, timeline, kept)
    assert not site.cutover().changed
