# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A backup from wish to manifest: the one entry for the module and for the job on the host. PRIVATE.

Lock, look, plan, dump, read back, and the manifest last. Whatever fails before the manifest leaves no backup, nothing
of it in the stores, and every earlier backup as it was.
"""

from __future__ import annotations

import socket

from .._clock import Clock
from .._command import CommandRunner
from .._module import Result
from .._postgres import ConnectionParams, Session, connect
from .dump import DumpOperation
from .look import Ports
from .model import Wish


def backup(
    wish: Wish, *, check_mode: bool, runner: CommandRunner, clock: Clock, by: str = "module pg_backup"
) -> Result:
    """Make the backup that is wished; in check mode only say how."""

    def opener(params: ConnectionParams) -> Session:
        return connect(params, os_user=wish.os_user)

    ports = Ports(runner=runner, clock=clock, connect=opener, host=socket.gethostname(), by=by)
    if wish.engine == "pgbackrest":
        from .physical import PhysicalOperation

        return PhysicalOperation(wish, ports).run(check_mode=check_mode)
    return DumpOperation(wish, ports).run(check_mode=check_mode)
