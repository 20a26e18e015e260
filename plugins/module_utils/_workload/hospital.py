# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Loads the demo hospital: its tables and its made-up people, in one transaction. PRIVATE to the collection."""

from __future__ import annotations

import time
import typing as t

from .._postgres import ConnectionParams, connect

TABLES = (
    "users_user",
    "doctors_doctor",
    "patients_patient",
    "appointments_appointment",
    "billing_invoice",
    "billing_payment",
    "audit_auditlog",
)


def load(endpoint: ConnectionParams, paths: t.Sequence[str]) -> dict[str, t.Any]:
    """Run SQL files as the owner, all or nothing; returns the rows of each table and the seconds it took."""
    started = time.monotonic()
    texts = []
    for path in paths:
        with open(path, encoding="utf-8") as source:
            texts.append(source.read())
    session = connect(endpoint)
    try:
        session.execute("BEGIN")
        for text in texts:
            session.execute(text)
        session.execute("COMMIT")
        rows = {table: int(session.value(f"SELECT count(*) FROM public.{table}")) for table in TABLES}
    finally:
        session.close()
    return {"tables": rows, "rows": sum(rows.values()), "seconds": round(time.monotonic() - started, 3)}
