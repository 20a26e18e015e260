# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a scratch database lacks of what bouncers need, and how it gets it."""

from __future__ import annotations

import dataclasses

from ansible_collections.hms.postgres.plugins.module_utils._cluster.swap_support import Support, missing, statements

LIVE = Support(
    schema=True,
    table=True,
    function="CREATE OR REPLACE FUNCTION hms.pgbouncer_auth(p_user text) …",
    grants=frozenset(
        {
            ("SCHEMA", "hms", "hms_monitor", "USAGE"),
            ("TABLE", "hms.write_probe", "hms_monitor", "INSERT"),
            ("FUNCTION", "hms.pgbouncer_auth(text)", "we ird", "EXECUTE"),
        }
    ),
)


def test_nothing_is_missing_where_all_is_there() -> None:
    assert missing(LIVE, LIVE) == ()
    assert statements(LIVE, LIVE) == []
    assert missing(Support(), Support()) == (), "a database that isn't managed needs nothing"


def test_all_is_made_as_the_live_database_has_it() -> None:
    work = statements(LIVE, Support())
    assert work[0] == "CREATE SCHEMA hms"
    assert work[1].startswith("CREATE TABLE IF NOT EXISTS hms.write_probe (")
    assert work[2] == LIVE.function
    assert work[3] == "REVOKE ALL ON FUNCTION hms.pgbouncer_auth(text) FROM PUBLIC"
    assert 'GRANT EXECUTE ON FUNCTION hms.pgbouncer_auth(text) TO "we ird"' in work
    assert 'GRANT INSERT ON TABLE hms.write_probe TO "hms_monitor"' in work
    assert len(missing(LIVE, Support())) == 5


def test_a_function_that_everybody_may_call_stays_so() -> None:
    everybody = {*LIVE.grants, ("FUNCTION", "hms.pgbouncer_auth(text)", "PUBLIC", "EXECUTE")}
    live = dataclasses.replace(LIVE, grants=frozenset(everybody))
    assert not [statement for statement in statements(live, Support()) if statement.startswith("REVOKE")]


def test_rights_alone_can_be_missing() -> None:
    scratch = dataclasses.replace(LIVE, grants=frozenset(LIVE.grants - {("SCHEMA", "hms", "hms_monitor", "USAGE")}))
    assert missing(LIVE, scratch) == ("USAGE on hms for hms_monitor",)
    assert statements(LIVE, scratch) == ['GRANT USAGE ON SCHEMA hms TO "hms_monitor"']
