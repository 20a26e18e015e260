# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A rejoin as plain data: what was found, what is wished, what is to be done. PRIVATE."""

from __future__ import annotations

import dataclasses
import typing as t

from .._errors import HmsError
from .._tools.pg_controldata import ControlData
from .dossier_wal import CommonCheckpoint
from .model import MemberFacts, Slot
from .rejoin_history import Fork, History
from .rejoin_peers import Answer

MarkState = t.Literal["none", "killed", "finished", "stale"]

# Causes for which pg_rewind would fail again, however often it is run.
HOPELESS = frozenset({"wal_missing", "no_common_history", "rewind_unprepared", "kept_file_damaged"})


@dataclasses.dataclass(frozen=True)
class Mark:
    """``rewind.in_progress``: a rewind was begun and has not been followed by a start."""

    operation: str
    source: str
    source_timeline: int
    fork_timeline: int
    fork_lsn: str
    folder: str
    """Where log, control file and settings of before are kept."""
    attempts: int = 1
    failure: str = ""
    """The slug of pg_rewind's last complaint; empty when it was killed."""


@dataclasses.dataclass(frozen=True)
class PrimaryFacts:
    """The current primary, as this host sees it over the network."""

    answer: Answer
    history: History
    slots: tuple[Slot, ...] = ()
    streaming: tuple[str, ...] = ()
    """Application names of standbys that stream from it."""

    @property
    def name(self) -> str:
        """Its member name."""
        return self.answer.name

    def slot(self, name: str) -> Slot | None:
        """A slot by name."""
        return next((slot for slot in self.slots if slot.name == name), None)


@dataclasses.dataclass(frozen=True)
class Divergence:
    """How this host's log stands to the primary's."""

    fork: Fork | None
    """Where they part; None on the same timeline."""
    diverged: bool
    """There is log behind the fork, so it must be undone."""
    ahead: bool = False
    """Same timeline, yet there is log here that the primary doesn't have."""
    common: CommonCheckpoint | None = None
    source_has_wal: bool = True
    """The primary still has its log from the fork on."""
    restore_command: str = ""
    problem: HmsError | None = None
    """Why it can't be told, or why a rewind can't work."""


@dataclasses.dataclass(frozen=True)
class RejoinFacts:
    """Everything a plan needs."""

    name: str
    slot_name: str
    member: MemberFacts
    answers: tuple[Answer, ...]
    control: ControlData | None = None
    primary: PrimaryFacts | None = None
    divergence: Divergence | None = None
    """None where there is no primary to compare with, or a rewind was left unfinished."""
    mark: Mark | None = None
    mark_state: MarkState = "none"
    rewinding: tuple[int, ...] = ()
    """pg_rewind processes at work on the data directory, left by a killed play."""
    start_conf: str = "auto"
    points_at_primary: bool = False
    """primary_conninfo and primary_slot_name of the running server are those for the current primary."""


@dataclasses.dataclass(frozen=True)
class RejoinWish:
    """What the operator allows."""

    allow_reclone: bool = False
    allow_stop: bool = False
    """Stop this host's server although it takes writes, when another primary exists."""


_PHASES = {
    "await_rewind": "prepare",
    "stop": "prepare",
    "create_slot": "prepare",
    "renew_slot": "prepare",
    "await_checkpoint": "prepare",
    "list_losses": "dossier",
    "recover": "dossier",
    "keep_wal": "dossier",
    "rewind": "rewind",
    "resume_rewind": "rewind",
    "sync": "rewind",
    "reclone": "clone",
    "verify": "verify",
    "drop_stale_slots": "finish",
}


@dataclasses.dataclass(frozen=True)
class Action:
    """One thing to do, and why."""

    id: str
    what: str
    why: str

    @property
    def phase(self) -> str:
        """The phase of the operation that it belongs to."""
        return _PHASES.get(self.id, "follow")


@dataclasses.dataclass(frozen=True)
class RejoinPlan:
    """What leads from the facts to a streaming standby."""

    case: str
    summary: str
    actions: tuple[Action, ...] = ()
    look_again: bool = False
    """These actions only make it possible to look; then another plan follows."""

    def has(self, identifier: str) -> bool:
        """Whether an action of this kind is in it."""
        return any(action.id == identifier for action in self.actions)

    def lines(self) -> list[str]:
        """The plan for people."""
        return [f"{action.what} ({action.why})" for action in self.actions]
