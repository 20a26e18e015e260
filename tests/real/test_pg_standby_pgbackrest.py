# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Standbys made of a pgBackRest backup, and standbys that catch up from the archive."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import Refused, ToolFailed
from ansible_collections.hms.postgres.plugins.module_utils._module import Result
from ansible_collections.hms.postgres.tests.real import pgbackrest_site
from ansible_collections.hms.postgres.tests.real.lab import (
    OS_USER,
    Instance,
    Lab,
    process_alive,
    run,
    signal_all,
    until,
)
from ansible_collections.hms.postgres.tests.real.pgbackrest_site import STANZA
from ansible_collections.hms.postgres.tests.real.standby_site import GRANTS, Site, beside

pytestmark = pytest.mark.timeout(300)

ROWS = 25000
STREAMING_ONLY = "host replication hms_replication 127.0.0.1/32 reject\n"


@dataclasses.dataclass
class Backed:
    """A primary that archives, with one backup, and members that can read the repository."""

    members: Site
    primary: pgbackrest_site.Site

    @property
    def db1(self) -> Instance:
        """The primary's instance."""
        return self.members.members["db1"]

    def add(self) -> str:
        """One more member that isn't there yet."""
        name = f"db{len(self.members.members) + 1}"
        self.members.members[name] = self.members.lab.plan()
        self.members.write()
        return name

    def repository(self, name: str, repo: pathlib.Path | None = None) -> dict[str, t.Any]:
        """What the module is told of the repository; the configuration lies on this member alone."""
        instance = self.members.members[name]
        made = pgbackrest_site.Site(self.members.lab, instance, repo or self.primary.repo)
        return {"config": str(made.config), "stanza": STANZA}

    def restore(self, name: str, repository: dict[str, t.Any], **options: t.Any) -> Result:
        """A copy out of the repository."""
        return self.members.ensure(name, "db1", clone_method="pgbackrest", pgbackrest=repository, **options)

    def standby(self, name: str, repository: dict[str, t.Any]) -> Instance:
        """A standby out of the repository, that streams."""
        self.restore(name, repository)
        self.members.adopt(name)
        self.members.ensure(name, "db1", state="streaming", pgbackrest=repository)
        return self.members.members[name]

    def recycle(self) -> None:
        """Let the primary archive, and drop, the WAL that it has; slots can't hold it."""
        self.db1.set(max_slot_wal_keep_size="1MB", wal_keep_size="0", max_wal_size="32MB", min_wal_size="32MB")
        for _round in range(4):
            self.db1.sql("SELECT pg_logical_emit_message(true, 'x', repeat('y', 1000))")
            self.primary.switch()
        self.db1.sql("CHECKPOINT")
        self.db1.set(max_slot_wal_keep_size="-1")

    def slot(self, name: str) -> str:
        """A member's slot, as the primary tells."""
        return self.db1.sql(f"SELECT active, wal_status FROM pg_replication_slots WHERE slot_name = '{name}'")


@pytest.fixture(scope="module")
def site(module_lab: Lab) -> Backed:
    """The primary has some data, and rows that came after its backup."""
    primary = pgbackrest_site.make_site(module_lab)
    members = Site(module_lab, {"db1": primary.instance})
    made = Backed(members, primary)
    primary.instance.sql(GRANTS)
    primary.instance.sql(
        f"INSERT INTO patients SELECT g, repeat(md5(g::text), 40) FROM generate_series(1, {ROWS}) AS g"
    )
    pgbackrest_site.begin(primary)
    name = made.add()
    repository = made.repository(name)
    assert refused(made, name, repository) == "no_backup"
    fallback = made.restore(name, repository, clone_fallback=True)
    assert "no backup" in fallback.warnings[0]
    assert "pg_basebackup" in fallback.values["plan"][-1]
    assert beside(members.members[name]) == ["data"], "the upstream was copied after all"
    primary.backup()
    primary.instance.sql(f"INSERT INTO patients VALUES ({ROWS + 1}, 'after the backup')")
    return made


def refused(site: Backed, name: str, repository: dict[str, t.Any], **options: t.Any) -> str:
    """The reason of a refusal, which has touched nothing."""
    before, slot = beside(site.members.members[name]), site.slot(name)
    with pytest.raises(Refused) as caught:
        site.restore(name, repository, **options)
    assert caught.value.state == "Nothing was touched."
    assert caught.value.next_step
    assert (beside(site.members.members[name]), site.slot(name)) == (before, slot)
    return caught.value.reason


