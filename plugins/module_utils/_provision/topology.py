# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who is the primary, and who follows whom: decided from what every host said of itself. PRIVATE.

The inventory says which hosts there are; only on the very first day does it say who leads. Pure functions.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .._errors import HmsError, Refused

_UNTOUCHED = "Nothing was touched."


@dataclasses.dataclass(frozen=True)
class Found:
    """What one database host said of itself; `asked` is False when it did not answer."""

    name: str
    asked: bool = True
    data_present: bool = False
    running: bool = False
    role: str = "none"
    """``primary`` or ``standby``, running or as it would start; ``none`` without data."""
    control_state: str = ""
    timeline: int = 0
    system_identifier: str = ""
    fence: t.Mapping[str, t.Any] | None = None
    upstream: str = ""
    """The upstream that the inventory names; empty for the primary."""
    may_be_primary: bool = True

    @property
    def writable(self) -> bool:
        """It runs and takes writes."""
        return self.running and self.role == "primary"

    def describe(self) -> str:
        """One line for messages."""
        if not self.asked:
            return f"{self.name}: did not answer"
        if self.fence:
            return f"{self.name}: fenced since {self.fence.get('at', '?')}"
        if not self.data_present:
            return f"{self.name}: no data"
        running = "running" if self.running else f"stopped ({self.control_state or 'state unknown'})"
        return f"{self.name}: {self.role}, {running}, timeline {self.timeline or '?'}"


def found_from(
    name: str,
    answer: t.Mapping[str, t.Any] | None,
    *,
    fence: t.Mapping[str, t.Any] | None = None,
    upstream: str = "",
    may_be_primary: bool = True,
) -> Found:
    """`Found` from what pg_instance_info returned, or from None when the host did not answer."""
    if answer is None:
        return Found(name=name, asked=False, upstream=upstream, may_be_primary=may_be_primary)
    return Found(
        name=name,
        data_present=bool(answer.get("data_present")),
        running=bool(answer.get("running")),
        role=str(answer.get("role") or "none"),
        control_state=str(answer.get("control_state") or ""),
        timeline=int(answer.get("timeline") or 0),
        system_identifier=str(answer.get("system_identifier") or ""),
        fence=fence,
        upstream=upstream,
        may_be_primary=may_be_primary,
    )


def decide(hosts: t.Sequence[Found], *, initial_primary: str) -> dict[str, t.Any]:
    """The topology as plain data, or `Refused` saying what is wrong and what to do.

    Returns ``primary``, ``virgin``, ``start_primary``, ``standbys`` (name, upstream, depth), ``fenced``,
    ``unreachable`` and ``notes``.
    """
    primary, virgin = _primary(hosts, initial_primary)
    standbys, notes = _standbys(hosts, primary)
    fenced = [
        {"name": host.name, "since": host.fence.get("at", ""), "operation": host.fence.get("operation", "")}
        for host in hosts
        if host.fence and host is not primary
    ]
    notes += [
        f"{item['name']} is fenced since {item['since']}: run rejoin.yml -e host={item['name']}. It is left alone."
        for item in fenced
    ]
    unreachable = [host.name for host in hosts if not host.asked]
    notes += [f"{name} did not answer and is left out of this run." for name in unreachable]
    return {
        "primary": primary.name,
        "virgin": virgin,
        "start_primary": not primary.running,
        "standbys": standbys,
        "fenced": fenced,
        "unreachable": unreachable,
        "notes": notes,
    }


def _refuse(message: str, reason: str, next_step: str, hosts: t.Sequence[Found]) -> Refused:
    told = "; ".join(host.describe() for host in hosts)
    return Refused(
        f"{message} ({told}).",
        reason=reason,
        phase="topology",
        state=_UNTOUCHED,
        next_step=next_step,
        details={"hosts": [host.describe() for host in hosts]},
    )


def _primary(hosts: t.Sequence[Found], initial_primary: str) -> tuple[Found, bool]:
    """The primary, and whether the cluster is virgin."""
    writable = [host for host in hosts if host.writable]
    if len(writable) > 1:
        names = " and ".join(host.name for host in writable)
        raise _refuse(
            f"More than one instance takes writes: {names}",
            "two_writable",
            "This is a split brain. Take the clients off, decide which one goes on, stop the other "
            "(pg_ctlcluster … stop), then run rejoin.yml for it.",
            hosts,
        )
    if not writable:
        return _without_writable(hosts, initial_primary)
    if writable[0].fence:
        raise _refuse(
            f"{writable[0].name} is fenced, yet it runs and takes writes",
            "fenced_but_writable",
            f"Stop it, then run rejoin.yml -e host={writable[0].name}. If it is the right primary after all, "
            "remove its fence.json.",
            hosts,
        )
    return writable[0], False


