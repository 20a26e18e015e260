# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How we talk SQL to a server: parameters, sessions, LSNs, identifiers. PRIVATE to the collection.

psycopg 3 is imported in this file alone, and only when a connection is made, so that
code which never connects works without it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
import select
import socket
import threading
import time
import typing as t

from ._errors import ConnectionFailed, DeadlinePassed, HmsError, ToolMissing

if t.TYPE_CHECKING:  # pragma: no cover
    import psycopg
    from psycopg import pq

APPLICATION_NAME = "hms.postgres"


@dataclasses.dataclass(frozen=True)
class ConnectionParams:
    """Where a server is and how to get in. One value feeds psycopg, libpq's environment and conninfo strings.

    Times are in seconds. A password given here goes into the environment or the driver, never into an argv.
    """

    host: str
    port: int = 5432
    user: str = "postgres"
    dbname: str = "postgres"
    password: str | None = dataclasses.field(default=None, repr=False)
    passfile: str | None = None
    sslmode: str | None = None
    sslrootcert: str | None = None
    application_name: str = APPLICATION_NAME
    connect_timeout: int = 5
    statement_timeout: float = 30.0
    lock_timeout: float = 5.0
    startup_options: bool = True
    """Whether timeouts are sent as startup options; PgBouncer takes none."""

    def libpq(self) -> dict[str, str]:
        """The parameters under libpq's names; values that are not set are left out."""
        pairs: dict[str, str | None] = {
            "host": self.host,
            "port": str(self.port),
            "user": self.user,
            "dbname": self.dbname,
            "password": self.password,
            "passfile": self.passfile,
            "sslmode": self.sslmode,
            "sslrootcert": self.sslrootcert,
            "application_name": self.application_name,
            "connect_timeout": str(self.connect_timeout),
        }
        if self.startup_options:
            pairs["client_encoding"] = "UTF8"  # a database in SQL_ASCII would answer in bytes
            pairs["options"] = (
                f"-c statement_timeout={int(self.statement_timeout * 1000)}"
                f" -c lock_timeout={int(self.lock_timeout * 1000)}"
            )
        return {key: value for key, value in pairs.items() if value is not None}

    def conninfo(self) -> str:
        """The same as one conninfo string, for the driver. It may hold a password: never for an argv."""
        return " ".join(f"{key}={quote_conninfo(value)}" for key, value in self.libpq().items())

    def environment(self) -> dict[str, str]:
        """The same as environment variables for libpq programs."""
        names = {
            "dbname": "PGDATABASE",
            "application_name": "PGAPPNAME",
            "connect_timeout": "PGCONNECT_TIMEOUT",
            "client_encoding": "PGCLIENTENCODING",
        }
        return {names.get(key, "PG" + key.upper()): value for key, value in self.libpq().items()}

    def where(self) -> str:
        """The server for messages: user, host, port, database; no secret."""
        return f"{self.user}@{self.host}:{self.port}/{self.dbname}"


class Session(t.Protocol):
    """An open connection in autocommit mode."""

    def rows(self, sql: str, params: t.Sequence[t.Any] | None = None) -> list[tuple[t.Any, ...]]:
        """All rows of a query."""

    def row(self, sql: str, params: t.Sequence[t.Any] | None = None) -> tuple[t.Any, ...] | None:
        """The first row, or None."""

    def value(self, sql: str, params: t.Sequence[t.Any] | None = None) -> t.Any:
        """The first column of the first row, or None."""

    def execute(self, sql: str, params: t.Sequence[t.Any] | None = None) -> None:
        """A statement whose result is of no interest."""

    def close(self) -> None:
        """End the connection; never raises."""


