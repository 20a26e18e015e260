# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Swaps in which something beside the coordinator fails: an agent, a PgBouncer process, the lines; and a pest.

Whatever happens: one of the two databases is live and whole, nobody is left held, no session that renames is left, and
running it again ends it.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import threading

import psycopg
import pytest

from ansible_collections.hms.postgres.tests.real import swap_site
from ansible_collections.hms.postgres.tests.real.engine_hosts import Writer
from ansible_collections.hms.postgres.tests.real.lab import signal_all, until
from ansible_collections.hms.postgres.tests.real.swap_site import (
    LIVE,
    SwapSite,
    direct,
    run_again,
    settled,
)

pytestmark = pytest.mark.timeout(300)

site, writers, pair = swap_site.two_bouncers, swap_site.two_writers, swap_site.swapped_without_loss


VICTIMS = [
    ("db1", "step:hold_pools"),
    ("db1", "after:swap"),
    ("bouncer1", "step:hold_pools"),
    ("bouncer2", "step:swap"),
]


@pytest.mark.parametrize(("victim", "moment"), VICTIMS)
def test_a_killed_agent_leaves_nobody_waiting(
    site: SwapSite, pair: tuple[int, int], writers: list[Writer], victim: str, moment: str
) -> None:
    """The coordinator lives: it starts the agent again, asks the catalog, and goes on or back."""
    child = site.swap_child(moment=moment, accident={"kill": str(site.folder / victim / "etc")})
    child.end()
    assert child.mark.exists()
    until(lambda: settled(site, pair), "nobody is held")
    for writer in writers:
        writer.goes_on()
    run_again(site, pair)


def test_a_process_that_freezes_in_the_middle_holds_up_only_its_own_clients(
    site: SwapSite, pair: tuple[int, int], writers: list[Writer]
) -> None:
    bouncer = site.bouncers["bouncer2"]
    accident = {"stop": [str(bouncer.sockets("2") / "pid")]}
    child = site.swap_child(moment="step:hold_pools", accident=accident)
    try:
        until(child.mark.exists, "it is frozen")
        writers[0].goes_on()
        until(lambda: bouncer.paused_among("1") == [], "its sibling lets its clients go")
        found = child.result()
    finally:
        os.kill(bouncer.pid("2"), signal.SIGCONT)
    assert found["reason"] == "bouncer_failed"
    assert found["message"].endswith("Clients may be held on bouncer2.")
    site.agents_end()
    assert site.oid(LIVE) == pair[1], "the swap itself was done"
    until(lambda: settled(site, pair), "nobody is held")
    run_again(site, pair)


def test_what_nobody_lets_go_the_next_run_does(site: SwapSite, pair: tuple[int, int]) -> None:
    """Coordinator and agents die at once, when the swap is done and everybody is held."""
    agents = [str(bouncer.config) for bouncer in site.bouncers.values()]
    child = site.swap_child(moment="step:swap", accident={"kill": agents, "itself": True})
    assert child.end() == -signal.SIGKILL
    assert site.oid(LIVE) == pair[1], "it is done"
    assert len(site.paused()) == 4
    report = site.swap()
    assert report.changed
    assert "clients that an earlier run left held are let go" in report.plan.summary
    assert settled(site, pair)
    assert not site.swap().changed


def test_lines_that_fall_silent_leave_nobody_waiting(
    site: SwapSite, pair: tuple[int, int], writers: list[Writer], tmp_path: pathlib.Path
) -> None:
    """Nothing is closed, nothing arrives: the agents take five seconds of it for the coordinator's death."""
    relays = {host: tmp_path / host for host in (*site.databases, *site.bouncers)}
    accident = {"stop": [str(path) for path in relays.values()]}
    child = site.swap_child(lines=site.lines(**relays), moment="step:hold_pools", accident=accident)
    try:
        until(child.mark.exists, "the lines are cut")
        until(lambda: settled(site, pair), "nobody is held")
        for writer in writers:
            writer.goes_on()
    finally:
        signal_all((int(path.read_text()) for path in relays.values()), signal.SIGCONT)
    child.end()
    site.agents_end()
    run_again(site, pair)


def test_a_session_that_comes_in_the_middle_is_ended_too(site: SwapSite, pair: tuple[int, int]) -> None:
    """Somebody connects past the bouncers again and again; no attempt of his keeps the swap from its end."""
    stop = site.folder / "stop"
    seen: set[int] = set()

    def pester() -> None:
        while not stop.exists():
            with contextlib.suppress(psycopg.Error), direct(site.primary()) as client:
                row = client.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone()
                seen.add(row[0] if row else 0)

    threads = [threading.Thread(target=pester) for _number in range(2)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: pair[0] in seen, "somebody was in the old one")
        child = site.swap_child(sessions_deadline=30.0)
        assert child.result()["changed"]
        until(lambda: pair[1] in seen, "somebody was in the new one")
    finally:
        stop.touch()
        for thread in threads:
            thread.join()
        stop.unlink()
    assert seen == set(pair)
    assert not site.swap().changed
