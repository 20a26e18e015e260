# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import fcntl
import os
import pathlib

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact import gpg_home
from ansible_collections.hms.postgres.plugins.module_utils._artifact.gpg_home import GpgHome, mounted_as, sweep
from ansible_collections.hms.postgres.plugins.module_utils._errors import Refused

MOUNTS = """\
/dev/vda / ext4 rw 0 0
tmpfs /run tmpfs rw 0 0
tmpfs /dev/shm tmpfs rw 0 0
/dev/vdb /run/disk\\040one ext4 rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/run", "tmpfs"), ("/run/user/0", "tmpfs"), ("/running", "ext4"), ("/run/disk one/x", "ext4"), ("/dev", "ext4")],
)
def test_the_nearest_mount_counts(path: str, kind: str) -> None:
    assert mounted_as(path, MOUNTS) == kind
    assert mounted_as(path, "") == ""


def test_a_home_is_ours_alone_and_leaves_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpg_home, "places", lambda: [str(tmp_path)])
    home = GpgHome.make()
    path = pathlib.Path(home.path)
    assert path.stat().st_mode & 0o7777 == 0o700
    (path / "private-keys-v1.d").mkdir()
    (path / "private-keys-v1.d" / "x.key").write_text("secret")
    home.remove_private()
    assert list(path.iterdir()) == []
    home.remove()
    home.remove()
    assert list(tmp_path.iterdir()) == []


def test_keys_are_never_written_to_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpg_home, "places", list)
    with pytest.raises(Refused) as caught:
        GpgHome.make()
    assert caught.value.reason == "no_tmpfs"


def test_what_dead_runs_left_is_removed(tmp_path: pathlib.Path) -> None:
    for name in ("hms-postgres-dead", "hms-postgres-alive", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "hms-postgres-file").write_text("")
    (tmp_path / "hms-postgres-link").symlink_to(tmp_path / "other")
    held = os.open(tmp_path / "hms-postgres-alive", os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        created = (tmp_path / "hms-postgres-dead").stat().st_ctime
        assert sweep(str(tmp_path), now=lambda: created + 1) == [], "it may be about to be locked"
        assert sweep(str(tmp_path), now=lambda: created + 3600) == [str(tmp_path / "hms-postgres-dead")]
    finally:
        os.close(held)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "hms-postgres-alive",
        "hms-postgres-file",
        "hms-postgres-link",
        "other",
    ]
