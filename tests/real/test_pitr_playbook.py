# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""playbooks/pitr.yml against a primary of this machine: search, recover, rescue, remove."""

from __future__ import annotations

import json
import pathlib
import sys
import typing as t

import pytest

from ansible_collections.hms.postgres.tests.real import playbooks
from ansible_collections.hms.postgres.tests.real.lab import Lab
from ansible_collections.hms.postgres.tests.real.pgbackrest_site import STANZA, Site, begin, make_site
from ansible_collections.hms.postgres.tests.real.pitr_site import History, Moment, Recovery

# Ansible is started many times
pytestmark = pytest.mark.timeout(600)


class Host:
    """One database host in an inventory, with the backup.json of the role."""

    def __init__(self, site: Site, folder: pathlib.Path) -> None:
        self.site = site
        self.history = History(site)
        self.recovery = Recovery(site, site.instance.folder / "data.pitr")
        self.inventory = folder / "hosts.json"
        config = {
            "cluster": "hospital",
            "environment": "production",
            "database": "postgres",
            "login_host": str(site.instance.sockets),
            "login_port": site.instance.port,
            "state_dir": str(site.folder),
            "pgbackrest": {"config": str(site.config), "stanza": STANZA},
            "schedule": {"physical": {"type": "full", "engine": "pgbackrest", "cron": "0 2 * * *"}},
        }
        (folder / "backup.json").write_text(json.dumps(config))
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "hms_cluster": "hospital",
            "hms_environment": "production",
            "hms_config_dir": str(folder),
            "hms_records_dir": str(folder / "kept"),
        }
        hosts = {"all": {"vars": variables, "children": {"database": {"hosts": {"db1": {}}}}}}
        self.inventory.write_text(json.dumps(hosts))

    def play(self, *options: str, rc: int = 0, **variables: t.Any) -> str:
        """Run the playbook; what it printed, as one line."""
        given = ("-e", json.dumps(variables), *options)
        return " ".join(playbooks.play(self.inventory, "playbooks/pitr.yml", *given, rc=rc).split())


@pytest.fixture(scope="module")
def host(module_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Host]:
    """A primary with a backup and a table."""
    site = make_site(module_lab)
    begin(site)
    site.instance.sql("CREATE TABLE patient AS SELECT g AS id FROM generate_series(1, 100) g")
    site.instance.sql("ALTER TABLE patient ADD PRIMARY KEY (id)")
    site.backup(verify="none")
    made = Host(site, tmp_path_factory.mktemp("pitr"))
    yield made
    made.recovery.close()


@pytest.fixture(scope="module")
def bad(host: Host) -> Moment:
    """The transaction that did the harm."""
    return host.history.do("DELETE FROM patient WHERE id > 10")


def test_nothing_asked_and_too_much_asked_is_refused(host: Host) -> None:
    assert "Give one of target_time" in host.play(rc=2)
    assert "Give one of target_time" in host.play(rc=2, target_lsn="0/1", target_xid="5")
    assert "Give one of target_time" in host.play(rc=2, state="absent", tables="patient")


def test_from_the_search_to_the_rows(host: Host, bad: Moment) -> None:
    live, directory = host.site.instance, host.recovery.directory
    printed = host.play(before_transaction_on="patient", since=bad.before)
    assert f"1: transaction {bad.xid}," in printed
    assert "90 deleted" in printed
    assert "Run again with -e choose=1" in printed
    assert not directory.exists()
    asked: dict[str, t.Any] = {"before_transaction_on": "patient", "since": bad.before, "choose": 1}
    assert "Give -e confirm=hospital" in host.play(rc=2, **asked)
    assert not directory.exists()
    printed = host.play(**asked, confirm="hospital", tables="patient", mode="missing_rows")
    assert "rows: 100" in printed, "counted in the side cluster"
    assert "rows: 90" in printed, "put back"
    assert live.sql("SELECT count(*) FROM patient") == "100"
    assert directory.exists()


def test_by_time_in_check_mode_and_by_transaction(host: Host, bad: Moment) -> None:
    printed = host.play("--check", "--diff", target_time=bad.after, confirm="hospital")
    assert "restore" in printed or "advance" in printed
    printed = host.play(target_xid=bad.xid, confirm="hospital")
    assert "paused" in printed
    pages = list((host.inventory.parent / "kept").glob("*-pitr-*.html"))
    assert any(
        f"The side cluster is paused at just before transaction {bad.xid}." in page.read_text() for page in pages
    )
    assert all(page.with_suffix(".json").exists() for page in pages)
    assert "says no time zone" in host.play(rc=2, target_time=bad.after[:-3], confirm="hospital")


def test_it_is_removed(host: Host) -> None:
    assert "changed=1" in host.play(state="absent")
    assert not host.recovery.directory.exists()
    assert "changed=0" in host.play(state="absent")
