# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PgBouncer's processes on this host: running, and running with what is on disk. PRIVATE.

Whether a process has read its files is measured, not remembered by a handler: settings are compared with what
its console shows; files that the console doesn't show (passwords, certificates) with what was last loaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import typing as t

from .._clock import Clock, wait_until
from .._cluster import member_config
from .._cluster.member_config import BouncerHost, PoolerProcess
from .._command import CommandRunner
from .._errors import DeadlinePassed, HmsError, Refused
from .._files import dump_json, read_bytes, read_json, write_atomic
from .._module import Result
from .._tools.pgbouncer_console import PgbouncerConsole
from .._tools.pgbouncer_process import PgbouncerProcess, RunningProcess, read_ini
from . import pooler_plan
from .pooler_model import ProcessState
from .ports import find_holder

RELOAD_PATIENCE = 10.0


@dataclasses.dataclass(frozen=True)
class Request:
    """What the caller asks for."""

    config_directory: str
    service: str
    files: tuple[str, ...] = ()
    state: str = "started"
    restart: str = "never"


def digests(paths: t.Iterable[str]) -> dict[str, str]:
    """What the files hold now; a file that isn't there has an empty digest."""
    found = {}
    for path in paths:
        content = read_bytes(path)
        found[path] = "" if content is None else hashlib.sha256(content).hexdigest()
    return found


def load_bouncer(config_directory: str, *, check_mode: bool) -> BouncerHost | None:
    """This host's member.json; None in check mode on a host that isn't set up yet."""
    try:
        host = member_config.load(config_directory)
    except HmsError as error:
        if check_mode and error.reason == "not_a_member":
            return None
        raise
    if not isinstance(host, BouncerHost):
        raise Refused(
            f"{host.name} is a database host, not a bouncer host.",
            reason="not_a_bouncer_host",
            state="Nothing was touched.",
            next_step="Give the directory of a bouncer host's member.json.",
        )
    return host


