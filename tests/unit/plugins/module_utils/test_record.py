# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The record is written as it goes: a kill at any byte leaves what was true so far."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._record import (
    Journal,
    fold,
    is_id,
    list_records,
    load_record,
    new_id,
    read_events,
    start_event,
)
from ansible_collections.hms.postgres.tests.unit.plugins.engine_facts import ScriptedClock

ID = "20261122T154500Z-failover-3fa9"


def step(name: str, result: str, host: str = "db1", **more: t.Any) -> dict[str, t.Any]:
    return {"step": {"id": name, "host": host, "result": result, **more}}


def test_events_fold_into_one_document() -> None:
    document = fold(
        [
            {"set": {"operation": "failover", "plan": 1}},
            step("fence", "running"),
            step("hold", "ok"),
            step("fence", "ok", ended=2.0),
            {"set": {"plan": 2}},
            {},
        ]
    )
    assert document == {
        "schema": 1,
        "operation": "failover",
        "plan": 2,
        "steps": [step("fence", "ok", ended=2.0)["step"], step("hold", "ok")["step"]],
    }


def test_a_step_that_is_done_twice_stands_twice() -> None:
    """Only what was unfinished is replaced: a second try on the same host is another line."""
    steps = fold([step("repoint", "failed"), step("repoint", "ok"), step("repoint", "ok", host="db2")])["steps"]
    assert [(found["host"], found["result"]) for found in steps] == [("db1", "failed"), ("db1", "ok"), ("db2", "ok")]


def test_a_torn_last_line_is_passed_over(tmp_path: pathlib.Path) -> None:
    journal = Journal(str(tmp_path), ID)
    journal.append({"set": {"a": 1}})
    journal.append(step("fence", "running"), lazy=True)
    journal.close()
    whole = pathlib.Path(journal.path).read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in range(len(lines[0]), len(whole)):
        pathlib.Path(journal.path).write_bytes(whole[:cut])
        events = read_events(journal.path)
        assert events[0] == {"set": {"a": 1}}
        assert len(events) == (2 if cut == len(whole) - 1 else 1), "a line that lacks only its end is whole"
    loaded = load_record(str(tmp_path), ID)
    assert loaded is not None
    assert loaded["a"] == 1


def test_a_killed_writer_leaves_what_it_had_written(tmp_path: pathlib.Path) -> None:
    program = (
        "import os, signal\n"
        "from ansible_collections.hms.postgres.plugins.module_utils._record import Journal\n"
        f"journal = Journal({str(tmp_path)!r}, {ID!r})\n"
        "for n in range(5): journal.append({'set': {'n': n}}, lazy=n > 2)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=False, timeout=30)
    assert done.returncode == -signal.SIGKILL
    assert load_record(str(tmp_path), ID) == {"schema": 1, "steps": [], "n": 4}


def test_a_finished_record_is_one_document(tmp_path: pathlib.Path) -> None:
    journal = Journal(str(tmp_path / "records"), ID)
    journal.append(
        start_event(
            ID,
            "failover",
            cluster="hospital",
            environment="demo",
            by="me@here",
            parameters={"candidate": "db2"},
            clock=ScriptedClock(0.0),
        )
    )
    path = journal.finish()
    journal.close()
    document = json.loads(pathlib.Path(path).read_text())
    assert document == journal.document() == load_record(str(tmp_path / "records"), ID)
    assert document["asked"] == {"by": "me@here", "at": "1970-01-01T00:00:00.000Z", "parameters": {"candidate": "db2"}}
    assert pathlib.Path(path).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "records").stat().st_mode & 0o777 == 0o700


def test_ids_sort_by_time_and_name_no_other_file(tmp_path: pathlib.Path) -> None:
    first = new_id("switchover", ScriptedClock(0.0))
    later = new_id("failover", ScriptedClock(86400.0))
    assert is_id(first)
    assert first < later
    for text in ("", "../../etc/passwd", first + "/x", first.upper(), "20261122T154500Z-failover-3fa9\n"):
        assert not is_id(text), text
        with pytest.raises(HmsError, match="is not an operation's id"):
            load_record(str(tmp_path), text)
        with pytest.raises(HmsError, match="is not an operation's id"):
            Journal(str(tmp_path), text)


def test_what_there_is_in_order(tmp_path: pathlib.Path) -> None:
    older = "20251122T154500Z-switchover-0000"
    for name in (f"{ID}.json", f"{ID}.jsonl", f"{older}.jsonl", "notes.json", f"{ID}.html"):
        (tmp_path / name).write_text("{}\n")
    assert list_records(str(tmp_path)) == [older, ID]
    assert list_records(str(tmp_path / "none")) == []
    assert load_record(str(tmp_path), "20271122T154500Z-switchover-0000") is None
