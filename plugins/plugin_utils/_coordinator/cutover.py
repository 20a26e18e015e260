# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carrying out a cutover: the side cluster promoted, then one critical section that exchanges directories. PRIVATE.

Until the recovered cluster has run in the live one's place, every error leads back. Which of the two holds is never
guessed: the host's journal, its directories and their control files are asked.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._cluster.cutover_model import (
    CutoverPlan,
    CutoverRequest,
    Exchange,
    exchange_from,
)
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError

from .operation import CRITICAL, Operation, Requests
from .switchover import (
    MARGIN,
    PROBE_BEFORE,
    SILENCE,
    STOP_DEADLINE,
    arm_poolers,
    hold,
    let_clients_go,
    resume,
    with_held,
)

PROMOTE_TIMEOUT = 3600.0
START_DEADLINE = 60.0
EXIT_TIMEOUT = 60.0
"""Seconds beyond its shutdown checkpoint until nothing of the old cluster is left."""
EXCHANGE_TIMEOUT = 30.0
SETTLE_TIMEOUT = 200.0
FENCE_TIMEOUT = 30.0


@dataclasses.dataclass
class Exchanged:
    """What the critical section found.

    Attributes:
        stilled: the wall clock, in seconds, when every client was held.
        held: bouncer hosts that may hold clients still.
        not_archived: segments of the old timeline that are in the kept data directory only.
    """

    exchange: Exchange
    stilled: float = 0.0
    held: tuple[str, ...] = ()
    not_archived: tuple[str, ...] = ()


def arm(operation: Operation, plan: CutoverPlan) -> Exchange:
    """Everything slow, while clients work on undisturbed: the side cluster promoted, stopped and ready."""
    primary = plan.new_primary
    answer = operation.one(
        "promote_side",
        primary,
        "promote_side",
        phase="arm",
        title=f"Promote the side cluster at {plan.target}, and stop it",
        timeout=PROMOTE_TIMEOUT,
        directory=plan.directory,
        kept=plan.kept,
        target=plan.target,
        last_commit=plan.last_commit,
        slots=list(plan.slots),
        strangers=list(plan.strangers),
        sync_names=plan.sync_names,
    )
    exchange = exchange_from(answer["exchange"])
    if exchange is None:
        raise HmsError("The agent's journal is not one.", reason="agent_defect", phase="arm")
    arm_poolers(operation, plan)
    title = "Checkpoint, so that the one at shutdown is short"
    operation.one("checkpoint", primary, "checkpoint", phase="arm", title=title, timeout=600.0)
    operation.pause(PROBE_BEFORE)
    return exchange


def execute(operation: Operation, plan: CutoverPlan, request: CutoverRequest, exchange: Exchange) -> Exchanged:
    """The critical section."""
    primary = plan.new_primary
    operation.enter_critical_section()
    found = Exchanged(exchange)
    try:
        hold(operation, plan, seconds=request.hold_seconds, kill=False)
        found.stilled = operation.clock.now().timestamp()
        title = f"Fast shutdown of the live cluster on {primary}"
        stopped = _step(operation, plan, "stop_primary", "cutover_stop", title, STOP_DEADLINE + EXIT_TIMEOUT)
        found.not_archived = tuple(stopped["not_archived"])
        found.exchange = dataclasses.replace(exchange, left_lsn=stopped["left_lsn"])
        title = f"Keep {plan.live} as {plan.kept}, put the recovered cluster in its place"
        _step(operation, plan, "exchange", "cutover_exchange", title, EXCHANGE_TIMEOUT)
        title = "Start the recovered cluster"
        _step(operation, plan, "start_primary", "cutover_start", title, START_DEADLINE)
    except HmsError as error:
        if not _happened(operation, plan, error):
            roll_back(operation, plan, error)
            raise
    operation.committed = True
    found.held = tuple(_let_go(operation, plan))
    operation.leave_critical_section()
    return found


