# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a primary owes its standbys: a slot for each, and who of them commits wait for. PRIVATE.

``synchronous_standby_names`` is set by ALTER SYSTEM, never in a configuration file, because operations own it too:
a failover that leaves no standby empties it where the policy says degrade. It is set here only while a standby
streams that it would name; otherwise every write of the hospital would stop.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .._cluster import facts, member_config, settings
from .._cluster.member_config import DatabaseHost
from .._cluster.model import MemberFacts
from .._command import CommandRunner
from .._errors import HmsError, Refused
from .._module import Result
from .._postgres import Session

SYNC_NAMES = "synchronous_standby_names"
_UNTOUCHED = "Nothing was touched."

Connect = t.Callable[..., Session]


@dataclasses.dataclass(frozen=True)
class PrimaryPlan:
    """Slots to create, and the new synchronous_standby_names where it is to change."""

    slots: tuple[str, ...] = ()
    sync_names: str | None = None
    warnings: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The plan for people."""
        lines = [f"create the slot {slot}" for slot in self.slots]
        if self.sync_names is not None:
            lines.append(f"set {SYNC_NAMES} to {self.sync_names!r}")
        return lines


def plan(host: DatabaseHost, found: MemberFacts, *, standbys: t.Sequence[str], synchronous: bool) -> PrimaryPlan:
    """What is to be done on this primary; pure."""
    if not found.writable:
        raise Refused(
            f"{host.name} is not a running primary (it is {found.role}).",
            reason="not_primary",
            state=_UNTOUCHED,
            next_step="Run this for the cluster's primary only; playbooks/status.yml shows which host that is.",
        )
    known = {slot.name for slot in found.slots}
    wanted = [member_config.slot_name(host.peer(name).name) for name in standbys if name != host.name]
    slots = tuple(name for name in wanted if name not in known)
    if not synchronous:
        return PrimaryPlan(slots=slots)
    names, warnings = _sync_names(host, found)
    return PrimaryPlan(slots=slots, sync_names=names, warnings=warnings)


def _sync_names(host: DatabaseHost, found: MemberFacts) -> tuple[str | None, tuple[str, ...]]:
    """The new value, or None where it stays, and what the operator should know."""
    current = found.settings.get(SYNC_NAMES, "")
    wanted = member_config.synchronous_standby_names(host.sync_policy, host.name, host.members)
    if current == wanted:
        return None, ()
    eligible = {peer.name for peer in host.members if peer.may_be_primary and peer.name != host.name}
    streaming = [sender.application_name for sender in found.senders if sender.state == "streaming"]
    if not wanted or eligible.intersection(streaming):
        return wanted, ()
    if host.sync_policy == "strict" and not current:
        raise Refused(
            f"The policy is strict, but no standby streams from {host.name}: commits are not held on a second host, "
            "and waiting for one now would stop every write.",
            reason="no_standby_streams",
            state=f"{SYNC_NAMES} was left empty: the primary accepts writes without a second copy.",
            next_step="Bring a standby back (playbooks/rejoin.yml -e host=…, playbooks/site.yml), then run this again.",
        )
    why = f"No standby streams from {host.name}, so {SYNC_NAMES} stays {current!r} instead of {wanted!r}."
    return None, (why,)


class Primary:
    """The primary on this host."""

    def __init__(self, config_directory: str, *, connect: Connect, runner: CommandRunner) -> None:
        self._config_directory = config_directory
        self._connect = connect
        self._runner = runner

    def ensure(self, *, standbys: t.Sequence[str], synchronous: bool, check_mode: bool) -> Result:
        """Slots and synchronous standbys as wished; in check mode only said."""
        host = self._load(check_mode=check_mode)
        found = facts.observe(host, runner=self._runner) if host is not None else None
        if host is None or found is None or (check_mode and found.control is None):
            lines = [f"create a slot for {name}" for name in standbys]
            return Result(True, {"plan": lines}, before={}, after={"plan": lines})
        made = plan(host, found, standbys=standbys, synchronous=synchronous)
        if not check_mode and made.lines():
            self._apply(host, made)
        before = {"slots": sorted(slot.name for slot in found.slots), SYNC_NAMES: found.settings.get(SYNC_NAMES, "")}
        after = {
            "slots": sorted([*before["slots"], *made.slots]),
            SYNC_NAMES: before[SYNC_NAMES] if made.sync_names is None else made.sync_names,
        }
        values = {"plan": made.lines(), SYNC_NAMES: after[SYNC_NAMES], "slots": after["slots"]}
        return Result(bool(made.lines()), values, before=before, after=after, warnings=made.warnings)

    def _load(self, *, check_mode: bool) -> DatabaseHost | None:
        try:
            host = member_config.load(self._config_directory)
        except HmsError as error:
            if check_mode and error.reason == "not_a_member":
                return None
            raise
        if not isinstance(host, DatabaseHost):
            raise Refused(f"{host.name} is no database host.", reason="not_a_database_host", state=_UNTOUCHED)
        return host

    def _apply(self, host: DatabaseHost, made: PrimaryPlan) -> None:
        session = self._connect(host.instance.local(), os_user=host.instance.os_user)
        try:
            for slot in made.slots:
                session.execute("SELECT pg_catalog.pg_create_physical_replication_slot(%s, true)", (slot,))
            if made.sync_names is not None:
                settings.alter_system(session, {SYNC_NAMES: made.sync_names})
        finally:
            session.close()
