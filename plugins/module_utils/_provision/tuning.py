# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings for a server from its memory and cores: pure functions. PRIVATE to the collection.

What a standby must have at least as large as its primary (connections, WAL senders, worker processes, locks) never
depends on the host: two hosts of different size could not take each other's place.
"""

from __future__ import annotations

import typing as t

from .._errors import HmsError

Setting = t.Union[bool, int, float, str]

_MB_PER_GB = 1024
_LEAST_MEMORY_MB = 256


def _size(megabytes: float) -> str:
    """A size as PostgreSQL writes it: whole gigabytes where it comes out even."""
    whole = int(megabytes)
    return f"{whole // _MB_PER_GB}GB" if whole >= _MB_PER_GB and whole % _MB_PER_GB == 0 else f"{whole}MB"


def _between(least: float, value: float, most: float) -> float:
    return max(least, min(value, most))


def memory_settings(*, memory_mb: int, max_connections: int) -> dict[str, Setting]:
    """A quarter of the memory for shared buffers, the rest shared out with room for the operating system."""
    shared_buffers = _between(64, memory_mb / 4, 32 * _MB_PER_GB)
    # each session may sort or hash several times at once; three quarters of what is left is for them
    work_mem = _between(4, (memory_mb - shared_buffers) * 0.75 / (max_connections * 3), 128)
    return {
        "shared_buffers": _size(shared_buffers),
        "effective_cache_size": _size(memory_mb * 0.7),
        "maintenance_work_mem": _size(_between(64, memory_mb / 16, 2 * _MB_PER_GB)),
        "work_mem": _size(work_mem),
        "wal_buffers": "16MB",
        "min_wal_size": _size(_between(80, memory_mb / 8, 2 * _MB_PER_GB)),
        "max_wal_size": _size(_between(1 * _MB_PER_GB, memory_mb / 2, 16 * _MB_PER_GB)),
    }


def core_settings(*, cores: int) -> dict[str, Setting]:
    """Parallel query within the cores that there are; the pool of worker processes is the same on every host."""
    per_query = int(_between(0, cores // 2, 4))
    return {
        "max_worker_processes": 32,
        "max_parallel_workers": int(_between(1, cores, 32)),
        "max_parallel_workers_per_gather": per_query,
        "max_parallel_maintenance_workers": per_query,
    }


def tune(
    *, memory_mb: int, cores: int, max_connections: int, overrides: t.Mapping[str, Setting] | None = None
) -> dict[str, Setting]:
    """The settings for a host, with `overrides` on top."""
    if memory_mb < _LEAST_MEMORY_MB or cores < 1 or max_connections < 1:
        raise HmsError(
            f"No server can be tuned for {memory_mb} MB of memory, {cores} cores and {max_connections} connections.",
            reason="bad_size",
            state="Nothing was touched.",
            next_step=f"Give at least {_LEAST_MEMORY_MB} MB (postgresql_memory_mb) and one core (postgresql_cores).",
        )
    settings: dict[str, Setting] = {"max_connections": max_connections}
    settings.update(memory_settings(memory_mb=memory_mb, max_connections=max_connections))
    settings.update(core_settings(cores=cores))
    settings.update(overrides or {})
    return settings


def render_value(value: Setting) -> str:
    """A value as postgresql.conf takes it: always quoted, so that nothing in it has a meaning."""
    text = ("on" if value else "off") if isinstance(value, bool) else str(value)
    if any(char in text for char in "\r\n\x00"):
        raise HmsError("The value of a setting must be on one line.", reason="bad_setting")
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
