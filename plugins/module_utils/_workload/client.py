# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One transaction of the hospital's application, and what its answer means. PRIVATE to the collection."""

from __future__ import annotations

import contextlib
import typing as t

from .._postgres import ConnectionParams
from .ledger import Settings

if t.TYPE_CHECKING:
    import psycopg

_UNCERTAIN_CLASSES = ("08", "57", "58", "XX", "F0")
"""Classes of SQLSTATE after which a COMMIT may have happened: connection, operator, system, internal."""
_COMPLETION_UNKNOWN = "40003"

_BOOK = """
INSERT INTO public.appointments_appointment (patient_id, doctor_id, starts_at, minutes, reason, status)
VALUES (%s, %s, timestamptz '2031-01-06 08:00+00' + %s * interval '10 minutes', 10, %s, 'booked')
RETURNING id"""
_AUDIT = """
INSERT INTO public.audit_auditlog (user_id, action, object_type, object_id, address)
VALUES (%s, 'create', 'appointment', %s, '198.51.100.7')"""
_LEDGER = "INSERT INTO public.ledger_entry (source, seq) VALUES (%s, %s)"
MAX_WRITERS = 64
"""As many can book beside each other without ever asking for the same place."""


class ClientError(Exception):
    """A statement or a connection failed. `certain`: the server said that the transaction was rolled back."""

    def __init__(self, text: str, *, certain: bool = False) -> None:
        super().__init__(text)
        self.certain = certain


class Client(t.Protocol):
    """An application's connection."""

    def work(self, source: int, seq: int) -> None:
        """Everything of the transaction but its end. Raises `ClientError`."""

    def commit(self) -> str:
        """End it; returns a warning that came with the answer, or nothing. Raises `ClientError`."""

    def close(self) -> None:
        """Leave; never raises."""


def _describe(error: psycopg.Error) -> str:
    """The first line with its SQLSTATE; never the detail, which quotes rows."""
    lines = (error.diag.message_primary or str(error)).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    return f"{error.sqlstate or 'connection'}: {text}"[:200]


def is_certain(sqlstate: str | None, severity: str | None) -> bool:
    """Whether an error answered to COMMIT proves that nothing was committed."""
    if not sqlstate or severity != "ERROR":
        return False
    return sqlstate != _COMPLETION_UNKNOWN and not sqlstate.startswith(_UNCERTAIN_CLASSES)


def place(source: int, seq: int, settings: Settings) -> tuple[int, int, int, int]:
    """Patient, doctor, place in the doctor's calendar and user of a booking; no two bookings share a place."""
    patient = 1 + (seq * 7919 + source * 104729) % settings.patients
    doctor = 1 + seq % settings.doctors
    number = (seq // settings.doctors) * MAX_WRITERS + source
    return patient, doctor, number, 1 + source % settings.users


class PsycopgClient:
    """`Client` over psycopg 3; no prepared statements, so that PgBouncer may share the server connection."""

    def __init__(self, endpoint: ConnectionParams, settings: Settings) -> None:
        import psycopg

        self._settings = settings
        self._notices: list[str] = []
        self._errors = psycopg.Error
        try:
            self._connection = psycopg.connect(endpoint.conninfo(), autocommit=True, prepare_threshold=None)
        except psycopg.Error as error:
            raise ClientError(_describe(error)) from error
        self._connection.add_notice_handler(self._notice)

    def _notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        self._notices.append(f"{diagnostic.severity_nonlocalized}: {diagnostic.message_primary}"[:200])

    def _execute(self, sql: str, *values: t.Any) -> psycopg.Cursor[t.Any]:
        try:
            return self._connection.execute(sql, values or None)
        except self._errors as error:
            certain = is_certain(error.sqlstate, error.diag.severity_nonlocalized)
            raise ClientError(_describe(error), certain=certain) from error

    def work(self, source: int, seq: int) -> None:
        patient, doctor, number, user = place(source, seq, self._settings)
        self._notices.clear()
        self._execute("BEGIN")
        row = self._execute(_BOOK, patient, doctor, number, f"Booked online by writer {source}").fetchone()
        self._execute(_AUDIT, user, row[0] if row else 0)
        self._execute(_LEDGER, source, seq)

    def commit(self) -> str:
        answer = self._execute("COMMIT").statusmessage
        if answer != "COMMIT":  # a transaction that was aborted is answered with ROLLBACK, which is no error
            raise ClientError(f"COMMIT was answered with {answer}", certain=True)
        return "; ".join(self._notices)

    def close(self) -> None:
        with contextlib.suppress(self._errors):
            self._connection.close()
