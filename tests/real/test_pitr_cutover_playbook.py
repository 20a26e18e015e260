# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/pitr_cutover.yml from the plan to the full backup, by ansible-playbook."""

from __future__ import annotations

import json
import sys
import typing as t

import pytest

from ansible_collections.hms.postgres.tests.real import playbooks
from ansible_collections.hms.postgres.tests.real.cutover_site import CutoverSite
from ansible_collections.hms.postgres.tests.real.lab import Lab, until
from ansible_collections.hms.postgres.tests.real.pgbackrest_site import STANZA

# Ansible is started many times
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def site(lab: Lab) -> t.Iterator[CutoverSite]:
    """Two database hosts and a bouncer host, with what the roles write for backups."""
    made = CutoverSite(lab)
    try:
        for database in made.databases.values():
            config = {
                "cluster": "hospital",
                "environment": "staging",
                "database": "hospital",
                "login_host": str(database.instance.sockets),
                "login_port": database.port,
                "state_dir": str(database.state),
                "pgbackrest": {"config": str(made.archive.config), "stanza": STANZA},
                "schedule": {"physical": {"type": "full", "engine": "pgbackrest", "cron": "0 2 * * *"}},
            }
            (database.config / "backup.json").write_text(json.dumps(config))
        yield made
    finally:
        made.close()


def play(site: CutoverSite, *options: str, rc: int = 0, **variables: t.Any) -> str:
    """Run the playbook; what it printed, as one line."""
    common = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "hms_cluster": "hospital",
        "hms_environment": "staging",
        "hms_records_dir": str(site.records),
    }
    groups = {
        group: {"hosts": {name: {"hms_config_dir": str(host.config)} for name, host in hosts.items()}}
        for group, hosts in (("database", site.databases), ("bouncer", site.bouncers))
    }
    inventory = site.folder / "hosts.json"
    inventory.write_text(json.dumps({"all": {"vars": common, "children": groups}}))
    given = ("-e", json.dumps(variables), *options)
    return " ".join(playbooks.play(inventory, "playbooks/pitr_cutover.yml", *given, rc=rc, seconds=300).split())


def changes(printed: str) -> int:
    """How many tasks changed something."""
    recap = printed[printed.index("PLAY RECAP") :].split()
    return sum(int(word.partition("=")[2]) for word in recap if word.startswith("changed="))


def test_from_the_plan_to_the_full_backup(site: CutoverSite) -> None:
    db1, db2 = site.databases["db1"], site.databases["db2"]
    for options in (("--check",), ()):
        assert "There is no side cluster at" in play(site, *options, rc=2)
    site.recover(time=site.harm().before)
    before = site.fingerprint()
    printed = play(site, "--check", "--diff")
    assert "hospital becomes what it was at" in printed
    assert "bytes of WAL were written after the target" in printed
    assert site.fingerprint() == before
    printed = play(site, confirm="hospital")
    assert "Timeline 2 left timeline 1 at 0/" in printed
    assert not site.has_harm()
    assert site.timeline() == 2
    until(lambda: db2.streams_from(db1), "db2 streams")
    assert not (db2.state / "fence.json").exists()
    newest = site.archive.info()[-1]
    assert (newest["type"], newest["archive"]["start"][:8]) == ("full", "00000002")
    backups = len(site.archive.info())
    printed = play(site, confirm="hospital")
    assert changes(printed) == 0
    assert len(site.archive.info()) == backups
