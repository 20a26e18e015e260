# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One operation: its record, its steps, its agents. PRIVATE.

Every step is written down when it begins and when it ends, before the next one begins; inside the critical
section without waiting for the disk, so that the record never makes clients wait.
"""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._clock import Clock, iso
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._record import Journal, start_event

from .fleet import Answer, Fleet

CRITICAL = "critical"

REVIVE_SECONDS = 4.0
"""Seconds that an agent gets to come up while clients wait."""

Requests: t.TypeAlias = "dict[str, tuple[str, dict[str, t.Any]]]"
"""What is asked of several hosts: ``{host: (verb, arguments)}``."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """Who asked for what."""

    by: str
    cluster: str
    environment: str
    parameters: t.Mapping[str, t.Any]


def taken(host: str, holder: t.Mapping[str, t.Any]) -> Refused:
    """The refusal when another operation has a host's vote."""
    who = f"{holder.get('id')}, started by {holder.get('by')} at {holder.get('since', 'an unknown time')}"
    if holder.get("winding_up"):
        text = f"The agents of {who}, whose controller is gone, are still putting things in order on {host}."
    else:
        text = f"Another operation is at work: {who}, holds {host}."
    return Refused(
        text,
        reason="operation_running",
        phase="arm",
        state="This run touched nothing.",
        next_step="Wait for it; playbooks/status.yml shows how it ended.",
    )


class Step:
    """A step while it runs; what is put into it ends up in the record."""

    def __init__(self) -> None:
        self.detail = ""
        self.evidence: dict[str, t.Any] = {}


