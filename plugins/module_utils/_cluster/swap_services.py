# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which services are stopped for a swap, which are started after it, and what forbids that. Pure. PRIVATE."""

from __future__ import annotations

import typing as t

from .._tools.systemd_units import is_unit
from .plan import Action
from .plan import Refusal as Rule
from .swap_model import HostUnits, Service, Sight, SwapRequest


def asked_of(request: SwapRequest) -> dict[str, list[str]]:
    """The units to look at, by host."""
    found: dict[str, list[str]] = {}
    for service in request.services:
        if is_unit(service.unit):
            found.setdefault(service.host, []).append(service.unit)
    return found


def rules(sight: Sight, request: SwapRequest) -> t.Iterator[Rule]:
    """What must be known of each unit before anything is touched; none of it can be overridden."""
    yield from _names(request)
    for seen in sight.services:
        if seen.reason == "no_systemd":
            yield Rule("no_systemd", f"{seen.host}: {seen.error}", "Name the hosts that run the services.", False)
        elif seen.error:
            text = f"The services on {seen.host} could not be looked at: {seen.error}"
            yield Rule("service_unreachable", text, "Bring the host back, or leave its services out.", False)
        for unit in seen.units:
            if not unit.known:
                text = f"systemd on {seen.host} can't run {unit.unit}: it is {unit.load or 'unknown'}."
                yield Rule("unknown_unit", text, "Correct restore_services; systemctl list-units shows them.", False)


def _names(request: SwapRequest) -> t.Iterator[Rule]:
    for service in dict.fromkeys(request.services):
        if not is_unit(service.unit):
            text = f"{service.unit!r} on {service.host} is no name of a service, timer, socket or path of systemd."
            yield Rule("bad_service", text, "Give it in full, such as hms-web.service.", False)
        elif request.services.count(service) > 1:
            yield Rule("bad_service", f"{service.words} is named twice.", "Name it once.", False)


def stopping(sight: Sight, request: SwapRequest) -> tuple[Service, ...]:
    """What runs, or would run had an earlier operation not stopped it, in the order that was asked for."""
    left = set(left_over(sight))
    hosts = {seen.host: seen for seen in sight.services}
    return tuple(service for service in request.services if service in left or _runs(hosts, service))


def _runs(hosts: t.Mapping[str, HostUnits], service: Service) -> bool:
    state = hosts[service.host].unit(service.unit) if service.host in hosts else None
    return state is not None and state.runs


def left_over(sight: Sight) -> tuple[Service, ...]:
    """What an earlier operation stopped and never started again."""
    return tuple(Service(seen.host, unit) for seen in sight.services for unit in seen.left)


def starting(sight: Sight, stopped: t.Sequence[Service]) -> tuple[Service, ...]:
    """What is started in the end, the last one stopped first."""
    return tuple(reversed(list(dict.fromkeys([*left_over(sight), *stopped]))))


def stop_actions(stopped: t.Sequence[Service], database: str) -> t.Iterator[Action]:
    """The steps before anything else."""
    for service in stopped:
        why = f"it works in {database}; it is proven inactive"
        yield Action("stop_units", "services", service.host, f"stop {service.unit}", why)


def start_actions(sight: Sight, started: t.Sequence[Service]) -> t.Iterator[Action]:
    """The steps after clients were let go."""
    left = {Service(seen.host, unit): seen.left_by for seen in sight.services for unit in seen.left}
    for service in started:
        why = f"{left[service]} stopped it and did not start it again" if service in left else "it ran before"
        yield Action("start_units", "services", service.host, f"start {service.unit}", why)


def warnings(sight: Sight, request: SwapRequest, stopped: t.Collection[Service]) -> list[str]:
    """What is worth knowing of the services."""
    hosts = {seen.host: seen for seen in sight.services}
    found = []
    for service in request.services:
        state = hosts[service.host].unit(service.unit) if service.host in hosts else None
        if state is not None and state.known and service not in stopped:
            found.append(f"{service.words} does not run ({state.words}): it is not started either.")
    return found


def unseen(sight: Sight) -> list[str]:
    """When there is nothing else to do: where it isn't known whether services were left stopped."""
    return [
        f"Whether its services run could not be asked on {seen.host}: {seen.error}"
        for seen in sight.services
        if seen.error
    ]
