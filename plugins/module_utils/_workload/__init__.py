# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writers that book appointments, the ledger of what they were told, and the judge. PRIVATE to the collection.

The demo, the lab and the benchmark use it to learn what clients saw during a switchover or a failover:
which acknowledged transactions are still there, and how long nobody got an answer.

- `ledger` is the file format, `client` one database transaction, `writer` the loop of one writer,
  `supervisor` starts and stops them, `judge` compares ledgers with the table, `timeline` finds stalls,
  `evidence` puts the findings into an operation's record, `crash` kills an instance, `cli` is the command.
"""
