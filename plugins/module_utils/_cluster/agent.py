# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent: armed on each host before the first client waits, it does what it is told in microseconds. PRIVATE.

One JSON object a line comes in on standard input, one answer a line goes out on standard output; nothing
listens. When the channel drops, or falls silent while a hand is on something, the agent takes no further
order and does alone what its last order implies (the *dead-man*, see `agent_database` and `agent_pooler`).

Request  ``{"n": 7, "verb": "promote", "args": {...}}``
Answer   ``{"n": 7, "ok": true, "result": {...}, "took": 0.08}`` or ``{"n": 7, "ok": false, "error": {...}}``
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
import traceback
import typing as t

from .._clock import Clock, SystemClock, iso
from .._errors import DeadlinePassed, HmsError
from .._files import HeldLock, write_atomic
from .._record import Journal, is_id
from . import member_config
from .agent_services import ServiceHandler, verbs_for
from .facts import RECORDS

SILENCE_LIMIT = 5.0
"""Seconds without a word, while the agent holds something, after which the channel counts as dropped.
The coordinator speaks at least twice a second."""

SIGN_INTERVAL = 1.0
"""Seconds between the signs of life that an agent gives while it waits for something."""

POLL = 0.003
LOCK_FILE = "operation.lock"


class ChannelLost(Exception):
    """The coordinator is gone, or as good as gone."""


class Channel:
    """The agent's end of the line."""

    def __init__(self, source: int, target: int, clock: Clock) -> None:
        self._source = source
        self._target = target
        self.clock = clock
        self._buffer = b""
        self._heard = clock.monotonic()
        self._closed = False
        os.set_blocking(source, False)

    def silent_for(self) -> float:
        """Seconds since something arrived."""
        return self.clock.monotonic() - self._heard

    def pump(self, timeout: float) -> None:
        """Take in what has arrived, waiting at most `timeout` seconds for it."""
        if self._closed:
            return
        readable, _w, _x = select.select([self._source], [], [], timeout)
        if not readable:
            return
        data = os.read(self._source, 1 << 16)
        if not data:
            self._closed = True
        else:
            self._heard = self.clock.monotonic()
            self._buffer += data

    def check(self, *, holding: bool) -> None:
        """Raise `ChannelLost` when nobody is at the other end. Cheap enough for every turn of a waiting loop."""
        self.pump(0)
        if self._closed or (holding and self.silent_for() > SILENCE_LIMIT):
            raise ChannelLost

    def next_message(self, *, holding: bool) -> dict[str, t.Any]:
        """The next request; raises `ChannelLost` instead when the channel drops."""
        self.pump(0)  # what came in while a verb worked was said in time
        while b"\n" not in self._buffer:
            if self._closed or (holding and self.silent_for() > SILENCE_LIMIT):
                raise ChannelLost
            self.pump(0.25)
        line, _newline, self._buffer = self._buffer.partition(b"\n")
        try:
            message = json.loads(line)
        except ValueError as error:
            raise ChannelLost from error
        if not isinstance(message, dict):
            raise ChannelLost
        return message

    def send(self, message: t.Mapping[str, t.Any]) -> None:
        """Answer. A coordinator that no longer reads is a lost channel."""
        data = (json.dumps(message, default=str) + "\n").encode()
        try:
            while data:
                data = data[os.write(self._target, data) :]
        except (BrokenPipeError, OSError) as error:
            raise ChannelLost from error


