# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way that clients take, tried: a query through every process, and a login over TLS. PRIVATE."""

from __future__ import annotations

import os
import typing as t

from .._clock import Clock
from .._cluster.member_config import FILE_NAME, BouncerHost
from .._errors import HmsError
from .._files import read_json
from .._module import Result
from .._postgres import ConnectionParams, Session
from .pooler_processes import load_bouncer

_QUERY = """
SELECT pg_catalog.pg_is_in_recovery(), coalesce(host(pg_catalog.inet_server_addr()), ''),
       coalesce(pg_catalog.inet_server_port(), 0)
"""

Connect = t.Callable[..., Session]


class PoolerPing:
    """Tries every process of one bouncer host."""

    def __init__(self, config_directory: str, *, connect: Connect, clock: Clock) -> None:
        self._config_directory = config_directory
        self._connect = connect
        self._clock = clock

    def check(self, *, check_mode: bool) -> Result:
        """A query for each database through each process, and one over TLS as a client comes."""
        host = load_bouncer(self._config_directory, check_mode=check_mode)
        if host is None:
            return Result(False, {"ways": []})
        ways = []
        for process in host.processes:
            for database in host.databases:
                params = host.through(process, dbname=str(database["name"]))
                ways.append(self._try(f"process {process.name}", params))
        ways.append(self._try("TLS", self._over_tls(host)))
        return Result(False, {"ways": ways})

    def _over_tls(self, host: BouncerHost) -> ConnectionParams:
        raw = read_json(os.path.join(self._config_directory, FILE_NAME))
        return ConnectionParams(
            host=raw["listen_address_local"],
            port=host.port,
            user=host.monitor.user,
            dbname=str(host.databases[0]["name"]),
            passfile=host.monitor.passfile,
            sslmode=raw["client_sslmode"],
            sslrootcert=raw.get("client_sslrootcert"),
            startup_options=False,
        )

    def _try(self, way: str, params: ConnectionParams) -> dict[str, t.Any]:
        begun = self._clock.monotonic()
        try:
            session = self._connect(params)
            try:
                (row,) = session.rows(_QUERY)
            finally:
                session.close()
        except HmsError as error:
            raise HmsError(
                f"No query came through PgBouncer ({way}, database {params.dbname}): {error.message}",
                reason="path_broken",
                state="The bouncer runs, but clients cannot work through it.",
                next_step="Its log names the cause: the server's pg_hba.conf, the password of hms_pgbouncer, "
                "certificates, or a server that is down.",
                details={"way": way, "database": params.dbname},
            ) from error
        if row[0]:
            raise HmsError(
                f"PgBouncer ({way}, database {params.dbname}) leads to a standby at {row[1]}:{row[2]}.",
                reason="leads_to_standby",
                state="Clients that write get errors.",
                next_step="Run playbooks/site.yml, which leads the bouncers to the primary.",
            )
        return {
            "way": way,
            "database": params.dbname,
            "server": f"{row[1]}:{row[2]}",
            "seconds": round(self._clock.monotonic() - begun, 4),
        }
