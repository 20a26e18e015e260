# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
import itertools
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact.catalog import Entry, load_store
from ansible_collections.hms.postgres.plugins.module_utils._backup import retention
from ansible_collections.hms.postgres.plugins.module_utils._backup.model import Retention
from ansible_collections.hms.postgres.plugins.module_utils._backup.retention import RetentionPlan, plan_retention
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.tests.unit.plugins.module_utils._backup.backups import (
    NOW,
    MemoryStore,
    ago,
    entry,
    manifest,
    proven,
)


def daily(count: int, **more: t.Any) -> list[Entry]:
    """One backup a day, the newest of this morning, oldest first."""
    return [entry(ago(days=day, hours=10), **more) for day in reversed(range(count))]


def plan(
    entries: t.Sequence[Entry], now: datetime.datetime = NOW, *, locked: t.Any = None, **rules: t.Any
) -> RetentionPlan:
    """The plan with rules for full backups."""
    return plan_retention(entries, {"full": Retention(**rules)}, now, locked)


def gone(made: RetentionPlan) -> set[str]:
    """Ids that go."""
    return {removal.id for removal in made.removals}


def why(made: RetentionPlan, one: Entry) -> str:
    """Why one stays."""
    return next(kept.why for kept in made.kept if kept.id == one.id)


def test_nothing_goes_without_a_rule() -> None:
    entries = daily(400)
    for rules in ({}, {"full": Retention()}, {"schema_only": Retention(keep_last=1)}):
        made = plan_retention(entries, rules, NOW)
        assert not made.removals
        assert len(made.kept) == 400
        assert why(made, entries[0]) == "there is no rule for full"


def test_nothing_at_all_is_nothing() -> None:
    assert plan([], days=1) == RetentionPlan()


def test_days_keep_what_is_younger() -> None:
    entries = daily(40)
    made = plan(entries, days=30)
    assert gone(made) == {one.id for one in entries[:10]}
    assert why(made, entries[-1]) == "younger than 30 days; the last verified full"
    assert made.removals[0].why == "not among what is kept (younger than 30 days)"
    assert made.removals[0].bytes == 4
    assert made.removals[0].database == "hospital"


def test_the_newest_so_many_stay_whatever_their_age() -> None:
    entries = daily(10)
    made = plan(entries, keep_last=3)
    assert gone(made) == {one.id for one in entries[:7]}
    assert "one of the newest 3" in why(made, entries[-3])


def test_rules_add_up() -> None:
    entries = daily(20)
    assert len(plan(entries, keep_last=3, days=5).kept) == 5
    assert len(plan(entries, keep_last=7, days=5).kept) == 7


def test_bad_ones_fill_nobodys_place() -> None:
    good = daily(5)
    bad = [entry(ago(hours=hour), history=[proven(ago(hours=hour), ok=False)]) for hour in (3, 2, 1)]
    made = plan([*good, *bad], keep_last=2)
    assert gone(made) == {one.id for one in (*good[:3], *bad)}


def test_grandfather_father_son() -> None:
    entries = daily(800)
    made = plan(entries, daily=7, weekly=4, monthly=12, yearly=3)
    kept = {one.id: one for one in entries if one.id not in gone(made)}
    moments = sorted((one.moment for one in kept.values()), reverse=True)
    assert [f"{moment:%Y-%m-%d}" for moment in moments] == [
        *("2026-11-22", "2026-11-21", "2026-11-20", "2026-11-19", "2026-11-18", "2026-11-17", "2026-11-16"),
        *("2026-11-15", "2026-11-08", "2026-11-01", "2026-10-31", "2026-09-30", "2026-08-31", "2026-07-31"),
        *("2026-06-30", "2026-05-31", "2026-04-30", "2026-03-31", "2026-02-28", "2026-01-31", "2025-12-31"),
        "2024-12-31",
    ]
    assert "yearly: of 2024" in why(made, next(one for one in entries if f"{one.moment:%Y-%m-%d}" == "2024-12-31"))
    assert "weekly: of week 46 of 2026" in why(made, entries[-8])


