# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Programs joined by kernel pipes, watched from beginning to end. PRIVATE to the collection.

Every program's exit code is judged, its stderr is kept within bounds, all of them end at a deadline, and they die
with us, even when we are killed: `setpriv` asks the kernel for a SIGKILL at the end of the thread that started them.
A pipeline is therefore run by one thread, from `read` or `feed` to its return.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import subprocess
import threading
import time
import typing as t

from ._command import clean_environment, find_program, identity
from ._errors import DeadlinePassed, ToolMissing
from ._stages import SECRET_FD, Sink, Source, Stage, StageResult, Tap, culprit, judge

__all__ = ["CHUNK", "SECRET_FD", "Pipeline", "Sink", "Source", "Stage", "StageResult", "Tap", "culprit", "judge"]

CHUNK = 1024 * 1024
"""Bytes that are read at a time, and what a pipe holds."""
STDERR_LIMIT = 16 * 1024
GRACE = 5.0
"""Seconds that the others have to end by themselves after one has failed."""

_SET_PIPE_SIZE = 1031  # fcntl.F_SETPIPE_SZ, which Python has since 3.10
_TICK = 0.25
# gpg writes 8 KiB at a time: after a short read we let the pipe fill, instead of waking up for each of them.
_NAP = 0.002
_PATIENCE = ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0))


class Pipeline:
    """Stages from left to right; runs once.

    Args:
        stages: at least one `Stage`; a `Tap` stands left of a stage.
        deadline: the moment by the monotonic clock at which everything is ended.
        what: what it is for, the beginning of every message.
        state: what state the system is in when it fails.
        stderr_limit: bytes kept of each stage's complaints.
    """

    def __init__(
        self,
        stages: t.Sequence[Stage | Tap],
        *,
        deadline: float,
        what: str = "The pipeline",
        state: str = "",
        stderr_limit: int = STDERR_LIMIT,
    ) -> None:
        self._stages = tuple(stages)
        self._deadline = deadline
        self._what = what
        self._state = state
        self._stderr_limit = stderr_limit

    def read(self, sink: Sink, *, chunk: int = CHUNK) -> list[StageResult]:
        """Hand what the last stage writes to `sink`, at most `chunk` bytes at a time."""
        return self._run(None, sink, chunk=chunk, to_the_end=False)

    def feed(
        self, source: Source, sink: Sink | None = None, *, chunk: int = CHUNK, to_the_end: bool = False
    ) -> list[StageResult]:
        """Write what `source` gives (b"" ends it) to the first stage; the last one's output goes to `sink` or nowhere.

        With `to_the_end` the source is read, and every tap sees, to the end also when the stages read no longer.
        """
        return self._run(source, sink, chunk=chunk, to_the_end=to_the_end)

    def run(self) -> list[StageResult]:
        """Give the first stage nothing but its own stdin, and don't read what the last one writes."""
        return self._run(None, None, chunk=CHUNK, to_the_end=False)

    def _run(self, source: Source | None, sink: Sink | None, *, chunk: int, to_the_end: bool) -> list[StageResult]:
        running = _Running(self._deadline, chunk=chunk, to_the_end=to_the_end, stderr_limit=self._stderr_limit)
        try:
            running.start(self._stages, source=source, output=sink is not None)
            running.supervise(sink)
        except _Late:
            running.end_all()
            raise self._too_late(running.results()) from None
        finally:
            running.end_all()
            running.close()
        running.raise_what_pumps_met()
        results = running.results()
        judge(results, what=self._what, state=self._state)
        return results

    def _too_late(self, results: t.Sequence[StageResult]) -> DeadlinePassed:
        guilty = culprit(results)
        name = guilty.name if guilty else results[-1].name
        return DeadlinePassed(
            f"{self._what} did not end in the time it has; it was ended while {name} ran.",
            reason="deadline_passed",
            phase=name,
            state=self._state,
            details={"stages": [result.as_dict() for result in results]},
        )


class _Late(Exception):
    """The deadline has passed."""


