# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cutover to a recovered side cluster as plain data: what was asked, what was seen, what is planned. PRIVATE."""

from __future__ import annotations

import dataclasses
import typing as t

from .._postgres import format_lsn
from .model import ClusterFacts, MemberFacts
from .plan import Plan

Stage = t.Literal["promoted", "exchanging", "starting", "done"]

KEPT = ".before_"
"""Between the live data directory's path and the moment, in the name of the one that was put aside."""


@dataclasses.dataclass(frozen=True)
class CutoverRequest:
    """What was asked.

    Attributes:
        directory: the side directory; empty for the one beside the live data directory.
        stamp: the moment of the request as a path carries it, so that planning twice gives one name.
        hold_seconds: how long held pools may take to come to rest.
    """

    directory: str = ""
    stamp: str = ""
    confirm: str = ""
    force: tuple[str, ...] = ()
    hold_seconds: float = 3.0
    check_only: bool = False

    operation: t.ClassVar[str] = "cutover"


@dataclasses.dataclass(frozen=True)
class Exchange:
    """``cutover.json``: which data directory is to take which one's place, and how far that is.

    Attributes:
        stage: ``promoted`` the side cluster is ready, nothing of the live one was touched; ``exchanging`` the live one
            is being stopped and moved aside; ``starting`` the other one lies in its place and was told to start;
            ``done``.
        live: the path of the live data directory, links resolved.
        side: the side directory; its cluster is in ``data`` below it.
        kept: where the old data directory goes.
        old_timeline: the one that is left.
        new_timeline: the one that the side cluster began when it was promoted.
        checkpoint: where the promoted side cluster was shut down. As long as its control file says this, it has never
            run in the live one's place, and can be taken out of it again.
        fork_lsn: where the new timeline leaves its parent, `fork_timeline`.
        target: to which moment the side cluster was recovered, in words.
        at: when it was prepared, later when it was told to start in its new place.
    """

    operation: str
    stage: Stage
    live: str
    side: str
    kept: str
    system_identifier: str
    old_timeline: int
    new_timeline: int
    checkpoint: int
    fork_lsn: int
    fork_timeline: int
    target: str
    last_commit: str = ""
    left_lsn: int = 0
    """Up to where the old timeline has everything that was written to it."""
    slots: tuple[str, ...] = ()
    sync_names: str | None = None
    """What ``synchronous_standby_names`` is to be when it starts; None for as it was."""
    at: str = ""

    @property
    def story(self) -> str:
        """The timelines in a sentence."""
        return (
            f"Timeline {self.new_timeline} left timeline {self.fork_timeline} at {format_lsn(self.fork_lsn)}; what "
            f"timeline {self.old_timeline} wrote after that is in {self.kept}, and no longer live."
        )

    @property
    def way_back(self) -> str:
        """What to give pitr.yml, to have everything back that was given up."""
        return f"-e timeline={self.old_timeline} -e target_lsn={format_lsn(self.left_lsn)}"


