# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the arguments of a task that cuts over to a job, and from its report to the task's result. PRIVATE."""

from __future__ import annotations

import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._cluster.cutover_model import (
    CutoverPlan,
    CutoverRequest,
    to_rejoin,
)
from ansible_collections.hms.postgres.plugins.module_utils._cluster.plan import leader
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._postgres import format_lsn

from . import task
from .course import Report
from .cutover_run import run_cutover
from .swap_task import stamp

CUTOVER_SPEC: dict[str, t.Any] = {
    **task.SITE_SPEC,
    **task.PLANNED,
    "records_directory": {"type": "path", "required": True},
    "directory": {"type": "path", "default": ""},
    "confirm": {"type": "str", "default": ""},
    "force": {"type": "list", "elements": "str", "default": []},
    "hold_seconds": {"type": "float", "default": 3.0},
}


def run_pitr_cutover(
    arguments: t.Mapping[str, t.Any], hostvars: t.Mapping[str, t.Any], *, check_mode: bool
) -> dict[str, t.Any]:
    """Carry out a task that makes a recovered side cluster the live one."""
    clock = SystemClock()
    try:
        if arguments["hold_seconds"] <= 0:
            raise Refused(
                f"hold_seconds is {arguments['hold_seconds']:g}; it must be more than 0.",
                reason="bad_argument",
                phase="plan",
                state="Nothing was touched.",
                next_step="Correct it.",
            )
        request = CutoverRequest(
            directory=arguments["directory"],
            stamp=stamp(clock),
            confirm=arguments["confirm"],
            force=tuple(arguments["force"]),
            hold_seconds=arguments["hold_seconds"],
        )
        job = task.job_of(request, task.site_of(arguments), arguments, hostvars)
        report = run_cutover(job, clock, check_mode=check_mode)
        return {**task.result_of(report), **told(report), "diff": task.plan_text(report)}
    except HmsError as error:
        return task.failed_result(error)


def told(report: Report) -> dict[str, t.Any]:
    """What the result says beside every operation's own."""
    plan = report.plan
    if not isinstance(plan, CutoverPlan):  # pragma: no cover  a cutover has no other plan
        return {}
    primary = leader(report.facts)
    done = report.record is not None or plan.finishing
    return {
        "target": plan.target,
        "target_lsn": format_lsn(plan.target_lsn),
        "kept_as": plan.kept,
        "since": plan.exchange.at if plan.exchange is not None else "",
        "timeline": primary.timeline if primary is not None else 0,
        "rejoin": list(to_rejoin(report.facts, primary) if done and primary is not None else plan.rejoin),
    }
