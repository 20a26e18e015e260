# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An incremental backup after one page in a hundred has changed: bytes stored ÷ those of the full one.

    make bench BENCH_ARGS="incremental --gigabytes 2"

The changed pages are one after another, as those of a growing table are, or scattered, which is the worst that can be:
pgBackRest compares whole files (block-incremental is off, see docs/backup.md), and a file holds up to 1 GiB.
"""

from __future__ import annotations

import argparse
import time

from ansible_collections.hms.postgres.tests.bench.backup_bench import fill
from ansible_collections.hms.postgres.tests.real.lab import Lab, clear_stale
from ansible_collections.hms.postgres.tests.real.pgbackrest_site import Site, begin, make_site

PAGE = "(ctid::text::point)[0]::bigint"
LAST = "pg_relation_size('notes') / current_setting('block_size')::bigint"
CHANGES = {
    "together": f"UPDATE notes SET patient = patient + 1 WHERE {PAGE} >= {LAST} * 99 / 100",
    "scattered": f"UPDATE notes SET patient = patient + 1 WHERE {PAGE} % 100 = 7",
}


def stored(site: Site, type_: str) -> tuple[int, float]:
    """Bytes that a backup added to the repository, and seconds it took, verification not counted."""
    begun = time.monotonic()
    manifest = site.backup(type_, verify="none", timeout=1800.0).manifest
    return manifest.bytes, time.monotonic() - begun


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench incremental")
    parser.add_argument("--gigabytes", type=float, default=2.0)
    options = parser.parse_args(arguments)
    clear_stale()
    lab = Lab()
    try:
        site = make_site(lab)
        begin(site)
        fill(site.instance, "hospital", options.gigabytes)
        full, seconds = stored(site, "full")
        print(f"full: {full / 1e6:.0f} MB stored in {seconds:.1f} s", flush=True)
        for name, statement in CHANGES.items():
            site.instance.sql(statement, dbname="hospital")
            bytes_, seconds = stored(site, "incremental")
            print(
                f"incremental, 1 % of the pages changed, {name}: {bytes_ / 1e6:.0f} MB in {seconds:.1f} s,"
                f" {bytes_ / full:.3f} of the full one",
                flush=True,
            )
    finally:
        lab.close()
    return 0
