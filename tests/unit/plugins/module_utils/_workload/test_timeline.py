# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stalls and curves."""

from __future__ import annotations

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._workload.ledger import ACKED, FAILED, Entry, Outcome
from ansible_collections.hms.postgres.plugins.module_utils._workload.timeline import Sampler, Stall, Window, measure


def acks(source: int, *moments: float, latency: float = 0.0, outcome: Outcome = ACKED) -> list[Entry]:
    return [Entry(source, seq, at - latency, latency, outcome, "") for seq, at in enumerate(moments, start=1)]


def together(*lists: list[Entry]) -> list[Entry]:
    return sorted((entry for part in lists for entry in part), key=lambda entry: entry.answered)


def test_the_stall_is_the_longest_time_without_any_acknowledgement() -> None:
    entries = together(acks(1, 1.0, 2.0, 6.0), acks(2, 1.5, 2.5, 5.0))
    (waits,) = measure(entries, [Window(0.0, 10.0)])
    assert waits.stall == Stall(2.5, 5.0)
    assert waits.longest_writer_wait == 4.0


def test_failures_don_t_end_a_stall() -> None:
    entries = together(acks(1, 1.0, 5.0), acks(2, 2.0, 3.0, 4.0, outcome=FAILED))
    (waits,) = measure(entries, [Window(0.0, 10.0)])
    assert waits.stall == Stall(1.0, 5.0)


def test_a_stall_that_touches_the_window_counts_whole() -> None:
    (waits,) = measure(acks(1, 1.0, 9.0, 9.5), [Window(4.0, 5.0)])
    assert waits.stall == Stall(1.0, 9.0)
    assert waits.longest_writer_wait == 8.0


def test_what_lies_outside_the_window_doesn_t_count() -> None:
    entries = acks(1, 1.0, 4.0, 4.1, 4.2, 4.3, 9.0)
    (waits,) = measure(entries, [Window(4.05, 4.25)])
    assert waits.stall is not None
    assert waits.stall.seconds == pytest.approx(0.1)


def test_a_stall_without_end_is_said_to_have_none() -> None:
    (waits,) = measure(acks(1, 1.0, 2.0), [Window(3.0, 4.0)])
    assert waits.stall == Stall(2.0, None)
    assert waits.stall.seconds is None


def test_windows_are_measured_apart_whatever_their_order() -> None:
    entries = acks(1, 0.0, 1.0, 1.2, 2.0, 2.1, 5.1, 5.2)
    late, early = measure(entries, [Window(2.05, 5.15), Window(0.5, 1.1)])
    assert late.stall is not None
    assert late.stall.seconds == pytest.approx(3.0)
    assert early.stall == Stall(0.0, 1.0)


def test_the_longest_transaction_is_found_also_when_it_failed() -> None:
    entries = together(acks(1, 1.0, 2.0, latency=0.1), acks(2, 1.9, latency=0.7, outcome=FAILED))
    (waits,) = measure(entries, [Window(0.0, 3.0)])
    assert waits.longest_transaction == pytest.approx(0.7)


def test_without_entries_there_is_nothing_to_say() -> None:
    (waits,) = measure([], [Window(0.0, 1.0)])
    assert waits.stall is None


def test_a_curve_keeps_every_peak_and_stays_small() -> None:
    sampler = Sampler(Window(0.0, 100.0), limit=200)
    for seq in range(50_000):
        sampler.add(Entry(1 + seq % 4, seq, seq / 500, 4.0 if seq == 31_000 else 0.002, ACKED, ""))
    samples = sampler.samples(origin=10.0)
    assert len(samples) <= 200
    assert [62.0 - 10.0, 4.0, "ok", "writer 1"] in samples
    assert samples == sorted(samples, key=lambda sample: sample[0])


def test_a_curve_keeps_failures_beside_successes() -> None:
    sampler = Sampler(Window(0.0, 1.0), limit=100)
    sampler.add(Entry(1, 1, 0.5, 0.2, ACKED, ""))
    sampler.add(Entry(1, 2, 0.5, 0.1, FAILED, ""))
    sampler.add(Entry(1, 3, 5.0, 0.1, FAILED, "outside"))
    assert [sample[2] for sample in sampler.samples(origin=0.0)] == ["ok", "failed"]


def test_more_writers_than_points_still_end() -> None:
    sampler = Sampler(Window(0.0, 1.0), limit=2)
    for source in range(1, 6):
        sampler.add(Entry(source, 1, 0.5, 0.1, ACKED, ""))
    assert len(sampler.samples(origin=0.0)) == 5
