# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""playbooks/restore.yml against a primary of this machine: what the person on call reads, and what is told last.

The swap itself needs every host of the site: tests/real/test_database_swap.py and the lab's scenario restore.
"""

from __future__ import annotations

import json
import pathlib
import sys
import typing as t

import pytest

from ansible_collections.hms.postgres.tests.real import backup_site, playbooks, restore_site
from ansible_collections.hms.postgres.tests.real.lab import Instance, Lab
from ansible_collections.hms.postgres.tests.real.restore_site import RestoreSite

# Ansible is started many times
pytestmark = pytest.mark.timeout(600)

SERVICES = [{"host": "app1", "unit": "hms-web.service"}]


class Host:
    """One database host in an inventory, with the backup.json of the role."""

    def __init__(self, site: RestoreSite, folder: pathlib.Path) -> None:
        self.site = site
        self.inventory = folder / "hosts.json"
        names = ("cluster", "database", "login_host", "login_port", "state_dir", "store")
        order = site.order()
        config = {"environment": "testing", "schedule": {}, **{name: order[name] for name in names}}
        (folder / "backup.json").write_text(json.dumps(config))
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "hms_cluster": "hospital",
            "hms_environment": "testing",
            "hms_config_dir": str(folder),
            "hms_state_dir": str(folder),
            "hms_records_dir": str(folder / "kept"),
            "postgresql_database": "hospital",
        }
        children = {"database": {"hosts": {"db1": {}}}, "bouncer": {"hosts": {}}}
        self.inventory.write_text(json.dumps({"all": {"vars": variables, "children": children}}))

    def play(self, *options: str, playbook: str = "restore", rc: int = 0, **variables: t.Any) -> str:
        """Run a playbook; what it printed, as one line."""
        given = ("-e", json.dumps(variables), *options)
        return " ".join(playbooks.play(self.inventory, f"playbooks/{playbook}.yml", *given, rc=rc).split())


@pytest.fixture(scope="module")
def server(module_lab: Lab) -> Instance:
    """A server with a small database."""
    instance = module_lab.primary()
    instance.sql("CREATE DATABASE hospital")
    instance.sql("CREATE TABLE patient AS SELECT generate_series(1, 500) AS id", dbname="hospital")
    return instance


@pytest.fixture(scope="module")
def host(server: Instance, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """A host with one backup."""
    folder = tmp_path_factory.mktemp("restore")
    site = RestoreSite(server, folder / "site")
    site.backup()
    return Host(site, folder)


def last(printed: str) -> str:
    """What stands between the last task's heading and the recap."""
    return printed.partition("PLAY RECAP")[0].rpartition("TASK [")[2]


def test_a_service_s_host_that_nobody_knows_is_refused_first(host: Host) -> None:
    printed = host.play(rc=2, restore_services=SERVICES)
    assert "restore_services names app1, which this inventory doesn't have. Nothing was touched." in printed
    assert "Restore and prove" not in printed
    assert host.site.records() == set()


@pytest.mark.parametrize(
    ("playbook", "asked", "words"),
    [
        ("restore", {"backup": "/nowhere/old.dump"}, "/nowhere/old.dump can't be read: No such file or directory"),
        ("restore", {"strategy": "foo"}, "strategy"),
        ("restore_cleanup", {"names": "postgres"}, "postgres"),
        ("restore_drill", {"engines": "foo"}, "engines"),
    ],
)
def test_what_stood_in_the_way_is_told_last(host: Host, playbook: str, asked: dict[str, t.Any], words: str) -> None:
    printed = host.play(playbook=playbook, rc=2, **asked)
    assert words in last(printed)
    assert last(printed).startswith("Say last what stood in the way")


def test_check_mode_tells_of_the_swap_too(host: Host, server: Instance) -> None:
    before = host.site.records()
    printed = host.play("--check")
    assert "pg_restore with 1 job(s)" in printed
    told = last(printed)
    assert "Nothing was touched. After the restore hms_restore_" in told
    assert "would become hospital, and what is live now is kept as hospital_before_" in told
    assert "would become" not in last(host.play("--check", swap=False))
    assert restore_site.scratches(server) == []
    assert host.site.records() == before


def test_a_second_run_plans_only_what_is_left(host: Host, server: Instance) -> None:
    try:
        assert "is proven and waits for the swap" in last(host.play(swap=False))
        (scratch,) = restore_site.scratches(server)
        printed = host.play(swap=False)
        assert "changed=0" in printed.partition("PLAY RECAP")[2]
        assert f"give {scratch}, proven before, owner, settings, rights and limits of the live database" in printed
        assert "pg_restore" not in printed
    finally:
        backup_site.drop(server, *restore_site.scratches(server))
