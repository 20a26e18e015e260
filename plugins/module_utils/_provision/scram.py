# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""SCRAM-SHA-256 verifiers (RFC 5802, RFC 7677), so that no password ever stands in a statement. PRIVATE."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import stringprep
import typing as t
import unicodedata

ITERATIONS = 4096
"""PostgreSQL's own default; its clients accept any number."""

SALT_BYTES = 16

_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)


class Verifier(t.NamedTuple):
    """The parts of what pg_authid keeps."""

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes


def _prepare(password: str) -> str:
    """SASLprep (RFC 4013) the way PostgreSQL does it: what it prohibits is used as it is."""
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char for char in password if not stringprep.in_table_b1(char)
    )
    normal = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if not normal or any(test(char) for char in normal for test in _PROHIBITED):
        return password
    return normal if _direction_ok(normal) else password


def _direction_ok(text: str) -> bool:
    """RFC 3454, section 6: no mixing of writing directions."""
    if not any(stringprep.in_table_d1(char) for char in text):
        return True
    ends_right_to_left = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return ends_right_to_left and not any(stringprep.in_table_d2(char) for char in text)


def build(password: str, *, salt: bytes, iterations: int = ITERATIONS) -> str:
    """The verifier of a password, in the form that PostgreSQL stores."""
    salted = hashlib.pbkdf2_hmac("sha256", _prepare(password).encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${iterations}:{_text(salt)}${_text(stored_key)}:{_text(server_key)}"


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def parse(stored: str) -> Verifier | None:
    """The parts of a stored verifier; None for anything else, an MD5 hash for instance."""
    kind, _dollar, rest = stored.partition("$")
    head, _dollar, keys = rest.partition("$")
    iterations, _colon, salt = head.partition(":")
    stored_key, _colon, server_key = keys.partition(":")
    if kind != "SCRAM-SHA-256" or not iterations.isdigit():
        return None
    try:
        parts = [base64.b64decode(part, validate=True) for part in (salt, stored_key, server_key)]
    except binascii.Error:
        return None
    return Verifier(int(iterations), *parts)


def matches(password: str, stored: str | None) -> bool:
    """Whether a stored verifier is that of this password."""
    verifier = parse(stored or "")
    if verifier is None or not verifier.salt:
        return False
    wanted = build(password, salt=verifier.salt, iterations=verifier.iterations)
    return hmac.compare_digest(wanted, stored or "")