class Context:
    """What a handler may use: clock, journal, and a way to wait that notices a lost channel."""

    def __init__(self, channel: Channel, clock: Clock, state_directory: str) -> None:
        self.channel = channel
        self.clock = clock
        self.state_directory = state_directory
        self.holding = False
        """Whether something is in the agent's hands, so that silence counts as a lost channel."""
        self.units_down = False
        """Whether units were stopped that must be started again. Letting go of anything else doesn't change it."""
        self.alone = False
        """Whether the coordinator is gone, so that nothing waits for it any more."""
        self._last_sign = clock.monotonic()
        self.operation = ""
        self._journal: Journal | None = None
        self.lock = HeldLock(os.path.join(state_directory, LOCK_FILE))

    @property
    def in_hand(self) -> bool:
        """Whether silence counts as a lost channel."""
        return self.holding or self.units_down

    def wait_for(self, condition: t.Callable[[], bool], *, timeout: float, interval: float = POLL) -> bool:
        """Poll until `condition` holds. Raises `ChannelLost` when the coordinator goes meanwhile."""
        deadline = self.clock.monotonic() + timeout
        while not condition():
            if self.clock.monotonic() >= deadline:
                return False
            if not self.alone:
                self.channel.check(holding=self.in_hand)
                self._give_sign()
            self.clock.sleep(interval)
        return True

    def _give_sign(self) -> None:
        """Let the coordinator know that the agent lives although its answer takes time."""
        now = self.clock.monotonic()
        if now - self._last_sign >= SIGN_INTERVAL:
            self._last_sign = now
            self.channel.send({"n": 0, "ok": True, "result": {}})

    def demand(self, condition: t.Callable[[], bool], what: str, *, timeout: float, interval: float = POLL) -> None:
        """`wait_for`, or `DeadlinePassed`."""
        if not self.wait_for(condition, timeout=timeout, interval=interval):
            raise DeadlinePassed(f"{what} did not happen within {timeout:g} seconds.", reason="deadline_passed")

    def hurried(self) -> bool:
        """Whether somebody waits to take over from an agent that acts alone."""
        return bool((self.lock.holder() or {}).get("hurry"))

    def open_journal(self, operation: str) -> None:
        """From now on what this agent does is written down on this host as well."""
        if not is_id(operation):
            raise HmsError(f"{operation!r} is not an operation's id.", reason="bad_id")
        self.operation = operation
        with contextlib.suppress(OSError):  # a full disk must not keep anybody from leading clients away from it
            self._journal = Journal(os.path.join(self.state_directory, "agent"), operation)

    def note(self, event: str, *, lazy: bool = True, **details: t.Any) -> None:
        """Write a line into this host's journal, once there is one."""
        if self._journal is not None:
            with contextlib.suppress(OSError):
                self._journal.append({"at": iso(self.clock.now()), "event": event, **details}, lazy=lazy)


class Handler(t.Protocol):
    """What a kind of host can do."""

    def verbs(self) -> t.Mapping[str, t.Callable[..., dict[str, t.Any]]]:
        """Verb → method taking the request's args as keywords."""

    def observe(self) -> dict[str, t.Any]:
        """The facts of this host."""

    def channel_lost(self) -> None:
        """The dead-man."""

    def close(self) -> None:
        """Let go of connections."""


