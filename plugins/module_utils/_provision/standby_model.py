# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A standby to be: what was found here and at its upstream, what is wished, what is to be done. PRIVATE."""

from __future__ import annotations

import dataclasses
import typing as t

from .._cluster.model import MemberFacts
from .._errors import HmsError

BASEBACKUP = "basebackup"
PGBACKREST = "pgbackrest"

ABSENT = "absent"
EMPTY = "empty"
FOREIGN = "foreign"
DATA = "data"


@dataclasses.dataclass(frozen=True)
class LocalFacts:
    """This host."""

    member: MemberFacts
    content: str = ABSENT
    """What the data directory holds: nothing (`ABSENT`, `EMPTY`), something else (`FOREIGN`), an instance (`DATA`)."""
    version: int = 0
    """The major version in PG_VERSION."""
    fresh_copy: bool = False
    """It is a copy that was never started (it still has its backup_label)."""
    primary_conninfo: str = ""
    primary_slot_name: str = ""
    restore_command: str | None = None
    """What postgresql.auto.conf says, which goes before every other file; None where it says nothing."""
    leftovers: tuple[str, ...] = ()
    """Side directories of copies that were never finished."""
    resumable: str = ""
    """The one among them in which a restore can go on."""
    reusable_bytes: int = 0
    """What that one, or the data directory where it may be used up, holds already."""
    orphans: tuple[int, ...] = ()
    """Copying processes that still fill such a directory although nobody waits for them."""
    free_bytes: int = 0
    """Free space where the data directory is or will be."""
    mount_point: bool = False
    """The data directory itself is a mounted file system, so nothing can be renamed into its place."""


@dataclasses.dataclass(frozen=True)
class SlotFacts:
    """A slot at the upstream."""

    active: bool
    wal_status: str
    restart_lsn: int = 0
    """From where on it keeps WAL; 0 where it keeps none."""


@dataclasses.dataclass(frozen=True)
class UpstreamFacts:
    """The instance that the standby is to follow, as the replication role sees it over the network."""

    name: str
    version_number: int
    system_identifier: str
    in_recovery: bool
    timeline: int
    slots: t.Mapping[str, SlotFacts] = dataclasses.field(default_factory=dict)
    tablespaces: int = 0
    size_bytes: int | None = None
    """Size of its data directory without WAL; only measured when a copy is needed."""
    segment_size: int = 16 * 1024 * 1024
    redo_lsn: int = 0
    """Where its last checkpoint began: a slot that is made now keeps WAL from here on."""
    oldest_segment: int | None = None
    """The number of the oldest WAL segment that it has; only asked where an archive is to fill what it lacks."""

    @property
    def version(self) -> int:
        """The major version."""
        return self.version_number // 10000


@dataclasses.dataclass(frozen=True)
class Backup:
    """The backup that a standby is to be made of.

    Attributes:
        bytes: of the cluster; fetch_bytes: what of it lies in the repository, compressed.
        notes: what the operator should know about the choice.
    """

    label: str
    type: str
    ended: str
    bytes: int
    fetch_bytes: int
    place: str
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """For people."""
        sizes = f"{self.bytes / 1e9:.2f} GB, {self.fetch_bytes / 1e9:.2f} GB to fetch"
        return f"{self.label} of {self.place} ({self.type}, {self.ended}, {sizes})"

    def as_value(self) -> dict[str, t.Any]:
        """For the module's result."""
        names = ("label", "type", "ended", "bytes", "fetch_bytes")
        return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True)
class ArchiveFacts:
    """What the repository can do for this standby.

    Attributes:
        backup: what a copy would be made of; `refusal` says why there is none.
        gap: why the standby that is here can't catch up from the archive, '' where it can.
    """

    backup: Backup | None = None
    refusal: HmsError | None = None
    gap: str = ""


@dataclasses.dataclass(frozen=True)
class StandbyWish:
    """What this host is to be."""

    member: str
    upstream: str
    version: int
    data_directory: str
    slot: str
    conninfo: str
    allow_reclone: bool = False
    clone_method: str = BASEBACKUP
    clone_fallback: bool = False
    reuse_data: bool = False
    """Whether data that may be replaced is used up by the copy instead of being kept."""
    restore_command: str = ""
    """What fetches WAL from the archive; empty where there is none."""


@dataclasses.dataclass(frozen=True)
class StandbyAction:
    """One thing to do, and why."""

    id: str
    what: str
    why: str


@dataclasses.dataclass(frozen=True)
class StandbyPlan:
    """What leads from the facts to the wish; empty when they agree."""

    actions: tuple[StandbyAction, ...] = ()
    backup: Backup | None = None
    """What the copy is made of; None where pg_basebackup makes it."""
    warnings: tuple[str, ...] = ()

    @property
    def clones(self) -> bool:
        """Whether a copy will be made."""
        return self.has("clone")

    def has(self, identifier: str) -> bool:
        """Whether an action of this kind is in it."""
        return any(action.id == identifier for action in self.actions)

    def lines(self) -> list[str]:
        """The plan for people."""
        return [f"{action.what} ({action.why})" for action in self.actions]
