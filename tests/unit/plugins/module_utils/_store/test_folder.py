# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A folder as a store: nothing half is visible, nothing is replaced, keys come in the order that S3 gives."""

from __future__ import annotations

import errno
import os
import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._store import folder_io
from ansible_collections.hms.postgres.plugins.module_utils._store.folder import FolderStore
from ansible_collections.hms.postgres.plugins.module_utils._store.model import Debris, FolderSpec


@pytest.fixture
def store(tmp_path: pathlib.Path) -> FolderStore:
    return FolderStore(FolderSpec(str(tmp_path)))


def files(path: pathlib.Path) -> list[str]:
    return sorted(str(entry.relative_to(path)) for entry in path.rglob("*") if entry.is_file())


def test_an_object_becomes_visible_whole(store: FolderStore, tmp_path: pathlib.Path) -> None:
    writer = store.create("c/d/data")
    writer.write(b"one ")
    writer.write(b"two")
    assert list(store.list()) == []
    assert store.debris() == [], "its writer lives"
    stored = writer.commit()
    assert (stored.key, stored.size) == ("c/d/data", 7)
    assert list(store.list()) == [stored]
    assert (tmp_path / "c/d/data").read_bytes() == b"one two"
    assert (tmp_path / "c/d/data").stat().st_mode & 0o7777 == 0o600
    assert (tmp_path / "c").stat().st_mode & 0o7777 == 0o700
    writer.abort()
    assert files(tmp_path) == ["c/d/data"]
    for attempt in (writer.commit, lambda: writer.write(b"x")):
        with pytest.raises(HmsError, match=r"after its end|before it was whole"):
            attempt()


def test_an_aborted_object_leaves_nothing(store: FolderStore, tmp_path: pathlib.Path) -> None:
    writer = store.create("c/d/data")
    writer.write(b"one")
    writer.abort()
    writer.abort()
    assert files(tmp_path) == []


def test_nothing_is_replaced_unless_asked(store: FolderStore) -> None:
    late = store.create("a")
    store.put("a", b"1")
    tag = next(store.list()).tag
    for attempt in (lambda: store.put("a", b"2"), lambda: store.create("a"), late.commit):
        with pytest.raises(HmsError, match="exists already") as caught:
            attempt()
        assert caught.value.reason == "exists"
    assert [(item.size, item.tag) for item in store.list()] == [(1, tag)]
    store.put("a", b"22", replace=True)
    assert store.get("a") == b"22"
    assert next(store.list()).tag != tag


