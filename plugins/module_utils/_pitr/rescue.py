# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Single tables out of the side cluster into the live database, each run in one transaction. PRIVATE."""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t

from .._errors import HmsError, defect
from .._module import Result
from .._postgres import PsycopgSession, Session, format_lsn, quote_literal
from .._tools.pg_dump import without_rows
from . import plan
from .model import Order
from .record import PitrRecord
from .rescue_facts import Table, columns_sql, copy_name, needed, parents_first, read_table, refused
from .see import Seen, World, alone, make_server, see

Mode = t.Literal["copy", "missing_rows"]
AS_IT_WAS = "The live database is as it was."


@dataclasses.dataclass(frozen=True)
class Saved:
    """What was taken from one table."""

    table: str
    into: str
    rows: int
    made: bool

    def as_dict(self) -> dict[str, t.Any]:
        """For the result."""
        return dataclasses.asdict(self)


def rescued(order: Order, tables: t.Sequence[str], mode: Mode, world: World, *, check_mode: bool) -> Result:
    """Copy tables, or the rows that are missing, from the side cluster into the live database."""
    plan.check_confirm(order, check_mode=check_mode)
    with alone(order, world.clock):
        seen = see(order, world)
        _check(seen, tables)
        if check_mode:
            return _result(_work(order, tables, mode, seen, world, check_mode=True), mode, {}, "")
        parameters = {"state": "rescued", "tables": list(tables), "mode": mode, "directory": seen.folder.path}
        record = PitrRecord(order, host=world.host, parameters=parameters, clock=world.clock)
        try:
            saved = record.step(
                "rescue",
                f"Rescue {', '.join(tables)}",
                lambda: _work(order, tables, mode, seen, world, check_mode=False),
                lambda found: "; ".join(f"{one.rows} rows of {one.table} into {one.into}" for one in found),
            )
        except HmsError as error:
            record.fail(error)
            raise
        record.finish("done", f"{sum(one.rows for one in saved)} rows were brought into the live database.")
        return _result(saved, mode, record.seconds, record.path)


def _result(saved: t.Sequence[Saved], mode: Mode, seconds: t.Mapping[str, float], path: str) -> Result:
    told = [one.as_dict() for one in saved]
    changed = any(one.made if mode == "copy" else one.rows for one in saved)
    after = [f"{one.into}: {one.rows} rows" for one in saved if one.made or one.rows]
    values = {"rescued": told, "seconds": dict(seconds), "record": path}
    return Result(changed=changed, values=values, before=[], after=after if changed else [])


def _check(seen: Seen, tables: t.Sequence[str]) -> None:
    """Refuse unless a side cluster is paused at its target and the live server is a primary."""
    if not tables:
        raise refused("No table is named.", "no_tables", "Name them: tables.")
    marker, position = seen.side.marker, seen.side.position
    if marker is None or marker.stage != "recovered" or position is None or not position.paused:
        raise refused(
            f"No side cluster is paused at its target in {seen.folder.path}.",
            "not_recovered",
            "Recover first (state: recovered).",
        )
    if not seen.live.can_flush:
        what = "is a standby" if seen.live.running else "doesn't answer"
        raise refused(f"The live server here {what}.", "not_primary", "Run it on the primary.")


def _session(session: Session) -> PsycopgSession:
    """A session that can copy."""
    if not isinstance(session, PsycopgSession):
        raise defect("a session that can copy")
    return session


def _work(
    order: Order, tables: t.Sequence[str], mode: Mode, seen: Seen, world: World, *, check_mode: bool
) -> list[Saved]:
    server = make_server(order, seen.folder, seen.bin_directory, world)(seen.port, seen.version_num)
    target = dataclasses.replace(order.connection, dbname=order.database, statement_timeout=order.timeout)
    position = seen.side.position
    where = format_lsn(position.lsn) if position else ""
    with contextlib.ExitStack() as stack:
        live = _session(world.connect(target, os_user=order.os_user))
        stack.callback(live.close)
        source = _session(server.session(order.database, timeout=order.timeout))
        stack.callback(source.close)
        live.execute("BEGIN")
        try:
            if mode == "copy":
                told = seen.side.marker.target.describe() if seen.side.marker else ""
                saved = [_copy(live, source, name, where, told, check_mode=check_mode) for name in tables]
            else:
                saved = _missing_rows(live, source, tables, check_mode=check_mode)
            live.execute("ROLLBACK" if check_mode else "COMMIT")
        except HmsError as error:
            error.state = AS_IT_WAS
            error.message = without_rows(error.message).strip()  # it may quote the row that it is about
            error.next_step = error.next_step or "See what the message names; run again."
            raise
        return saved


