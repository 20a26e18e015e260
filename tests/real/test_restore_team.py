# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sessions that share work, against a server: whatever ends one of them ends all, there and here."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact.running import ending_properly
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._postgres import ConnectionParams, Session, connect
from ansible_collections.hms.postgres.plugins.module_utils._restore import team as teams
from ansible_collections.hms.postgres.plugins.module_utils._restore.team import Team
from ansible_collections.hms.postgres.tests.real.lab import OS_USER, Instance, Lab, until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def server(module_lab: Lab) -> Instance:
    return module_lab.primary()


def team(server: Instance, size: int, *, seconds: float = 100.0) -> Team:
    """Of sessions whose statements may take as long as they like."""
    params = ConnectionParams(host=str(server.sockets), port=server.port, user=OS_USER, statement_timeout=0)
    deadline = time.monotonic() + seconds
    return Team(lambda: connect(params, os_user=OS_USER), size, deadline=deadline, what="What a test asks")


def sleep(session: Session) -> None:
    """Longer than any test."""
    session.execute("SELECT pg_sleep(600)")


def sleeping(server: Instance) -> list[int]:
    """The backends that sleep."""
    found = server.sql("SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'")
    return [int(pid) for pid in found.split()]


def nobody_is_left(server: Instance, before: set[threading.Thread]) -> None:
    until(lambda: not sleeping(server), "the server has ended them", seconds=60)
    # a timer that was called off ends a moment later
    until(lambda: set(threading.enumerate()) <= before, "nobody is left here", seconds=60)


def test_an_error_ends_what_the_others_do(server: Instance) -> None:
    """And it is that error which is told, not what came of the end of the others."""
    before = set(threading.enumerate())

    def fail(session: Session) -> None:
        until(lambda: len(sleeping(server)) == 2, "the others are at it", seconds=60)
        session.execute("SELECT 1 / 0")

    with pytest.raises(HmsError, match="division by zero"), team(server, 3) as three:
        three.share([sleep, sleep, fail, sleep])
    nobody_is_left(server, before)


def test_a_deadline_ends_them(server: Instance) -> None:
    before = set(threading.enumerate())
    with pytest.raises(HmsError, match="did not end in the time it has") as caught, team(server, 2, seconds=1.0) as two:
        two.share([sleep, sleep])
    assert caught.value.reason == "deadline_passed"
    nobody_is_left(server, before)


@pytest.mark.parametrize("frozen", [False, True])
def test_told_to_end(server: Instance, monkeypatch: pytest.MonkeyPatch, frozen: bool) -> None:
    """Also where a backend doesn't hear it: the line to it is cut, so that nobody here waits for it."""
    monkeypatch.setattr(teams, "_PATIENCE", 2 if frozen else 60)
    before, stopped = set(threading.enumerate()), list[int]()

    def tell() -> None:
        until(lambda: len(sleeping(server)) == 2, "both are at it", seconds=60)
        if frozen:
            stopped.append(sleeping(server)[0])
            os.kill(stopped[0], signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGTERM)

    def work() -> None:
        with ending_properly("The test", "Nothing was touched."), team(server, 2) as two:
            teller.start()
            two.share([sleep, sleep])

    teller = threading.Thread(target=tell)
    try:
        with pytest.raises(HmsError) as caught:
            work()
    finally:
        teller.join()
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert caught.value.reason == "interrupted"
    nobody_is_left(server, before)
