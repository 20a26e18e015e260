# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ends a whole PostgreSQL instance as a power cut would: SIGKILL to its postmaster and all its children.

PRIVATE to the collection; for the demo, the lab and the benchmark.
"""

from __future__ import annotations

import os
import signal
import time
import typing as t

from .._clock import SystemClock, wait_until
from .._errors import DeadlinePassed, Refused
from .._tools.service import postmaster_pid, processes_in
from . import process

PATIENCE = 10.0


def is_standby(data_directory: str) -> bool:
    """Whether the instance was started as a standby."""
    return os.path.exists(os.path.join(data_directory, "standby.signal"))


def kill_instance(data_directory: str) -> dict[str, t.Any]:
    """SIGKILL the postmaster, then its children at once; returns when none of them runs any more."""
    head = postmaster_pid(data_directory)
    if head is None:
        raise Refused(
            f"No server runs on {data_directory}.",
            reason="not_running",
            state="Nothing was killed.",
            next_step="Check the data directory that was given.",
        )
    children = [pid for pid in processes_in(data_directory) if pid != head]
    at = time.time()
    for pid in (head, *children):  # the postmaster first: it would otherwise start the crashed children anew
        process.send(pid, signal.SIGKILL)
    if not wait_until(lambda: not processes_in(data_directory), clock=SystemClock(), timeout=PATIENCE, interval=0.01):
        raise DeadlinePassed(
            f"Processes of {data_directory} survived SIGKILL for {PATIENCE:g} seconds.", reason="kill_failed"
        )
    return {"at": at, "postmaster": head, "processes": 1 + len(children), "data_directory": data_directory}
