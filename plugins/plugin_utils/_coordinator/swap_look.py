# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looking at everything that a swap of two databases touches. Nothing is changed. PRIVATE."""

from __future__ import annotations

import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import ClusterFacts
from ansible_collections.hms.postgres.plugins.module_utils._cluster.plan import leader
from ansible_collections.hms.postgres.plugins.module_utils._cluster.swap_model import (
    Inside,
    Names,
    Routes,
    Sight,
    SwapRequest,
    inside_from,
    routes_from,
)
from ansible_collections.hms.postgres.plugins.module_utils._cluster.swap_names import resolve
from ansible_collections.hms.postgres.plugins.module_utils._tools.database_rename import Database

from . import services
from .fleet import Fleet

TIMEOUT = 20.0


def look(fleet: Fleet, facts: ClusterFacts, request: SwapRequest) -> Sight:
    """The databases, who is connected, what stands in the way, and what leads there."""
    units = services.look(fleet, request)
    primary = leader(facts)
    if primary is None:
        return Sight(names=Names(request.database, request.scratch, request.keep_as), services=units)
    answer = fleet.call(primary.name, "list_databases", TIMEOUT)
    databases = tuple(Database(**row) for row in answer["databases"])
    names = resolve(request, databases)
    routes = _routes(fleet, facts, names)
    if names.wrong is not None or names.done:
        return Sight(databases, names, routes=routes, services=units)
    oids = {database.name: database.oid for database in databases}
    readers = {} if names.missing else _readers(fleet, facts, oids[names.live])
    return Sight(databases, names, _inside(fleet, primary.name, names), routes, readers, units)


def _inside(fleet: Fleet, primary: str, names: Names) -> Inside:
    answer = fleet.call(primary, "look_inside", TIMEOUT, live=names.live, scratch=names.scratch)
    return inside_from(answer["inside"])


def _routes(fleet: Fleet, facts: ClusterFacts, names: Names) -> tuple[Routes, ...]:
    """What leads to the live database, on every bouncer host that can be asked."""
    hosts = [pooler.name for pooler in facts.poolers if pooler.reachable and fleet.reachable(pooler.name)]
    requests: dict[str, tuple[str, dict[str, t.Any]]] = {
        host: ("look_routes", {"databases": [names.live]}) for host in hosts
    }
    return tuple(routes_from(answer.get()["routes"]) for answer in fleet.ask(requests, TIMEOUT).values())


def _readers(fleet: Fleet, facts: ClusterFacts, oid: int) -> dict[str, int]:
    """Sessions in the live database on each standby."""
    hosts = [member.name for member in facts.standbys if fleet.reachable(member.name)]
    requests: dict[str, tuple[str, dict[str, t.Any]]] = {host: ("count_readers", {"oid": oid}) for host in hosts}
    answers = fleet.ask(requests, TIMEOUT)
    return {host: int(answer.result.get("sessions", 0)) for host, answer in answers.items()}
