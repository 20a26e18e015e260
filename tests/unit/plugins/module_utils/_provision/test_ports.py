# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import socket

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._provision.ports import find_holder, listening_inodes

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 4711 1 0 100 0 0 10 0
   1: 0100007F:1538 0100007F:9C40 01 00000000:00000000 00:00000000 00000000   101        0 4712 1 0 20 4 30 10 -1
   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0
   3: short line
"""


@pytest.mark.parametrize(("port", "inodes"), [(5432, {"4711"}), (22, {"4713"}), (5433, set())])
def test_only_listening_sockets_of_the_port_count(port: int, inodes: set[str]) -> None:
    assert listening_inodes(TABLE, port) == inodes


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_who_listens(family: int, address: str) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as server:
        try:
            server.bind((address, 0))
        except OSError:
            return  # this machine has no IPv6
        server.listen()
        holder = find_holder(server.getsockname()[1])
        assert holder is not None
        assert holder.pid == os.getpid()
        assert holder.program


def test_a_free_port_has_no_holder() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        assert find_holder(probe.getsockname()[1]) is None, "bound, but not listening"
