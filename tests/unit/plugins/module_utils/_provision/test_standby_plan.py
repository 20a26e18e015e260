# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster.model import Control, MemberFacts, Receiver
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._provision.standby_model import (
    ABSENT,
    BASEBACKUP,
    DATA,
    EMPTY,
    FOREIGN,
    PGBACKREST,
    ArchiveFacts,
    Backup,
    LocalFacts,
    SlotFacts,
    StandbyWish,
    UpstreamFacts,
)
from ansible_collections.hms.postgres.plugins.module_utils._provision.standby_plan import (
    needs_archive,
    plan,
    required_bytes,
)

WISH = StandbyWish(
    member="db2",
    upstream="db1",
    version=15,
    data_directory="/var/lib/postgresql/15/main",
    slot="db2",
    conninfo="host='db1'",
)
RECLONE = dataclasses.replace(WISH, allow_reclone=True)
UPSTREAM = UpstreamFacts(
    name="db1",
    version_number=150018,
    system_identifier="7391",
    in_recovery=False,
    timeline=1,
    slots={"db2": SlotFacts(active=True, wal_status="reserved")},
    size_bytes=10_000_000_000,
)
CONTROL = Control(state="in archive recovery", checkpoint_lsn=1, timeline=1, system_identifier="7391")
STREAMING = Receiver("streaming", "db1", 5432, "db2", 1, 0.1)


def member(**values: t.Any) -> MemberFacts:
    known = {"running": True, "responsive": True, "in_recovery": True, "standby_signal": True, "control": CONTROL}
    return MemberFacts(name="db2", **{**known, **values})


def local(**values: t.Any) -> LocalFacts:
    """A standby in order, changed as told."""
    known: dict[str, t.Any] = {
        "member": member(receiver=STREAMING),
        "content": DATA,
        "version": 15,
        "primary_conninfo": WISH.conninfo,
        "primary_slot_name": "db2",
        "free_bytes": 100_000_000_000,
    }
    return LocalFacts(**{**known, **values})


def virgin(**values: t.Any) -> LocalFacts:
    known = {"member": MemberFacts(name="db2"), "content": ABSENT, "free_bytes": 100_000_000_000}
    return LocalFacts(**{**known, **values})


def upstream(**values: t.Any) -> UpstreamFacts:
    return dataclasses.replace(UPSTREAM, **values)


def ids(made: t.Any) -> list[str]:
    return [action.id for action in made.actions]


def test_a_standby_in_order_is_left_alone() -> None:
    assert plan(WISH, local(), UPSTREAM).actions == ()
    assert plan(RECLONE, local(), UPSTREAM).actions == (), "a word that is not needed changes nothing"


@pytest.mark.parametrize("content", [ABSENT, EMPTY])
def test_a_new_host_is_copied(content: str) -> None:
    made = plan(WISH, virgin(content=content), upstream(slots={}))
    assert ids(made) == ["create_slot", "clone"]
    assert made.clones
    assert "10.00 GB" in made.lines()[1]


def test_what_a_killed_copy_left_is_removed_and_its_slot_used() -> None:
    slots = {"db2": SlotFacts(active=False, wal_status="reserved")}
    made = plan(WISH, virgin(leftovers=("/d.clone-1", "/d.clone-2")), upstream(slots=slots))
    assert ids(made) == ["remove_leftover", "remove_leftover", "clone"]


def test_a_copy_that_still_runs_for_nobody_is_ended() -> None:
    made = plan(WISH, virgin(leftovers=("/d.clone-1",), orphans=(4711,)), UPSTREAM)
    assert ids(made) == ["remove_leftover", "clone"]
    assert "4711" in made.lines()[0]


def test_a_lost_slot_is_made_anew_for_a_copy() -> None:
    slots = {"db2": SlotFacts(active=False, wal_status="lost")}
    assert ids(plan(WISH, virgin(), upstream(slots=slots))) == ["drop_slot", "create_slot", "clone"]


def test_an_upstream_that_changed_is_followed() -> None:
    made = plan(WISH, local(primary_conninfo="host='db3'"), upstream(slots={}))
    assert ids(made) == ["create_slot", "point"]


def test_a_missing_standby_signal_is_written() -> None:
    assert ids(plan(WISH, local(member=member(standby_signal=False)), UPSTREAM)) == ["signal"]


def test_a_stopped_standby_is_pointed_on_disk() -> None:
    stopped = member(running=False, responsive=False, in_recovery=None)
    assert ids(plan(WISH, local(member=stopped, primary_slot_name=""), UPSTREAM)) == ["point"]


