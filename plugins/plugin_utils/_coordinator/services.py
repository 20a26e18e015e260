# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The services around a swap: seen before, stopped, and started again whatever happens. PRIVATE.

When this process ends in between, the agent on each host starts what it stopped; when that was killed too, its note on
disk is seen by the next run.
"""

from __future__ import annotations

import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._cluster.agent_services import SETTLE
from ansible_collections.hms.postgres.plugins.module_utils._cluster.swap_model import (
    HostUnits,
    Service,
    SwapPlan,
    SwapRequest,
)
from ansible_collections.hms.postgres.plugins.module_utils._cluster.swap_services import asked_of
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._tools.systemd_units import UnitState

from .fleet import Answer, Fleet
from .operation import Operation
from .switchover import MARGIN, SILENCE

PHASE = "services"
LOOK_TIMEOUT = 30.0
ASK_SYSTEMD = 15.0
"""Seconds that systemd may take to take an order."""


def look(fleet: Fleet, request: SwapRequest) -> tuple[HostUnits, ...]:
    """How every unit is, on each host that has some."""
    units = asked_of(request)
    reachable = [host for host in units if fleet.reachable(host)]
    answers = fleet.ask({host: ("look_units", {"units": units[host]}) for host in reachable}, LOOK_TIMEOUT)
    return tuple(_seen(fleet, host, answers.get(host)) for host in units)


def _seen(fleet: Fleet, host: str, answer: Answer | None) -> HostUnits:
    if answer is None:
        return HostUnits(host, error=fleet.lines[host].error)
    if answer.error is not None:
        return HostUnits(host, error=answer.error.message, reason=answer.error.reason)
    found = answer.result
    units = tuple(UnitState(**unit) for unit in found["units"])
    return HostUnits(host, units, left=tuple(found["left"]), left_by=str(found["left_by"]))


def stop(operation: Operation, plan: SwapPlan, request: SwapRequest) -> None:
    """Stop one after another, each proven inactive before the next one."""
    seconds = request.services_deadline
    for service in plan.stopping:
        operation.one(
            "stop_units",
            service.host,
            "stop_units",
            phase=PHASE,
            title=f"Stop {service.unit}",
            timeout=seconds + ASK_SYSTEMD + MARGIN,
            silence=ASK_SYSTEMD + SILENCE,
            units=[service.unit],
            deadline=seconds,
        )


def start(operation: Operation, plan: SwapPlan, request: SwapRequest) -> dict[Service, str]:
    """Start what ran before, the last one stopped first; returns what doesn't run, and why."""
    if not plan.starting:
        return {}
    failed: dict[Service, str] = {}
    restarts: dict[Service, int] = {}
    for service in plan.starting:
        answer = _start(operation, service, request.services_deadline)
        if not operation.fleet.reachable(service.host):
            operation.revive([service.host])
            if operation.fleet.reachable(service.host):
                answer = _start(operation, service, request.services_deadline)
        if not operation.fleet.reachable(service.host):
            failed[service] = "the line to the host is lost; if its agent lives, it starts it alone"
        elif answer.error is not None:
            failed[service] = answer.error.message
        elif service.unit in answer.result["failed"]:
            failed[service] = answer.result["failed"][service.unit]
        else:
            restarts[service] = answer.result["restarts"][service.unit]
    failed.update(_settled(operation, restarts))
    return failed


def _start(operation: Operation, service: Service, seconds: float) -> Answer:
    return operation.everywhere(
        "start_units",
        {service.host: ("start_units", {"units": [service.unit], "deadline": seconds})},
        phase=PHASE,
        title=f"Start {service.unit}",
        timeout=seconds + 2 * ASK_SYSTEMD + MARGIN,
        silence=2 * ASK_SYSTEMD + SILENCE,
        tolerate=True,
    )[service.host]


def _settled(operation: Operation, restarts: dict[Service, int]) -> dict[Service, str]:
    """What was started and runs no more a moment later, or was started again by systemd."""
    if not restarts:
        return {}
    operation.pause(SETTLE)
    units: dict[str, dict[str, int]] = {}
    for service, count in restarts.items():
        units.setdefault(service.host, {})[service.unit] = count
    answers = operation.everywhere(
        "settle_units",
        {host: ("settle_units", {"restarts": counts}) for host, counts in units.items()},
        phase=PHASE,
        title="See that they still run",
        timeout=LOOK_TIMEOUT,
        tolerate=True,
    )
    found = {}
    for service in restarts:
        answer = answers[service.host]
        if answer.error is not None:
            found[service] = f"it was started, and could not be asked about again: {answer.error.message}"
        elif service.unit in answer.result["failed"]:
            found[service] = answer.result["failed"][service.unit]
    return found


def words(failed: t.Mapping[Service, str]) -> str:
    """What doesn't run, in a sentence."""
    return "; ".join(f"{service.words}: {why}" for service, why in failed.items())


def next_step(failed: t.Mapping[Service, str]) -> str:
    """Where to look."""
    where = "; ".join(f"journalctl -u {service.unit} on {service.host}" for service in failed)
    return f"See {where}. Then run it again: it starts what is left."


def demand(plan: SwapPlan, failed: t.Mapping[Service, str], *, done: str) -> None:
    """Raise when something doesn't run, although everything else is done."""
    if failed:
        raise HmsError(
            f"Not started again: {words(failed)}.",
            reason="service_failed",
            phase=PHASE,
            state=f"{done} {plan.database} serves.",
            next_step=next_step(failed),
        )


def after_failure(operation: Operation, plan: SwapPlan, request: SwapRequest, error: HmsError) -> None:
    """It was given up: start what was stopped, and say in the error how that went."""
    if not plan.stopping:
        return
    error.phase = error.phase or PHASE
    error.state = error.state or f"{plan.database} is the database that it was; no client was held."
    failed = start(operation, plan, request)
    if failed:
        error.state += f" Not started again: {words(failed)}."
        error.next_step = f"{error.next_step} {next_step(failed)}".strip()
    else:
        error.state += " The services that were stopped run again."


__all__ = ("after_failure", "demand", "look", "next_step", "start", "stop", "words")
