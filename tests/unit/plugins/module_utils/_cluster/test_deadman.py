# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What agents do alone, by what was ordered last. Hosts are scripted; that servers obey is tested with real ones."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster import deadman_database, deadman_pooler, fencing
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.tests.unit.plugins.engine_facts import ScriptedClock


class Context:
    """Notes what is noted."""

    def __init__(self) -> None:
        self.clock = ScriptedClock()
        self.operation = "20261122T154500Z-failover-3fa9"
        self.holding = True
        self.noted: list[str] = []
        self.hurry_at = 1e9

    def hurried(self) -> bool:
        return self.clock.seconds >= self.hurry_at

    def note(self, event: str, **_more: t.Any) -> None:
        self.noted.append(event)


class Host:
    """A database host whose every act is written down; also its parts."""

    def __init__(self, state: str) -> None:
        self.context = Context()
        self.state = state
        self.acts: list[str] = []
        self.fails = ""
        self.host = self
        self.instance = self
        self.data_directory = "/nonexistent"
        self.primary = self.standby = self.cutover = self

    def _act(self, name: str) -> None:
        self.acts.append(name)
        if name == self.fails:
            raise HmsError(f"{name} failed")

    def disarm(self, *, promise: bool = False) -> None:
        self._act("promise" if promise else "disarm")

    def finish(self, *, role: str) -> None:
        self._act(f"finish as {role}")

    def restart_primary(self, *, deadline: float) -> None:
        assert deadline > 60.0
        self._act("lead again")

    def start_standby(self, *, deadline: float) -> None:
        assert deadline > 60.0
        self._act("follow")

    def await_streaming(self, *, timeline: int, deadline: float) -> None:
        assert (timeline, deadline) == (1, 15.0)
        self._act("stream")

    def order_promotion(self) -> None:
        self._act("promote")

    @property
    def service(self) -> t.Any:
        return self

    def alone(self) -> None:
        self._act("settle the cutover")

    def signal_postmaster(self, number: int) -> None:
        self._act(f"signal {number}")

    def wait_for_exit(self, _deadline: float) -> None:
        self._act("wait for its end")


@pytest.mark.parametrize(
    ("state", "acts"),
    [
        ("idle", []),
        ("fenced", []),
        ("armed_candidate", ["promise", "stream", "finish as standby"]),
        ("detached", ["promise", "stream", "finish as standby"]),
        ("armed_primary", ["disarm"]),
        ("stopped", ["lead again", "disarm"]),
        ("following", ["stream", "finish as standby"]),
        ("promoted", ["promote", "finish as primary"]),
        ("cutover", ["settle the cutover"]),
    ],
)
def test_by_what_was_ordered_last(state: str, acts: list[str]) -> None:
    host = Host(state)
    deadman_database.act(t.cast("t.Any", host))
    assert host.acts == acts


def test_one_that_doesn_t_stream_in_time_is_tidied_up_all_the_same() -> None:
    host = Host("following")
    host.fails = "stream"
    deadman_database.act(t.cast("t.Any", host))
    assert host.acts == ["stream", "finish as standby"]


@pytest.mark.parametrize(
    ("words", "last"),
    [
        (["promoted"], ["follow", "stream", "finish as standby"]),
        (["", "", "promoted"], ["follow", "stream", "finish as standby"]),
        (["", "disarmed"], ["lead again", "disarm"]),
    ],
)
def test_a_committed_primary_asks_the_candidate(
    monkeypatch: pytest.MonkeyPatch, words: list[str], last: list[str]
) -> None:
    host = Host("committed")
    answers = iter(words)
    monkeypatch.setattr(deadman_database, "_candidate_word", lambda _handler: next(answers))
    deadman_database.act(t.cast("t.Any", host))
    assert host.acts[-len(last) :] == last


def test_a_committed_primary_that_hears_nothing_stays_down(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host("committed")
    marks: list[dict[str, t.Any]] = []
    monkeypatch.setattr(deadman_database, "_candidate_word", lambda _handler: "")
    monkeypatch.setattr(fencing, "mark", lambda _host, **note: marks.append(note))
    host.candidate = "db2"  # type: ignore[attr-defined]  # only this state has one
    begun = host.context.clock.seconds
    deadman_database.act(t.cast("t.Any", host))
    assert host.context.clock.seconds - begun >= deadman_database.PATIENCE
    assert host.acts == []
    assert [note["new_primary"] for note in marks] == ["db2"]
    assert host.context.noted == ["deadman_stays_down"]


class Bouncer:
    """A bouncer host; the primary shows itself after some looks."""

    def __init__(self, *primaries: str, leads: str = "db1") -> None:
        self.context = Context()
        self.tuned = True
        self._primaries = list(primaries)
        self._leads = leads
        self.acts: list[str] = []
        self.fails: list[str] = []

    def writable_member(self) -> str:
        return self._primaries.pop(0) if self._primaries else ""

    def leads_to(self, primary: str) -> bool:
        return self._leads == primary

    def primary_on_file(self) -> str:
        return self._leads

    def _act(self, name: str) -> None:
        self.acts.append(name)
        if name in self.fails:
            self.fails.remove(name)
            raise HmsError(f"{name} failed")

    def repoint(self, *, primary: str, operation: str) -> None:
        assert operation == self.context.operation
        self._act("repoint")
        self._leads = primary

    def resume(self) -> None:
        self._act("resume")

    def finish(self, *, operation: str) -> None:
        assert operation == self.context.operation
        self._act("finish")


def alone(bouncer: Bouncer) -> list[str]:
    deadman_pooler.act(t.cast("t.Any", bouncer))
    return bouncer.acts


def test_clients_go_on_to_who_leads() -> None:
    assert alone(Bouncer("db1")) == ["resume", "finish"]
    assert alone(Bouncer("", "", "db2")) == ["repoint", "resume", "finish"]


def test_clients_go_on_where_they_were_when_nobody_leads() -> None:
    bouncer = Bouncer()
    begun = bouncer.context.clock.seconds
    assert alone(bouncer) == ["resume", "finish"]
    assert deadman_pooler.PATIENCE <= bouncer.context.clock.seconds - begun < deadman_pooler.PATIENCE + 5.0
    assert deadman_pooler.PATIENCE < 60.0, "clients give up after query_wait_timeout"


def test_who_waits_to_take_over_is_not_kept_waiting() -> None:
    bouncer = Bouncer()
    begun = bouncer.context.clock.seconds
    bouncer.context.hurry_at = begun + 1.0
    assert alone(bouncer) == ["resume", "finish"]
    assert bouncer.context.clock.seconds - begun < 2.0


def test_what_fails_is_tried_again_and_keeps_nothing_else_from_being_done() -> None:
    bouncer = Bouncer("db2", "db2", "db2")
    bouncer.fails = ["repoint", "resume"]
    assert alone(bouncer) == ["repoint", "resume", "repoint", "resume", "finish"]
    assert bouncer.context.noted == ["deadman_failed", "deadman_failed", "deadman_resumed"]


def test_one_that_holds_nobody_only_puts_its_settings_back() -> None:
    bouncer = Bouncer("db2")
    bouncer.context.holding = False
    assert alone(bouncer) == ["finish"]
    untouched = Bouncer("db2")
    untouched.context.holding = untouched.tuned = False
    assert alone(untouched) == []
