# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cutovers whose coordinator is killed at every step.

Whatever happens: the old cluster is live and whole or the recovered one is, nobody is left held, and running it again
ends it.
"""

from __future__ import annotations

import signal

import pytest

from ansible_collections.hms.postgres.tests.real import cutover_site
from ansible_collections.hms.postgres.tests.real.cutover_site import (
    CutoverSite,
    finished_by_another_run,
    is_old,
    recover,
    settled,
)
from ansible_collections.hms.postgres.tests.real.engine_hosts import Writer
from ansible_collections.hms.postgres.tests.real.lab import until

# a cluster is recovered and put in the other one's place each time
pytestmark = pytest.mark.timeout(300)
site, writer = cutover_site.alone, cutover_site.one_writer


BEFORE = [
    ["before:promote_side", "after:promote_side", "step:promote_side"],
    ["after:hold", "step:hold_pools", "after:cutover_stop"],
    ["step:stop_primary", "after:cutover_exchange", "step:exchange"],
]


@pytest.mark.parametrize("moments", BEFORE, ids=" ".join)
def test_a_coordinator_killed_before_the_start_leaves_the_old_cluster(
    site: CutoverSite, writer: Writer, moments: list[str]
) -> None:
    timeline, kept = site.timeline(), len(site.kept())
    gone = writer.missing(site.db1)
    recover(site)
    for moment in moments:
        assert site.cutover_child(moment=moment).end() == -signal.SIGKILL, moment
        until(lambda: settled(site), f"after {moment} nobody is held", seconds=60.0)
        site.agents_end()
        is_old(site, writer, timeline, gone)
        assert len(site.kept()) == kept
    finished_by_another_run(site, writer, timeline, kept)