@contextlib.contextmanager
def no_copying(instance: Instance) -> t.Iterator[None]:
    """While this holds, nobody can run pg_basebackup against the instance."""
    hba = instance.config / "pg_hba.conf"
    before = hba.read_text()
    hba.write_text(STREAMING_ONLY + before)
    instance.sql("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        hba.write_text(before)
        instance.sql("SELECT pg_reload_conf()")


def restoring_into(folder: pathlib.Path) -> list[int]:
    """Living pgBackRest processes that restore below a folder."""
    found = run("pgrep", "-f", f"pgbackrest .*--pg1-path={folder}/data.clone-", check=False).split()
    return [int(pid) for pid in found if process_alive(int(pid))]


def count(instance: Instance) -> str:
    return instance.sql("SELECT count(*), md5(string_agg(id || note, ',' ORDER BY id)) FROM patients")


def test_a_standby_from_a_backup(site: Backed) -> None:
    name = site.add()
    planned, repository = site.members.members[name], site.repository(name)
    label = site.primary.info()[-1]["label"]
    site.recycle()
    said = site.restore(name, repository, check_mode=True)
    assert said.changed
    assert label in said.values["plan"][-1]
    assert said.values["backup"]["label"] == label
    assert said.values["backup"]["bytes"] > said.values["backup"]["fetch_bytes"] > 0
    assert beside(planned) == []
    assert site.slot(name) == ""

    with no_copying(site.db1):
        done = site.restore(name, repository)
    assert done.changed
    assert done.values["cloned"]
    assert done.values["backup"]["label"] == label
    assert beside(planned) == ["data"]
    assert site.slot(name) == "f|reserved"
    assert not site.restore(name, repository).changed, "a second run finds the copy in order, started or not"
    assert "clone-" not in (planned.data / "postgresql.auto.conf").read_text()

    site.members.adopt(name)
    streaming = site.members.ensure(name, "db1", state="streaming", pgbackrest=repository)
    assert not streaming.changed
    assert f"pgbackrest --config={repository['config']} " in planned.sql("SHOW restore_command")
    site.db1.sql(f"INSERT INTO patients VALUES ({ROWS + 2}, 'streamed')")
    until(lambda: count(planned) == count(site.db1), "all rows are there")
    assert not site.restore(name, repository).changed
    assert not site.restore(name, repository, allow_reclone=True).changed, "a word that is not needed changes nothing"


def test_a_stanza_of_another_cluster_is_refused(site: Backed, lab: Lab) -> None:
    other = pgbackrest_site.make_site(lab)
    pgbackrest_site.begin(other)
    name = site.add()
    assert refused(site, name, site.repository(name, other.repo)) == "foreign_stanza"
    assert refused(site, name, {**site.repository(name), "stanza": "nowhere"}) == "no_stanza"


_RUN = """
import sys
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._postgres import connect
from ansible_collections.hms.postgres.plugins.module_utils._provision.standby import Request, Standby
pgbackrest = {"config": sys.argv[2], "stanza": sys.argv[3]}
request = Request(config_directory=sys.argv[1], upstream="db1", clone_method="pgbackrest", pgbackrest=pgbackrest)
Standby(request, connect=connect, runner=SystemRunner(), clock=SystemClock()).ensure(check_mode=False)
"""


class Halt:
    """In the place of a file of a repository a pipe: whoever restores from there hangs at it, until it is lifted."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._aside = path.rename(path.with_name(path.name + ".aside"))
        self._writer = -1
        os.mkfifo(path)
        shutil.chown(path, OS_USER, OS_USER)

    def met(self) -> bool:
        """Whether somebody wants to read it."""
        with contextlib.suppress(OSError):
            self._writer = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        return self._writer >= 0

    def lift(self) -> None:
        """The file is there again; who hangs at the pipe hangs on until it is closed."""
        if self._aside.exists():
            self._aside.rename(self._path)

    def close(self) -> None:
        """Let go of the pipe."""
        self.lift()
        if self._writer >= 0:
            os.close(self._writer)


def test_a_killed_restore_goes_on(site: Backed) -> None:
    name = site.add()
    planned, repository = site.members.members[name], site.repository(name)
    halt = Halt(max(site.primary.repo.glob("backup/*/*F/bundle/*")))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    argv = [sys.executable, "-c", _RUN, str(site.members.folder(name)), repository["config"], STANZA]
    victim = subprocess.Popen(argv, env=environment)
    try:
        until(lambda: halt.met() or victim.poll() is not None, "the restore is in the middle")
        halt.lift()
        signal_all(restoring_into(planned.folder), signal.SIGSTOP)
        victim.kill()
        victim.wait()
        (left,) = planned.folder.glob("data.clone-*")
        assert (left / "backup.manifest").exists(), "it was caught in the middle"
        assert not (left / "global" / "pg_control").exists()
        assert not planned.data.exists()
        assert restoring_into(planned.folder), "the restore hangs, and nobody waits for it"
        whole = {path.stat().st_ino for path in left.glob("base/1/*")}
        assert whole
        said = site.restore(name, repository, check_mode=True)
        assert any(f"go on in {left}" in line for line in said.values["plan"])
        done = site.restore(name, repository)
    finally:
        victim.kill()
        signal_all(restoring_into(planned.folder), signal.SIGKILL)
        halt.close()
    assert done.values["cloned"]
    assert beside(planned) == ["data"]
    assert restoring_into(planned.folder) == []
    assert whole <= {path.stat().st_ino for path in planned.data.glob("base/1/*")}, "what was there was kept"
    site.members.adopt(name)
    site.members.ensure(name, "db1", state="streaming", pgbackrest=repository)
    until(lambda: count(planned) == count(site.db1), "all rows are there")


def test_a_standby_that_fell_behind_its_slot_catches_up(site: Backed) -> None:
    name = site.add()
    repository = site.repository(name)
    standby = site.standby(name, repository)
    standby.stop()
    site.db1.sql(f"INSERT INTO patients VALUES ({ROWS + 10}, 'while it was down')")
    site.recycle()
    assert site.slot(name) == "f|lost"
    said = site.members.ensure(name, "db1", check_mode=True, pgbackrest=repository)
    assert len(said.values["plan"]) == 2
    assert site.slot(name) == "f|lost"
    assert site.members.ensure(name, "db1", pgbackrest=repository).values["plan"] == said.values["plan"]
    standby.start()
    done = site.members.ensure(name, "db1", state="streaming", pgbackrest=repository)
    assert not done.changed
    assert done.values["receiver"]["slot_name"] == name
    assert site.slot(name) == "t|reserved"
    until(lambda: count(standby) == count(site.db1), "it read from the archive what the primary had dropped")

    standby.stop()
    until(lambda: site.slot(name).startswith("f|"), "nobody uses the slot")
    site.db1.sql(f"SELECT pg_drop_replication_slot('{name}')")
    site.db1.sql(f"INSERT INTO patients VALUES ({ROWS + 11}, 'without a slot')")
    site.recycle()
    standby.start()
    until(lambda: count(standby) == count(site.db1), "it catches up by itself")
    assert standby.sql("SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'") == "0"
    site.members.ensure(name, "db1", state="streaming", pgbackrest=repository)
    assert site.slot(name) == "t|reserved"


def test_wal_that_is_nowhere_any_more(site: Backed) -> None:
    name = site.add()
    repository = site.repository(name)
    standby = site.standby(name, repository)
    standby.stop()
    gap = site.db1.sql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    site.recycle()
    repo = site.members.lab.folder / f"damaged-{name}"
    shutil.copytree(site.primary.repo, repo, symlinks=True)
    pgbackrest_site.as_owner(repo)
    for path in repo.glob(f"archive/*/*/*/{gap[:23]}?-*"):
        path.unlink()
    damaged = site.repository(name, repo)
    assert site.slot(name) == "f|lost"
    with pytest.raises(Refused, match="The archive can't help: WAL is missing") as caught:
        site.members.ensure(name, "db1", pgbackrest=damaged)
    assert caught.value.reason == "wal_lost"
    assert refused(site, name, damaged, allow_reclone=True) == "wal_missing"
    assert site.members.ensure(name, "db1", pgbackrest=repository).changed, "the whole archive has it"


def test_a_backup_that_is_damaged(site: Backed) -> None:
    name = site.add()
    planned = site.members.members[name]
    repo = site.members.lab.folder / f"broken-{name}"
    shutil.copytree(site.primary.repo, repo, symlinks=True)
    pgbackrest_site.as_owner(repo)
    largest = max(repo.glob("backup/*/*F/**/*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    pgbackrest_site.flip(largest, largest.stat().st_size // 2)
    damaged = site.repository(name, repo)
    with open(damaged["config"], "a", encoding="utf-8") as config:
        config.write("[global:restore]\njob-retry=0\n")  # else it tries again for half a minute
    with pytest.raises(ToolFailed) as caught:
        site.restore(name, damaged)
    assert caught.value.phase == "clone"
    assert "no data directory was touched" in caught.value.state
    assert not planned.data.exists()
    done = site.restore(name, damaged, clone_fallback=True)
    assert "copied by pg_basebackup" in done.warnings[-1]
    assert beside(planned) == ["data"]
    site.members.adopt(name)
    site.members.ensure(name, "db1", state="streaming")
    until(lambda: count(planned) == count(site.db1), "all rows are there")


def test_old_data_is_used_up_only_by_that_word(site: Backed) -> None:
    name = site.add()
    repository = site.repository(name)
    standby = site.standby(name, repository)
    standby.promote()
    standby.sql("CREATE TABLE nowhere_else (a int)")
    assert standby.sql("SHOW restore_command") != "", "a primary has it too, and does not call it"
    standby.stop("immediate")
    assert refused(site, name, repository) == "was_primary"
    whole = {path.stat().st_ino for path in standby.data.glob("base/1/*")}
    said = site.restore(name, repository, allow_reclone=True, reuse_data=True, check_mode=True)
    assert any("LOST" in line for line in said.values["plan"])
    done = site.restore(name, repository, allow_reclone=True, reuse_data=True)
    assert done.values["kept_directory"] == ""
    assert beside(standby) == ["data"]
    assert whole & {path.stat().st_ino for path in standby.data.glob("base/1/*")}, "not all was fetched again"
    standby.start()
    site.members.ensure(name, "db1", state="streaming", pgbackrest=repository)
    until(lambda: count(standby) == count(site.db1), "all rows are there")
    assert standby.sql("SELECT to_regclass('nowhere_else') IS NULL") == "t"
