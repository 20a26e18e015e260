# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Planned switchovers under eight writers: ours by the operator's playbook, beside them Patroni's, in one run.

make bench BENCH_ARGS="switchover --runs 30 --rival-runs 10"
"""

from __future__ import annotations

import argparse
import pathlib
import time

import psycopg

from ansible_collections.hms.postgres.tests.bench.our_site import Site
from ansible_collections.hms.postgres.tests.bench.patroni_rival import Rival
from ansible_collections.hms.postgres.tests.bench.writers import CREATE, Writers, describe, quantile

SETTLE = 1.0


def ours(runs: int, policy: str) -> list[float]:
    """The longest write stall of each of our switchovers, in seconds."""
    site = Site(policy)
    try:
        site.start(CREATE)
        stalls = []
        with Writers(site.conninfo) as writers:
            time.sleep(3 * SETTLE)
            begun_all = time.monotonic()
            for number in range(runs):
                candidate = "db2" if site.primary() == "db1" else "db1"
                begun = time.monotonic()
                site.play("switchover.yml", candidate=candidate)
                time.sleep(SETTLE)
                stalls.append(writers.longest_stall(begun, time.monotonic()))
                print(f"  ours {number + 1:3}: {stalls[-1]:.3f} s", flush=True)
            failed = writers.failures_since(begun_all)
        print(f"ours ({policy}): {describe(stalls)} failed={failed} lost={writers.lost(site.conninfo)}")
        return stalls
    finally:
        site.stop()


def rivals(runs: int) -> list[float]:
    """The same for Patroni."""
    rival = Rival(pathlib.Path("/var/lib/hms-bench-patroni"))
    try:
        rival.start()
        with psycopg.connect(rival.conninfo, autocommit=True, prepare_threshold=None) as connection:
            connection.execute(CREATE)
        stalls = []
        with Writers(rival.conninfo) as writers:
            time.sleep(3 * SETTLE)
            begun_all = time.monotonic()
            for number in range(runs):
                begun = time.monotonic()
                rival.switchover()
                time.sleep(SETTLE)
                stalls.append(writers.longest_stall(begun, time.monotonic()))
                print(f"  Patroni {number + 1:3}: {stalls[-1]:.3f} s", flush=True)
                rival.wait_settled()
                time.sleep(SETTLE)
            failed = writers.failures_since(begun_all)
        print(f"Patroni: {describe(stalls)} failed={failed} lost={writers.lost(rival.conninfo)}")
        return stalls
    finally:
        rival.stop()


def main(arguments: list[str]) -> int:
    """Measure both and print the ratio of the medians."""
    parser = argparse.ArgumentParser(prog="bench switchover")
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--rival-runs", type=int, default=10)
    parser.add_argument("--policy", default="strict", choices=["async", "strict", "degrade"])
    options = parser.parse_args(arguments)
    mine = ours(options.runs, options.policy)
    theirs = rivals(options.rival_runs)
    print(f"Patroni's median stall ÷ ours: {quantile(theirs, 0.5) / quantile(mine, 0.5):.1f}")
    return 0
