# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pg_basebackup: a byte-for-byte copy of a running instance. PRIVATE to the collection."""

from __future__ import annotations

import dataclasses

from .._command import CommandResult, CommandRunner, find_program
from .._postgres import ConnectionParams


class PgBasebackup:
    """The program, for one version's binaries."""

    def __init__(self, runner: CommandRunner, *, bin_directory: str, os_user: str) -> None:
        self._runner = runner
        self._program = find_program("pg_basebackup", directory=bin_directory, needed_for="cloning a standby")
        self._os_user = os_user

    def clone(self, source: ConnectionParams, *, target: str, slot: str, label: str, timeout: float) -> CommandResult:
        """Copy the instance at `source` into the empty directory `target`, WAL streamed through `slot`.

        The copy is synced to disk before the program ends. Host, user and TLS travel in the environment,
        the password in the passfile; timeouts for statements are left out, for a base backup is one statement.
        """
        argv = [
            self._program,
            "--pgdata",
            target,
            "--format=plain",
            "--wal-method=stream",
            "--slot",
            slot,
            "--checkpoint=fast",
            "--label",
            label,
            "--no-password",
        ]
        params = dataclasses.replace(source, startup_options=False)
        environment = {key: value for key, value in params.environment().items() if key != "PGDATABASE"}
        return self._runner.run(argv, timeout=timeout, env=environment, os_user=self._os_user).check(
            f"Copying the instance at {source.host}:{source.port}",
            state=f"The unfinished copy is in {target}; no data directory was touched.",
            next_step="Remove the cause and run the same again; the unfinished copy is removed then.",
        )
