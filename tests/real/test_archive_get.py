# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What servers call for WAL of the archive, run as they run it, while another pgBackRest is in the way too."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import pathlib
import subprocess
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._tools import pgbackrest_fetch
from ansible_collections.hms.postgres.tests.real.gpg_site import processes_with
from ansible_collections.hms.postgres.tests.real.lab import OS_USER, Lab, until
from ansible_collections.hms.postgres.tests.real.pgbackrest_site import STANZA, Site, begin, make_site, own

pytestmark = pytest.mark.timeout(150)


@pytest.fixture(scope="module")
def site(module_lab: Lab) -> Site:
    """A server that archives, and some segments in the archive."""
    made = make_site(module_lab)
    begin(made)
    for table in ("first", "second"):
        made.write(table)
    return made


class Caller:
    """Calls for a segment as a server does: by the shell, from its data directory."""

    def __init__(self, site: Site, command: str, locks: pathlib.Path) -> None:
        self.site = site
        self.command = command
        self.locks = locks
        self.path = site.folder / "fetched"

    def __call__(self, segment: str) -> subprocess.CompletedProcess[str]:
        self.path.unlink(missing_ok=True)
        command = self.command.replace("%f", segment).replace("%p", str(self.path)).replace("%%", "%")
        return subprocess.run(
            ["runuser", "-u", OS_USER, "--", "sh", "-c", command],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=self.site.instance.data,
        )

    @contextlib.contextmanager
    def occupied(self) -> t.Iterator[None]:
        """While another process, which fetches other segments, holds the lock of asynchronous fetching."""
        self(self.site.segments()[-1].name[:24])
        lock = self.locks / f"{STANZA}-archive.lock"
        until(lambda: not processes_with(f"--config={self.site.config}"), "nothing is fetched any more")
        lock.touch()
        with own(lock).open("a") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield
        lock.unlink(missing_ok=True)


@pytest.fixture(params=["recovery", "standby"])
def fetch(request: pytest.FixtureRequest, site: Site) -> Caller:
    """What a restored server calls, and what a standby calls."""
    if request.param == "standby":
        return Caller(site, pgbackrest_fetch.for_standby(str(site.config), STANZA), site.folder / "lock")
    spool, locks = (site.folder / f"{name}-of-recovery" for name in ("spool", "lock"))
    for folder in (spool, locks):
        folder.mkdir(exist_ok=True)
        own(folder)
    command = pgbackrest_fetch.for_recovery(
        site.driver, data=str(site.instance.data), spool_path=str(spool), lock_path=str(locks)
    )
    return Caller(site, command, locks)


def test_a_segment_comes(site: Site, fetch: Caller) -> None:
    last = site.segments()[-1].name
    done = fetch(last[:24])
    assert done.returncode == 0, done.stderr
    assert hashlib.sha1(fetch.path.read_bytes(), usedforsecurity=False).hexdigest() == last[25:].split(".", 1)[0]


def test_one_that_is_not_there_is_no_error(fetch: Caller) -> None:
    """The end of the archive: 1, which a server takes for it, and not a word."""
    done = fetch("0000000900000000000000EE")
    assert (done.returncode, done.stderr) == (1, "")
    assert not fetch.path.exists()


def test_it_comes_although_another_process_fetches_something_else(site: Site, fetch: Caller) -> None:
    """At the change of timelines that of the old one holds the lock, and the one that was started for the new one ends.

    A pgBackRest older than 2.59 waits in vain then and says that it failed: to a server, that is the archive's end.
    """
    with fetch.occupied():
        done = fetch(site.segments()[0].name[:24])
        assert done.returncode == 0, done.stderr
        assert fetch.path.stat().st_size == 16 << 20
        assert fetch("0000000900000000000000EE").returncode == 1
