# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pg_controldata: what an instance's control file says, running or not. PRIVATE to the collection."""

from __future__ import annotations

import os
import re
import struct
import typing as t

from .._command import CommandRunner, find_program
from .._errors import HmsError
from .._postgres import parse_lsn

SHUT_DOWN = "shut down"
SHUT_DOWN_IN_RECOVERY = "shut down in recovery"
IN_PRODUCTION = "in production"
IN_ARCHIVE_RECOVERY = "in archive recovery"

# src/include/catalog/pg_control.h, enum DBState; the same in PostgreSQL 13 to 17.
_STATES = (
    "starting up",
    SHUT_DOWN,
    SHUT_DOWN_IN_RECOVERY,
    "shutting down",
    "in crash recovery",
    IN_ARCHIVE_RECOVERY,
    IN_PRODUCTION,
)
_KNOWN_LAYOUTS = (1300, 1700)  # pg_control_version of PostgreSQL 13–16 and 17


class QuickControl(t.NamedTuple):
    """The three fields that are polled while clients wait."""

    state: str
    checkpoint_lsn: int
    timeline: int


def quick_read(data_directory: str) -> QuickControl | None:
    """State, last checkpoint and its timeline straight from the file, in microseconds.

    Only for polling; what goes into a record comes from pg_controldata. Returns None for a layout
    that isn't known, so that the caller asks the program instead.
    """
    with open(os.path.join(data_directory, "global", "pg_control"), "rb") as source:
        head = source.read(64)
    version, _catalog, state = struct.unpack_from("<III", head, 8)
    if version not in _KNOWN_LAYOUTS or state >= len(_STATES):
        return None
    (checkpoint,) = struct.unpack_from("<Q", head, 32)
    (timeline,) = struct.unpack_from("<I", head, 48)
    return QuickControl(_STATES[state], checkpoint, timeline)


class ControlData(t.NamedTuple):
    """pg_controldata's output as far as we use it."""

    state: str
    checkpoint_lsn: int
    redo_lsn: int
    timeline: int
    system_identifier: str
    checkpoint_at: str
    checksums: bool
    wal_log_hints: bool
    min_recovery_lsn: int
    min_recovery_timeline: int
    wal_segment_size: int


def parse(text: str) -> ControlData:
    """Parse pg_controldata's English output."""
    pairs = {}
    for line in text.splitlines():
        key, separator, value = line.partition(":")
        if separator:
            pairs[key.strip()] = value.strip()
    try:
        return ControlData(
            state=pairs["Database cluster state"],
            checkpoint_lsn=parse_lsn(pairs["Latest checkpoint location"]),
            redo_lsn=parse_lsn(pairs["Latest checkpoint's REDO location"]),
            timeline=int(pairs["Latest checkpoint's TimeLineID"]),
            system_identifier=pairs["Database system identifier"],
            checkpoint_at=pairs.get("Time of latest checkpoint", ""),
            checksums=pairs.get("Data page checksum version", "0") != "0",
            wal_log_hints=pairs.get("wal_log_hints setting", "off") == "on",
            min_recovery_lsn=parse_lsn(pairs.get("Minimum recovery ending location", "0/0")),
            min_recovery_timeline=int(pairs.get("Min recovery ending loc's timeline", "0")),
            wal_segment_size=int(pairs.get("Bytes per WAL segment", "16777216")),
        )
    except KeyError as error:
        raise HmsError(f"pg_controldata's output lacks {error}.", reason="unexpected_output") from error


_LIMIT_NAMES = {"max_prepared_xacts": "max_prepared_transactions", "max_locks_per_xact": "max_locks_per_transaction"}
_LIMIT = re.compile(r"^(?P<name>max_\w+) setting: +(?P<value>\d+)$", re.MULTILINE)


def parse_limits(text: str) -> dict[str, int]:
    """The settings of which a hot standby must not have less than its primary had."""
    return {_LIMIT_NAMES.get(match["name"], match["name"]): int(match["value"]) for match in _LIMIT.finditer(text)}


class PgControldata:
    """The program, for one version's binaries."""

    def __init__(self, runner: CommandRunner, *, bin_directory: str, os_user: str | None = None) -> None:
        self._runner = runner
        self._program = find_program("pg_controldata", directory=bin_directory, needed_for="reading pg_control")
        self._os_user = os_user

    def _text(self, data_directory: str) -> str:
        result = self._runner.run([self._program, "--pgdata", data_directory], timeout=10.0, os_user=self._os_user)
        return result.check(f"Reading pg_control of {data_directory}").stdout

    def read(self, data_directory: str) -> ControlData:
        """The control file of `data_directory`."""
        return parse(self._text(data_directory))

    def limits(self, data_directory: str) -> dict[str, int]:
        """The primary's limits as of the control file."""
        return parse_limits(self._text(data_directory))
