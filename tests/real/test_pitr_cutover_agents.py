# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cutovers whose agent on the database host is killed at every step.

Whatever happens: the old cluster is live and whole or the recovered one is, and running it again ends it.
"""

from __future__ import annotations

import pytest

from ansible_collections.hms.postgres.tests.real import cutover_site
from ansible_collections.hms.postgres.tests.real.cutover_site import (
    CutoverSite,
    finished_by_another_run,
    is_old,
    recover,
    settled,
)
from ansible_collections.hms.postgres.tests.real.engine_hosts import Child, Writer
from ansible_collections.hms.postgres.tests.real.lab import until

# a cluster is recovered and put in the other one's place each time
pytestmark = pytest.mark.timeout(300)
site, writer = cutover_site.alone, cutover_site.one_writer


def agent_killed(site: CutoverSite, moment: str) -> Child:
    """A cutover during which the database host's agent is killed."""
    return site.cutover_child(moment=moment, accident={"kill": str(site.db1.config)})


@pytest.mark.parametrize(
    "moments", [["after:promote_side", "after:cutover_stop"], ["step:stop_primary", "step:exchange"]], ids=" ".join
)
def test_an_agent_killed_in_the_exchange_is_started_again_and_puts_it_in_order(
    site: CutoverSite, writer: Writer, moments: list[str]
) -> None:
    timeline, kept = site.timeline(), len(site.kept())
    gone = writer.missing(site.db1)
    recover(site)
    for moment in moments:
        child = agent_killed(site, moment)
        assert child.end() == 3, moment
        assert child.mark.exists()
        until(lambda: settled(site), f"after {moment} nobody is held", seconds=60.0)
        site.agents_end()
        is_old(site, writer, timeline, gone)
    finished_by_another_run(site, writer, timeline, kept)


@pytest.mark.parametrize("moment", ["after:cutover_start", "step:start_primary"])
def test_an_agent_killed_at_the_start_leaves_one_of_the_two_whole(
    site: CutoverSite, writer: Writer, moment: str
) -> None:
    timeline, kept = site.timeline(), len(site.kept())
    recover(site)
    child = agent_killed(site, moment)
    assert child.end() in (0, 3)
    assert child.mark.exists()
    until(lambda: settled(site), "nobody is held", seconds=60.0)
    site.agents_end()
    writer.goes_on()
    assert site.timeline() == timeline + (not site.has_harm())
    assert moment == "after:cutover_start" or not site.has_harm()
    finished_by_another_run(site, writer, timeline, kept)
