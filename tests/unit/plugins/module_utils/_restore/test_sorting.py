# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._restore.sorting import Machine, sorting_memory, this_host

MB, GB = 1 << 20, 1 << 30
LARGE = Machine(cores=2, available=64 * GB)


@pytest.mark.parametrize(
    ("database", "jobs", "machine", "memory"),
    [
        pytest.param(1 * GB, 2, LARGE, 16 * MB, id="runs that fit into a cache"),
        pytest.param(0, 2, LARGE, 16 * MB, id="never less"),
        pytest.param(100 * GB, 2, LARGE, 116 * MB, id="one pass merges all of it"),
        pytest.param(9000 * GB, 2, LARGE, 256 * MB, id="never more"),
        pytest.param(1 * GB, 1, LARGE, 64 * MB, id="a second process joins in where a core is free"),
        pytest.param(1 * GB, 1, Machine(32, 64 * GB), 96 * MB, id="and a third"),
        pytest.param(1 * GB, 32, Machine(64, 64 * GB), 64 * MB, id="for each of many jobs"),
        pytest.param(9000 * GB, 2, Machine(2, 1 * GB), 32 * MB, id="a sixteenth of what is left, for all"),
        pytest.param(9000 * GB, 1, Machine(4, 0), 16 * MB, id="nobody knows what is left"),
    ],
)
def test_as_little_as_is_enough(database: int, jobs: int, machine: Machine, memory: int) -> None:
    assert sorting_memory(database, jobs, machine) // MB == memory // MB


@pytest.mark.parametrize("database", [2**exponent * MB for exponent in range(5, 19)])
def test_one_pass_is_enough_for_half_the_database(database: int) -> None:
    memory = sorting_memory(database, 2, LARGE)
    runs = database / 2 / memory
    assert memory == 256 * MB or (runs <= 500 and runs * 272 * 1024 <= memory * 1.001)


def test_this_host_is_known() -> None:
    found = this_host()
    assert found.cores == os.cpu_count()
    assert found.available > 100 * MB
