# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which transactions may be the one that did the harm. Pure. PRIVATE."""

from __future__ import annotations

import dataclasses
import typing as t

from .._postgres import format_lsn
from .changes import Collector, Commit, Counts, Rewrite
from .model import Target

SHOWN = 20


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One transaction.

    Attributes:
        truncated: it emptied the table by giving it a new, empty file.
        rewritten: it gave the table a new file and filled it: VACUUM FULL, CLUSTER, ALTER TABLE.
        dropped: it removed files without replacing them.
        files: those files, for a table that is gone: the WAL doesn't know its name.
        before: the position to recover to: all that was committed to the table before it, and the table not yet locked.
    """

    xid: int
    time: str
    lsn: int
    timeline: int
    deletes: int = 0
    updates: int = 0
    inserts: int = 0
    truncated: bool = False
    rewritten: bool = False
    dropped: bool = False
    files: tuple[int, ...] = ()
    before: int = 0
    local: str = ""

    @property
    def weight(self) -> tuple[int, int, str]:
        """What speaks for it: a table emptied or gone, then rows, then how young it is."""
        return (int(self.truncated or self.dropped), self.deletes + self.updates, self.time)

    def as_dict(self, number: int) -> dict[str, t.Any]:
        """For the result."""
        return {
            **dataclasses.asdict(self),
            "choose": number,
            "lsn": format_lsn(self.lsn),
            "before": format_lsn(self.before),
            "files": list(self.files),
        }

    def target(self) -> Target:
        """Recovery to just before it."""
        return Target("lsn", format_lsn(self.before), inclusive=False)


def _of(commit: Commit, relations: t.Collection[int], **more: t.Any) -> Candidate:
    return Candidate(
        xid=commit.xid,
        time=commit.time,
        lsn=commit.lsn,
        timeline=commit.timeline,
        before=commit.readable_before(relations),
        **more,
    )


def follow(nodes: t.Iterable[int], rewrites: t.Sequence[Rewrite]) -> tuple[set[int], list[tuple[Rewrite, set[int]]]]:
    """All files that a table has had, and the rewrites that changed them, each with the new files of the table."""
    known = set(nodes)
    steps = []
    for rewrite in reversed(rewrites):
        made = known & set(rewrite.made)
        if made:
            steps.append((rewrite, made))
            known |= {old for node in made for old in rewrite.before(node)}
    return known, steps


def of_table(nodes: t.Iterable[int], relations: t.Collection[int], collector: Collector) -> list[Candidate]:
    """The candidates for a table that is there, the gravest first; `relations` are its OID and its partitions'."""
    known, steps = follow(nodes, collector.rewrites)
    rows: dict[Commit, Counts] = {}
    for node in known:
        for commit, counts in collector.of_file(node):
            rows.setdefault(commit, Counts()).add(counts)
    rewritten = {}
    for rewrite, made in steps:
        if collector.in_window(rewrite.commit) and rewrite.removed:
            rewritten[rewrite.commit] = bool(made & rewrite.filled)
    found = []
    for commit in {*rows, *rewritten}:
        counts = rows.get(commit, Counts())
        found.append(
            _of(
                commit,
                relations,
                deletes=counts.deletes,
                updates=counts.updates,
                inserts=counts.inserts,
                truncated=commit in rewritten and not rewritten[commit],
                rewritten=rewritten.get(commit, False),
            )
        )
    return sorted(found, key=lambda one: one.weight, reverse=True)[:SHOWN]


def of_lost_table(collector: Collector) -> list[Candidate]:
    """The commits that removed files for good, the youngest first: one of them dropped the table."""
    found = []
    for rewrite in collector.rewrites:
        replaced = {old for node in rewrite.made for old in rewrite.before(node)}
        gone = tuple(node for node in rewrite.removed if node not in replaced and node not in rewrite.made)
        if gone and collector.in_window(rewrite.commit):
            found.append(_of(rewrite.commit, gone, dropped=True, files=gone))
    return sorted(found, key=lambda one: one.time, reverse=True)[:SHOWN]


def describe(candidate: Candidate) -> str:
    """One line for people."""
    did = [
        f"{number} {word}"
        for number, word in (
            (candidate.deletes, "deleted"),
            (candidate.updates, "updated"),
            (candidate.inserts, "inserted"),
        )
        if number
    ]
    did += ["TRUNCATE"] if candidate.truncated else []
    did += ["rewritten"] if candidate.rewritten else []
    did += [f"{len(candidate.files)} files dropped"] if candidate.dropped else []
    return f"transaction {candidate.xid}, {candidate.local or candidate.time}: {', '.join(did)}"