def _without_writable(hosts: t.Sequence[Found], initial_primary: str) -> tuple[Found, bool]:
    silent = [host for host in hosts if not host.asked]
    holders = [host for host in hosts if host.data_present or host.fence]
    if silent:
        names = ", ".join(host.name for host in silent)
        raise _refuse(
            f"Nobody takes writes among the hosts that answered, and {names} did not answer",
            "primary_unknown",
            "Bring these hosts back and run again without --limit, or run dr_failover.yml when the primary is lost.",
            hosts,
        )
    if not holders:
        return _initial(hosts, initial_primary), True
    if len(holders) == 1 and holders[0].role == "primary" and not holders[0].fence:
        return holders[0], False  # no other copy exists anywhere: to start it is safe
    raise _refuse(
        "There is data, but nobody takes writes",
        "no_primary",
        "If the last primary is only stopped, start it (pg_ctlcluster … start) and run again. "
        "If it is lost, run dr_failover.yml.",
        hosts,
    )


def _initial(hosts: t.Sequence[Found], initial_primary: str) -> Found:
    for host in hosts:
        if host.name == initial_primary and host.may_be_primary:
            return host
    raise _refuse(
        f"The cluster is new, and {initial_primary or 'nobody'!r} cannot be its first primary",
        "bad_initial_primary",
        "Set replication_initial_primary to a database host that may be primary.",
        hosts,
    )


def _standbys(hosts: t.Sequence[Found], primary: Found) -> tuple[list[dict[str, t.Any]], list[str]]:
    """Everybody else who answered and isn't fenced, with the upstream each is to follow."""
    followers = {host.name: host for host in hosts if host is not primary and host.asked and not host.fence}
    upstreams, notes = {}, []
    for host in followers.values():
        wished = host.upstream or primary.name
        if wished != primary.name and wished not in followers:
            _check_known(host, hosts)
            notes.append(f"{host.name} follows {primary.name}, because its upstream {wished} is not there.")
            wished = primary.name
        upstreams[host.name] = wished
    depths = {name: _depth(name, upstreams, primary.name, hosts) for name in upstreams}
    listed = [{"name": name, "upstream": upstream, "depth": depths[name]} for name, upstream in upstreams.items()]
    return sorted(listed, key=lambda item: (item["depth"], item["name"])), notes


def _check_known(host: Found, hosts: t.Sequence[Found]) -> None:
    if host.upstream not in {other.name for other in hosts}:
        raise _refuse(
            f"{host.name} is to follow {host.upstream!r}, which is no database host of this cluster",
            "unknown_upstream",
            f"Correct replication_upstream of {host.name}.",
            hosts,
        )


def _depth(name: str, upstreams: t.Mapping[str, str], primary: str, hosts: t.Sequence[Found]) -> int:
    depth, current = 1, name
    while upstreams[current] != primary:
        current = upstreams[current]
        depth += 1
        if depth > len(upstreams):
            raise _refuse(
                f"{name} would follow itself through its upstreams",
                "upstream_loop",
                "Correct replication_upstream: following it from host to host must end at the primary.",
                hosts,
            )
    return depth


def decide_plainly(
    members: t.Sequence[t.Mapping[str, t.Any]],
    answers: t.Mapping[str, t.Mapping[str, t.Any]],
    *,
    initial_primary: str,
) -> dict[str, t.Any]:
    """`decide` for callers that have plain data; a refusal comes back as ``problem`` instead of being raised.

    `members` have ``name``, ``may_be_primary`` and ``upstream``; `answers` map a name to ``instance`` and ``fence``.
    """
    hosts = []
    for member in members:
        answer = answers.get(str(member["name"])) or {}
        hosts.append(
            found_from(
                str(member["name"]),
                answer.get("instance"),
                fence=answer.get("fence") or None,
                upstream=str(member.get("upstream") or ""),
                may_be_primary=bool(member.get("may_be_primary", True)),
            )
        )
    try:
        return {**decide(hosts, initial_primary=initial_primary), "problem": ""}
    except HmsError as error:
        return {"problem": error.full_text(), "reason": error.reason, "hosts": error.details.get("hosts", [])}
