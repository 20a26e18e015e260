# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What tests of restores need beside a site with backups: the module, here or in a process of its own, and oracles."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._module import Result
from ansible_collections.hms.postgres.plugins.modules import pg_restore_safe
from ansible_collections.hms.postgres.tests.real import backup_site
from ansible_collections.hms.postgres.tests.real.backup_site import ROOT, Site
from ansible_collections.hms.postgres.tests.real.lab import Instance, until

PROPERTIES = """
SELECT pg_get_userbyid(datdba), datconnlimit, pg_encoding_to_char(encoding), datcollate, datctype, datistemplate,
  (SELECT array_agg(a ORDER BY a) FROM (SELECT grantee::regrole::text || privilege_type || is_grantable AS a
    FROM aclexplode(coalesce(datacl, acldefault('d', datdba)))) x),
  (SELECT array_agg(setrole::regrole::text || ':' || setconfig::text ORDER BY 1) FROM pg_db_role_setting s
    WHERE s.setdatabase = d.oid)
FROM pg_database d WHERE datname = {name}
"""


def properties(server: Instance, name: str) -> str:
    """Owner, limits, locale, rights and settings, as psql tells them."""
    quoted = name.replace("'", "''")
    return server.sql(PROPERTIES.format(name=f"'{quoted}'"))


def scratches(server: Instance) -> list[str]:
    """The scratch databases that are there."""
    return server.sql("SELECT datname FROM pg_database WHERE datname LIKE 'hms_restore%' ORDER BY 1").split()


@contextlib.contextmanager
def untouched(server: Instance, which: str, sessions: str, *, seconds: float = 60.0) -> t.Iterator[None]:
    """Whatever is done: `which` databases are the same afterwards, nobody is left of these `sessions`, and no key."""
    ask = f"SELECT string_agg(datname || oid, ',' ORDER BY oid) FROM pg_database WHERE {which}"
    count = f"SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '{sessions}'"
    before = server.sql(ask)
    yield
    assert server.sql(ask) == before
    until(lambda: server.sql(count) == "0", "the server's sessions have ended", seconds=seconds)
    assert backup_site.remnants_in_memory(os.getpid()) == []
    backup_site.drop(server, *scratches(server))


def left_alone(server: Instance, name: str) -> None:
    """Wait until nobody is in a database: a session that its client has closed ends a moment later."""
    inside = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND backend_type = 'client backend'"
    until(lambda: server.sql(inside) == "0", f"nobody is in {name}", seconds=60)


def comment(server: Instance, name: str) -> str:
    """A database's comment."""
    return server.sql(f"SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{name}'")


@dataclasses.dataclass
class RestoreSite(Site):
    """A site whose backups are restored."""

    def order(self, **changes: t.Any) -> dict[str, t.Any]:
        """The restore's arguments."""
        return {
            "cluster": "hospital",
            "environment": "testing",
            "database": self.database,
            "login_host": str(self.instance.sockets),
            "login_port": self.instance.port,
            "store": {"folder": str(self.store)},
            "state_dir": str(self.state),
            "timeout": 100.0,
            **changes,
        }

    def restore(self, *, check_mode: bool = False, **changes: t.Any) -> Result:
        """Restore, in this process."""
        return pg_restore_safe.work(self.order(**changes), check_mode=check_mode)

    def refused(self, *, check_mode: bool = False, **changes: t.Any) -> HmsError:
        """Restore, and see it fail; whatever it was, a record says so, and none is left by a look."""
        before = self.records()
        with pytest.raises(HmsError) as caught:
            self.restore(check_mode=check_mode, **changes)
        told = caught.value
        added = [self.record(str(path))["outcome"] for path in self.records() - before]
        status = "refused" if isinstance(told, Refused) else "failed"
        expected = [] if check_mode else [(status, told.message)]
        assert [(outcome["status"], outcome["message"]) for outcome in added] == expected
        return told

    def records(self) -> set[pathlib.Path]:
        """The records of restores that came to their end."""
        return set(self.state.glob("records/*-restore-*.json"))

    def start_restore(self, *, module: str = "pg_restore_safe", **changes: t.Any) -> subprocess.Popen[bytes]:
        """Run the module in a process of its own, as Ansible would."""
        arguments = json.dumps({"ANSIBLE_MODULE_ARGS": self.order(**changes)}).encode()
        reader, writer = os.pipe()
        os.write(writer, arguments)
        os.close(writer)
        with open(self.folder / "module.out", "wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", f"ansible_collections.hms.postgres.plugins.modules.{module}"],
                stdin=reader,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT / ".collections"), "LC_ALL": "C.UTF-8"},
                start_new_session=True,
            )
        os.close(reader)
        return process

    def data_file(self, identifier: str) -> pathlib.Path:
        """The stored dump of a backup."""
        (found,) = self.members(identifier).glob("data.*")
        return found

    def record(self, path: str) -> dict[str, t.Any]:
        """A record, read from its file."""
        found: dict[str, t.Any] = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        return found


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL, as the kernel does when memory ends."""
    process.kill()
    process.wait(60)
