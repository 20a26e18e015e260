# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the arguments of a task that swaps databases to a job, and from its report to the task's result. PRIVATE."""

from __future__ import annotations

import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._clock import Clock, SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._cluster.swap_model import Service, SwapPlan, SwapRequest
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused

from . import task
from .course import Report
from .overview import Site
from .swap_run import run_swap

SWAP_SPEC: dict[str, t.Any] = {
    **task.SITE_SPEC,
    **task.PLANNED,
    "records_directory": {"type": "path", "required": True},
    "database": {"type": "str", "required": True},
    "scratch": {"type": "str", "default": ""},
    "keep_as": {"type": "str", "default": ""},
    "state": {"type": "str", "default": "swapped", "choices": ["swapped", "rolled_back"]},
    "sessions": {"type": "str", "default": "terminate", "choices": ["terminate", "wait", "refuse"]},
    "sessions_deadline": {"type": "float", "default": 5.0},
    "hold_deadline": {"type": "float", "default": 3.0},
    "confirm": {"type": "str", "default": ""},
    "force": {"type": "list", "elements": "str", "default": []},
    "probes": {"type": "bool", "default": True},
    "services": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"host": {"type": "str", "required": True}, "unit": {"type": "str", "required": True}},
    },
    "services_deadline": {"type": "float", "default": 60.0},
}


def stamp(clock: Clock) -> str:
    """The moment as a database's name carries it."""
    return f"{clock.now():%Y%m%dT%H%M%SZ}"


def swap_request(arguments: t.Mapping[str, t.Any], clock: Clock) -> SwapRequest:
    """The request in a task's arguments."""
    for name in ("sessions_deadline", "hold_deadline", "services_deadline"):
        if arguments[name] <= 0:
            raise Refused(
                f"{name} is {arguments[name]:g}; it must be more than 0 seconds.",
                reason="bad_argument",
                phase="plan",
                state="Nothing was touched.",
                next_step="Correct it.",
            )
    return SwapRequest(
        state=arguments["state"],
        database=arguments["database"],
        scratch=arguments["scratch"],
        keep_as=arguments["keep_as"],
        stamp=stamp(clock),
        sessions=arguments["sessions"],
        sessions_deadline=arguments["sessions_deadline"],
        hold_deadline=arguments["hold_deadline"],
        confirm=arguments["confirm"],
        force=tuple(arguments["force"]),
        probes=arguments["probes"],
        services=tuple(Service(service["host"], service["unit"]) for service in arguments["services"]),
        services_deadline=arguments["services_deadline"],
    )


def site_with_services(site: Site, services: t.Sequence[t.Mapping[str, str]], hostvars: t.Mapping[str, t.Any]) -> Site:
    """The site with the hosts that only run services."""
    for service in services:
        if service["host"] not in hostvars:
            raise Refused(
                f"{service['host']}, which is to run {service['unit']}, is not in the inventory.",
                reason="unknown_host",
                phase="plan",
                state="Nothing was touched.",
                next_step="Name a host of the inventory.",
            )
    hosts = dict.fromkeys(service["host"] for service in services)
    return site._replace(services=tuple(host for host in hosts if host not in (*site.databases, *site.bouncers)))


def run_database_swap(
    arguments: t.Mapping[str, t.Any], hostvars: t.Mapping[str, t.Any], *, check_mode: bool
) -> dict[str, t.Any]:
    """Carry out a task that swaps databases."""
    clock = SystemClock()
    try:
        site = site_with_services(task.site_of(arguments), arguments["services"], hostvars)
        job = task.job_of(swap_request(arguments, clock), site, arguments, hostvars)
        report = run_swap(job, clock, check_mode=check_mode)
        return {**task.result_of(report), **_names(report), "diff": task.plan_text(report)}
    except HmsError as error:
        return task.failed_result(error)


def _names(report: Report) -> dict[str, t.Any]:
    plan = report.plan
    if not isinstance(plan, SwapPlan):  # pragma: no cover  a swap has no other plan
        return {}
    return {
        "database": plan.database,
        "scratch": plan.scratch,
        "kept_as": plan.keep,
        "oid": plan.scratch_oid if report.changed else plan.live_oid,
        "sessions": list(plan.sessions),
    }
