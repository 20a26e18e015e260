# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo as a whole, with names and ports of its own: killed in the middle, run again, removed.

pg_lsclusters, /proc and psql are the oracles.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import typing as t

import pytest

from ansible_collections.hms.postgres.tests.real.lab import listed_instances

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = pathlib.Path("/var/lib/hms-postgres-demo-test")
PORTS = {"25432": "23432", "25433": "23433", "26432": "23434"}
INSTANCES = ("hmstdemo1", "hmstdemo2")

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("pg_lsclusters") or not shutil.which("pgbouncer"),
        reason="needs root, PostgreSQL and PgBouncer",
    ),
]


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[pathlib.Path]:
    """The demo's inventory with other names and ports; what the demo made is removed at the end."""
    copy = tmp_path_factory.mktemp("inventory") / "demo"
    shutil.copytree(ROOT / "inventories" / "demo", copy)
    for path in copy.rglob("*.yml"):
        text = path.read_text().replace("hmsdemo", "hmstdemo").replace("hms-demo-pgbouncer", "hms-tdemo-pgbouncer")
        text = text.replace("/var/lib/hms-postgres-demo", str(FOLDER))
        for port, other in PORTS.items():
            text = text.replace(port, other)
        path.write_text(text)
    assert f"hms_demo_dir: {FOLDER}\n" in (copy / "group_vars" / "all.yml").read_text()
    if left_over():  # by a run that was killed
        play(copy, "demo_clean.yml")
    try:
        yield copy
    finally:
        play(copy, "demo_clean.yml")


def start(inventory: pathlib.Path, playbook: str, *more: str) -> subprocess.Popen[str]:
    """A playbook, in a process group of its own."""
    program = pathlib.Path(sys.executable).with_name("ansible-playbook")
    argv = [str(program), "-i", str(inventory), f"playbooks/{playbook}", *more]
    return subprocess.Popen(
        argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def play(inventory: pathlib.Path, playbook: str, *more: str) -> tuple[int, str]:
    """A playbook run to its end: exit code and output."""
    with start(inventory, playbook, *more) as running:
        output, _none = running.communicate(timeout=600)
    return running.returncode, output


def left_over() -> list[str]:
    """What of the demo is on this machine."""
    found = [" ".join(line) for line in listed_instances() if line[1] in INSTANCES]
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        found += [" ".join(words)] if f"{FOLDER}/" in " ".join(words) else []
    return found + ([str(FOLDER)] if FOLDER.exists() else [])


def test_nothing_is_removed_where_nothing_is(inventory: pathlib.Path) -> None:
    code, output = play(inventory, "demo_clean.yml")
    assert code == 0, output
    assert "nothing was there" in output
    assert "changed=0" in output


@pytest.mark.parametrize("playbook", ["demo.yml", "demo_clean.yml"])
def test_another_environment_is_refused(inventory: pathlib.Path, playbook: str) -> None:
    code, output = play(inventory, playbook, "-e", "hms_environment=staging")
    assert code == 2
    assert "Nothing was touched" in output
    assert left_over() == []


def test_killed_during_the_failover_and_run_again(inventory: pathlib.Path) -> None:
    with start(inventory, "demo.yml") as first:
        assert first.stdout
        said = []
        for line in first.stdout:
            said.append(line)
            if line.startswith("TASK [Fail over]"):
                time.sleep(0.8)
                os.killpg(first.pid, signal.SIGKILL)
                break
        else:
            pytest.fail("".join(said))

    started = time.time()
    code, output = play(inventory, "demo.yml")
    assert code == 0, output
    assert "the last demo did not come to a good end" in output
    assert "acknowledged, then LOST                             0                     0" in output

    records = [json.loads(path.read_text()) for path in sorted((FOLDER / "records").glob("*.json"))]
    assert [record["operation"] for record in records] == ["failover", "rejoin", "switchover"]
    for record in (records[0], records[2]):
        assert record["outcome"]["status"] == "done"
        assert record["clients"]["source"].startswith("acknowledgement ledgers of 6 writers")
        assert record["clients"]["lost"] == 0
        assert "probe" in record
        assert 0 < len(record["clients"]["samples"]) <= 2500
        page = (FOLDER / "records" / f"{record['id']}.html").read_text()
        assert "acknowledgement ledgers of 6 writers" in page
    assert records[2]["clients"]["failed"] == 0
    assert records[0]["clients"]["stall"]["started"] < 0 < time.time() - started


def test_the_ledgers_agree_with_what_psql_counts(inventory: pathlib.Path) -> None:
    """The oracle: rows in the table, from both members, against acknowledged lines in the files."""
    assert inventory.exists()
    acked, unknown = 0, 0
    for path in (FOLDER / "writers").glob("writer-*.jsonl"):
        outcomes = [json.loads(line)[4] for line in path.read_text().splitlines()]
        acked += outcomes.count("acked")
        unknown += outcomes.count("unknown")
    for port in ("23432", "23433"):
        argv = ["runuser", "-u", "postgres", "--", "psql", "-XAtq", "-p", port, "-d", "hospital"]
        query = "SELECT count(*) FROM ledger_entry"
        counted = subprocess.run([*argv, "-c", query], capture_output=True, text=True, check=True, cwd="/").stdout
        assert acked <= int(counted) <= acked + unknown


def test_a_whole_site_is_used_again(inventory: pathlib.Path) -> None:
    code, output = play(inventory, "demo.yml")
    assert code == 0, output
    assert "A whole site stands" in output


def test_everything_is_removed(inventory: pathlib.Path) -> None:
    code, output = play(inventory, "demo_clean.yml")
    assert code == 0, output
    assert left_over() == []
