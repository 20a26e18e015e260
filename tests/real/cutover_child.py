# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A coordinator of a cutover to which something happens at a chosen moment; which ones says engine_child.py."""

from __future__ import annotations

import json
import sys

from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._cluster.cutover_model import CutoverRequest
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.course import Job
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.cutover_run import run_cutover
from ansible_collections.hms.postgres.tests.real.engine_child import asked, ordered, tell


def main() -> int:
    wish = json.loads(sys.argv[1])
    job = Job(request=CutoverRequest(**asked(wish)), **ordered(wish))
    return tell(lambda: run_cutover(job, SystemClock(), check_mode=False))


if __name__ == "__main__":
    raise SystemExit(main())