def test_a_file_system_without_hard_links(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: t.Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    late = store.create("a")
    store.put("a", b"1")
    with pytest.raises(HmsError, match="exists already"):
        late.commit()
    assert store.get("a") == b"1"


@pytest.mark.parametrize("broken", ["fsync", "link"])
def test_a_disk_that_fails_at_the_end(
    store: FolderStore, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    writer = store.create("a")

    def fail(*_arguments: t.Any) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(HmsError, match=r"Cannot complete .*/a: Input/output error") as caught:
        writer.commit()
    assert caught.value.reason == "store_failed"
    assert files(tmp_path) == []


def test_what_may_be_gone_after_a_power_cut_is_not_left_visible(
    store: FolderStore, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = store.create("a")

    def fail(_path: str) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(folder_io, "sync_directory", fail)
    with pytest.raises(HmsError, match="Cannot complete"):
        writer.commit()
    assert files(tmp_path) == []


def test_keys_come_in_the_order_of_s3(store: FolderStore) -> None:
    keys = ["a!x", "a/b/c", "a/b.d", "a/b/", "a0", "é", "b%2Fc/x"]
    stored = sorted(key for key in keys if not key.endswith("/"))
    for key in stored:
        store.put(key, b"")
    assert [item.key for item in store.list()] == stored
    assert [item.key for item in store.list("a/b")] == ["a/b.d", "a/b/c"]
    assert [item.key for item in store.list("a/b/")] == ["a/b/c"]
    assert [item.key for item in store.list("b%2")] == ["b%2Fc/x"]
    assert [item.key for item in store.list("a/b.d/e")] == []
    assert [item.key for item in store.list("no/such")] == []


def test_what_is_not_an_object_is_not_listed(store: FolderStore, tmp_path: pathlib.Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "lost+found" / "#1").write_bytes(b"")
    (tmp_path / "link").symlink_to("/etc/hostname")
    (tmp_path / "loop").symlink_to(tmp_path)
    store.put("c/a", b"")
    assert [item.key for item in store.list()] == ["c/a"]


@pytest.mark.parametrize("key", ["", "/a", "a//b", "a/", "../a", "a/../b", "./a", "a\nb", ".x.0123456789abcdef.part"])
def test_keys_that_would_lead_elsewhere(store: FolderStore, key: str) -> None:
    calls: list[t.Callable[[], t.Any]] = [
        lambda: store.put(key, b""),
        lambda: store.create(key),
        lambda: store.open(key),
        lambda: store.remove([key]),
    ]
    for attempt in calls:
        with pytest.raises(HmsError, match="not a key"):
            attempt()


def test_removing_takes_empty_folders_along(store: FolderStore, tmp_path: pathlib.Path) -> None:
    for key in ("c/d/1/data", "c/d/1/manifest.json", "c/d/2/data"):
        store.put(key, b"1")
    store.remove(["c/d/1/data", "c/d/1/manifest.json", "c/d/9/never"])
    assert sorted(path.name for path in (tmp_path / "c/d").iterdir()) == ["2"]
    store.remove(["c/d/2/data"])
    assert list(tmp_path.iterdir()) == []
    assert tmp_path.is_dir()


def test_a_folder_that_is_removed_under_a_writer_is_made_again(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    real, left = os.open, [2]

    def vanishing(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT and left[0]:
            left[0] -= 1
            os.rmdir(tmp_path / "c")
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", vanishing)
    store.put("c/a", b"1")
    assert store.get("c/a") == b"1"


def test_debris_is_what_a_dead_writer_left(store: FolderStore, tmp_path: pathlib.Path) -> None:
    dead = tmp_path / "c" / ".data.0123456789abcdef.part"
    dead.parent.mkdir()
    dead.write_bytes(b"half")
    living = store.create("c/other")
    found = store.debris()
    assert [(item.key, item.upload, item.size) for item in found] == [
        ("c/data", "c/.data.0123456789abcdef.part", 4),
    ]
    assert store.debris("c/d") == found
    assert store.debris("c/o") == []
    (mine,) = (path for path in (tmp_path / "c").iterdir() if path != dead)
    store.sweep([*found, Debris("c/other", f"c/{mine.name}", found[0].started)])
    assert not dead.exists()
    assert mine.exists(), "its writer lives"
    living.commit()
    outside = Debris("x", "../.x.0123456789abcdef.part", found[0].started)
    for wrong in (outside, Debris("c/other", "c/other", found[0].started)):
        with pytest.raises(HmsError, match="not a name that a writer gives"):
            store.sweep([wrong])
    assert store.get("c/other") == b""


def test_small_objects_are_read_whole(store: FolderStore) -> None:
    store.put("a", b"12345")
    assert store.get("a", limit=5) == b"12345"
    with pytest.raises(HmsError, match="5 bytes, more than the 4") as caught:
        store.get("a", limit=4)
    assert caught.value.reason == "too_large"
    with pytest.raises(HmsError, match="does not exist") as caught:
        store.get("b")
    assert caught.value.reason == "not_found"
    assert store.locked_until("a") is None
    reader = store.open("a")
    assert [reader.read(3), reader.read(3), reader.read(3)] == [b"123", b"45", b""]
    reader.close()
    reader.close()


def test_room_is_told(store: FolderStore, tmp_path: pathlib.Path) -> None:
    free = store.free_bytes()
    assert free is not None
    assert free > 0
    assert FolderStore(FolderSpec(str(tmp_path / "no"))).free_bytes() is None
