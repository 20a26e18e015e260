# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rejoin killed at every stage, pg_rewind included, and run again."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.hms.postgres.tests.real.gate_relay import GateRelay
from ansible_collections.hms.postgres.tests.real.lab import BINARIES, OS_USER, Lab, run, until
from ansible_collections.hms.postgres.tests.real.rejoin_site import Member, Site
from ansible_collections.hms.postgres.tests.real.rejoin_steps import (
    ROOT,
    assert_standby_of,
    diverge,
    diverge_much,
    rejoin,
)

pytestmark = pytest.mark.timeout(300)


def _rewind_process(old: Member) -> int | None:
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else [b""]
            if os.path.basename(words[0]) == b"pg_rewind" and str(old.instance.data).encode() in words:
                return int(entry.name)
    return None


PROGRAM = """
import os, signal, sys
sys.path.insert(0, {path!r})
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._cluster.rejoin import Rejoin, Request
from ansible_collections.hms.postgres.plugins.module_utils._cluster.rejoin_apply import RejoinApplier
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
do = RejoinApplier.do
def killing(self, action, facts):
    result = do(self, action, facts)
    if action.id == {victim!r}:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
RejoinApplier.do = killing
Rejoin(Request({config!r}), recloner=None, runner=SystemRunner(), clock=SystemClock()).ensure(check_mode=False)
"""


def _in_background(member: Member, *, killed_after: str = "") -> subprocess.Popen[str]:
    """The program in a process of its own, which is killed when the named step has been done."""
    code = PROGRAM.format(path=str(ROOT / ".collections"), victim=killed_after, config=str(member.config))
    return subprocess.Popen([sys.executable, "-c", code], text=True, stderr=subprocess.PIPE, cwd="/")


@contextlib.contextmanager
def _rewind_midway(site: Site) -> t.Iterator[tuple[subprocess.Popen[str], int, GateRelay]]:
    """The program, and pg_rewind, which gets no more once it has begun to change the big table, and not yet pg_control.

    The gate that keeps it from going on is only in this program's way.
    """
    old, new = site.members
    bulk = old.instance.data / (old.instance.folder / "bulk").read_text()
    size = bulk.stat().st_size

    def shut(_passed: int) -> bool:
        return bulk.stat().st_size > size

    with contextlib.closing(GateRelay(site.lab.port(), new.instance.port, shut)) as gate:
        mine, others = site.description(old)["members"]
        site.write_member(old, members=[mine, {**others, "port": gate.port}])
        running = _in_background(old)
        until(lambda: gate.held.is_set() or running.poll() is not None, "pg_rewind is in the middle")
        pid = _rewind_process(old)
        assert pid is not None, f"pg_rewind was not met at work: {running.communicate()}"
        assert old.control("Latest checkpoint's TimeLineID") == "1", "pg_control comes last"
        site.write_member(old)
        yield running, pid, gate


def test_pg_rewind_killed_midway_is_repeated(lab: Lab) -> None:
    site = Site(lab)
    old, new, lost = diverge_much(site)
    with _rewind_midway(site) as (running, pid, _gate):
        os.kill(pid, signal.SIGKILL)
        _out, errors = running.communicate(timeout=60)
    assert running.returncode != 0
    assert "killed by signal 9" in errors
    assert (old.state / "rewind.in_progress").exists()
    assert (old.instance.config / "start.conf").read_text().strip() == "disabled", "nobody may start half of a rewind"

    assert rejoin(old, check_mode=True).values["case"] == "resume"
    done = rejoin(old)
    assert done.values["case"] == "resume"
    assert done.values["lost_transactions"] == len(lost)
    assert_standby_of(old, new)
    bulk = "SELECT count(*), md5(string_agg(b::text, ',' ORDER BY n)) FROM bulk b"
    assert old.sql(bulk) == new.sql(bulk)
    old.instance.stop()
    old.instance.start()
    checked = run("runuser", "-u", OS_USER, "--", str(BINARIES / "pg_amcheck"), "-a", "--install-missing",
                  "-h", str(new.instance.sockets), "-p", str(new.instance.port), check=False)  # fmt: skip
    assert "error" not in checked.lower()


def test_the_whole_run_killed_midway_leaves_pg_rewind_to_end_and_is_finished(lab: Lab) -> None:
    """kill -9 of our own program: pg_rewind goes on alone; the next run waits for it."""
    site = Site(lab)
    old, new, lost = diverge_much(site)
    with _rewind_midway(site) as (running, _pid, gate):
        running.kill()
        running.communicate(timeout=60)
        assert rejoin(old, check_mode=True).values["case"] == "rewind_running"
        gate.open()
        done = rejoin(old)
    assert done.values["case"] in ("rewound", "resume")
    assert done.values["lost_transactions"] == len(lost)
    assert_standby_of(old, new)


@pytest.mark.parametrize("step", ["recover", "keep_wal", "rewind", "configure", "start"])
def test_killed_after_any_step_it_is_finished_by_the_next_run(lab: Lab, step: str) -> None:
    """The program is killed when the named step has been done."""
    site = Site(lab)
    old, new, lost = diverge(site)
    running = _in_background(old, killed_after=step)
    running.communicate(timeout=120)
    assert running.returncode == -signal.SIGKILL
    if step == "start":
        until(lambda: old.instance.pid is not None, "the server comes up")
        until(lambda: "accepting" in run(str(BINARIES / "pg_isready"), "-h", str(old.instance.sockets), "-p",
                                         str(old.instance.port), check=False), "it answers")  # fmt: skip
    else:
        assert not old.processes()
        assert (old.instance.data / "standby.signal").exists() or step == "rewind"
    rejoin(old)
    assert_standby_of(old, new)
    dossiers = [json.loads(path.read_text()) for path in (old.state / "diverged").glob("*/dossier.json")]
    assert dossiers
    assert all(item["losses"]["count"] == len(lost) for item in dossiers)
