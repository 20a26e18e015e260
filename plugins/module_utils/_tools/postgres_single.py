# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""postgres on its own, without clients: reading settings, crash recovery, questions to a stopped server. PRIVATE."""

from __future__ import annotations

import re

from .._command import CommandRunner, find_program

# Nothing of the old log may be thrown away or sent to an archive: it is about to be kept and compared. With
# archive_mode on, every shutdown would also begin a new file of the log.
_GUARDED = {
    "archive_mode": "off",
    "wal_keep_size": "1TB",
    "max_slot_wal_keep_size": "-1",
    "synchronous_standby_names": "",
    "logging_collector": "off",
    "log_destination": "stderr",
}

_VALUE = re.compile(r'^\t 1: \S+ = "(.*)"\t\(typeid', re.MULTILINE)


class PostgresSingle:
    """The server program of one version, run for a data directory whose server is stopped."""

    def __init__(self, runner: CommandRunner, *, bin_directory: str, os_user: str) -> None:
        self._runner = runner
        self._program = find_program("postgres", directory=bin_directory, needed_for="recovering a crashed server")
        self._os_user = os_user

    def setting(self, data_directory: str, *, config_file: str, name: str) -> str:
        """The value a setting would have if the server were started."""
        argv = [self._program, "-D", data_directory, "-c", f"config_file={config_file}", "-C", name]
        result = self._runner.run(argv, timeout=15.0, os_user=self._os_user)
        return result.check(f"Reading the setting {name}", state="Nothing was changed.").stdout.strip()

    def _run(self, data_directory: str, config_file: str, dbname: str, sql: str, timeout: float) -> str:
        argv = [self._program, "--single", "-D", data_directory, "-c", f"config_file={config_file}"]
        for name, value in _GUARDED.items():
            argv += ["-c", f"{name}={value}"]
        result = self._runner.run([*argv, dbname], timeout=timeout, input_data=sql.encode(), os_user=self._os_user)
        return result.check(
            f"Starting {data_directory} in single-user mode",
            state="The server is down. Nothing was rewound.",
            next_step="Read what it says; a server that can't recover from its crash needs a re-clone "
            "(allow_reclone=true).",
        ).stdout

    def recover(self, data_directory: str, *, config_file: str, timeout: float) -> None:
        """Crash recovery and a clean shutdown. Keeps every file of the log, sends none to an archive."""
        self._run(data_directory, config_file, "template1", "", timeout)

    def column(self, data_directory: str, *, config_file: str, dbname: str, sql: str, timeout: float) -> list[str]:
        """The first column of a query without line breaks, asked of a stopped server's own catalog."""
        output = self._run(data_directory, config_file, dbname, " ".join(sql.split()) + "\n", timeout)
        return [str(value) for value in _VALUE.findall(output)]
