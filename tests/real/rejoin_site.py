# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A primary and its standbys as members of a cluster, for the tests of dossier, rejoin and start guard."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import signal
import typing as t

from ansible_collections.hms.postgres.tests.real.lab import (
    BINARIES,
    OS_USER,
    REPLICATION_PASSWORD,
    REWIND_RIGHTS,
    VERSION,
    Instance,
    Lab,
    as_postgres,
    signal_all,
    until,
    working_in,
)

DATABASE = "hospital"
MONITOR_PASSWORD = "monitor of the lab"

SETTINGS: dict[str, t.Any] = {
    "max_prepared_transactions": "5",
    "wal_retrieve_retry_interval": "200ms",
    "autovacuum": "off",
    "min_wal_size": "32MB",
}

_ROLES = (
    f"CREATE ROLE hms_monitor LOGIN PASSWORD '{MONITOR_PASSWORD}' IN ROLE pg_monitor",
    REWIND_RIGHTS,
)
_SCHEMA = """
CREATE TABLE patients (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE appointments (id serial PRIMARY KEY, patient int REFERENCES patients, note text);
INSERT INTO patients SELECT n, 'made up ' || n FROM generate_series(1, 200) n;
INSERT INTO appointments (patient, note) SELECT n, repeat('x', 500) FROM generate_series(1, 200) n;
"""


@dataclasses.dataclass(frozen=True)
class Member:
    """A host of the site: an instance with its member.json and its state."""

    instance: Instance

    @property
    def name(self) -> str:
        """Its name in the cluster, and that of its slot."""
        return self.instance.name

    @property
    def config(self) -> pathlib.Path:
        """Where member.json is."""
        return self.instance.folder / "etc"

    @property
    def state(self) -> pathlib.Path:
        """Where fence, records and diverged WAL are."""
        return self.instance.folder / "state"

    def sql(self, statement: str) -> str:
        """psql in the hospital's database."""
        return self.instance.sql(statement, dbname=DATABASE)

    def control(self, key: str) -> str:
        """A value of pg_controldata."""
        output = as_postgres(str(BINARIES / "pg_controldata"), str(self.instance.data))
        return next(line.partition(":")[2].strip() for line in output.splitlines() if line.startswith(key))

    def processes(self) -> list[int]:
        """Living processes that work in the data directory."""
        return working_in(self.instance.data)

    def kill(self) -> None:
        """The power cord: nobody gets to finish anything."""
        signal_all(self.processes(), signal.SIGKILL)
        until(lambda: not self.processes(), f"{self.name} is dead")

    def promote(self) -> None:
        """Promote and checkpoint, as an operation does."""
        self.instance.promote()
        self.instance.sql("CHECKPOINT")

    def detach(self) -> None:
        """Receive nothing any more."""
        self.instance.set(primary_conninfo="")
        until(lambda: self.instance.sql("SELECT count(*) FROM pg_stat_wal_receiver") == "0", "the receiver ends")

    def streams(self) -> bool:
        """psql's word for it."""
        return self.instance.sql("SELECT status FROM pg_stat_wal_receiver") == "streaming"

    def signal_standby(self) -> None:
        """Write standby.signal."""
        path = self.instance.data / "standby.signal"
        path.touch()
        shutil.chown(path, OS_USER, OS_USER)

    def fence(self) -> None:
        """What a failover leaves on the old primary."""
        note = {"operation": "20260101T000000Z-failover-0000", "at": "2026-01-01T00:00:00Z", "start_conf": "manual"}
        (self.state / "fence.json").write_text(json.dumps(note))
        (self.instance.config / "start.conf").write_text("disabled\n")
        self.signal_standby()


