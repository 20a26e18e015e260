# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All lines together: ask many hosts at once, wait with a deadline, never fall silent. PRIVATE."""

from __future__ import annotations

import dataclasses
import select
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._clock import Clock
from ansible_collections.hms.postgres.plugins.module_utils._errors import DeadlinePassed, HmsError

from .line import Line, LineSpec

PING_INTERVAL = 0.5
"""Seconds; agents that hold something take 5 s of silence for the coordinator's death."""

PING = 0  # the number of requests whose answer nobody waits for


@dataclasses.dataclass
class Answer:
    """What one host said to one request."""

    host: str
    result: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    error: HmsError | None = None
    took: float = 0.0
    """Seconds the agent worked on it."""
    started: float = 0.0
    ended: float = 0.0

    def get(self) -> dict[str, t.Any]:
        """The result, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.result


class Fleet:
    """The agents of a cluster."""

    def __init__(self, specs: t.Iterable[LineSpec], bundle: bytes, clock: Clock) -> None:
        self._clock = clock
        self._number = PING
        self._bundle = bundle
        self._specs = {spec.host: spec for spec in specs}
        self.lines: dict[str, Line] = {}
        try:
            for host, spec in self._specs.items():
                self.lines[host] = Line(spec, bundle)
        except HmsError:
            self.abandon()
            raise
        self._last_ping = clock.monotonic()

    def greet(self, timeout: float) -> dict[str, dict[str, t.Any]]:
        """Wait for every agent's hello; a host that hasn't said it in time counts as unreachable."""
        deadline = self._clock.monotonic() + timeout
        while True:
            waiting = [line for line in self.lines.values() if line.open and not line.hello]
            left = deadline - self._clock.monotonic()
            if not waiting or left <= 0:
                break
            self._select(waiting, min(left, 0.25))
            self.keep_alive()
        for line in self.lines.values():
            if line.open and not line.hello:
                line.give_up(f"no answer within {timeout:g} seconds")
        return {host: line.hello for host, line in self.lines.items() if line.open}

    def reachable(self, host: str) -> bool:
        """Whether the host's agent answers."""
        return host in self.lines and self.lines[host].open

    def _select(self, lines: t.Iterable[Line], timeout: float) -> None:
        open_lines = [line for line in lines if line.open]
        owners = {handle: line for line in open_lines for handle in line.handles()}
        writers = {handle: line for line in self.lines.values() if line.open and (handle := line.unsent()) is not None}
        if not owners:
            return
        readable, writable, _x = select.select(list(owners), list(writers), [], timeout)
        for handle in writable:
            writers[handle].flush()
        for line in {id(owners[handle]): owners[handle] for handle in readable}.values():
            line.heard = self._clock.monotonic()
            line.pump()

    def keep_alive(self) -> None:
        """Say something to everyone when it is time."""
        now = self._clock.monotonic()
        if now - self._last_ping < PING_INTERVAL:
            return
        self._last_ping = now
        for line in self.lines.values():
            if line.open and line.hello:
                line.send({"n": PING, "verb": "ping"})

    def post(self, host: str, verb: str, **args: t.Any) -> Pending:
        """Send a request and don't wait."""
        self._number += 1
        line = self.lines[host]
        pending = Pending(host=host, number=self._number, verb=verb, started=self._clock.monotonic())
        if line.open:
            line.send({"n": self._number, "verb": verb, "args": args})
        return pending

    def collect(
        self, requests: t.Sequence[Pending], timeout: float, *, silence: float | None = None
    ) -> dict[str, Answer]:
        """Wait for the answers to what was posted, one request a host; errors come inside the answers.

        With `silence`, an agent that gives no sign of life for so many seconds counts as lost before `timeout`.
        """
        deadline = self._clock.monotonic() + timeout
        answers: dict[str, Answer] = {}
        open_requests = list(requests)
        while open_requests:
            for request in list(open_requests):
                answer = self._answer(request, expired=self._expired(request, deadline, silence))
                if answer is not None:
                    answers[request.host] = answer
                    open_requests.remove(request)
            if open_requests:
                self._select([self.lines[request.host] for request in open_requests], 0.1)
                self.keep_alive()
        return answers

    def _expired(self, request: Pending, deadline: float, silence: float | None) -> bool:
        now = self._clock.monotonic()
        heard = max(self.lines[request.host].heard, request.started)
        return now > deadline or (silence is not None and now - heard > silence)

    def _answer(self, request: Pending, *, expired: bool) -> Answer | None:
        line = self.lines[request.host]
        now = self._clock.monotonic()
        message = line.answer(request.number)
        if message is None:
            error = None
            try:
                line.require()
            except HmsError as lost:
                error = lost
            if error is None and expired:
                line.give_up(f"no answer to {request.verb!r} in time")
                error = DeadlinePassed(
                    f"{request.host} did not answer to {request.verb!r} in time.", reason="host_unreachable"
                )
            if error is None:
                return None
            return Answer(host=request.host, error=error, started=request.started, ended=now)
        answer = Answer(host=request.host, took=float(message.get("took", 0.0)), started=request.started, ended=now)
        if message.get("ok"):
            answer.result = message.get("result") or {}
        else:
            answer.error = HmsError.from_dict(message.get("error") or {})
        return answer

    def ask(
        self,
        requests: t.Mapping[str, tuple[str, dict[str, t.Any]]],
        timeout: float,
        *,
        silence: float | None = None,
    ) -> dict[str, Answer]:
        """Ask several hosts at once and wait for all: ``{host: (verb, args)}``."""
        posted = [self.post(host, verb, **args) for host, (verb, args) in requests.items()]
        return self.collect(posted, timeout, silence=silence)

    def call(self, host: str, verb: str, timeout: float, **args: t.Any) -> dict[str, t.Any]:
        """Ask one host; its error is raised."""
        return self.collect([self.post(host, verb, **args)], timeout)[host].get()

    def reopen(self, hosts: t.Iterable[str], timeout: float) -> None:
        """Start the agents of hosts anew whose lines were lost."""
        for host in hosts:
            if not self.lines[host].open:
                self.lines[host].close(patience=0.0)
                self.lines[host] = Line(self._specs[host], self._bundle)
        self.greet(timeout)

    def goodbye(self) -> None:
        """End all lines in peace: no dead-man acts."""
        open_hosts = [host for host, line in self.lines.items() if line.open]
        self.collect([self.post(host, "goodbye") for host in open_hosts], 2.0)
        self.abandon()

    def abandon(self) -> None:
        """Close all lines without a word: whoever holds something acts alone."""
        for line in self.lines.values():
            line.close(patience=0.2)


@dataclasses.dataclass(frozen=True)
class Pending:
    """A request whose answer is outstanding."""

    host: str
    number: int
    verb: str
    started: float
