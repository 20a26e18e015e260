# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Deciding how a host comes back as a standby. Pure. PRIVATE.

In order: is there exactly one primary, and is it not this host; is it the same cluster; must the server here be
stopped first; was a rewind left unfinished; does the log here go beyond where the primary's history left it.
Only the last question decides between start, rewind and re-clone.
"""

from __future__ import annotations

import typing as t

from .._errors import HmsError, Refused, defect
from .._postgres import format_lsn
from .._tools.pg_controldata import SHUT_DOWN, SHUT_DOWN_IN_RECOVERY
from .fencing import DISABLED
from .rejoin_model import HOPELESS, Action, Divergence, PrimaryFacts, RejoinFacts, RejoinPlan, RejoinWish

UNTOUCHED = "Nothing was touched."
_RECLONE = "or allow a new copy: -e allow_reclone=true (the old data directory is kept beside it)."

_DROP_STALE_SLOTS = Action(
    "drop_stale_slots",
    "drop slots left from when it was a primary",
    "their members stream from elsewhere, and a slot holds back WAL",
)


def _refuse(message: str, reason: str, next_step: str, state: str = UNTOUCHED, **details: t.Any) -> Refused:
    return Refused(message, reason=reason, phase="plan", state=state, next_step=next_step, details=details)


def plan(facts: RejoinFacts, wish: RejoinWish) -> RejoinPlan:
    """The plan, or `Refused` with what to do."""
    primary = _the_primary(facts)
    if facts.rewinding:
        pids = ", ".join(str(pid) for pid in facts.rewinding)
        wait = Action("await_rewind", "wait for the pg_rewind that still works here", f"process {pids} of a killed run")
        return RejoinPlan("rewind_running", "A pg_rewind of an earlier run is still at work.", (wait,), look_again=True)
    if facts.control is None:
        return _without_instance(facts, primary, wish)
    _check_identity(facts, primary)
    if facts.member.running:
        return _running(facts, primary, wish)
    return _marked(facts, primary, wish) or _stopped(facts, primary, wish)


def _the_primary(facts: RejoinFacts) -> PrimaryFacts:
    writable = [answer.name for answer in facts.answers if answer.state == "writable"]
    if len(writable) > 1:
        raise _refuse(
            f"More than one member takes writes: {', '.join(writable)}.",
            "two_primaries",
            "Decide which one is right, stop the other, and rejoin that one. playbooks/status.yml shows both.",
        )
    if facts.primary is not None:
        return facts.primary
    if facts.member.writable:
        raise _refuse(
            f"{facts.name} is the primary itself; there is nothing to rejoin.",
            "is_primary",
            "Name the host that is to come back as a standby; playbooks/status.yml shows which one is down.",
        )
    told = "; ".join(f"{answer.name}: {answer.error or answer.state}" for answer in facts.answers)
    raise _refuse(
        f"No member answers as a primary, so {facts.name} has nobody to follow. {told}",
        "no_primary",
        "Bring a primary up first: playbooks/dr_failover.yml promotes a standby.",
        answers={answer.name: answer.state for answer in facts.answers},
    )


def _without_instance(facts: RejoinFacts, primary: PrimaryFacts, wish: RejoinWish) -> RejoinPlan:
    if not wish.allow_reclone:
        raise _refuse(
            f"There is no PostgreSQL instance in the data directory of {facts.name}.",
            "no_instance",
            "Run again with -e allow_reclone=true; it copies the primary.",
        )
    why = "there is no instance here"
    actions = (*_slot(facts, primary), _reclone(primary, why), *_bring_up(facts, primary, fenced=False))
    return RejoinPlan("reclone", f"{facts.name} has no data; a new copy is allowed.", actions)


def _check_identity(facts: RejoinFacts, primary: PrimaryFacts) -> None:
    """What no word of the operator overrides."""
    control = facts.control
    if control is None:
        raise defect("control")
    if control.system_identifier != primary.answer.system_identifier:
        raise _refuse(
            f"The data directory of {facts.name} belongs to another cluster: its system identifier is "
            f"{control.system_identifier}, that of {primary.name} is {primary.answer.system_identifier}.",
            "other_cluster",
            "Check postgresql_data_dir and hms_cluster in the inventory; this data is not a copy of that primary.",
        )
    own, other = facts.member.version_number // 10000, primary.answer.version_number // 10000
    if facts.member.running and own and own != other:
        raise _refuse(
            f"{facts.name} runs PostgreSQL {own}, {primary.name} runs {other}.",
            "version_differs",
            "A standby must be of its primary's major version.",
        )


# -- a server that runs -----------------------------------------------------------------------------------------


def _running(facts: RejoinFacts, primary: PrimaryFacts, wish: RejoinWish) -> RejoinPlan:
    member = facts.member
    if not member.responsive:
        raise _refuse(
            f"The server on {facts.name} runs but does not answer: {member.error or 'no reason given'}.",
            "not_responsive",
            "It may still be starting: read its log in /var/log/postgresql, wait until it accepts connections or "
            "stop it, and run again.",
        )
    if member.writable:
        return _stop_writable(facts, primary, wish)
    divergence = facts.divergence or Divergence(fork=None, diverged=False)
    if divergence.diverged:
        why = f"its log reaches {format_lsn(member.lsn)}, the primary's history left it at {divergence.fork}"
        stop = Action("stop", f"stop the standby on {facts.name}", why)
        return RejoinPlan("diverged_standby", "A standby that parted from the primary.", (stop,), look_again=True)
    if divergence.ahead:
        raise _ahead(facts, primary)
    return _follow(facts, primary)


def _stop_writable(facts: RejoinFacts, primary: PrimaryFacts, wish: RejoinWish) -> RejoinPlan:
    fenced = bool(facts.member.fence)
    if not fenced and not wish.allow_stop:
        raise _refuse(
            f"TWO PRIMARIES: {facts.name} takes writes (timeline {facts.member.timeline}), and so does {primary.name} "
            f"(timeline {primary.answer.timeline}).",
            "two_primaries",
            f"Find out who writes to {facts.name} and cut it off now. If {primary.name} is the right one, run again "
            "with -e allow_stop=true: it is stopped, what it wrote is listed and kept, then it is rewound.",
            state=f"{facts.name} still takes writes. Nothing was touched.",
        )
    why = "a failover fenced it" if fenced else "the operator allowed it"
    stop = Action("stop", f"stop the second primary on {facts.name}", f"{primary.name} is the primary; {why}")
    return RejoinPlan("second_primary", "A second primary, to be stopped first.", (stop,), look_again=True)


def _follow(facts: RejoinFacts, primary: PrimaryFacts) -> RejoinPlan:
    receiver = facts.member.receiver
    streams = (
        receiver is not None
        and receiver.status == "streaming"
        and receiver.timeline == primary.answer.timeline
        and receiver.slot_name == facts.slot_name
        and facts.name in primary.streaming
    )
    actions: list[Action] = []
    if not streams:
        actions += _slot(facts, primary)
        if not facts.points_at_primary:
            actions.append(Action("point", f"point it at {primary.name}", "it follows somebody else, or nobody"))
    if not facts.member.standby_signal:
        actions.append(Action("signal", "write standby.signal", "after a restart it would be a primary"))
    if facts.member.fence or facts.start_conf == DISABLED:
        actions.append(_unfence(facts))
    if not streams:
        actions.append(_verify(facts, primary))
    if _stale_slots(facts, primary):
        actions.append(_DROP_STALE_SLOTS)
    if not actions:
        return RejoinPlan("streaming", f"{facts.name} streams from {primary.name} already.")
    return RejoinPlan("follow", f"{facts.name} runs as a standby; it is set right.", tuple(actions))


def _stale_slots(facts: RejoinFacts, primary: PrimaryFacts) -> list[str]:
    return stale_slots(facts.member.slots, primary, {answer.name for answer in facts.answers})


def stale_slots(slots: t.Sequence[t.Any], primary: PrimaryFacts, others: t.Collection[str]) -> list[str]:
    """Slots on a standby that belong to members who are known to stream from elsewhere."""
    from .member_config import slot_name

    gone = {slot_name(name): name for name in others if name == primary.name or name in primary.streaming}
    return [slot.name for slot in slots if not slot.active and slot.name in gone]


# -- a rewind that was left unfinished ----------------------------------------------------------------------------


def _marked(facts: RejoinFacts, primary: PrimaryFacts, wish: RejoinWish) -> RejoinPlan | None:
    mark = facts.mark
    if mark is None or facts.mark_state in ("none", "stale"):
        return None
    if facts.mark_state == "finished":
        done = Action("sync", "sync the rewound data directory", "the run that rewound it was killed right afterwards")
        return RejoinPlan("rewound", "A rewind had finished, its run was killed.", (done, *_bring_up(facts, primary)))
    if mark.failure in HOPELESS and wish.allow_reclone:
        actions = (_reclone(primary, f"pg_rewind failed: {mark.failure}"), *_bring_up(facts, primary))
        return RejoinPlan("reclone", "A rewind failed; a new copy is allowed.", (*_slot(facts, primary), *actions))
    same_source = (mark.source, mark.source_timeline) == (primary.name, primary.answer.timeline)
    if not same_source:
        return _between_two_sources(facts, primary, wish)
    again = Action(
        "resume_rewind",
        f"put the kept log back and rewind to {primary.name} again",
        f"the rewind of operation {mark.operation} did not finish (attempt {mark.attempts})",
    )
    before = (*_slot(facts, primary), *_checkpoint(primary))
    return RejoinPlan(
        "resume", "A rewind was killed half-way; it is done again.", (*before, again, *_bring_up(facts, primary))
    )


def _between_two_sources(facts: RejoinFacts, primary: PrimaryFacts, wish: RejoinWish) -> RejoinPlan:
    """Half the pages are from a server that has meanwhile lost the lead: what it wrote last may be in no history."""
    if facts.mark is None:
        raise defect("mark")
    message = (
        f"The data directory of {facts.name} is half rewound to {facts.mark.source} (timeline "
        f"{facts.mark.source_timeline}), but the primary is now {primary.name} on timeline {primary.answer.timeline}."
    )
    if not wish.allow_reclone:
        raise _refuse(
            message,
            "half_rewound",
            f"It needs a new copy: run again with -e allow_reclone=true. What was lost is kept in {facts.mark.folder}.",
            state="The server is down; its data directory is between two states and cannot be started.",
        )
    actions = (*_slot(facts, primary), _reclone(primary, message), *_bring_up(facts, primary))
    return RejoinPlan("reclone", "A half rewound data directory; a new copy is allowed.", actions)


# -- a server that is down ----------------------------------------------------------------------------------------


def _stopped(facts: RejoinFacts, primary: PrimaryFacts, wish: RejoinWish) -> RejoinPlan:
    divergence = facts.divergence
    if divergence is None:
        raise defect("divergence")
    if divergence.ahead:
        raise _ahead(facts, primary)
    if not divergence.diverged and divergence.problem is None:
        return _start(facts, primary, wish, divergence)
    obstacle = _obstacle(facts, primary, divergence)
    actions = [*_slot(facts, primary), *_evidence(facts, divergence, recover=obstacle is None)]
    if obstacle is not None:
        if not wish.allow_reclone:
            raise obstacle
        actions.append(_reclone(primary, obstacle.message))
        summary = f"{facts.name} cannot be rewound; a new copy is allowed."
        return RejoinPlan("reclone", summary, (*actions, *_bring_up(facts, primary)))
    actions += _checkpoint(primary)
    actions.append(
        Action(
            "rewind",
            f"rewind {facts.name} to {primary.name} with pg_rewind",
            f"its log goes beyond {divergence.fork}, where the primary's history left it",
        )
    )
    summary = f"{facts.name} wrote on after {primary.name} took over; it is rewound."
    return RejoinPlan("rewind", summary, (*actions, *_bring_up(facts, primary)))


def _start(facts: RejoinFacts, primary: PrimaryFacts, wish: RejoinWish, divergence: Divergence) -> RejoinPlan:
    slot = primary.slot(facts.slot_name)
    if slot is not None and slot.wal_status == "lost" and not divergence.restore_command:
        obstacle = _refuse(
            f"{primary.name} no longer has the WAL that {facts.name} needs: the slot {slot.name} was invalidated.",
            "wal_lost",
            "Bring the WAL back from an archive (restore_command), " + _RECLONE,
        )
        if not wish.allow_reclone:
            raise obstacle
        clone = _reclone(primary, obstacle.message)
        actions = (*_slot(facts, primary), clone, *_bring_up(facts, primary, fenced=False))
        return RejoinPlan("reclone", "The WAL is gone; a new copy is allowed.", actions)
    where = f"at or before {divergence.fork}" if divergence.fork else "on the primary's own timeline"
    summary = f"{facts.name} holds nothing that {primary.name} lacks (its log ends {where}); it is only started."
    actions = (*_slot(facts, primary), *_bring_up(facts, primary, fenced=False), _DROP_STALE_SLOTS)
    return RejoinPlan("start", summary, actions)


def _obstacle(facts: RejoinFacts, primary: PrimaryFacts, divergence: Divergence) -> Refused | None:
    """Why pg_rewind cannot work."""
    control = facts.control
    if control is None:
        raise defect("control")
    archive = bool(divergence.restore_command)
    if divergence.problem is not None:
        problem = divergence.problem
        return _refuse(problem.message, problem.reason, "Repair that, " + _RECLONE, **problem.details)
    if not (control.checksums or control.wal_log_hints):
        return _refuse(
            f"{facts.name} has neither data checksums nor wal_log_hints, so pg_rewind cannot know what changed.",
            "rewind_unprepared",
            "Run again with -e allow_reclone=true; the old data directory is kept beside the new one.",
        )
    if divergence.common is None and not archive:
        return _refuse(
            f"{facts.name} no longer has its WAL back to the last checkpoint before {divergence.fork}.",
            "wal_missing",
            "Bring it back from an archive (restore_command), " + _RECLONE,
        )
    if not divergence.source_has_wal and not archive:
        return _refuse(
            f"{primary.name} no longer has its WAL from {divergence.fork} on; {facts.name} could not catch up.",
            "source_wal_missing",
            "Bring it back from an archive (restore_command), " + _RECLONE,
        )
    return None


def _ahead(facts: RejoinFacts, primary: PrimaryFacts) -> HmsError:
    return _refuse(
        f"{facts.name} is on the primary's own timeline {primary.answer.timeline}, but holds WAL beyond "
        f"{format_lsn(primary.answer.lsn)}, where {primary.name} is: one of them was restored from an older state.",
        "ahead_on_same_timeline",
        "pg_rewind cannot help here. Find out which of the two holds the right data before anything is overwritten.",
    )


# -- pieces -------------------------------------------------------------------------------------------------------


def _slot(facts: RejoinFacts, primary: PrimaryFacts) -> list[Action]:
    slot = primary.slot(facts.slot_name)
    if slot is None:
        why = "the primary must keep the WAL from now on"
        return [Action("create_slot", f"create the slot {facts.slot_name} on {primary.name}", why)]
    if slot.wal_status == "lost":
        why = "its WAL is gone, it holds nothing"
        return [Action("renew_slot", f"drop and create the slot {facts.slot_name} on {primary.name}", why)]
    if slot.active and not facts.member.running:
        raise _refuse(
            f"The slot {facts.slot_name} on {primary.name} is in use, although the server on {facts.name} is down.",
            "slot_in_use",
            "Is another host set up under the same name? Stop it, then run again.",
        )
    return []


def _evidence(facts: RejoinFacts, divergence: Divergence, *, recover: bool) -> list[Action]:
    if facts.control is None:
        raise defect("control")
    where = str(divergence.fork) if divergence.fork else "an unknown fork"
    why = f"the log goes on after {where}"
    actions = [Action("list_losses", "list the transactions that never replicated", why)]
    if recover and facts.control.state not in (SHUT_DOWN, SHUT_DOWN_IN_RECOVERY):
        why = f"pg_control says {facts.control.state!r}"
        actions.append(Action("recover", "crash recovery in single-user mode", why))
    why = "pg_rewind and a new copy both destroy it"
    actions.append(Action("keep_wal", "copy the diverged WAL, pg_control and settings aside", why))
    return actions


def _checkpoint(primary: PrimaryFacts) -> list[Action]:
    answer = primary.answer
    if answer.control_timeline >= answer.timeline:
        return []
    why = f"its control file still says timeline {answer.control_timeline}, and pg_rewind believes it"
    return [Action("await_checkpoint", f"wait for a checkpoint on {answer.name}", why)]


def _reclone(primary: PrimaryFacts, why: str) -> Action:
    return Action("reclone", f"copy {primary.name} anew by pg_basebackup, keep the old data directory", why)


def _unfence(facts: RejoinFacts) -> Action:
    fence = facts.member.fence or {}
    why = f"it was fenced by operation {fence.get('operation', '?')}" if fence else "it was barred from starting"
    return Action("unfence", "lift the fence", why)


def _verify(facts: RejoinFacts, primary: PrimaryFacts) -> Action:
    why = f"done means streaming on timeline {primary.answer.timeline}, seen from both sides"
    return Action("verify", f"wait until {facts.name} streams from {primary.name}", why)


def _bring_up(facts: RejoinFacts, primary: PrimaryFacts, *, fenced: bool = True) -> list[Action]:
    """`fenced`: an earlier action of this plan bars the server from starting."""
    actions = [Action("configure", f"make it a standby of {primary.name}, slot {facts.slot_name}", "before it starts")]
    if fenced or facts.member.fence or facts.start_conf == DISABLED:
        actions.append(_unfence(facts))
    actions.append(Action("start", f"start PostgreSQL on {facts.name}", "it is down"))
    actions.append(_verify(facts, primary))
    return actions
