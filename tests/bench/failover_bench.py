# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Unplanned failovers: the primary is killed under eight writers, the operator's playbook is run.

    make bench BENCH_ARGS="failover --runs 10 --policy strict"

Measured: from the playbook's start (the process, Ansible's own start included) to the first write acknowledged,
the critical section, and, by the writers' ledgers, what was lost.

Where commits wait for nobody (async), the primary's WAL senders are frozen for a moment before it is killed: on one
machine replication is otherwise too quick for anything to be lost. Every acknowledged write that is lost must be in
the list; the list may hold one more for each writer, whose commit was on disk when the kill came and never
acknowledged.
"""

from __future__ import annotations

import argparse
import time

from ansible_collections.hms.postgres.tests.bench.our_site import Site
from ansible_collections.hms.postgres.tests.bench.writers import CREATE, WRITERS, Writers, describe

SETTLE = 2.0
LAG = 0.3
"""Seconds for which nothing replicates before the kill, under async."""


def first_ack_after(writers: Writers, moment: float) -> float:
    """Seconds from `moment` to the first acknowledgement after it."""
    return min(at for ledger in writers.ledgers for at, _sequence in ledger.acknowledged if at > moment) - moment


def measure(runs: int, policy: str) -> None:
    """Kill, fail over, rejoin, again."""
    site = Site(policy)
    try:
        site.start(CREATE)
        waits, sections, losses = [], [], []
        for number in range(runs):
            with Writers(site.conninfo) as writers:
                time.sleep(SETTLE)
                if policy == "async":
                    site.freeze_wal_senders()
                    time.sleep(LAG)
                killed = site.kill_primary()
                time.sleep(0.2)
                begun = time.monotonic()
                site.play("dr_failover.yml")
                time.sleep(SETTLE)
            record = site.records()[-1]
            section = record["critical_section"]
            waits.append(first_ack_after(writers, begun))
            sections.append(section["ended"] - section["started"])
            site.play("rejoin.yml", host=killed)
            losses.append((writers.lost(site.conninfo), record["losses"]["count"] or 0))
            print(f"  {number + 1:3}: {waits[-1]:.3f} s, critical section {sections[-1]:.3f} s", flush=True)
        print(f"start to first write ({policy}): {describe(waits)}")
        print(f"critical section: {describe(sections)}")
        lost, listed = (sum(column) for column in zip(*losses, strict=True))
        print(f"acknowledged writes lost: {lost}; transactions listed as lost: {listed}")
        wrong = [number + 1 for number, (gone, named) in enumerate(losses) if not gone <= named <= gone + WRITERS]
        print(f"runs in which the list and the ledgers disagree: {wrong or 'none'}")
    finally:
        site.stop()


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench failover")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--policy", default="strict", choices=["async", "strict", "degrade"])
    options = parser.parse_args(arguments)
    measure(options.runs, options.policy)
    return 0
