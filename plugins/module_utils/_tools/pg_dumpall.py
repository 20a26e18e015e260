# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pg_dumpall: what belongs to the whole cluster, roles and tablespaces, as SQL. PRIVATE to the collection."""

from __future__ import annotations

from .._pipeline import Stage
from .._postgres import ConnectionParams, quote_conninfo
from .pg_dump import environment, without_rows


class PgDumpAll:
    """The program of one version, by its path."""

    def __init__(self, program: str, *, os_user: str | None = None) -> None:
        self._program = program
        self._os_user = os_user

    def globals_stage(self, source: ConnectionParams, *, passwords: bool) -> Stage:
        """Roles, memberships, settings of roles and tablespaces; the hashes of passwords only when asked for."""
        argv = [self._program, "--globals-only", *([] if passwords else ["--no-role-passwords"]), "--no-password"]
        # it would look for a database named postgres to begin with, which need not be there
        env = environment(source)
        argv.append(f"--database=dbname={quote_conninfo(env.pop('PGDATABASE'))}")
        return Stage("pg_dumpall", tuple(argv), env=env, os_user=self._os_user, clean=without_rows)
