# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A coordinator of a swap to which something happens at a chosen moment; the moments are those of engine_child.py."""

from __future__ import annotations

import json
import sys

from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._cluster.swap_model import Service, SwapRequest
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.course import Job
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.swap_run import run_swap
from ansible_collections.hms.postgres.tests.real.engine_child import asked, ordered, tell


def main() -> int:
    wish = json.loads(sys.argv[1])
    services = tuple(Service(**service) for service in wish["request"]["services"])
    job = Job(request=SwapRequest(**{**asked(wish), "services": services}), **ordered(wish))
    return tell(lambda: run_swap(job, SystemClock(), check_mode=False))


if __name__ == "__main__":
    raise SystemExit(main())
