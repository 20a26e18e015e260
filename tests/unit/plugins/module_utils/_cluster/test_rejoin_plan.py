# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster.dossier_wal import CommonCheckpoint
from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import MemberFacts, Receiver, Slot
from ansible_collections.hms.postgres.plugins.module_utils._cluster.rejoin_history import Fork, Stretch
from ansible_collections.hms.postgres.plugins.module_utils._cluster.rejoin_model import (
    Divergence,
    Mark,
    PrimaryFacts,
    RejoinFacts,
    RejoinPlan,
    RejoinWish,
)
from ansible_collections.hms.postgres.plugins.module_utils._cluster.rejoin_peers import Answer
from ansible_collections.hms.postgres.plugins.module_utils._cluster.rejoin_plan import plan, stale_slots
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._tools.pg_controldata import ControlData

MB = 1 << 20
FORK = Fork(1, 48 * MB)
HISTORY = (Stretch(1, 0, FORK.lsn), Stretch(2, FORK.lsn, None))
CONTROL = ControlData(
    state="shut down",
    checkpoint_lsn=40 * MB,
    redo_lsn=40 * MB,
    timeline=1,
    system_identifier="7391",
    checkpoint_at="",
    checksums=True,
    wal_log_hints=False,
    min_recovery_lsn=0,
    min_recovery_timeline=0,
    wal_segment_size=16 * MB,
)
LEADER = Answer(
    "db2", "writable", "10.0.0.2", 5432, system_identifier="7391", timeline=2, control_timeline=2, lsn=60 * MB,
    version_number=150018,
)  # fmt: skip
PRIMARY = PrimaryFacts(LEADER, HISTORY, slots=(Slot("db1", False, "reserved", 0),))
DOWN = MemberFacts(name="db1", standby_signal=True, fence={"operation": "20260101T000000Z-failover-0000"})
SAME = Divergence(fork=FORK, diverged=False)
BEHIND = Divergence(fork=FORK, diverged=True, common=CommonCheckpoint(40 * MB, 40 * MB))
FACTS = RejoinFacts(
    name="db1",
    slot_name="db1",
    member=DOWN,
    answers=(LEADER,),
    control=CONTROL,
    primary=PRIMARY,
    divergence=SAME,
    start_conf="disabled",
)
MARK = Mark("op", "db2", 2, 1, "0/3000000", "/kept")
NOTHING, RECLONE = RejoinWish(), RejoinWish(allow_reclone=True)


def having(**changes: t.Any) -> RejoinFacts:
    return dataclasses.replace(FACTS, **changes)


def ids(found: RejoinPlan) -> list[str]:
    return [action.id for action in found.actions]


def refused(facts: RejoinFacts, wish: RejoinWish = NOTHING) -> Refused:
    with pytest.raises(Refused) as caught:
        plan(facts, wish)
    assert caught.value.next_step
    assert caught.value.state
    return caught.value


def running(**changes: t.Any) -> MemberFacts:
    receiver = Receiver("streaming", "10.0.0.2", 5432, "db1", 2, 0.1)
    base = MemberFacts(
        name="db1", running=True, responsive=True, in_recovery=True, version_number=150018, timeline=2, lsn=50 * MB,
        receiver=receiver, standby_signal=True,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


STREAMED = dataclasses.replace(PRIMARY, streaming=("db1",), slots=(Slot("db1", True, "reserved", 0),))


def streaming(**changes: t.Any) -> RejoinFacts:
    return having(member=running(**changes), primary=STREAMED, start_conf="auto", points_at_primary=True)


def test_nothing_to_do() -> None:
    found = plan(streaming(), NOTHING)
    assert (found.case, ids(found)) == ("streaming", [])


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (streaming(standby_signal=False), ["signal"]),
        (streaming(fence={"operation": "x"}), ["unfence"]),
        (dataclasses.replace(streaming(), start_conf="disabled"), ["unfence"]),
        (dataclasses.replace(streaming(), start_conf="manual"), []),
        (streaming(receiver=None), ["verify"]),
        (dataclasses.replace(streaming(receiver=None), points_at_primary=False), ["point", "verify"]),
        (
            dataclasses.replace(streaming(receiver=None), primary=dataclasses.replace(PRIMARY, slots=())),
            ["create_slot", "verify"],
        ),
        (streaming(slots=(Slot("db2", False, "reserved", 9),)), ["drop_stale_slots"]),
        (streaming(slots=(Slot("db2", True, "reserved", 9), Slot("db3", False, "reserved", 9))), []),
    ],
)
def test_a_standby_that_runs_is_set_right(facts: RejoinFacts, expected: list[str]) -> None:
    assert ids(plan(facts, NOTHING)) == expected


