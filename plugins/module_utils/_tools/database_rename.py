# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Renaming two databases against each other: names, statements, what stands in the way. PRIVATE to the collection.

Both renames are one transaction, so there is a state before and a state after and none between. The server renames no
database to which anybody is connected, so no session can be left behind in the old one under its new name. The same
transaction marks both databases (the setting ``hms.swapped``): with whom the swap was, in which operation.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from .._errors import HmsError, Refused, expect
from .._postgres import Session, quote_identifier, quote_literal

LONGEST_NAME = 63
"""Bytes; the server cuts a longer name without a word."""

MARK = "hms.swapped"
SYSTEM = frozenset({"postgres", "template0", "template1"})
INVALID = -2
"""The connection limit of a database whose DROP was interrupted."""

HELPERS = frozenset({"autovacuum worker", "parallel worker"})
"""Backends of the server's own that may be ended at any time."""
CLIENTS = frozenset({"client backend", "walsender"})
MOST_SESSIONS = 200

_STAMP = re.compile(r"\d{8}T\d{6}Z")


@dataclasses.dataclass(frozen=True)
class Database:
    """A row of pg_database.

    Attributes:
        mark_operation: the operation that gave it its name; empty when none of ours did.
        mark_was: the name that it had before that.
    """

    name: str
    oid: int
    owner: str = ""
    allow_connections: bool = True
    template: bool = False
    connection_limit: int = -1
    encoding: str = ""
    collation: str = ""
    character_type: str = ""
    mark_operation: str = ""
    mark_was: str = ""


@dataclasses.dataclass(frozen=True)
class Attached:
    """A backend that is connected to a database."""

    pid: int
    database: str
    user: str
    application_name: str
    address: str
    kind: str
    state: str
    age: float
    """Seconds since its transaction began; of one without, since it connected."""
    in_transaction: bool = False

    @property
    def words(self) -> str:
        """The session for people."""
        where = f" from {self.address}" if self.address else ""
        name = f" ({self.application_name})" if self.application_name else ""
        who = self.user if self.kind == "client backend" else self.kind
        return f"pid {self.pid}: {who}{name}{where}, {self.state or 'working'} for {self.age:.0f} s"


@dataclasses.dataclass(frozen=True)
class Obstacles:
    """What makes a rename impossible, or its result surprising."""

    prepared_transactions: tuple[str, ...] = ()
    logical_slots: tuple[str, ...] = ()
    subscriptions: tuple[str, ...] = ()
    cron: bool = False
    """pg_cron keeps its jobs in this database, by name."""


_DATABASES = """
SELECT d.datname, d.oid::bigint, pg_catalog.pg_get_userbyid(d.datdba), d.datallowconn, d.datistemplate, d.datconnlimit,
       pg_catalog.pg_encoding_to_char(d.encoding), d.datcollate, d.datctype,
       coalesce((SELECT pg_catalog.substr(c, pg_catalog.length('hms.swapped=') + 1)
                   FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) AS c
                  WHERE s.setdatabase = d.oid AND s.setrole = 0 AND pg_catalog.starts_with(c, 'hms.swapped=')), '')
  FROM pg_catalog.pg_database d ORDER BY d.datname
"""

_ATTACHED = """
SELECT a.pid, coalesce(a.datname, ''), coalesce(a.usename, ''), a.application_name,
       coalesce(pg_catalog.host(a.client_addr), ''), a.backend_type, coalesce(a.state, ''),
       extract(epoch FROM pg_catalog.clock_timestamp() - coalesce(a.xact_start, a.backend_start))::float8,
       a.xact_start IS NOT NULL
  FROM pg_catalog.pg_stat_activity a
 WHERE a.datid = ANY(%s::oid[]) AND a.pid <> pg_catalog.pg_backend_pid() ORDER BY a.pid LIMIT %s
"""

_OBSTACLES = """
SELECT ARRAY(SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = %s ORDER BY gid LIMIT 20)::text[],
       ARRAY(SELECT slot_name FROM pg_catalog.pg_replication_slots
              WHERE slot_type = 'logical' AND database = %s ORDER BY slot_name LIMIT 20)::text[],
       ARRAY(SELECT s.subname FROM pg_catalog.pg_subscription s
               JOIN pg_catalog.pg_database d ON d.oid = s.subdbid
              WHERE d.datname = %s ORDER BY s.subname LIMIT 20)::text[],
       coalesce(pg_catalog.current_setting('cron.database_name', true) = %s, false)
"""

# Roles that reach the one database and could not reach the other.
_SHUT_OUT = """
SELECT r.rolname FROM pg_catalog.pg_roles r
 WHERE r.rolcanlogin AND NOT r.rolsuper
   AND pg_catalog.has_database_privilege(r.oid, %s::oid, 'CONNECT')
   AND NOT pg_catalog.has_database_privilege(r.oid, %s::oid, 'CONNECT')
 ORDER BY r.rolname LIMIT 50
"""


_LOCKERS = """
SELECT a.pid, coalesce(a.datname, ''), coalesce(a.usename, ''), a.application_name,
       coalesce(pg_catalog.host(a.client_addr), ''), a.backend_type, coalesce(a.state, ''),
       extract(epoch FROM pg_catalog.clock_timestamp() - coalesce(a.xact_start, a.backend_start))::float8,
       a.xact_start IS NOT NULL
  FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'object' AND l.granted AND l.classid = 'pg_catalog.pg_database'::pg_catalog.regclass
   AND l.objid = ANY(%s::oid[]) AND a.application_name <> %s ORDER BY a.pid LIMIT %s
"""


