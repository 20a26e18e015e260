# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs that are held at a moment for as long as a test needs it, on machines of any speed.

`unread` lets a dump come as far as to the last row of a table, `waiting_restores` a restore to a table's rows, and a
`ProgramGate` lets a run wait where it starts a program.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import subprocess
import typing as t

import psycopg

from ansible_collections.hms.postgres.tests.real.lab import Instance, process_alive, until

_SESSION = "SELECT 'CREATE ROLE holder SUPERUSER LOGIN' WHERE to_regrole('holder') IS NULL"
_TOAST_INDEX = """
SELECT i.indexrelid::regclass FROM pg_index i JOIN pg_class c ON c.reltoastrelid = i.indrelid
WHERE c.oid = %s::regclass
"""
_STAND_IN = """\
#!/bin/sh
case " $* " in *" --version "*) exec {real} "$@";; esac
: > {folder}/$$
while [ ! -e {folder}/$$.go ] && [ ! -e {folder}/open ]; do sleep 0.02; done
exec {real} "$@"
"""
_COVER = 'while [ "$1" != -- ]; do mount --bind "$1" "$2" || exit 9; shift 2; done; shift; exec "$@"'


@contextlib.contextmanager
def holding(instance: Instance, dbname: str, *statements: t.LiteralString) -> t.Iterator[psycopg.Connection[t.Any]]:
    """A superuser's session, and a transaction in which these were done, to the end of this; the server may end it."""
    role = instance.sql(_SESSION)
    if role:
        instance.sql(role)
    where = f"host={instance.sockets} port={instance.port} user=holder dbname={dbname} application_name=holder"
    connection = psycopg.connect(where, autocommit=True)
    try:
        connection.execute("BEGIN")
        for statement in statements:
            connection.execute(statement)
        yield connection
        with contextlib.suppress(psycopg.OperationalError):
            connection.execute("ROLLBACK")
    finally:
        connection.close()


@contextlib.contextmanager
def unread(instance: Instance, dbname: str, *tables: str) -> t.Iterator[None]:
    """Nobody reads a value that is kept beside one of these tables: in a `big_table` that is the last row's.

    The index by which such a value is found is being built anew; nothing else of the table is locked.
    """
    with holding(instance, dbname) as connection:
        for table in tables:
            row = connection.execute(_TOAST_INDEX, (table,)).fetchone()
            assert row is not None, table
            connection.execute(f"REINDEX INDEX {row[0]}")
        yield


@dataclasses.dataclass(frozen=True)
class ServerGate:
    """A file on which a server waits: a restore that comes by while it is there stays at that very moment."""

    path: pathlib.Path

    @property
    def query(self) -> str:
        """Ends when the gate is open."""
        return (
            "SELECT coalesce(max(pg_sleep(0.05)::text), '') FROM generate_series(1, 6000)"
            f" WHERE (pg_stat_file('{self.path}', true)).size IS NOT NULL"
        )

    def before(self, server: Instance, dbname: str, *tables: str) -> None:
        """Rows get into these tables, and into what is restored of them, while it is open."""
        server.sql(
            "CREATE FUNCTION come_by() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN"
            f" WHILE (pg_catalog.pg_stat_file('{self.path}', true)).size IS NOT NULL LOOP"
            " PERFORM pg_catalog.pg_sleep(0.05); END LOOP; RETURN true; END $$;"
            + "".join(f" ALTER TABLE {table} ADD CHECK (come_by());" for table in tables),
            dbname=dbname,
        )

    @contextlib.contextmanager
    def closed(self) -> t.Iterator[None]:
        """Nobody gets past it meanwhile."""
        self.path.touch()
        try:
            yield
        finally:
            self.path.unlink()


@contextlib.contextmanager
def waiting_restores(instance: Instance, dbname: str) -> t.Iterator[None]:
    """A restore of the database, of a dump made meanwhile, waits at the rows of two tables, wherever it goes to."""
    gate = ServerGate(instance.folder / "restores-wait")
    instance.sql("CREATE TABLE patience AS SELECT 1 AS n; CREATE TABLE more_patience AS SELECT 1 AS n", dbname=dbname)
    gate.before(instance, dbname, "patience", "more_patience")
    try:
        with gate.closed():
            yield
    finally:
        instance.sql("DROP TABLE patience, more_patience; DROP FUNCTION come_by", dbname=dbname)


class ProgramGate:
    """Programs that a run behind it starts only when the test lets them; but what asks for a version alone passes.

    The run has a mount namespace of its own, in which a stand-in lies over each program. It waits, then becomes it.
    """

    def __init__(self, folder: pathlib.Path, *programs: pathlib.Path | str) -> None:
        self._folder = folder / "gate"
        self._folder.mkdir()
        self._folder.chmod(0o777)
        self._covers: list[str] = []
        # in one place: some look for another one beside them
        reals, stand_ins = folder / "programs", folder / "stand-ins"
        reals.mkdir()
        stand_ins.mkdir()
        for program in map(pathlib.Path, programs):
            real, stand_in = reals / program.name, stand_ins / program.name
            shutil.copy(program, real)
            stand_in.write_text(_STAND_IN.format(real=real, folder=self._folder))
            stand_in.chmod(0o755)
            self._covers += [str(stand_in), str(program)]

    @property
    def prefix(self) -> list[str]:
        """What stands before the run's own arguments; its process id stays what it is."""
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", _COVER, "gate", *self._covers, "--"]

    def waiting(self) -> list[int]:
        """The processes that wait."""
        names = os.listdir(self._folder)
        return [
            int(name) for name in names if name.isdigit() and f"{name}.go" not in names and process_alive(int(name))
        ]

    def let(self, pid: int) -> None:
        """Let one go on."""
        (self._folder / f"{pid}.go").touch()

    def open(self) -> None:
        """Nobody waits any more."""
        (self._folder / "open").touch()

    def hold(self, process: subprocess.Popen[bytes], wanted: t.Callable[[int], bool], what: str) -> int:
        """Let all go until one comes for which this holds; that one waits on."""
        found: list[int] = []

        def look() -> bool:
            for pid in self.waiting():
                if wanted(pid):
                    found.append(pid)
                    return True
                self.let(pid)
            return process.poll() is not None

        until(look, what, seconds=100)
        assert process.poll() is None, f"it ended before {what}"
        return found[0]
