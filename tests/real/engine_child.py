# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A coordinator to which something happens at a chosen moment, so that tests see what is left.

The moment is ``before:VERB`` or ``after:VERB`` (the first time that this verb is sent to any host) or
``step:ID`` (when the first answer of that step is written down). What happens: it ends itself by SIGKILL; or
processes are ended (``kill``: their last argument, or several such; ``killall``: their folder; with ``itself`` it ends
itself after them), or stopped (``stop``: files that hold their pids), or a program is ``run``.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._cluster.plan import Request
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.plugin_utils import _bundle
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator import operation
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.course import Job, Report
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.fleet import Fleet, Pending
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.line import LineSpec
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.operation import Operation
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.overview import Site
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.run import run
from ansible_collections.hms.postgres.tests.real.lab import signal_all, working_in


def happen(accident: t.Mapping[str, t.Any]) -> None:
    """Let it happen, once."""
    mark = pathlib.Path(accident["mark"])
    if mark.exists():
        return
    for path in accident.get("stop", []):
        os.kill(int(pathlib.Path(path).read_text()), signal.SIGSTOP)
    words = accident.get("kill", [])
    for word in [words] if isinstance(words, str) else words:
        signal_all(with_last_argument(word), signal.SIGKILL)
    signal_all(working_in(accident.get("killall", "")), signal.SIGKILL)
    if "run" in accident:
        subprocess.run(accident["run"], check=True, timeout=60)
    mark.touch()
    if "itself" in accident or not {"stop", "kill", "killall", "run"} & set(accident):
        os.kill(os.getpid(), signal.SIGKILL)


def with_last_argument(word: str) -> list[int]:
    """Python processes whose command line ends with `word`."""
    found = []
    for entry in pathlib.Path("/proc").iterdir() if word else ():
        with contextlib.suppress(OSError):
            argv = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            if argv[-2:-1] == [word.encode()] and b"python" in argv[0]:
                found.append(int(entry.name))
    return found


def arm(accident: t.Mapping[str, t.Any]) -> None:
    """Wrap what the coordinator does at the chosen moment."""
    when, _colon, what = accident["moment"].partition(":")
    post, write = Fleet.post, Operation._write

    def posting(fleet: Fleet, host: str, verb: str, **args: t.Any) -> Pending:
        if (when, what) == ("before", verb):
            happen(accident)
        pending = post(fleet, host, verb, **args)
        if (when, what) == ("after", verb):
            happen(accident)
        return pending

    def writing(working: Operation, **step: t.Any) -> None:
        write(working, **step)
        if (when, what) == ("step", step["id"]) and step["result"] != "running":
            happen(accident)

    Fleet.post = posting  # type: ignore[method-assign,assignment]  # that is what this file is for
    Operation._write = writing  # type: ignore[method-assign,assignment]  # the same


def ordered(wish: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What every job is told, from the parent's wish; the accident is armed."""
    if wish["accident"]:
        arm(wish["accident"])
    operation.REVIVE_SECONDS = wish["greet_seconds"]  # a busy machine may need longer for an agent's start
    cluster, environment, *hosts = wish["site"]
    return {
        "site": Site(cluster, environment, *map(tuple, hosts)),
        "lines": tuple(LineSpec(host, tuple(argv)) for host, argv in wish["lines"]),
        "bundle": _bundle.build(),
        "by": wish["by"],
        "records_directory": wish["records_directory"],
        "parameters": {},
        "version": "0",
        "greet_seconds": wish["greet_seconds"],
    }


def asked(wish: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """The request's fields."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in wish["request"].items()}


def tell(work: t.Callable[[], Report]) -> int:
    """Do it, and tell the parent on stdout what came of it."""
    try:
        report = work()
    except HmsError as error:
        sys.stdout.write("\n" + json.dumps(error.as_dict(), default=str) + "\n")
        return 3
    sys.stdout.write("\n" + json.dumps({"changed": report.changed, "record": report.record}, default=str) + "\n")
    return 0


def main() -> int:
    wish = json.loads(sys.argv[1])
    job = Job(request=Request(**asked(wish)), command="ansible-playbook", **ordered(wish))
    return tell(lambda: run(job, SystemClock(), check_mode=False))


if __name__ == "__main__":
    raise SystemExit(main())
