# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pg_rewind: brings a data directory that parted from another back to it. PRIVATE to the collection."""

from __future__ import annotations

import os

from .._command import CommandResult, CommandRunner, find_program
from .._errors import ToolFailed
from .._postgres import ConnectionParams, quote_conninfo

_REASONS = (
    ("could not find previous WAL record", "wal_missing"),
    ("could not restore file", "wal_missing"),
    ("could not find common ancestor", "no_common_history"),
    ("source and target clusters are from different systems", "other_cluster"),
    ("needs to use either data checksums or", "rewind_unprepared"),
    ("target server must be shut down cleanly", "not_shut_down"),
    ("could not connect to server", "connection_failed"),
    ("connection to server", "connection_failed"),
    ("permission denied for function", "rights_missing"),
    ("No space left on device", "disk_full"),
)


def reason_of(output: str) -> str:
    """A slug for what pg_rewind complains about."""
    return next((reason for text, reason in _REASONS if text in output), "tool_failed")


class PgRewind:
    """The program, for one version's binaries (15 and newer)."""

    def __init__(self, runner: CommandRunner, *, bin_directory: str, os_user: str) -> None:
        self._runner = runner
        self._program = find_program("pg_rewind", directory=bin_directory, needed_for="rejoining an old primary")
        self._os_user = os_user

    def rewind(
        self,
        data_directory: str,
        source: ConnectionParams,
        *,
        config_file: str,
        restore_target_wal: bool,
        timeout: float,
    ) -> CommandResult:
        """Rewind a cleanly stopped `data_directory` to the running server `source`. Synced to disk when it ends.

        The conninfo names a passfile, never a password. Raises `ToolFailed` with a slug for the known causes.
        """
        argv = [
            self._program,
            "--target-pgdata",
            data_directory,
            "--source-server",
            conninfo(source),
            "--config-file",
            config_file,
            "--no-ensure-shutdown",
        ]
        if restore_target_wal:
            argv.append("--restore-target-wal")
        result = self._runner.run(argv, timeout=timeout, os_user=self._os_user)
        if result.rc != 0:
            tail = (result.stderr.strip() or result.stdout.strip())[-4096:]
            ended = f"was killed by signal {-result.rc}" if result.rc < 0 else f"ended with {result.rc}"
            raise ToolFailed(
                f"pg_rewind {ended}: {tail or 'it said nothing'}",
                reason="rewind_killed" if result.rc < 0 else reason_of(tail),
                details={"argv": argv, "rc": result.rc, "stderr_tail": tail},
            )
        return result


def conninfo(params: ConnectionParams) -> str:
    """libpq's parameters as one string, without timeouts for statements: pg_rewind sets its own."""
    pairs = {key: value for key, value in params.libpq().items() if key not in ("options", "password")}
    return " ".join(f"{key}={quote_conninfo(value)}" for key, value in sorted(pairs.items()))


def running_on(data_directory: str, *, proc: str = "/proc") -> list[int]:
    """Processes of pg_rewind at work on `data_directory`, e.g. left behind by a killed play."""
    wanted = os.path.realpath(data_directory)
    found = []
    for entry in os.listdir(proc):
        if entry.isdigit() and _rewinds(os.path.join(proc, entry, "cmdline"), wanted):
            found.append(int(entry))
    return sorted(found)


def _rewinds(cmdline: str, data_directory: str) -> bool:
    try:
        with open(cmdline, "rb") as source:
            words = source.read().decode("utf-8", "surrogateescape").split("\0")
    except OSError:
        return False
    if os.path.basename(words[0]) != "pg_rewind" or "--target-pgdata" not in words[:-1]:
        return False
    target = words[words.index("--target-pgdata") + 1]
    return os.path.realpath(target) == data_directory
