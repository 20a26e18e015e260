# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lines and fleets, with small programs at the far end that speak the protocol well or badly."""

from __future__ import annotations

import pathlib
import time
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._clock import Clock, SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._errors import ConnectionFailed, DeadlinePassed, HmsError
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.fleet import Answer, Fleet
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.line import Line, LineSpec, agent_command
from ansible_collections.hms.postgres.tests.unit.plugins.plugin_utils._coordinator.scripted_agents import BUNDLE, agent

Open = t.Callable[..., Fleet]


@pytest.fixture
def open_fleet() -> t.Iterator[Open]:
    """Opens fleets, and closes them in the end."""
    opened: list[Fleet] = []

    def make(*specs: LineSpec, greet: float = 60.0, clock: Clock | None = None) -> Fleet:
        fleet = Fleet(specs, BUNDLE, clock or SystemClock())
        opened.append(fleet)
        if greet:
            fleet.greet(greet)
        return fleet

    yield make
    for fleet in opened:
        fleet.abandon()


class StandingClock(SystemClock):
    """Time stands still until something has come, however long that takes; then a second passes with each look."""

    def __init__(self, come: t.Callable[[], bool] = lambda: False) -> None:
        self.come = come
        self._now = 0.0
        self._flies = False

    def monotonic(self) -> float:
        self._flies = self._flies or self.come()
        self._now += 1.0 if self._flies else 0.0
        return self._now


def greet_until(fleet: Fleet, clock: StandingClock, host: str, seconds: float) -> None:
    """Wait for hellos for some seconds, which begin to pass when one host has said it."""
    clock.come = lambda: bool(fleet.lines[host].hello)
    fleet.greet(seconds)


def lost(answer: Answer) -> str:
    assert answer.error is not None
    assert answer.error.reason == "host_unreachable"
    return answer.error.message


# -- greeting ------------------------------------------------------------------------------------------------------


