# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The start guard: may the instance on this host start now? PRIVATE.

It runs before the server does (ExecStartPre). A standby may always start. A data directory that would come up
writable may only do so when a majority of the members, this one included, is seen to have no other primary and
no newer timeline. So a primary that was replaced while its host was off does not come back writable.

A whole site that starts cold is no exception: its standbys start at once and answer, and the primary waits for
them, up to `PATIENCE` seconds. With two members both must be there. When the other is lost for good, the
operator creates the file ``start-anyway`` in the state directory; it counts once, and never against a member
that is seen to be writable or newer.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import typing as t

from .._clock import Clock, SystemClock, iso
from .._command import CommandRunner, SystemRunner
from .._errors import HmsError
from .._files import dump_json, read_json, remove_file, write_atomic
from .._tools.pg_controldata import PgControldata
from . import cutover_files, fencing, member_config, rejoin_mark
from .dossier_wal import own_timeline
from .facts import FENCE_FILE
from .member_config import DatabaseHost
from .rejoin_peers import Answer, ask_others

PATIENCE = 60.0
_PAUSE = 2.0
ALLOWED, REFUSED = 0, 1

Verdict = t.Literal["allow", "refuse", "wait"]


@dataclasses.dataclass(frozen=True)
class Own:
    """What this host's data directory says."""

    name: str
    exists: bool
    standby: bool
    """It would start as a standby."""
    system_identifier: str = ""
    timeline: int = 0
    fenced_by: str = ""
    half_rewound: bool = False
    half_exchanged: bool = False
    """A cutover was killed between its two renames."""
    addresses: frozenset[str] = frozenset()
    """``host:port`` by which members reach this host."""


@dataclasses.dataclass(frozen=True)
class Decision:
    """May it start, why, and what to do if not."""

    verdict: Verdict
    why: str
    next_step: str = ""
    fence: bool = False
    """Leave the marks that keep it from coming up writable."""


def decide(own: Own, answers: t.Sequence[Answer], *, members: int) -> Decision:
    """The decision, from what is seen now. Pure."""
    rejoin = f"Run playbooks/rejoin.yml -e host={own.name}: it comes back as a standby."
    if own.half_rewound:
        return Decision("refuse", "A rewind of its data directory was left unfinished.", rejoin)
    if own.half_exchanged and not own.exists:
        again = "Run playbooks/pitr_cutover.yml again: it puts that in order."
        return Decision("refuse", "A cutover was left in the middle of exchanging its data directory.", again)
    if not own.exists:
        return Decision("allow", "There is no data directory yet.")
    if own.standby:
        return Decision("allow", "It starts as a standby.")
    if own.fenced_by:
        return Decision("refuse", f"It is fenced ({own.fenced_by}).", rejoin, fence=True)
    danger = _danger(own, answers)
    if danger:
        return Decision("refuse", danger, rejoin, fence=True)
    foreign = [answer.name for answer in answers if answer.answered and not _same_cluster(own, answer)]
    if foreign:
        why = f"{', '.join(foreign)} belongs to another cluster (its system identifier differs)."
        return Decision("refuse", why, "Correct the members in the inventory and run playbooks/site.yml.")
    seen = 1 + sum(1 for answer in answers if answer.state == "standby")
    if 2 * seen > members:
        return Decision("allow", f"{seen} of {members} members are seen, none of them is a primary or newer.")
    missing = ", ".join(f"{answer.name} ({_short(answer)})" for answer in answers if not answer.answered)
    return Decision("wait", f"Only {seen} of {members} members are seen: {missing}.")


def _same_cluster(own: Own, answer: Answer) -> bool:
    return answer.system_identifier == own.system_identifier


def _short(answer: Answer) -> str:
    words = {"unreachable": "does not answer", "starting": "is still starting", "refused": "does not let us in"}
    return f"{words[answer.state]}: {answer.error}"


def _danger(own: Own, answers: t.Sequence[Answer]) -> str:
    """Why somebody else is, or was meanwhile, the primary."""
    standbys = {f"{answer.address}:{answer.port}" for answer in answers if answer.state == "standby"}
    for answer in answers:
        if not answer.answered or not _same_cluster(own, answer):
            continue
        if answer.state == "writable":
            return f"{answer.name} is the primary now, on timeline {answer.timeline}."
        if answer.timeline > own.timeline:
            return f"{answer.name} follows timeline {answer.timeline}; this host was left on timeline {own.timeline}."
        if answer.fed_by and answer.fed_by not in own.addresses | standbys:
            return f"{answer.name} streams from {answer.fed_by} while this host is down: another primary feeds it."
    return ""


