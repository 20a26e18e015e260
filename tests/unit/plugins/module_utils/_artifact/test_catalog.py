# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import gzip
import json
import random
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact import catalog, catalog_cache
from ansible_collections.hms.postgres.plugins.module_utils._artifact.catalog_parse import (
    HISTORY,
    Pool,
    history_to_bytes,
    manifest_from_bytes,
    manifest_from_cache,
)
from ansible_collections.hms.postgres.plugins.module_utils._artifact.manifest import Manifest, Member
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.tests.unit.plugins.module_utils._backup.backups import (
    MemoryStore,
    ago,
    entry,
    manifest,
    proven,
    with_parent,
)

CACHE = "hospital/hospital/catalog.jsonl.gz"


def lines_of(store: MemoryStore) -> list[dict[str, t.Any]]:
    """What the cache holds, its first line left out."""
    return [json.loads(line) for line in gzip.decompress(store.objects[CACHE][0]).splitlines()[1:]]


def as_cache(*lines: t.Any) -> bytes:
    """A cache with these lines after its first."""
    return gzip.compress(b"".join(json.dumps(line).encode() + b"\n" for line in ({"schema": 2}, *lines)))


def test_backups_come_oldest_first_and_without_what_fills_a_catalog() -> None:
    store = MemoryStore()
    made = [store.add(manifest(ago(days=day))) for day in (1, 3, 2)]
    found = catalog.load([store], "hospital")
    assert [one.id for one in found.entries] == [made[1].id, made[2].id, made[0].id]
    assert found.problems == ()
    assert found.entries[0].verified
    assert found.entries[0].store == "memory"
    assert dict(found.entries[0].manifest.contents) == {"database_bytes": 1000}
    assert catalog.read_manifest(store, found.entries[0]).contents["rows"] == {"public.patient": 3}


def test_a_second_listing_reads_one_object() -> None:
    store = MemoryStore()
    for day in range(50):
        store.add(manifest(ago(days=day)))
    first = catalog.load([store], "hospital", "hospital")
    assert first.read == 50
    store.gets.clear()
    second = catalog.load([store], "hospital", "hospital")
    assert (second.read, store.gets) == (0, [CACHE])
    assert second.entries == first.entries


def test_only_what_is_new_or_changed_is_read() -> None:
    store = MemoryStore()
    old = [store.add(manifest(ago(days=day))) for day in range(5)]
    catalog.load([store], "hospital")
    new = store.add(manifest(ago()))
    changed = dataclasses.replace(old[2], by="somebody else")
    store.put(changed.key("manifest.json"), json.dumps(changed.as_dict()).encode(), replace=True)
    store.remove([old[0].key("manifest.json")])
    store.gets.clear()
    found = catalog.load([store], "hospital")
    assert set(store.gets) == {CACHE, new.key("manifest.json"), changed.key("manifest.json")}
    assert old[0].id not in {one.id for one in found.entries}
    assert f"{old[0].id}/manifest.json" not in {line["k"] for line in lines_of(store)}
    assert [one.manifest.by for one in found.entries if one.id == changed.id] == ["somebody else"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\x00",
        b"{}",
        b'{"schema": 1, "objects": {}}',
        gzip.compress(b""),
        gzip.compress(b"[]\n"),
        gzip.compress(b'{"schema": 1}\n'),
        gzip.compress(b'{"schema": 2}\n{"k": "x"'),
        gzip.compress(b'{"schema": 2}\n\xff\n'),
        gzip.compress(b'{"schema": 2}\n' + b"[" * 100_000 + b"\n"),
        gzip.compress(b'{"schema": 2}\n"' + b"x" * (catalog_cache.LINE_LIMIT + 1) + b'"\n'),
        as_cache(3),
        as_cache([]),
        as_cache({"k": "x"}),
        as_cache({"k": 1, "t": {}, "m": {}}),
    ],
)
def test_a_cache_that_is_no_use_is_made_anew(content: bytes) -> None:
    store = MemoryStore()
    made = store.add(manifest(ago()))
    store.put(CACHE, content, replace=True)
    assert len(catalog.load([store], "hospital").entries) == 1
    assert [line["k"] for line in lines_of(store)] == [f"{made.id}/manifest.json"]


