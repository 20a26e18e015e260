# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent on a bouncer host can do, for all PgBouncer processes of the host at once. PRIVATE.

The dead-man here: clients that are held are let go again, towards whichever member proves to be the writable
primary; when none does within `deadman_pooler.PATIENCE`, towards where they were led before.
"""

from __future__ import annotations

import typing as t

from .._errors import DeadlinePassed, HmsError
from .._files import read_bytes, write_atomic
from .._postgres import connect, quote_literal
from .._tools.pgbouncer_console import PgbouncerConsole
from . import pooler_facts
from .agent import Context
from .agent_swap_pooler import SwapPoolVerbs
from .databases_file import head, path_entry, render
from .facts import peer_role
from .member_config import BouncerHost, Peer, PoolerProcess
from .model import as_dict
from .write_probe import ProbeProcess

# After a RESUME a pool whose last login failed waits this long before it tries again; 15 s is the default and
# was the longest stall in every failover measured without it. RELOAD forgets it, so it is set after each.
QUICK_RETRY = "0.1"

LOGIN_MEMORY = 2.5
"""Seconds; for server_login_retry (1 s in the role) a process refuses a login that failed without trying it again."""

PATH_DEADLINE = 5.0
"""Seconds that a login to the candidate may take. PgBouncer tells its clients of no refusal, it lets them wait."""

PROOF_DEADLINE = 3.0
"""Seconds in which a primary that lives would have acknowledged a write."""


def _insert(operation: str, source: str) -> str:
    """One row of the write probe's table, as text: nothing waits for its answer."""
    return (
        "INSERT INTO hms.write_probe (operation, source, seq)"
        f" VALUES ({quote_literal(operation)}, {quote_literal(source)}, 1) ON CONFLICT DO NOTHING"
    )


