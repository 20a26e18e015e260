# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Swaps whose coordinator is killed at every step, and in the middle of the transaction that renames.

Whatever happens: one of the two databases is live and whole, nobody is left held, no session that renames is left, and
running it again ends it.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import typing as t

import psycopg
import pytest

from ansible_collections.hms.postgres.tests.real import swap_site
from ansible_collections.hms.postgres.tests.real.lab import signal_all, until
from ansible_collections.hms.postgres.tests.real.swap_site import (
    LIVE,
    RENAMERS,
    SCRATCH,
    SwapSite,
    run_again,
    settled,
)

pytestmark = pytest.mark.timeout(300)

site, writers, pair = swap_site.two_bouncers, swap_site.two_writers, swap_site.swapped_without_loss


MOMENTS = [
    "before:hold_swap",
    "after:hold_swap",
    "step:hold_pools",
    "before:swap",
    "after:swap",
    "step:swap",
    "after:resume",
    "before:verify_swap",
]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_coordinator_leaves_the_old_database_or_the_new(
    site: SwapSite, pair: tuple[int, int], moment: str
) -> None:
    assert site.swap_child(moment=moment).end() == -signal.SIGKILL
    until(lambda: settled(site, pair), f"after {moment} nobody is held")
    run_again(site, pair)


@contextlib.contextmanager
def in_the_middle(site: SwapSite) -> t.Iterator[None]:
    """The first rename is done and not committed, the second one waits: somebody works on the scratch database."""
    with psycopg.connect(host="127.0.0.1", port=site.primary().port, user="postgres", dbname="postgres") as other:
        other.execute(f"COMMENT ON DATABASE {SCRATCH} IS 'in use'".encode())
        yield


def renaming(site: SwapSite) -> bool:
    return site.ask(f"{RENAMERS} AND wait_event_type = 'Lock'") == "1"


@pytest.mark.parametrize("victim", ["coordinator", "db1"])
def test_killed_between_the_two_renames_nothing_of_them_is_left(
    site: SwapSite, pair: tuple[int, int], victim: str
) -> None:
    with in_the_middle(site):
        child = site.swap_child(sessions_deadline=45.0)
        until(lambda: renaming(site), "the transaction is in the middle")
        signal_all([child.pid] if victim == "coordinator" else site.agents(victim), signal.SIGKILL)
        child.end()
        until(lambda: settled(site, pair), "nobody is held")
        assert site.through() == {pair[0]}
        until(lambda: site.ask(RENAMERS) == "0", "no session renames")
    assert set(site.oids()) == {LIVE, SCRATCH}
    site.agents_end()
    run_again(site, pair)


def test_a_rename_that_waits_too_long_is_taken_back(site: SwapSite, pair: tuple[int, int]) -> None:
    with in_the_middle(site):
        child = site.swap_child(sessions_deadline=3.0)
        assert child.end() == 3
        found = child.result()
        assert "Another session works on one of the two databases themselves: pid " in found["message"]
        assert found["reason"] == "database_locked"
        assert found["state"] == "hospital is the database that it was; the clients go on there. Nothing was changed."
        until(lambda: settled(site, pair), "nobody is held")
        assert site.through() == {pair[0]}
    run_again(site, pair)


@pytest.mark.parametrize("how", ["ended", "killed"])
def test_a_connection_to_the_server_that_is_lost_in_the_middle(site: SwapSite, pair: tuple[int, int], how: str) -> None:
    """The session that renames is ended by somebody, or the server crashes with it and comes up again."""
    with contextlib.suppress(psycopg.Error), in_the_middle(site):
        child = site.swap_child(sessions_deadline=45.0)
        until(lambda: renaming(site), "the transaction is in the middle")
        pid = int(site.ask(RENAMERS.replace("count(*)", "pid")))
        if how == "ended":
            site.ask(f"SELECT pg_terminate_backend({pid})")
        else:
            os.kill(pid, signal.SIGKILL)
        assert child.end() == 3
    found = child.result()
    assert "one of the two databases is live and whole" in found["state"] or found["state"].startswith(
        "hospital is the database that it was; the clients go on there."
    )
    record = json.loads(pathlib.Path(found["details"]["record"]).read_text())
    assert record["outcome"]["status"] == "rolled_back"
    until(lambda: settled(site, pair), "nobody is held")
    assert site.through() == {pair[0]}
    assert set(site.oids()) == {LIVE, SCRATCH}
    site.agents_end()
    run_again(site, pair)