def test_a_cache_that_is_damaged_anywhere_changes_nothing_that_is_listed() -> None:
    store = MemoryStore()
    made = [store.add(manifest(ago(days=day))) for day in range(30)]
    store.put(made[3].key("manifest.json"), b"garbled", replace=True)
    store.put(made[4].key("verification.json"), history_to_bytes(made[4].id, [proven(ago(), ok=False)]))
    truth = catalog.load([store], "hospital")
    assert (len(truth.entries), len(truth.problems)) == (29, 1)
    good, source = store.objects[CACHE][0], random.Random(3)  # positions, not secrets
    damaged = [good[:length] for length in range(0, len(good), 97)]
    for _number in range(100):
        place = source.randrange(10, len(good))  # the head of a gzip file holds bytes that mean nothing
        damaged.append(good[:place] + bytes([good[place] ^ 1 << source.randrange(8)]) + good[place + 1 :])
    for content in (*damaged, good + b"more", good + good):
        store.put(CACHE, content, replace=True)
        found = catalog.load([store], "hospital")
        assert (found.entries, found.problems) == (truth.entries, truth.problems)
        assert store.objects[CACHE][0] == good
    assert catalog.load([store], "hospital").read == 0


def test_what_a_cache_says_of_a_backup_that_is_gone_or_replaced_is_not_believed() -> None:
    store = MemoryStore()
    gone, stays = store.add(manifest(ago(days=1))), store.add(manifest(ago()))
    catalog.load([store], "hospital")
    store.remove([gone.key("manifest.json")])
    assert [one.id for one in catalog.load([store], "hospital", write_cache=False).entries] == [stays.id]
    assert len(lines_of(store)) == 2
    catalog.load([store], "hospital")
    assert [line["k"] for line in lines_of(store)] == [f"{stays.id}/manifest.json"]


def test_a_cache_holds_what_is_asked_of_a_catalog_and_not_much_more() -> None:
    store = MemoryStore()
    for hour in range(500):
        contents = {"database_bytes": hour, "rows": {f"public.t{table}": table for table in range(100)}}
        store.add(manifest(ago(hours=hour), contents=contents))
    stored = sum(len(data) for data, _moment in store.objects.values())
    first = catalog.load([store], "hospital").entries
    assert len(store.objects[CACHE][0]) < stored / 30
    again = catalog.load([store], "hospital").entries
    assert again == first
    assert len({id(one.manifest.server) for one in again}) == 1, "what they have in common is held once"
    assert again[0].manifest.members[0].sha256 == ""
    assert catalog.read_manifest(store, again[0]).members[0].sha256


def test_a_cache_that_tells_lies_about_a_manifest_is_not_believed() -> None:
    store = MemoryStore()
    store.add(manifest(ago()))
    catalog.load([store], "hospital")
    (line,) = lines_of(store)
    line["m"]["members"][0]["name"] = "../../other/data"
    store.put(CACHE, as_cache(line), replace=True)
    found = catalog.load([store], "hospital")
    assert found.read == 1
    assert found.entries[0].manifest.members[0].name == "data.dump.zst"


def test_who_may_not_write_only_reads() -> None:
    store = MemoryStore()
    store.add(manifest(ago()))
    store.broken["put"] = HmsError("denied", reason="store_failed")
    assert len(catalog.load([store], "hospital").entries) == 1
    del store.broken["put"]
    catalog.load([store], "hospital", write_cache=False)
    assert CACHE not in store.objects


GARBLED: list[tuple[bytes, str]] = [
    (b"", "is not JSON"),
    (b"\x80abc", "is not JSON"),
    (b"[" * 100_000, "is not JSON"),
    (b"[1]", "is not a manifest"),
    (b"{}", "has the schema None"),
    (b'{"schema": 99}', "has the schema 99"),
    (b'{"schema": 1}', "is not a manifest (KeyError"),
]


@pytest.mark.parametrize(("content", "words"), GARBLED)
def test_a_garbled_manifest_is_told_and_counts_as_nothing(content: bytes, words: str) -> None:
    store = MemoryStore()
    good, bad = store.add(manifest(ago())), store.add(manifest(ago(days=1)))
    store.put(bad.key("manifest.json"), content, replace=True)
    for _again in range(2):
        found = catalog.load([store], "hospital")
        assert [one.id for one in found.entries] == [good.id]
        assert [(one.kind, one.key) for one in found.problems] == [("garbled", bad.key("manifest.json"))]
        assert words in found.problems[0].what
        assert "It counts as no backup" in found.problems[0].as_dict()["what"]
    assert catalog.load([store], "hospital").read == 0, "what is garbled is not read again and again"


MEMBER = {"role": "data", "name": "data.dump", "bytes": 4, "sha256": "0" * 64}


