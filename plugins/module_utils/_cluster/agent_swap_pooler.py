# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the agent on a bouncer host can do for a swap of two databases: hold one of them, let go, prove. PRIVATE.

PgBouncer knows databases by name, its connections to the server belong to one by OID. After a rename a connection that
was kept would lead into the old database under the new name. So the pools are emptied, not only stilled, before the
rename; and afterwards every process is asked which database it leads to.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .._errors import DeadlinePassed, HmsError
from .._postgres import connect
from .._tools.pgbouncer_console import PgbouncerConsole
from .databases_file import PATH_PREFIX
from .member_config import PoolerProcess
from .swap_model import Entry, Routes

if t.TYPE_CHECKING:  # pragma: no cover
    from .agent_pooler import PoolerHandler

OID_QUERY = (
    "SELECT d.oid::text AS oid, d.datname::text AS name FROM pg_catalog.pg_database d"
    " WHERE d.datname = pg_catalog.current_database()"
)


class SwapPoolVerbs:
    """Verbs of a bouncer host for a swap."""

    def __init__(self, handler: PoolerHandler) -> None:
        self._handler = handler
        self._host = handler.host
        self._context = handler.context

    def verbs(self) -> dict[str, t.Callable[..., dict[str, t.Any]]]:
        """Verb → method."""
        return {
            "look_routes": self.look_routes,
            "prepare_swap": self.prepare_swap,
            "hold_swap": self.hold_swap,
            "verify_swap": self.verify_swap,
            "reconnect": self.reconnect,
        }

    def look_routes(self, *, databases: t.Sequence[str]) -> dict[str, t.Any]:
        """The entries that lead to any of these databases, and the backends behind them."""
        wanted = set(databases)
        entries: list[Entry] = []
        pids: set[int] = set()
        for process in self._handler.processes():
            console = self._handler.console(process)
            found = _entries(console, process.name, wanted)
            entries += found
            names = {entry.name for entry in found}
            pids |= set(_backends(console, names))
        return {"routes": dataclasses.asdict(Routes(self._host.name, tuple(entries), tuple(sorted(pids))))}

    def prepare_swap(self, *, databases: t.Sequence[str], primary: str) -> dict[str, t.Any]:
        """From now on `hold` and `resume` are about the entries of these databases, those to the primary first."""
        peer = self._host.peer(primary)
        targets: dict[str, str] = {}
        for process in self._handler.processes():
            for entry in _entries(self._handler.console(process), process.name, set(databases)):
                targets[entry.name] = entry.target
        there = f"{peer.address}:{peer.port}"
        self._handler.held = sorted(targets, key=lambda name: (targets[name] != there, name))
        self._handler.open_consoles()
        return {"entries": self._handler.held}

    def hold_swap(self, *, deadline: float) -> dict[str, t.Any]:
        """Hold the clients, and wait until no connection to the server is left. Says who else of ours is connected."""
        try:
            held = self._handler.hold(deadline=deadline, kill=False)
        except DeadlinePassed as error:
            error.next_step = error.next_step.replace("hold_seconds", "hold_deadline")
            raise
        names = set(self._handler.held)
        consoles = list(self._handler.consoles.values())

        def empty() -> bool:
            return not any(_backends(console, names, paths=False) for console in consoles)

        # With min_pool_size PgBouncer logs in again and again; the primary's agent ends those.
        emptied = self._context.wait_for(empty, timeout=min(1.0, deadline))
        pids = sorted({pid for console in consoles for pid in _backends(console, names)})
        return {**held, "emptied": emptied, "pids": pids}

    def verify_swap(self, *, operation: str, oid: int, write: bool, deadline: float) -> dict[str, t.Any]:
        """Ask through every process which database this is, and write as a client would."""
        found = {}
        for process in self._handler.processes():
            begun = self._context.clock.monotonic()
            seen = self._ask(process, begun + deadline)
            if seen["oid"] != str(oid):
                raise HmsError(
                    f"Process {process.name} of {self._host.name} leads to the database with OID {seen['oid']} "
                    f"({seen['name']}), not to {oid}.",
                    reason="wrong_database",
                    next_step="RECONNECT on its console, then see SELECT oid FROM pg_database WHERE datname = "
                    "current_database() through it.",
                )
            found[process.name] = {**seen, "seconds": round(self._context.clock.monotonic() - begun, 4)}
        if write:
            self._handler.verify(operation=operation, deadline=deadline)
        return {"seen": found, "written": write}

    def _ask(self, process: PoolerProcess, end: float) -> dict[str, t.Any]:
        """Which database a client of this process is in; asked again until `end`."""
        while True:
            try:
                left = max(0.05, end - self._context.clock.monotonic())
                return self._ask_once(process, left)
            except DeadlinePassed:
                raise
            except HmsError:
                if self._context.clock.monotonic() >= end:
                    raise
            self._context.wait_for(lambda: False, timeout=0.05)

    def _ask_once(self, process: PoolerProcess, left: float) -> dict[str, t.Any]:
        session = connect(self._host.through(process, dbname=self._handler.held[0]))
        try:
            return session.records(OID_QUERY, timeout=left)[0]
        finally:
            session.close()

    def reconnect(self, *, primary: str) -> dict[str, t.Any]:
        """Entries that lead to a standby: connections that were opened before it had replayed the swap are closed."""
        peer = self._host.peer(primary)
        there = f"{peer.address}:{peer.port}"
        told = []
        for process in self._handler.processes():
            console = self._handler.console(process)
            for row in console.databases():
                if row["name"] in self._handler.held and f"{row['host']}:{row['port']}" != there:
                    console.reconnect(str(row["name"]))
                    told.append(f"{process.name}/{row['name']}")
        return {"reconnected": told}


def _entries(console: PgbouncerConsole, process: str, databases: t.Collection[str]) -> list[Entry]:
    """What of a process leads to these databases. Entries for trying a path hold nobody's clients."""
    config = console.config()
    return [
        Entry(
            process=process,
            name=str(row["name"]),
            target=f"{row['host']}:{row['port']}",
            paused=str(row["paused"]) == "1",
            pool_mode=str(row["pool_mode"] or config.get("pool_mode", "")),
            least=int(row.get("min_pool_size") or config.get("min_pool_size") or 0),
        )
        for row in console.databases()
        if row["database"] in databases and not str(row["name"]).startswith(PATH_PREFIX)
    ]


def _backends(console: PgbouncerConsole, names: t.Collection[str], *, paths: bool = True) -> list[int]:
    """The server's processes behind these entries, and behind those for trying a path."""
    return [
        int(row["remote_pid"] or 0)
        for row in console.servers()
        if row["database"] in names or (paths and str(row["database"]).startswith(PATH_PREFIX))
    ]
