# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._provision import scram

SALT = bytes(range(16))

# RFC 7677, section 3: user "user", password "pencil".
RFC_SALT = "W22ZaJ0SNY7soEsUEjb6gQ=="


def test_the_form_that_postgresql_keeps() -> None:
    verifier = scram.build("pencil", salt=SALT)
    parsed = scram.parse(verifier)
    assert parsed is not None
    assert (parsed.iterations, parsed.salt, len(parsed.stored_key), len(parsed.server_key)) == (4096, SALT, 32, 32)


def test_the_rfcs_example() -> None:
    """The RFC gives the exchange; the server's signature in it follows from the server key."""
    parsed = scram.parse(scram.build("pencil", salt=base64.b64decode(RFC_SALT)))
    assert parsed is not None
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    message = f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s={RFC_SALT},i=4096,c=biws,r={nonce}"
    signature = hmac.new(parsed.server_key, message.encode(), hashlib.sha256).digest()
    assert base64.b64encode(signature).decode() == "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_a_password_is_recognised() -> None:
    stored = scram.build("right", salt=SALT, iterations=10)
    assert scram.matches("right", stored)
    assert not scram.matches("wrong", stored)


@pytest.mark.parametrize(
    "stored",
    [
        None,
        "",
        "md5d41d8cd98f00b204e9800998ecf8427e",
        "SCRAM-SHA-256$x:AA==$AA==:AA==",
        "SCRAM-SHA-256$4096:*$AA==:AA==",
        "SCRAM-SHA-256$4096:$AA==:AA==",
    ],
)
def test_what_is_no_verifier_matches_nothing(stored: str | None) -> None:
    assert not scram.matches("any", stored)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("I\u00adX", "IX", id="soft hyphen is mapped to nothing"),
        pytest.param("a\u00a0b", "a b", id="another space is a space"),
        pytest.param("\u00aa", "a", id="compatibility characters are normalised"),
        pytest.param("\u2168", "IX", id="a Roman numeral"),
    ],
)
def test_passwords_that_are_the_same_after_saslprep(one: str, other: str) -> None:
    assert scram.build(one, salt=SALT, iterations=1) == scram.build(other, salt=SALT, iterations=1)


@pytest.mark.parametrize(
    "password",
    [
        pytest.param("bell\u0007", id="prohibited"),
        pytest.param("\u0221", id="unassigned"),
        pytest.param("\u06271", id="directions mixed"),
        pytest.param("\u0627a\u0627", id="left to right inside right to left"),
        pytest.param("\u00ad", id="nothing left"),
    ],
)
def test_what_saslprep_prohibits_is_used_as_it_is(password: str) -> None:
    assert scram._prepare(password) == password


def test_right_to_left_text_is_fine() -> None:
    assert scram._prepare("\u0627\u0628") == "\u0627\u0628"