def test_only_slots_of_members_that_stream_elsewhere_are_stale() -> None:
    slots = [Slot(name, False, "", 0) for name in ("db2", "db3", "db4", "backup")]
    primary = dataclasses.replace(PRIMARY, streaming=("db3",))
    assert stale_slots(slots, primary, {"db2", "db3", "db4"}) == ["db2", "db3"]


def test_a_diverged_standby_is_stopped_first() -> None:
    found = plan(dataclasses.replace(streaming(), divergence=BEHIND), NOTHING)
    assert (found.case, ids(found), found.look_again) == ("diverged_standby", ["stop"], True)


def test_no_primary() -> None:
    silent = Answer("db2", "unreachable", error="no route")
    error = refused(having(primary=None, answers=(silent,)))
    assert error.reason == "no_primary"
    assert "no route" in error.message


def test_this_is_the_primary() -> None:
    member = running(in_recovery=False)
    standby = Answer("db2", "standby", system_identifier="7391", timeline=2)
    assert refused(having(primary=None, answers=(standby,), member=member)).reason == "is_primary"


def test_two_others_are_writable() -> None:
    other = dataclasses.replace(LEADER, name="db3")
    error = refused(having(answers=(LEADER, other), primary=None))
    assert error.reason == "two_primaries"
    assert "db2, db3" in error.message


def test_a_second_primary_is_only_stopped_with_a_word_or_a_fence() -> None:
    member = running(in_recovery=False)
    error = refused(having(member=member))
    assert error.reason == "two_primaries"
    assert "still takes writes" in error.state
    for facts, wish in (
        (having(member=member), RejoinWish(allow_stop=True)),
        (having(member=dataclasses.replace(member, fence={"operation": "x"})), NOTHING),
    ):
        found = plan(facts, wish)
        assert (found.case, ids(found), found.look_again) == ("second_primary", ["stop"], True)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"control": None}, "no_instance"),
        ({"control": CONTROL._replace(system_identifier="1")}, "other_cluster"),
        ({"member": running(version_number=140010)}, "version_differs"),
        ({"member": running(responsive=False, error="timeout")}, "not_responsive"),
        ({"divergence": Divergence(fork=None, diverged=False, ahead=True)}, "ahead_on_same_timeline"),
        ({"member": running(), "divergence": Divergence(None, False, ahead=True)}, "ahead_on_same_timeline"),
        ({"primary": dataclasses.replace(PRIMARY, slots=(Slot("db1", True, "reserved", 0),))}, "slot_in_use"),
        ({"primary": dataclasses.replace(PRIMARY, slots=(Slot("db1", False, "lost", 0),))}, "wal_lost"),
        ({"divergence": BEHIND, "control": CONTROL._replace(checksums=False)}, "rewind_unprepared"),
        ({"divergence": dataclasses.replace(BEHIND, common=None)}, "wal_missing"),
        ({"divergence": dataclasses.replace(BEHIND, source_has_wal=False)}, "source_wal_missing"),
        ({"divergence": Divergence(None, True, problem=HmsError("gone", reason="history_missing"))}, "history_missing"),
    ],
)
def test_refusals(changes: dict[str, t.Any], reason: str) -> None:
    assert refused(having(**changes)).reason == reason


@pytest.mark.parametrize(
    "changes",
    [
        {"control": None},
        {"primary": dataclasses.replace(PRIMARY, slots=(Slot("db1", False, "lost", 0),))},
        {"divergence": BEHIND, "control": CONTROL._replace(checksums=False)},
        {"divergence": dataclasses.replace(BEHIND, common=None)},
        {"divergence": Divergence(None, True, problem=HmsError("gone", reason="history_missing"))},
    ],
)
def test_a_new_copy_only_with_the_word(changes: dict[str, t.Any]) -> None:
    found = plan(having(**changes), RECLONE)
    assert found.case == "reclone"
    assert ids(found)[-5:] == ["reclone", "configure", "unfence", "start", "verify"]
    assert "recover" not in ids(found)


