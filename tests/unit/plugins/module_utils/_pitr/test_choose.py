# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact import pgbackrest_wal as wal
from ansible_collections.hms.postgres.plugins.module_utils._clock import parse_iso
from ansible_collections.hms.postgres.plugins.module_utils._errors import Refused
from ansible_collections.hms.postgres.plugins.module_utils._pitr import choose
from ansible_collections.hms.postgres.plugins.module_utils._pitr.locate import intervals
from ansible_collections.hms.postgres.plugins.module_utils._pitr.model import Located, Target
from ansible_collections.hms.postgres.plugins.module_utils._pitr.stream import Leg, route
from ansible_collections.hms.postgres.plugins.module_utils._tools.pgbackrest import BackupSet, Generation
from ansible_collections.hms.postgres.tests.unit.plugins import repositories

MB16 = 16 * 1024 * 1024
NOON = 1_750_586_400  # 2025-06-22 10:00:00 UTC


def backup(label: str, segment: int, stop: int, timeline: int = 1) -> BackupSet:
    """A backup within one segment."""
    told = {"start": stop - 10, "stop": stop, "lsn_stop": f"0/{segment:X}000100"}
    return repositories.backup(label, segment, segment, timeline=timeline, **told)


def known(
    *backups: BackupSet, runs: dict[int, tuple[wal.Run, ...]], histories: dict[int, str] | None = None
) -> choose.Known:
    """A repository."""
    archive = wal.Archive(runs, histories or {}, dict.fromkeys(runs, NOON + 3600))
    return choose.Known(Generation(1, "15-1", "", "", "77", "15"), backups, archive, wal.Layout(MB16))


TWO = known(backup("first", 3, NOON), backup("second", 8, NOON + 1000), runs={1: (wal.Run(3, 20),)})


def at(seconds: float) -> Target:
    """A target by time, from noon on."""
    moment = datetime.datetime.fromtimestamp(NOON + seconds, datetime.timezone.utc)
    return Target("time", f"{moment:%Y-%m-%d %H:%M:%S.%f}+00")


@pytest.mark.parametrize(
    ("target", "located", "expected"),
    [
        (at(1), None, "first"),
        (at(1000.5), None, "first"),
        (at(1001), None, "second"),
        (Target("lsn", "0/3000100"), None, "first"),
        (Target("lsn", "0/9000000"), None, "second"),
        (Target("xid", "7"), Located(0x4000000, 1, ""), "first"),
        (Target("xid", "7"), Located(0x9000000, 1, ""), "second"),
        (Target("immediate"), None, "second"),
    ],
)
def test_the_newest_backup_that_was_complete_before(target: Target, located: Located | None, expected: str) -> None:
    assert choose.choose(target, TWO, located=located).label == expected


def test_a_label_is_obeyed_and_a_wrong_one_refused() -> None:
    assert choose.choose(at(2000), TWO, located=None, label="first").label == "first"
    with pytest.raises(Refused) as refused:
        choose.choose(at(2000), TWO, located=None, label="third")
    assert refused.value.reason == "no_such_backup"


@pytest.mark.parametrize("target", [at(0.5), at(-100), Target("lsn", "0/3000028")])
def test_before_the_oldest_backup_the_earliest_moment_is_told(target: Target) -> None:
    with pytest.raises(Refused, match=r"2025-06-22T10:00:01\.000Z") as refused:
        choose.choose(target, TWO, located=None)
    assert refused.value.reason == "before_backup"


def test_a_backup_that_lacks_wal_of_its_own_is_passed_over() -> None:
    broken = known(*TWO.backups, runs={1: (wal.Run(3, 7), wal.Run(9, 20))})
    assert choose.choose(at(2000), broken, located=None).label == "first"
    nothing = known(*TWO.backups, runs={1: (wal.Run(9, 20),)})
    with pytest.raises(Refused) as refused:
        choose.choose(at(2000), nothing, located=None)
    assert refused.value.reason == "no_backup"


HOLE = known(*TWO.backups, runs={1: (wal.Run(3, 11), wal.Run(14, 20))})


def holes(target: Target, stored: str = "2025-06-22T10:20:00Z", located: Located | None = None) -> list[str]:
    """What is said about HOLE."""
    found = choose.holes_after(HOLE, "second", 0)
    return choose.check_holes(target, found, located=located, layout=HOLE.layout, stored_before=parse_iso(stored))


@pytest.mark.parametrize(
    ("target", "located"),
    [(at(1201), None), (Target("lsn", "0/C000000"), None), (Target("xid", "7"), Located(0xC000000, 1, ""))],
)
def test_behind_a_hole_is_refused_with_its_name(target: Target, located: Located | None) -> None:
    with pytest.raises(Refused, match="00000001000000000000000C") as refused:
        holes(target, located=located)
    assert refused.value.reason == "wal_missing"


def test_before_a_hole_is_warned_of() -> None:
    assert "00000001000000000000000C" in holes(at(1100))[0]
    assert holes(Target("immediate")) == []
    assert choose.holes_after(TWO, "first", 0) == ()


def test_the_future_is_refused() -> None:
    now = datetime.datetime.fromtimestamp(NOON + 4000, datetime.timezone.utc)
    choose.check_future(at(3999), TWO.newest, now, can_flush=True)
    for target, can_flush in ((at(4001), True), (at(3999), False)):
        with pytest.raises(Refused) as refused:
            choose.check_future(target, TWO.newest, now, can_flush=can_flush)
        assert refused.value.reason == "in_the_future"


def test_wal_is_flushed_only_where_the_target_may_need_it() -> None:
    end = choose.archived_to(TWO.archive, TWO.layout)
    assert end == 21 * MB16
    assert choose.needs_flush(Target("lsn", "0/15000000"), TWO.newest, end)
    assert not choose.needs_flush(Target("lsn", "0/14FFFFFF"), TWO.newest, end)
    assert choose.needs_flush(at(100), TWO.newest, end)
    assert not choose.needs_flush(at(-100), TWO.newest, end)
    assert choose.needs_flush(Target("xid", "7"), TWO.newest, end)
    assert not choose.needs_flush(Target("immediate"), TWO.newest, end)


FORKED = known(
    backup("old", 3, NOON),
    backup("abandoned", 12, NOON + 500),
    backup("new", 14, NOON + 1000, timeline=2),
    runs={1: (wal.Run(3, 12),), 2: (wal.Run(10, 20),)},
    histories={2: "1\t0/A000200\tno recovery target specified\n"},
)


def test_after_a_failover_recovery_follows_the_timeline() -> None:
    assert [one.label for one in choose.usable(FORKED, 0)] == ["old", "new"]
    assert [one.label for one in choose.usable(FORKED, 1)] == ["old", "abandoned"]
    assert choose.choose(at(600), FORKED, located=None).label == "old"
    assert choose.choose(Target("time", at(600).value, timeline=1), FORKED, located=None).label == "abandoned"
    assert route(FORKED, 0, FORKED.backups[0].wal_start) == [Leg(1, 3, 9), Leg(2, 10, 20)]
    assert route(FORKED, 1, FORKED.backups[0].wal_start) == [Leg(1, 3, 12)]


def test_the_search_goes_from_the_newest_backup_back() -> None:
    assert intervals(TWO, Target("xid", "7")) == [[Leg(1, 8, 20)], [Leg(1, 3, 8)]]
    assert intervals(FORKED, Target("xid", "7")) == [[Leg(2, 14, 20)], [Leg(1, 3, 9), Leg(2, 10, 14)]]
    assert intervals(HOLE, Target("xid", "7"))[0] == [Leg(1, 8, 11), Leg(1, 14, 20)]
