# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib

from ansible_collections.hms.postgres.plugins.module_utils._tools.pgbouncer_process import describe, read_ini


def test_an_included_file_goes_on_in_the_section(tmp_path: pathlib.Path) -> None:
    common, databases, own = (tmp_path / name for name in ("common.ini", "databases.ini", "1.ini"))
    common.write_text(";; no head\npool_mode = transaction\nauth_query = SELECT a, b FROM f($1) WHERE c = d\n")
    databases.write_text("[databases]\nhospital = host=10.0.0.1 port=5432\n")
    own.write_text(
        f"[pgbouncer]\n# a comment\npidfile = /run/1/pid\nadmin_users =\n%include {common}\n%include {databases}\n"
        "[peers]\n1 = host=/run/1\n"
    )
    assert read_ini(str(own)) == {
        "pidfile": "/run/1/pid",
        "admin_users": "",
        "pool_mode": "transaction",
        "auth_query": "SELECT a, b FROM f($1) WHERE c = d",
    }


def test_another_program_with_that_pid_is_not_ours() -> None:
    assert describe(os.getpid(), "/etc/pgbouncer.ini") is None
    assert describe(2**22 + 1, "/etc/pgbouncer.ini") is None