class _Process:
    """A running stage and the end of its stderr."""

    def __init__(self, stage: Stage, process: subprocess.Popen[bytes], errors: int, limit: int) -> None:
        self.stage = stage
        self.process = process
        self.errors = errors
        self.ended_by_us = False
        self._limit = limit
        self._tail = b""
        self._cut = False

    def complain(self, data: bytes) -> None:
        """Keep the end of its stderr."""
        self._cut = self._cut or len(self._tail) + len(data) > self._limit
        self._tail = (self._tail + data)[-self._limit :]

    def result(self) -> StageResult:
        """How it ended."""
        tail = self._tail.partition(b"\n")[2] if self._cut else self._tail
        text = (tail or self._tail).decode("utf-8", "replace")
        cleaned = self.stage.clean(text) if self.stage.clean else text
        return StageResult(self.stage.name, self.process.returncode, cleaned, self.ended_by_us)

    def signal(self, number: int) -> None:
        """Send a signal to its process group, while it lives."""
        if self.process.poll() is None:
            self.ended_by_us = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)


class _Pump(threading.Thread):
    """Moves bytes from a source into a pipe. It owns the descriptors it was given."""

    def __init__(self, name: str, take: Source, into: int, *, owns: int | None, see: Sink | None, to_the_end: bool):
        super().__init__(name=f"pump {name}", daemon=True)
        self.error: BaseException | None = None
        self._take = take
        self._into: int | None = into
        self._owns = owns
        self._see = see
        self._to_the_end = to_the_end

    def run(self) -> None:
        try:
            while self._into is not None or self._to_the_end:
                data = self._take(CHUNK)
                if not data:
                    break
                if self._see is not None:
                    self._see(data)
                self._give(data)
        # An exception ends the thread that it happens in and nothing else: the one that waits for this raises it again.
        except BaseException as error:  # noqa: BLE001  it is handed over, not swallowed
            self.error = error
        finally:
            self.close()

    def close(self) -> None:
        """Let the reader see the end."""
        for handle in (self._into, self._owns):
            if handle is not None:
                os.close(handle)
        self._into = self._owns = None

    def _give(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view and self._into is not None:
                view = view[os.write(self._into, view) :]
        except BrokenPipeError:  # why it stopped reading, its exit code tells
            os.close(t.cast(int, self._into))
            self._into = None


def _wide_pipe() -> tuple[int, int]:
    """A pipe that holds a chunk, where this user may have one."""
    reader, writer = os.pipe()
    with contextlib.suppress(OSError):
        fcntl.fcntl(writer, _SET_PIPE_SIZE, CHUNK)
    return reader, writer


def _keep_nice(pid: int) -> None:
    """Make a new session as nice as we are: where the kernel groups processes by session, being nice counts inside."""
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    if nice > 0:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/autogroup", "w", encoding="ascii") as group:
            group.write(str(nice))


def _take(handle: int, size: int) -> bytes:
    """What is in a pipe, b"" at its end."""
    data = os.read(handle, size)
    if 0 < len(data) < size // 4:
        time.sleep(_NAP)
    return data


class _Running:
    """The processes, descriptors and threads of one run."""

    def __init__(self, deadline: float, *, chunk: int, to_the_end: bool, stderr_limit: int) -> None:
        self._deadline = deadline
        self._chunk = chunk
        self._to_the_end = to_the_end
        self._stderr_limit = stderr_limit
        self._processes: list[_Process] = []
        self._pumps: list[_Pump] = []
        self._output: int | None = None
        self._fds: set[int] = set()
        self._failed_at: float | None = None

    def start(self, stages: t.Sequence[Stage | Tap], *, source: Source | None, output: bool) -> None:
        """Start every stage, left to right, then the pumps."""
        setpriv = find_program("setpriv", needed_for="ending the programs that we started when we are killed")
        upstream: int | None = None
        if source is not None:
            upstream, into = self._pipe()
            self._pump("source", source, into, owns=None, see=None)
        for number, stage in enumerate(stages):
            if isinstance(stage, Tap):
                upstream = self._tap(stage, upstream)
                continue
            reader, writer = self._pipe() if output or number < len(stages) - 1 else (None, None)
            self._spawn(stage, setpriv, upstream, writer)
            self._close(upstream)
            self._close(writer)
            upstream = reader
        self._output = upstream
        for pump in self._pumps:
            pump.start()

    def _pipe(self) -> tuple[int, int]:
        reader, writer = _wide_pipe()
        self._fds |= {reader, writer}
        return reader, writer

    def _close(self, handle: int | None) -> None:
        if handle is not None and handle in self._fds:
            self._fds.discard(handle)
            os.close(handle)

    def _tap(self, tap: Tap, upstream: int | None) -> int:
        if upstream is None:
            raise ValueError("a tap needs something that flows")
        reader, into = self._pipe()
        self._fds.discard(upstream)
        self._pump(tap.name, lambda size: _take(upstream, size), into, owns=upstream, see=tap.see)
        return reader

    def _pump(self, name: str, take: Source, into: int, *, owns: int | None, see: Sink | None) -> None:
        self._fds.discard(into)
        self._pumps.append(_Pump(name, take, into, owns=owns, see=see, to_the_end=self._to_the_end))

    def _spawn(self, stage: Stage, setpriv: str, stdin: int | None, stdout: int | None) -> None:
        errors, complaints = os.pipe()
        self._fds |= {errors, complaints}
        secret = self._secret(stage)
        stdin = stage.stdin if stdin is None else stdin
        argv = [setpriv, "--pdeathsig", "KILL", "--", *stage.argv]
        if not os.access(stage.argv[0], os.X_OK):
            raise ToolMissing(
                f"The program {stage.argv[0]} is not installed on this host.",
                reason="tool_missing",
                phase=stage.name,
                next_step="Install it, or run playbooks/site.yml for this host.",
            )
        # The kernel forgets the wish to die with the parent when the user changes, so that comes first.
        process = subprocess.Popen(
            [str(secret) if word == SECRET_FD else word for word in argv],
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.DEVNULL if stdout is None else stdout,
            stderr=complaints,
            env=clean_environment(stage.env),
            cwd="/",
            start_new_session=True,
            pass_fds=() if secret is None else (secret,),
            **identity(stage.os_user),
        )
        _keep_nice(process.pid)
        self._processes.append(_Process(stage, process, errors, self._stderr_limit))
        self._close(complaints)
        self._close(secret)

    def _secret(self, stage: Stage) -> int | None:
        """The descriptor that a stage reads its secret from: a pipe, so that it is in no file and read but once."""
        if stage.secret is None:
            return None
        reader, writer = self._pipe()
        os.write(writer, stage.secret + b"\n")
        self._close(writer)
        return reader

    def supervise(self, sink: Sink | None) -> None:
        """Move the output to `sink` and collect complaints until all have ended. Raises what `sink` raises."""
        with selectors.DefaultSelector() as selector:
            for process in self._processes:
                selector.register(process.errors, selectors.EVENT_READ, process.complain)
            if self._output is not None and sink is not None:
                selector.register(self._output, selectors.EVENT_READ, sink)
            while selector.get_map():
                ready = selector.select(min(_TICK, self._left()))
                for key, _events in ready:
                    data = _take(key.fd, self._chunk)
                    if data:
                        key.data(data)
                    else:
                        selector.unregister(key.fd)
                if not ready and self._only_complaints_are_open(selector):
                    break  # a daemon that one of them started holds its stderr open
                self._lose_patience()
        for process in self._processes:
            self._wait(process)
        for pump in self._pumps:
            pump.join(self._left())
            if pump.is_alive():
                raise _Late

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise _Late
        return left

    def _only_complaints_are_open(self, selector: selectors.BaseSelector) -> bool:
        ended = all(process.process.poll() is not None for process in self._processes)
        return ended and all(key.fd != self._output for key in selector.get_map().values())

    def _wait(self, process: _Process) -> None:
        while process.process.poll() is None:
            self._lose_patience()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.process.wait(min(_TICK, self._left()))

    def _lose_patience(self) -> None:
        """End the others a while after one has failed: whoever waits for a lock doesn't notice by himself."""
        if self._failed_at is None:
            if any(process.process.poll() not in (None, 0) for process in self._processes):
                self._failed_at = time.monotonic()
        elif time.monotonic() - self._failed_at > GRACE:
            self.end_all()

    def end_all(self) -> None:
        """End what still runs: SIGTERM, by which pg_dump cancels its query, then SIGKILL."""
        for number, patience in _PATIENCE:
            until = time.monotonic() + patience
            living = [process for process in self._processes if process.process.poll() is None]
            for process in living:
                process.signal(number)
            for process in living:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.process.wait(max(0.0, until - time.monotonic()))

    def close(self) -> None:
        """Close what is ours; pumps close their own."""
        for handle in sorted(self._fds):
            os.close(handle)
        self._fds.clear()
        for pump in self._pumps:
            if pump.ident is None:
                pump.close()

    def raise_what_pumps_met(self) -> None:
        """Raise what a source or a tap raised: it explains why the stages found their input cut short."""
        for pump in self._pumps:
            if pump.error is not None:
                raise pump.error

    def results(self) -> list[StageResult]:
        """How each stage ended."""
        return [process.result() for process in self._processes]
