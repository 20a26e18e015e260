# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Making sure an instance cannot take writes again, and proving it. PRIVATE.

The order matters: first nothing can start it as a primary any more (Debian's ``start.conf`` says disabled,
``standby.signal`` lies in its data directory), then it is stopped, then its absence is shown.
"""

from __future__ import annotations

import contextlib
import os
import signal
import typing as t

from .._clock import Clock, iso, wait_until
from .._command import CommandRunner
from .._errors import HmsError
from .._files import dump_json, read_bytes, read_json, remove_file, write_atomic
from .._tools.pg_controldata import PgControldata
from .._tools.service import InstanceService, frozen, postmaster_pid, processes_in, unknown_servers
from .facts import FENCE_FILE
from .member_config import DatabaseHost

AUTO, DISABLED = "auto", "disabled"
FAST_PATIENCE = 5.0
IMMEDIATE_PATIENCE = 2.0
KILL_PATIENCE = 5.0
START_ANYWAY = "start-anyway"
"""In the state directory: lets the start guard's next wait end with a start, never against a member that leads."""


def standby_signal_path(host: DatabaseHost) -> str:
    """The file that makes the next start a standby, whatever else happens."""
    return os.path.join(host.instance.data_directory, "standby.signal")


def write_standby_signal(host: DatabaseHost) -> None:
    """From here on this data directory cannot come up writable."""
    write_atomic(standby_signal_path(host), b"", mode=0o600, owner=host.instance.os_user)


def remove_standby_signal(host: DatabaseHost) -> None:
    """Take that back."""
    remove_file(standby_signal_path(host))


def _start_conf(host: DatabaseHost) -> str:
    return os.path.join(host.instance.config_directory, "start.conf")


def start_conf(host: DatabaseHost) -> str:
    """What Debian's start.conf says: auto, manual or disabled; auto where it says nothing."""
    content = read_bytes(_start_conf(host)) or b""
    words = [line.split("#", 1)[0].strip() for line in content.decode("utf-8", "replace").splitlines()]
    return next((word for word in words if word), AUTO)


def mark(host: DatabaseHost, *, operation: str, new_primary: str, reason: str, clock: Clock) -> dict[str, t.Any]:
    """Leave the marks that keep the instance from coming back writable after a reboot."""
    before = read_json(os.path.join(host.state_directory, FENCE_FILE)) or {}
    word = start_conf(host)
    note = {
        "operation": operation,
        "at": iso(clock.now()),
        "reason": reason,
        "new_primary": new_primary,
        "start_conf": before.get("start_conf", AUTO) if word == DISABLED else word,
    }
    os.makedirs(host.state_directory, mode=0o755, exist_ok=True)
    write_atomic(os.path.join(host.state_directory, FENCE_FILE), dump_json(note))
    if os.path.isdir(host.instance.config_directory):
        write_atomic(_start_conf(host), DISABLED + "\n", mode=0o644, owner=host.instance.os_user)
    write_standby_signal(host)
    return note


def unmark(host: DatabaseHost, *, keep_standby_signal: bool) -> None:
    """Remove the marks: the instance may be started again."""
    fence = os.path.join(host.state_directory, FENCE_FILE)
    if start_conf(host) == DISABLED:
        word = (read_json(fence) or {}).get("start_conf", AUTO)
        write_atomic(_start_conf(host), word + "\n", mode=0o644, owner=host.instance.os_user)
    remove_file(fence)
    if not keep_standby_signal:
        remove_standby_signal(host)


@contextlib.contextmanager
def known_to_lead(host: DatabaseHost) -> t.Iterator[None]:
    """The start guard lets the instance start meanwhile: who calls this knows that nobody else was promoted."""
    path = os.path.join(host.state_directory, START_ANYWAY)
    os.makedirs(host.state_directory, mode=0o755, exist_ok=True)
    write_atomic(path, b"", mode=0o644)
    try:
        yield
    finally:
        remove_file(path)


def stop_hard(host: DatabaseHost, service: InstanceService, clock: Clock) -> dict[str, t.Any]:
    """Fast, then immediate, then SIGKILL; returns which it took and how long. A frozen one hears only the last."""
    started = clock.monotonic()
    data = host.instance.data_directory
    took = "nothing: no process was left"
    for number, name, patience in (
        (signal.SIGINT, "fast shutdown", FAST_PATIENCE),
        (signal.SIGQUIT, "immediate shutdown", IMMEDIATE_PATIENCE),
    ):
        pid = service.signal_postmaster(number)
        if pid is None or frozen(pid):
            break
        took = name
        if wait_until(lambda: postmaster_pid(data) is None, clock=clock, timeout=patience, interval=0.01):
            break
    if processes_in(data):
        killed = service.kill_all(clock=clock, timeout=KILL_PATIENCE)
        took = f"SIGKILL of {len(killed)} processes"
    return {"stopped_by": took, "seconds": round(clock.monotonic() - started, 4)}


def proofs(host: DatabaseHost, runner: CommandRunner, clock: Clock) -> list[dict[str, t.Any]]:
    """What shows that the instance is down and stays so."""
    data = host.instance.data_directory
    left = [*processes_in(data), *unknown_servers()]
    at = iso(clock.now())
    signalled = os.path.exists(standby_signal_path(host))
    evidence = "standby.signal stands in its data directory and start.conf says disabled"
    if not os.path.exists(os.path.join(data, "global", "pg_control")):
        signalled, evidence = True, f"there is no data directory at {data} to start from"
    elif not signalled:
        evidence = f"standby.signal could not be written to {data}"
    return [
        {
            "claim": f"no process works in the data directory of {host.name}",
            "evidence": f"/proc was searched for {data}: {left or 'none found'}",
            "at": at,
            "holds": not left,
        },
        {
            "claim": f"{host.name} cannot start as a primary",
            "evidence": evidence,
            "at": at,
            "holds": signalled,
        },
        {**_control_after(host, runner), "at": at, "holds": True},
    ]


def _control_after(host: DatabaseHost, runner: CommandRunner) -> dict[str, str]:
    """What the control file says now. That it can't be read, on a broken disk, takes nothing from the other proofs."""
    claim = f"the control file of {host.name} after it went down"
    try:
        control = PgControldata(runner, bin_directory=host.instance.bin_directory).read(host.instance.data_directory)
    except HmsError as error:
        return {"claim": claim, "evidence": f"it can't be read: {error.message}"}
    state = f"state {control.state!r}, timeline {control.timeline}, checkpoint at {control.checkpoint_at}"
    return {"claim": claim, "evidence": state}