def pump(source: PsycopgSession, target: PsycopgSession, table: str, into: str, columns: t.Iterable[str]) -> int:
    """Copy columns of a table from one server to the other as a stream; how many rows arrived, which are all."""
    names = columns_sql(columns)
    out_of = f"COPY (SELECT {names} FROM {table}) TO STDOUT"
    with source.copying(out_of) as rows_out, target.copying(f"COPY {into} ({names}) FROM STDIN") as rows_in:
        for chunk in rows_out:
            rows_in.write(chunk)
    there, here = (int(one.value(f"SELECT count(*) FROM {name}")) for one, name in ((source, table), (target, into)))
    if there != here:
        raise HmsError(f"{table} has {there} rows, and {here} arrived.", reason="rows_lost", phase="rescue")
    return here


def _copy(live: PsycopgSession, source: PsycopgSession, name: str, where: str, told: str, *, check_mode: bool) -> Saved:
    """A table of its own, with the columns and the primary key, filled with what the side cluster holds."""
    table = needed(source, name, "the side cluster")
    into = copy_name(name, where)
    comment = f"hms.postgres: {name} as of {told} (LSN {where})"
    there = read_table(live, into)
    if there is not None:
        if there.comment != comment:
            raise refused(
                f"{into} is there already and isn't ours.", "name_taken", "Rename or drop it, then run again."
            )
        return Saved(name, into, int(live.value(f"SELECT count(*) FROM {into}")), made=False)
    if check_mode:
        return Saved(name, into, int(source.value(f"SELECT count(*) FROM {table.sql}")), made=True)
    defined = ", ".join(f"{columns_sql([column])} {kind}" for column, kind in table.columns.items())
    key = f", PRIMARY KEY ({columns_sql(table.key)})" if table.key and set(table.key) <= set(table.columns) else ""
    live.execute(f"CREATE TABLE {into} ({defined}{key})")
    rows = pump(source, live, table.sql, into, table.columns)
    live.execute(f"COMMENT ON TABLE {into} IS {quote_literal(comment)}")
    return Saved(name, into, rows, made=True)


def _missing_rows(
    live: PsycopgSession, source: PsycopgSession, tables: t.Sequence[str], *, check_mode: bool
) -> list[Saved]:
    """Rows whose primary key isn't in the live table any more, parents first; foreign keys are held."""
    targets = parents_first([needed(live, name, "the live database") for name in tables])
    live.execute("SET CONSTRAINTS ALL DEFERRED")
    return [
        _put_back(live, source, table, needed(source, table.name, "the side cluster"), number, check_mode=check_mode)
        for number, table in enumerate(targets)
    ]


def _put_back(
    live: PsycopgSession, source: PsycopgSession, table: Table, old: Table, number: int, *, check_mode: bool
) -> Saved:
    common = [column for column in table.columns if column in old.columns]
    if not table.key or not set(table.key) <= set(common):
        raise refused(
            f"{table.name} has no primary key by which missing rows could be told, or the side cluster's has another.",
            "no_primary_key",
            "Rescue it with mode: copy.",
        )
    aside, columns = f"hms_rescue_{number}", columns_sql(common)
    live.execute(f"CREATE TEMPORARY TABLE {aside} ON COMMIT DROP AS SELECT {columns} FROM {table.sql} WHERE false")
    pump(source, live, old.sql, aside, common)
    same = " AND ".join(f"l.{columns_sql([column])} = s.{columns_sql([column])}" for column in table.key)
    missing = f"FROM {aside} s WHERE NOT EXISTS (SELECT 1 FROM {table.sql} l WHERE {same})"
    if check_mode:
        return Saved(table.name, table.name, int(live.value(f"SELECT count(*) {missing}")), made=False)
    taken = ", ".join(f"s.{columns_sql([column])}" for column in common)
    rows = live.value(
        f"WITH put AS (INSERT INTO {table.sql} ({columns}) OVERRIDING SYSTEM VALUE "
        f"SELECT {taken} {missing} RETURNING 1) SELECT count(*) FROM put"
    )
    return Saved(table.name, table.name, int(rows), made=False)
