# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A cluster in order as facts, for tests that change one thing about it; and a clock that is told the time."""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._cluster.cutover_model import Exchange
from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import (
    ClusterFacts,
    Control,
    MemberFacts,
    PoolerFacts,
    ProcessFacts,
    Receiver,
)

SYSTEM = "7391"
PORTS = {"db1": 5431, "db2": 5432, "db3": 5433}


class Channel:
    """A coordinator that is there."""

    def check(self, **_holding: bool) -> None:
        return None

    def send(self, _message: t.Mapping[str, t.Any]) -> None:
        return None


class ScriptedClock:
    """A clock that moves only when somebody sleeps, or when it is told to."""

    def __init__(self, start: float = 1000.0) -> None:
        self.seconds = start
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self.seconds, datetime.timezone.utc)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds


def address(name: str) -> str:
    return f"10.0.0.{name[-1]}"


def primary(name: str = "db1", **changes: t.Any) -> MemberFacts:
    """A primary that is well, changed as told."""
    facts = MemberFacts(
        name,
        address=address(name),
        port=PORTS[name],
        running=True,
        responsive=True,
        in_recovery=False,
        version="15.18",
        control=Control("in production", 4000, 1, SYSTEM),
        timeline=1,
        lsn=5000,
    )
    return dataclasses.replace(facts, **changes)


def receiver(upstream: str = "db1", **changes: t.Any) -> Receiver:
    found = Receiver("streaming", address(upstream), PORTS[upstream], "slot", 1, 0.1)
    return dataclasses.replace(found, **changes)


def standby(name: str = "db2", upstream: str = "db1", **changes: t.Any) -> MemberFacts:
    """A standby that streams, changed as told."""
    facts = MemberFacts(
        name,
        address=address(name),
        port=PORTS[name],
        running=True,
        responsive=True,
        in_recovery=True,
        version="15.18",
        control=Control("in archive recovery", 4000, 1, SYSTEM),
        timeline=1,
        lsn=5000,
        replay_lsn=5000,
        replay_age=0.5,
        last_commit_at="1970-01-01T00:16:39+00:00",
        receiver=receiver(upstream),
        settings={"primary_conninfo": f"host='{address(upstream)}' port='{PORTS[upstream]}' user='hms_replication'"},
        standby_signal=True,
    )
    return dataclasses.replace(facts, **changes)


def down(name: str = "db1", **changes: t.Any) -> MemberFacts:
    """A primary that was killed: its host answers, no process is left, its checkpoint was at 4000."""
    facts = primary(name, running=False, responsive=False, in_recovery=None, wal_written_at=1000.0, lsn=4000)
    return dataclasses.replace(facts, **changes)


def gone(name: str = "db1", **changes: t.Any) -> MemberFacts:
    """A host that can't be reached."""
    facts = MemberFacts(name, address=address(name), port=PORTS[name], reachable=False, error="no route to host")
    return dataclasses.replace(facts, **changes)


def process(name: str = "1", leads_to: str = "db1", **changes: t.Any) -> ProcessFacts:
    target = f"{address(leads_to)}:{PORTS[leads_to]}"
    facts = ProcessFacts(name, version="1.18.0", target=target, pool_modes=("transaction",))
    return dataclasses.replace(facts, **changes)


def pooler(name: str = "bouncer1", leads_to: str = "db1", **changes: t.Any) -> PoolerFacts:
    """A bouncer host with two processes."""
    both = (process("1", leads_to), process("2", leads_to))
    facts = PoolerFacts(name, address="10.0.1.1", file_primary=leads_to, processes=both)
    return dataclasses.replace(facts, **changes)


def cluster(
    *members: MemberFacts,
    poolers: t.Sequence[PoolerFacts] | None = None,
    policy: str = "async",
    environment: str = "staging",
) -> ClusterFacts:
    """A cluster of these members; a pair in order when none is given."""
    found = members or (primary(), standby())
    return ClusterFacts("hospital", environment, found, tuple([pooler()] if poolers is None else poolers), policy)


def exchange(**changes: t.Any) -> Exchange:
    """An exchange of data directories whose side cluster is ready, changed as told."""
    facts = Exchange(
        operation="20260101T000000Z-cutover-3fa9",
        stage="promoted",
        live="/data",
        side="/data.pitr",
        kept="/data.before",
        system_identifier=SYSTEM,
        old_timeline=1,
        new_timeline=2,
        checkpoint=4500,
        fork_lsn=4000,
        fork_timeline=1,
        target="noon",
    )
    return dataclasses.replace(facts, **changes)