def test_the_system_identifier_is_never_overridden() -> None:
    facts = having(control=CONTROL._replace(system_identifier="1"))
    assert refused(facts, RejoinWish(allow_reclone=True, allow_stop=True)).reason == "other_cluster"


def test_start() -> None:
    found = plan(FACTS, NOTHING)
    assert found.case == "start"
    assert ids(found) == ["configure", "unfence", "start", "verify", "drop_stale_slots"]
    unfenced = having(member=dataclasses.replace(DOWN, fence=None), start_conf="auto")
    assert ids(plan(unfenced, NOTHING)) == ["configure", "start", "verify", "drop_stale_slots"]


def test_an_archive_makes_up_for_a_lost_slot() -> None:
    primary = dataclasses.replace(PRIMARY, slots=(Slot("db1", False, "lost", 0),))
    found = plan(having(primary=primary, divergence=dataclasses.replace(SAME, restore_command="x")), NOTHING)
    assert (found.case, ids(found)[0]) == ("start", "renew_slot")


def test_rewind_keeps_the_evidence_first() -> None:
    found = plan(having(divergence=BEHIND), NOTHING)
    assert ids(found) == ["list_losses", "keep_wal", "rewind", "configure", "unfence", "start", "verify"]
    assert [action.phase for action in found.actions][:3] == ["dossier", "dossier", "rewind"]


def test_rewind_after_a_crash_before_the_checkpoint_without_a_slot() -> None:
    primary = PrimaryFacts(dataclasses.replace(LEADER, control_timeline=1), HISTORY)
    facts = having(divergence=BEHIND, primary=primary, control=CONTROL._replace(state="in production"))
    expected = ["create_slot", "list_losses", "recover", "keep_wal", "await_checkpoint", "rewind"]
    assert ids(plan(facts, NOTHING))[:6] == expected


def test_wal_from_an_archive_will_do() -> None:
    divergence = dataclasses.replace(BEHIND, common=None, source_has_wal=False, restore_command="cp %f %p")
    assert plan(having(divergence=divergence), NOTHING).case == "rewind"


# -- what a killed run left -----------------------------------------------------------------------------------------


def test_an_orphan_is_waited_for() -> None:
    found = plan(having(rewinding=(4711,), divergence=None), NOTHING)
    assert (found.case, ids(found), found.look_again) == ("rewind_running", ["await_rewind"], True)


def test_a_killed_rewind_is_repeated() -> None:
    found = plan(having(mark=MARK, mark_state="killed", divergence=None), NOTHING)
    assert ids(found) == ["resume_rewind", "configure", "unfence", "start", "verify"]


def test_a_finished_rewind_is_only_synced() -> None:
    found = plan(having(mark=MARK, mark_state="finished", divergence=None), NOTHING)
    assert ids(found) == ["sync", "configure", "unfence", "start", "verify"]


def test_a_stale_mark_changes_nothing() -> None:
    assert plan(having(mark=MARK, mark_state="stale"), NOTHING).case == "start"


@pytest.mark.parametrize(
    "mark", [dataclasses.replace(MARK, source="db3"), dataclasses.replace(MARK, source_timeline=3)]
)
def test_half_rewound_to_somebody_else(mark: Mark) -> None:
    facts = having(mark=mark, mark_state="killed", divergence=None)
    error = refused(facts)
    assert error.reason == "half_rewound"
    assert "/kept" in error.next_step
    assert plan(facts, RECLONE).case == "reclone"


def test_a_hopeless_rewind_is_not_repeated_when_a_copy_is_allowed() -> None:
    facts = having(mark=dataclasses.replace(MARK, failure="wal_missing"), mark_state="killed", divergence=None)
    assert plan(facts, NOTHING).case == "resume"
    assert plan(facts, RECLONE).case == "reclone"