@dataclasses.dataclass(frozen=True)
class SideSight:
    """What one host's agent saw of the side cluster and of the place that it is to take.

    Attributes:
        state: ``foreign`` holds something without the marker of pg_pitr.
        stage: what the marker says: recovered, promoted, or something unfinished.
        reached: what the marker says of the position; `lsn` and `paused` are what the server says.
        version: PostgreSQL's major version by the side's files; 0 where there are none.
        open: the server answers and is not in recovery.
        tablespaces: the OIDs of tablespaces, of the live or the side cluster.
        wal_link: where the live cluster's pg_wal leads, when it is a link.
        support: databases have what bouncers log in with; None where nobody could be asked.
        strangers: service roles whose password was another one at the target.
        exchange: the journal of this or an earlier cutover on this host.
    """

    host: str
    directory: str
    live: str = ""
    state: t.Literal["absent", "foreign", "ours"] = "absent"
    cluster: str = ""
    marker_system: str = ""
    marker_version: int = 0
    label: str = ""
    target: str = ""
    stage: str = ""
    reached_lsn: int = 0
    reached_timeline: int = 0
    last_commit: str = ""
    running: bool = False
    open: bool = False
    paused: bool = False
    lsn: int = 0
    system_identifier: str = ""
    version: int = 0
    same_filesystem: bool = True
    mount_point: bool = False
    tablespaces: tuple[str, ...] = ()
    wal_link: str = ""
    slots: tuple[str, ...] = ()
    logical_slots: tuple[str, ...] = ()
    support: bool | None = None
    strangers: tuple[str, ...] = ()
    kept_exists: bool = False
    wal_after: int | None = None
    """Bytes of log that the live server wrote after the target; None where they are on another timeline."""
    exchange: Exchange | None = None

    @property
    def unfinished(self) -> bool:
        """A cutover was killed while the live data directory was being exchanged."""
        return self.exchange is not None and self.exchange.stage in ("exchanging", "starting")

    @property
    def ready(self) -> bool:
        """An earlier run promoted it, and it waits to take its place."""
        return self.stage == "promoted"


@dataclasses.dataclass(frozen=True)
class CutoverPlan(Plan):
    """A plan with what a cutover needs beside it."""

    directory: str = ""
    live: str = ""
    kept: str = ""
    target: str = ""
    target_lsn: int = 0
    last_commit: str = ""
    old_timeline: int = 0
    slots: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()
    sync_names: str | None = None
    probe: bool = True
    settle: tuple[str, ...] = ()
    """Hosts on which an earlier run was killed in the middle of the exchange: they are put in order first."""
    fence: tuple[str, ...] = ()
    """Standbys on the history that is left: they are stopped and marked until they are rejoined."""
    rejoin: tuple[str, ...] = ()
    """Database hosts that have to be rejoined afterwards."""
    exchange: Exchange | None = None
    """The cutover that was done, when there is nothing to do but what comes after it."""

    def as_record(self) -> dict[str, t.Any]:
        cutover = {
            "directory": self.directory,
            "live": self.live,
            "kept_as": self.kept,
            "target": self.target,
            "target_lsn": format_lsn(self.target_lsn),
            "last_commit": self.last_commit,
            "old_timeline": self.old_timeline,
            "rejoin": list(self.rejoin),
        }
        return {**super().as_record(), "cutover": cutover}


def exchange_from(data: t.Any) -> Exchange | None:
    """An `Exchange` from its plain form; None for what isn't one."""
    if not isinstance(data, dict):
        return None
    names = {field.name for field in dataclasses.fields(Exchange)}
    try:
        values: dict[str, t.Any] = {name: _plain(value) for name, value in data.items() if name in names}
        return Exchange(**values)
    except TypeError:
        return None


def sight_from(data: t.Mapping[str, t.Any]) -> SideSight:
    """A `SideSight` from its plain form."""
    names = {field.name for field in dataclasses.fields(SideSight)}
    values: dict[str, t.Any] = {name: _plain(value) for name, value in data.items() if name in names}
    values["exchange"] = exchange_from(data.get("exchange"))
    return SideSight(**values)


def _plain(value: t.Any) -> t.Any:
    return tuple(value) if isinstance(value, list) else value


def left_behind(member: MemberFacts, exchange: Exchange) -> bool:
    """Whether a standby holds log of the history that the cutover left."""
    return member.timeline < exchange.new_timeline and member.lsn > exchange.fork_lsn


def to_rejoin(facts: ClusterFacts, primary: MemberFacts) -> tuple[str, ...]:
    """Database hosts that can be reached and don't stream from the primary."""
    streaming = {sender.application_name for sender in primary.senders if sender.state == "streaming"}
    return tuple(
        member.name
        for member in facts.members
        if member.reachable and member.name != primary.name and member.name not in streaming
    )
