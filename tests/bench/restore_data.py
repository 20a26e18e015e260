# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A hospital to restore: tables of very different sizes, with keys, indexes and foreign keys."""

from __future__ import annotations

from ansible_collections.hms.postgres.tests.real.lab import Instance

TABLES = """
CREATE TABLE departments (id int PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE staff (id int PRIMARY KEY, department int NOT NULL REFERENCES departments, name text NOT NULL, role text);
CREATE TABLE patients (id bigint PRIMARY KEY, name text NOT NULL, born date, record text NOT NULL UNIQUE, address text,
  allergies text);
CREATE TABLE appointments (id bigint PRIMARY KEY, patient bigint NOT NULL, doctor int NOT NULL, at timestamptz NOT NULL,
  room text, state text);
CREATE TABLE lab_results (id bigint PRIMARY KEY, patient bigint NOT NULL, code text NOT NULL, value float8,
  at timestamptz, remark text);
CREATE TABLE notes (id bigint PRIMARY KEY, appointment bigint NOT NULL, author int NOT NULL, at timestamptz, body text);
CREATE TABLE audit (id bigint PRIMARY KEY, at timestamptz NOT NULL, who text, what text);
"""
MOMENT = """
CREATE FUNCTION moment(n int, step int) RETURNS timestamptz LANGUAGE sql STABLE AS
$$ SELECT timestamptz '2020-01-01' + (n::bigint * step % 3000000) * interval '1 minute' $$
"""
ROWS = (
    ("departments", "40", "n, 'department ' || n"),
    ("staff", "3000", "n, n % 40 + 1, 'staff ' || md5(n::text), (array['doctor', 'nurse', 'clerk'])[n % 3 + 1]"),
    (
        "patients",
        "{patients}",
        """n, 'patient ' || md5(n::text), date '1930-01-01' + (n::bigint * 7919 % 33000)::int, 'MRN' || n,
        md5(n::text || 'a') || ' street', repeat('allergy ', n % 8)""",
    ),
    (
        "appointments",
        "{patients} * 6",
        """n, n::bigint * 7919 % {patients} + 1, n % 3000 + 1, moment(n, 37), 'room ' || n % 200,
        (array['done', 'open', 'missed'])[n % 3 + 1]""",
    ),
    (
        "lab_results",
        "{patients} * 14",
        """n, n::bigint * 104729 % {patients} + 1, 'L' || n % 400, (n::bigint * 31 % 10000) / 97.0, moment(n, 41),
        CASE WHEN n % 5 = 0 THEN 'repeat the sample ' || md5(n::text) END""",
    ),
    (
        "notes",
        "{patients} * 2",
        """n, n * 3, n % 3000 + 1, moment(n, 43),
        (SELECT string_agg(md5((n::bigint * 20 + i)::text), ' ') FROM generate_series(1, 12 + n % 16) i)""",
    ),
    (
        "audit",
        "{patients} * 7",
        """n, timestamptz '2020-01-01' + n * interval '1 second', 'user ' || n % 3000,
        'looked at patient ' || n % {patients}""",
    ),
)
KEYS = """
CREATE INDEX ON patients (name); CREATE INDEX ON patients (born);
CREATE INDEX ON appointments (patient); CREATE INDEX ON appointments (doctor, at);
CREATE INDEX ON lab_results (patient); CREATE INDEX ON lab_results (code, at);
CREATE INDEX ON notes (appointment); CREATE INDEX ON audit (at);
ALTER TABLE appointments ADD FOREIGN KEY (patient) REFERENCES patients, ADD FOREIGN KEY (doctor) REFERENCES staff;
ALTER TABLE lab_results ADD FOREIGN KEY (patient) REFERENCES patients;
ALTER TABLE notes ADD FOREIGN KEY (appointment) REFERENCES appointments, ADD FOREIGN KEY (author) REFERENCES staff;
"""


def fill(instance: Instance, dbname: str, patients: int) -> None:
    """A database with 30 rows for each patient."""
    instance.sql(f"CREATE DATABASE {dbname}")
    instance.sql(TABLES, dbname=dbname)
    instance.sql(MOMENT, dbname=dbname)
    for table, count, columns in ROWS:
        chosen = f"SELECT {columns} FROM generate_series(1, {count}) n".replace("{patients}", str(patients))
        instance.sql(f"INSERT INTO {table} {chosen}", dbname=dbname)
    instance.sql(KEYS, dbname=dbname)
    instance.sql("VACUUM ANALYZE", dbname=dbname)
    instance.sql("CHECKPOINT")
