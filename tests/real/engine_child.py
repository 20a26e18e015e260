# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A coordinator that ends itself by SIGKILL at a chosen moment, so that tests see what is left.

The moment is ``before:VERB`` or ``after:VERB`` (the first time that this verb is sent to any host) or
``step:ID`` (when the first answer of that step is written down).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._cluster.plan import Request
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.plugin_utils import _bundle
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.fleet import Fleet, Pending
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.line import LineSpec
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.operation import Operation
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.overview import Site
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.run import Job, run


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(moment: str) -> None:
    """Wrap what the coordinator does at the chosen moment."""
    when, _colon, what = moment.partition(":")
    post, write = Fleet.post, Operation._write

    def posting(fleet: Fleet, host: str, verb: str, **args: t.Any) -> Pending:
        if (when, what) == ("before", verb):
            die()
        pending = post(fleet, host, verb, **args)
        if (when, what) == ("after", verb):
            die()
        return pending

    def writing(operation: Operation, **step: t.Any) -> None:
        write(operation, **step)
        if (when, what) == ("step", step["id"]) and step["result"] != "running":
            die()

    Fleet.post = posting  # type: ignore[method-assign]  # that is what this file is for
    Operation._write = writing  # type: ignore[method-assign]  # the same


def main() -> int:
    wish = json.loads(sys.argv[1])
    if wish["kill"]:
        arm(wish["kill"])
    request = {key: tuple(value) if isinstance(value, list) else value for key, value in wish["request"].items()}
    cluster, environment, databases, bouncers = wish["site"]
    job = Job(
        request=Request(**request),
        site=Site(cluster, environment, tuple(databases), tuple(bouncers)),
        lines=tuple(LineSpec(host, tuple(argv)) for host, argv in wish["lines"]),
        bundle=_bundle.build(),
        by=wish["by"],
        records_directory=wish["records_directory"],
        parameters={},
        version="0",
        command="ansible-playbook",
    )
    try:
        report = run(job, SystemClock(), check_mode=False)
    except HmsError as error:
        sys.stdout.write("\n" + json.dumps(error.as_dict(), default=str) + "\n")
        return 3
    sys.stdout.write("\n" + json.dumps({"changed": report.changed, "record": report.record}, default=str) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
