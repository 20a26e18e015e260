# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent's end of the line, over real pipes and a scripted clock: when a coordinator is gone, and what then."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import select
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster.agent import Agent, Channel, ChannelLost, Context
from ansible_collections.hms.postgres.plugins.module_utils._errors import DeadlinePassed, HmsError
from ansible_collections.hms.postgres.plugins.module_utils._files import HeldLock
from ansible_collections.hms.postgres.plugins.module_utils._record import Journal
from ansible_collections.hms.postgres.tests.unit.plugins.engine_facts import ScriptedClock

ID = "20261122T154500Z-failover-3fa9"


class Wire:
    """A coordinator's ends of two pipes."""

    def __init__(self) -> None:
        self.clock = ScriptedClock()
        self.source, self._to_agent = os.pipe()
        self._from_agent, self.target = os.pipe()
        os.set_blocking(self._from_agent, False)
        self.channel = Channel(self.source, self.target, self.clock)
        self._open = {self.source, self._to_agent, self._from_agent, self.target}

    def say(self, *messages: t.Mapping[str, t.Any] | bytes) -> None:
        for message in messages:
            data = message if isinstance(message, bytes) else (json.dumps(message) + "\n").encode()
            os.write(self._to_agent, data)

    def answers(self) -> list[dict[str, t.Any]]:
        try:
            return [json.loads(line) for line in os.read(self._from_agent, 1 << 20).splitlines()]
        except BlockingIOError:
            return []

    def close(self, *handles: int) -> None:
        for handle in handles or tuple(self._open):
            os.close(handle)
            self._open.discard(handle)

    def hang_up(self) -> None:
        self.close(self._to_agent)

    def stop_reading(self) -> None:
        self.close(self._from_agent)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Wire]:
    made = Wire()

    def wait(readers: list[int], _writers: list[int], _others: list[int], timeout: float) -> tuple[list[int], ...]:
        """select, with the scripted clock's patience instead of ours."""
        readable = real(readers, [], [], 0)[0]
        if not readable:
            made.clock.seconds += timeout
        return readable, [], []

    real = select.select
    monkeypatch.setattr("select.select", wait)
    yield made
    made.close()


class Handler:
    """A host that notes what it is told."""

    def __init__(self, **verbs: t.Callable[..., dict[str, t.Any]]) -> None:
        self._verbs = verbs
        self.lost: list[bool] = []
        self.closed = False
        self.dies: Exception | None = None

    def verbs(self) -> t.Mapping[str, t.Callable[..., dict[str, t.Any]]]:
        return self._verbs

    def observe(self) -> dict[str, t.Any]:
        return {"facts": {"name": "db1"}}

    def channel_lost(self) -> None:
        self.lost.append(True)
        if self.dies is not None:
            raise self.dies

    def close(self) -> None:
        self.closed = True


def context(wire: Wire, tmp_path: pathlib.Path) -> Context:
    return Context(wire.channel, wire.clock, str(tmp_path))


def notes(tmp_path: pathlib.Path) -> list[str]:
    text = (tmp_path / "agent" / f"{ID}.jsonl").read_text()
    return [json.loads(line)["event"] for line in text.splitlines()]


# -- the channel ---------------------------------------------------------------------------------------------------


def test_messages_come_whole_however_they_arrive(wire: Wire) -> None:
    wire.say(b'{"n": 1, "ve', b'rb": "a"}\n{"n": 2}\n')
    assert wire.channel.next_message(holding=False) == {"n": 1, "verb": "a"}
    assert wire.channel.next_message(holding=False) == {"n": 2}


def test_what_was_ordered_is_done_before_the_end_is_noticed(wire: Wire) -> None:
    wire.say({"n": 1}, {"n": 2}, b'{"n": 3')
    wire.hang_up()
    assert wire.channel.next_message(holding=True) == {"n": 1}
    assert wire.channel.next_message(holding=True) == {"n": 2}
    with pytest.raises(ChannelLost):
        wire.channel.next_message(holding=True)


@pytest.mark.parametrize("garbage", [b"hello\n", b"[1]\n", b"\xff\xfe\n", b"\n"])
def test_what_is_no_message_is_no_coordinator(wire: Wire, garbage: bytes) -> None:
    wire.say(garbage)
    with pytest.raises(ChannelLost):
        wire.channel.next_message(holding=True)


