# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet without hosts: what each would say is scripted, what each was told is written down."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import ConnectionFailed, HmsError
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.fleet import Answer, Fleet, Pending
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.operation import Asked, Operation
from ansible_collections.hms.postgres.tests.unit.plugins.engine_facts import ScriptedClock

ID = "20261122T154500Z-failover-3fa9"

Say = t.Union[dict[str, t.Any], HmsError, None]
Told = t.Callable[[str, str, dict[str, t.Any]], Say]
"""Host, verb and arguments → what the host says: a result, an error, or nothing more ever."""


class Line:
    """As much of a line as the coordinator looks at."""

    def __init__(self) -> None:
        self.error = ""
        self.hello: dict[str, t.Any] = {}

    @property
    def open(self) -> bool:
        return not self.error

    def give_up(self, why: str) -> None:
        self.error = why


class ScriptedFleet(Fleet):
    """Answers at once. Hosts die when they are told to; those in `revives` come back when they are started again."""

    def __init__(self, hosts: t.Iterable[str], say: Told, clock: ScriptedClock) -> None:
        self._say = say
        self._clock = clock
        self._scripts = {host: Line() for host in hosts}
        self.lines = t.cast("t.Any", self._scripts)
        self.told: list[str] = []
        self.arguments: list[dict[str, t.Any]] = []
        self.revives: set[str] = set()
        self.kept_alive = 0
        self._said: dict[int, Say] = {}
        self._number = 0

    def keep_alive(self) -> None:
        self.kept_alive += 1

    def post(self, host: str, verb: str, **args: t.Any) -> Pending:
        self._number += 1
        if self.reachable(host):
            self.told.append(f"{verb}@{host}")
            self.arguments.append(args)
            said = self._say(host, verb, args)
            self._said[self._number] = {} if said is None and self.reachable(host) else said
            if said is None:
                self._scripts[host].error = "the line closed"
        return Pending(host, self._number, verb, self._clock.monotonic())

    def collect(
        self, requests: t.Sequence[Pending], timeout: float, *, silence: float | None = None
    ) -> dict[str, Answer]:
        assert timeout > 0
        assert silence is None or silence < timeout
        return {request.host: self._answered(request) for request in requests}

    def _answered(self, request: Pending) -> Answer:
        said = self._said.get(request.number)
        if not self.reachable(request.host) and not isinstance(said, HmsError):
            gone = ConnectionFailed(f"No agent on {request.host}: the line closed", reason="host_unreachable")
            return Answer(request.host, error=gone)
        if isinstance(said, HmsError):
            return Answer(request.host, error=said)
        return Answer(request.host, result=said or {})

    def reopen(self, hosts: t.Iterable[str], timeout: float) -> None:
        assert timeout < 10.0, "clients wait"
        for host in hosts:
            self.told.append(f"reopen@{host}")
            if host in self.revives:
                self._scripts[host].error = ""

    def args_of(self, told: str) -> dict[str, t.Any]:
        """The arguments of the first time that this was told."""
        return self.arguments[[each for each in self.told if not each.startswith("reopen@")].index(told)]


def operation(fleet: ScriptedFleet, directory: pathlib.Path, clock: ScriptedClock, kind: str = "failover") -> Operation:
    """An operation in a folder of the test's own."""
    asked = Asked("me@here", "hospital", "staging", {})
    return Operation(identifier=ID, kind=kind, directory=str(directory), asked=asked, fleet=fleet, clock=clock)


class ScriptedRun:
    """One operation at work. `fails` says who answers what instead, once: an error, other values, or nothing any more.

    A kind of operation tells what its hosts answer otherwise, to ``verb@host`` or to a verb, and how it goes.
    """

    kind: t.ClassVar[str]
    hosts: t.ClassVar[tuple[str, ...]] = ("db1", "db2", "bouncer1", "bouncer2")
    answers: t.ClassVar[t.Mapping[str, dict[str, t.Any]]] = {}

    def __init__(self, directory: pathlib.Path) -> None:
        self.fails: dict[str, Say] = {}
        self.clock = ScriptedClock()
        self.fleet = ScriptedFleet(self.hosts, self.say, self.clock)
        self.operation = operation(self.fleet, directory, self.clock, self.kind)
        self.operation.lock(self.hosts, patience=1.0)
        self.fleet.told.clear()
        self.fleet.arguments.clear()

    def say(self, host: str, verb: str, args: dict[str, t.Any]) -> Say:
        told = f"{verb}@{host}"
        return self.fails.pop(told) if told in self.fails else self.answer(told, verb, args)

    def answer(self, told: str, verb: str, _args: dict[str, t.Any]) -> Say:
        """What a host says that is well."""
        return dict(self.answers.get(told, self.answers.get(verb, {})))

    def go(self) -> object:
        raise NotImplementedError

    def fail(self) -> HmsError:
        """Its error, when it goes and fails."""
        with pytest.raises(HmsError) as caught:
            self.go()
        assert not self.operation.committed
        return caught.value

    def close(self) -> None:
        self.operation.journal.close()