def databases(session: Session) -> tuple[Database, ...]:
    """All databases of the instance."""
    found = []
    for row in session.rows(_DATABASES):
        operation, _blank, was = str(row[-1]).partition(" ")
        found.append(dataclasses.replace(Database(*row[:-1]), mark_operation=operation, mark_was=was))
    return tuple(found)


def attached(session: Session, oids: t.Sequence[int]) -> tuple[Attached, ...]:
    """Who is connected to these databases, at most `MOST_SESSIONS` of them."""
    return tuple(Attached(*row) for row in session.rows(_ATTACHED, (list(oids), MOST_SESSIONS)))


def lockers(session: Session, oids: t.Sequence[int], *, but: str) -> tuple[Attached, ...]:
    """Who has one of these databases itself in hand (ALTER, COMMENT ON, CREATE … TEMPLATE), but for one application."""
    return tuple(Attached(*row) for row in session.rows(_LOCKERS, (list(oids), but, MOST_SESSIONS)))


def obstacles(session: Session, name: str) -> Obstacles:
    """What stands in the way of renaming the database `name`."""
    prepared, slots, subscriptions, cron = expect(session.row(_OBSTACLES, (name,) * 4), "an answer")
    return Obstacles(tuple(prepared), tuple(slots), tuple(subscriptions), bool(cron))


def shut_out(session: Session, live: int, scratch: int) -> tuple[str, ...]:
    """The roles that may connect to the database `live` and not to `scratch`, by OID."""
    return tuple(str(row[0]) for row in session.rows(_SHUT_OUT, (live, scratch)))


def sessions_in_words(count: int) -> str:
    """``1 session``, ``2 sessions``."""
    return "1 session" if count == 1 else f"{count} sessions"


def check_name(name: str, what: str) -> None:
    """Raise `Refused` for what the server would not take as a database's name, or would silently cut."""
    size = len(name.encode())
    if not name or "\x00" in name or size > LONGEST_NAME:
        raise Refused(
            f"{name!r} cannot be {what}: a database's name has 1 to {LONGEST_NAME} bytes, this one has {size}.",
            reason="bad_name",
            phase="plan",
            state="Nothing was touched.",
            next_step="Give it a shorter name.",
        )


def kept_name(database: str, word: str, stamp: str) -> str:
    """``hospital_before_20250622T120000Z``; a long name is cut, so that the stamp is always whole."""
    return kept_prefix(database, word) + stamp


def kept_prefix(database: str, word: str) -> str:
    """The part of `kept_name` before the stamp."""
    ending = f"_{word}_"
    room = LONGEST_NAME - len(ending) - len("20250622T120000Z")
    return database.encode()[:room].decode("utf-8", "ignore") + ending


def stamp_of(name: str, database: str, word: str) -> str:
    """The stamp in a name made by `kept_name`; empty where it isn't one."""
    prefix = kept_prefix(database, word)
    rest = name[len(prefix) :]
    return rest if name.startswith(prefix) and _STAMP.fullmatch(rest) else ""


def statements(*, live: str, scratch: str, keep: str, operation: str, open_scratch: bool) -> list[str]:
    """For one transaction: what makes `scratch` the database `live`, and keeps the former one as `keep`, if given."""
    old, new, kept = quote_identifier(live), quote_identifier(scratch), quote_identifier(keep) if keep else ""
    found = [f"ALTER DATABASE {old} RENAME TO {kept}"] if keep else []
    found.append(f"ALTER DATABASE {new} RENAME TO {old}")
    if keep:
        found.append(f"ALTER DATABASE {kept} SET {MARK} = {quote_literal(f'{operation} {live}')}")
    found.append(f"ALTER DATABASE {old} SET {MARK} = {quote_literal(f'{operation} {scratch}')}")
    if open_scratch:
        found.append(f"ALTER DATABASE {old} ALLOW_CONNECTIONS true")
    return found


Finish = t.Callable[[str], None]
"""Runs one statement to its end, or raises."""


def rename(session: Session, work: t.Sequence[str], *, oids: t.Mapping[str, int], finish: Finish | None = None) -> None:
    """Run the statements in one transaction on a session that is connected to neither database.

    Before it commits, the names must belong to the databases that were looked at (`oids`); on any error nothing of it
    remains. `finish` runs a statement where waiting must not block.
    """
    do = finish or session.execute
    try:
        do("; ".join(["BEGIN", *work]))
        found = {database.name: database.oid for database in databases(session)}
        wrong = [name for name, oid in oids.items() if found.get(name) != oid]
        if wrong:
            raise HmsError(
                f"{', '.join(map(repr, wrong))} would not be the database that was looked at: somebody renamed or "
                "replaced it meanwhile.",
                reason="database_replaced",
                next_step="Look again: run it once more.",
            )
    except BaseException:
        _take_back(session)
        raise
    do("COMMIT")


def _take_back(session: Session) -> None:
    """Roll back; where that can't be said any more, hanging up does the same."""
    try:
        session.execute("ROLLBACK")
    except Exception:  # noqa: BLE001  the connection may be in the middle of a statement: closing it ends that too
        session.close()