def test_silence_counts_only_for_who_holds_something(wire: Wire) -> None:
    begun = wire.clock.seconds
    with pytest.raises(ChannelLost):
        wire.channel.next_message(holding=True)
    assert 5.0 < wire.clock.seconds - begun < 6.0
    wire.clock.seconds += 3600.0
    wire.say({"n": 1})
    assert wire.channel.next_message(holding=False) == {"n": 1}


def test_who_was_busy_has_heard_what_came_meanwhile(wire: Wire) -> None:
    """A verb took a minute and didn't listen; the coordinator spoke all the time."""
    wire.say({"n": 0, "verb": "ping"})
    wire.clock.seconds += 60.0
    assert wire.channel.next_message(holding=True) == {"n": 0, "verb": "ping"}
    assert wire.channel.silent_for() == 0.0


def test_a_coordinator_that_doesn_t_read_is_gone(wire: Wire) -> None:
    wire.stop_reading()
    with pytest.raises(ChannelLost):
        wire.channel.send({"n": 1})


# -- waiting -------------------------------------------------------------------------------------------------------


def test_waiting_ends_when_it_holds_or_in_time(wire: Wire, tmp_path: pathlib.Path) -> None:
    here = context(wire, tmp_path)
    assert here.wait_for(lambda: True, timeout=0.0)
    begun = wire.clock.seconds
    assert not here.wait_for(lambda: False, timeout=2.0, interval=0.5)
    assert wire.clock.seconds - begun == 2.0
    with pytest.raises(DeadlinePassed, match=r"The tide did not happen within 1 seconds\."):
        here.demand(lambda: False, "The tide", timeout=1.0, interval=0.5)


def test_waiting_notices_that_nobody_waits_for_the_answer(wire: Wire, tmp_path: pathlib.Path) -> None:
    here = context(wire, tmp_path)
    wire.hang_up()
    with pytest.raises(ChannelLost):
        here.wait_for(lambda: False, timeout=60.0)


@pytest.mark.parametrize(("holding", "lost"), [(True, True), (False, False)])
def test_silence_while_waiting(wire: Wire, tmp_path: pathlib.Path, holding: bool, lost: bool) -> None:
    here = context(wire, tmp_path)
    here.holding = holding
    if lost:
        with pytest.raises(ChannelLost):
            here.wait_for(lambda: False, timeout=60.0, interval=0.5)
    else:
        assert not here.wait_for(lambda: False, timeout=60.0, interval=0.5)


def test_one_that_is_alone_waits_on(wire: Wire, tmp_path: pathlib.Path) -> None:
    here = context(wire, tmp_path)
    here.holding = here.alone = True
    wire.hang_up()
    assert not here.wait_for(lambda: False, timeout=60.0, interval=1.0)
    assert wire.answers() == []


def test_a_sign_of_life_each_second(wire: Wire, tmp_path: pathlib.Path) -> None:
    here = context(wire, tmp_path)
    here.wait_for(lambda: False, timeout=3.0, interval=0.25)
    assert [answer["n"] for answer in wire.answers()] == [0, 0]


# -- serving -------------------------------------------------------------------------------------------------------


def serve(wire: Wire, tmp_path: pathlib.Path, handler: Handler, **state: t.Any) -> Context:
    here = context(wire, tmp_path)
    for name, value in state.items():
        setattr(here, name, value)
    Agent(handler, here).serve()
    return here


def test_verbs_are_answered_and_errors_are_answers(wire: Wire, tmp_path: pathlib.Path) -> None:
    def fail() -> dict[str, t.Any]:
        raise HmsError("no", reason="r", next_step="n")

    def broken() -> dict[str, t.Any]:
        raise ZeroDivisionError("a defect")

    def slow(*, seconds: float) -> dict[str, t.Any]:
        wire.clock.seconds += seconds
        return {"done": True}

    handler = Handler(slow=slow, fail=fail, broken=broken)
    wire.say(
        {"n": 0, "verb": "ping"},
        {"n": 1, "verb": "slow", "args": {"seconds": 0.5}},
        {"n": 2, "verb": "fail"},
        {"n": 3, "verb": "broken"},
        {"n": 4, "verb": "unknown"},
        {"n": 5, "verb": "slow", "args": {"minutes": 1}},
        {"n": 6, "verb": "observe"},
        {"n": 7, "verb": "goodbye"},
    )
    serve(wire, tmp_path, handler, holding=True)
    ping, slow_answer, failed, defect, unknown, wrong, seen, bye = wire.answers()
    assert ping == {"n": 0, "ok": True, "result": {}, "took": 0.0}
    assert slow_answer == {"n": 1, "ok": True, "result": {"done": True}, "took": 0.5}
    assert (failed["ok"], failed["error"]["reason"], failed["error"]["next_step"]) == (False, "r", "n")
    assert defect["error"]["reason"] == unknown["error"]["reason"] == wrong["error"]["reason"] == "agent_defect"
    assert "ZeroDivisionError: a defect" in defect["error"]["message"]
    assert seen["result"] == {"facts": {"name": "db1"}, "lock": None}
    assert bye["n"] == 7
    assert handler.closed
    assert handler.lost == [], "who says goodbye is not lost"


