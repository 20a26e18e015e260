# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A large catalog, listed from a folder and from a real S3 server: what it asks for, believes and takes."""

from __future__ import annotations

import json
import os
import pathlib

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact import catalog
from ansible_collections.hms.postgres.plugins.module_utils._store.open_store import open_store, store_spec_from
from ansible_collections.hms.postgres.tests.bench.listing_bench import CACHE, generate, listed
from ansible_collections.hms.postgres.tests.real.s3_relay import Answer, Request, S3Relay, times
from ansible_collections.hms.postgres.tests.real.s3_server import S3Server

BACKUPS = 450
OBJECTS = 5 * BACKUPS
PAGES = OBJECTS // 1000 + 1
LARGE = 2000


def gets(relay: S3Relay, start: int) -> tuple[list[str], list[str]]:
    """What was read since then: pages of the listing, and objects."""
    seen = [request for request in relay.seen[start:] if request.method == "GET"]
    pages = [request.path for request in seen if "list-type=2" in request.path]
    return pages, [request.path for request in seen if request.path not in pages]


def test_a_bucket_is_listed_in_pages_and_believed_before_its_cache(s3_server: S3Server) -> None:
    bucket = s3_server.bucket("catalog")
    generate(bucket, BACKUPS)
    s3_server.forget()
    with S3Relay(s3_server) as relay:
        store = open_store(store_spec_from({"s3": relay.settings(bucket.name)}))
        cold = catalog.load_store(store, "hospital", "hospital")
        assert (len(cold.entries), cold.problems, cold.read) == (BACKUPS, (), BACKUPS)
        pages, objects = gets(relay, 0)
        assert (len(pages), len(objects)) == (PAGES, BACKUPS)
        start = len(relay.seen)
        warm = catalog.load_store(store, "hospital", "hospital")
        pages, objects = gets(relay, start)
        assert (len(pages), len(objects), warm.read) == (PAGES, 1, 0)
        assert warm.entries == cold.entries

        gone, cut = cold.entries[7], cold.entries[300]
        store.remove([gone.manifest.key("manifest.json")])
        store.put(cut.manifest.key("data.dump.zst.gpg"), b"cut", replace=True)
        found = catalog.load_store(store, "hospital", "hospital", write_cache=False)
        assert {one.id for one in cold.entries} - {one.id for one in found.entries} == {gone.id, cut.id}
        assert [problem.kind for problem in found.problems] == ["incomplete"]

        store.put(CACHE, (bucket / CACHE).read_bytes()[:-5], replace=True)
        again = catalog.load_store(store, "hospital", "hospital")
        assert (again.entries, again.problems) == (found.entries, found.problems)
        assert again.read == BACKUPS - 1
        assert catalog.load_store(store, "hospital", "hospital").read == 0


def test_a_manifest_that_the_server_refuses_is_told_and_read_the_next_time(s3_server: S3Server) -> None:
    bucket = s3_server.bucket("refused")
    generate(bucket, 40)
    s3_server.forget()
    with S3Relay(s3_server) as relay:

        def manifest(request: Request) -> bool:
            return request.method == "GET" and request.path.endswith("/manifest.json")

        relay.rule = times(3, manifest, Answer(403, "AccessDenied"))
        store = open_store(store_spec_from({"s3": relay.settings(bucket.name)}))
        found = catalog.load_store(store, "hospital", "hospital")
        assert len(found.entries) == 37
        assert [problem.kind for problem in found.problems] == ["garbled"] * 3
        assert all("could not be read" in problem.what for problem in found.problems)
        again = catalog.load_store(store, "hospital", "hospital")
        assert (len(again.entries), again.problems, again.read) == (40, (), 3)


@pytest.fixture(scope="module")
def large(s3_server: S3Server) -> pathlib.Path:
    """Many backups; the bucket's folder."""
    bucket = s3_server.bucket("large")
    generate(bucket, LARGE)
    s3_server.forget()
    return bucket


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_backups_process_stays_small_while_it_looks(
    s3_server: S3Server, large: pathlib.Path, kind: str, tmp_path: pathlib.Path
) -> None:
    (large / CACHE).unlink(missing_ok=True)
    path = tmp_path / "settings.json"
    settings = {"folder": str(large)} if kind == "folder" else {"s3": s3_server.settings(large.name)}
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        json.dump(settings, file)
    for read in (LARGE, 0):
        found = listed(path)
        assert (found.entries, found.problems, found.read) == (LARGE, 0, read)
        # 10,000 of them and what Python itself takes have to stay below 150 MB
        assert found.peak - found.before < 12 + 6e-3 * LARGE
    assert (large / CACHE).stat().st_size < 150 * LARGE


def test_a_cache_that_can_be_neither_read_nor_written_costs_time_only(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "store"
    generate(root, 30)
    store = open_store(store_spec_from({"folder": str(root)}))
    whole = catalog.load_store(store, "hospital", "hospital")
    (root / CACHE).unlink()
    (root / CACHE / "not a file").mkdir(parents=True)
    again = catalog.load_store(store, "hospital", "hospital")
    assert (again.entries, again.problems, again.read) == (whole.entries, (), 30)