def test_a_bucket_keeps_its_newest_verified_one() -> None:
    morning, noon = entry(ago(days=1, hours=6)), entry(ago(days=1), verified=False)
    today = entry(ago(hours=1))
    made = plan([morning, noon, today], daily=2)
    assert gone(made) == {noon.id}
    assert why(made, morning) == "daily: of 2026-11-21"


def test_days_without_backups_take_no_place() -> None:
    entries = [entry(ago(days=days)) for days in (9, 6, 3, 0)]
    assert gone(plan(entries, daily=3)) == {entries[0].id}


def test_weeks_are_those_of_the_calendar_across_the_year() -> None:
    at = datetime.datetime(2027, 1, 4, 3, tzinfo=datetime.timezone.utc)
    entries = [entry(at - datetime.timedelta(days=days)) for days in (8, 3, 1, 0)]  # 27 and 31 December, 3 January
    made = plan(entries, at, weekly=2)
    assert gone(made) == {entries[0].id, entries[1].id}
    assert "weekly: of week 53 of 2026" in why(made, entries[2])


def test_the_last_verified_one_stays() -> None:
    verified = entry(ago(days=3))
    younger = [entry(ago(hours=hours), verified=False) for hours in (30, 20, 10, 5)]
    made = plan([verified, *younger], keep_last=1)
    assert gone(made) == {one.id for one in younger[:3]}
    assert why(made, verified) == "the last verified full"


def test_where_none_is_verified_the_last_one_stays() -> None:
    entries = daily(3, verified=False)
    made = plan(entries, days=0.1)
    assert [kept.id for kept in made.kept] == [entries[-1].id]
    assert why(made, entries[-1]) == "the last full; none is verified"


def test_where_all_are_bad_the_last_one_stays() -> None:
    entries = [entry(ago(days=days), history=[proven(ago(), ok=False)]) for days in (2, 1)]
    made = plan(entries, days=0.1)
    assert gone(made) == {entries[0].id}
    assert why(made, entries[1]) == "the last full; all are known to be bad"


def test_a_dump_of_the_schema_does_not_stand_in_for_a_full_one() -> None:
    full, schema = entry(ago(days=2)), entry(ago(hours=1), type_="schema_only")
    made = plan_retention([full, schema], {"full": Retention(days=1), "schema_only": Retention(days=1)}, NOW)
    assert not made.removals


def test_types_have_rules_of_their_own() -> None:
    fulls = daily(10)
    small = [entry(ago(days=days, hours=2), type_="schema_only") for days in reversed(range(10))]
    made = plan_retention([*fulls, *small], {"full": Retention(days=30), "schema_only": Retention(keep_last=2)}, NOW)
    assert gone(made) == {one.id for one in small[:8]}


def test_databases_and_engines_are_apart() -> None:
    mine, other = daily(5), daily(5, database="archive")
    physical = daily(5, engine="pgbackrest")
    made = plan([*mine, *other, *physical], keep_last=1)
    assert {kept.id for kept in made.kept} == {mine[-1].id, other[-1].id, physical[-1].id}


def test_what_a_kept_one_depends_on_stays_to_the_end_of_the_chain() -> None:
    full = entry(ago(days=20), engine="pgbackrest")
    differential = entry(ago(days=18), engine="pgbackrest", type_="differential", parent=full.id)
    increments = [
        entry(ago(days=days), engine="pgbackrest", type_="incremental", parent=differential.id) for days in (17, 2, 0)
    ]
    newer = entry(ago(days=1), engine="pgbackrest")
    rules = {type_: Retention(days=3) for type_ in ("full", "differential", "incremental")}
    made = plan_retention([full, differential, *increments, newer], rules, NOW)
    assert gone(made) == {increments[0].id}
    assert why(made, full) == f"{differential.id} depends on it"
    assert f"{increments[1].id} depends on it" in why(made, differential)


