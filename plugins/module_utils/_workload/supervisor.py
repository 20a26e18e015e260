# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Starts writers as processes of their own, watches over them, ends them. PRIVATE to the collection."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import time
import traceback
import typing as t

from .._clock import Clock, SystemClock, wait_until
from .._errors import DeadlinePassed, HmsError, Refused
from .._files import dump_json, read_json, write_atomic
from . import ledger, process
from .client import MAX_WRITERS, PsycopgClient
from .ledger import Settings
from .writer import Interrupted, Writer

STOP_PATIENCE = 5.0
"""Seconds that a writer which was told to end may go on waiting for the answer to its last transaction."""


def running(directory: str) -> dict[str, t.Any] | None:
    """Pid and start time of the run in this folder, or None when nothing runs."""
    note = read_json(os.path.join(directory, ledger.PIDFILE))
    if isinstance(note, dict) and process.alive(int(note["pid"]), int(note["started"])):
        return note
    return None


def start(
    directory: str, settings: Settings, *, replace: bool = False, ready_timeout: float = 15.0
) -> dict[str, t.Any]:
    """Start writers in the background; returns when each of them had a transaction acknowledged."""
    if not 1 <= settings.writers <= MAX_WRITERS:
        raise Refused(
            f"{settings.writers} writers were asked for; 1 to {MAX_WRITERS} can be had.", reason="bad_writers"
        )
    os.makedirs(directory, mode=0o700, exist_ok=True)
    if replace:
        stop(directory)
        ledger.clear(directory)
    if running(directory) or ledger.sources(directory):
        raise Refused(
            f"The folder {directory} holds the ledgers of another run.",
            reason="run_exists",
            state="That run was left alone.",
            next_step="Stop and judge it first, name another folder, or add --replace.",
        )
    ledger.write_settings(directory, settings)
    pid = _detach(directory, settings)
    _wait_for_acks(directory, settings, pid, ready_timeout)
    return {"pid": pid, "writers": settings.writers, "directory": directory}


def stop(directory: str, *, patience: float = STOP_PATIENCE) -> bool:
    """End the run in this folder; returns whether there was one."""
    note = running(directory)
    if note is None:
        return False
    return process.end(int(note["pid"]), int(note["started"]), patience=patience + 5.0)


def _wait_for_acks(directory: str, settings: Settings, pid: int, timeout: float) -> None:
    waiting = set(range(1, settings.writers + 1))

    def all_acked() -> bool:
        for source in sorted(waiting):
            with contextlib.suppress(FileNotFoundError):
                if any(entry.outcome == ledger.ACKED for entry in ledger.read_ledger(directory, source)):
                    waiting.discard(source)
        return not waiting

    if wait_until(all_acked, clock=SystemClock(), timeout=timeout, interval=0.05):
        return
    problem = _last_problem(directory)
    stop(directory)
    raise DeadlinePassed(
        f"{len(waiting)} of {settings.writers} writers had nothing acknowledged within {timeout:g} seconds: {problem}",
        reason="writers_not_ready",
        state="The writers were ended.",
        next_step=f"Look at {os.path.join(directory, ledger.LOG)} and at the ledgers beside it.",
        details={"pid": pid},
    )


def _last_problem(directory: str) -> str:
    problem = "no error was noted"
    for source in ledger.sources(directory):
        for entry in ledger.read_ledger(directory, source):
            problem = entry.error or problem
    return problem


def _detach(directory: str, settings: Settings) -> int:
    """Fork the supervisor into a session of its own, with nothing of ours kept open."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        _redirect(os.path.join(directory, ledger.LOG))
        code = supervise(directory, settings)
    finally:
        _leave(code)


def _leave(code: int) -> t.NoReturn:
    """End a forked process, whatever happened in it; it must never return into its parent's code."""
    if sys.exc_info()[0] is not None:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)


def _redirect(path: str) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.closerange(3, 256)


def supervise(directory: str, settings: Settings) -> int:
    """Fork the writers and wait for them; SIGTERM is passed on. Returns the exit code."""
    own = process.look(os.getpid())
    note = {"pid": os.getpid(), "started": own.started if own else 0}
    write_atomic(os.path.join(directory, ledger.PIDFILE), dump_json(note))
    children: set[int] = set()

    def pass_on(_number: int, _frame: t.Any) -> None:
        for pid in children:
            process.send(pid, signal.SIGTERM)

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    for source in range(1, settings.writers + 1):
        pid = os.fork()
        if not pid:
            _child(directory, settings, source, before)
        children.add(pid)
    signal.signal(signal.SIGTERM, pass_on)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    bad = 0
    while children:
        pid, status = os.wait()
        children.discard(pid)
        if status:
            bad += 1
            sys.stderr.write(f"writer process {pid} ended with status {status}\n")
    ledger.add_mark(directory, ledger.Mark(at=time.time(), name="ended"))
    return 1 if bad else 0


def _child(directory: str, settings: Settings, source: int, mask: set[int | signal.Signals]) -> t.NoReturn:
    code = 1
    try:
        write(directory, settings, source, SystemClock(), mask)
        code = 0
    finally:
        _leave(code)


def write(directory: str, settings: Settings, source: int, clock: Clock, mask: set[int | signal.Signals]) -> None:
    """Be one writer until told to end, the time is over, or the supervisor is gone."""
    endpoint = settings.endpoints[(source - 1) % len(settings.endpoints)]
    endpoint = dataclasses.replace(endpoint, application_name=f"hms-writer-{source}")
    sink = ledger.Ledger(directory, source)
    interval = 1.0 / settings.rate if settings.rate > 0 else 0.0
    writer = Writer(
        source=source,
        first_seq=settings.first_seq,
        connect=lambda: PsycopgClient(endpoint, settings),
        sink=sink,
        clock=clock,
        interval=interval,
    )
    told: list[int] = []

    def end_soon(_number: int, _frame: t.Any) -> None:
        told.append(1)
        signal.setitimer(signal.ITIMER_REAL, STOP_PATIENCE)

    def end_now(_number: int, _frame: t.Any) -> None:
        if writer.waiting:
            raise Interrupted

    signal.signal(signal.SIGTERM, end_soon)
    signal.signal(signal.SIGALRM, end_now)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    parent = os.getppid()
    deadline = clock.monotonic() + settings.max_seconds
    clock.sleep(interval * (source - 1) / settings.writers)
    try:
        writer.run(lambda: not told and os.getppid() == parent and clock.monotonic() < deadline)
    finally:
        sink.close()


def discover(settings: Settings) -> Settings:
    """Fill in what the database holds: people to book for, and the first free number of the ledger."""
    from .._postgres import connect

    session = connect(settings.endpoints[0])
    try:
        row = session.row(
            "SELECT (SELECT count(*) FROM public.patients_patient), (SELECT count(*) FROM public.doctors_doctor),"
            " (SELECT count(*) FROM public.users_user), (SELECT coalesce(max(seq), 0) + 1 FROM public.ledger_entry)"
        )
    finally:
        session.close()
    if row is None or not all(row):
        raise HmsError(
            "The hospital's tables are empty; there is nobody to book an appointment for.",
            reason="no_data",
            next_step="Load the demo hospital first.",
        )
    patients, doctors, users, first = (int(value) for value in row)
    return dataclasses.replace(
        settings, started=time.time(), patients=patients, doctors=doctors, users=users, first_seq=first
    )
