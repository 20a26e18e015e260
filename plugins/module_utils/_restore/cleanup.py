# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The removal of databases that a restore put aside, when their days are over. PRIVATE."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import socket
import typing as t

from .._artifact.database import Connect, read_server
from .._artifact.options import bad_config, connection_from
from .._artifact.running import check_user, ending_properly
from .._artifact.scratch import open_maintenance
from .._artifact.step_record import ServerClock, StepRecord
from .._clock import Clock, iso
from .._errors import HmsError, Refused
from .._module import Result
from .._postgres import ConnectionParams, Session, connect, quote_identifier
from .._record import new_id
from .._tools.database_rename import databases
from .names import put_aside
from .rules import PRODUCTION

OPERATION = "cleanup"
_DAY = 86400.0
_FOUND = """
SELECT d.datname::text, pg_catalog.pg_database_size(d.oid),
  (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity a
    WHERE a.datid = d.oid AND a.backend_type = 'client backend'),
  ARRAY(SELECT s.slot_name::text FROM pg_catalog.pg_replication_slots s WHERE s.database = d.datname)
    || ARRAY(SELECT s.subname::text FROM pg_catalog.pg_subscription s WHERE s.subdbid = d.oid)
FROM pg_catalog.pg_database d WHERE NOT d.datistemplate ORDER BY 1
"""


@dataclasses.dataclass(frozen=True)
class Old:
    """A database that was put aside."""

    name: str
    since: datetime.datetime
    bytes: int
    sessions: int
    replication: tuple[str, ...]
    """Slots and subscriptions that still belong to it."""


@dataclasses.dataclass(frozen=True)
class Wish:
    """What is to go.

    Attributes:
        connection: the server; its dbname is the live database's name.
        names: these; none for all that are older than `days`.
        with_sessions: also those that somebody is connected to.
    """

    cluster: str
    environment: str
    connection: ConnectionParams
    os_user: str | None
    state_dir: str
    days: float = 7.0
    names: tuple[str, ...] = ()
    with_sessions: bool = False
    confirm: str = ""

    @property
    def database(self) -> str:
        """The live database."""
        return self.connection.dbname


@dataclasses.dataclass(frozen=True)
class Decision:
    """What becomes of one, and why."""

    old: Old
    drop: bool
    why: str

    def as_dict(self) -> dict[str, t.Any]:
        """As plain data."""
        return {
            "name": self.old.name,
            "since": iso(self.old.since),
            "bytes": self.old.bytes,
            "sessions": self.old.sessions,
            "drop": self.drop,
            "why": self.why,
        }


def wish_from(params: t.Mapping[str, t.Any], *, base: t.Mapping[str, t.Any]) -> Wish:
    """The wish that a module's arguments amount to; `base` is what the host's own file says."""
    given = {key: value for key, value in params.items() if value is not None}
    values = {**base, **given}
    if not (values.get("cluster") and values.get("environment")):
        raise bad_config("Neither config_directory nor cluster and environment are given.", "Give one of them.")
    found = dataclasses.replace(
        connection_from(values, values["database"]), application_name="hms.postgres restore cleanup"
    )
    return Wish(
        values["cluster"],
        values["environment"],
        found,
        values.get("os_user", "postgres") or None,
        values.get("state_dir") or f"/var/lib/hms-postgres/{values['cluster']}",
        days=float(given.get("older_than_days", Wish.days)),
        names=tuple(given.get("names") or ()),
        with_sessions=bool(given.get("with_sessions")),
        confirm=str(given.get("confirm") or ""),
    )


def read_old(session: Session, database: str) -> tuple[Old, ...]:
    """The databases that were put aside for `database`: by their names, and by the mark that the swap left on them."""
    marks = {known.name: known.mark_was for known in databases(session)}
    found = []
    for name, size, sessions, replication in session.rows(_FOUND):
        since = put_aside(name, database) if marks.get(name) == database else None
        if since is not None:
            found.append(Old(name, since, int(size), int(sessions), tuple(replication)))
    return tuple(sorted(found, key=lambda old: old.since))


