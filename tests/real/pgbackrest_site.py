# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A primary that archives into an encrypted pgBackRest repository in a folder, for tests."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import shutil
import subprocess
import time
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._artifact import pgbackrest_catalog
from ansible_collections.hms.postgres.plugins.module_utils._artifact.model import Compression
from ansible_collections.hms.postgres.plugins.module_utils._backup import pgbackrest_engine, pgbackrest_stanza
from ansible_collections.hms.postgres.plugins.module_utils._backup.model import Wish
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._module import Result
from ansible_collections.hms.postgres.plugins.module_utils._postgres import ConnectionParams, Session, connect
from ansible_collections.hms.postgres.plugins.module_utils._record import new_id
from ansible_collections.hms.postgres.plugins.module_utils._tools.pgbackrest import PgBackRest
from ansible_collections.hms.postgres.tests.real.lab import BINARIES, OS_USER, Instance, Lab, as_postgres, until

STANZA = "hospital"
PASSPHRASE = "a passphrase that nobody may see"
_CONFIG = """\
[global]
repo1-path={repo}
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass={passphrase}
repo1-retention-full=9999999
repo1-bundle=y
compress-type=zst
compress-level=3
start-fast=y
expire-auto=n
archive-async=y
log-level-file=off
lock-path={own}/lock
spool-path={own}/spool
[{stanza}]
pg1-path={data}
pg1-port={port}
pg1-socket-path={sockets}
"""


def own(path: pathlib.Path) -> pathlib.Path:
    """Give a file or folder to the servers' user, and to nobody else."""
    shutil.chown(path, OS_USER, OS_USER)
    path.chmod(0o700 if path.is_dir() else 0o600)
    return path


