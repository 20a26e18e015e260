# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ports for servers of tests: below those that the kernel gives to clients, and never one for two of us.

Nobody listens on a port between the moment it is chosen and the moment its server starts, nor while that server is
down. A name in the abstract namespace, bound as long as the port is kept, tells every other process of tests.
"""

from __future__ import annotations

import itertools
import os
import socket
import typing as t


class Port(t.NamedTuple):
    """A port, and what keeps it; it is free for others once `kept` is closed."""

    number: int
    kept: socket.socket


def port_is_free(port: int) -> bool:
    """Whether nobody listens on a port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def keep_port(first: int, last: int, *, taken: t.Container[int] = ()) -> Port:
    """A port from `first` to `last` that nobody listens on and no other test keeps."""
    # far from a neighbour, who looks at the same time
    start = first + os.getpid() * 83 % (last - first)
    for number in itertools.chain(range(start, last + 1), range(first, start)):
        if number in taken:
            continue
        kept = socket.socket(socket.AF_UNIX)
        try:
            kept.bind(f"\0hmstest-port-{number}")
        except OSError:
            kept.close()
            continue
        if port_is_free(number):
            return Port(number, kept)
        kept.close()
    raise AssertionError(f"no free port from {first} to {last}")
