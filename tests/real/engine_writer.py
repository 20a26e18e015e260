# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A client that writes numbered rows through a bouncer and keeps its own ledger of what was acknowledged.

engine_writer.py SOURCE LEDGER RATE PORT        (until its standard input is closed)
"""

from __future__ import annotations

import json
import select
import sys
import time

import psycopg


def attempt(
    connection: psycopg.Connection | None, port: str, source: str, seq: int
) -> tuple[psycopg.Connection | None, str]:
    """Write one row; "failed" only when the server said that it isn't there."""
    sent = False
    try:
        if connection is None:
            where = f"host=127.0.0.1 port={port} dbname=hospital user=hospital_app connect_timeout=70"
            connection = psycopg.connect(where, autocommit=True, prepare_threshold=None)
        sent = True
        connection.execute("INSERT INTO ledger (source, seq) VALUES (%s, %s)", (source, seq))
        return connection, "ok"
    except psycopg.Error as error:
        if connection is not None:
            connection.close()
        return None, "unknown" if sent and error.sqlstate is None else "failed"


def main() -> None:
    source, path, rate, port = sys.argv[1:5]
    connection = None
    seq = 0
    with open(path, "a", encoding="utf-8") as ledger:
        while not select.select([sys.stdin], [], [], 0)[0]:
            seq += 1
            sent, begun = time.time(), time.monotonic()
            connection, outcome = attempt(connection, port, source, seq)
            ledger.write(json.dumps([seq, outcome, sent, round(time.monotonic() - begun, 6)]) + "\n")
            ledger.flush()
            time.sleep(max(0.001, 1.0 / float(rate) - (time.monotonic() - begun)))


if __name__ == "__main__":
    main()