def test_an_agent_that_speaks_well(open_fleet: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = open_fleet(agent("db1"), agent("db2"))
    assert fleet.reachable("db1")
    assert not fleet.reachable("db9")
    assert fleet.lines["db1"].hello["name"] == "db1"
    assert fleet.call("db1", "hold", 10.0, deadline=1.5) == {"verb": "hold", "deadline": 1.5}
    answers = fleet.ask({"db1": ("a", {}), "db2": ("b", {"x": [1]})}, 60.0)
    assert answers["db2"].get() == {"verb": "b", "x": [1]}
    assert answers["db1"].took == 0.001
    assert answers["db1"].ended >= answers["db1"].started
    with monkeypatch.context() as patient:
        patient.setattr(fleet, "abandon", lambda: None)  # which would end it, were it slow to go
        fleet.goodbye()
    assert fleet.lines["db1"]._process.wait(60.0) == 0


def test_noise_before_the_hello_is_passed_over(open_fleet: Open) -> None:
    script = """
print("Last login: yesterday"); print("{not json"); print("[1, 2]"); print('"text"'); print("7")
sys.stderr.write("a banner\\n"); sys.stderr.flush()
take_code(); time.sleep(0.3); hello(); serve()
"""
    assert open_fleet(agent("db1", script)).call("db1", "ping", 60.0) == {"verb": "ping"}


def test_a_late_hello_is_waited_for_and_a_later_one_is_not(open_fleet: Open) -> None:
    clock = StandingClock()
    late = agent("db1", "take_code(); time.sleep(0.5); hello(); serve()")
    fleet = open_fleet(late, agent("db2", "time.sleep(600)"), greet=0, clock=clock)
    greet_until(fleet, clock, "db1", 3.0)
    assert fleet.reachable("db1")
    assert not fleet.reachable("db2")
    assert fleet.lines["db2"].error == "no answer within 3 seconds"
    assert "No agent on db2: no answer within 3 seconds" in lost(fleet.ask({"db2": ("x", {})}, 5.0)["db2"])


def test_a_host_that_reads_nothing_blocks_nobody(open_fleet: Open) -> None:
    """As ssh does that gets no connection: the code doesn't fit into the pipe, and nobody takes it out."""
    clock = StandingClock()
    fleet = open_fleet(agent("db1", "time.sleep(600)"), agent("db2"), greet=0, clock=clock)
    greet_until(fleet, clock, "db2", 2.0)
    assert fleet.reachable("db2")
    assert not fleet.reachable("db1")


def test_a_program_that_ends_at_once_tells_why(open_fleet: Open) -> None:
    fleet = open_fleet(agent("db1", "sys.exit('ssh: connect to host db1 port 22: No route to host')"))
    assert "the line closed: ssh: connect to host db1 port 22: No route to host" in fleet.lines["db1"].error


def test_an_agent_that_can_t_work_says_why(open_fleet: Open) -> None:
    error = {"message": "There is no member.json", "next_step": "Run site.yml"}
    fleet = open_fleet(agent("db1", f"take_code(); out({{'hello': False, 'error': {error!r}}})"))
    assert fleet.lines["db1"].error == "There is no member.json. Next: Run site.yml."
    assert not fleet.reachable("db1")


def test_a_program_that_isn_t_there(open_fleet: Open) -> None:
    with pytest.raises(ConnectionFailed, match="no-such-ssh, which leads to db1, can't be run here") as caught:
        open_fleet(agent("db2"), LineSpec("db1", ("no-such-ssh", "db1")))
    assert caught.value.reason == "no_line"


PROMPT = "[sudo via ansible, key=abc] password:"


def test_sudo_gets_its_password_and_nothing_before(open_fleet: Open) -> None:
    script = f"""
sys.stderr.write("We trust you have received the usual lecture.\\n{PROMPT}"); sys.stderr.flush()
time.sleep(0.3)
assert sys.stdin.buffer.readline() == b"geheim\\n"
print("BECOME-SUCCESS-abc"); sys.stdout.flush()
take_code(); hello(); serve()
"""
    fleet = open_fleet(agent("db1", script, prompt=PROMPT, password="geheim"))
    assert fleet.reachable("db1"), fleet.lines["db1"].error
    assert "geheim" not in repr(LineSpec("db1", ("ssh",), PROMPT, "geheim"))


def test_sudo_that_asks_on_standard_output(open_fleet: Open) -> None:
    script = f"""
sys.stdout.write("{PROMPT}"); sys.stdout.flush()
assert sys.stdin.buffer.readline() == b"geheim\\n"
take_code(); hello(); serve()
"""
    assert open_fleet(agent("db1", script, prompt=PROMPT, password="geheim")).reachable("db1")


def test_sudo_that_asks_nothing_although_a_password_is_there(open_fleet: Open) -> None:
    script = "time.sleep(0.2); print('BECOME-SUCCESS-abc'); sys.stdout.flush(); take_code(); hello(); serve()"
    fleet = open_fleet(agent("db1", script, prompt=PROMPT, password="geheim"))
    assert fleet.reachable("db1"), fleet.lines["db1"].error


def test_a_wrong_password_is_told(open_fleet: Open) -> None:
    script = f"""
sys.stderr.write("{PROMPT}"); sys.stderr.flush()
sys.stdin.buffer.readline()
sys.exit("Sorry, try again.\\nsudo: 1 incorrect password attempt")
"""
    fleet = open_fleet(agent("db1", script, prompt=PROMPT, password="falsch"))
    assert "1 incorrect password attempt" in fleet.lines["db1"].error


# -- working -------------------------------------------------------------------------------------------------------


def test_an_error_is_an_answer(open_fleet: Open) -> None:
    script = """
take_code(); hello()
for request in requests():
    out({"n": request["n"], "ok": False, "error": {"message": "busy", "reason": "pools_busy", "details": {"a": 1}}})
"""
    fleet = open_fleet(agent("db1", script))
    answer = fleet.ask({"db1": ("hold", {})}, 60.0)["db1"]
    assert answer.error is not None
    assert (answer.error.reason, answer.error.details) == ("pools_busy", {"a": 1})
    with pytest.raises(HmsError, match="busy"):
        fleet.call("db1", "hold", 60.0)


def test_answers_in_another_order_find_their_requests(open_fleet: Open) -> None:
    script = """
take_code(); hello()
asked = [request for _n, request in zip(range(2), requests())]
for request in reversed(asked):
    answer(request, verb=request["verb"])
serve()
"""
    fleet = open_fleet(agent("db1", script))
    first, second = fleet.post("db1", "first"), fleet.post("db1", "second")
    assert fleet.collect([first], 60.0)["db1"].get() == {"verb": "first"}
    assert fleet.collect([second], 60.0)["db1"].get() == {"verb": "second"}, "it is still there"


def test_a_line_that_dies_in_the_middle_is_an_answer_too(open_fleet: Open) -> None:
    script = "take_code(); hello(); next(requests()); sys.exit('Connection to db1 closed by remote host.')"
    fleet = open_fleet(agent("db1", script), agent("db2"))
    answers = fleet.ask({"db1": ("stop_primary", {}), "db2": ("hold", {})}, 60.0)
    assert "closed by remote host" in lost(answers["db1"])
    assert answers["db2"].get() == {"verb": "hold"}
    assert not fleet.reachable("db1")
    assert "No agent on db1" in lost(fleet.ask({"db1": ("ping", {})}, 5.0)["db1"])


SILENT = "take_code(); hello(); time.sleep(600)"


def test_one_that_doesn_t_answer_in_time_is_given_up(open_fleet: Open) -> None:
    clock = StandingClock()
    fleet = open_fleet(agent("db1", SILENT), agent("db2"), clock=clock)
    clock.come = lambda: bool(fleet.lines["db2"]._pending)
    answers = fleet.ask({"db1": ("promote", {}), "db2": ("hold", {})}, 0.5)
    assert isinstance(answers["db1"].error, DeadlinePassed)
    assert "db1 did not answer to 'promote' in time" in lost(answers["db1"])
    assert answers["db2"].error is None
    assert not fleet.reachable("db1")


def test_silence_ends_the_wait_before_the_deadline_does(open_fleet: Open) -> None:
    """The deadline is past the one of the test."""
    fleet = open_fleet(agent("db1", SILENT))
    assert "did not answer" in lost(fleet.ask({"db1": ("promote", {})}, 3600.0, silence=0.5)["db1"])


class CountingClock(SystemClock):
    """Nine tenths of a second pass with each word that comes in."""

    words = 0

    def monotonic(self) -> float:
        return 0.9 * self.words


def test_signs_of_life_keep_the_wait_up(open_fleet: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is a second after the one before, all of them are much longer on their way than that."""
    clock, pump = CountingClock(), Line.pump

    def heard(line: Line) -> None:
        clock.words += 1
        pump(line)

    monkeypatch.setattr(Line, "pump", heard)
    script = """
take_code(); hello()
request = next(requests())
for _second in range(5):
    time.sleep(0.3); out({"n": 0, "ok": True, "result": {}})
answer(request, done=True)
serve()
"""
    fleet = open_fleet(agent("db1", script), clock=clock)
    assert fleet.collect([fleet.post("db1", "promote")], 60.0, silence=1.0)["db1"].get() == {"done": True}


def test_nobody_is_left_without_a_word_while_one_is_waited_for(open_fleet: Open, tmp_path: pathlib.Path) -> None:
    """Agents that hold something take silence for the coordinator's death. The one answers when the other heard two."""
    heard = str(tmp_path / "heard")
    slow = f"""
take_code(); hello()
request = next(requests())
while not os.path.exists({heard!r}): time.sleep(0.05)
answer(request); serve()
"""
    counting = f"""
take_code(); hello()
pings = 0
for request in requests(pings=True):
    pings += request["verb"] == "ping"
    if pings == 2: open({heard!r}, "w").close()
    if request["verb"] != "ping": answer(request, pings=pings)
"""
    fleet = open_fleet(agent("db1", slow), agent("db2", counting))
    fleet.call("db1", "checkpoint", 60.0)
    assert fleet.call("db2", "count", 60.0)["pings"] >= 2


def test_a_word_too_early_is_not_said(open_fleet: Open) -> None:
    """Before its hello, what is said would be taken for a password or for code."""
    fleet = open_fleet(agent("db1", "time.sleep(600)", prompt=PROMPT, password="geheim"), greet=0)
    fleet._last_ping = 0.0
    fleet.keep_alive()
    assert fleet.lines["db1"].unsent() is None


def test_an_agent_is_started_again(open_fleet: Open) -> None:
    script = "take_code(); hello(); answer(next(requests()), born=os.getpid()); sys.exit(1)"
    fleet = open_fleet(agent("db1", script), agent("db2"))
    first = fleet.call("db1", "a", 60.0)["born"]
    assert "the line closed" in lost(fleet.ask({"db1": ("b", {})}, 60.0)["db1"])
    fleet.reopen(["db1", "db2"], 60.0)
    assert fleet.reachable("db1")
    assert fleet.call("db1", "a", 60.0)["born"] != first
    assert fleet.call("db2", "a", 60.0) == {"verb": "a"}


def test_an_agent_that_closes_its_complaints_costs_no_time(open_fleet: Open) -> None:
    """An end of file is readable for ever; it must not be looked at for ever."""
    script = """
os.close(2); take_code(); hello()
request = next(requests()); time.sleep(1.0); answer(request); serve()
"""
    fleet = open_fleet(agent("db1", script))
    begun = time.process_time()
    fleet.call("db1", "wait", 60.0)
    assert time.process_time() - begun < 0.5


def test_what_is_long_goes_through_in_pieces(open_fleet: Open) -> None:
    script = """
take_code(); hello()
for request in requests():
    time.sleep(0.05)
    answer(request, size=len(request["args"]["record"]), back="y" * 500000)
"""
    fleet = open_fleet(agent("db1", script))
    result = fleet.call("db1", "store_record", 60.0, record="x" * 1_000_000)
    assert result["size"] == 1_000_000
    assert len(result["back"]) == 500_000


def test_the_command_survives_a_shell() -> None:
    import shlex

    words = shlex.split(agent_command("/opt/my python/bin/python3", "/etc/it's here"))
    assert (words[0], words[1], *words[3:]) == ("/opt/my python/bin/python3", "-c", "--config", "/etc/it's here")
    compile(words[2], "bootstrap", "exec")