def test_children_go_before_their_parents() -> None:
    full = entry(ago(days=20), engine="pgbackrest")
    first = entry(ago(days=19), engine="pgbackrest", type_="incremental", parent=full.id)
    # made under a clock that was set back: older than its parent by its own words
    second = entry(ago(days=25), engine="pgbackrest", type_="incremental", parent=first.id)
    newer = [entry(ago(days=days), engine="pgbackrest") for days in (2, 1, 0)]
    last = entry(ago(), engine="pgbackrest", type_="incremental", parent=newer[-1].id)
    rules = {"full": Retention(days=3), "incremental": Retention(days=3)}
    made = plan_retention([full, first, second, *newer, last], rules, NOW)
    assert [removal.id for removal in made.removals] == [second.id, first.id, full.id]


def test_a_circle_of_parents_ends() -> None:
    one, two = entry(ago(days=2)), entry(ago(days=1))
    first = Entry(manifest(ago(days=2), id=one.id, parent=two.id), "s", one.verifications)
    second = Entry(manifest(ago(days=1), id=two.id, parent=one.id), "s", two.verifications)
    assert not plan([first, second], keep_last=1).removals
    assert len(plan([first, second, entry(ago())], keep_last=1).removals) == 2


def test_an_object_lock_holds() -> None:
    entries = daily(5)
    made = plan(entries, keep_last=1, locked={entries[0].id: "until 2030"})
    assert entries[0].id not in gone(made)
    assert why(made, entries[0]) == "the store's object lock holds it (until 2030)"


@pytest.mark.parametrize(("until", "held"), [("2026-11-23T00:00:00.000Z", True), ("2026-11-21T00:00:00.000Z", False)])
def test_a_lock_that_the_manifest_tells_of_holds_until_its_end(until: str, held: bool) -> None:
    entries = [entry(ago(days=5), expires_locked=until), *daily(3)]
    assert (entries[0].id not in gone(plan(entries, keep_last=1))) is held


def test_a_legal_hold_holds() -> None:
    entries = [entry(ago(days=2000), held=True), *daily(5)]
    made = plan(entries, keep_last=1)
    assert entries[0].id not in gone(made)
    assert why(made, entries[0]) == "a legal hold lies on it"


def test_a_clock_set_back_removes_nothing() -> None:
    entries = daily(40)
    made = plan(entries, ago(days=365), days=30, keep_last=1)
    assert not made.removals
    assert "one of them is wrong, and nothing is removed" in made.refused
    assert why(made, entries[0]) == made.refused


def test_a_clock_that_is_a_little_behind_the_servers_is_no_reason() -> None:
    entries = daily(40)
    assert not plan(entries, entries[-1].moment - datetime.timedelta(minutes=5), days=30).refused


@pytest.mark.parametrize("ahead", [10, 400, 36500])
def test_a_clock_far_ahead_removes_nothing(ahead: int) -> None:
    made = plan(daily(40), NOW + datetime.timedelta(days=ahead), days=30)
    assert not made.removals
    assert "either the clock is wrong or nothing was backed up for longer than usual" in made.refused
    assert "more than 4 days" in made.refused


def test_a_doubt_matters_only_where_something_could_go() -> None:
    assert not plan(daily(40), NOW + datetime.timedelta(days=400)).refused
    other = [*daily(5, database="archive"), *daily(5)]
    assert "archive" in plan(other, NOW + datetime.timedelta(days=40), days=1).refused


def test_backups_made_under_a_clock_far_ahead_make_the_others_no_older() -> None:
    entries = daily(40)
    future = [entry(NOW + datetime.timedelta(days=3650 + day)) for day in range(4)]
    made = plan([*entries, *future], future[-1].moment, days=30)
    assert not made.refused
    # the stretch of ten years counts as four days, which is long for a daily backup
    assert gone(made) == {one.id for one in entries[:17]}


def test_a_summer_without_backups_makes_nothing_older_than_it_must() -> None:
    entries = [entry(ago(days=60 + day)) for day in reversed(range(20))] + [entry(ago(hours=1))]
    made = plan(entries, days=30)
    assert not made.removals