class PoolerProcesses:
    """All processes of one bouncer host."""

    def __init__(self, request: Request, *, runner: CommandRunner, clock: Clock) -> None:
        self._request = request
        self._runner = runner
        self._clock = clock

    def ensure(self, *, check_mode: bool) -> Result:
        """Bring the processes to what is asked; in check mode only say how."""
        host = load_bouncer(self._request.config_directory, check_mode=check_mode)
        if host is None:
            changed = self._request.state == "started"
            coming = ["start every process (this host is not set up yet)"] if changed else []
            return Result(changed, {"plan": coming}, before={}, after={"plan": coming})
        states = {process.name: self._inspect(host, process) for process in host.processes}
        plan = pooler_plan.plan(tuple(states.values()), wish=self._request.state, restart=self._request.restart)
        self._check_port(host, plan.actions, check_mode=check_mode)
        if not check_mode:
            on_disk = digests(self._request.files)
            for action in plan.actions:
                process = next(process for process in host.processes if process.name == action.process)
                self._apply(action.id, host, process)
            for process in host.processes if self._request.state == "started" else ():
                self._remember(host, process, on_disk)
        lines = [action.line() for action in plan.actions]
        before = {name: "running" if state.running else "down" for name, state in states.items()}
        after = dict.fromkeys(before, "running" if self._request.state == "started" else "down")
        values = {"plan": lines, "pending_restart": dict(plan.pending), "processes": after}
        shown = {**after, "plan": lines} if lines else before
        return Result(bool(lines), values, before=before, after=shown, warnings=plan.warnings)

    def _tool(self, host: BouncerHost, process: PoolerProcess) -> PgbouncerProcess:
        return PgbouncerProcess(
            self._runner,
            name=process.name,
            config_file=process.config_file,
            pidfile=process.pidfile,
            service=self._request.service,
            os_user=host.os_user,
        )

    def _note_path(self, host: BouncerHost, process: PoolerProcess) -> str:
        return os.path.join(host.state_directory, f"pgbouncer-{process.name}.loaded.json")

    def _inspect(self, host: BouncerHost, process: PoolerProcess) -> ProcessState:
        running = self._tool(host, process).running()
        if running is None:
            return ProcessState(name=process.name)
        values: dict[str, t.Any] = {
            "name": process.name,
            "running": True,
            "pid": running.pid,
            "binary_replaced": running.deleted,
            "stale_files": self._stale(host, process, running),
        }
        if self._request.state != "started":
            return ProcessState(**values)
        try:
            values.update(_ask(host, process))
        except HmsError as error:
            values["unreachable"] = error.message
        if os.path.exists(process.config_file):
            values["wanted"] = read_ini(process.config_file)
        return ProcessState(**values)

    def _stale(self, host: BouncerHost, process: PoolerProcess, running: RunningProcess) -> tuple[str, ...]:
        """Files whose content is not what the process has read."""
        try:
            note = read_json(self._note_path(host, process)) or {}
        except ValueError:
            note = {}
        if (note.get("pid"), note.get("ticks")) == (running.pid, running.ticks):
            loaded = note.get("files") or {}
            return tuple(path for path, digest in digests(self._request.files).items() if loaded.get(path) != digest)
        return tuple(path for path in self._request.files if _changed_at(path) > running.started)

    def _apply(self, what: str, host: BouncerHost, process: PoolerProcess) -> None:
        tool = self._tool(host, process)
        if what in ("stop", "restart"):
            tool.stop(clock=self._clock)
        if what in ("start", "restart"):
            _allow_many_files()
            tool.start(clock=self._clock)
            self._wait_console(host, process)
        if what == "reload":
            self._reload(host, process)

    def _reload(self, host: BouncerHost, process: PoolerProcess) -> None:
        """RELOAD, and make sure that it took: older versions only log what they don't like."""
        console = PgbouncerConsole(host.console(process), os_user=host.os_user)
        try:
            console.reload()
        finally:
            console.close()
        wanted = read_ini(process.config_file)
        state = ProcessState(name=process.name, running=True, wanted=wanted, **_ask(host, process))
        refused = [name for name in pooler_plan.differing(state) if name not in state.restart_only]
        if refused:
            raise HmsError(
                f"PgBouncer process {process.name} did not take the new value of: {', '.join(refused)}.",
                reason="setting_refused",
                state="It goes on with the old value; its clients were not disturbed.",
                next_step="Its log says why; correct the variables and run again.",
                details={name: {"wanted": wanted[name], "shown": state.shown[name]} for name in refused},
            )

    def _wait_console(self, host: BouncerHost, process: PoolerProcess) -> None:
        last: list[str] = [""]

        def answers() -> bool:
            try:
                _ask(host, process)
            except HmsError as error:
                last[0] = error.message
                return False
            return True

        if not wait_until(answers, clock=self._clock, timeout=RELOAD_PATIENCE, interval=0.1):
            raise DeadlinePassed(
                f"PgBouncer process {process.name} runs, but its console does not answer: {last[0]}",
                reason="console_unreachable",
                next_step="Read its log.",
            )

    def _remember(self, host: BouncerHost, process: PoolerProcess, loaded: t.Mapping[str, str]) -> None:
        """Note what the process has read, for the next run to compare with."""
        running = self._tool(host, process).running()
        if running is None:
            return
        note = {"pid": running.pid, "ticks": running.ticks, "files": dict(loaded)}
        os.makedirs(host.state_directory, mode=0o755, exist_ok=True)
        write_atomic(self._note_path(host, process), dump_json(note))

    def _check_port(self, host: BouncerHost, actions: t.Sequence[t.Any], *, check_mode: bool) -> None:
        """Before the first process starts, the port must be free; its siblings may share it."""
        if not any(action.id == "start" for action in actions):
            return
        holder = find_holder(host.port)
        if holder is None or (holder.program == "pgbouncer" and self._ours(host, holder.pid)):
            return
        who = f"{holder.program} (pid {holder.pid})" if holder.pid else "a process that cannot be seen from here"
        if check_mode and holder.program == "pgbouncer":
            return  # Debian's own service, which this role disables before it starts its own
        raise Refused(
            f"Port {host.port} is taken: {who} listens on it.",
            reason="port_taken",
            state="Nothing was touched.",
            next_step="Choose another port (variable pgbouncer_port), or end that process.",
        )

    def _ours(self, host: BouncerHost, pid: int | None) -> bool:
        running = (self._tool(host, process).running() for process in host.processes)
        return pid in {found.pid for found in running if found}


def _ask(host: BouncerHost, process: PoolerProcess) -> dict[str, t.Any]:
    console = PgbouncerConsole(host.console(process), os_user=host.os_user)
    try:
        return {
            "shown": console.config(),
            "restart_only": console.restart_only(),
            "paused": any(str(row["paused"]) == "1" for row in console.databases()),
        }
    finally:
        console.close()


def _changed_at(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def _allow_many_files() -> None:
    """Raise our own soft limit of open files to the hard one: what we start without systemd inherits it."""
    import resource

    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
