# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Instances that are members of a cluster, each with its member.json, and standbys made of them, for tests."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._module import Result
from ansible_collections.hms.postgres.plugins.module_utils._postgres import connect
from ansible_collections.hms.postgres.plugins.module_utils._provision.instance import instance_manager
from ansible_collections.hms.postgres.plugins.module_utils._provision.instance_model import InstanceWish
from ansible_collections.hms.postgres.plugins.module_utils._provision.standby import Request, Standby
from ansible_collections.hms.postgres.tests.real.lab import BINARIES, OS_USER, REPLICATION_PASSWORD, Instance, Lab, run

GRANTS = """
GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean) TO hms_replication;
CREATE TABLE patients (id int PRIMARY KEY, note text);
"""


@dataclasses.dataclass
class Site:
    """Instances that know each other as members, each with its member.json."""

    lab: Lab
    members: dict[str, Instance]

    def folder(self, name: str) -> pathlib.Path:
        """The configuration directory of one member."""
        return self.members[name].folder / "etc"

    def write(self, **ports: int) -> None:
        """Write every member.json and passfile; `ports` says by which a member is reached, where not by its own."""
        peers = [
            {"name": name, "address": "127.0.0.1", "port": ports.get(name, made.port)}
            for name, made in self.members.items()
        ]
        for name, instance in self.members.items():
            folder = self.folder(name)
            folder.mkdir(exist_ok=True)
            passfile = folder / "replication.pgpass"
            passfile.write_text(f"*:*:*:hms_replication:{REPLICATION_PASSWORD}\n")
            passfile.chmod(0o600)
            run("chown", OS_USER, str(passfile))
            login = {"user": "hms_replication", "passfile": str(passfile), "sslmode": "prefer"}
            (folder / "member.json").write_text(json.dumps(self._member(name, instance, login, peers)))

    def _member(
        self, name: str, instance: Instance, login: dict[str, str], peers: list[dict[str, t.Any]]
    ) -> dict[str, t.Any]:
        return {
            "kind": "database",
            "name": name,
            "cluster": "lab",
            "environment": "demo",
            "address": "127.0.0.1",
            "state_directory": str(instance.folder / "state"),
            "database": "postgres",
            "sync_policy": "async",
            "postgresql": {
                "version": instance.version,
                "instance": instance.name,
                "port": instance.port,
                "socket_directory": str(instance.sockets),
                "data_directory": str(instance.data),
                "config_directory": str(instance.config),
                "bin_directory": str(BINARIES),
                "os_user": OS_USER,
            },
            "replication": {**login, "slot_name": name},
            "monitor": login,
            "members": peers,
        }

    def ensure(self, name: str, upstream: str, *, check_mode: bool = False, **options: t.Any) -> Result:
        """Call what the module calls."""
        request = Request(config_directory=str(self.folder(name)), upstream=upstream, **options)
        standby = Standby(request, connect=connect, runner=SystemRunner(), clock=SystemClock())
        return standby.ensure(check_mode=check_mode)

    def adopt(self, name: str) -> None:
        """Take a copy over as one of Debian's instances, and start it."""
        instance = self.members[name]
        wish = InstanceWish(
            version=instance.version,
            name=instance.name,
            port=instance.port,
            data_directory=str(instance.data),
            socket_directory=str(instance.sockets),
            start_conf="manual",
            initialise=False,
        )
        instance_manager(os_user=OS_USER).ensure(wish, check_mode=False)
        self.lab.configure(instance)
        instance.start()

    def standby(self, name: str, upstream: str) -> Instance:
        """A standby that streams."""
        self.ensure(name, upstream)
        self.adopt(name)
        self.ensure(name, upstream, state="streaming")
        return self.members[name]


def beside(instance: Instance) -> list[str]:
    """What lies beside a data directory."""
    return sorted(path.name for path in instance.folder.iterdir() if path.name.startswith("data"))
