# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A restore from order to result: the one entry for the module. PRIVATE."""

from __future__ import annotations

import functools
import socket
import typing as t

from .._clock import Clock
from .._command import CommandRunner
from .._module import Result
from .._postgres import connect
from .look import Ports
from .model import Order
from .operation import RestoreOperation


def restore(
    order: Order,
    *,
    check_mode: bool,
    runner: CommandRunner,
    clock: Clock,
    backup: t.Callable[[], Result] | None = None,
    by: str = "module pg_restore_safe",
) -> Result:
    """Restore what is ordered; in check mode only say how. `backup` makes one of the live database (in_place)."""
    connecting = functools.partial(connect, os_user=order.os_user)
    ports = Ports(runner, clock, connecting, socket.gethostname(), by, backup)
    return RestoreOperation(order, ports).run(check_mode=check_mode)
