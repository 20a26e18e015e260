# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The record of a rejoin, written on the host that rejoins, as it goes. PRIVATE."""

from __future__ import annotations

import os
import typing as t

from .._clock import Clock
from .._errors import HmsError
from .._postgres import format_lsn
from .._record import Journal, new_id, start_event
from .facts import RECORDS
from .member_config import DatabaseHost
from .rejoin_model import Action, RejoinFacts, RejoinPlan

OPERATION = "rejoin"


class RejoinRecord:
    """Journal of one rejoin."""

    def __init__(self, host: DatabaseHost, *, by: str, parameters: t.Mapping[str, t.Any], clock: Clock) -> None:
        self._host = host
        self._clock = clock
        self._start = clock.monotonic()
        self.identifier = new_id(OPERATION, clock)
        self._journal = Journal(os.path.join(host.state_directory, RECORDS), self.identifier)
        self._plans: list[RejoinPlan] = []
        self._journal.append(
            start_event(
                self.identifier,
                OPERATION,
                cluster=host.cluster,
                environment=host.environment,
                by=by,
                parameters=parameters,
                clock=clock,
            )
        )

    def _elapsed(self) -> float:
        return round(self._clock.monotonic() - self._start, 3)

    def put(self, **values: t.Any) -> None:
        """Set top-level keys of the document."""
        self._journal.append({"set": values})

    def plan(self, plan: RejoinPlan, primary: str) -> None:
        """Write down what is going to be done; a second plan after a look again is added to the first."""
        self._plans.append(plan)
        self.put(
            plan={
                "summary": " ".join(item.summary for item in self._plans),
                "case": plan.case,
                "new_primary": primary,
                "old_primary": self._host.name,
                "actions": [
                    {
                        "id": action.id,
                        "phase": action.phase,
                        "host": self._host.name,
                        "what": action.what,
                        "why": action.why,
                    }
                    for item in self._plans
                    for action in item.actions
                ],
            }
        )

    def step(self, action: Action, work: t.Callable[[], str]) -> None:
        """Do `work` as a step of the record; what it returns is the step's detail."""
        base = {"id": action.id, "phase": action.phase, "host": self._host.name, "title": action.what}
        started = self._elapsed()
        self._journal.append({"step": {**base, "started": started, "result": "running"}})
        try:
            detail, result = work(), "ok"
        except HmsError as error:
            self._end_step(base, started, "failed", error.message)
            raise
        self._end_step(base, started, result, detail)

    def _end_step(self, base: t.Mapping[str, t.Any], started: float, result: str, detail: str) -> None:
        step = {**base, "started": started, "ended": self._elapsed(), "result": result, "detail": detail}
        self._journal.append({"step": step})

    def finish(self, status: str, message: str, next_steps: t.Sequence[str] = ()) -> dict[str, t.Any]:
        """Write the outcome and the document; returns it."""
        self.put(outcome={"status": status, "message": message, "next_steps": list(next_steps)})
        self._journal.finish()
        document = self._journal.document()
        self._journal.close()
        return document


def software(facts: RejoinFacts) -> dict[str, t.Any]:
    """Versions, as far as the servers told them."""
    versions = {
        answer.name: f"{answer.version_number // 10000}.{answer.version_number % 10000}"
        for answer in facts.answers
        if answer.version_number
    }
    if facts.member.version:
        versions[facts.name] = facts.member.version
    return {"postgresql": versions}


def situation(facts: RejoinFacts) -> dict[str, t.Any]:
    """``before`` and ``after`` of the record."""
    member, control = facts.member, facts.control
    own = {
        "name": facts.name,
        "address": member.address,
        "reachable": True,
        "role": member.role,
        "timeline": member.timeline,
        "lsn": format_lsn(member.lsn),
        "version": member.version,
        "control_state": control.state if control else "",
    }
    others = [
        {
            "name": answer.name,
            "address": answer.address,
            "reachable": answer.answered,
            "role": {"writable": "primary", "standby": "standby"}.get(answer.state, "unknown"),
            "timeline": answer.timeline,
            "lsn": format_lsn(answer.lsn),
        }
        for answer in facts.answers
    ]
    return {"primary": facts.primary.name if facts.primary else "", "members": [own, *others]}