class PoolerHandler:
    """Verbs of a bouncer host. Every verb checks what already holds, so that it can be given twice."""

    def __init__(self, host: BouncerHost, context: Context) -> None:
        self.host = host
        self.context = context
        self.names = [str(database["name"]) for database in host.databases]
        self.held = list(self.names)
        """The databases whose clients are held and let go: all of ours, unless only one of them changes."""
        self.consoles: dict[str, PgbouncerConsole] = {}
        self.content = ""
        self.candidate = ""
        self.tuned = False
        """Whether a process has settings that its configuration doesn't have."""
        self._silent: frozenset[str] = frozenset()
        self._probes: list[ProbeProcess] = []
        self._swap = SwapPoolVerbs(self)

    def verbs(self) -> t.Mapping[str, t.Callable[..., dict[str, t.Any]]]:
        return {
            "observe": self.observe,
            "prepare": self.prepare,
            "try_path": self.try_path,
            "hold": self.hold,
            "repoint": self.repoint,
            "resume": self.resume,
            "verify": self.verify,
            "prove_unreachable": self.prove_unreachable,
            "probe_start": self.probe_start,
            "probe_stop": self.probe_stop,
            "finish": self.finish,
            **self._swap.verbs(),
        }

    def close(self) -> None:
        for console in self.consoles.values():
            console.close()
        self.consoles = {}
        while self._probes:
            self._probes.pop().finish(timeout=1.0)

    def observe(self) -> dict[str, t.Any]:
        """The facts of this host."""
        found = pooler_facts.observe(self.host)
        self._silent = frozenset(process.name for process in found.processes if not process.reachable)
        return {"facts": as_dict(found)}

    def processes(self) -> list[PoolerProcess]:
        """The processes to work with. One that didn't answer when it was looked at is dead by the operator's word."""
        return [process for process in self.host.processes if process.name not in self._silent]

    # -- arming ----------------------------------------------------------------------------------------------------

    def console(self, process: PoolerProcess) -> PgbouncerConsole:
        """The console of one process; opened again when the process was started anew meanwhile."""
        console = self.consoles.get(process.name)
        if console is not None and console.broken:
            console.close()
            console = None
        if console is None:
            console = PgbouncerConsole(self.host.console(process), os_user=self.host.os_user)
            self.consoles[process.name] = console
        return console

    def open_consoles(self) -> None:
        """Have a console open on every process, with the connections on which it will be told to pause."""
        for process in self.processes():
            self.console(process).prepare_pause(self.held)

    def each(self, work: t.Callable[[PgbouncerConsole], None], what: str) -> None:
        """Do something in every process; one that fails doesn't keep it from the others. Raises when any failed."""
        errors = {}
        for process in self.processes():
            try:
                self._once_more_if_broken(process, work)
            except HmsError as error:
                errors[process.name] = error.message
        if errors:
            told = "; ".join(f"process {name}: {message}" for name, message in errors.items())
            raise HmsError(f"{what} on {self.host.name} failed: {told}", reason="bouncer_failed")

    def _once_more_if_broken(self, process: PoolerProcess, work: t.Callable[[PgbouncerConsole], None]) -> None:
        console = self.console(process)
        try:
            work(console)
        except DeadlinePassed:
            raise  # it hangs, and would again
        except HmsError:
            if not console.broken:
                raise
            work(self.console(process))

    def prepare(self, *, operation: str, candidate: str) -> dict[str, t.Any]:
        """Open every console, render the new databases file in memory."""
        self.open_consoles()
        self.candidate = candidate
        self.content = self.render_for(candidate, operation)
        return {"processes": sorted(self.consoles)}

    def render_for(self, primary: str, operation: str) -> str:
        """The databases file with `primary` as the target."""
        return render(
            cluster=self.host.cluster,
            operation=operation,
            primary=primary,
            databases=self.host.databases,
            members=[peer.as_member() for peer in self.host.members],
        )

    def try_path(self, *, member: str) -> dict[str, t.Any]:
        """Log in to `member` through every process: the way clients will take, TLS, pg_hba and password included."""
        waits = {}
        for process in self.processes():
            begun = self.context.clock.monotonic()
            while True:
                try:
                    self._log_in(process, member)
                    break
                except HmsError as error:
                    # It may only remember an earlier failure: then it is asked again until it really tries.
                    remembered = "server_login_retry" in error.message
                    if not remembered or self.context.clock.monotonic() - begun > LOGIN_MEMORY:
                        raise
                    self.context.clock.sleep(0.1)
            waits[process.name] = round(self.context.clock.monotonic() - begun, 4)
        return {"seconds": waits}

    def _log_in(self, process: PoolerProcess, member: str) -> None:
        """One login to `member` through one process."""
        session = connect(self.host.through(process, dbname=path_entry(member)))
        try:
            session.begin("SELECT pg_catalog.pg_is_in_recovery()")
            if not self.context.wait_for(session.done, timeout=PATH_DEADLINE):
                raise HmsError(
                    f"process {process.name} got in nowhere within {PATH_DEADLINE:g} seconds; its log says why",
                    reason="login_path",
                )
        finally:
            session.close()

    # -- while clients wait ------------------------------------------------------------------------------------

    def hold(self, *, deadline: float, kill: bool) -> dict[str, t.Any]:
        """Hold the clients of our databases in every process. With `kill`, sessions that don't end are cut."""
        clock = self.context.clock
        begun = clock.monotonic()
        self.open_consoles()
        self.context.holding = True
        self.context.note("holding")
        self.each(self._pause, "Holding the clients")
        quiet = self.context.wait_for(self._all_quiet, timeout=deadline)
        killed = 0
        if not quiet and kill:
            killed = self._kill_all()
            quiet = self.context.wait_for(self._all_quiet, timeout=deadline)
        if not quiet:
            busy = {name: console.busy_servers(self.held) for name, console in self.consoles.items()}
            raise DeadlinePassed(
                f"Within {deadline:g} seconds not every transaction through {self.host.name} came to its end; "
                f"still busy per process: {busy}.",
                reason="pools_busy",
                next_step="Look for long transactions in pg_stat_activity, or give a longer hold_seconds.",
                details={"busy": busy},
            )
        return {"seconds": round(clock.monotonic() - begun, 6), "killed": killed}

    def _pause(self, console: PgbouncerConsole) -> None:
        already = console.paused_databases()
        for name in self.held:
            if name not in already:
                console.send_pause(name)

    def _all_quiet(self) -> bool:
        wanted = set(self.held)
        return all(
            console.busy_servers(wanted) == 0 and wanted <= console.paused_databases()
            for console in self.consoles.values()
        )

    def _kill_all(self) -> int:
        """KILL each database in each process: its sessions hang on a server that doesn't answer."""
        count = 0
        for console in self.consoles.values():
            count += console.busy_servers(set(self.held))
            for name in self.held:
                console.kill(name)
        return count

    def repoint(self, *, primary: str, operation: str) -> dict[str, t.Any]:
        """Lead the databases to `primary`, in the file and in every process; clients stay held."""
        begun = self.context.clock.monotonic()
        content = self.content if primary == self.candidate and self.content else self.render_for(primary, operation)
        write_atomic(self.host.databases_file, content, mode=0o600, owner=self.host.os_user)
        peer = self.host.peer(primary)
        self.tuned = True
        self.each(lambda console: self._lead(console, peer), f"Leading to {primary}")
        self.context.note("repointed", primary=primary)
        return {"seconds": round(self.context.clock.monotonic() - begun, 6)}

    def _lead(self, console: PgbouncerConsole, peer: Peer) -> None:
        console.reload()
        console.change("server_login_retry", QUICK_RETRY)
        self.context.demand(lambda: self._leads_to(console, peer), f"Leading to {peer.name}", timeout=5.0)

    def _leads_to(self, console: PgbouncerConsole, peer: Peer) -> bool:
        rows = [row for row in console.databases() if row["name"] in self.names]
        return bool(rows) and all((row["host"], int(row["port"])) == (peer.address, peer.port) for row in rows)

    def resume(self, *, only_to: str = "") -> dict[str, t.Any]:
        """Let the clients go on; with `only_to`, those of the processes that lead to this member by now."""
        self.tuned = True
        peer = self.host.peer(only_to) if only_to else None
        self.each(lambda console: self._resume(console, peer), "Letting the clients go on")
        self.context.holding = False
        self.context.note("resumed")
        return {}

    def _resume(self, console: PgbouncerConsole, peer: Peer | None) -> None:
        if peer is not None and not self._leads_to(console, peer):
            raise HmsError(f"it does not lead to {peer.name} yet", reason="bouncer_failed")
        console.change("server_login_retry", QUICK_RETRY)
        for name in self.held:
            console.resume(name)
        console.drop_pausing_connections()

    # -- proving ---------------------------------------------------------------------------------------------------

    def verify(self, *, operation: str, deadline: float) -> dict[str, t.Any]:
        """Write through every process, as a client would. Under synchronous replication a write can wait for ever."""
        clock = self.context.clock
        begun = clock.monotonic()
        seconds, errors = {}, {}
        for process in self.processes():
            end = begun + deadline
            while process.name not in seconds:
                errors[process.name] = self._write_once(process, operation, end)
                if not errors[process.name]:
                    seconds[process.name] = round(clock.monotonic() - begun, 4)
                elif clock.monotonic() >= end:
                    raise HmsError(
                        f"No write through process {process.name} of {self.host.name} was acknowledged within "
                        f"{deadline:g} seconds: {errors[process.name]}",
                        reason="no_write",
                        next_step="playbooks/status.yml shows which standby is missing or who leads elsewhere.",
                    )
                else:
                    self.context.wait_for(lambda: False, timeout=0.02)
        return {"seconds": seconds}

    def _write_once(self, process: PoolerProcess, operation: str, end: float) -> str:
        """One write through one process; returns what went wrong, or nothing."""
        sql = _insert(operation, f"verify:{self.host.name}:{process.name}")
        try:
            session = connect(self.host.through(process, dbname=self.held[0]))
        except HmsError as error:
            return error.message
        try:
            session.begin(sql)
            left = max(0.05, end - self.context.clock.monotonic())
            return (
                ""
                if self.context.wait_for(session.done, timeout=left)
                else "the write waits, as for a synchronous standby"
            )
        except HmsError as error:
            return error.message
        finally:
            session.close()

    def prove_unreachable(self, *, member: str, operation: str) -> dict[str, t.Any]:
        """Try to write at a member that must not take writes any more; returns its refusal as evidence.

        A write that gets no answer is refused as well: it waits for a synchronous standby that is no more. It is
        left alone and not cancelled, because a cancelled one counts as acknowledged.
        """
        params = self.host.monitor.params(self.host.peer(member), dbname=self.host.database)
        try:
            session = connect(params)
        except HmsError as error:
            return {"refused": True, "evidence": error.message}
        try:
            session.begin(_insert(operation, f"fence-proof:{self.host.name}"))
            if not self.context.wait_for(session.done, timeout=PROOF_DEADLINE):
                return {"refused": True, "evidence": f"no acknowledgement within {PROOF_DEADLINE:g} seconds"}
        except HmsError as error:
            return {"refused": True, "evidence": error.message}
        finally:
            session.close()
        return {"refused": False, "evidence": f"{member} took a write"}

    def probe_start(self, *, operation: str, rate: float) -> dict[str, t.Any]:
        """Start the write probe: one client per process."""
        if not self._probes:
            for process in self.processes():
                params = self.host.through(process, dbname=self.held[0], statement_timeout=0)
                source = f"{self.host.name}/{process.name}"
                self._probes.append(ProbeProcess(params, operation=operation, source=source, rate=rate))
        return {"sources": [probe.source for probe in self._probes]}

    def probe_stop(self) -> dict[str, t.Any]:
        """Stop the probe and hand over its samples."""
        found = {}
        while self._probes:
            probe = self._probes.pop()
            found[probe.source] = [list(sample) for sample in probe.finish()]
        return {"samples": found, "now": self.context.clock.now().timestamp()}

    # -- afterwards --------------------------------------------------------------------------------------------------

    def finish(self, *, operation: str) -> dict[str, t.Any]:
        """Settings as the configuration has them; the probe's rows of this operation are left for the judge."""
        self.each(self._as_configured, "Putting settings back")
        self.tuned = False
        self.context.holding = False
        return {"operation": operation}

    @staticmethod
    def _as_configured(console: PgbouncerConsole) -> None:
        if console.config().get("server_login_retry") in (QUICK_RETRY, "0"):
            console.reload()

    def leads_to(self, primary: str) -> bool:
        """Whether the file on disk and every process lead to `primary`."""
        peer = self.host.peer(primary)
        try:
            leads = all(self._leads_to(self.console(process), peer) for process in self.processes())
        except HmsError:
            return False
        return leads and self.primary_on_file() == primary

    def primary_on_file(self) -> str:
        """The member that the databases file on disk points at."""
        content = (read_bytes(self.host.databases_file) or b"").decode("utf-8", "replace")
        return (head(content) or {}).get("primary", "")

    def writable_member(self) -> str:
        """The member that proves to be a writable primary now, on the newest timeline; '' when none does."""
        best, best_timeline = "", -1
        for peer in self.host.members:
            role = peer_role(self.host.monitor.params(peer, dbname=self.host.database, timeout=2))
            if role is not None and not role[0] and role[1] > best_timeline:
                best, best_timeline = peer.name, role[1]
        return best

    def channel_lost(self) -> None:
        from .deadman_pooler import act

        act(self)