def stopped_primary() -> LocalFacts:
    return local(member=member(running=False, responsive=False, in_recovery=None, standby_signal=False))


def fenced_once(**values: t.Any) -> LocalFacts:
    """A primary that crashed; its fence was taken away, the standby.signal stayed."""
    control = dataclasses.replace(CONTROL, state="in production")
    return local(member=member(running=False, responsive=False, in_recovery=None, control=control), **values)


def test_a_copy_that_was_never_started_is_no_former_primary() -> None:
    assert plan(WISH, fenced_once(fresh_copy=True), upstream(slots={"db2": SlotFacts(False, "reserved")})).actions == ()


OBSTACLES = [
    (local(version=14), UPSTREAM, "data_of_other_version"),
    (local(), upstream(system_identifier="1"), "other_cluster"),
    (stopped_primary(), upstream(slots={}), "was_primary"),
    (fenced_once(), upstream(slots={}), "was_primary"),
    (local(member=member()), upstream(slots={"db2": SlotFacts(False, "lost")}), "wal_lost"),
]


@pytest.mark.parametrize(("here", "there", "reason"), OBSTACLES)
def test_data_is_never_replaced_without_a_word(here: LocalFacts, there: UpstreamFacts, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        plan(WISH, here, there)
    assert caught.value.reason == reason
    assert "replication_allow_reclone=db2" in caught.value.next_step


@pytest.mark.parametrize(("here", "there", "_reason"), OBSTACLES)
def test_with_the_word_it_is_kept_aside(here: LocalFacts, there: UpstreamFacts, _reason: str) -> None:
    made = plan(RECLONE, here, there)
    assert made.clones
    assert made.has("set_aside")
    assert made.has("stop") == here.member.running


def test_a_lost_slot_does_not_matter_while_it_streams() -> None:
    assert plan(WISH, local(), upstream(slots={"db2": SlotFacts(False, "lost")})).actions == ()


@pytest.mark.parametrize(
    ("wish", "here", "there", "reason"),
    [
        (dataclasses.replace(RECLONE, upstream="db2"), virgin(), UPSTREAM, "upstream_is_self"),
        (RECLONE, local(member=member(fence={"at": "now", "operation": "x"})), UPSTREAM, "fenced"),
        (RECLONE, local(member=member(in_recovery=False)), UPSTREAM, "runs_as_primary"),
        (RECLONE, local(member=member(responsive=False, in_recovery=None)), UPSTREAM, "not_responsive"),
        (RECLONE, virgin(content=FOREIGN), UPSTREAM, "not_a_data_directory"),
        (RECLONE, virgin(), upstream(version_number=140009), "version_differs"),
        (WISH, virgin(mount_point=True), upstream(slots={}), "mount_point"),
        (WISH, virgin(), UPSTREAM, "slot_in_use"),
        (WISH, virgin(), upstream(slots={}, tablespaces=2), "tablespaces"),
        (WISH, virgin(free_bytes=10_500_000_000), upstream(slots={}), "disk_full"),
    ],
)
def test_what_no_word_overrides(wish: StandbyWish, here: LocalFacts, there: UpstreamFacts, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        plan(wish, here, there)
    assert caught.value.reason == reason
    assert caught.value.state == "Nothing was touched."
    assert caught.value.next_step


def test_a_small_cluster_needs_a_reserve_too() -> None:
    assert required_bytes(1_000_000) == 1_000_000 + 256 * 1024 * 1024
    assert required_bytes(10**12) == 11 * 10**11


RESTORED = dataclasses.replace(WISH, clone_method=PGBACKREST, restore_command="get %f")
BACKUP = Backup("F", "full", "now", 9_000_000_000, 1_000_000_000, "there", ("an older one",))
FOUND = ArchiveFacts(backup=BACKUP)
LOST = upstream(slots={"db2": SlotFacts(False, "lost")})


def test_a_new_host_is_restored() -> None:
    made = plan(RESTORED, virgin(), upstream(slots={}), FOUND)
    assert ids(made) == ["create_slot", "clone"]
    assert "F of there (full, now, 9.00 GB, 1.00 GB to fetch)" in made.lines()[1]
    assert (made.backup, made.warnings) == (BACKUP, ("an older one",))


def test_a_restore_that_has_not_ended_goes_on() -> None:
    here = virgin(leftovers=("/d.clone-1", "/d.clone-2"), resumable="/d.clone-2", orphans=(4711,))
    made = plan(RESTORED, here, UPSTREAM, FOUND)
    assert ids(made) == ["remove_leftover", "resume", "clone"]
    assert "4711" in made.lines()[1]
    assert ids(plan(WISH, here, UPSTREAM)) == ["remove_leftover", "remove_leftover", "clone"]


def test_what_is_there_already_needs_no_room_again() -> None:
    free = required_bytes(10_000_000_000) - 4_000_000_000
    begun = virgin(leftovers=("/d.clone-1",), resumable="/d.clone-1", free_bytes=free, reusable_bytes=4_000_000_000)
    assert plan(RESTORED, begun, upstream(slots={}), FOUND).has("resume")
    for wish, here in (
        (WISH, begun),
        (RESTORED, dataclasses.replace(begun, reusable_bytes=3_999_999_999)),
        (RESTORED, dataclasses.replace(begun, resumable="")),
    ):
        with pytest.raises(Refused) as caught:
            plan(wish, here, upstream(slots={}), FOUND)
        assert caught.value.reason == "disk_full"


def test_without_a_backup_the_upstream_is_copied_only_by_that_word() -> None:
    found = ArchiveFacts(refusal=Refused("There is none.", reason="no_backup", next_step="Make one."))
    with pytest.raises(Refused, match="There is none") as caught:
        plan(RESTORED, virgin(), upstream(slots={}), found)
    assert "basebackup" in caught.value.next_step
    made = plan(dataclasses.replace(RESTORED, clone_fallback=True), virgin(), upstream(slots={}), found)
    assert made.backup is None
    assert "There is none" in made.warnings[0]
    assert "pg_basebackup" in made.lines()[1]
    with pytest.raises(HmsError, match="cannot be"):
        plan(RESTORED, virgin(), upstream(slots={}))


def test_old_data_is_used_up_only_by_that_word() -> None:
    wish = dataclasses.replace(RESTORED, allow_reclone=True, reuse_data=True)
    there = upstream(slots={})
    assert ids(plan(wish, stopped_primary(), there, FOUND)) == ["reuse", "create_slot", "clone"]
    assert "LOST" in plan(wish, stopped_primary(), there, FOUND).lines()[0]
    with_leftover = dataclasses.replace(stopped_primary(), leftovers=("/d.clone-1",), resumable="/d.clone-1")
    for kept, here in (
        (dataclasses.replace(wish, reuse_data=False), stopped_primary()),
        (dataclasses.replace(wish, clone_method=BASEBACKUP), stopped_primary()),
        (wish, with_leftover),
    ):
        assert plan(kept, here, there, FOUND).has("set_aside")
    other = dataclasses.replace(there, system_identifier="1")
    assert plan(wish, stopped_primary(), other, FOUND).has("set_aside"), "data of another cluster is kept"


def test_a_lost_slot_is_made_anew_where_the_archive_has_the_wal() -> None:
    here = local(member=member())
    made = plan(RESTORED, here, LOST, ArchiveFacts())
    assert ids(made) == ["drop_slot", "create_idle_slot"]
    assert plan(dataclasses.replace(RESTORED, allow_reclone=True), here, LOST, FOUND).actions == made.actions
    with pytest.raises(Refused, match="The archive can't help: it is far away") as caught:
        plan(RESTORED, here, LOST, ArchiveFacts(gap="it is far away"))
    assert caught.value.reason == "wal_lost"


@pytest.mark.parametrize(("found", "expected"), [(None, []), ("get %f", []), ("", ["fetch"]), ("other", ["fetch"])])
def test_a_restore_command_that_overrides_is_corrected(found: str | None, expected: list[str]) -> None:
    assert ids(plan(RESTORED, local(restore_command=found), UPSTREAM)) == expected
    assert plan(WISH, local(restore_command=found), UPSTREAM).actions == ()


def test_the_repository_is_looked_at_only_where_it_matters() -> None:
    assert needs_archive(RESTORED, virgin(), UPSTREAM) == (True, False)
    assert needs_archive(WISH, virgin(), UPSTREAM) == (False, False)
    assert needs_archive(RESTORED, local(), UPSTREAM) == (False, False)
    assert needs_archive(dataclasses.replace(RESTORED, allow_reclone=True), local(), UPSTREAM) == (True, False)
    assert needs_archive(RESTORED, local(member=member()), LOST) == (False, True)
    assert needs_archive(WISH, local(member=member()), LOST) == (False, False)
