# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The drill of the schedule as cron runs it: the on-host runner with Debian's own Python, and whoever is told."""

from __future__ import annotations

import json
import pathlib
import subprocess
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.plugin_utils import _bundle
from ansible_collections.hms.postgres.tests.real.drill_site import DrillSite, two_databases
from ansible_collections.hms.postgres.tests.real.lab import Instance, Lab
from ansible_collections.hms.postgres.tests.real.notify_servers import WebServer, serving

# Ansible is started many times
pytestmark = pytest.mark.timeout(600)
PYTHON = "/usr/bin/python3"


@pytest.fixture(scope="module")
def server(module_lab: Lab) -> Instance:
    """A server with a small database."""
    instance = two_databases(module_lab)
    instance.sql("CREATE TABLE beds AS SELECT generate_series(1, 500) AS id", dbname="hospital")
    return instance


@pytest.fixture
def site(server: Instance, tmp_path: pathlib.Path) -> t.Iterator[DrillSite]:
    """A host with its policy; no throwaway instance is left on it."""
    made = DrillSite(server, tmp_path / "site")
    yield made
    assert not made.place.exists()


def configure(site: DrillSite, hook: WebServer, drill: t.Mapping[str, t.Any]) -> None:
    """backup.json, as the role writes it on the host that drills."""
    known = ("cluster", "environment", "login_host", "login_port", "state_dir", "store")
    policy = {
        **{name: site.order()[name] for name in known},
        "database": "hospital",
        "encryption": site.order()["encryption"],
        "schedule": {"daily": {"type": "full", "cron": "0 2 * * *", "restored_within": "8d"}},
        "notify": {"webhook": {"url": f"http://127.0.0.1:{hook.server_address[1]}/told"}},
        "metrics": {"path": f"{site.folder}/backup.prom"},
        "drill": {"host": "db1", "cron": "30 4 * * 0", "directory": str(site.place), **drill},
    }
    (site.folder / "backup.json").write_text(json.dumps(policy))


def run(site: DrillSite, command: str = "restore-drill") -> tuple[int, str]:
    """What cron would start: exit code, and what goes to the journal."""
    program = site.folder / "hms-postgres.pyz"
    if not program.exists():
        program.write_bytes(_bundle.build())
    done = subprocess.run(
        [PYTHON, str(program), command, "--config", str(site.folder)],
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.stdout == ""
    assert "Traceback" not in done.stderr, done.stderr
    assert all(line.startswith(f"hms-postgres {command}: ") for line in done.stderr.splitlines()), done.stderr
    return done.returncode, done.stderr


def test_everybody_is_told_and_the_policy_is_satisfied(site: DrillSite) -> None:
    """Before it the check of the host fails, after it the check holds, and the metrics know when it was."""
    made = site.backup(encryption=site.order()["encryption"], environment="testing").values["backup"]
    hook = WebServer()
    with serving(hook):
        configure(site, hook, {"settings": {"fsync": False}})
        code, said = run(site, "backup-check")
        assert (code, "was ever restored by a drill" in said) == (1, True)
        code, said = run(site)
        assert code == 0, said
        assert f"{made['id']} of hospital (pg_dump) came back in" in said
        assert hook.json["text"].startswith("restore drill of hospital (testing) succeeded on ")
        assert made["id"] in json.dumps(hook.json)
        assert run(site, "backup-check")[0] == 0
    assert [one["ok"] for one in site.noted(made["id"])] == [True]
    assert "hms_backup_last_restored_timestamp_seconds{" in (site.folder / "backup.prom").read_text()
    (record,) = site.state.glob("records/*-drill-*.json")
    assert json.loads(record.read_text())["asked"]["by"] == "the schedule's restore drill"


def test_a_failure_is_said_aloud(site: DrillSite) -> None:
    """A damaged backup: exit code, journal, webhook; and a policy that nobody understands is told apart."""
    made = site.backup(encryption=site.order()["encryption"], environment="testing").values["backup"]
    path = site.data_file(made["id"])
    path.write_bytes(path.read_bytes()[:-5] + b"xxxxx")
    hook = WebServer()
    with serving(hook):
        configure(site, hook, {"settings": {"fsync": False}})
        code, said = run(site)
        assert (code, "FAILED." in said, made["id"] in said) == (1, True, True)
        assert hook.json["text"].startswith("restore drill of hospital (testing) FAILED on ")
        assert "did not come back" in json.dumps(hook.json)
        configure(site, hook, {"engines": ["tar"]})
        code, said = run(site)
        assert (code, "engines can be pg_dump and pgbackrest, not tar" in said) == (2, True)


def test_other_operations_may_demand_it(site: DrillSite) -> None:
    """Refused with the reason and before anything is touched; after the drill they go on."""
    made = site.backup(database="second", environment="testing").values["backup"]
    site.write_policy()
    wanted: dict[str, t.Any] = {"require_proven_within": "7d"}
    for playbook in ("switchover", "restore"):
        printed = site.play(playbook, rc=2, **wanted)
        assert "No backup of second that is there was ever restored by a drill." in printed
        assert "require_proven_within=7d was asked for, so nothing was touched." in printed
        assert "TASK [Switch over]" not in printed
        assert "PLAY [Restore and prove]" not in printed
    assert "proven_within is 'soon'" in site.play("restore_cleanup", rc=2, require_proven_within="soon")
    site.drill(databases=["second"])
    printed = site.play("restore_cleanup", **wanted)
    assert "Nothing was put aside." in printed
    printed = site.play("restore_cleanup", rc=2, require_proven_within="1s")
    assert f"ago, of {made['id']}; one within 0 min is demanded." in printed


def test_a_restore_leaves_its_report_on_the_controller(site: DrillSite, server: Instance) -> None:
    """One that works and one that is refused, by the playbook; the pages are beside the records."""
    server.sql("CREATE DATABASE third")
    made = site.backup(database="third", environment="testing").values["backup"]
    site.write_policy()
    printed = site.play("restore", database="third", swap=False)
    assert "is proven and waits for the swap" in printed
    (page,) = (site.folder / "kept").glob("*-restore-*.html")
    assert "is proven and waits for the swap." in page.read_text()
    assert made["id"] in page.read_text()
    site.play("restore", rc=2, database="third", backup="20260101T000000Z-backup-0000")
    pages = [one.read_text() for one in (site.folder / "kept").glob("*-restore-*.html") if one != page]
    assert len(pages) == 1
    assert "There is no backup 20260101T000000Z-backup-0000" in pages[0]
