# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looking at a bouncer host: its processes, where they lead, whom they hold. PRIVATE."""

from __future__ import annotations

import typing as t

from .._errors import HmsError
from .._files import read_bytes
from .._tools.pgbouncer_console import PgbouncerConsole
from .databases_file import PATH_PREFIX, head
from .facts import last_operation
from .member_config import BouncerHost, PoolerProcess
from .model import PoolerFacts, ProcessFacts

SETTINGS = ("query_wait_timeout", "server_login_retry", "min_pool_size", "pool_mode", "so_reuseport", "query_timeout")
_INTERNAL = "pgbouncer"


def observe(host: BouncerHost, consoles: t.Mapping[str, PgbouncerConsole | HmsError] | None = None) -> PoolerFacts:
    """Look at this bouncer host. `consoles` are open ones by process name, or None to open them here."""
    content = read_bytes(host.databases_file) or b""
    heading = head(content.decode("utf-8", "replace")) or {}
    return PoolerFacts(
        name=host.name,
        address=host.address,
        file_primary=heading.get("primary", ""),
        processes=tuple(_process(host, process, (consoles or {}).get(process.name)) for process in host.processes),
        last_operation=last_operation(host.state_directory),
    )


def _process(host: BouncerHost, process: PoolerProcess, console: PgbouncerConsole | HmsError | None) -> ProcessFacts:
    own = None
    try:
        if isinstance(console, HmsError):
            raise console
        if console is None:
            own = console = PgbouncerConsole(host.console(process), os_user=host.os_user)
        return _through(console, host, process.name)
    except HmsError as error:
        return ProcessFacts(name=process.name, reachable=False, error=error.message)
    finally:
        if own is not None:
            own.close()


def _through(console: PgbouncerConsole, host: BouncerHost, name: str) -> ProcessFacts:
    ours = {str(database["name"]) for database in host.databases}
    rows = [row for row in console.databases() if row["name"] != _INTERNAL]
    mine = [row for row in rows if row["name"] in ours]
    targets = {f"{row['host']}:{row['port']}" for row in mine}
    pools = [row for row in console.pools() if row["database"] in ours]
    config = console.config()
    return ProcessFacts(
        name=name,
        version=console.version(),
        target=targets.pop() if len(targets) == 1 else "",
        paused=any(str(row["paused"]) == "1" for row in mine),
        foreign_databases=tuple(
            sorted(
                str(row["name"]) for row in rows if row["name"] not in ours and not row["name"].startswith(PATH_PREFIX)
            )
        ),
        pool_modes=tuple(sorted({str(row["pool_mode"] or config.get("pool_mode", "")) for row in mine})),
        clients_active=sum(int(row["cl_active"]) for row in pools),
        clients_waiting=sum(int(row["cl_waiting"]) for row in pools),
        servers=sum(int(row["sv_active"]) + int(row["sv_idle"]) + int(row["sv_used"]) for row in pools),
        settings={key: config[key] for key in SETTINGS if key in config},
    )
