# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._provision.tuning import (
    Setting,
    core_settings,
    memory_settings,
    render_value,
    tune,
)

# What a standby must have at least as large as its primary.
EQUAL_ON_ALL_MEMBERS = {"max_connections", "max_worker_processes", "max_wal_senders", "max_locks_per_transaction"}


def megabytes(value: Setting) -> int:
    match = re.fullmatch(r"(\d+)(MB|GB)", str(value))
    assert match, value
    return int(match[1]) * (1024 if match[2] == "GB" else 1)


@pytest.mark.parametrize(
    ("memory_mb", "connections", "expected"),
    [
        (512, 100, {"shared_buffers": "128MB", "work_mem": "4MB", "effective_cache_size": "358MB"}),
        (4096, 100, {"shared_buffers": "1GB", "work_mem": "7MB", "maintenance_work_mem": "256MB"}),
        (65536, 200, {"shared_buffers": "16GB", "work_mem": "61MB", "max_wal_size": "16GB", "min_wal_size": "2GB"}),
        (1048576, 50, {"shared_buffers": "32GB", "work_mem": "128MB", "maintenance_work_mem": "2GB"}),
    ],
)
def test_sizes_for_hosts_we_know(memory_mb: int, connections: int, expected: dict[str, str]) -> None:
    found = memory_settings(memory_mb=memory_mb, max_connections=connections)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("memory_mb", [256, 300, 1000, 2048, 16000, 128 * 1024, 1024 * 1024])
@pytest.mark.parametrize("connections", [1, 60, 1000])
def test_memory_is_never_given_away_twice(memory_mb: int, connections: int) -> None:
    found = {
        name: megabytes(value)
        for name, value in memory_settings(memory_mb=memory_mb, max_connections=connections).items()
    }
    assert found["shared_buffers"] <= memory_mb / 4
    assert found["work_mem"] == 4 or found["shared_buffers"] + found["work_mem"] * connections < memory_mb
    assert found["min_wal_size"] <= found["max_wal_size"]
    assert found["shared_buffers"] < found["effective_cache_size"] < memory_mb


@pytest.mark.parametrize(("cores", "per_query"), [(1, 0), (2, 1), (4, 2), (64, 4)])
def test_parallel_query_within_the_cores(cores: int, per_query: int) -> None:
    found = core_settings(cores=cores)
    assert found["max_parallel_workers_per_gather"] == per_query
    assert t.cast(int, found["max_parallel_workers"]) <= t.cast(int, found["max_worker_processes"])


def test_hosts_of_different_size_can_take_each_others_place() -> None:
    small = tune(memory_mb=1024, cores=1, max_connections=100)
    large = tune(memory_mb=262144, cores=64, max_connections=100)
    differing = {name for name in small if small[name] != large[name]}
    assert not differing & EQUAL_ON_ALL_MEMBERS


def test_overrides_win_and_add() -> None:
    found = tune(memory_mb=1024, cores=2, max_connections=100, overrides={"work_mem": "1GB", "jit": False})
    assert (found["work_mem"], found["jit"]) == ("1GB", False)


@pytest.mark.parametrize(("memory_mb", "cores", "connections"), [(255, 1, 1), (1024, 0, 1), (1024, 1, 0)])
def test_sizes_that_make_no_sense(memory_mb: int, cores: int, connections: int) -> None:
    with pytest.raises(HmsError, match="No server can be tuned") as caught:
        tune(memory_mb=memory_mb, cores=cores, max_connections=connections)
    assert caught.value.reason == "bad_size"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "'on'"),
        (False, "'off'"),
        (200, "'200'"),
        (0.9, "'0.9'"),
        ("4GB", "'4GB'"),
        ("it's", "'it''s'"),
        ("a\\b", "'a\\\\b'"),
        ("x' # y", "'x'' # y'"),
    ],
)
def test_values_are_quoted(value: Setting, text: str) -> None:
    assert render_value(value) == text


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\x00b"])
def test_a_value_is_on_one_line(value: str) -> None:
    with pytest.raises(HmsError, match="on one line"):
        render_value(value)
