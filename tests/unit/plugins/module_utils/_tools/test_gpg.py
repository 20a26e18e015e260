# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import ToolFailed, ToolMissing
from ansible_collections.hms.postgres.plugins.module_utils._tools import gpg
from ansible_collections.hms.postgres.plugins.module_utils._tools.gpg import Gpg, reason_of, without_chatter
from ansible_collections.hms.postgres.plugins.module_utils._tools.gpg_keys import KeyFacts, _facts, is_fingerprint
from ansible_collections.hms.postgres.tests.unit.plugins.scripted_runner import ScriptedRunner

FINGERPRINT = "92A68D6C87E90570F9DFFE122798BB4F92315AA8"
BASE = ("/usr/bin/gpg", "--homedir", "/h", "--no-options", "--no-autostart", "--batch", "--no-tty")
CIPHER = ("--compress-algo", "none", "--cipher-algo", "AES256")
ANY_TIME = ("--ignore-time-conflict", "--ignore-valid-from")


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpg, "find_program", lambda name, **_why: f"/usr/bin/{name}")


def runner_of(stdout: str) -> ScriptedRunner:
    """Says this; the program gets no environment and is nobody else's."""
    return ScriptedRunner(always=(0, stdout, ""), env=None, os_user=None)


def test_encryption_to_public_keys_is_called_like_this() -> None:
    stage = Gpg("/h").encrypt_stage([FINGERPRINT, "B" * 40])
    trust = ("--trust-model", "always", "--no-encrypt-to")
    named = ("--recipient", FINGERPRINT, "--recipient", "B" * 40)
    assert stage.argv == (*BASE, *CIPHER, *trust, *ANY_TIME, "--encrypt", *named, "--output", "-")
    assert stage.secret is None


def test_encryption_with_a_passphrase_is_called_like_this() -> None:
    stage = Gpg("/h").encrypt_symmetric_stage(b"geheim")
    unlock = ("--pinentry-mode", "loopback", "--passphrase-fd", "@secret-fd@")
    strong = ("--s2k-mode", "3", "--s2k-digest-algo", "SHA512", "--s2k-cipher-algo", "AES256")
    rounds = ("--s2k-count", "65011712")
    assert stage.argv == (*BASE, *CIPHER, *unlock, *strong, *rounds, "--symmetric", "--output", "-")
    assert stage.secret == b"geheim"
    assert "geheim" not in repr(stage)


def test_decryption_is_called_like_this() -> None:
    assert Gpg("/h").decrypt_stage(None).argv == (*BASE, *ANY_TIME, "--decrypt", "--output", "-")
    stage = Gpg("/h").decrypt_stage(b"geheim")
    unlock = ("--pinentry-mode", "loopback", "--passphrase-fd", "@secret-fd@")
    assert stage.argv == (*BASE, *unlock, *ANY_TIME, "--decrypt", "--output", "-")


def test_a_key_for_the_verification_has_no_protection() -> None:
    runner = runner_of(f"[GNUPG:] KEY_CONSIDERED {FINGERPRINT} 0\n[GNUPG:] KEY_CREATED B {FINGERPRINT}\n")
    assert Gpg("/h").make_key("of this run", runner) == FINGERPRINT
    parameters = runner.calls[0].input_data
    assert runner.calls[0].argv == [*BASE, "--status-fd", "1", "--full-generate-key"]
    assert parameters is not None
    for line in (b"%no-protection", b"Subkey-Curve: cv25519", b"Name-Real: of this run"):
        assert line in parameters.splitlines()


def test_no_key_is_an_error() -> None:
    with pytest.raises(ToolFailed, match="made no key"):
        Gpg("/h").make_key("x", runner_of(""))


def test_the_version_is_read() -> None:
    assert Gpg("/h").version(runner_of("gpg (GnuPG) 2.2.40\nlibgcrypt 1.10.1\n")) == "2.2.40"


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, **_why: str) -> str:
        raise ToolMissing(f"{name} is not installed")

    monkeypatch.setattr(gpg, "find_program", missing)
    with pytest.raises(ToolMissing) as caught:
        Gpg("/h")
    assert "package gnupg" in caught.value.next_step


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        ("gpg: decryption failed: Bad session key", "bad_passphrase"),
        ("gpg: decryption failed: No secret key", "no_secret_key"),
        ("gpg: WARNING: encrypted message has been manipulated!", "corrupt"),
        ("gpg: no valid OpenPGP data found.", "corrupt"),
        ("gpg: something new", ""),
    ],
)
def test_known_complaints_have_slugs(stderr: str, reason: str) -> None:
    assert reason_of(stderr) == reason


def test_what_gpg_says_about_every_file_is_left_out() -> None:
    text = (
        "gpg: keybox '/dev/shm/x/pubring.kbx' created\n"
        "gpg: /dev/shm/x/trustdb.gpg: trustdb created\n"
        "gpg: AES256.CFB encrypted data\n"
        "gpg: encrypted with 1 passphrase\n"
        "gpg: decryption failed: Bad session key\n"
    )
    assert without_chatter(text) == "gpg: decryption failed: Bad session key\n"


def entry(**more: t.Any) -> dict[str, t.Any]:
    return {"fingerprint": FINGERPRINT, "uids": ["Ops <Ops@example.org>"], "trust": "u", "cap": "scESC", **more}


def subkeys(*found: tuple[str, str, str]) -> dict[str, t.Any]:
    info = {str(at): {"trust": trust, "expires": expires} for at, (_caps, trust, expires) in enumerate(found)}
    return {"subkeys": [[str(at), caps, "F"] for at, (caps, _trust, _end) in enumerate(found)], "subkey_info": info}


@pytest.mark.parametrize(
    ("listed", "can_encrypt", "until"),
    [
        (entry(**subkeys(("e", "u", ""))), True, None),
        (entry(expires="2000", **subkeys(("e", "u", ""))), True, 2000),
        (entry(expires="2000", **subkeys(("e", "u", "1000"))), True, 1000),
        (entry(**subkeys(("e", "e", "10"), ("e", "u", "1000"), ("s", "u", "5"))), True, 1000),
        (entry(**subkeys(("e", "u", ""), ("e", "u", "1000"))), True, None),
        (entry(cap="escaESCA", expires="2000"), True, 2000),
        (entry(cap="scSC", **subkeys(("e", "e", "10"))), False, None),
        (entry(cap="scESC", trust="r", **subkeys(("e", "r", ""))), False, None),
        (entry(cap="scESCD", **subkeys(("e", "u", ""))), False, None),
    ],
)
def test_what_a_key_can_do(listed: dict[str, t.Any], can_encrypt: bool, until: int | None) -> None:
    key = _facts(listed)
    assert (key.can_encrypt, key.usable_until) == (can_encrypt, until)


def test_a_key_answers_to_its_fingerprint_and_its_addresses() -> None:
    key = KeyFacts(FINGERPRINT, ("Ops (first) <Ops@example.org>", "bare@example.org"), "u", frozenset("E"))
    assert key.answers_to("ops@EXAMPLE.org")
    assert key.answers_to("bare@example.org")
    assert key.answers_to("0x92a6 8d6c 87e9 0570 f9df  fe12 2798 bb4f 9231 5aa8")
    assert not key.answers_to("example.org@example.org")
    assert not key.answers_to(FINGERPRINT[-16:])


def test_short_ids_are_no_fingerprints() -> None:
    assert is_fingerprint(FINGERPRINT.lower())
    assert not is_fingerprint(FINGERPRINT[-16:])
    assert not is_fingerprint("X" * 40)
