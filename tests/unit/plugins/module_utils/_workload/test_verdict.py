# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When a demo fails, and what it prints."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._workload.verdict import Objectives, conclude, seconds

OBJECTIVES = Objectives(rto=3600.0, rpo=300.0)


def operation(name: str = "failover", **more: t.Any) -> dict[str, t.Any]:
    return {
        "operation": name,
        "status": "done",
        "longest_stall_seconds": 4.214,
        "longest_transaction_seconds": 3.9,
        "acknowledged": 1200,
        "failed": 87,
        "unknown": 2,
        "unknown_but_present": 1,
        "lost": 0,
        "rpo_seconds": 0.0,
        "record": f"/records/{name}.json",
        "report": f"/records/{name}.html",
        **more,
    }


def found(*operations: dict[str, t.Any], **more: t.Any) -> dict[str, t.Any]:
    counts = {"writers": 6, "acknowledged": 14203, "lost": 0, "failed_but_present": 0, "examples": []}
    return {**counts, "operations": list(operations), **more}


def test_a_good_run_passes_and_reads_well() -> None:
    said = conclude(
        found(operation(), operation("rejoin"), operation("switchover", longest_stall_seconds=0.31)), OBJECTIVES
    )
    assert said["passed"]
    assert said["problems"] == []
    assert said["text"].splitlines() == [
        "What the writers saw              failover, unplanned   switchover, planned",
        "writers waited                                 4.21 s                0.31 s",
        "slowest single transaction                     3.90 s                3.90 s",
        "transactions acknowledged                       1,200                 1,200",
        "failed, and said so                                87                    87",
        "answer lost on the way                2 (1 committed)       2 (1 committed)",
        "acknowledged, then LOST                             0                     0",
        "RTO, 1 h allowed                          4.21 s, met           0.31 s, met",
        "RPO, 5 min allowed                           0 s, met              0 s, met",
        "",
        "6 writers were told 14,203 times that their booking is safe; all of these are in the database now.",
        "The failover was called at once; in life, add the time until somebody notices and types the command.",
        "",
        "Failover report:               /records/failover.html",
        "Rejoin report:                 /records/rejoin.html",
        "Switchover report:             /records/switchover.html",
        "The same as data:              the .json file beside each",
    ]


@pytest.mark.parametrize(
    ("judged", "problem"),
    [
        (found(operation(), lost=3, examples=[{"source": 2, "seq": 41}]), "the first is number 41 of writer 2"),
        (found(operation(), failed_but_present=1), "reported as failed are in the database"),
        (found(operation(), acknowledged=0), "no transaction was acknowledged at all"),
        (found(operation("switchover")), "no record of a failover was found"),
        (found(operation(status="incomplete")), "the failover ended with the status incomplete"),
        (found(operation(longest_stall_seconds=None)), "no transaction was acknowledged any more"),
        (found(operation(longest_stall_seconds=3700.0)), "kept writers waiting for 61.7 min, more than 1 h"),
        (found(operation(rpo_seconds=301.0)), "lost the work of 5.02 min, more than 5 min"),
    ],
)
def test_what_makes_a_run_fail(judged: dict[str, t.Any], problem: str) -> None:
    said = conclude(judged, OBJECTIVES)
    assert not said["passed"]
    assert len(said["problems"]) == 1
    assert problem in said["problems"][0]
    assert f"NOT GOOD: {said['problems'][0]}." in said["text"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "no end seen"), (0.0, "0 s"), (0.3149, "0.31 s"), (12.3, "12 s"), (300.0, "5 min"), (7200.0, "2 h")],
)
def test_times_are_said_as_people_say_them(value: float | None, text: str) -> None:
    assert seconds(value) == text
