# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The databases file as a real PgBouncer reads it: odd names and values arrive as they were meant."""

from __future__ import annotations

from ansible_collections.hms.postgres.plugins.module_utils._cluster.databases_file import Member, render
from ansible_collections.hms.postgres.tests.real.conftest import PoolerFactory

NAMES = ["hospital", "Hospital", "a.b", "a-b", "9x"]
VALUES = ["a b", "it's", "semi;colon", "ha#sh", "eq=ual", "größe", "per%cent", 'quo"te', "back\\slash"]


def test_names_and_values_arrive_as_they_were_meant(pgbouncer_factory: PoolerFactory) -> None:
    databases = [{"name": name, "dbname": name, "options": {"pool_size": 7}} for name in NAMES]
    databases += [{"name": f"value{number}", "dbname": value} for number, value in enumerate(VALUES)]
    members = [Member("db1", "127.0.0.1", 5432), Member("DB-2", "127.0.0.2", 5433)]
    content = render(cluster="hospital", operation="site", primary="DB-2", databases=databases, members=members)
    pooler = pgbouncer_factory({"placeholder": f"host=127.0.0.9\n{content}[pgbouncer]"})
    rows = [line.split("|") for line in pooler.console("SHOW DATABASES").splitlines()]
    found = {row[0]: (row[1], row[2], row[3], row[5]) for row in rows}
    for name in NAMES:
        assert found[name] == ("127.0.0.2", "5433", name, "7")
    for number, value in enumerate(VALUES):
        assert found[f"value{number}"][:3] == ("127.0.0.2", "5433", value)
    assert found["hms_path_db1"][:2] == ("127.0.0.1", "5432")
    assert found["hms_path_db_2"] == ("127.0.0.2", "5433", "hospital", "1")
