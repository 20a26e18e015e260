# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The restore drill put together: the host's policy, the restore, the proof, the drill. PRIVATE.

What rooms may not know of each other meets here, for the module and for the schedule on the host alike.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ._backup import policy as policies
from ._backup.job import DONE, Ports, Say, exit_code, guarded
from ._backup.notify import human_seconds
from ._backup.policy_sources import host_of
from ._clock import Clock, SystemClock, iso
from ._command import CommandRunner, SystemRunner
from ._drill.arguments import DRILL, asked_of, drill, order_from
from ._drill.model import FORCED, Task
from ._errors import HmsError
from ._module import Result
from ._postgres import Session
from ._restore import order as orders
from ._restore import validate
from ._restore.manager import restore
from ._restore.model import Assertion
from ._restore.team import Team

COMMAND = "restore-drill"
BY = "module pg_restore_drill"


def work(
    params: t.Mapping[str, t.Any],
    *,
    check_mode: bool,
    runner: CommandRunner | None = None,
    clock: Clock | None = None,
    by: str = BY,
) -> Result:
    """The module's work, and the command's."""
    runner, clock = runner or SystemRunner(), clock or SystemClock()
    base, sources, known = host_of(params)

    def bring_back(task: Task) -> Result:
        asked = asked_of(params.get("assertions"), task.database)
        own = {**params, "database": task.database, "confirm": task.database, "assertions": asked}
        made = dataclasses.replace(
            orders.order_from(own, base=base, sources=task.sources, known=known),
            connection=task.connection,
            backup=task.backup,
            state_dir=task.state_dir,
            work_dir=f"{task.state_dir}/restore",
            allow_other_system=True,
            force=FORCED,
            timeout=task.timeout,
        )
        return restore(made, check_mode=False, runner=runner, clock=clock, by=by)

    def prove(connect: t.Callable[[], Session], database: str, deadline: float) -> list[dict[str, t.Any]]:
        asked = [
            Assertion(str(one["name"]), str(one["sql"]), validate.text_of(one.get("expect", True)))
            for one in asked_of(params.get("assertions"), database)
        ]
        with Team(connect, order.processes, deadline=deadline, what=f"Proving {database}") as team:
            checks = (*validate.prove(team, None, ()), *validate.ask(team.first, asked))
        return [check.as_dict() for check in checks]

    encryption = orders.opens(params.get("encryption") or {}, known)
    order = order_from(params, base=base, sources=sources, encryption=encryption)
    return drill(order, check_mode=check_mode, runner=runner, clock=clock, restore=bring_back, prove=prove, by=by)


def params_of(policy: policies.Policy, config: str) -> dict[str, t.Any]:
    """The module's arguments as the host's file has them under ``drill``."""
    defaults = {name: spec["default"] for name, spec in DRILL.items() if "default" in spec}
    given = {name: value for name, value in policy.drill.items() if name not in policies.DRILL_OWN}
    return {**defaults, "environment": policy.base.get("environment"), **given, "config_directory": config}


def main(config: str) -> int:
    """``hms-postgres restore-drill``: the drill of the schedule, with everybody told how it went."""

    def scheduled(say: Say) -> int:
        policy = policies.load(config)
        ports = Ports(SystemRunner(), SystemClock(), say)
        say(f"The restore drill begins, {iso(ports.clock.now())}.")
        return run(policy, config, ports)

    return guarded(COMMAND, scheduled)


def run(policy: policies.Policy, config: str, ports: Ports) -> int:
    """One drill of the schedule; the exit code."""
    reporter = ports.reporter(policy)
    begun = ports.clock.monotonic()
    try:
        params = params_of(policy, config)
        done = work(params, check_mode=False, runner=ports.runner, clock=ports.clock, by="the schedule's restore drill")
    except HmsError as error:
        ports.say(f"FAILED. {error.full_text()}")
        reporter.drill_failed(error, ports.clock.monotonic() - begun)
        return exit_code(error)
    for warning in done.warnings:
        ports.say(f"warning: {warning}")
    for result in done.values["results"]:
        took = human_seconds(float(result["restore_seconds"]))
        ports.say(f"{result['id']} of {result['database']} ({result['engine']}) came back in {took}.")
    reporter.drilled(done.values["results"], ports.clock.monotonic() - begun, list(done.warnings))
    return DONE