@pytest.mark.parametrize(
    "changes",
    [
        {"members": 3},
        {"members": [3]},
        {"members": [{}]},
        {"members": [{**MEMBER, "name": "../../../other/data"}]},
        {"members": [{**MEMBER, "name": ".."}]},
        {"members": [{**MEMBER, "name": ""}]},
        {"members": [{**MEMBER, "name": 7}]},
        {"members": [{**MEMBER, "role": []}]},
        {"members": [{**MEMBER, "name": "a\nb"}]},
        {"members": [{**MEMBER, "name": "manifest.json"}]},
        {"members": [{**MEMBER, "bytes": -1}]},
        {"members": [{**MEMBER, "bytes": "4"}]},
        {"members": [{**MEMBER, "sha256": "abc"}]},
        {"members": [MEMBER, MEMBER]},
        {"started": "yesterday"},
        {"ended": None},
        {"expires_locked": "some day"},
        {"id": ""},
        {"type": 1},
        {"contents": []},
        {"seconds": "long"},
        {"seconds": True},
        {"verification": {"level": "read"}},
        {"verification": {"unknown": 1, "problems": []}},
        {"verification": 1},
    ],
)
def test_a_manifest_with_something_of_the_wrong_kind_is_none(changes: dict[str, t.Any]) -> None:
    document = {**manifest(ago()).as_dict(), **changes}
    assert isinstance(manifest_from_bytes(json.dumps(document).encode()), str)
    assert manifest_from_cache(document, Pool()) is None


def test_what_a_later_version_added_is_passed_over() -> None:
    document = {**manifest(ago()).as_dict(), "added": 1}
    assert isinstance(manifest_from_bytes(json.dumps(document).encode()), Manifest)


def test_a_manifest_from_elsewhere_is_foreign() -> None:
    store = MemoryStore()
    made = manifest(ago())
    for folder in (f"hospital/other/{made.id}", "hospital/hospital/20260101T000000Z-backup-0000"):
        store.put(f"{folder}/manifest.json", json.dumps(made.as_dict()).encode())
        store.put(f"{folder}/data.dump.zst", b"data")
    named = manifest(ago(), id="nightly")
    store.add(named)
    clinic = dataclasses.replace(manifest(ago()), cluster="clinic")
    store.put(f"hospital/hospital/{clinic.id}/manifest.json", json.dumps(clinic.as_dict()).encode())
    found = catalog.load([store], "hospital")
    assert found.entries == ()
    assert {one.kind for one in found.problems} == {"foreign"}
    assert len(found.problems) == 4


def test_what_is_not_whole_is_no_backup() -> None:
    store = MemoryStore()
    first = store.add(manifest(ago(days=1)), but="data.dump.zst")
    second = store.add(manifest(ago()))
    store.put(second.key("data.dump.zst"), b"cut", replace=True)
    found = catalog.load([store], "hospital")
    assert found.entries == ()
    assert [one.kind for one in found.problems] == ["incomplete", "incomplete"]
    assert f"{first.folder} in memory is not whole: data.dump.zst is missing" in found.problems[0].what
    assert "data.dump.zst has 3 bytes in place of 4" in found.problems[1].what


def test_a_child_without_its_parent_is_no_backup_nor_is_its_child() -> None:
    store = MemoryStore()
    full, first = manifest(ago(days=3)), manifest(ago(days=2))
    store.add(with_parent(first, full))
    store.add(with_parent(manifest(ago(days=1)), first))
    found = catalog.load([store], "hospital")
    assert found.entries == ()
    assert [one.kind for one in found.problems] == ["orphan", "orphan"]
    store.add(full)
    assert len(catalog.load([store], "hospital").entries) == 3


def test_objects_that_are_not_ours_are_passed_over() -> None:
    store = MemoryStore()
    made = store.add(manifest(ago()))
    for key in ("README", "hospital/README", "hospital/hospital/README", "hospital/hospital/x/y/z/manifest.json"):
        store.put(key, b"")
    store.put(made.key("notes.txt"), b"somebody's notes")
    found = catalog.load([store], "hospital")
    assert (len(found.entries), found.problems) == (1, ())


def test_odd_names_of_databases() -> None:
    store = MemoryStore()
    for name in ("We ird/é..", "..", "hospital"):
        store.add(manifest(ago(), database=name))
    assert len(catalog.load([store], "hospital").entries) == 3
    found = catalog.load([store], "hospital", "..")
    assert [one.manifest.database for one in found.entries] == [".."]
    assert found.entries == catalog.load([store], "hospital").of("..")


def test_one_database_is_not_another_whose_name_begins_alike() -> None:
    store = MemoryStore()
    store.add(manifest(ago(), database="hospital_test"))
    assert catalog.load([store], "hospital", "hospital").entries == ()


def test_a_store_that_can_not_be_listed_hides_no_other() -> None:
    good, bad = MemoryStore("good"), MemoryStore("bad")
    good.add(manifest(ago()))
    bad.broken["list"] = HmsError("no answer", reason="store_failed")
    found = catalog.load([bad, good], "hospital")
    assert len(found.entries) == 1
    assert [(one.store, one.kind) for one in found.problems] == [("bad", "unreachable")]
    assert "bad can't be listed: no answer" in found.problems[0].what
    with pytest.raises(HmsError, match="no answer"):
        catalog.load([bad], "hospital")


