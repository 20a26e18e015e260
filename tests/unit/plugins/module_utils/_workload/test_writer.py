# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The writer's loop, with a scripted connection and a scripted clock."""

from __future__ import annotations

import datetime
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._workload.client import ClientError
from ansible_collections.hms.postgres.plugins.module_utils._workload.ledger import Entry
from ansible_collections.hms.postgres.plugins.module_utils._workload.writer import Interrupted, Writer


class ScriptedClock:
    """Time that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.time

    def now(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self.time, datetime.timezone.utc)

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.time += seconds


class Script:
    """Connections that do what the script says; each item belongs to one attempt."""

    def __init__(self, *steps: str | BaseException) -> None:
        self.steps = list(steps)
        self.opened = 0
        self.closed = 0
        self.done: list[tuple[int, int]] = []

    def connect(self) -> Script:
        self.opened += 1
        self._raise("connect")
        return self

    def work(self, source: int, seq: int) -> None:
        self._raise("work")
        self.done.append((source, seq))

    def commit(self) -> str:
        self._raise("commit")
        return "" if self.steps.pop(0) == "ok" else "WARNING: not sent to the standby"

    def close(self) -> None:
        self.closed += 1

    def _raise(self, phase: str) -> None:
        step = self.steps[0]
        if isinstance(step, BaseException) and phase == getattr(step, "phase", phase):
            self.steps.pop(0)
            raise step


def at(phase: str, error: BaseException) -> BaseException:
    error.phase = phase  # type: ignore[attr-defined]  # the script's own mark
    return error


class Sink:
    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def append(self, entry: Entry) -> None:
        self.entries.append(entry)

    def outcomes(self) -> list[str]:
        return [entry.outcome for entry in self.entries]


def write(script: Script, *, interval: float = 0.0) -> tuple[Sink, ScriptedClock]:
    sink, clock = Sink(), ScriptedClock()
    writer = Writer(source=3, first_seq=10, connect=script.connect, sink=sink, clock=clock, interval=interval)
    writer.run(lambda: bool(script.steps))
    return sink, clock


def test_acknowledged_ones_share_a_connection() -> None:
    script = Script("ok", "ok")
    sink, _clock = write(script)
    assert sink.outcomes() == ["acked", "acked"]
    assert script.done == [(3, 10), (3, 11)]
    assert (script.opened, script.closed) == (1, 1)


@pytest.mark.parametrize(
    ("phase", "certain", "outcome"),
    [("connect", False, "failed"), ("work", False, "failed"), ("commit", False, "unknown"), ("commit", True, "failed")],
)
def test_only_a_lost_answer_to_commit_leaves_a_doubt(phase: str, certain: bool, outcome: str) -> None:
    script = Script(at(phase, ClientError("gone", certain=certain)), "ok")
    sink, _clock = write(script)
    assert sink.outcomes() == [outcome, "acked"]
    assert sink.entries[0].error == f"{phase}: gone"
    assert [entry.seq for entry in sink.entries] == [10, 11]
    assert script.opened == 2


def test_retries_come_at_once_and_then_a_little_later() -> None:
    script = Script(
        *[at("connect", ClientError("no")) for _number in range(7)], "ok", at("work", ClientError("no")), "ok"
    )
    _sink, clock = write(script)
    assert clock.slept == [0.005, 0.01, 0.02, 0.04, 0.05, 0.05]


def test_transactions_keep_their_distance_but_never_catch_up() -> None:
    script = Script("ok", "ok", "ok")
    _sink, clock = write(script, interval=0.25)
    assert clock.slept == [0.25, 0.25, 0.25]


def test_a_warning_that_came_with_the_answer_is_noted() -> None:
    sink, _clock = write(Script("warn"))
    assert sink.outcomes() == ["acked"]
    assert sink.entries[0].error == "WARNING: not sent to the standby"


@pytest.mark.parametrize(("phase", "outcome"), [("work", "failed"), ("commit", "unknown")])
def test_an_end_in_the_middle_is_noted_before_the_writer_goes(phase: str, outcome: str) -> None:
    script = Script(at(phase, Interrupted()), "ok")
    sink, _clock = write(script)
    assert sink.outcomes() == [outcome]
    assert script.steps == ["ok"]
    assert script.closed == 1


def test_nothing_is_sent_after_the_ledger_could_not_be_written() -> None:
    class Full(Sink):
        def append(self, entry: Entry) -> None:
            raise OSError(28, f"No space left on device for {entry.seq}")

    script = Script("ok", "ok")
    writer = Writer(
        source=1, first_seq=1, connect=script.connect, sink=Full(), clock=t.cast("t.Any", ScriptedClock()), interval=0.0
    )
    with pytest.raises(OSError, match="No space left"):
        writer.run(lambda: True)
    assert script.done == [(1, 1)]
