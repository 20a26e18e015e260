# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The swap of two databases as plain data: what was asked, what was seen, what is planned. PRIVATE."""

from __future__ import annotations

import dataclasses
import typing as t

from .._tools.database_rename import Attached, Database, Obstacles
from .._tools.systemd_units import UnitState
from .plan import Plan

State = t.Literal["swapped", "rolled_back"]
Policy = t.Literal["terminate", "wait", "refuse"]


@dataclasses.dataclass(frozen=True)
class Service:
    """A systemd unit on a host."""

    host: str
    unit: str

    @property
    def words(self) -> str:
        """The unit for people."""
        return f"{self.unit} on {self.host}"


@dataclasses.dataclass(frozen=True)
class SwapRequest:
    """What was asked.

    Attributes:
        database: the name that clients use.
        scratch: the database that gets this name; empty lets a way back choose.
        keep_as: the name that the present one gets; empty chooses one with `stamp`.
        stamp: the moment of the request as a name carries it, so that planning twice gives one name.
        sessions: what happens to sessions that don't come through the bouncers.
        hold_deadline: how long held pools may take to come to rest.
        services: the units that are stopped meanwhile, in this order, and started again in the other one.
        services_deadline: how long each of them may take for either.
    """

    state: State
    database: str
    scratch: str = ""
    keep_as: str = ""
    stamp: str = ""
    sessions: Policy = "terminate"
    sessions_deadline: float = 5.0
    hold_deadline: float = 3.0
    confirm: str = ""
    force: tuple[str, ...] = ()
    probes: bool = True
    services: tuple[Service, ...] = ()
    services_deadline: float = 60.0
    check_only: bool = False

    @property
    def operation(self) -> str:
        """The operation's name in ids and records."""
        return "swap" if self.state == "swapped" else "rollback"


@dataclasses.dataclass(frozen=True)
class Names:
    """Who is who, once the request was held against the catalog.

    Attributes:
        done: the database that clients use is the one asked for already.
        missing: there is none that clients could use; scratch becomes it, and nothing is kept.
        wrong: why it can't be told; a rule, a message and a next step.
    """

    live: str
    scratch: str = ""
    keep: str = ""
    done: bool = False
    missing: bool = False
    wrong: tuple[str, str, str] | None = None


@dataclasses.dataclass(frozen=True)
class Inside:
    """What the primary's agent saw of both databases.

    Attributes:
        support_live: the live database has the collection's schema, so that a write through a bouncer can be tried.
        support_missing: objects and rights of that schema that scratch lacks, in words.
        scratch_error: why scratch could not be looked into.
    """

    attached: tuple[Attached, ...] = ()
    live: Obstacles = dataclasses.field(default_factory=Obstacles)
    scratch: Obstacles = dataclasses.field(default_factory=Obstacles)
    shut_out: tuple[str, ...] = ()
    support_live: bool = False
    support_missing: tuple[str, ...] = ()
    scratch_error: str = ""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A database as one PgBouncer process offers it."""

    process: str
    name: str
    target: str
    paused: bool
    pool_mode: str
    least: int = 0
    """min_pool_size: server connections that the process keeps open."""


@dataclasses.dataclass(frozen=True)
class Routes:
    """What leads to the live database on one bouncer host.

    Attributes:
        pids: the server's backends behind these entries and behind the entries for trying a path.
    """

    host: str
    entries: tuple[Entry, ...] = ()
    pids: tuple[int, ...] = ()

    def names(self, process: str) -> frozenset[str]:
        """The entries of one process."""
        return frozenset(entry.name for entry in self.entries if entry.process == process)

    @property
    def processes(self) -> tuple[str, ...]:
        """The processes that were seen."""
        return tuple(dict.fromkeys(entry.process for entry in self.entries))


@dataclasses.dataclass(frozen=True)
class HostUnits:
    """The units of one host, as its agent saw them.

    Attributes:
        error: why they could not be looked at.
        left: those that an operation stopped and never started again.
        left_by: that operation.
    """

    host: str
    units: tuple[UnitState, ...] = ()
    error: str = ""
    reason: str = ""
    left: tuple[str, ...] = ()
    left_by: str = ""

    def unit(self, name: str) -> UnitState | None:
        """A unit by name."""
        return next((unit for unit in self.units if unit.unit == name), None)


@dataclasses.dataclass(frozen=True)
class Sight:
    """Everything that was seen for a swap beside the cluster's facts."""

    databases: tuple[Database, ...] = ()
    names: Names = dataclasses.field(default_factory=lambda: Names(""))
    inside: Inside | None = None
    routes: tuple[Routes, ...] = ()
    readers: t.Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Sessions in the live database on standbys, by host."""
    services: tuple[HostUnits, ...] = ()

    def database(self, name: str) -> Database | None:
        """A database by name."""
        return next((database for database in self.databases if database.name == name), None)


@dataclasses.dataclass(frozen=True)
class SwapPlan(Plan):
    """A plan with what a swap needs beside it. `poolers` are the hosts whose clients are held."""

    database: str = ""
    scratch: str = ""
    keep: str = ""
    live_oid: int = 0
    scratch_oid: int = 0
    open_scratch: bool = False
    standbys: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    """Sessions past the bouncers that would be ended or waited for, in words."""
    probe: bool = False
    support_missing: tuple[str, ...] = ()
    missing: bool = False
    """There is no live database: nothing is kept, and no client writes until the end."""
    stopping: tuple[Service, ...] = ()
    """Units to be stopped, in this order, and proven inactive."""
    starting: tuple[Service, ...] = ()
    """Units to be started afterwards: those, and what an earlier operation left stopped."""

    def as_record(self) -> dict[str, t.Any]:
        swap = {
            "database": self.database,
            "scratch": self.scratch,
            "kept_as": self.keep,
            "live_oid": self.live_oid,
            "scratch_oid": self.scratch_oid,
            "sessions": list(self.sessions),
            "services": [service.words for service in self.starting],
        }
        return {**super().as_record(), "swap": swap}


def inside_from(data: t.Mapping[str, t.Any]) -> Inside:
    """`Inside` from its plain form."""
    return Inside(
        attached=tuple(Attached(**row) for row in data["attached"]),
        live=_obstacles(data["live"]),
        scratch=_obstacles(data["scratch"]),
        shut_out=tuple(data["shut_out"]),
        support_live=data["support_live"],
        support_missing=tuple(data["support_missing"]),
        scratch_error=data["scratch_error"],
    )


def _obstacles(data: t.Mapping[str, t.Any]) -> Obstacles:
    return Obstacles(
        tuple(data["prepared_transactions"]),
        tuple(data["logical_slots"]),
        tuple(data["subscriptions"]),
        bool(data["cron"]),
    )


def routes_from(data: t.Mapping[str, t.Any]) -> Routes:
    """`Routes` from its plain form."""
    return Routes(data["host"], tuple(Entry(**entry) for entry in data["entries"]), tuple(data["pids"]))
