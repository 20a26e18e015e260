# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Debian's programs for several instances on one host: pg_createcluster and its relatives. PRIVATE."""

from __future__ import annotations

import json
import typing as t

from .._command import CommandRunner, find_program
from .._errors import HmsError

NEEDED_FOR = "managing PostgreSQL instances the Debian way (package postgresql-common)"

CREATE_TIMEOUT = 300.0
CONTROL_TIMEOUT = 180.0
QUICK_TIMEOUT = 30.0
NOT_RUNNING = 2
"""pg_ctlcluster's exit code for stopping what is down."""


class ListedInstance(t.NamedTuple):
    """One instance in pg_lsclusters' list."""

    version: int
    name: str
    port: int | None
    running: bool
    data_directory: str
    owner_uid: int | None
    start_conf: str
    socket_directory: str

    @property
    def title(self) -> str:
        """Version and name as Debian writes them, e.g. ``15/main``."""
        return f"{self.version}/{self.name}"


def _number(value: t.Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def parse_json_list(text: str) -> tuple[ListedInstance, ...]:
    """Parse ``pg_lsclusters --json``."""
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise HmsError(f"pg_lsclusters --json printed no JSON: {error}.", reason="unexpected_output") from error
    found = []
    for entry in entries:
        version = _number(entry.get("version"))
        if version is None:  # 9.6 and older: not ours to manage, but their ports count
            version = int(float(entry.get("version") or 0))
        found.append(
            ListedInstance(
                version=version,
                name=str(entry.get("cluster", "")),
                port=_number(entry.get("port")),
                running=bool(entry.get("running")),
                data_directory=str(entry.get("pgdata") or ""),
                owner_uid=_number(entry.get("owneruid")),
                start_conf=str(entry.get("start") or ""),
                socket_directory=str(entry.get("socketdir") or ""),
            )
        )
    return tuple(found)


def parse_column_list(text: str) -> tuple[ListedInstance, ...]:
    """Parse ``pg_lsclusters --no-header``: what there is where Perl's JSON library is missing.

    The columns are version, name, port, status, owner, data directory, log file. A data directory with a
    blank in it is cut at the blank; the JSON form has no such limit.
    """
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 6:
            continue
        version, name, port, status, _owner, data_directory = fields[:6]
        found.append(
            ListedInstance(
                version=int(float(version)),
                name=name,
                port=_number(port),
                running=status.split(",")[0] == "online",
                data_directory=data_directory if data_directory.startswith("/") else "",
                owner_uid=None,
                start_conf="",
                socket_directory="",
            )
        )
    return tuple(found)


class PgLsClusters:
    """pg_lsclusters: which instances Debian's tools know on this host."""

    def __init__(self, runner: CommandRunner) -> None:
        self._runner = runner
        self._program = find_program("pg_lsclusters", needed_for=NEEDED_FOR)

    def all(self) -> tuple[ListedInstance, ...]:
        """Every instance of every version."""
        listed = self._runner.run([self._program, "--json"], timeout=QUICK_TIMEOUT)
        if listed.rc == 0:
            return parse_json_list(listed.stdout)
        plain = self._runner.run([self._program, "--no-header"], timeout=QUICK_TIMEOUT)
        return parse_column_list(plain.check("Listing the PostgreSQL instances").stdout)


class PgCreateCluster:
    """pg_createcluster: a new instance, or Debian's configuration for a data directory that exists."""

    def __init__(self, runner: CommandRunner) -> None:
        self._runner = runner
        self._program = find_program("pg_createcluster", needed_for=NEEDED_FOR)

    def _base(
        self, *, os_user: str, data_directory: str, socket_directory: str, port: int, start_conf: str
    ) -> list[str]:
        return [
            self._program,
            "--user",
            os_user,
            "--datadir",
            data_directory,
            "--socketdir",
            socket_directory,
            "--port",
            str(port),
            "--start-conf",
            start_conf,
            "--quiet",
            "--no-status",
        ]

    def create(
        self,
        *,
        version: int,
        name: str,
        os_user: str,
        data_directory: str,
        socket_directory: str,
        port: int,
        start_conf: str,
        encoding: str,
        locale: str,
        checksums: bool,
    ) -> None:
        """Run initdb and configure the new instance; it isn't started."""
        argv = self._base(
            os_user=os_user,
            data_directory=data_directory,
            socket_directory=socket_directory,
            port=port,
            start_conf=start_conf,
        )
        argv += ["--encoding", encoding, "--locale", locale, str(version), name]
        # what initdb itself takes; its own defaults for authentication are replaced by our pg_hba.conf
        argv += ["--", *(["--data-checksums"] if checksums else [])]
        self._runner.run(argv, timeout=CREATE_TIMEOUT).check(
            f"Creating the instance {version}/{name}",
            state="pg_createcluster removed what it had made; the host is as it was.",
            next_step="Correct what its message names and run again.",
        )

    def adopt(
        self,
        *,
        version: int,
        name: str,
        os_user: str,
        data_directory: str,
        socket_directory: str,
        port: int,
        start_conf: str,
    ) -> None:
        """Configure a data directory that holds a cluster and its configuration files.

        When it fails half-way it removes the data directory it was given. Never hand it data that matters.
        """
        argv = self._base(
            os_user=os_user,
            data_directory=data_directory,
            socket_directory=socket_directory,
            port=port,
            start_conf=start_conf,
        )
        self._runner.run([*argv, str(version), name], timeout=QUICK_TIMEOUT).check(
            f"Making Debian's configuration for the instance {version}/{name}"
        )


class PgDropCluster:
    """pg_dropcluster: remove an instance with its data and configuration."""

    def __init__(self, runner: CommandRunner) -> None:
        self._runner = runner
        self._program = find_program("pg_dropcluster", needed_for=NEEDED_FOR)

    def drop(self, *, version: int, name: str, stop: bool = False) -> None:
        """Remove it; a running one only with `stop`."""
        argv = [self._program, *(["--stop"] if stop else []), str(version), name]
        self._runner.run(argv, timeout=CONTROL_TIMEOUT).check(f"Removing the instance {version}/{name}")


class PgConfTool:
    """pg_conftool: a setting in an instance's postgresql.conf."""

    def __init__(self, runner: CommandRunner, *, version: int, name: str) -> None:
        self._runner = runner
        self._program = find_program("pg_conftool", needed_for=NEEDED_FOR)
        self._instance = (str(version), name)

    def set(self, setting: str, value: str) -> None:
        """Change a setting; it counts from the next reload or restart on."""
        argv = [self._program, *self._instance, "set", setting, value]
        self._runner.run(argv, timeout=QUICK_TIMEOUT).check(
            f"Setting {setting} in postgresql.conf of {'/'.join(self._instance)}"
        )


class PgCtlCluster:
    """pg_ctlcluster, which hands over to systemd where systemd runs. Starting is `service.InstanceService`'s.

    Its restart is left out: it looks for the server at the configured port, so after a change of the port it stops
    nothing. Stop, then start.
    """

    def __init__(self, runner: CommandRunner, *, version: int, name: str) -> None:
        self._runner = runner
        self._program = find_program("pg_ctlcluster", needed_for=NEEDED_FOR)
        self._version = str(version)
        self._name = name

    def stop(self, *, mode: str = "fast") -> None:
        """Stop it; nothing when it is down already."""
        argv = [self._program, "--mode", mode, self._version, self._name, "stop"]
        result = self._runner.run(argv, timeout=CONTROL_TIMEOUT)
        if result.rc != NOT_RUNNING:
            result.check(
                f"Stopping the instance {self._version}/{self._name}",
                state="The instance may still run.",
                next_step="Read its log below /var/log/postgresql and, with systemd, the journal of its unit.",
            )
