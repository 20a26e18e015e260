# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PgBouncer's processes as facts, and what is to be done about them. PRIVATE."""

from __future__ import annotations

import dataclasses
import typing as t


@dataclasses.dataclass(frozen=True)
class ProcessState:
    """One process: what runs, and what its files say."""

    name: str
    running: bool = False
    pid: int | None = None
    binary_replaced: bool = False
    stale_files: tuple[str, ...] = ()
    """Files that changed since the process read them."""
    wanted: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The settings in its files."""
    shown: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The settings it runs with."""
    restart_only: frozenset[str] = frozenset()
    paused: bool = False
    unreachable: str = ""


@dataclasses.dataclass(frozen=True)
class ProcessAction:
    """One thing to do to one process, and why."""

    id: t.Literal["start", "reload", "restart", "stop"]
    process: str
    why: str

    def line(self) -> str:
        """For people."""
        return f"{self.id} process {self.process} ({self.why})"


@dataclasses.dataclass(frozen=True)
class ProcessPlan:
    """What is to be done, and what the operator should know."""

    actions: tuple[ProcessAction, ...] = ()
    warnings: tuple[str, ...] = ()
    pending: t.Mapping[str, t.Sequence[str]] = dataclasses.field(default_factory=dict)
    """Settings, by process, that wait for a restart which this plan doesn't do."""
