# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recovers to a time in a process of its own, which a test can kill: the order as JSON is its one argument.

Where it is told so it ends itself by SIGKILL, as soon as the side cluster's server was told to start.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import typing as t
from unittest import mock

from ansible_collections.hms.postgres.plugins.module_utils._artifact.pgbackrest_settings import Settings
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._pitr import work
from ansible_collections.hms.postgres.plugins.module_utils._pitr.look import Questions
from ansible_collections.hms.postgres.plugins.module_utils._pitr.model import Order
from ansible_collections.hms.postgres.plugins.module_utils._pitr.see import World
from ansible_collections.hms.postgres.plugins.module_utils._pitr.server import Server
from ansible_collections.hms.postgres.plugins.module_utils._pitr.target import parse_target
from ansible_collections.hms.postgres.plugins.module_utils._postgres import ConnectionParams, connect


def die(*_arguments: t.Any) -> None:
    """As the kernel does when there is no memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Do it."""
    given = json.loads(sys.argv[1])
    values = given["order"]
    values["pgbackrest"] = Settings(**values["pgbackrest"])
    values["connection"] = ConnectionParams(**values["connection"])
    target = parse_target({"target_time": given["time"]})
    if target is not None:
        world = World(connect=connect, runner=SystemRunner(), clock=SystemClock(), host="db1")
        with mock.patch.object(Server, "wait", die if given["die"] else Server.wait):
            work.recovered(Order(**values), target, Questions(), world, check_mode=False)


if __name__ == "__main__":
    main()
