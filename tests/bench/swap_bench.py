# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Swaps of the live database and their ways back, under eight writers through PgBouncer.

make bench BENCH_ARGS="swap --runs 30"

The engine is run as the task of a playbook runs it, without Ansible's own start, in a process of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

from ansible_collections.hms.postgres.tests.bench.writers import CREATE, TABLE, Writers, describe, quantile
from ansible_collections.hms.postgres.tests.real.engine_hosts import PASSWORD
from ansible_collections.hms.postgres.tests.real.lab import Lab
from ansible_collections.hms.postgres.tests.real.swap_site import LIVE, SCRATCH, SwapSite

SETTLE = 0.5
TARGET = 0.5
"""Seconds that the longest stall of a swap may take in the median."""
GRANT = f"{CREATE}; GRANT SELECT, INSERT ON {TABLE} TO hospital_app"


@dataclasses.dataclass
class Found:
    """What the clients felt in each run, and what was expected of the catalog and not found."""

    swaps: list[float] = dataclasses.field(default_factory=list)
    rollbacks: list[float] = dataclasses.field(default_factory=list)
    held: list[float] = dataclasses.field(default_factory=list)
    wrong: int = 0


def once(site: SwapSite, writers: Writers, expected: int, found: Found, **wishes: str) -> float:
    """One swap in a child; the longest time that any writer waited."""
    begun = time.monotonic()
    record = site.swap_child(**wishes).result()["record"]
    time.sleep(SETTLE)
    found.wrong += site.through() != {expected}
    found.held.append(record["critical_section"]["ended"] - record["critical_section"]["started"])
    return writers.longest_stall(begun, time.monotonic())


def measure(site: SwapSite, runs: int) -> tuple[Found, int, int]:
    """Swap and go back `runs` times; what was felt, failed transactions, acknowledged rows that are nowhere."""
    site.inside(LIVE, GRANT)
    found = Found()
    old = site.oid(LIVE)
    conninfo = (
        f"host=127.0.0.1 port={site.bouncers['bouncer1'].port} dbname={LIVE} user=hospital_app password={PASSWORD}"
    )
    with Writers(conninfo) as writers:
        time.sleep(2.0)
        begun = time.monotonic()
        for number in range(1, runs + 1):
            new = site.make()
            site.inside(SCRATCH, GRANT)
            found.swaps.append(once(site, writers, new, found))
            found.rollbacks.append(once(site, writers, old, found, state="rolled_back"))
            print(f"  {number:3}: swap {found.swaps[-1]:.3f} s, way back {found.rollbacks[-1]:.3f} s", flush=True)
            keep(site)
        failed = writers.failures_since(begun)
    return found, failed, missing(site, writers)


def keep(site: SwapSite) -> None:
    """Put the rows that went into the swapped database into the live one, then drop it."""
    after = next(name for name in site.oids() if name != LIVE)
    rows = site.inside(after, f"SELECT string_agg(format('(%s,%s)', source, seq), ',') FROM {TABLE}")
    site.inside(LIVE, f"INSERT INTO {TABLE} VALUES {rows} ON CONFLICT DO NOTHING")
    site.drop(after)


def missing(site: SwapSite, writers: Writers) -> int:
    """Acknowledged rows that are not there."""
    conninfo = f"host=127.0.0.1 port={site.primary().port} dbname={LIVE} user=postgres"
    return writers.lost(conninfo)


def main(arguments: list[str]) -> int:
    """Measure, and hold it against the target."""
    parser = argparse.ArgumentParser(prog="bench swap")
    parser.add_argument("--runs", type=int, default=30)
    options = parser.parse_args(arguments)
    lab = Lab()
    try:
        site = SwapSite(lab, databases=2, bouncers=1)
        try:
            found, failed, lost = measure(site, options.runs)
        finally:
            site.close()
    finally:
        lab.close()
    print(f"swap, longest stall:     {describe(found.swaps)}")
    print(f"way back, longest stall: {describe(found.rollbacks)}")
    print(f"clients held:            {describe(found.held)}")
    print(f"failed={failed} lost={lost} led to another database={found.wrong}")
    met = max(quantile(found.swaps, 0.5), quantile(found.rollbacks, 0.5)) <= TARGET and not failed + lost + found.wrong
    print(f"target (p50 ≤ {TARGET} s, nothing failed): {'met' if met else 'MISSED'}")
    return 0 if met else 1
