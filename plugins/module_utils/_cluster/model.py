# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cluster as facts: what was seen on each host at one moment. PRIVATE.

Everything here is plain, frozen data that survives a trip through JSON. Positions (LSNs) are
byte positions; times are seconds unless a name says otherwise.
"""

from __future__ import annotations

import dataclasses
import typing as t

_T = t.TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Sender:
    """A row of pg_stat_replication on an upstream."""

    application_name: str
    state: str
    sync_state: str
    sent_lsn: int
    replay_lsn: int
    reply_age: float


@dataclasses.dataclass(frozen=True)
class Receiver:
    """pg_stat_wal_receiver on a standby."""

    status: str
    sender_host: str
    sender_port: int
    slot_name: str
    timeline: int
    message_age: float


@dataclasses.dataclass(frozen=True)
class Slot:
    """A replication slot."""

    name: str
    active: bool
    wal_status: str
    retained_bytes: int


@dataclasses.dataclass(frozen=True)
class Busy:
    """A session that a held pool would have to wait for."""

    pid: int
    user: str
    application_name: str
    state: str
    age: float


@dataclasses.dataclass(frozen=True)
class Control:
    """What pg_control says of an instance, running or not."""

    state: str
    checkpoint_lsn: int
    timeline: int
    system_identifier: str
    checkpoint_at: str = ""
    checksums: bool = False
    written_at: float = 0.0
    """When the file was last written, seconds since the epoch: at the end of a primary's checkpoint."""


@dataclasses.dataclass(frozen=True)
class MemberFacts:
    """A database host, as seen by its own agent, or as not seen."""

    name: str
    reachable: bool = True
    error: str = ""
    address: str = ""
    port: int = 5432
    priority: int = 100
    may_be_primary: bool = True
    running: bool = False
    """A postmaster process of this data directory lives."""
    responsive: bool = False
    """It answered SQL on the local socket in time."""
    in_recovery: bool | None = None
    version: str = ""
    version_number: int = 0
    control: Control | None = None
    wal_written_at: float = 0.0
    """When its log on disk was last written, seconds since the epoch."""
    timeline: int = 0
    lsn: int = 0
    """The position up to which WAL is safely here: written on a primary; received or replayed on a standby."""
    replay_lsn: int = 0
    replay_paused: bool = False
    apply_delay: float = 0.0
    last_commit_at: str = ""
    replay_age: float | None = None
    """Seconds since the last replayed commit, on a standby."""
    receiver: Receiver | None = None
    senders: tuple[Sender, ...] = ()
    slots: tuple[Slot, ...] = ()
    settings: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    busy: tuple[Busy, ...] = ()
    backups_running: int = 0
    prepared_transactions: int = 0
    ready_segments: int = 0
    weak_commit_roles: tuple[str, ...] = ()
    client_addresses: t.Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Sessions over the network, by address."""
    pending_restart: tuple[str, ...] = ()
    standby_signal: bool = False
    fence: t.Mapping[str, t.Any] | None = None
    free_bytes: int = 0
    last_operation: t.Mapping[str, t.Any] | None = None
    exposed_since: str = ""
    """Since when writes need be on no standby, by the sync guard's word; empty when they wait for one."""

    @property
    def writable(self) -> bool:
        """A primary that answers."""
        return self.responsive and self.in_recovery is False

    @property
    def standby(self) -> bool:
        """A standby that answers."""
        return self.responsive and self.in_recovery is True

    @property
    def role(self) -> str:
        """One word for people and records."""
        if not self.reachable:
            return "unknown"
        if self.writable:
            return "primary"
        if self.standby:
            return "standby"
        if self.fence:
            return "fenced"
        return "hung" if self.running else "down"


@dataclasses.dataclass(frozen=True)
class ProcessFacts:
    """One PgBouncer process, as its console tells."""

    name: str
    reachable: bool = True
    error: str = ""
    version: str = ""
    target: str = ""
    """``host:port`` that the cluster's databases lead to now; empty when they disagree."""
    paused: bool = False
    foreign_databases: tuple[str, ...] = ()
    """Databases in this process that are not this cluster's."""
    pool_modes: tuple[str, ...] = ()
    clients_active: int = 0
    clients_waiting: int = 0
    servers: int = 0
    settings: t.Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class PoolerFacts:
    """A bouncer host."""

    name: str
    address: str = ""
    reachable: bool = True
    error: str = ""
    file_primary: str = ""
    """The member that the databases file on disk points at."""
    processes: tuple[ProcessFacts, ...] = ()
    last_operation: t.Mapping[str, t.Any] | None = None

    @property
    def paused(self) -> bool:
        """Whether any process holds its clients."""
        return any(process.paused for process in self.processes)


@dataclasses.dataclass(frozen=True)
class ClusterFacts:
    """All hosts of a cluster at one moment."""

    cluster: str
    environment: str
    members: tuple[MemberFacts, ...]
    poolers: tuple[PoolerFacts, ...] = ()
    sync_policy: str = "async"

    def member(self, name: str) -> MemberFacts | None:
        """A member by name."""
        return next((member for member in self.members if member.name == name), None)

    @property
    def primaries(self) -> tuple[MemberFacts, ...]:
        """Those that answer and take writes; more than one is a disaster."""
        return tuple(member for member in self.members if member.writable)

    @property
    def standbys(self) -> tuple[MemberFacts, ...]:
        """Those that answer and are in recovery."""
        return tuple(member for member in self.members if member.standby)

    def address_of(self, target: str) -> str:
        """The member's name behind a bouncer's ``host:port``, or the target itself."""
        for member in self.members:
            if f"{member.address}:{member.port}" == target:
                return member.name
        return target


_NESTED: dict[str, t.Any] = {
    "receiver": Receiver,
    "control": Control,
    "senders": (Sender,),
    "slots": (Slot,),
    "busy": (Busy,),
    "processes": (ProcessFacts,),
    "members": (MemberFacts,),
    "poolers": (PoolerFacts,),
}


def _revive(name: str, value: t.Any) -> t.Any:
    kind = _NESTED.get(name)
    if value is None or kind is None:
        return tuple(value) if isinstance(value, list) else value
    if isinstance(kind, tuple):
        return tuple(from_dict(kind[0], item) for item in value)
    return from_dict(kind, value)


def from_dict(kind: type[_T], data: t.Mapping[str, t.Any]) -> _T:
    """A fact from its plain form; what a newer peer adds is passed over."""
    names = {field.name for field in dataclasses.fields(t.cast(t.Any, kind))}
    return kind(**{name: _revive(name, value) for name, value in data.items() if name in names})


def as_dict(fact: t.Any) -> dict[str, t.Any]:
    """A fact in its plain form."""
    return dataclasses.asdict(fact)