def test_a_lost_channel_lets_the_dead_man_act(wire: Wire, tmp_path: pathlib.Path) -> None:
    handler = Handler()
    wire.say({"n": 1, "verb": "lock", "args": {"operation": ID, "by": "me"}})
    wire.hang_up()
    here = serve(wire, tmp_path, handler)
    assert handler.lost == [True]
    assert handler.closed
    assert here.alone
    assert not here.lock.held
    assert notes(tmp_path) == ["locked", "channel_lost"]


@pytest.mark.parametrize("dies", [HmsError("no server"), RuntimeError("a defect"), ChannelLost("once more")])
def test_a_dead_man_that_breaks_says_so(wire: Wire, tmp_path: pathlib.Path, dies: Exception) -> None:
    handler = Handler()
    handler.dies = dies
    wire.say({"n": 1, "verb": "lock", "args": {"operation": ID, "by": "me"}})
    wire.hang_up()
    serve(wire, tmp_path, handler)
    assert notes(tmp_path) == ["locked", "channel_lost", "deadman_failed"]
    assert str(dies) in (tmp_path / "agent" / f"{ID}.jsonl").read_text()


def test_while_the_dead_man_acts_others_see_it(wire: Wire, tmp_path: pathlib.Path) -> None:
    seen: list[t.Any] = []

    class Looking(Handler):
        def channel_lost(self) -> None:
            seen.append(HeldLock(str(tmp_path / "operation.lock")).look())

    wire.say({"n": 1, "verb": "lock", "args": {"operation": ID, "by": "me"}})
    wire.hang_up()
    serve(wire, tmp_path, Looking())
    assert [(note["id"], note["by"], note["winding_up"]) for note in seen] == [(ID, "me", True)]


def test_a_verb_that_notices_the_end_ends_the_service(wire: Wire, tmp_path: pathlib.Path) -> None:
    def wait() -> dict[str, t.Any]:
        raise ChannelLost

    handler = Handler(wait=wait)
    wire.say({"n": 1, "verb": "wait"}, {"n": 2, "verb": "ping"})
    serve(wire, tmp_path, handler)
    assert handler.lost == [True]
    assert wire.answers() == []


def test_the_vote_of_a_host_goes_to_one(wire: Wire, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    other = HeldLock(str(tmp_path / "operation.lock"))
    assert other.acquire({"id": "theirs", "by": "them"}) is None
    wire.say(
        {"n": 1, "verb": "lock", "args": {"operation": ID, "by": "me"}},
        {"n": 2, "verb": "observe"},
        {"n": 3, "verb": "goodbye"},
    )
    serve(wire, tmp_path, Handler())
    refused, seen, _bye = wire.answers()
    assert refused["result"] == {"holder": {"id": "theirs", "by": "them"}}
    assert seen["result"]["lock"] == {"id": "theirs", "by": "them"}
    assert not (tmp_path / "agent").exists()
    other.release()


def test_a_full_disk_stops_no_journal_and_no_dead_man(
    wire: Wire, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_args: t.Any, **_more: t.Any) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(Journal, "append", no_room)
    handler = Handler()
    wire.say({"n": 1, "verb": "lock", "args": {"operation": ID, "by": "me"}})
    wire.hang_up()
    serve(wire, tmp_path, handler)
    assert handler.lost == [True]
    assert [answer["result"] for answer in wire.answers()] == [{"holder": None}]


def test_a_record_is_kept_under_its_id_only(wire: Wire, tmp_path: pathlib.Path) -> None:
    wire.say(
        {"n": 1, "verb": "store_record", "args": {"operation": ID, "record": "{}"}},
        {"n": 2, "verb": "store_record", "args": {"operation": "../x", "record": "{}"}},
        {"n": 3, "verb": "goodbye"},
    )
    serve(wire, tmp_path, Handler())
    stored, refused, _bye = wire.answers()
    assert stored["result"] == {"path": str(tmp_path / "records" / f"{ID}.json")}
    assert refused["error"]["reason"] == "bad_id"