class PsycopgSession:
    """`Session` over psycopg 3. Errors come out as `HmsError` with the SQLSTATE in `details`."""

    def __init__(self, connection: psycopg.Connection[t.Any], where: str) -> None:
        self.connection = connection
        self.where = where
        self._found: list[dict[str, str | None]] = []

    @contextlib.contextmanager
    def _speaking(self, sql: str) -> t.Iterator[None]:
        """The driver's errors as ours."""
        import psycopg

        try:
            yield
        except psycopg.Error as error:
            text = str(error).strip()
            raise HmsError(
                f"{self.where}: {text}",
                reason="sql_failed",
                details={"sqlstate": getattr(error, "sqlstate", None), "statement": sql[:200]},
            ) from error

    def _run(self, sql: str, params: t.Sequence[t.Any] | None) -> psycopg.Cursor[t.Any]:
        with self._speaking(sql):
            # PgBouncer's console knows the simple protocol only: no parameters, no prepared statements there.
            return self.connection.execute(sql.encode(), params or None)

    def rows(self, sql: str, params: t.Sequence[t.Any] | None = None) -> list[tuple[t.Any, ...]]:
        cursor = self._run(sql, params)
        return [] if cursor.description is None else cursor.fetchall()

    def row(self, sql: str, params: t.Sequence[t.Any] | None = None) -> tuple[t.Any, ...] | None:
        found = self.rows(sql, params)
        return found[0] if found else None

    def value(self, sql: str, params: t.Sequence[t.Any] | None = None) -> t.Any:
        found = self.row(sql, params)
        return found[0] if found else None

    def execute(self, sql: str, params: t.Sequence[t.Any] | None = None) -> None:
        self._run(sql, params)

    @contextlib.contextmanager
    def copying(self, sql: str) -> t.Iterator[psycopg.Copy]:
        """A COPY as a stream; it has succeeded when the context has ended without an error."""
        with self._speaking(sql), self.connection.cursor() as cursor, cursor.copy(sql.encode()) as stream:
            yield stream

    def records(self, sql: str, *, timeout: float) -> list[dict[str, str | None]]:
        """All rows by column, as text. One that gives no answer within `timeout` seconds is hung up on."""
        self.begin(sql)
        deadline = time.monotonic() + timeout
        while not self.done():
            left = deadline - time.monotonic()
            if left <= 0:
                self.close()
                raise DeadlinePassed(f"{self.where}: no answer to {sql} within {timeout:g} seconds")
            select.select([self.connection.pgconn.socket], [], [], left)
        return self._found

    def begin(self, sql: str) -> None:
        """Send a statement and don't wait; `done` tells when its answer is here. For what may wait for ever."""
        self._found = []
        with self._speaking(sql):
            self.connection.pgconn.send_query(sql.encode())
            self.connection.pgconn.flush()

    def done(self) -> bool:
        """Whether the statement sent by `begin` has come to its end. Raises `HmsError` when it failed."""
        from psycopg import pq

        pgconn = self.connection.pgconn
        with self._speaking(""):
            pgconn.consume_input()
        while not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                return True
            if result.status == pq.ExecStatus.FATAL_ERROR:
                text = " ".join(result.error_message.decode("utf-8", "replace").split())
                state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
                raise HmsError(f"{self.where}: {text}", reason="sql_failed", details={"sqlstate": state or None})
            self._found += _rows_of(result)
        return False

    def cancel(self) -> None:
        """Have the server end the statement that another thread waits for; never raises."""
        with contextlib.suppress(Exception):
            self.connection.cancel()

    def hang_up(self) -> None:
        """Break the line, so that whoever waits for an answer in another thread gets an error; never raises."""
        with contextlib.suppress(Exception), socket.socket(fileno=os.dup(self.connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.connection.close()


def _rows_of(result: pq.abc.PGresult) -> list[dict[str, str | None]]:
    names = [(result.fname(column) or b"").decode() for column in range(result.nfields)]
    return [
        {name: _text(result.get_value(row, column)) for column, name in enumerate(names)}
        for row in range(result.ntuples)
    ]


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


_IDENTITY_LOCK = threading.Lock()


@contextlib.contextmanager
def effective_user(os_user: str | None) -> t.Iterator[None]:
    """Be `os_user` for a moment: peer authentication and PgBouncer's console look at the socket's effective uid."""
    if os_user is None or pwd.getpwnam(os_user).pw_uid == os.geteuid():
        yield
        return
    entry = pwd.getpwnam(os_user)
    with _IDENTITY_LOCK:
        before = (os.geteuid(), os.getegid())
        os.setegid(entry.pw_gid)
        os.seteuid(entry.pw_uid)
        try:
            yield
        finally:
            os.seteuid(before[0])
            os.setegid(before[1])


def connect(params: ConnectionParams, *, os_user: str | None = None) -> PsycopgSession:
    """Open a session, as `os_user` where peer authentication needs it. Raises `ConnectionFailed`."""
    try:
        import psycopg
    except ImportError as error:
        raise ToolMissing(
            "The Python library psycopg 3 is not installed on this host; talking to PostgreSQL needs it.",
            reason="tool_missing",
            next_step="Install Debian's package python3-psycopg, or run playbooks/site.yml for this host.",
        ) from error
    try:
        with effective_user(os_user):
            connection = psycopg.connect(
                params.conninfo(),
                autocommit=True,
                prepare_threshold=None,
                # a peer that falls off the network in the middle of a query is noticed within seconds, not hours
                keepalives_idle=5,
                keepalives_interval=3,
                keepalives_count=3,
                tcp_user_timeout=15000,
            )
    except psycopg.Error as error:
        text = " ".join(str(error).split())
        raise ConnectionFailed(
            f"No connection to {params.where()}: {text}",
            reason="connection_failed",
            details={"sqlstate": getattr(error, "sqlstate", None)},
        ) from error
    return PsycopgSession(connection, params.where())


UNLOGGED = (
    "SELECT pg_catalog.set_config('log_statement', 'none', false),"
    " pg_catalog.set_config('log_min_duration_statement', '-1', false),"
    " pg_catalog.set_config('log_min_error_statement', 'panic', false)"
)
"""From here on nothing that a session sends is written into the server's log: for statements with passwords."""


def quote_identifier(name: str) -> str:
    """An identifier, safe inside SQL text. The one quoting function for identifiers."""
    if "\x00" in name or not name:
        raise HmsError(f"{name!r} cannot be an SQL identifier.", reason="bad_identifier")
    return '"' + name.replace('"', '""') + '"'


def quote_literal(value: str) -> str:
    """A string literal for the few statements that take no parameters (ALTER SYSTEM SET, CREATE ROLE)."""
    if "\x00" in value:
        raise HmsError("A NUL byte cannot be part of an SQL literal.", reason="bad_literal")
    escaped = value.replace("'", "''")
    if "\\" in escaped:
        return "E'" + escaped.replace("\\", "\\\\") + "'"
    return "'" + escaped + "'"


def quote_conninfo(value: str) -> str:
    """A value inside a libpq conninfo string."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def parse_lsn(text: str) -> int:
    """``16/B374D848`` as a byte position."""
    high, _separator, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def format_lsn(position: int) -> str:
    """A byte position as PostgreSQL writes it."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"
