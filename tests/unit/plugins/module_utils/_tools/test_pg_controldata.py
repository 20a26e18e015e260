# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pg_controldata's output, and the few bytes of the file that are read while clients wait."""

from __future__ import annotations

import pathlib
import struct

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, ToolFailed
from ansible_collections.hms.postgres.plugins.module_utils._tools.pg_controldata import (
    ControlData,
    PgControldata,
    QuickControl,
    parse,
    parse_limits,
    quick_read,
)
from ansible_collections.hms.postgres.tests.unit.plugins.scripted_runner import ScriptedRunner

SAMPLE = """\
pg_control version number:            1300
Catalog version number:               202209061
Database system identifier:           7711044589964524245
Database cluster state:               in archive recovery
pg_control last modified:             Sun Nov 22 17:22:10 2026
Latest checkpoint location:           0/3073920
Latest checkpoint's REDO location:    0/30738E8
Latest checkpoint's REDO WAL file:    000000040000000000000003
Latest checkpoint's TimeLineID:       4
Latest checkpoint's PrevTimeLineID:   4
Latest checkpoint's full_page_writes: on
Time of latest checkpoint:            Sun Nov 22 17:17:01 2026
Fake LSN counter for unlogged rels:   0/3E8
Minimum recovery ending location:     16/B374D848
Min recovery ending loc's timeline:   4
Backup start location:                0/0
wal_level setting:                    replica
wal_log_hints setting:                on
Bytes per WAL segment:                1048576
Data page checksum version:           1
Mock authentication nonce:            a8ab13ecb5ee3d43493b5cc335bbbd5c33daf3b7233ae5209ff45f498278f254
"""


def test_a_standby_s_control_file() -> None:
    assert parse(SAMPLE) == ControlData(
        state="in archive recovery",
        checkpoint_lsn=0x3073920,
        redo_lsn=0x30738E8,
        timeline=4,
        system_identifier="7711044589964524245",
        checkpoint_at="Sun Nov 22 17:17:01 2026",
        checksums=True,
        wal_log_hints=True,
        min_recovery_lsn=0x16B374D848,
        min_recovery_timeline=4,
        wal_segment_size=1 << 20,
    )


@pytest.mark.parametrize("key", ["Database cluster state", "Latest checkpoint location", "Database system identifier"])
def test_what_the_output_lacks_is_named(key: str) -> None:
    text = "".join(line for line in SAMPLE.splitlines(keepends=True) if not line.startswith(key))
    with pytest.raises(HmsError, match=rf"lacks '{key}'"):
        parse(text)


def test_what_older_versions_don_t_say_has_a_default() -> None:
    keep = ("Database", "Latest")
    found = parse("".join(line for line in SAMPLE.splitlines(keepends=True) if line.startswith(keep)))
    assert (found.checksums, found.wal_log_hints, found.wal_segment_size) == (False, False, 16 << 20)


def tool(runner: ScriptedRunner, tmp_path: pathlib.Path) -> PgControldata:
    program = tmp_path / "pg_controldata"
    program.write_text("")
    program.chmod(0o755)
    return PgControldata(runner, bin_directory=str(tmp_path))


def test_the_program_of_this_version_is_asked(tmp_path: pathlib.Path) -> None:
    runner = ScriptedRunner((0, SAMPLE, ""))
    assert tool(runner, tmp_path).read("/data").timeline == 4
    assert runner.argv == [str(tmp_path / "pg_controldata"), "--pgdata", "/data"]
    with pytest.raises(ToolFailed, match=r"Reading pg_control of /data failed: .* could not open"):
        tool(ScriptedRunner((1, "", "could not open")), tmp_path).read("/data")


def control_file(tmp_path: pathlib.Path, *, version: int, state: int) -> str:
    head = struct.pack("<QIIIIqQQI", 7711044589964524245, version, 202209061, state, 0, 0, 0x3073920, 0x30738E8, 4)
    (tmp_path / "global").mkdir()
    (tmp_path / "global" / "pg_control").write_bytes(head.ljust(8192, b"\0"))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("state", "expected"), [(1, "shut down"), (2, "shut down in recovery"), (3, "shutting down"), (6, "in production")]
)
@pytest.mark.parametrize("version", [1300, 1700])
def test_the_quick_look(tmp_path: pathlib.Path, version: int, state: int, expected: str) -> None:
    assert quick_read(control_file(tmp_path, version=version, state=state)) == QuickControl(expected, 0x3073920, 4)


@pytest.mark.parametrize(("version", "state"), [(1201, 1), (1800, 1), (1300, 7)])
def test_the_quick_look_knows_what_it_doesn_t_know(tmp_path: pathlib.Path, version: int, state: int) -> None:
    assert quick_read(control_file(tmp_path, version=version, state=state)) is None


def test_the_primary_s_limits_go_by_the_settings_names() -> None:
    text = "max_connections setting:     50\nmax_prepared_xacts setting:  7\nmax_locks_per_xact setting: 64\n"
    assert parse_limits(text) == {
        "max_connections": 50,
        "max_prepared_transactions": 7,
        "max_locks_per_transaction": 64,
    }
