# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restores that are killed at each of their steps, and one whose disk fills up while it loads.

After each: the live database is the very one that was there, what is left doesn't count as proven, and the next run
finishes.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.tests.real import backup_site, restore_site
from ansible_collections.hms.postgres.tests.real.backup_site import odd_database
from ansible_collections.hms.postgres.tests.real.held import ServerGate
from ansible_collections.hms.postgres.tests.real.lab import Instance, Lab, run, until
from ansible_collections.hms.postgres.tests.real.restore_site import RestoreSite

STEPS = ["create", "load", "analyze", "validate", "mask", "assertions", "properties"]


def gate(server: Instance, name: str) -> ServerGate:
    """What a step waits at."""
    return ServerGate(server.folder / f"{name}.gate")


@pytest.fixture(scope="module")
def server(module_lab: Lab) -> Instance:
    """The odd database."""
    instance = module_lab.primary(shared_buffers="64MB")
    odd_database(instance)
    return instance


def live(server: Instance) -> str:
    """The live database with everything that a restore could change of it."""
    oid = server.sql("SELECT oid FROM pg_database WHERE datname = 'hospital'")
    return oid + restore_site.properties(server, "hospital") + backup_site.dump_text(server, "hospital")


def begun(site: RestoreSite) -> set[str]:
    """The steps that the journals on disk tell of."""
    found = set()
    for path in site.state.glob("records/*-restore-*.jsonl"):
        for line in path.read_text().splitlines(keepends=True):
            step = json.loads(line).get("step") if line.endswith("\n") else None
            found |= {step["id"]} if step else set()
    return found


def forget(site: RestoreSite) -> None:
    """Take away the journals of earlier tests."""
    for path in site.state.glob("records/*"):
        path.unlink()


@pytest.fixture(scope="module")
def site(server: Instance, tmp_path_factory: pytest.TempPathFactory) -> RestoreSite:
    """One backup for all."""
    made = RestoreSite(server, tmp_path_factory.mktemp("site"))
    made.backup()
    (made.folder / "mask.sql").write_text(f"{gate(server, 'mask').query};\n")
    return made


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_each_step_and_run_again(site: RestoreSite, server: Instance, step: str) -> None:
    forget(site)
    before = live(server)
    wishes: dict[str, t.Any] = {
        "mask": [str(site.folder / "mask.sql")],
        "assertions": [{"name": "slow", "sql": gate(server, "assertions").query, "expect": ""}],
    }
    # it gets no further than this; the last step is one that it may come to the end of
    held: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if step != STEPS[-1]:
        held = gate(server, "assertions" if step == "assertions" else "mask").closed()
    with held:
        process = site.start_restore(**wishes)
        until(lambda: step in begun(site) or process.poll() is not None, f"it comes to {step}", seconds=60)
        restore_site.kill(process)
    assert begun(site) >= {step}, site.module_output()
    for name in restore_site.scratches(server) if step != STEPS[-1] else ():
        assert "hms.postgres restored" not in restore_site.comment(server, name), "that is written last"
    assert live(server) == before
    # one of them makes the database, from another one, and holds its name
    busy = (
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        " AND (datname LIKE 'hms_restore%' OR application_name LIKE 'hms.postgres%')"
    )
    until(lambda: server.sql(busy) == "0", "the killed run's sessions are gone", seconds=60)
    done = site.restore(**wishes)
    assert done.values["ready"]
    assert restore_site.scratches(server) == [done.values["scratch"]]
    assert backup_site.dump_text(server, done.values["scratch"]) == backup_site.dump_text(server, "hospital")
    assert live(server) == before
    backup_site.drop(server, done.values["scratch"])


def test_a_disk_that_fills_up_while_it_loads(lab: Lab, tmp_path: pathlib.Path) -> None:
    """There is room for one copy where the database lies, and no room for two."""
    server = lab.primary()
    small = server.folder / "small"
    small.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=36m,mode=0777", "tmpfs", str(small))
    try:
        space = small / "space"
        space.mkdir()
        run("chown", "postgres:", str(space))
        server.sql(f"CREATE TABLESPACE small LOCATION '{space}'")
        server.sql("CREATE DATABASE hospital TABLESPACE small")
        backup_site.big_table(server, "hospital", megabytes=12)
        made = RestoreSite(server, tmp_path / "site")
        made.backup()
        count = "SELECT count(*) FROM notes"
        before = server.sql(count, dbname="hospital")
        error = made.refused(force=["no_room"])
        assert "No space left on device" in error.message + json.dumps(error.details)
        assert error.state == "The live database was not touched."
        assert restore_site.scratches(server) == [], "the server can drop it, although that takes a checkpoint"
        server.sql("CHECKPOINT")
        assert server.sql(count, dbname="hospital") == before
        run("mount", "-o", "remount,size=120m", str(small))
        done = made.restore()
        assert done.changed
        assert server.sql(count, dbname=t.cast(str, done.values["scratch"])) == before
    finally:
        server.stop()
        run("umount", "-l", str(small))
