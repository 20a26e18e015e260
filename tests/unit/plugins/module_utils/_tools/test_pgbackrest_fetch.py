# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib

import jinja2
import pytest
import yaml

from ansible_collections.hms.postgres.plugins.module_utils._tools import pgbackrest
from ansible_collections.hms.postgres.plugins.module_utils._tools.pgbackrest import PgBackRest
from ansible_collections.hms.postgres.plugins.module_utils._tools.pgbackrest_fetch import for_recovery, for_standby
from ansible_collections.hms.postgres.tests.unit.plugins.scripted_runner import ScriptedRunner

DEFAULTS = pathlib.Path(__file__).parents[5] / "roles" / "postgresql" / "defaults" / "main.yml"


def test_a_recovering_server_is_never_left_with_what_did_not_come_ahead_of_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pgbackrest, "find_program", lambda name, **_options: f"/usr/bin/{name}")
    tool = PgBackRest(ScriptedRunner(), config="/etc/br.conf", stanza="hospital")
    told = for_recovery(tool, data="/si de/100%", spool_path="/spool", lock_path="/lock")
    ahead, single = told.split(" || ")
    assert ahead.startswith("/usr/bin/pgbackrest --config=/etc/br.conf --stanza=hospital --repo=1")
    assert ahead.endswith(
        "archive-get '--pg1-path=/si de/100%%' --archive-async --archive-timeout=5 --spool-path=/spool "
        '--lock-path=/lock %f "%p"'
    )
    assert single.endswith("archive-get '--pg1-path=/si de/100%%' --no-archive-async --lock-path=/lock %f \"%p\"")


def test_a_standby_s_command_has_an_end_and_needs_no_quotes_of_its_own() -> None:
    assert for_standby("/etc/br.conf", "hospital") == (
        "timeout --foreground 10 pgbackrest --config=/etc/br.conf --stanza=hospital --no-archive-async "
        'archive-get %f "%p"'
    )
    assert "'--config=/a b/100%%'" in for_standby("/a b/100%", "hospital")


def test_the_role_sets_the_same() -> None:
    template = yaml.safe_load(DEFAULTS.read_text(encoding="utf-8"))["postgresql_restore_command"]
    world = jinja2.Environment(autoescape=True)
    world.filters["bool"] = bool
    render = world.from_string("{% autoescape false %}" + template + "{% endautoescape %}").render
    known = {"hms_config_dir": "/etc/x", "hms_cluster": "hospital"}
    assert render(**known, backup_pgbackrest=True) == for_standby("/etc/x/pgbackrest.conf", "hospital")
    named = render(**known, replication_restore_from_archive=True, backup_pgbackrest_stanza="other")
    assert named == for_standby("/etc/x/pgbackrest.conf", "other")
    assert render(**known) == ""
    assert render(**known, backup_pgbackrest=True, replication_restore_from_archive=False) == ""