def _step(
    operation: Operation, plan: CutoverPlan, identifier: str, verb: str, title: str, deadline: float
) -> dict[str, t.Any]:
    """One step of the exchange, on the primary's host."""
    args = {"deadline": deadline} if verb != "cutover_exchange" else {}
    timeout = deadline + EXIT_TIMEOUT + MARGIN
    host = plan.new_primary
    return operation.one(identifier, host, verb, phase=CRITICAL, title=title, timeout=timeout, silence=SILENCE, **args)


def _let_go(operation: Operation, plan: CutoverPlan) -> list[str]:
    """Let the clients go on; returns the hosts where some may be held still."""
    answers = resume(operation, [host for host in plan.poolers if operation.fleet.reachable(host)], phase=CRITICAL)
    missing = [host for host in plan.poolers if host not in answers or answers[host].error is not None]
    if not missing:
        return []
    operation.revive(missing)
    again = resume(operation, [host for host in missing if operation.fleet.reachable(host)], phase=CRITICAL)
    return [host for host in missing if host not in again or again[host].error is not None]


def _happened(operation: Operation, plan: CutoverPlan, error: HmsError) -> bool:
    """Have the host brought to an end what was begun; whether that end is the recovered cluster."""
    primary = plan.new_primary
    # An agent that was lost may have ordered the start a moment ago: then it is seen through before it is judged.
    forward = not operation.fleet.reachable(primary)
    operation.revive([primary])
    if operation.fleet.reachable(primary):
        answer = operation.everywhere(
            "settle",
            {primary: ("cutover_settle", {"forward": forward})},
            phase="rollback",
            title="Put back what was begun, or finish what has run",
            timeout=SETTLE_TIMEOUT,
            tolerate=True,
        )[primary]
        if answer.error is None:
            return bool(answer.result["outcome"] == "new")
        error.state = f"{primary} could not be put in order: {answer.error.message}"
        error.next_step = answer.error.next_step or "Run it again: it reads from the directories what holds."
        return False
    error.state = (
        f"The line to {primary} is lost. Its agent brings the old cluster back alone, or the recovered one where that "
        "has run; if the host itself is gone, the next run does."
    )
    error.next_step = "Run it again: it reads from the directories what holds."
    return False


def roll_back(operation: Operation, plan: CutoverPlan, error: HmsError) -> None:
    """The old cluster runs where it was: let the clients go on there."""
    held = let_clients_go(operation, plan)
    operation.leave_critical_section()
    state = (
        f"{plan.new_primary} leads with the data that it had; the clients go on there. The side cluster in "
        f"{plan.directory} is promoted and stopped, and can still take its place."
    )
    error.state = with_held(error.state or state, held)
    error.phase = error.phase or CRITICAL


def settle_killed(operation: Operation, plan: CutoverPlan) -> None:
    """What a killed run left on its host is brought to an end, before anything is planned."""
    requests: Requests = {host: ("cutover_settle", {}) for host in plan.settle}
    title = "Put in order what a killed run left"
    operation.everywhere("settle", requests, phase="arm", title=title, timeout=SETTLE_TIMEOUT)


def finish(operation: Operation, plan: CutoverPlan) -> None:
    """After the clients went on: the new timeline is archived."""
    operation.one(
        "archive",
        plan.new_primary,
        "cutover_finish",
        phase="finish",
        title="Archive the new timeline from its beginning, clear the side directory",
        timeout=60.0,
    )


def fence(operation: Operation, plan: CutoverPlan) -> None:
    """Stop and mark the standbys that hold the history which was left."""
    args = {
        "operation": operation.identifier,
        "new_primary": plan.new_primary,
        "reason": f"a cutover to {plan.target} left the history that this host holds",
    }
    reachable = [name for name in plan.fence if operation.fleet.reachable(name)]
    requests: Requests = {name: ("fence", dict(args)) for name in reachable}
    if requests:
        title = "Stop and mark, until it is rejoined"
        operation.everywhere("fence", requests, phase="finish", title=title, timeout=FENCE_TIMEOUT, tolerate=True)
