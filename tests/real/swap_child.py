# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A coordinator of a swap to which something happens at a chosen moment; the moments are those of engine_child.py."""

from __future__ import annotations

import json
import sys
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._cluster.swap_model import SwapRequest
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.plugin_utils import _bundle
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.line import LineSpec
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.overview import Site
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.swap_run import SwapJob, run_swap
from ansible_collections.hms.postgres.tests.real.engine_child import arm


def main() -> int:
    wish = json.loads(sys.argv[1])
    if wish["accident"]:
        arm(wish["accident"])
    request: dict[str, t.Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in wish["request"].items()
    }
    cluster, environment, databases, bouncers = wish["site"]
    job = SwapJob(
        request=SwapRequest(**request),
        site=Site(cluster, environment, tuple(databases), tuple(bouncers)),
        lines=tuple(LineSpec(host, tuple(argv)) for host, argv in wish["lines"]),
        bundle=_bundle.build(),
        by=wish["by"],
        records_directory=wish["records_directory"],
        parameters={},
        version="0",
    )
    try:
        report = run_swap(job, SystemClock(), check_mode=False)
    except HmsError as error:
        sys.stdout.write("\n" + json.dumps(error.as_dict(), default=str) + "\n")
        return 3
    sys.stdout.write("\n" + json.dumps({"changed": report.changed, "record": report.record}, default=str) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
