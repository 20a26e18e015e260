# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An application's service: it writes numbered rows through a bouncer, under a name of each start's own.

service_writer.py NAME LEDGER PORT        (until it is ended)
"""

from __future__ import annotations

import json
import os
import sys
import time

import psycopg


def main() -> None:
    name, path, port = sys.argv[1:4]
    source = f"{name}-{os.getpid()}-{time.monotonic_ns()}"
    where = f"host=127.0.0.1 port={port} dbname=hospital user=hospital_app connect_timeout=70"
    seq = 0
    connection = None
    with open(path, "a", encoding="utf-8") as ledger:
        while True:
            seq += 1
            try:
                connection = connection or psycopg.connect(where, autocommit=True, prepare_threshold=None)
                connection.execute("INSERT INTO ledger (source, seq) VALUES (%s, %s)", (source, seq))
                outcome = "ok"
            except psycopg.Error as error:
                connection, outcome = None, f"failed: {error}"
            ledger.write(json.dumps([source, seq, outcome]) + "\n")
            ledger.flush()
            time.sleep(0.02)


if __name__ == "__main__":
    main()
