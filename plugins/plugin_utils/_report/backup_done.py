# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a backup, or a verification, came to: a few lines for whoever started it. PRIVATE to the collection."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping, Sequence

from .access import flag, integer, mapping, mappings, number, text, texts
from .units import count, seconds, size

Data = Mapping[str, t.Any]


def backup_lines(done: Data, host: str) -> list[str]:
    """The result of the module pg_backup, made or planned."""
    plan, made = mapping(done.get("plan")), mapping(done.get("backup"))
    head = _made(made, host) if made else _planned(done, plan, host)
    return [
        *head,
        *_removed(done, bool(made)),
        *([f"Record: {text(done.get('record'))}"] if done.get("record") else []),
    ]


def _made(made: Data, host: str) -> list[str]:
    members = mappings(made.get("members"))
    total = sum(integer(member.get("bytes")) or 0 for member in members)
    proven, encryption = mapping(made.get("verification")), mapping(made.get("encryption"))
    took = number(made.get("seconds")) or 0.0
    what = f"{text(made.get('type'))} of {text(made.get('database'))}, made on {host} with {text(made.get('engine'))}"
    lines = [
        f"{text(made.get('id'))} is complete: {what}.",
        f"{size(total)} in {seconds(took)}, {_encrypted(encryption)}, {_verified(proven)}.",
    ]
    if mapping(made.get("snapshot")).get("time"):
        lines.append(f"It restores to {text(mapping(made.get('snapshot')).get('time'))}.")
    return lines


def _encrypted(encryption: Data) -> str:
    method = text(encryption.get("method")) or "none"
    if method == "public_key":
        return f"encrypted for {count(len(texts(encryption.get('recipients'))), 'key')}"
    return "NOT encrypted" if method == "none" else "encrypted"


def _verified(proven: Data) -> str:
    if not proven:
        return "NOT verified"
    how = "restored and compared" if text(proven.get("level")) == "deep" else "read back to its end"
    how = f"{how} in {seconds(number(proven.get('seconds')) or 0.0)}"
    return f"verified ({how})" if flag(proven.get("ok")) else "NOT verified"


def _planned(done: Data, plan: Data, host: str) -> list[str]:
    estimate = mapping(plan.get("estimate"))
    lines = [f"{host} would make {text(done.get('id')) or 'a backup'}."]
    if estimate.get("bytes") is not None:
        took = number(estimate.get("seconds"))
        guess = f"About {size(number(estimate.get('bytes')) or 0)}" + (f" in {seconds(took)}" if took else "")
        lines.append(f"{guess}, by {text(estimate.get('based_on')) or 'the size of the database'}.")
    if texts(plan.get("stores")):
        lines.append(f"It would go to {', '.join(texts(plan.get('stores')))}.")
    return lines


def _removed(done: Data, made: bool) -> list[str]:
    removed = mappings(done.get("removed"))
    what = "was removed" if made else "would be removed"
    lines = [f"{text(one.get('id'))} {what}: {text(one.get('why'))}." for one in removed[:20]]
    if len(removed) > len(lines):
        lines.append(
            f"So would {len(removed) - len(lines)} more." if not made else f"And {len(removed) - len(lines)} more."
        )
    kept = mappings(done.get("kept"))
    return [*lines, f"{count(len(kept), 'earlier backup')} kept."] if kept or removed else lines


def verify_lines(answers: Sequence[tuple[str, Data]]) -> list[str]:
    """The results of the module pg_backup_verify on several hosts."""
    lines = []
    for host, answer in answers:
        results = mappings(answer.get("results")) or mappings(mapping(answer.get("details")).get("results"))
        lines += [_outcome(host, result) for result in results]
        if not results:
            lines += [
                f"{host}: {text(one.get('id'))} in {text(one.get('store'))} would be verified."
                for one in planned(answer)
            ]
        if not results and answer.get("msg"):
            lines.append(f"{host}: {text(answer.get('msg'))}")
    return lines


def planned(answer: Data) -> list[Data]:
    """What would be verified."""
    return list(mappings(answer.get("planned")))


def _outcome(host: str, result: Data) -> str:
    found = mapping(result.get("verification"))
    name = f"{host}: {text(result.get('id'))} in {text(result.get('store'))}"
    if not flag(found.get("ok")):
        return f"{name} is BAD: {'; '.join(texts(found.get('problems')))}"
    took = seconds(number(found.get("seconds")) or 0.0)
    if found.get("partial"):
        return (
            f"{name}: the stored bytes are as they were written ({took}). Not looked at: {text(found.get('partial'))}"
        )
    if text(found.get("level")) == "deep":
        return f"{name} was restored, {count(integer(found.get('rows_compared')) or 0, 'table')} compared ({took})."
    return f"{name} was read to its end ({took})."