def look_at_own(host: DatabaseHost, *, runner: CommandRunner) -> Own:
    """What a start would make of this host."""
    data = host.instance.data_directory
    fence = read_json(os.path.join(host.state_directory, FENCE_FILE)) or {}
    peer = host.peer(host.name)
    own = Own(
        name=host.name,
        exists=os.path.exists(os.path.join(data, "global", "pg_control")),
        standby=os.path.exists(fencing.standby_signal_path(host)),
        fenced_by=str(fence.get("operation", "")),
        half_rewound=rejoin_mark.read_state(host)[1] in ("killed", "finished"),
        half_exchanged=cutover_files.in_the_middle(host.state_directory),
        addresses=frozenset({f"{peer.address}:{peer.port}"}),
    )
    if not own.exists or own.standby:
        return own
    control = PgControldata(runner, bin_directory=host.instance.bin_directory).read(data)
    return dataclasses.replace(own, system_identifier=control.system_identifier, timeline=own_timeline(data, control))


Ask = t.Callable[[DatabaseHost], t.Sequence[Answer]]
Say = t.Callable[[str], None]


class StartGuard:
    """Decides, waits while that may help, and leaves the marks of a refusal."""

    def __init__(self, host: DatabaseHost, *, runner: CommandRunner, clock: Clock, ask: Ask, say: Say) -> None:
        self._host = host
        self._runner = runner
        self._clock = clock
        self._ask = ask
        self._say = say

    def judge(self, *, patience: float) -> int:
        """The exit code: 0 when the instance may start."""
        own = look_at_own(self._host, runner=self._runner)
        members = len(self._host.members)
        deadline = self._clock.monotonic() + patience
        decision = decide(own, (), members=members)
        while True:
            if decision.verdict == "wait":
                decision = decide(own, self._ask(self._host), members=members)
            if decision.verdict == "wait" and self._overridden():
                why = f"{decision.why} The operator's file {fencing.START_ANYWAY} was there and has been used up."
                decision = Decision("allow", why)
            if decision.verdict != "wait" or self._clock.monotonic() >= deadline:
                return self._conclude(decision, patience)
            self._say(f"{decision.why} Waiting.")
            self._clock.sleep(_PAUSE)

    def _overridden(self) -> bool:
        return remove_file(os.path.join(self._host.state_directory, fencing.START_ANYWAY))

    def _conclude(self, decision: Decision, patience: float) -> int:
        if decision.verdict == "allow":
            self._say(f"{self._host.name} may start. {decision.why}")
            return ALLOWED
        if decision.verdict == "wait":
            decision = self._gave_up(decision, patience)
        if decision.fence:
            self._bar(decision)
        self._say(f"REFUSED to start PostgreSQL on {self._host.name}. {decision.why} Next: {decision.next_step}")
        return REFUSED

    def _gave_up(self, decision: Decision, patience: float) -> Decision:
        override = os.path.join(self._host.state_directory, fencing.START_ANYWAY)
        why = f"{decision.why} Whether another primary was made meanwhile cannot be known; waited {patience:g} s."
        next_step = (
            "Start the other members first, then this one. If they are lost for good and none of them was promoted: "
            f"touch {override} and start again; the file counts once."
        )
        return dataclasses.replace(decision, verdict="refuse", why=why, next_step=next_step)

    def _bar(self, decision: Decision) -> None:
        """standby.signal and the fence, so that a start past this guard does no harm either. start.conf stays."""
        path = os.path.join(self._host.state_directory, FENCE_FILE)
        if not os.path.exists(path):
            note = {
                "operation": "start-guard",
                "at": iso(self._clock.now()),
                "reason": decision.why,
                "start_conf": fencing.start_conf(self._host),
            }
            write_atomic(path, dump_json(note))
        fencing.write_standby_signal(self._host)


def main(config_directory: str, *, patience: float = PATIENCE) -> int:
    """Guard the start of the instance described in `config_directory`; whatever goes wrong refuses it."""

    def say(text: str) -> None:
        sys.stderr.write(f"hms-postgres start-guard: {text}\n")
        sys.stderr.flush()

    try:
        host = member_config.load(config_directory)
        if not isinstance(host, DatabaseHost):
            say(f"{host.name} is not a database host; there is nothing to guard.")
            return ALLOWED
        guard = StartGuard(host, runner=SystemRunner(), clock=SystemClock(), ask=ask_others, say=say)
        return guard.judge(patience=patience)
    except HmsError as error:
        say(f"REFUSED, because it could not be decided: {error.full_text()}")
        return REFUSED