class Agent:
    """Serves one coordinator until it says goodbye or is lost."""

    def __init__(self, handler: Handler, context: Context, *, systemctl: str = "") -> None:
        self._handler = handler
        self._context = context
        self._services = verbs_for(context, systemctl)
        self._verbs: dict[str, t.Callable[..., dict[str, t.Any]]] = {
            "ping": self._ping,
            "lock": self._lock,
            "hurry": self._hurry,
            "store_record": self._store_record,
            **self._services.verbs(),
            **handler.verbs(),
            "observe": self._observe,
        }

    def _observe(self) -> dict[str, t.Any]:
        """The host's facts, and who works on it now."""
        return {**self._handler.observe(), "lock": self._context.lock.look()}

    def _ping(self) -> dict[str, t.Any]:
        return {}

    def _lock(self, *, operation: str, by: str) -> dict[str, t.Any]:
        """Take this host's vote for an operation; the answer names the holder when somebody else has it."""
        note = {"id": operation, "by": by, "since": iso(self._context.clock.now())}
        holder = self._context.lock.acquire(note)
        if holder is None:
            self._context.open_journal(operation)
            self._context.note("locked", by=by)
        return {"holder": holder}

    def _hurry(self) -> dict[str, t.Any]:
        """Tell the agent that acts alone on this host that somebody waits to take over."""
        self._context.lock.add_to_note(hurry=True)
        return {}

    def _store_record(self, *, operation: str, record: str) -> dict[str, t.Any]:
        """Keep a copy of the finished record on this host."""
        if not is_id(operation):
            raise HmsError(f"{operation!r} is not an operation's id.", reason="bad_id")
        directory = os.path.join(self._context.state_directory, RECORDS)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        path = os.path.join(directory, operation + ".json")
        write_atomic(path, record)
        return {"path": path}

    def _answer(self, message: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        started = self._context.clock.monotonic()
        verb, args = str(message.get("verb")), message.get("args") or {}
        reply: dict[str, t.Any] = {"n": message.get("n"), "ok": True}
        with _Attempt(f"verb {verb!r}", ChannelLost) as attempt:
            reply["result"] = self._verbs[verb](**args)
        if attempt.error is not None:
            reply.update(ok=False, error=attempt.error.as_dict())
        reply["took"] = round(self._context.clock.monotonic() - started, 6)
        return reply

    def serve(self) -> None:
        """Work until the channel ends; then let the dead-man act."""
        context = self._context
        try:
            while True:
                message = context.channel.next_message(holding=context.in_hand)
                if message.get("verb") == "goodbye":
                    context.channel.send({"n": message.get("n"), "ok": True, "result": {}, "took": 0.0})
                    return
                context.channel.send(self._answer(message))
        except ChannelLost:
            self._act_alone()
        finally:
            context.lock.release()
            self._handler.close()

    def _act_alone(self) -> None:
        """The dead-man. Nothing that breaks in it may end it silently."""
        context = self._context
        context.alone = True
        context.note("channel_lost", lazy=False, holding=context.in_hand)
        if context.lock.held:
            context.lock.leave_note({**(context.lock.holder() or {}), "winding_up": True})
        for act in (self._handler.channel_lost, self._services.alone):
            with _Attempt("dead-man") as attempt:
                act()
            if attempt.error is not None:
                context.note("deadman_failed", lazy=False, error=attempt.error.as_dict())


class _Attempt:
    """What goes wrong within `with` is kept as `error`, of whatever type a defect is; only what `passes` is raised.

    It must reach the operator as an answer, or the journal with its traceback, and end neither the line nor the other
    act of the dead-man while clients are held.
    """

    def __init__(self, what: str, *passes: type[Exception]) -> None:
        self.error: HmsError | None = None
        self._what = what
        self._passes = passes

    def __enter__(self) -> _Attempt:
        return self

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> bool:
        if not isinstance(error, Exception) or isinstance(error, self._passes):
            return False
        self.error = error if isinstance(error, HmsError) else self._defect(error)
        return True

    def _defect(self, error: Exception) -> HmsError:
        text = f"The agent's {self._what} broke: {type(error).__name__}: {error}"
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        return HmsError(text, reason="agent_defect", details={"traceback": trace[-4000:]})


def make_handler(config: member_config.DatabaseHost | member_config.BouncerHost, context: Context) -> Handler:
    """The handler for this kind of host."""
    if isinstance(config, member_config.DatabaseHost):
        from .agent_database import DatabaseHandler

        return DatabaseHandler(config, context)
    from .agent_pooler import PoolerHandler

    return PoolerHandler(config, context)


def detach() -> None:
    """Leave the session and process group of whoever started us, so that their end is not ours.

    The parent stays and waits, because the connection lives as long as the program it started.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    child = os.fork()
    if child:
        for handle in (0, 1):
            with contextlib.suppress(OSError):
                os.close(handle)
        _pid, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    os.setsid()


def _prepare(channel: Channel, config_directory: str, services: str) -> tuple[Handler, Context, dict[str, t.Any]]:
    """The handler for this host, with what its hello says. `services` is the state directory of one without a role."""
    if services:
        context = Context(channel, channel.clock, services)
        nobody = {"members": [], "name": "", "cluster": "", "environment": ""}
        return ServiceHandler(), context, {"kind": "services", **nobody}
    config = member_config.load(config_directory)
    context = Context(channel, channel.clock, config.state_directory)
    hello = {
        "kind": "database" if isinstance(config, member_config.DatabaseHost) else "bouncer",
        "members": [{"name": peer.name, "address": peer.address, "port": peer.port} for peer in config.members],
        "name": config.name,
        "cluster": config.cluster,
        "environment": config.environment,
    }
    return make_handler(config, context), context, hello


def main(config_directory: str, *, services: str = "", systemctl: str = "") -> int:
    """Run as the agent of the host described in `config_directory`. The first line out says hello or why not."""
    source, target = os.dup(0), os.dup(1)
    detach()
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(2, 1)  # nothing but answers may go out on the line
    channel = Channel(source, target, SystemClock())
    try:
        handler, context, hello = _prepare(channel, config_directory, services)
    except HmsError as error:
        channel.send({"hello": False, "error": error.as_dict()})
        return 1
    own = {"pid": os.getpid(), "python": sys.version.split()[0], "time": time.time()}
    channel.send({"hello": True, **hello, **own})
    Agent(handler, context, systemctl=systemctl).serve()
    return 0
