# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the ledgers say of an operation, and how it enters the record."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._clock import parse_iso
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._postgres import ConnectionParams
from ansible_collections.hms.postgres.plugins.module_utils._workload import evidence, ledger
from ansible_collections.hms.postgres.plugins.module_utils._workload.ledger import Entry, Mark, Settings

ASKED = "2026-11-22T15:45:10.000Z"
ORIGIN = parse_iso(ASKED).timestamp()


class Table:
    """A session on a ledger_entry that holds these numbers for writer 1."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers

    def rows(self, _sql: str, params: t.Sequence[t.Any]) -> list[tuple[int]]:
        return [(number,) for number in self.numbers if number > params[1]] if params[0] == 1 else []


def record(tmp_path: pathlib.Path, operation: str = "failover", **more: t.Any) -> str:
    path = tmp_path / f"20261122T154510Z-{operation}-3fa9.json"
    document = {
        "id": path.stem,
        "operation": operation,
        "asked": {"at": ASKED},
        "plan": {"new_primary": "db2"},
        "steps": [{"ended": 0.5}, {"ended": 3.0}, {"ended": None}],
        "clients": {"source": "the probe", "samples": []},
        "outcome": {"status": "done"},
        **more,
    }
    path.write_text(json.dumps(document))
    return str(path)


def run(tmp_path: pathlib.Path) -> str:
    """A writer that is answered each 0.1 s, but not from 2 s before the operation until 1 s after its start."""
    directory = tmp_path / "run"
    directory.mkdir()
    ledger.write_settings(str(directory), Settings(endpoints=(ConnectionParams(host="x"),), writers=1))
    book = ledger.Ledger(str(directory), 1)
    moments = [ORIGIN - 5.0 + number / 10 for number in range(31)] + [
        ORIGIN + 1.0 + number / 10 for number in range(40)
    ]
    for seq, moment in enumerate(moments, start=1):
        book.append(Entry(1, seq, moment - 0.01, 0.01, "acked", ""))
    book.append(Entry(1, len(moments) + 1, moments[-1], 0.1, "failed", "work: gone"))
    book.close()
    ledger.add_mark(str(directory), Mark(ORIGIN - 1.9, evidence.KILL))
    return str(directory)


def test_a_failover_is_measured_from_the_last_answer_before_the_kill(tmp_path: pathlib.Path) -> None:
    path = record(tmp_path)
    verdict = evidence.examine(run(tmp_path), t.cast("t.Any", Table(*range(1, 72))), [path])
    (operation,) = verdict["operations"]
    assert operation["longest_stall_seconds"] == pytest.approx(3.0)
    assert operation["stalled_at"] == pytest.approx(ORIGIN - 2.0)
    assert operation["resumed_at"] == pytest.approx(ORIGIN + 1.0)
    assert (operation["lost"], operation["rpo_seconds"], operation["failed"]) == (0, 0.0, 0)
    assert (verdict["acknowledged"], verdict["lost"], verdict["failed"]) == (71, 0, 1)
    assert operation["report"] == path.replace(".json", ".html")


def test_the_record_gets_the_writers_view_and_keeps_the_probe_s(tmp_path: pathlib.Path) -> None:
    path, directory = record(tmp_path), run(tmp_path)
    for _time in range(2):
        evidence.examine(directory, t.cast("t.Any", Table(*range(1, 72))), [path])
        document = json.loads(pathlib.Path(path).read_text())
        assert document["probe"] == {"source": "the probe", "samples": []}
        assert document["clients"]["source"] == "acknowledgement ledgers of 1 writers through PgBouncer"
        assert document["clients"]["stall"] == {"started": -2.0, "ended": 1.0}
        assert document["clients"]["samples"][0][1:] == [0.01, "ok", "writer 1"]


def test_a_switchover_doesn_t_begin_with_an_earlier_kill(tmp_path: pathlib.Path) -> None:
    path = record(tmp_path, "switchover")
    (operation,) = evidence.examine(run(tmp_path), t.cast("t.Any", Table(*range(1, 72))), [path])["operations"]
    assert operation["acknowledged"] == 21


def test_what_was_lost_sets_the_rpo(tmp_path: pathlib.Path) -> None:
    path = record(tmp_path)
    kept = [number for number in range(1, 72) if number not in (29, 30, 31)]
    verdict = evidence.examine(run(tmp_path), t.cast("t.Any", Table(*kept)), [path])
    assert verdict["lost"] == 3
    assert [lost["seq"] for lost in verdict["examples"]] == [29, 30, 31]
    assert verdict["operations"][0]["lost"] == 3
    assert verdict["operations"][0]["rpo_seconds"] == pytest.approx(0.3)


def test_a_service_that_never_came_back_has_no_end(tmp_path: pathlib.Path) -> None:
    directory = run(tmp_path)
    path = record(tmp_path, "switchover", asked={"at": "2026-11-22T15:46:00.000Z"})
    (operation,) = evidence.examine(directory, t.cast("t.Any", Table(*range(1, 72))), [path])["operations"]
    assert operation["longest_stall_seconds"] is None
    assert operation["resumed_at"] is None


def test_another_file_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(HmsError, match="not an operation's record"):
        evidence.open_records([str(tmp_path / "x.json")], [])


def test_a_loss_belongs_to_the_first_operation_after_it(tmp_path: pathlib.Path) -> None:
    late = record(tmp_path, "switchover", asked={"at": "2026-11-22T15:45:14.000Z"})
    paths = [late, record(tmp_path)]
    kept = [number for number in range(1, 72) if number not in (31, 71)]
    operations = evidence.examine(run(tmp_path), t.cast("t.Any", Table(*kept)), paths)["operations"]
    assert [(operation["operation"], operation["lost"]) for operation in operations] == [
        ("failover", 1),
        ("switchover", 1),
    ]