class Site:
    """Members in the order in which they were made; the first one is the first primary."""

    def __init__(self, lab: Lab, *, standbys: int = 1, **settings: str) -> None:
        self.lab = lab
        self._settings = {**SETTINGS, **settings}
        self.members: list[Member] = []
        self._build(standbys)

    def _build(self, standbys: int) -> None:
        primary = self.lab.primary(checksums=False, **self._settings)
        self.members.append(Member(primary))
        for statement in _ROLES:
            primary.sql(statement)
        primary.sql(f"CREATE DATABASE {DATABASE}")
        primary.sql(_SCHEMA, dbname=DATABASE)
        for _number in range(standbys):
            instance = self.lab.standby(primary, start=False)
            self.lab.configure(instance, **self._settings)
            self.members.append(Member(instance))
        for member in self.members:
            self.write_member(member)
        for member in self.members[1:]:
            member.instance.start()
            self.await_streaming(member, self.members[0])

    def _passfile(self, user: str, password: str) -> str:
        path = self.lab.folder / f"{user}.pgpass"
        if not path.exists():
            path.write_text(f"*:*:*:{user}:{password}\n")
            path.chmod(0o600)
            shutil.chown(path, OS_USER, OS_USER)
        return str(path)

    @staticmethod
    def conninfo(member: Member, upstream: Member) -> str:
        """primary_conninfo, for a test that points a standby itself."""
        return (
            f"host=127.0.0.1 port={upstream.instance.port} user=hms_replication application_name={member.name} "
            f"password=''{REPLICATION_PASSWORD}''"
        )

    def description(self, member: Member) -> dict[str, t.Any]:
        """member.json's content."""
        instance = member.instance
        tls = {"sslmode": "prefer", "sslrootcert": None}
        return {
            "schema": 1,
            "kind": "database",
            "name": member.name,
            "cluster": "lab",
            "environment": "demo",
            "address": "127.0.0.1",
            "state_directory": str(member.state),
            "database": DATABASE,
            "sync_policy": "async",
            "postgresql": {
                "version": VERSION,
                "instance": instance.name,
                "port": instance.port,
                "socket_directory": str(instance.sockets),
                "data_directory": str(instance.data),
                "config_directory": str(instance.config),
                "bin_directory": str(BINARIES),
                "os_user": OS_USER,
            },
            "replication": {
                "user": "hms_replication",
                "passfile": self._passfile("hms_replication", REPLICATION_PASSWORD),
                "slot_name": member.name,
                **tls,
            },
            "monitor": {
                "user": "hms_monitor",
                "passfile": self._passfile("hms_monitor", MONITOR_PASSWORD),
                **tls,
            },
            "members": [
                {"name": each.name, "address": "127.0.0.1", "port": each.instance.port} for each in self.members
            ],
        }

    def write_member(self, member: Member, **changes: t.Any) -> None:
        """Write member.json."""
        member.config.mkdir(exist_ok=True)
        member.state.mkdir(exist_ok=True)
        (member.config / "member.json").write_text(json.dumps({**self.description(member), **changes}))

    @staticmethod
    def await_streaming(member: Member, upstream: Member) -> None:
        """Wait until the upstream sends to the member."""
        sql = f"SELECT count(*) FROM pg_stat_replication WHERE application_name = '{member.name}'"
        until(lambda: upstream.instance.sql(sql + " AND state = 'streaming'") == "1", f"{member.name} streams")

    @staticmethod
    def await_replay(member: Member, upstream: Member) -> None:
        """Wait until the member has replayed all that the upstream has written."""
        position = upstream.instance.sql("SELECT pg_current_wal_lsn()")
        sql = f"SELECT pg_last_wal_replay_lsn() >= '{position}'"
        until(lambda: member.instance.sql(sql) == "t", f"{member.name} has replayed {position}")

    def inventory(self, path: pathlib.Path, **variables: t.Any) -> pathlib.Path:
        """An inventory file with the members as database hosts."""
        hosts = {
            member.name: {
                "ansible_connection": "local",
                "ansible_python_interpreter": "/usr/bin/python3",
                "hms_config_dir": str(member.config),
                "hms_state_dir": str(member.state),
                **variables,
            }
            for member in self.members
        }
        path.write_text(json.dumps({"all": {"children": {"database": {"hosts": hosts}}}}))
        return path
