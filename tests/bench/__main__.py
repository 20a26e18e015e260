# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The benchmarks: ``python tests/bench NAME [options]``; all of them without a name."""

from __future__ import annotations

import sys

from ansible_collections.hms.postgres.tests.bench import (
    backup_bench,
    failover_bench,
    incremental_bench,
    listing_bench,
    pitr_bench,
    restore_bench,
    swap_bench,
    switchover_bench,
)

BENCHES = {
    "switchover": switchover_bench.main,
    "failover": failover_bench.main,
    "backup": backup_bench.main,
    "incremental": incremental_bench.main,
    "listing": listing_bench.main,
    "swap": swap_bench.main,
    "restore": restore_bench.main,
    "pitr": pitr_bench.main,
}


def main() -> int:
    """Run the one named, or all."""
    name, *options = sys.argv[1:] or [""]
    if name in BENCHES:
        return BENCHES[name](options)
    if name:
        print(f"unknown bench {name!r}; there are {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    return max(bench([]) for bench in BENCHES.values())


if __name__ == "__main__":
    sys.exit(main())
