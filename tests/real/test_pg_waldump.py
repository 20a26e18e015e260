# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The log of a server that crashed when files for what was to come were made already, and empty."""

from __future__ import annotations

import shutil

from ansible_collections.hms.postgres.plugins.module_utils._postgres import parse_lsn
from ansible_collections.hms.postgres.plugins.module_utils._tools.pg_waldump import PgWaldump, segment_name
from ansible_collections.hms.postgres.tests.real.conftest import PgFactory
from ansible_collections.hms.postgres.tests.real.lab import BINARIES, OS_USER

SEGMENT = 16 << 20


def test_empty_segments_are_no_obstacle(pg_factory: PgFactory) -> None:
    primary = pg_factory()
    start = parse_lsn(primary.sql("SELECT pg_current_wal_insert_lsn()"))
    primary.sql("CREATE TABLE seen (id int)")
    primary.kill()
    wal = primary.data / "pg_wal"
    name = segment_name(1, start, SEGMENT)
    for path in wal.glob("0000000100000000*"):
        if path.name != name:
            path.unlink()
    for number in range(20):  # it takes the size of segments from whichever comes first in the folder
        empty = wal / segment_name(1, start + (number + 1) * SEGMENT, SEGMENT)
        with empty.open("wb") as target:
            target.truncate(SEGMENT)
        shutil.chown(empty, OS_USER, OS_USER)
    tool = PgWaldump(bin_directory=str(BINARIES), os_user=OS_USER)
    reading = tool.records(str(wal), start_lsn=start, timeline=1)
    assert "COMMIT" in " ".join(record.description for record in reading)
    assert reading.end.kind == "end_of_wal"
    boundary = (start // SEGMENT + 1) * SEGMENT
    assert tool.first_at_or_after(str(wal), boundary, timeline=1) is None
