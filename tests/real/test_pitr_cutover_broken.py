# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cutovers whose host loses its power, and whose recovered cluster can't be started.

Whatever happens: the old cluster is live and whole or the recovered one is, and running it again ends it.
"""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from ansible_collections.hms.postgres.tests.real import cutover_site
from ansible_collections.hms.postgres.tests.real.cutover_site import (
    CutoverSite,
    finished_by_another_run,
    is_new,
    is_old,
    recover,
    settled,
)
from ansible_collections.hms.postgres.tests.real.engine_hosts import Writer
from ansible_collections.hms.postgres.tests.real.lab import OS_USER

# a cluster is recovered and put in the other one's place each time
pytestmark = pytest.mark.timeout(300)
site, writer = cutover_site.alone, cutover_site.one_writer


def power_cut(site: CutoverSite, moment: str) -> None:
    """Coordinator, agent and server of the database host end at once; the bouncers live on."""
    # the coordinator in the same breath as the agent: it would begin to put things in order
    coordinator = ["/bin/sh", "-c", "kill -KILL $PPID"]
    child = site.cutover_child(moment=moment, accident={"kill": str(site.db1.config), "run": coordinator})
    assert child.end() == -signal.SIGKILL
    site.db1.kill()


@pytest.mark.parametrize("between", [True, False])
def test_a_host_that_lost_its_power_in_the_exchange_is_put_in_order_by_the_next_run(
    site: CutoverSite, writer: Writer, *, between: bool
) -> None:
    timeline, kept = site.timeline(), len(site.kept())
    recover(site)
    power_cut(site, "step:exchange")
    assert site.journal()["stage"] == "exchanging"
    if between:  # only the first of the two renames was done
        os.rename(site.db1.data, site.side / "data")
    report = site.cutover(check_mode=True)
    assert [action.id for action in report.plan.actions] == ["settle"]
    report = site.cutover()
    assert report.changed
    is_new(site, writer, timeline, kept)
    assert not site.cutover().changed


def test_what_can_not_be_started_is_taken_out_again(site: CutoverSite, writer: Writer) -> None:
    timeline = site.timeline()
    gone = writer.missing(site.db1)
    recover(site)
    broken = site.side / "data" / "PG_VERSION"
    version = broken.read_text()
    child = site.cutover_child(moment="before:cutover_stop", accident={"run": ["rm", str(broken)]})
    assert child.end(120.0) == 3
    error = child.result()
    assert error["message"] == f"The recovered cluster did not start: there is no server in {site.db1.data}."
    assert "leads with the data that it had; the clients go on there" in error["state"]
    assert settled(site)
    is_old(site, writer, timeline, gone)
    broken.write_text(version)
    shutil.chown(broken, OS_USER, OS_USER)
    finished_by_another_run(site, writer, timeline, len(site.kept()))
