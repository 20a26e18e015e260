# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime

from ansible_collections.hms.postgres.plugins.module_utils._backup import sweep
from ansible_collections.hms.postgres.plugins.module_utils._store.model import Debris
from ansible_collections.hms.postgres.tests.unit.plugins.module_utils._backup.backups import (
    NOW,
    MemoryStore,
    ago,
    manifest,
)


def left_by_a_kill(store: MemoryStore, age: float) -> str:
    """A backup whose manifest was never written; its folder."""
    made = manifest(ago(days=age + 1))
    store.add(made, at=ago(days=age))
    del store.objects[made.key("manifest.json")]
    return made.folder


def test_what_is_older_than_a_day_goes_and_what_is_younger_stays() -> None:
    store = MemoryStore()
    whole = store.add(manifest(ago(days=9)), at=ago(days=9))
    old, young = left_by_a_kill(store, 1.1), left_by_a_kill(store, 0.5)
    store.left = [
        Debris("hospital/hospital/a/data", "1", ago(days=2), 7),
        Debris("hospital/hospital/b/data", "2", ago(days=0.1)),
        Debris("clinic/hospital/c/data", "3", ago(days=2)),
    ]
    # something was stored just now, so the store's time is known
    store.add(manifest(ago()), at=NOW)
    found = sweep.debris(store, "hospital", "hospital", NOW)
    assert found.as_dict() == {
        "folders": [old],
        "unfinished": ["hospital/hospital/a/data"],
        "bytes": 11,
        "young": 2,
    }
    assert found.anything
    sweep.sweep(store, found)
    assert f"{old}/data.dump.zst" not in store.objects
    assert f"{young}/data.dump.zst" in store.objects
    assert whole.key("data.dump.zst") in store.objects
    assert [one.upload for one in store.left] == ["2", "3"]
    assert not sweep.debris(store, "hospital", "hospital", NOW).anything


def test_a_clock_far_ahead_sweeps_nothing_that_is_in_the_making() -> None:
    store = MemoryStore()
    left_by_a_kill(store, 0.1)
    store.left = [Debris("hospital/hospital/a/data", "1", ago(hours=1))]
    found = sweep.debris(store, "hospital", "hospital", NOW + datetime.timedelta(days=3650))
    assert not found.anything
    assert found.young == 2


def test_a_clock_set_back_sweeps_nothing() -> None:
    store = MemoryStore()
    left_by_a_kill(store, 3)
    store.add(manifest(ago()), at=NOW)
    assert not sweep.debris(store, "hospital", "hospital", ago(days=30)).anything


def test_what_is_not_ours_stays() -> None:
    store = MemoryStore()
    for key in ("hospital/hospital/photos/1.jpg", "hospital/hospital/notes", "hospital/hospital/x/y/z"):
        store.objects[key] = (b"", ago(days=900))
    held = left_by_a_kill(store, 900)
    store.objects[f"{held}/hold.json"] = (b"", ago(days=900))
    store.add(manifest(ago()), at=NOW)
    found = sweep.debris(store, "hospital", "hospital", NOW)
    assert (found.anything, found.young) == (False, 0)
    sweep.sweep(store, found)
    assert store.removed == []


def test_an_empty_store_has_none() -> None:
    assert sweep.debris(MemoryStore(), "hospital", "hospital", NOW) == sweep.Found()
