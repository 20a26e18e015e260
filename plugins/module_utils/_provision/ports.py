# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who listens on a TCP port of this host, read from /proc. PRIVATE to the collection."""

from __future__ import annotations

import contextlib
import os
import re
import typing as t

from .instance_model import PortHolder

_LISTEN = "0A"
_SOCKET = re.compile(r"^socket:\[(\d+)\]$")


def listening_inodes(table: str, port: int) -> set[str]:
    """The inodes of sockets that listen on `port`, from the text of /proc/net/tcp or tcp6."""
    found = set()
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
            found.add(fields[9])
    return found


def _processes_with(inodes: set[str]) -> t.Iterator[int]:
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):  # it ended, or it isn't ours to look into
            for handle in os.listdir(f"/proc/{entry}/fd"):
                with contextlib.suppress(OSError):
                    match = _SOCKET.match(os.readlink(f"/proc/{entry}/fd/{handle}"))
                    if match and match.group(1) in inodes:
                        yield int(entry)
                        break


def _program(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as source:
            return source.read().strip()
    except OSError:
        return ""


def find_holder(port: int) -> PortHolder | None:
    """The process that listens on `port`, None when it is free.

    The pid is None where the process can't be seen, e.g. in another namespace.
    """
    inodes: set[str] = set()
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError), open(name, encoding="ascii") as source:
            inodes |= listening_inodes(source.read(), port)
    if not inodes:
        return None
    pids = sorted(_processes_with(inodes))  # a daemon's children share its socket; the parent has the lowest pid
    return PortHolder(pids[0], _program(pids[0])) if pids else PortHolder(None, "")
