# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sync guard's decision: what the policy degrade asks for at this moment. Pure. PRIVATE.

A commit waits for a standby as long as one streams. When none has for a while, commits are let go alone, which is
written down as an exposed interval; when one is back and has caught up, they wait again. `sync_guard_loop` looks
and acts.
"""

from __future__ import annotations

import dataclasses
import typing as t

GAP = 5.0
"""Seconds without a look after which what was seen before proves nothing: the time alone is counted anew."""

SILENCE = 2.0
"""Seconds without a reply, while WAL is on its way to it, after which a standby does not count as streaming."""

SETTLED = 2.0
"""Seconds for which a standby must have streamed, close by, before commits wait for it again."""

PROOF = 5.0
"""Seconds between the new setting and the position that a standby must have reached for the interval to end.

The checkpointer tells the other processes that commits wait; in the middle of a checkpoint it comes to it late.
"""

CLOSE_BY = 16 * 1024 * 1024
"""Bytes that a standby may lack when commits begin to wait for it."""

Action = t.Literal["none", "degrade", "open", "restore", "close"]


@dataclasses.dataclass(frozen=True)
class Standby:
    """A row of pg_stat_replication."""

    name: str
    streaming: bool
    synchronous: bool
    """Commits wait for it, or for it among others."""
    sent_lsn: int
    flush_lsn: int
    reply: str
    """The stamp on its last reply, by its own clock: compared with the one before, never read as a time."""


@dataclasses.dataclass(frozen=True)
class Look:
    """What was seen at one moment."""

    at: float
    """By the monotonic clock."""
    policy: str
    wanted: str
    """``synchronous_standby_names`` as the policy wants it."""
    eligible: frozenset[str]
    degrade_after: float
    primary: bool | None = None
    """None: the server does not answer."""
    server: str = ""
    """When the server was started; another moment is another server."""
    names: str = ""
    """``synchronous_standby_names`` as it is."""
    lsn: int = 0
    confirmed_lsn: int = 0
    standbys: tuple[Standby, ...] = ()
    operation: str = ""
    """The operation at work on this host, or announced on the server's bulletin."""
    exposed: bool = False
    """An interval is open."""


@dataclasses.dataclass(frozen=True)
class Memory:
    """What is kept from look to look."""

    at: float = float("-inf")
    server: tuple[str, bool | None] = ("", None)
    replies: t.Mapping[str, tuple[str, float]] = dataclasses.field(default_factory=dict)
    """Of each standby the stamp on its last reply, and when it was first seen."""
    alone_since: float | None = None
    back_since: float | None = None
    waiting_since: float | None = None
    proof_lsn: int | None = None
    opened: bool = False
    """The interval was ordered to be written down; where the disk is full it can't be, and the rest goes on."""


@dataclasses.dataclass(frozen=True)
class Decision:
    """What to do, why, and what to remember."""

    action: Action
    why: str
    memory: Memory


def decide(look: Look, before: Memory) -> Decision:
    """The decision, from what is seen now and what was seen before."""
    if look.policy != "degrade":
        return Decision("none", f"The policy is {look.policy}: nothing is done.", Memory())
    if look.primary is None:
        return Decision("none", "The server does not answer.", before)
    memory = _remember(look, before)
    idle = dataclasses.replace(memory, alone_since=None, back_since=None, waiting_since=None, proof_lsn=None)
    if look.operation:
        return Decision("none", f"The operation {look.operation} is at work: nothing is done.", idle)
    if not look.primary:
        if look.exposed:
            return Decision("close", "it is no primary any more", idle)
        return Decision("none", "This is a standby: nothing is done.", idle)
    if not look.wanted:
        return Decision("none", "No other member may lead, so there is nobody to wait for.", idle)
    alive = _alive(look, memory)
    return _while_waiting(look, memory, alive) if look.names else _while_alone(look, memory, alive)


def _remember(look: Look, before: Memory) -> Memory:
    server = (look.server, look.primary)
    memory = before
    if server != before.server or look.at - before.at > GAP:
        memory = Memory()
    replies = {}
    for standby in look.standbys:
        known = memory.replies.get(standby.name)
        replies[standby.name] = known if known and known[0] == standby.reply else (standby.reply, look.at)
    return dataclasses.replace(memory, at=look.at, server=server, replies=replies)


def _alive(look: Look, memory: Memory) -> list[Standby]:
    """Those that stream and answer: a host that was cut off looks as if it streamed until its connection times out."""

    def silent(standby: Standby) -> bool:
        heard = memory.replies[standby.name][1]
        return standby.sent_lsn > standby.flush_lsn and look.at - heard > SILENCE

    return [standby for standby in look.standbys if standby.streaming and not silent(standby)]


def _while_waiting(look: Look, memory: Memory, alive: t.Sequence[Standby]) -> Decision:
    """Commits wait. Does anybody confirm them?"""
    memory = dataclasses.replace(memory, back_since=None, opened=False)
    confirming = [standby for standby in alive if standby.synchronous]
    if not confirming:
        return _nobody_confirms(look, dataclasses.replace(memory, waiting_since=None, proof_lsn=None))
    memory = dataclasses.replace(memory, alone_since=None)
    names = ", ".join(sorted(standby.name for standby in confirming))
    if not look.exposed:
        return Decision("none", f"Commits wait for {names}.", memory)
    since = look.at if memory.waiting_since is None else memory.waiting_since
    proof = memory.proof_lsn
    if proof is None and look.at - since >= PROOF:
        proof = look.lsn
    memory = dataclasses.replace(memory, waiting_since=since, proof_lsn=proof)
    if proof is not None and any(standby.flush_lsn >= proof for standby in confirming):
        closed = dataclasses.replace(memory, waiting_since=None, proof_lsn=None)
        return Decision("close", f"commits wait again, and {names} has all that was written before", closed)
    return Decision("none", f"Commits wait for {names} again; it is not yet proven that it has everything.", memory)


def _nobody_confirms(look: Look, memory: Memory) -> Decision:
    since = look.at if memory.alone_since is None else memory.alone_since
    if look.at - since < look.degrade_after:
        why = f"No synchronous standby streams. Commits wait for at most {look.degrade_after:g} s, then go on alone."
        return Decision("none", why, dataclasses.replace(memory, alone_since=since))
    why = f"no synchronous standby has streamed for {look.degrade_after:g} s"
    # should it not take effect, it is tried again after the same time
    return Decision("degrade", why, dataclasses.replace(memory, alone_since=look.at))


def _while_alone(look: Look, memory: Memory, alive: t.Sequence[Standby]) -> Decision:
    """Commits wait for nobody. Can they again?"""
    memory = dataclasses.replace(memory, alone_since=None, waiting_since=None, proof_lsn=None)
    if not look.exposed and not memory.opened:
        opened = dataclasses.replace(memory, opened=True)
        return Decision("open", "synchronous_standby_names was found empty", opened)
    ready = [
        standby.name for standby in alive if standby.name in look.eligible and look.lsn - standby.flush_lsn < CLOSE_BY
    ]
    if not ready:
        why = "Writes go on WITHOUT a synchronous standby until one streams and has caught up."
        return Decision("none", why, dataclasses.replace(memory, back_since=None))
    since = look.at if memory.back_since is None else memory.back_since
    names = ", ".join(sorted(ready))
    if look.at - since < SETTLED:
        why = f"{names} streams and has caught up; commits wait for it in a moment."
        return Decision("none", why, dataclasses.replace(memory, back_since=since))
    # should it not take effect, it is tried again after the same time
    return Decision("restore", f"{names} streams and has caught up", dataclasses.replace(memory, back_since=look.at))
