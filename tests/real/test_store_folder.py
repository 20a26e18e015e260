# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A folder as a store, with the faults of real file systems; and several stores written at once."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._store.model import FolderSpec, ObjectStore
from ansible_collections.hms.postgres.plugins.module_utils._store.open_store import open_store, store_spec_from
from ansible_collections.hms.postgres.plugins.module_utils._store.tee import Tee, put_everywhere
from ansible_collections.hms.postgres.tests.real.lab import run
from ansible_collections.hms.postgres.tests.real.s3_relay import Answer, S3Relay
from ansible_collections.hms.postgres.tests.real.s3_server import S3Server
from ansible_collections.hms.postgres.tests.real.test_store_s3 import MIB, visible

NOBODY = 65534


def folder_store(path: pathlib.Path) -> ObjectStore:
    return open_store(FolderSpec(str(path)))


def everything(path: pathlib.Path) -> list[str]:
    return sorted(str(entry.relative_to(path)) for entry in path.rglob("*"))


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> t.Iterator[pathlib.Path]:
    """A file system of 8 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(path))
    try:
        yield path
    finally:
        run("umount", "--lazy", str(path))


@contextlib.contextmanager
def as_nobody() -> t.Iterator[None]:
    """Within: without root's rights."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_full_disk_leaves_nothing(small_disk: pathlib.Path) -> None:
    store = folder_store(small_disk)
    store.put("c/d/good", b"the last good one")
    writer = store.create("c/d/data")
    with pytest.raises(HmsError, match=r"Cannot write .*/small/c/d/data: No space left on device") as caught:
        writer.write(b"x" * 9 * MIB)
    assert caught.value.reason == "store_full"
    assert "Make room" in caught.value.next_step
    assert everything(small_disk) == ["c", "c/d", "c/d/good"]
    assert store.get("c/d/good") == b"the last good one"
    free = store.free_bytes()
    assert free is not None
    assert 7 * MIB < free <= 8 * MIB
    writer.abort()
    with pytest.raises(HmsError, match="No space left"):
        store.put("c/d/other", b"x" * 9 * MIB)
    with pytest.raises(HmsError, match="No space left"):
        store.put("c/d/good", b"x" * 9 * MIB, replace=True)
    assert store.get("c/d/good") == b"the last good one"


def test_a_disk_without_room_for_a_file_is_refused(small_disk: pathlib.Path) -> None:
    run("mount", "-o", "remount,nr_inodes=1", str(small_disk), check=False)
    with contextlib.suppress(OSError):
        (small_disk / "filler").write_bytes(b"x" * 8 * MIB)
    with pytest.raises(Refused, match="No space left") as caught:
        folder_store(small_disk).check()
    assert caught.value.reason == "store_full"
    assert [name for name in everything(small_disk) if name != "filler"] == []


def test_a_read_only_disk_is_refused(small_disk: pathlib.Path) -> None:
    folder_store(small_disk).check()
    run("mount", "-o", "remount,ro", str(small_disk))
    with pytest.raises(Refused, match="Read-only file system") as caught:
        folder_store(small_disk).check()
    assert "mounted read-only" in caught.value.next_step


def test_a_folder_that_is_not_ours(tmp_path: pathlib.Path) -> None:
    tmp_path.chmod(0o755)
    store = folder_store(tmp_path)
    store.put("c/d/good", b"1")
    with as_nobody():
        with pytest.raises(Refused, match="Permission denied") as refused:
            store.check()
        with pytest.raises(HmsError, match="Permission denied"):
            store.create("c/d/data")
        with pytest.raises(HmsError, match="Permission denied"):
            store.open("c/d/good")
        with pytest.raises(HmsError, match="Permission denied"):
            list(store.list())
    assert "write access" in refused.value.next_step
    assert everything(tmp_path) == ["c", "c/d", "c/d/good"]


def test_a_mount_that_is_missing_is_not_filled(tmp_path: pathlib.Path) -> None:
    store = folder_store(tmp_path / "mount")
    for attempt in (
        store.check,
        lambda: store.put("a", b"1"),
        lambda: store.put("c/a", b"1"),
        lambda: list(store.list()),
    ):
        with pytest.raises(HmsError, match="No such file or directory") as caught:
            attempt()
        assert caught.value.reason == "no_store"
    assert everything(tmp_path) == []


def test_what_cannot_be_removed_is_named(tmp_path: pathlib.Path) -> None:
    for path in (tmp_path, *list(tmp_path.parents)[:2]):
        path.chmod(0o755)
    store = folder_store(tmp_path)
    for key in ("closed/a", "open/b"):
        store.put(key, b"1")
    for name, mode in (("closed", 0o755), ("open", 0o777)):
        (tmp_path / name).chmod(mode)
    with as_nobody(), pytest.raises(HmsError, match=r"1 objects .* not be removed: closed/a: Permission") as caught:
        store.remove(["closed/a", "open/b"])
    assert caught.value.reason == "not_removed"
    assert everything(tmp_path) == ["closed", "closed/a", "open"]


def test_a_second_store_that_is_full_takes_the_first_with_it(small_disk: pathlib.Path, tmp_path: pathlib.Path) -> None:
    roomy = tmp_path / "roomy"
    roomy.mkdir()
    stores = [folder_store(roomy), folder_store(small_disk)]
    tee = Tee.create(stores, "c/d/data")
    with pytest.raises(HmsError, match=r"Cannot write .*/small/c/d/data: No space left"):
        tee.write(b"x" * 9 * MIB)
    assert [list(store.list()) for store in stores] == [[], []]
    assert [store.debris() for store in stores] == [[], []]


def test_a_bucket_that_fails_at_the_end_takes_the_folder_with_it(s3_server: S3Server, tmp_path: pathlib.Path) -> None:
    bucket = s3_server.bucket("tee")
    with S3Relay(s3_server) as relay:
        settings = relay.settings("tee", attempts=2)
        stores = [folder_store(tmp_path), open_store(store_spec_from({"s3": settings}))]
        put_everywhere(stores, "c/d/good", b"1")
        relay.rule = lambda request: Answer(403, "AccessDenied") if request.completes else None
        tee = Tee.create(stores, "c/d/data", size_hint=9 * MIB)
        tee.write(b"x" * 9 * MIB)
        with pytest.raises(HmsError, match="Cannot complete s3://tee/c/d/data: AccessDenied"):
            tee.commit()
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "c/d/good"]
        assert visible(bucket) == ["c/d/good"]
        relay.rule = lambda request: Answer(403, "AccessDenied") if request.method == "HEAD" else None
        with pytest.raises(HmsError, match=r"AccessDenied|403"):
            Tee.create(stores, "c/d/data")
        assert [store.debris() for store in stores] == [[], []]


def test_memory_does_not_grow_with_the_object(s3_server: S3Server, tmp_path: pathlib.Path) -> None:
    """The issue's limit for the whole process is 150 MB; the stores have to leave most of it to others."""
    s3_server.bucket("memory")
    for settings in ({"folder": str(tmp_path)}, {"s3": s3_server.settings("memory")}):
        path = tmp_path / "settings.json"
        path.write_text(json.dumps(settings))
        peaks = []
        for mebibytes in (64, 256):
            argv = [sys.executable, str(pathlib.Path(__file__).with_name("store_child.py")), str(path)]
            done = subprocess.run(
                [*argv, "write", f"c/{mebibytes}", str(mebibytes)],
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            peaks.append(json.loads(done.stdout)["peak"])
        assert max(peaks) < 130
        assert peaks[1] - peaks[0] < 24
