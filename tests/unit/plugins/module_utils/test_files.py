# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that are old or new and never half, and a lock that ends with its holder."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._files import (
    HeldLock,
    read_bytes,
    read_json,
    remove_file,
    write_atomic,
)


def test_a_file_is_written_once(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a"
    assert write_atomic(str(path), "one")
    assert path.read_text() == "one"
    assert path.stat().st_mode & 0o7777 == 0o600
    inode = path.stat().st_ino
    assert not write_atomic(str(path), b"one")
    assert path.stat().st_ino == inode
    assert write_atomic(str(path), "one", mode=0o640)
    assert write_atomic(str(path), "two", mode=0o640)
    assert path.read_text() == "two"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("broken", ["replace", "fsync", "fchmod"])
def test_the_old_content_survives_every_failure(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def fail(*_args: t.Any) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="no room"):
        write_atomic(str(path), "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_writer_that_is_killed_leaves_the_old_content(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    program = (
        "import os, signal\n"
        "from ansible_collections.hms.postgres.plugins.module_utils import _files\n"
        "_files.os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"_files.write_atomic({str(path)!r}, 'new')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment(), check=False, timeout=30)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def test_what_is_not_there_reads_as_nothing(tmp_path: pathlib.Path) -> None:
    assert read_bytes(str(tmp_path / "none")) is None
    (tmp_path / "file").write_text("{}")
    assert read_bytes(str(tmp_path / "file" / "below")) is None
    assert read_json(str(tmp_path / "none")) is None
    assert read_json(str(tmp_path / "file")) == {}
    assert remove_file(str(tmp_path / "file"))
    assert not remove_file(str(tmp_path / "file"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that is taken is noticed without sleeping."""
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)


@pytest.mark.usefixtures("quick")
def test_of_two_one_has_the_lock_and_the_other_learns_who(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "below" / "operation.lock")
    one, two = HeldLock(path), HeldLock(path)
    assert one.look() is None
    assert not os.path.exists(path), "who only looks makes no file"
    assert one.acquire({"id": "a", "by": "me"}) is None
    assert one.held
    assert one.look() is None, "it is its own"
    assert two.look() == {"id": "a", "by": "me"}
    assert two.acquire({"id": "b"}) == {"id": "a", "by": "me"}
    assert not two.held
    one.leave_note({"id": "a", "by": "me", "winding_up": True})
    assert two.look() == {"id": "a", "by": "me", "winding_up": True}
    one.release()
    one.release()
    assert two.look() is None
    assert two.acquire({"id": "b"}) is None
    two.release()


@pytest.mark.usefixtures("quick")
def test_the_holder_can_be_left_a_word(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "lock")
    one, two = HeldLock(path), HeldLock(path)
    two.add_to_note(hurry=True)
    assert not os.path.exists(path)
    assert one.acquire({"id": "a"}) is None
    two.add_to_note(hurry=True)
    assert one.holder() == {"id": "a", "hurry": True}
    assert two.acquire({}) == {"id": "a", "hurry": True}
    one.release()
    two.add_to_note(hurry=True)
    assert two.acquire({"id": "b"}) is None
    assert two.holder() == {"id": "b"}
    two.release()


@pytest.mark.usefixtures("quick")
def test_who_only_looks_takes_the_lock_from_nobody(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "lock")
    one, other = HeldLock(path), HeldLock(path)
    assert one.acquire({}) is None
    tries: list[float] = []

    def let_go(seconds: float) -> None:
        tries.append(seconds)
        if len(tries) == 2:
            one.release()

    monkeypatch.setattr(time, "sleep", let_go)
    assert other.acquire({"id": "b"}) is None
    assert len(tries) == 2
    other.release()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_note_that_can_t_be_read_still_refuses(tmp_path: pathlib.Path, content: str) -> None:
    path = tmp_path / "lock"
    one = HeldLock(str(path))
    assert one.acquire({}) is None
    path.write_text(content)
    assert HeldLock(str(path)).acquire({}) == {"id": "unknown", "by": "unknown"}
    one.release()


@pytest.mark.usefixtures("quick")
def test_the_lock_of_a_killed_process_is_free(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "lock")
    program = (
        "import os, signal\n"
        "from ansible_collections.hms.postgres.plugins.module_utils._files import HeldLock\n"
        f"assert HeldLock({path!r}).acquire({{'id': 'dead'}}) is None\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], env=environment(), check=False, timeout=30).returncode == -9
    assert json.loads((tmp_path / "lock").read_text()) == {"id": "dead"}
    lock = HeldLock(path)
    assert lock.look() is None
    assert lock.acquire({"id": "alive"}) is None
    lock.release()


def test_who_looks_while_it_is_let_go_sees_it_free(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The note is wiped a moment before the lock is released."""
    path = str(tmp_path / "lock")
    one, two = HeldLock(path), HeldLock(path)
    assert one.acquire({"id": "a"}) is None
    os.truncate(path, 0)
    monkeypatch.setattr(time, "sleep", lambda _seconds: one.release())
    assert two.look() is None


@pytest.mark.usefixtures("quick")
def test_a_full_disk_keeps_nobody_from_the_lock(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "lock")
    real = os.open

    def no_room(name: str, flags: int, *mode: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, "no room")
        return real(name, flags, *mode)

    monkeypatch.setattr(os, "open", no_room)
    one, two = HeldLock(path), HeldLock(path)
    assert one.acquire({"id": "a"}) is None
    assert two.acquire({"id": "b"}) == {"id": "unknown", "by": "unknown"}
    one.release()
    assert two.acquire({"id": "b"}) is None
    two.release()


def test_a_folder_that_can_t_be_used_is_an_error(tmp_path: pathlib.Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(IsADirectoryError):
        HeldLock(str(tmp_path / "lock")).acquire({})
