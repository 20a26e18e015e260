# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the judge found, in words, and whether it will do. PRIVATE to the collection."""

from __future__ import annotations

import dataclasses
import typing as t

TITLES = {"failover": "failover, unplanned", "switchover": "switchover, planned"}
"""Operations that make writers wait; others are named with their report only."""
LABEL = 31
COLUMN = 22


@dataclasses.dataclass(frozen=True)
class Objectives:
    """How long an outage may last, and how much may be lost; in seconds."""

    rto: float
    rpo: float


def seconds(value: float | None) -> str:
    """A length of time as people say it."""
    if value is None:
        return "no end seen"
    if value == 0:
        return "0 s"
    if value < 10:
        return f"{value:.2f} s"
    if value < 120:
        return f"{value:.0f} s"
    return f"{value / 3600:g} h" if value % 3600 == 0 else f"{value / 60:.3g} min"


def problems(found: t.Mapping[str, t.Any], objectives: Objectives) -> list[str]:
    """Everything that makes the run a failure."""
    said = []
    if found["lost"]:
        first = found["examples"][0]
        said.append(
            f"{found['lost']:,} acknowledged transactions are not in the database,"
            f" the first is number {first['seq']} of writer {first['source']}"
        )
    if found["failed_but_present"]:
        said.append(f"{found['failed_but_present']:,} transactions reported as failed are in the database")
    if not found["acknowledged"]:
        said.append("no transaction was acknowledged at all")
    if not any(operation["operation"] == "failover" for operation in found["operations"]):
        said.append("no record of a failover was found")
    for operation in found["operations"]:
        said += _of_operation(operation, objectives)
    return said


def _of_operation(operation: t.Mapping[str, t.Any], objectives: Objectives) -> t.Iterator[str]:
    name = operation["operation"]
    if operation["status"] != "done":
        yield f"the {name} ended with the status {operation['status']}"
    if name not in TITLES:
        return
    outage, loss = operation["longest_stall_seconds"], operation["rpo_seconds"]
    if outage is None:
        yield f"after the {name} no transaction was acknowledged any more"
    elif outage > objectives.rto:
        yield f"the {name} kept writers waiting for {seconds(outage)}, more than {seconds(objectives.rto)}"
    if loss > objectives.rpo:
        yield f"the {name} lost the work of {seconds(loss)}, more than {seconds(objectives.rpo)}"


def conclude(found: t.Mapping[str, t.Any], objectives: Objectives) -> dict[str, t.Any]:
    """Whether the run passed, what was wrong, and the text for the terminal."""
    wrong = problems(found, objectives)
    return {"passed": not wrong, "problems": wrong, "text": "\n".join(_text(found, objectives, wrong))}


def _row(label: str, cells: t.Iterable[str]) -> str:
    return (label.ljust(LABEL) + "".join(cell.rjust(COLUMN) for cell in cells)).rstrip()


def _text(found: t.Mapping[str, t.Any], objectives: Objectives, wrong: t.Sequence[str]) -> t.Iterator[str]:
    shown = [operation for operation in found["operations"] if operation["operation"] in TITLES]
    yield _row("What the writers saw", (TITLES[operation["operation"]] for operation in shown))
    yield _row("writers waited", (seconds(one["longest_stall_seconds"]) for one in shown))
    yield _row("slowest single transaction", (seconds(one["longest_transaction_seconds"]) for one in shown))
    yield _row("transactions acknowledged", (f"{one['acknowledged']:,}" for one in shown))
    yield _row("failed, and said so", (f"{one['failed']:,}" for one in shown))
    yield _row("answer lost on the way", map(_unknown, shown))
    yield _row("acknowledged, then LOST", (f"{one['lost']:,}" for one in shown))
    yield _row(
        f"RTO, {seconds(objectives.rto)} allowed",
        (_held(one["longest_stall_seconds"], objectives.rto) for one in shown),
    )
    yield _row(f"RPO, {seconds(objectives.rpo)} allowed", (_held(one["rpo_seconds"], objectives.rpo) for one in shown))
    yield ""
    kept = found["acknowledged"] - found["lost"]
    yield (
        f"{found['writers']} writers were told {found['acknowledged']:,} times that their booking is safe;"
        f" {'all' if not found['lost'] else f'only {kept:,}'} of these are in the database now."
    )
    yield "The failover was called at once; in life, add the time until somebody notices and types the command."
    yield from (f"NOT GOOD: {problem}." for problem in wrong)
    yield ""
    for operation in found["operations"]:
        yield f"{operation['operation'].capitalize()} report:".ljust(LABEL) + operation["report"]
    if found["operations"]:
        yield "The same as data:".ljust(LABEL) + "the .json file beside each"


def _unknown(operation: t.Mapping[str, t.Any]) -> str:
    count, present = operation["unknown"], operation["unknown_but_present"]
    return f"{count:,} ({present:,} committed)" if count else "0"


def _held(value: float | None, limit: float) -> str:
    return f"{seconds(value)}, {'met' if value is not None and value <= limit else 'MISSED'}"
