# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A backup by pgBackRest brought into a folder: its failures by their names, and the end of what a killed run left.

PRIVATE to the collection.
"""

from __future__ import annotations

import contextlib
import os
import signal

from .._errors import ToolFailed
from .._pipeline import Pipeline
from .._tools.pgbackrest import RC_LOCKED

NEARLY_NOTHING = 64 * 1024 * 1024


def end_workers(data: str) -> None:
    """End what a killed pgBackRest left: its workers wait for each other for ever, and one may still write a file."""
    wanted = f"--pg1-path={data}".encode()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{entry.name}/cmdline", "rb") as source:
                argv = source.read().split(b"\0")
            if os.path.basename(argv[0]) == b"pgbackrest" and wanted in argv:
                os.kill(int(entry.name), signal.SIGKILL)


def free_bytes(path: str) -> int:
    """Bytes that can still be written where `path` is or will be."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def _disk_is_full(tail: str, data: str) -> bool:
    """Whether that is why it failed: its workers say that a file can't be written, and not why."""
    return "No space left on device" in tail or ("unable to write" in tail and free_bytes(data) < NEARLY_NOTHING)


def restore(pipeline: Pipeline, data: str, *, otherwise: str) -> None:
    """Run pgBackRest's restore; its known failures by their names, what to do about others is `otherwise`."""
    try:
        pipeline.run()
    except ToolFailed as error:
        tail = str(error.details.get("stderr_tail", ""))
        if error.details.get("rc") == RC_LOCKED:
            error.reason, error.next_step = "busy", "A restore of an earlier run still ends; run again in a moment."
        elif _disk_is_full(tail, data):
            error.reason, error.next_step = "disk_full", "Make room, or name a directory on a larger disk; run again."
        else:
            error.next_step = otherwise
        raise error
