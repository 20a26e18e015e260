# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""initdb: a new data directory, without Debian's configuration around it. PRIVATE to the collection."""

from __future__ import annotations

from .._command import CommandRunner, find_program


class InitDb:
    """initdb of one major version."""

    def __init__(self, runner: CommandRunner, *, bin_directory: str, os_user: str | None) -> None:
        self._runner = runner
        self._program = find_program("initdb", directory=bin_directory, needed_for="throwaway instances")
        self._os_user = os_user

    def make(self, data_directory: str, *, superuser: str, timeout: float = 120.0) -> None:
        """Make the data directory. Only `superuser` gets in, over the socket and as the system's user of that name."""
        argv = [self._program, "--pgdata", data_directory, "--username", superuser, "--auth-local=peer"]
        argv += ["--auth-host=reject", "--encoding=UTF8", "--locale=C", "--data-checksums", "--no-sync"]
        self._runner.run(argv, timeout=timeout, os_user=self._os_user).check(f"Making the instance {data_directory}")
