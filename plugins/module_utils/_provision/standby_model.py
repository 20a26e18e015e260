# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A standby to be: what was found here and at its upstream, what is wished, what is to be done. PRIVATE."""

from __future__ import annotations

import dataclasses
import typing as t

from .._cluster.model import MemberFacts

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
    leftovers: tuple[str, ...] = ()
    """Side directories of copies that were never finished."""
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

    @property
    def version(self) -> int:
        """The major version."""
        return self.version_number // 10000


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
