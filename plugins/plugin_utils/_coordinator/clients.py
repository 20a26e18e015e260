# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What clients felt, from the write probes' samples and the rows that are really there. Pure. PRIVATE."""

from __future__ import annotations

import typing as t

Samples = t.Mapping[str, t.Sequence[t.Sequence[t.Any]]]
"""Per source, by sequence: ``[sent (wall clock, seconds), latency (seconds), "ok" | "failed" | "unknown"]``."""


def judge(samples: Samples, present: t.Mapping[str, t.Collection[int]], *, origin: float) -> dict[str, t.Any]:
    """The record's `clients`: counts, lost writes, the longest stall, and the series relative to `origin`.

    A stall is the longest time in which no write of one source was acknowledged.
    """
    series, lost = [], 0
    counts = {"ok": 0, "failed": 0, "unknown": 0}
    stalls = []
    for source, items in samples.items():
        rows = set(present.get(source, ()))
        for sequence, (sent, latency, outcome) in enumerate(items, start=1):
            counts[outcome] += 1
            lost += outcome == "ok" and sequence not in rows
            series.append([round(sent - origin, 6), latency, outcome, source])
        stalls.append(_longest_gap(items, origin))
    series.sort()
    worst = max(stalls, key=lambda stall: stall["ended"] - stall["started"], default=None)
    found: dict[str, t.Any] = {
        "source": "write probe through every bouncer process",
        "samples": series,
        "acknowledged": counts["ok"],
        "failed": counts["failed"],
        "unknown": counts["unknown"],
        "lost": lost,
    }
    if worst is not None:
        found["stall"] = worst
        found["longest_stall_seconds"] = round(worst["ended"] - worst["started"], 6)
    return found


def _longest_gap(items: t.Sequence[t.Sequence[t.Any]], origin: float) -> dict[str, float]:
    """The longest time between one acknowledgement (or the first attempt) and the next."""
    best = {"started": 0.0, "ended": 0.0}
    previous = items[0][0] if items else 0.0
    for sent, latency, outcome in items:
        if outcome != "ok":
            continue
        done = sent + latency
        if done - previous > best["ended"] - best["started"]:
            best = {"started": round(previous - origin, 6), "ended": round(done - origin, 6)}
        previous = done
    return best


def first_success_after(samples: Samples, moment: float) -> float | None:
    """The wall-clock second of the first acknowledgement after `moment`."""
    done = [
        sent + latency
        for items in samples.values()
        for sent, latency, outcome in items
        if outcome == "ok" and sent + latency > moment
    ]
    return min(done, default=None)
