# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import io
import time

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact.keys import Keyring
from ansible_collections.hms.postgres.plugins.module_utils._artifact.model import Compression, Encryption
from ansible_collections.hms.postgres.plugins.module_utils._artifact.streams import (
    Digest,
    read_stages,
    store_bytes,
    store_stream,
    suffix,
)
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._pipeline import Stage

PLAIN = Keyring("none")
NONE = Compression("none")


class Writer:
    """Keeps what it gets, up to a limit."""

    def __init__(self, limit: int = 1_000_000_000) -> None:
        self.limit = limit
        self.found = io.BytesIO()

    def write(self, data: bytes) -> None:
        if self.found.tell() + len(data) > self.limit:
            raise HmsError("no room in /srv/backups", reason="store_full")
        self.found.write(data)


def deadline() -> float:
    return time.monotonic() + 60.0


@pytest.mark.parametrize(
    ("compression", "encryption", "expected"),
    [
        (Compression(), Encryption(recipients=("x",)), ".zst.gpg"),
        (Compression("gzip"), Encryption(), ".gz"),
        (Compression("lz4"), Encryption(passphrase_file="/p"), ".lz4.gpg"),
        (NONE, Encryption(passphrase="x"), ".gpg"),
        (NONE, Encryption(), ""),
    ],
)
def test_a_name_tells_how_it_is_read(compression: Compression, encryption: Encryption, expected: str) -> None:
    assert suffix(compression, encryption) == expected


def test_what_is_stored_is_counted_and_hashed() -> None:
    writer = Writer()
    stage = Stage("seq", ("/usr/bin/seq", "300000"))
    made = store_stream(stage, compression=NONE, keyring=PLAIN, writer=writer, deadline=deadline())
    stored = writer.found.getvalue()
    assert stored == "".join(f"{n}\n" for n in range(1, 300001)).encode()
    assert (made.bytes, made.sha256) == (len(stored), hashlib.sha256(stored).hexdigest())
    assert [stage.name for stage in made.stages] == ["seq"]


@pytest.mark.parametrize("compression", [NONE, Compression("gzip")])
def test_something_small_goes_the_same_way(compression: Compression) -> None:
    writer = Writer()
    made = store_bytes(b"{}\n" * 9, compression=compression, keyring=PLAIN, writer=writer, deadline=deadline())
    stored = writer.found.getvalue()
    assert made.sha256 == hashlib.sha256(stored).hexdigest()
    assert stored == b"{}\n" * 9 or stored.startswith(b"\x1f\x8b")


def test_a_store_that_is_full_is_the_cause() -> None:
    stage = Stage("zeros", ("/bin/cat", "/dev/zero"))
    with pytest.raises(HmsError) as caught:
        store_stream(stage, compression=NONE, keyring=PLAIN, writer=Writer(5_000_000), deadline=deadline())
    assert caught.value.reason == "store_full"


def test_the_stages_that_read_it_back_come_from_its_name() -> None:
    assert [stage.name for stage in read_stages("data.dump.gz", PLAIN)] == ["gzip -d"]
    assert read_stages("data.dump", PLAIN) == []


def test_a_digest_hands_on_what_it_saw() -> None:
    found: list[bytes] = []
    digest = Digest(found.append)
    digest(b"ab")
    digest(b"c")
    assert (digest.bytes, digest.sha256, found) == (3, hashlib.sha256(b"abc").hexdigest(), [b"ab", b"c"])