def decide(wish: Wish, found: t.Sequence[Old], now: datetime.datetime) -> tuple[Decision, ...]:
    """What becomes of each. Pure. A name that is none of them is a refusal."""
    unknown = [name for name in wish.names if name not in {old.name for old in found}]
    if unknown:
        raise Refused(
            f"{', '.join(unknown)} is no database that a restore of {wish.database} has put aside.",
            reason="unknown_name",
            phase="plan",
            state="Nothing was touched.",
            next_step=f"There are: {', '.join(old.name for old in found) or 'none'}.",
        )
    return tuple(_decide(wish, old, (now - old.since).total_seconds() / _DAY) for old in found)


def _decide(wish: Wish, old: Old, age: float) -> Decision:
    if wish.names and old.name not in wish.names:
        return Decision(old, False, "it is not named")
    if not wish.names and age < wish.days:
        return Decision(old, False, f"it is {age:.1f} days old and is kept for {wish.days:g}")
    if old.replication:
        return Decision(old, False, f"{', '.join(old.replication)} (slots, subscriptions) still belong to it")
    if old.sessions and not wish.with_sessions:
        return Decision(old, False, f"{old.sessions} sessions are connected to it")
    return Decision(old, True, "it is named" if wish.names else f"it is {age:.1f} days old")


class CleanupRecord(StepRecord):
    """Journal of one cleanup."""

    operation = OPERATION


def _confirmed(wish: Wish, *, check_mode: bool) -> None:
    if wish.confirm == wish.database or (not wish.confirm and (check_mode or wish.environment != PRODUCTION)):
        return
    raise Refused(
        f"Dropping what was put aside of {wish.database} has to be confirmed; the confirmation is {wish.confirm!r}.",
        reason="not_confirmed",
        phase="plan",
        state="Nothing was touched.",
        next_step=f"Look at the plan (--check), then run again with confirm={wish.database}.",
    )


def cleanup(
    wish: Wish,
    *,
    check_mode: bool,
    clock: Clock,
    by: str = "module pg_restore_cleanup",
    connecting: Connect | None = None,
) -> Result:
    """Drop what is to go; in check mode only say what would."""
    check_user(wish.os_user)
    opener = connecting or functools.partial(connect, os_user=wish.os_user)
    with contextlib.ExitStack() as stack:
        stack.enter_context(ending_properly("The cleanup", "What was dropped before is gone; the others stay."))
        session = open_maintenance(wish.connection, opener)
        stack.callback(session.close)
        _server, now = read_server(session)
        decisions = decide(wish, read_old(session, wish.database), now)
        going = [decision for decision in decisions if decision.drop]
        _confirmed(wish, check_mode=check_mode)
        record = None
        if going and not check_mode:
            record = _drop(wish, session, going, ServerClock(clock, now), by)
    return Result(
        changed=bool(going),
        values={"plan": [decision.as_dict() for decision in decisions], "record": record},
        before=[decision.old.name for decision in decisions],
        after=[decision.old.name for decision in decisions if not decision.drop],
    )


def _drop(wish: Wish, session: Session, going: t.Sequence[Decision], clock: ServerClock, by: str) -> str:
    record = CleanupRecord(
        wish.state_dir,
        new_id(OPERATION, clock),
        cluster=wish.cluster,
        environment=wish.environment,
        host=socket.gethostname(),
        by=by,
        parameters={"database": wish.database, "days": wish.days, "names": list(wish.names), "confirm": wish.confirm},
        clock=clock,
    )
    force = " WITH (FORCE)" if wish.with_sessions else ""
    try:
        for decision in going:
            statement = f"DROP DATABASE {quote_identifier(decision.old.name)}{force}"
            record.step(
                f"drop {decision.old.name}",
                f"Drop {decision.old.name}: {decision.why}",
                functools.partial(session.execute, statement),
                lambda _none: "dropped",
            )
    except HmsError as error:
        error.state = error.state or "The live database was not touched; what was dropped before is gone."
        record.finish("failed", error.message, [error.next_step] if error.next_step else [])
        raise
    record.finish("done", f"{len(going)} databases were dropped.")
    return record.path
