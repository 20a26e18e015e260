# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PgBouncer's admin console, one process at a time, over its local socket. PRIVATE to the collection.

Traps that are handled here: the console knows only the simple query protocol; PAUSE may never answer once
somebody resumed (so it is sent on a connection of its own whose answer isn't waited for); RELOAD resets
every SET; RESUME of what isn't paused is an error.
"""

from __future__ import annotations

import typing as t

from .._errors import HmsError
from .._postgres import ConnectionParams, PsycopgSession, connect, quote_identifier, quote_literal

PATIENCE = 3.0
"""Seconds for an answer. A process that hangs must not hang whoever has to let the others' clients go."""


class PgbouncerConsole:
    """The console of one process."""

    def __init__(self, params: ConnectionParams, *, os_user: str) -> None:
        self._params = params
        self._os_user = os_user
        self._session = connect(params, os_user=os_user)
        self._pausing: dict[str, PsycopgSession] = {}

    def close(self) -> None:
        """Close the connections. This does not resume anything."""
        self.drop_pausing_connections()
        self._session.close()

    @property
    def broken(self) -> bool:
        """Whether the process at the other end has gone, as far as was noticed."""
        return self._session.connection.closed

    def _show(self, what: str) -> list[dict[str, t.Any]]:
        return t.cast("list[dict[str, t.Any]]", self._session.records(f"SHOW {what}", timeout=PATIENCE))

    def _do(self, command: str) -> None:
        self._session.records(command, timeout=PATIENCE)

    def version(self) -> str:
        """E.g. ``1.18.0``."""
        rows = self._show("VERSION")
        text = str(next(iter(rows[0].values()))) if rows else ""
        return text.split()[1] if len(text.split()) > 1 else text

    def databases(self) -> list[dict[str, t.Any]]:
        """SHOW DATABASES."""
        return self._show("DATABASES")

    def pools(self) -> list[dict[str, t.Any]]:
        """SHOW POOLS."""
        return self._show("POOLS")

    def servers(self) -> list[dict[str, t.Any]]:
        """SHOW SERVERS: connections to PostgreSQL."""
        return self._show("SERVERS")

    def config(self) -> dict[str, str]:
        """SHOW CONFIG as key → value."""
        return {str(row["key"]): str(row["value"]) for row in self._show("CONFIG")}

    def restart_only(self) -> frozenset[str]:
        """The settings that a RELOAD does not change, as this version says."""
        return frozenset(str(row["key"]) for row in self._show("CONFIG") if row.get("changeable") == "no")

    def prepare_pause(self, databases: t.Iterable[str]) -> None:
        """Open the connections on which PAUSE will be sent: nothing slow is left for the moment itself."""
        for database in databases:
            if database not in self._pausing:
                self._pausing[database] = connect(self._params, os_user=self._os_user)

    def send_pause(self, database: str) -> None:
        """Ask for PAUSE of one database and don't wait; `databases` and `busy_servers` tell when it is reached.

        Per database and not for the whole process, because only that can be seen in SHOW DATABASES,
        allows KILL, and leaves other clusters' databases alone.
        """
        self.prepare_pause([database])
        self._pausing[database].begin("PAUSE " + quote_identifier(database))

    def drop_pausing_connections(self) -> None:
        """Close the connections on which PAUSE was sent; after a RESUME its answer may never come."""
        while self._pausing:
            self._pausing.popitem()[1].close()

    def kill(self, database: str) -> None:
        """Drop all client and server connections of a database; it stays paused until RESUME."""
        self._do("KILL " + quote_identifier(database))

    def reconnect(self, database: str) -> None:
        """Close each server connection of a database as soon as no client uses it."""
        self._do("RECONNECT " + quote_identifier(database))

    def reload(self) -> None:
        """Read the configuration again. Everything that SET changed is lost."""
        self._do("RELOAD")

    def change(self, name: str, value: str) -> None:
        """Change a setting until the next RELOAD."""
        self._do(f"SET {name} = {quote_literal(value)}")

    def resume(self, database: str) -> None:
        """RESUME one database; that it wasn't paused is no error to us."""
        try:
            self._do("RESUME " + quote_identifier(database))
        except HmsError as error:
            if "not paused" not in error.message:
                raise

    def paused_databases(self) -> set[str]:
        """The databases that hold their clients."""
        return {str(row["name"]) for row in self.databases() if str(row["paused"]) == "1"}

    def busy_servers(self, databases: t.Collection[str] | None = None) -> int:
        """Server connections in use by clients, in the named databases or in all."""
        rows = self.servers()
        return sum(
            1
            for row in rows
            if row["state"] in ("active", "tested") and (databases is None or row["database"] in databases)
        )