class Operation:
    """The record being written, and the fleet that works."""

    def __init__(self, *, identifier: str, kind: str, directory: str, asked: Asked, fleet: Fleet, clock: Clock) -> None:
        self.identifier = identifier
        self.kind = kind
        self.asked = asked
        self.fleet = fleet
        self.clock = clock
        try:
            self.journal = Journal(directory, identifier)
        except OSError as error:
            raise HmsError(
                f"The operation's record can't be written to {directory}: {error.strerror}.",
                reason="no_record",
                phase="plan",
                state="Nothing was touched.",
                next_step="Give a hms_records_dir on this controller that can be written.",
            ) from error
        self._origin = clock.monotonic()
        self.committed = False
        """Past the point of no return: there is only forward."""
        self.fenced = ""
        """The old primary, once its fence has begun."""
        self._voters: list[str] = []
        self._section: dict[str, float] = {}
        self.journal.append(
            start_event(
                identifier,
                kind,
                cluster=asked.cluster,
                environment=asked.environment,
                by=asked.by,
                parameters=asked.parameters,
                clock=clock,
            )
        )

    def elapsed(self, moment: float | None = None) -> float:
        """Seconds since the record's start."""
        return round((self.clock.monotonic() if moment is None else moment) - self._origin, 6)

    def set(self, *, lazy: bool = False, **values: t.Any) -> None:
        """Put top-level values into the record."""
        self.journal.append({"set": values}, lazy=lazy)

    def enter_critical_section(self) -> None:
        """From now on clients wait."""
        self._section = {"started": self.elapsed()}
        self.set(critical_section=self._section, lazy=True)

    def leave_critical_section(self) -> None:
        """Clients go on."""
        self._section["ended"] = self.elapsed()
        self.set(critical_section=self._section, lazy=True)

    def _write(self, **step: t.Any) -> None:
        self.journal.append({"step": step}, lazy=step["phase"] == CRITICAL)

    @contextlib.contextmanager
    def step(self, identifier: str, *, phase: str, host: str, title: str) -> t.Iterator[Step]:
        """A step that this process does itself, or that belongs to one host."""
        step = Step()
        started = self.elapsed()
        base = {"id": identifier, "host": host, "phase": phase, "title": title, "started": started}
        self._write(**base, ended=None, result="running", detail="", evidence={})
        try:
            yield step
        except HmsError as error:
            self._write(**base, ended=self.elapsed(), result="failed", detail=error.message, evidence=error.details)
            raise
        self._write(**base, ended=self.elapsed(), result="ok", detail=step.detail, evidence=step.evidence)

    def everywhere(
        self,
        identifier: str,
        requests: t.Mapping[str, tuple[str, dict[str, t.Any]]],
        *,
        phase: str,
        title: str,
        timeout: float,
        tolerate: bool = False,
        silence: float | None = None,
    ) -> dict[str, Answer]:
        """A step on several hosts at once. The first error is raised, unless all are tolerated."""
        started = self.elapsed()
        answers = self.fleet.ask(requests, timeout, silence=silence)
        for host, answer in answers.items():
            self.write_answer(identifier, answer, phase=phase, title=title, started=started, host=host)
        if not tolerate:
            for answer in answers.values():
                answer.get()
        return answers

    def write_answer(
        self, identifier: str, answer: Answer, *, phase: str, title: str, started: float, host: str
    ) -> None:
        """Write one host's answer down as a step."""
        error = answer.error
        self._write(
            id=identifier,
            host=host,
            phase=phase,
            title=title,
            started=started,
            ended=self.elapsed(answer.ended),
            result="failed" if error else "ok",
            detail=error.message if error else "",
            evidence=error.details if error else answer.result,
        )

    def one(
        self,
        identifier: str,
        host: str,
        verb: str,
        *,
        phase: str,
        title: str,
        timeout: float,
        silence: float | None = None,
        **args: t.Any,
    ) -> dict[str, t.Any]:
        """A step on one host."""
        answers = self.everywhere(
            identifier, {host: (verb, args)}, phase=phase, title=title, timeout=timeout, silence=silence
        )
        return answers[host].result

    def lock(self, hosts: t.Sequence[str], *, patience: float) -> None:
        """Take the vote of every host, in one order for all, so that of two operators one is refused at once."""
        with self.step("lock", phase="arm", host="controller", title="Take every host's vote") as step:
            for host in sorted(hosts):
                deadline = self.clock.monotonic() + patience
                while (holder := self._vote(host)) is not None:
                    if not holder.get("winding_up") or self.clock.monotonic() > deadline:
                        raise taken(host, holder)
                    self.fleet.keep_alive()
                    self.clock.sleep(0.5)
                self._voters.append(host)
            step.detail = f"{len(hosts)} of {len(hosts)} votes"

    def _vote(self, host: str) -> dict[str, t.Any] | None:
        """Take one host's vote; the note of who has it when it is taken already."""
        answer = self.fleet.call(host, "lock", 10.0, operation=self.identifier, by=self.asked.by)
        holder: dict[str, t.Any] | None = answer["holder"]
        return holder

    def revive(self, hosts: t.Iterable[str]) -> None:
        """Start the agents anew that were lost on the way: nobody else would let the clients of their hosts go.

        One whose vote is still taken is alive behind a line that broke, and acts alone; it is left to that.
        """
        lost = [host for host in hosts if host in self._voters and not self.fleet.reachable(host)]
        if not lost:
            return
        with self.step("revive", phase=CRITICAL, host="controller", title="Start lost agents again") as step:
            self.fleet.reopen(lost, REVIVE_SECONDS)
            for host in lost:
                try:
                    holder = self._vote(host) if self.fleet.reachable(host) else None
                except HmsError:
                    continue
                if holder is not None:
                    self.fleet.lines[host].give_up("its agent acts alone now")
            step.detail = ", ".join(host for host in lost if self.fleet.reachable(host)) or "none came"

    def pause(self, seconds: float) -> None:
        """Let time pass without letting the agents believe that we are gone."""
        deadline = self.clock.monotonic() + seconds
        while self.clock.monotonic() < deadline:
            self.fleet.keep_alive()
            self.clock.sleep(0.05)

    def outcome(self, status: str, message: str, **more: t.Any) -> dict[str, t.Any]:
        """Write how it ended."""
        values = {"status": status, "message": message, "ended_at": iso(self.clock.now()), **more}
        self.set(outcome=values)
        return values