def test_what_was_removed_while_it_was_read_is_not_there() -> None:
    store = MemoryStore()
    made = store.add(manifest(ago()))
    store.broken[made.key("manifest.json")] = HmsError("gone", reason="not_found")
    assert catalog.load([store], "hospital") == catalog.Catalog(read=1)


def test_what_can_not_be_read_now_is_tried_again() -> None:
    store = MemoryStore()
    made = store.add(manifest(ago()))
    store.broken[made.key("manifest.json")] = HmsError("no answer", reason="store_failed")
    assert "could not be read: no answer" in catalog.load([store], "hospital").problems[0].what
    store.broken.clear()
    assert len(catalog.load([store], "hospital").entries) == 1


def test_a_manifest_that_is_garbled_meanwhile_can_not_be_read_whole() -> None:
    store = MemoryStore()
    made = store.add(manifest(ago()))
    found = catalog.load([store], "hospital").entries[0]
    store.put(made.key("manifest.json"), b"", replace=True)
    with pytest.raises(HmsError, match="is not JSON"):
        catalog.read_manifest(store, found)


def test_later_verifications_and_holds_are_seen() -> None:
    store = MemoryStore()
    made = store.add(manifest(ago(days=2), verified=False))
    assert not catalog.load([store], "hospital").entries[0].verified
    store.put(made.key("verification.json"), history_to_bytes(made.id, [proven(ago(days=1), level="deep")]))
    store.put(made.key("hold.json"), b"")
    for _again in range(2):
        found = catalog.load([store], "hospital").entries[0]
        assert found.held
        assert found.proof is not None
        assert found.proof.level == "deep"


def test_a_verification_that_can_not_be_read_proves_nothing() -> None:
    store = MemoryStore()
    made = store.add(manifest(ago()))
    for content in (b"", b"[]", b"{}", b'{"verifications": [{"level": "read"}, 3]}'):
        store.put(made.key("verification.json"), content, replace=True)
        found = catalog.load([store], "hospital")
        assert (found.entries[0].verified, found.entries[0].bad, found.entries[0].doubtful) == (False, False, True)
        assert [one.kind for one in found.problems] == ["garbled"]


def test_a_history_is_kept_to_its_newest() -> None:
    history = [proven(ago(days=100 - day)) for day in range(100)]
    assert json.loads(history_to_bytes("x", history))["verifications"][-1]["at"] == history[-1].at
    assert len(json.loads(history_to_bytes("x", history))["verifications"]) == HISTORY


READ, DEEP, DRILLED = {"level": "read"}, {"level": "deep"}, {"level": "restored"}
PARTIAL = {"level": "read", "partial": "no private key"}
FAILED, DEEP_FAILED = {"level": "read", "ok": False}, {"level": "deep", "ok": False}


@pytest.mark.parametrize(
    ("history", "level", "bad"),
    [
        ([], "", False),
        ([READ], "read", False),
        ([PARTIAL], "", False),
        ([READ, PARTIAL], "read", False),
        ([DEEP, READ], "deep", False),
        ([READ, DEEP], "deep", False),
        ([READ, FAILED], "", True),
        ([READ, FAILED, PARTIAL], "", True),
        ([READ, FAILED, READ], "read", False),
        ([READ, DEEP_FAILED, READ], "", True),
        ([READ, DEEP_FAILED, DEEP], "deep", False),
        ([DRILLED, READ], "restored", False),
        ([DEEP, DRILLED], "restored", False),
        ([DRILLED, DEEP_FAILED, READ], "", True),
    ],
)
def test_what_still_counts(history: list[dict[str, t.Any]], level: str, bad: bool) -> None:
    made = [proven(ago(days=50 - number), **values) for number, values in enumerate(history)]
    found = entry(ago(days=60), verified=False, history=made)
    assert found.verified is bool(level)
    assert (found.proof.level if found.proof else "") == level
    assert found.bad is bad


@pytest.mark.parametrize(
    ("history", "restored"),
    [
        ([], False),
        ([READ, DEEP], False),
        ([DRILLED, READ, DEEP], True),
        ([DRILLED, FAILED], False),
        ([DRILLED, FAILED, READ], False),
        ([DRILLED, FAILED, DRILLED], True),
    ],
)
def test_which_drills_still_count(history: list[dict[str, t.Any]], restored: bool) -> None:
    made = [proven(ago(days=50 - number), **values) for number, values in enumerate(history)]
    found = entry(ago(days=60), history=made).restored
    assert (found is not None) is restored
    assert found is None or found.level == "restored"


def test_members_of_other_roles_are_looked_at_as_well() -> None:
    members = (Member("data", "data.dump", 4, "0" * 64), Member("globals", "globals.sql", 4, "0" * 64))
    store = MemoryStore()
    store.add(manifest(ago(), members=members), but="globals.sql")
    assert "globals.sql is missing" in catalog.load([store], "hospital").problems[0].what