def test_few_backups_may_be_far_apart() -> None:
    entries = [entry(ago(days=days)) for days in (60, 30)]
    assert not plan(entries, days=40).refused
    assert gone(plan([*entries, entry(ago())], days=40)) == {entries[0].id}


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_rules_something_verified_stays(seed: int) -> None:
    """Every mixture of rules and of good, unverified and bad ones, at any time of the clock."""
    kinds = itertools.cycle([(True, False), (False, False), (True, True), (True, False), (False, True)][seed % 5 :])
    entries = []
    for day in reversed(range(1 + seed * 3)):
        verified, bad = next(kinds)
        history = [proven(ago(days=day), ok=False)] if bad else []
        entries.append(entry(ago(days=day * (1 + seed % 3)), verified=verified, history=history))
    rules = {"days": seed % 4 or None, "keep_last": seed % 2, "weekly": seed % 3, "yearly": seed % 5 == 0}
    verified_ids = {one.id for one in entries if one.verified}
    for shift in (-500, -1, 0, 1, 500):
        made = plan(entries, NOW + datetime.timedelta(days=shift), **rules)
        assert {kept.id for kept in made.kept} | gone(made) == {one.id for one in entries}
        assert not {kept.id for kept in made.kept} & gone(made)
        assert made.kept
        if verified_ids:
            assert verified_ids - gone(made)


def stored(count: int) -> tuple[MemoryStore, tuple[Entry, ...]]:
    """A store with one backup a day."""
    store = MemoryStore()
    for day in range(count):
        store.add(manifest(ago(days=day, hours=1)))
    return store, load_store(store, "hospital", "hospital").entries


def test_locks_are_asked_for_only_where_something_would_go() -> None:
    store, entries = stored(6)
    store.locks[entries[0].manifest.key("data.dump.zst")] = NOW + datetime.timedelta(days=9)
    store.locks[entries[1].manifest.key("data.dump.zst")] = NOW - datetime.timedelta(days=9)
    rules = {"full": Retention(keep_last=3)}
    assert gone(retention.plan_for_store(store, entries, rules, NOW)) == {entries[1].id, entries[2].id}
    store.broken["locked_until"] = HmsError("denied")
    made = retention.plan_for_store(store, entries, rules, NOW)
    assert not made.removals
    assert "until nobody knows when: denied" in why(made, entries[0])
    assert not retention.plan_for_store(store, entries, {}, NOW).removals


def test_the_manifest_goes_first_and_nothing_else_is_touched() -> None:
    store, entries = stored(4)
    store.put(entries[0].manifest.key("verification.json"), b"{}")
    store.put("hospital/hospital/" + entries[0].id + "0/data", b"a neighbour whose name begins alike")
    plan_ = retention.plan_for_store(store, entries, {"full": Retention(keep_last=3)}, NOW)
    before = set(store.objects)
    told: list[str] = []
    assert retention.apply_retention(store, entries, plan_, removed=lambda one: told.append(one.id)) == [entries[0].id]
    assert told == [entries[0].id]
    assert store.removed[0] == entries[0].manifest.key("manifest.json")
    assert before - set(store.objects) == {
        entries[0].manifest.key(name) for name in ("manifest.json", "data.dump.zst", "verification.json")
    }


def test_what_can_not_be_removed_is_said_with_what_was_done() -> None:
    store, entries = stored(4)
    plan_ = retention.plan_for_store(store, entries, {"full": Retention(keep_last=1)}, NOW)
    second = plan_.removals[1].id
    key = next(one.manifest.key("data.dump.zst") for one in entries if one.id == second)
    store.broken[f"remove {key}"] = HmsError("denied", reason="store_failed")
    with pytest.raises(HmsError, match="denied") as raised:
        retention.apply_retention(store, entries, plan_)
    assert raised.value.phase == "retention"
    assert raised.value.details == {"removed": [plan_.removals[0].id], "failed": second}
    assert "1 of 3" in raised.value.state
    # what is left of it is no backup any more
    assert second not in {one.id for one in load_store(store, "hospital").entries}
