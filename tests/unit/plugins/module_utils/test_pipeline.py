# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import time

import pytest

from ansible_collections.hms.postgres.plugins.module_utils import _pipeline
from ansible_collections.hms.postgres.plugins.module_utils._errors import DeadlinePassed, ToolFailed, ToolMissing
from ansible_collections.hms.postgres.plugins.module_utils._pipeline import SECRET_FD, Pipeline, Stage, Tap


def sh(name: str, script: str, **more: bytes) -> Stage:
    return Stage(name, ("/bin/sh", "-c", script), secret=more.get("secret"))


def pipeline(*stages: Stage | Tap, seconds: float = 60.0, stderr_limit: int = 16 * 1024) -> Pipeline:
    return Pipeline(stages, deadline=time.monotonic() + seconds, what="The test", stderr_limit=stderr_limit)


def source_of(data: bytes, size: int = 100_000) -> _pipeline.Source:
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return lambda _size: parts.pop(0) if parts else b""


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_what_the_last_stage_writes_is_read() -> None:
    found: list[bytes] = []
    before = open_descriptors()
    ends = pipeline(sh("seq", "seq 3"), sh("tac", "tac")).read(found.append)
    assert b"".join(found) == b"3\n2\n1\n"
    assert [(end.name, end.rc) for end in ends] == [("seq", 0), ("tac", 0)]
    assert open_descriptors() == before


def test_what_is_fed_comes_back_and_taps_see_it() -> None:
    data = os.urandom(3_000_000)
    seen, middle, found = bytearray(), bytearray(), bytearray()
    before = open_descriptors()
    stages = (Tap("a", seen.extend), sh("cat", "cat"), Tap("b", middle.extend), sh("cat", "cat"))
    pipeline(*stages).feed(source_of(data), found.extend)
    assert seen == middle == found == data
    assert open_descriptors() == before


def test_without_a_sink_the_output_goes_nowhere() -> None:
    ends = pipeline(sh("cat", "cat; echo done >&2")).feed(source_of(b"x" * 1_000_000))
    assert ends[0].stderr_tail == "done\n"


@pytest.mark.parametrize("guilty", ["first", "second", "third"])
def test_one_that_dies_is_named(guilty: str) -> None:
    script = "head -c 300000 /dev/zero; kill -9 $$"
    scripts = {"first": "cat /dev/zero", "second": "cat", "third": "cat", guilty: script}
    if guilty == "first":
        scripts["first"] = script
    with pytest.raises(ToolFailed) as caught:
        pipeline(*(sh(name, text) for name, text in scripts.items())).read(lambda _data: None)
    assert caught.value.phase == guilty
    assert caught.value.details["rc"] == -9


def test_a_source_that_fails_is_the_cause_of_everything_else() -> None:
    def source(_size: int) -> bytes:
        raise ToolFailed("the store went away", reason="store_failed")

    with pytest.raises(ToolFailed, match="the store went away"):
        pipeline(sh("strict", "read line || exit 7")).feed(source)


def test_a_sink_that_fails_ends_them_all() -> None:
    def sink(_data: bytes) -> None:
        raise ToolFailed("the disk is full", reason="store_full")

    before = open_descriptors()
    with pytest.raises(ToolFailed, match="the disk is full"):
        pipeline(sh("endless", "exec cat /dev/zero"), sh("cat", "exec cat")).read(sink)
    assert open_descriptors() == before


def test_the_deadline_ends_who_waits_for_ever() -> None:
    with pytest.raises(DeadlinePassed) as caught:
        pipeline(sh("waiting", "exec sleep 600"), sh("cat", "exec cat"), seconds=0.3).read(lambda _data: None)
    assert caught.value.phase == "waiting"
    assert caught.value.reason == "deadline_passed"


def test_one_that_fails_does_not_leave_the_others_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is stuck and doesn't notice that nobody reads it any longer."""
    monkeypatch.setattr(_pipeline, "GRACE", 0.1)
    with pytest.raises(ToolFailed) as caught:
        pipeline(sh("stuck", "exec sleep 600"), sh("broken", "echo no good >&2; exit 3")).read(lambda _data: None)
    assert caught.value.phase == "broken"
    assert [stage["rc"] for stage in caught.value.details["stages"]] == [-15, 3]


def test_complaints_are_bounded_and_never_block() -> None:
    script = "head -c 3000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo the end >&2; exit 1"
    with pytest.raises(ToolFailed) as caught:
        pipeline(sh("loud", script), stderr_limit=100).read(lambda _data: None)
    assert caught.value.details["stderr_tail"] == "the end"


def test_a_daemon_that_keeps_stderr_open_hangs_nobody() -> None:
    read: list[bytes] = []
    script = "setsid sleep 600 >/dev/null </dev/null & echo $!"
    pipeline(sh("daemon", script)).read(read.append)
    daemon = int(b"".join(read))
    assert os.path.exists(f"/proc/{daemon}"), "it was not waited for"
    os.kill(daemon, 9)


def test_complaints_are_cleaned() -> None:
    stage = Stage("x", ("/bin/sh", "-c", "echo 'row: secret' >&2; exit 1"), clean=lambda text: text[:4] + "…")
    with pytest.raises(ToolFailed, match=r"x ended with 1: row:…$"):
        pipeline(stage).read(lambda _data: None)


def test_a_secret_travels_on_a_descriptor_of_its_own() -> None:
    found: list[bytes] = []
    stage = Stage(
        "s",
        ("/bin/sh", "-c", 'cat "/proc/self/fd/$1"; tr "\\0" " " </proc/$$/cmdline', "sh", SECRET_FD),
        secret=b"geheim",
    )
    pipeline(stage).read(found.append)
    secret, _line, rest = b"".join(found).partition(b"\n")
    assert secret == b"geheim"
    assert b"geheim" not in rest


def test_the_environment_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "elsewhere")
    found: list[bytes] = []
    pipeline(Stage("env", ("/usr/bin/env",), env={"PGPORT": "5433"})).read(found.append)
    lines = b"".join(found).decode().splitlines()
    assert "PGPORT=5433" in lines
    assert not [line for line in lines if line.startswith("PGHOST")]


def test_what_is_not_installed_is_said_so_and_nothing_is_left() -> None:
    before = open_descriptors()
    with pytest.raises(ToolMissing, match="no-such-program is not installed") as caught:
        pipeline(sh("cat", "exec cat"), Stage("missing", ("/usr/bin/no-such-program",))).feed(source_of(b"x"))
    assert caught.value.phase == "missing"
    assert open_descriptors() == before


def test_the_source_is_read_to_its_end_when_asked() -> None:
    """So that what is stored can be hashed, whatever the programs think of it."""
    seen = bytearray()
    data = bytes(3_000_000)
    parts = source_of(data)

    def source(size: int) -> bytes:
        found = parts(size)
        seen.extend(found)
        return found

    with pytest.raises(ToolFailed):
        pipeline(sh("broken", "exit 1")).feed(source, to_the_end=True)
    assert len(seen) == len(data)