class Site:
    """One instance, its configuration of pgBackRest, and the repository, which others may share."""

    def __init__(self, lab: Lab, instance: Instance, repo: pathlib.Path, *, passphrase: str = PASSPHRASE) -> None:
        self.lab = lab
        self.instance = instance
        self.repo = repo
        self.folder = own(_made(lab.folder / f"pgbackrest-{instance.name}-{time.monotonic_ns()}"))
        self.config = self.folder / "pgbackrest.conf"
        self.write_config(passphrase)
        self.runner = SystemRunner()

    def write_config(self, passphrase: str = PASSPHRASE) -> None:
        """The configuration, as the role writes it."""
        self.config.write_text(
            _CONFIG.format(
                repo=self.repo,
                passphrase=passphrase,
                own=self.folder,
                stanza=STANZA,
                data=self.instance.data,
                port=self.instance.port,
                sockets=self.instance.sockets,
            )
        )
        own(self.config)

    @property
    def archive_command(self) -> str:
        """What the server calls."""
        return f"pgbackrest --config={self.config} --stanza={STANZA} archive-push %p"

    @property
    def driver(self) -> PgBackRest:
        """The driver that is tested."""
        return PgBackRest(self.runner, config=str(self.config), stanza=STANZA)

    @property
    def archive(self) -> pathlib.Path:
        """The archive's folder of the cluster's first generation."""
        return next(iter(sorted((self.repo / "archive" / STANZA).glob("*-1"))))

    def segments(self, timeline: int = 1) -> list[pathlib.Path]:
        """The archived segments of a timeline, in order."""
        return sorted(self.archive.glob(f"{timeline:08X}????????/{timeline:08X}????????????????-*"))

    def program(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """pgBackRest itself, as an operator calls it."""
        done = subprocess.run(
            ["runuser", "-u", OS_USER, "--", "pgbackrest", f"--config={self.config}", f"--stanza={STANZA}", *argv],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
            check=False,
            cwd="/",
        )
        assert done.returncode == 0 or not check, done.stderr + done.stdout
        return done

    def info(self) -> list[dict[str, t.Any]]:
        """What pgBackRest's own catalog lists."""
        found: list[dict[str, t.Any]] = json.loads(self.program("info", "--output=json").stdout)[0]["backup"]
        return found

    def wish(self, type_: str = "full", **changes: t.Any) -> Wish:
        """A backup, wished."""
        wish = Wish(
            cluster="hospital",
            environment="development",
            connection=ConnectionParams(host=str(self.instance.sockets), port=self.instance.port),
            stores=(),
            state_dir=str(self.folder),
            engine="pgbackrest",
            type=t.cast(t.Any, type_),
            compression=Compression(),
            timeout=250.0,
            pgbackrest={"config": str(self.config), "stanza": STANZA},
        )
        return dataclasses.replace(wish, **changes)

    def session(self, params: ConnectionParams) -> Session:
        """A connection as the superuser."""
        return connect(params, os_user=OS_USER)

    def backup(self, type_: str = "full", **changes: t.Any) -> pgbackrest_engine.Made:
        """One backup by the engine."""
        return pgbackrest_engine.backup(
            self.wish(type_, **changes),
            identifier=new_id("backup", SystemClock()),
            by="a test",
            host="db1",
            runner=self.runner,
            clock=SystemClock(),
            connect=self.session,
        )

    def listed(self) -> list[t.Any]:
        """The catalog in our shape."""
        return pgbackrest_catalog.read(self.driver, cluster="hospital", environment="development", database="hospital")

    def write(self, table: str, rows: int = 2000) -> None:
        """Some data, and the WAL of it in the archive."""
        self.instance.sql(f"CREATE TABLE {table} AS SELECT g, md5(g::text) AS text FROM generate_series(1, {rows}) g")
        self.switch()

    def switch(self) -> str:
        """Close the current segment and wait until it is in the archive; its name."""
        name = self.instance.sql("SELECT pg_walfile_name(pg_switch_wal())")
        until(lambda: bool(list(self.archive.glob(f"*/{name}-*"))), f"{name} is archived", seconds=100)
        return name

    def all_is_archived(self) -> None:
        """Wait until the server has nothing left to archive."""
        ready = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"
        if self.instance.pid is not None:
            until(lambda: self.instance.sql(ready) == "0", "nothing is left to archive", seconds=100)

    def twin(self, **config: str) -> Site:
        """The same instance with a copy of the repository, for tests that damage it."""
        repo = self.lab.folder / f"repo-{time.monotonic_ns()}"
        # what is just being written is renamed at its end
        self.all_is_archived()
        shutil.copytree(self.repo, repo, symlinks=True)
        as_owner(repo)
        return Site(self.lab, self.instance, repo, **config)

    @contextlib.contextmanager
    def archiving(self, other: Site) -> t.Iterator[Site]:
        """While this twin makes backups, the server archives into both repositories."""
        self.instance.set(archive_command=f"{self.archive_command} && {other.archive_command}")
        try:
            yield self
        finally:
            self.instance.set(archive_command=other.archive_command)

    @contextlib.contextmanager
    def restored(self, *options: str) -> t.Iterator[Instance]:
        """A server on what pgBackRest restores from the repository, apart from everything else."""
        folder = own(_made(self.lab.folder / f"restored-{time.monotonic_ns()}"))
        side = Instance(folder.name, self.lab.port(), folder)
        own(_made(side.data))
        own(_made(side.sockets))
        self.program("restore", f"--pg1-path={side.data}", "--archive-mode=off", *options)
        settings = (
            f"port = {side.port}\nlisten_addresses = ''\nunix_socket_directories = '{side.sockets}'\n"
            f"hba_file = '{folder}/hba.conf'\nfsync = off\nmax_connections = 50\nwal_log_hints = on\n"
        )
        (side.data / "postgresql.conf").write_text(settings)
        (folder / "hba.conf").write_text("local all all trust\n")
        for path in (side.data / "postgresql.conf", folder / "hba.conf"):
            own(path)
        control = [str(BINARIES / "pg_ctl"), "-D", str(side.data), "-s", "-w", "-t", "110"]
        as_postgres(*control, "-l", str(folder / "log"), "start")
        try:
            until(lambda: side.sql("SELECT pg_is_in_recovery()") == "f", "the restored server is open")
            yield side
        finally:
            as_postgres(*control, "-m", "immediate", "stop")


def _made(path: pathlib.Path) -> pathlib.Path:
    path.mkdir()
    return path


def as_owner(folder: pathlib.Path) -> None:
    """Give a whole folder to the servers' user."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            shutil.chown(path, OS_USER, OS_USER)


def make_site(lab: Lab) -> Site:
    """A new primary with an empty repository, archiving, without a stanza."""
    instance = lab.primary(archive_mode="on", archive_command="/bin/true")
    repo = own(_made(lab.folder / f"repo-{instance.name}"))
    return Site(lab, instance, repo)


def begin(site: Site) -> None:
    """Let the server archive, then make the stanza: its attempts get in the way, as they do where the role works."""
    site.instance.set(archive_command=site.archive_command)
    site.instance.sql("SELECT pg_switch_wal()")
    ensure(site)


def ensure(site: Site, *, check_mode: bool = False) -> Result:
    """What the role does about the stanza."""
    order = pgbackrest_stanza.Order(
        config=str(site.config),
        stanza=STANZA,
        port=site.instance.port,
        socket_directory=str(site.instance.sockets),
    )
    return pgbackrest_stanza.work(
        order, check_mode=check_mode, connect=connect, runner=site.runner, clock=SystemClock()
    )


def flip(path: pathlib.Path, position: int) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
