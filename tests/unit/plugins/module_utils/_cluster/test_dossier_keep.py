# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import getpass
import hashlib
import os
import pathlib
import types

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster import dossier_keep, rejoin_mark
from ansible_collections.hms.postgres.plugins.module_utils._cluster.dossier_wal import CommonCheckpoint
from ansible_collections.hms.postgres.plugins.module_utils._cluster.member_config import DatabaseHost, parse
from ansible_collections.hms.postgres.plugins.module_utils._cluster.rejoin_model import Mark
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._tools.pg_controldata import ControlData

MB = 1 << 20
CONTROL = ControlData("shut down", 0, 0, 1, "7", "", True, False, 0, 0, MB)
ME = getpass.getuser()


@pytest.fixture
def data(tmp_path: pathlib.Path) -> pathlib.Path:
    """A small data directory with a log of 1 MB files."""
    folder = tmp_path / "data"
    (folder / "pg_wal" / "archive_status").mkdir(parents=True)
    (folder / "global").mkdir()
    (folder / "global" / "pg_control").write_bytes(b"control")
    for number in range(1, 8):
        (folder / "pg_wal" / f"0000000100000000{number:08X}").write_bytes(bytes([number]) * 100)
    (folder / "pg_wal" / "00000001.history").write_bytes(b"")
    (folder / "postgresql.auto.conf").write_text("a = '1'\n")
    (folder / "server.key").write_text("key")
    (folder / "PG_VERSION").write_text("15\n")
    return folder


def names(first: int, last: int) -> list[str]:
    return [f"0000000100000000{number:08X}" for number in range(first, last + 1)] + ["00000001.history"]


def test_which_files_are_kept(data: pathlib.Path) -> None:
    common = CommonCheckpoint(3 * MB + 100, 2 * MB + 50)
    assert dossier_keep.wal_to_keep(str(data), CONTROL, common=common, end_lsn=4 * MB + 9) == names(2, 4)
    assert dossier_keep.wal_to_keep(str(data), CONTROL, common=None, end_lsn=None) == names(1, 7)
    assert dossier_keep.settings_files(str(data)) == ["postgresql.auto.conf", "server.key"]


def test_keep_and_put_back(data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    target = dossier_keep.folder(str(tmp_path / "state"), "op")
    kept = dossier_keep.keep(str(data), names(2, 3), target)
    assert [item.name for item in kept] == [
        "pg_control", "pg_wal/00000001.history", "pg_wal/000000010000000000000002",
        "pg_wal/000000010000000000000003", "settings/postgresql.auto.conf", "settings/server.key",
    ]  # fmt: skip
    assert kept[0].sha256 == hashlib.sha256(b"control").hexdigest()
    assert dossier_keep.read_dossier(target) is None, "not complete before the dossier is there"
    path = dossier_keep.write_dossier(target, {"losses": {"count": 2}}, kept)
    assert pathlib.Path(path).stat().st_mode & 0o777 == 0o600
    assert dossier_keep.keep(str(data), names(2, 3), target) == kept, "it can be repeated"

    wal = data / "pg_wal"
    (wal / "000000010000000000000002").unlink()
    (wal / "000000010000000000000003").write_bytes(b"the source's")
    (data / "server.key").write_text("the source's")
    before = "000000010000000000000002".__eq__
    assert dossier_keep.put_back(target, str(data), os_user=ME, below="pg_wal", only_missing=before) == [
        "000000010000000000000002"
    ]
    assert (wal / "000000010000000000000003").read_bytes() == b"the source's"
    assert dossier_keep.put_back(target, str(data), os_user=ME, below="pg_wal") == ["000000010000000000000003"]
    assert dossier_keep.put_back(target, str(data), os_user=ME, below="settings") == ["server.key"]
    assert dossier_keep.put_back(target, str(data), os_user=ME, below="pg_control") == []
    assert (data / "server.key").read_text() == "key"


def test_a_damaged_copy_is_not_put_back(data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    target = dossier_keep.folder(str(tmp_path / "state"), "op")
    dossier_keep.write_dossier(target, {}, dossier_keep.keep(str(data), names(2, 2), target))
    (pathlib.Path(target) / "pg_control").write_bytes(b"flipped")
    (data / "global" / "pg_control").write_bytes(b"other")
    with pytest.raises(HmsError) as caught:
        dossier_keep.put_back(target, str(data), os_user=ME, below="pg_control")
    assert caught.value.reason == "kept_file_damaged"


def test_a_full_disk_is_refused_before_anything(
    data: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _path: types.SimpleNamespace(f_bavail=10, f_frsize=4096))
    target = tmp_path / "state" / "diverged" / "op"
    with pytest.raises(Refused) as caught:
        dossier_keep.keep(str(data), names(1, 7), str(target))
    assert caught.value.reason == "no_room"
    assert not target.exists()


# -- the mark -------------------------------------------------------------------------------------------------------


@pytest.fixture
def host(data: pathlib.Path, tmp_path: pathlib.Path) -> DatabaseHost:
    login = {"user": "u", "passfile": "/p"}
    found = parse(
        {
            "kind": "database", "name": "db1", "cluster": "c", "environment": "demo", "address": "h",
            "state_directory": str(tmp_path / "state"), "database": "d", "sync_policy": "async",
            "postgresql": {
                "version": 15, "instance": "main", "port": 5432, "socket_directory": "/s", "data_directory": str(data),
                "config_directory": "/c", "bin_directory": "/b",
            },
            "replication": {**login, "slot_name": "db1"}, "monitor": login, "members": [],
        }
    )  # fmt: skip
    assert isinstance(found, DatabaseHost)
    (tmp_path / "state").mkdir()
    return found


def test_the_mark_tells_how_far_a_rewind_came(host: DatabaseHost, data: pathlib.Path) -> None:
    assert rejoin_mark.read_state(host) == (None, "none")
    folder = dossier_keep.folder(host.state_directory, "op")
    mark = Mark("op", "db2", 2, 1, "0/3000000", folder)
    rejoin_mark.write(host, mark)
    assert rejoin_mark.read_state(host) == (mark, "stale"), "nothing was kept, so nothing was begun"
    dossier_keep.write_dossier(folder, {}, dossier_keep.keep(str(data), [], folder))
    assert rejoin_mark.read_state(host) == (mark, "killed")
    (data / "backup_label").write_text("label")
    assert rejoin_mark.read_state(host)[1] == "killed", "pg_control is written last"
    (data / "global" / "pg_control").write_bytes(b"the source's")
    assert rejoin_mark.read_state(host)[1] == "finished"
    (data / "backup_label").unlink()
    assert rejoin_mark.read_state(host)[1] == "stale", "the server has been started since"
    rejoin_mark.write(host, dataclasses.replace(mark, attempts=2))
    found, _state = rejoin_mark.read_state(host)
    assert found is not None
    assert found.attempts == 2
    rejoin_mark.remove(host)
    assert rejoin_mark.read_state(host) == (None, "none")
