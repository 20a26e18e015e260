# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact.manifest import Manifest, Member
from ansible_collections.hms.postgres.plugins.module_utils._artifact.model import Compression
from ansible_collections.hms.postgres.plugins.module_utils._backup.estimate import (
    comfortable,
    estimate,
    newest_alike,
    staged_bytes,
)
from ansible_collections.hms.postgres.tests.unit.plugins.module_utils._backup.test_plan import wish

GB = 1_000_000_000


def manifest(number: int = 1, **changes: t.Any) -> Manifest:
    """A backup of 1 GB of a database of 4 GB, made in 20 s."""
    made = Manifest(
        id=f"2026112{number}T020000Z-backup-0000",
        cluster="c",
        environment="production",
        database="hospital",
        engine="pg_dump",
        type="full",
        format="custom",
        host="db1",
        by="test",
        started="",
        ended="",
        seconds=20.0,
        members=(Member("data", "data.dump.zst", GB, "0" * 64),),
        server={},
        snapshot={},
        tools={},
        compression={"method": "zstd"},
        encryption={},
        contents={"database_bytes": 4 * GB},
    )
    return dataclasses.replace(made, **changes)


@pytest.mark.parametrize(
    ("now", "size", "seconds", "least"),
    [
        (4 * GB, GB, 20.0, GB // 2),
        (8 * GB, 2 * GB, 40.0, GB // 2),
        (2 * GB, GB // 2, 10.0, GB // 4),
        (GB, GB // 4, 5.0, GB // 4),
    ],
)
def test_it_grows_as_the_database_does(now: int, size: int, seconds: float, least: int) -> None:
    found = estimate(wish(), now, manifest())
    assert (found.bytes, found.seconds, found.least) == (size, seconds, least)
    assert found.as_dict()["based_on"] == manifest().id
    assert comfortable(found) == int(size * 1.1)


def test_the_first_of_its_kind() -> None:
    found = estimate(wish(), 10 * GB, None)
    assert (found.bytes, found.seconds, found.least) == (3_500_000_000, 200.0, 200_000_000)
    assert found.as_dict()["based_on"] is None
    assert estimate(wish(), 10 * GB, manifest(contents={})).based_on == ""


def test_a_schema_does_not_grow_with_the_rows() -> None:
    assert estimate(wish(type="schema_only"), 10 * GB, None).bytes == 2_000_000
    assert estimate(wish(type="schema_only"), 10 * GB, manifest(type="schema_only")).bytes == GB


def test_the_last_one_of_the_same_kind() -> None:
    others = [
        manifest(5, type="schema_only"),
        manifest(6, engine="pgbackrest"),
        manifest(7, database="other"),
        manifest(8, compression={"method": "gzip"}),
    ]
    assert newest_alike([manifest(3), manifest(2), *others], wish()) == manifest(3)
    assert newest_alike(others, wish()) is None
    assert newest_alike(others, wish(compression=Compression("gzip"))) == others[3]


@pytest.mark.parametrize(
    ("plain", "before", "now", "needed"),
    [
        (6 * GB, 4 * GB, 4 * GB, 6.6),
        (6 * GB, 4 * GB, 8 * GB, 13.2),
        (None, 4 * GB, 8 * GB, 8.8),
        (6 * GB, None, 8 * GB, 8.8),
    ],
)
def test_the_room_for_the_dump_itself(plain: int | None, before: int | None, now: int, needed: float) -> None:
    members = (Member("data", "data.dump.zst", GB, "0" * 64, plain), Member("schema", "s", 1, "0" * 64, 9 * GB))
    assert staged_bytes(now, manifest(members=members, contents={"database_bytes": before})) == int(needed * GB)
    assert staged_bytes(now, None) == int(now * 1.1)
