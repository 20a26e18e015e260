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
from .databases_file import head, path_entry, render
from .facts import peer_role
from .member_config import BouncerHost, Peer, PoolerProcess
from .model import as_dict
from .write_probe import INSERT, ProbeProcess

# After a RESUME a pool whose last login failed waits this long before it tries again; 15 s is the default and
# was the longest stall in every failover measured without it. RELOAD forgets it, so it is set after each.
QUICK_RETRY = "0.1"


class PoolerHandler:
    """Verbs of a bouncer host. Every verb checks what already holds, so that it can be given twice."""

    def __init__(self, host: BouncerHost, context: Context) -> None:
        self.host = host
        self.context = context
        self.names = [str(database["name"]) for database in host.databases]
        self.consoles: dict[str, PgbouncerConsole] = {}
        self.content = ""
        self.candidate = ""
        self.held_from = ""
        self._probes: list[ProbeProcess] = []

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
        }

    def close(self) -> None:
        for console in self.consoles.values():
            console.close()
        self.consoles = {}
        while self._probes:
            self._probes.pop().finish(timeout=1.0)

    def observe(self) -> dict[str, t.Any]:
        """The facts of this host."""
        return {"facts": as_dict(pooler_facts.observe(self.host))}

    # -- arming ----------------------------------------------------------------------------------------------------

    def open_consoles(self) -> None:
        """Have a console open on every process."""
        for process in self.host.processes:
            if process.name not in self.consoles:
                console = PgbouncerConsole(self.host.console(process), os_user=self.host.os_user)
                self.consoles[process.name] = console
            self.consoles[process.name].prepare_pause(self.names)

    def prepare(self, *, operation: str, candidate: str, current: str) -> dict[str, t.Any]:
        """Open every console, render the new databases file in memory."""
        self.open_consoles()
        self.candidate = candidate
        self.held_from = current
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
        for process in self.host.processes:
            params = self.host.through(process, dbname=path_entry(member))
            begun = self.context.clock.monotonic()
            session = connect(params)
            try:
                session.value("SELECT pg_catalog.pg_is_in_recovery()")
            finally:
                session.close()
            waits[process.name] = round(self.context.clock.monotonic() - begun, 4)
        return {"seconds": waits}

    # -- while clients wait ------------------------------------------------------------------------------------

    def hold(self, *, deadline: float, kill: bool) -> dict[str, t.Any]:
        """Hold the clients of our databases in every process. With `kill`, sessions that don't end are cut."""
        clock = self.context.clock
        begun = clock.monotonic()
        self.open_consoles()
        self.context.holding = True
        self.context.note("holding")
        for console in self.consoles.values():
            already = console.paused_databases()
            for name in self.names:
                if name not in already:
                    console.send_pause(name)
        quiet = self.context.wait_for(self._all_quiet, timeout=deadline)
        killed = 0
        if not quiet and kill:
            killed = self._kill_all()
            quiet = self.context.wait_for(self._all_quiet, timeout=deadline)
        if not quiet:
            busy = {name: console.busy_servers(self.names) for name, console in self.consoles.items()}
            raise DeadlinePassed(
                f"Within {deadline:g} seconds not every transaction through {self.host.name} came to its end; "
                f"still busy per process: {busy}.",
                reason="pools_busy",
                next_step="Look for long transactions in pg_stat_activity, or give a longer hold_seconds.",
                details={"busy": busy},
            )
        return {"seconds": round(clock.monotonic() - begun, 6), "killed": killed}

    def _all_quiet(self) -> bool:
        wanted = set(self.names)
        return all(
            console.busy_servers(wanted) == 0 and wanted <= console.paused_databases()
            for console in self.consoles.values()
        )

    def _kill_all(self) -> int:
        """KILL each database in each process: its sessions hang on a server that doesn't answer."""
        count = 0
        for console in self.consoles.values():
            count += console.busy_servers(set(self.names))
            for name in self.names:
                console.kill(name)
        return count

    def repoint(self, *, primary: str, operation: str) -> dict[str, t.Any]:
        """Lead the databases to `primary`, in the file and in every process; clients stay held."""
        begun = self.context.clock.monotonic()
        self.open_consoles()
        content = self.content if primary == self.candidate and self.content else self.render_for(primary, operation)
        write_atomic(self.host.databases_file, content, mode=0o600, owner=self.host.os_user)
        for console in self.consoles.values():
            console.reload()
            console.change("server_login_retry", QUICK_RETRY)
        peer = self.host.peer(primary)
        for name, console in self.consoles.items():
            self.context.demand(
                lambda console=console: self._leads_to(console, peer),  # type: ignore[misc]  # bound now, on purpose
                f"Process {name} of {self.host.name} leading to {primary}",
                timeout=5.0,
            )
        self.context.note("repointed", primary=primary)
        return {"seconds": round(self.context.clock.monotonic() - begun, 6)}

    def _leads_to(self, console: PgbouncerConsole, peer: Peer) -> bool:
        rows = [row for row in console.databases() if row["name"] in self.names]
        return bool(rows) and all((row["host"], int(row["port"])) == (peer.address, peer.port) for row in rows)

    def resume(self) -> dict[str, t.Any]:
        """Let the clients go on."""
        self.open_consoles()
        for console in self.consoles.values():
            console.change("server_login_retry", QUICK_RETRY)
            for name in self.names:
                console.resume(name)
        for console in self.consoles.values():
            console.drop_pausing_connections()
        self.context.holding = False
        self.context.note("resumed")
        return {}

    # -- proving ---------------------------------------------------------------------------------------------------

    def verify(self, *, operation: str, deadline: float) -> dict[str, t.Any]:
        """Write through every process, as a client would. Under synchronous replication a write can wait for ever."""
        clock = self.context.clock
        begun = clock.monotonic()
        seconds, errors = {}, {}
        for process in self.host.processes:
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
        source = f"verify:{self.host.name}:{process.name}"
        sql = (
            "INSERT INTO hms.write_probe (operation, source, seq)"
            f" VALUES ({quote_literal(operation)}, {quote_literal(source)}, 1) ON CONFLICT DO NOTHING"
        )
        try:
            session = connect(self.host.through(process, dbname=self.names[0]))
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

    def prove_unreachable(self, *, member: str) -> dict[str, t.Any]:
        """Try to write at a member that must not take writes any more; returns its refusal as evidence."""
        peer = self.host.peer(member)
        params = self.host.monitor.params(peer, dbname=self.host.database)
        try:
            session = connect(params)
        except HmsError as error:
            return {"refused": True, "evidence": error.message}
        try:
            session.execute(INSERT, ("fence-proof", self.host.name, 1))
        except HmsError as error:
            return {"refused": True, "evidence": error.message}
        finally:
            session.close()
        return {"refused": False, "evidence": f"{member} took a write"}

    def probe_start(self, *, operation: str, rate: float) -> dict[str, t.Any]:
        """Start the write probe: one client per process."""
        if not self._probes:
            for process in self.host.processes:
                params = self.host.through(process, dbname=self.names[0], statement_timeout=0)
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
        for console in self.consoles.values():
            retry = console.config().get("server_login_retry")
            if retry in (QUICK_RETRY, "0.1", "0"):
                console.reload()
        self.context.holding = False
        return {"operation": operation}

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
