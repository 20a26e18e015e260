# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An instance from wish to result: inspect, plan, apply, inspect again. PRIVATE to the collection."""

from __future__ import annotations

import dataclasses
import functools
import typing as t

from .._clock import SystemClock
from .._command import SystemRunner
from .._module import Result
from .._postgres import ConnectionParams, Session, connect
from .instance_apply import InstanceApplier
from .instance_facts import InstanceInspector
from .instance_model import InstanceFacts, InstancePlan, InstanceWish
from .instance_plan import plan_instance


def describe(wish: InstanceWish, facts: InstanceFacts) -> dict[str, t.Any]:
    """The facts as modules return them."""
    running = facts.running
    return {
        "version": wish.version,
        "instance": wish.name,
        "installed_version": facts.installed_version or None,
        "exists": facts.configured,
        "data_present": facts.data.kind == "cluster",
        "running": facts.postmaster is not None,
        "role": facts.role,
        "pid": facts.postmaster.pid if facts.postmaster else None,
        "port": facts.configured_port,
        "data_directory": facts.configured_data_directory or wish.data_directory,
        "config_directory": wish.config_directory,
        "bin_directory": wish.bin_directory,
        "socket_directory": facts.configured_socket_directory or wish.socket_directory,
        "start_conf": facts.start_conf or None,
        "system_identifier": facts.data.system_identifier or None,
        "timeline": running.timeline if running else facts.data.timeline or None,
        "control_state": facts.data.control_state or None,
        "checksums": facts.data.checksums,
        "server_version": running.server_version if running else None,
        "encoding": running.encoding if running else None,
        "locale": running.locale if running else None,
        "binary_replaced": facts.binary_replaced,
        "config_errors": [dataclasses.asdict(error) for error in running.errors] if running else [],
        "pending_restart": [dataclasses.asdict(setting) for setting in running.pending] if running else [],
    }


def _comparable(facts: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What a diff shows: the state, without what differs at each look."""
    return {key: facts[key] for key in ("exists", "running", "port", "data_directory", "start_conf", "pending_restart")}


def _expected(before: t.Mapping[str, t.Any], wish: InstanceWish, plan: InstancePlan) -> dict[str, t.Any]:
    after = _comparable(before)
    if plan.has("create", "adopt", "finish_adoption"):
        after.update(exists=True, data_directory=wish.data_directory)
        after.update(port=wish.port, start_conf=wish.start_conf)
    if plan.has("set_port"):
        after["port"] = wish.port
    if plan.has("start"):
        after["running"] = True
    if plan.has("restart"):
        after["pending_restart"] = []
    return after


class InstanceManager:
    """The instance module's work, with its ports given."""

    def __init__(self, inspector: InstanceInspector, applier: t.Callable[[InstanceWish], InstanceApplier]) -> None:
        self._inspector = inspector
        self._applier = applier

    def ensure(self, wish: InstanceWish, *, check_mode: bool) -> Result:
        """Bring the instance to what is wished; in check mode only say how."""
        facts = self._inspector.inspect(wish)
        plan = plan_instance(wish, facts, dry_run=check_mode)
        before = describe(wish, facts)
        after, found, warnings, pending = _expected(before, wish, plan), before, plan.warnings, plan.pending_restart
        if plan.actions and not check_mode:
            self._applier(wish).apply(plan)
            facts = self._inspector.inspect(wish)
            rest = plan_instance(wish, facts)
            found, warnings, pending = describe(wish, facts), rest.warnings, rest.pending_restart
            after = _comparable(found)
        return Result(
            changed=bool(plan.actions),
            values={
                "instance": found,
                "actions": [action.as_dict() for action in plan.actions],
                "created": plan.has("create"),
                "adopted": plan.has("adopt", "finish_adoption"),
                "started": plan.has("start"),
                "reloaded": plan.has("reload", "restart"),
                "restarted": plan.has("restart"),
                "pending_restart": [dataclasses.asdict(setting) for setting in pending],
            },
            before=_comparable(before),
            after=after,
            warnings=warnings,
        )

    def info(self, wish: InstanceWish) -> Result:
        """What there is; changes nothing."""
        facts = self._inspector.inspect(wish)
        return Result(changed=False, values={"instance": describe(wish, facts)})


def instance_manager(*, os_user: str) -> InstanceManager:
    """The manager for this machine."""
    runner, clock = SystemRunner(), SystemClock()

    def open_session(params: ConnectionParams) -> Session:
        return connect(params, os_user=os_user)

    return InstanceManager(
        InstanceInspector(runner=runner, connect=open_session, clock=clock),
        functools.partial(InstanceApplier, runner=runner, connect=open_session, clock=clock),
    )
