# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pgBackRest repositories made up for unit tests: backups, and archives with the WAL that they need."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._artifact import pgbackrest_wal as wal
from ansible_collections.hms.postgres.plugins.module_utils._tools.pgbackrest import BackupSet

LAYOUT = wal.Layout()
FORK = "1\t0/8000100\tno recovery target specified\n"


def backup(label: str, first: int, last: int, *, timeline: int = 1, **more: t.Any) -> BackupSet:
    """A backup that needs the segments from first to last."""
    made = BackupSet(
        label=label,
        type="full",
        start=1000 + first,
        stop=1000 + last,
        wal_start=LAYOUT.name(timeline, first),
        wal_stop=LAYOUT.name(timeline, last),
        lsn_start=f"0/{first:X}000028",
        lsn_stop=f"0/{last:X}000050",
        prior="",
        reference=(),
        database_id=1,
        bytes=100,
        copied_bytes=100,
        stored_bytes=10,
        chain_bytes=20,
        error=False,
        version="2.45",
        annotations={},
    )
    return dataclasses.replace(made, **more)


def archive(histories: t.Mapping[int, str] | None = None, **timelines: t.Iterable[int]) -> wal.Archive:
    """Timelines t1, t2 … with the numbers of their segments, in order."""
    runs: dict[int, tuple[wal.Run, ...]] = {}
    for name, numbers in timelines.items():
        found: list[wal.Run] = []
        for number in numbers:
            if found and found[-1].last + 1 == number:
                found[-1] = wal.Run(found[-1].first, number)
            else:
                found.append(wal.Run(number, number))
        runs[int(name[1:])] = tuple(found)
    return wal.Archive(runs=runs, histories=histories or {}, newest=dict.fromkeys(runs, 5000))
