# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What point-in-time recovery is asked for, what is there, and what will be done. PRIVATE."""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from .._artifact.pgbackrest_settings import Settings
from .._postgres import ConnectionParams, format_lsn

Kind = t.Literal["time", "lsn", "xid", "name", "immediate"]
Stage = t.Literal["restoring", "recovering", "recovered", "promoted"]
"""``promoted``: a cutover has made it ready to take the live one's place, so it can't be moved any more."""

MARKER = "hms-pitr.json"
"""The file that makes a directory ours."""


@dataclasses.dataclass(frozen=True)
class Target:
    """Where recovery stops.

    Attributes:
        value: a time in UTC as PostgreSQL reads it, an LSN, a transaction id, a restore point's name; '' for immediate.
        inclusive: whether what is at the target itself is recovered too.
        timeline: along which one; 0 for the newest.
    """

    kind: Kind
    value: str = ""
    inclusive: bool = True
    timeline: int = 0

    def describe(self) -> str:
        """For people."""
        if self.kind == "immediate":
            return "the end of the backup"
        names = {"time": "", "lsn": "LSN ", "xid": "transaction ", "name": "restore point "}
        along = f" on timeline {self.timeline}" if self.timeline else ""
        before = "just before " if not self.inclusive else ""
        return f"{before}{names[self.kind]}{self.value}{along}"

    def settings(self) -> dict[str, str]:
        """The target as PostgreSQL's settings."""
        found = {
            "recovery_target" if self.kind == "immediate" else f"recovery_target_{self.kind}": self.value
            or "immediate",
            "recovery_target_action": "pause",
            "recovery_target_timeline": str(self.timeline or "latest"),
        }
        if self.kind in ("time", "lsn", "xid"):
            found["recovery_target_inclusive"] = "on" if self.inclusive else "off"
        return found


@dataclasses.dataclass(frozen=True)
class Located:
    """Where a transaction or a restore point is in the WAL; `locked` is where it first locked a table, 0 for none."""

    lsn: int
    timeline: int
    time: str
    locked: int = 0

    def as_dict(self) -> dict[str, t.Any]:
        """For the result."""
        return {"lsn": format_lsn(self.lsn), "timeline": self.timeline, "time": self.time}


@dataclasses.dataclass(frozen=True)
class Order:
    """What is asked for.

    Attributes:
        connection: the live server; it may be down.
        data_directory: the live server's, '' to ask it.
        directory: where the side cluster goes, '' for beside the live data directory.
        label: the backup to start from, '' to choose.
        settings: more of PostgreSQL's settings for the side cluster.
        archive_wait: seconds until a segment that was closed for us has to be in the archive.
    """

    cluster: str
    environment: str
    database: str
    pgbackrest: Settings
    connection: ConnectionParams
    state_dir: str
    os_user: str = "postgres"
    data_directory: str = ""
    directory: str = ""
    port: int = 0
    label: str = ""
    confirm: str = ""
    by: str = ""
    processes: int = 2
    settings: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    flush_wal: bool = True
    archive_wait: float = 60.0
    timeout: float = 86400.0


@dataclasses.dataclass(frozen=True)
class Live:
    """The live server, as far as it can be asked. `limits` are those that a hot standby must not be below."""

    running: bool
    is_standby: bool = False
    version_num: int = 0
    system_identifier: str = ""
    data_directory: str = ""
    segment_size: int = 16 * 1024 * 1024
    now: datetime.datetime | None = None
    libraries: tuple[str, ...] = ()
    limits: t.Mapping[str, int] = dataclasses.field(default_factory=dict)
    timezone: str = "UTC"

    @property
    def can_flush(self) -> bool:
        """Whether its newest WAL can be brought into the archive."""
        return self.running and not self.is_standby


@dataclasses.dataclass(frozen=True)
class Marker:
    """What a side directory says of itself."""

    cluster: str
    system_identifier: str
    label: str
    target: Target
    stage: Stage
    version_num: int
    port: int
    record: str = ""
    reached: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Position:
    """How far a running side cluster is.

    Attributes:
        paused: whether recovery is held at its target.
        lsn: the end of the last record that was replayed.
        last_commit: when the last transaction that was replayed was committed, in UTC; '' for none.
    """

    paused: bool
    lsn: int
    timeline: int
    last_commit: str

    def as_dict(self) -> dict[str, t.Any]:
        """For the result and the marker."""
        return {
            "paused": self.paused,
            "lsn": format_lsn(self.lsn),
            "timeline": self.timeline,
            "last_commit": self.last_commit,
        }


@dataclasses.dataclass(frozen=True)
class Side:
    """What is at the side directory.

    Attributes:
        state: ``foreign`` holds something without our marker.
        position: None where no server answers.
        running: whether its server lives.
    """

    directory: str
    state: t.Literal["absent", "empty", "foreign", "ours"]
    marker: Marker | None = None
    running: bool = False
    position: Position | None = None
    bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Choice:
    """The backup that recovery starts from, and what speaks for caution."""

    label: str
    bytes: int
    stop: int
    warnings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Action:
    """What is to be done, and why."""

    what: t.Literal["restore", "advance", "start", "wait"]
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"
