# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact import keys
from ansible_collections.hms.postgres.plugins.module_utils._artifact.keys import (
    Keyring,
    choose_keys,
    prepare_keyring,
    read_passphrase,
    reading_keyring,
)
from ansible_collections.hms.postgres.plugins.module_utils._artifact.model import Encryption
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._errors import Refused
from ansible_collections.hms.postgres.plugins.module_utils._tools.gpg_keys import KeyFacts

OPS = KeyFacts("A" * 40, ("Ops <ops@example.org>",), "u", frozenset("ESC"))
ESCROW = KeyFacts("B" * 40, ("Escrow <escrow@example.org>", "ops <ops2@example.org>"), "-", frozenset("ESC"))
NOW = 1_000_000.0
DAY = 86400


def choose(*recipients: str, ring: tuple[KeyFacts, ...] = (OPS, ESCROW)) -> tuple[list[str], tuple[str, ...]]:
    found, warnings = choose_keys(ring, recipients, where="the key files", now=NOW)
    return [key.fingerprint[0] for key in found], warnings


def reason_of(*recipients: str, ring: tuple[KeyFacts, ...]) -> str:
    with pytest.raises(Refused) as caught:
        choose(*recipients, ring=ring)
    assert recipients[-1] in caught.value.message
    assert caught.value.state == "Nothing was touched; no backup was made."
    return caught.value.reason


def test_every_recipient_gets_one_key() -> None:
    assert choose("ops@example.org", "B" * 40) == (["A", "B"], ())
    assert choose("ops@example.org", "A" * 40) == (["A"], ()), "the same key twice is one"


def test_a_key_that_ends_soon_is_warned_of() -> None:
    soon = KeyFacts("C" * 40, ("<c@example.org>",), "u", frozenset("E"), usable_until=int(NOW) + 29 * DAY)
    later = KeyFacts("D" * 40, ("<d@example.org>",), "u", frozenset("E"), usable_until=int(NOW) + 31 * DAY)
    _found, warnings = choose("c@example.org", "d@example.org", ring=(soon, later))
    assert warnings == ("The key of the recipient c@example.org expires on 1970-02-10.",)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (KeyFacts("C" * 40, ("<c@example.org>",), "e", frozenset()), "recipient_expired"),
        (KeyFacts("C" * 40, ("<c@example.org>",), "u", frozenset("SC"), subkeys=("e",)), "recipient_expired"),
        (KeyFacts("C" * 40, ("<c@example.org>",), "u", frozenset("SC"), subkeys=("r", "e")), "recipient_expired"),
        (KeyFacts("C" * 40, ("<c@example.org>",), "r", frozenset(), subkeys=("r",)), "recipient_revoked"),
        (KeyFacts("C" * 40, ("<c@example.org>",), "u", frozenset("SC"), subkeys=("r",)), "recipient_revoked"),
        (KeyFacts("C" * 40, ("<c@example.org>",), "u", frozenset("SC")), "recipient_cannot_encrypt"),
        (KeyFacts("C" * 40, ("<c@example.org>",), "u", frozenset("ESCD"), subkeys=("u",)), "recipient_unusable"),
        (KeyFacts("C" * 40, ("<c@example.org>",), "i", frozenset("E"), subkeys=("i",)), "recipient_unusable"),
    ],
)
def test_a_key_that_cannot_be_used_says_why(key: KeyFacts, reason: str) -> None:
    assert reason_of("ops@example.org", "c@example.org", ring=(OPS, key)) == reason


def test_a_recipient_without_a_key_and_one_with_two() -> None:
    assert reason_of("nobody@example.org", ring=(OPS,)) == "recipient_unknown"
    twin = KeyFacts("C" * 40, OPS.uids, "u", frozenset("E"))
    assert reason_of("ops@example.org", ring=(OPS, twin)) == "recipient_ambiguous"


def refused(encryption: Encryption) -> str:
    with pytest.raises(Refused) as caught:
        read_passphrase(encryption)
    assert "geheim" not in caught.value.full_text()
    return caught.value.reason


def test_a_passphrase_is_read_from_where_it_was_given(tmp_path: pathlib.Path) -> None:
    assert read_passphrase(Encryption(passphrase="geheim ü")) == "geheim ü".encode()
    path = tmp_path / "passphrase"
    path.write_bytes(b"geheim \xc3\xbc\r\n")
    path.chmod(0o600)
    assert read_passphrase(Encryption(passphrase_file=str(path))) == "geheim ü".encode()


def test_a_passphrase_that_cannot_be_used_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "passphrase"
    assert refused(Encryption(passphrase_file=str(path))) == "passphrase_missing"
    path.write_bytes(b"geheim\n")
    path.chmod(0o640)
    assert refused(Encryption(passphrase_file=str(path))) == "passphrase_exposed"
    path.chmod(0o400)
    assert read_passphrase(Encryption(passphrase_file=str(path))) == b"geheim"
    assert refused(Encryption(passphrase="geheim", passphrase_file=str(path))) == "bad_config"
    path.chmod(0o600)
    path.write_bytes(b"\n")
    assert refused(Encryption(passphrase_file=str(path))) == "passphrase_missing"
    path.write_bytes(b"geheim\ngeheim\n")
    assert refused(Encryption(passphrase_file=str(path))) == "passphrase_unusable"
    path.write_bytes(b"geheim" * 1000)
    assert refused(Encryption(passphrase_file=str(path))) == "passphrase_unusable"
    assert refused(Encryption(passphrase_file=str(tmp_path))) == "passphrase_missing"
    os.mkfifo(tmp_path / "fifo", 0o600)
    assert refused(Encryption(passphrase_file=str(tmp_path / "fifo"))) == "passphrase_missing"


@pytest.mark.parametrize(
    ("data", "private"),
    [
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n", False),
        (b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n", True),
        (b"\x99\x01\x0d\x04", False),
        (b"\x95\x01\x0d\x04", True),
        (b"\xc5\x58\x04", True),
        (b"\xc6\x33\x04", False),
        (b"", False),
    ],
)
def test_private_keys_are_recognized(data: bytes, private: bool) -> None:
    assert keys._holds_private_key(data) is private


def test_key_files_without_recipients_would_encrypt_nothing() -> None:
    with pytest.raises(Refused) as caught:
        prepare_keyring(Encryption(key_files=("/ops.asc",)), runner=SystemRunner(), ephemeral=True)
    assert caught.value.reason == "bad_config"


def test_without_encryption_there_is_nothing_to_do() -> None:
    with prepare_keyring(Encryption(), runner=SystemRunner(), ephemeral=True) as ring:
        assert ring.encrypt_stage() is None
        assert ring.decrypt_stage() is None
        assert ring.can_decrypt
        assert ring.describe() == {"method": "none", "recipients": []}


def test_a_keyring_knows_what_it_can_read() -> None:
    ring = Keyring("public_key")
    ring.fingerprints = ("A" * 40,)
    described = ring.describe()
    assert not ring.can_read(described)
    assert not ring.can_read({"method": "passphrase"})
    assert not ring.can_read({"method": "something later"})
    ring.secret_fingerprints = ("B" * 40, "A" * 40)
    assert ring.can_read(described)
    assert not ring.can_read({"method": "public_key", "recipients": ["C" * 40]})
    assert Keyring("passphrase", passphrase=b"x").can_decrypt
    with reading_keyring(Encryption(), runner=SystemRunner()) as empty:
        assert empty.can_read({"method": "none"})
        assert empty.can_read({})
        assert not empty.can_read({"method": "passphrase"})
