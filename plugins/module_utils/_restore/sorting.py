# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much memory the sessions that load are given to sort with. PRIVATE.

As little as lets every index be sorted in runs that one pass can merge: runs that fit into a processor's cache are made
faster (docs/benchmarks.md tells by how much), and a second pass would read and write everything once more.
"""

from __future__ import annotations

import contextlib
import math
import os
import typing as t

_MERGE = 272 * 1024
"""Bytes that are read ahead of each run that is merged (MERGE_BUFFER_SIZE, TAPE_BUFFER_OVERHEAD in tuplesort.c)."""
_RUNS = 500
"""The most that it merges at a time (MAXORDER)."""
_LEAST, _MOST = 16 << 20, 256 << 20
_WORKER = 32 << 20
"""The least that a process is given which builds an index together with others; for less PostgreSQL starts none."""
_TOGETHER = 3
"""As many build one, with max_parallel_maintenance_workers as it comes."""
_PART = 16
"""Of the memory that is left, for sorting by all jobs together."""


class Machine(t.NamedTuple):
    """What there is to sort on: cores, and bytes that programs could have without swapping, 0 for unknown."""

    cores: int
    available: int


def this_host() -> Machine:
    """As the kernel says."""
    available = 0
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/meminfo", encoding="ascii") as source:
        available = int(source.read().partition("MemAvailable:")[2].split()[0]) * 1024
    return Machine(os.cpu_count() or 1, available)


def sorting_memory(database: int, jobs: int, machine: Machine) -> int:
    """maintenance_work_mem of each of so many jobs for a database of so many bytes; in bytes."""
    largest = database // 2  # nothing says how large an index is before it is there
    merged = max(math.isqrt(largest * _MERGE), largest // _RUNS)
    free = min(_TOGETHER, machine.cores // jobs)
    together = free * _WORKER if free > 1 else 0
    return max(_LEAST, min(_MOST, machine.available // _PART // jobs, max(merged, together)))
