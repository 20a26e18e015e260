# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import gzip
import hashlib
import io
import time
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact import verify
from ansible_collections.hms.postgres.plugins.module_utils._artifact.keys import Keyring
from ansible_collections.hms.postgres.plugins.module_utils._artifact.manifest import Manifest, Member
from ansible_collections.hms.postgres.plugins.module_utils._artifact.verify import (
    MemberCheck,
    verify_artifact,
    verify_member,
)
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._store.model import ObjectReader, ObjectStore
from ansible_collections.hms.postgres.plugins.module_utils._tools.pg_restore import PgRestore

COMPLETE = b"-- roles\n--\n-- PostgreSQL database cluster dump complete\n--\n\n"
PG_RESTORE = PgRestore("/usr/bin/false")


class Reader(io.BytesIO):
    """One object."""


class Store:
    """Objects in memory."""

    name = "memory"

    def __init__(self, **objects: bytes) -> None:
        self.objects = {key.replace("_", "."): data for key, data in objects.items()}

    def open(self, key: str) -> ObjectReader:
        name = key.rpartition("/")[2]
        if name not in self.objects:
            raise HmsError(f"{key} is not in {self.name}", reason="not_found")
        return Reader(self.objects[name])


def member(role: str, name: str, stored: bytes, **more: t.Any) -> Member:
    return Member(role, name, len(stored), hashlib.sha256(stored).hexdigest(), **more)


def check(role: str, name: str, stored: bytes, now: bytes | None = None, **more: t.Any) -> MemberCheck:
    store = t.cast(ObjectStore, Store(**{name: stored if now is None else now}))
    wanted = member(role, name, stored, **more)
    return verify_member(store, f"c/d/i/{name}", wanted, None, pg_restore=PG_RESTORE, deadline=time.monotonic() + 60.0)


def test_a_member_that_holds_is_counted_and_hashed_inside_and_out() -> None:
    stored = gzip.compress(COMPLETE, mtime=0)
    found = check("globals", "globals.sql.gz", stored)
    assert found.problems == ()
    assert (found.bytes, found.sha256) == (len(stored), hashlib.sha256(stored).hexdigest())
    assert (found.plain_bytes, found.plain_sha256) == (len(COMPLETE), hashlib.sha256(COMPLETE).hexdigest())


@pytest.mark.parametrize(
    ("role", "name", "stored", "now", "words"),
    [
        ("globals", "globals.sql", COMPLETE, COMPLETE[:-1], "bytes are stored as c/d/i/globals.sql"),
        ("globals", "globals.sql", COMPLETE, b"X" + COMPLETE[1:], "SHA-256 differs"),
        ("globals", "globals.sql", b"-- roles\n", None, "says it is complete is missing"),
        ("data", "data.sql", b"-- PostgreSQL database cluster dump complete\n", None, "says it is complete is missing"),
        ("globals", "globals.sql.gz", gzip.compress(COMPLETE, mtime=0)[:-3], None, "gzip -d ended with 1"),
        ("properties", "properties.json", b"{", None, "no JSON"),
        ("data", "data.dump", b"anything", None, "pg_restore ended with 1"),
    ],
)
def test_what_does_not_hold_is_said(role: str, name: str, stored: bytes, now: bytes | None, words: str) -> None:
    found = check(role, name, stored, now)
    assert words in found.problems[0]
    assert found.problems[0].startswith(name)
    assert found.plain_sha256 is None


def test_a_content_that_changed_under_a_right_hash_is_seen() -> None:
    """Somebody rewrote the object and its hash, and forgot what it holds."""
    found = check("properties", "properties.json", b"{}", plain_sha256="0" * 64)
    assert "not what was dumped" in found.problems[0]


def test_the_end_of_a_dump_is_found_behind_what_newer_versions_write() -> None:
    plain = b"x" * 5000 + b"\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict " + b"k" * 63 + b"\n"
    assert check("data", "data.sql", plain).problems == ()


def test_without_a_key_only_the_stored_bytes_are_looked_at() -> None:
    found = check("data", "data.dump.gpg", b"ciphertext")
    assert found.problems == ()
    assert found.partial == "it is encrypted and no key is here"
    assert "SHA-256" in check("data", "data.dump.gpg", b"ciphertext", b"cipherteXt").problems[0]


def manifest(*members: Member, method: str = "none") -> Manifest:
    return Manifest(
        id="20261122T200000Z-backup-1",
        cluster="c",
        environment="demo",
        database="d",
        engine="pg_dump",
        type="full",
        format="plain",
        host="db1",
        by="test",
        started="",
        ended="",
        seconds=1.0,
        members=members,
        server={},
        snapshot={},
        tools={},
        compression={},
        encryption={"method": method, "recipients": ["A" * 40]},
        contents={},
    )


def verified(store: Store, wanted: Manifest) -> verify.ArtifactCheck:
    return verify_artifact(
        t.cast(ObjectStore, store), wanted, Keyring("none"), pg_restore=PG_RESTORE, deadline=time.monotonic() + 60.0
    )


def test_an_artifact_is_verified_member_by_member() -> None:
    members = (member("globals", "globals.sql", COMPLETE), member("properties", "properties.json", b"{}"))
    found = verified(Store(globals_sql=COMPLETE, properties_json=b"{}"), manifest(*members))
    assert found.verification.ok
    assert found.verification.level == "read"
    assert (found.verification.problems, found.verification.partial) == ((), "")
    assert [one.plain_bytes for one in found.members] == [len(COMPLETE), 2]


def test_one_bad_member_spoils_it_and_the_others_are_looked_at() -> None:
    members = (member("globals", "globals.sql", COMPLETE), member("properties", "properties.json", b"{}"))
    found = verified(Store(properties_json=b"[]"), manifest(*members))
    assert not found.verification.ok
    assert len(found.verification.problems) == 2
    assert "is not in memory" in found.verification.problems[0]
    assert found.members == members


def test_a_host_without_the_key_proves_a_part() -> None:
    found = verified(Store(data_dump_gpg=b"x"), manifest(member("data", "data.dump.gpg", b"x"), method="public_key"))
    assert found.verification.ok
    assert found.verification.partial == "data.dump.gpg: it is encrypted and no key is here"
