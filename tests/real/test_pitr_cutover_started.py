# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cutovers whose coordinator is killed once the recovered cluster was told to start.

The agents bring it up alone and let the clients go; running it again ends it.
"""

from __future__ import annotations

import signal

import pytest

from ansible_collections.hms.postgres.tests.real import cutover_site
from ansible_collections.hms.postgres.tests.real.cutover_site import (
    CutoverSite,
    finished_by_another_run,
    recover,
    settled,
)
from ansible_collections.hms.postgres.tests.real.engine_hosts import Writer
from ansible_collections.hms.postgres.tests.real.lab import until

# a cluster is recovered and put in the other one's place each time
pytestmark = pytest.mark.timeout(300)
site, writer = cutover_site.alone, cutover_site.one_writer


@pytest.mark.parametrize(
    "moment", ["after:cutover_start", "step:start_primary", "after:resume", "before:cutover_finish"]
)
def test_a_coordinator_killed_after_the_start_leaves_the_new_cluster(
    site: CutoverSite, writer: Writer, moment: str
) -> None:
    timeline, kept = site.timeline(), len(site.kept())
    recover(site)
    assert site.cutover_child(moment=moment).end() == -signal.SIGKILL
    until(lambda: settled(site), "nobody is held", seconds=60.0)
    finished_by_another_run(site, writer, timeline, kept)
