# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys as python-gnupg shows them: imported, listed, tried. Payloads never pass through it. PRIVATE.

Written for 0.4.9 (Debian 12) and newer; the library is imported in this file alone, and only when keys are looked at.
"""

from __future__ import annotations

import dataclasses
import importlib
import typing as t

from .._command import find_program
from .._errors import ToolMissing

_OPTIONS = ("--no-options", "--no-autostart", "--no-tty")
_ANY_TIME = ("--ignore-time-conflict", "--ignore-valid-from")


@dataclasses.dataclass(frozen=True)
class KeyFacts:
    """A key in a keyring.

    Attributes:
        uids: names and addresses.
        state: gpg's letter for its validity: r revoked, e expired, i invalid, d disabled.
        usable_for: gpg's capital letters: what the key as a whole, its subkeys included, can be used for now.
        usable_until: when its ability to encrypt ends, in seconds since 1970; None for never.
        subkeys: gpg's letters for the validity of the subkeys made for encryption.
    """

    fingerprint: str
    uids: tuple[str, ...]
    state: str
    usable_for: frozenset[str]
    usable_until: int | None = None
    subkeys: tuple[str, ...] = ()

    @property
    def can_encrypt(self) -> bool:
        """Whether something can be encrypted to it now."""
        return "E" in self.usable_for and "D" not in self.usable_for and self.state not in ("r", "e", "i", "d")

    def answers_to(self, recipient: str) -> bool:
        """Whether a fingerprint or a mail address means this key."""
        if "@" not in recipient:
            return plain_fingerprint(recipient) == self.fingerprint
        wanted = recipient.strip().lower().strip("<>")
        return any(_address(uid) == wanted for uid in self.uids)


def plain_fingerprint(text: str) -> str:
    """A fingerprint without the blanks and the 0x that people write."""
    packed = "".join(text.split()).upper()
    return packed[2:] if packed.startswith("0X") else packed


def is_fingerprint(text: str) -> bool:
    """Whether this is a whole fingerprint; short ids can be forged."""
    packed = plain_fingerprint(text)
    return len(packed) in (40, 64) and not packed.strip("0123456789ABCDEF")


def _address(uid: str) -> str:
    found = uid.rpartition("<")[2].rstrip(">") if uid.endswith(">") else uid
    return found.strip().lower()


class GpgKeys:
    """The keyring of one home directory."""

    def __init__(self, home: str) -> None:
        try:
            library = importlib.import_module("gnupg")
        except ImportError as error:
            raise ToolMissing(
                "The Python library python-gnupg is not installed on this host; checking encryption keys needs it.",
                reason="tool_missing",
                state="Nothing was touched.",
                next_step="Install Debian's package python3-gnupg, or run playbooks/site.yml for this host.",
            ) from error
        program = find_program("gpg", needed_for="encrypting backups")
        self._gpg: t.Any = library.GPG(gnupghome=home, gpgbinary=program, options=list(_OPTIONS))
        self._gpg.encoding = "utf-8"  # the library's own choice fails on other names

    def import_keys(self, data: bytes) -> tuple[str, ...]:
        """Import a block of keys; the fingerprints of what it held."""
        done = self._gpg.import_keys(data)
        return tuple(dict.fromkeys(fingerprint for fingerprint in done.fingerprints if fingerprint))

    def public(self) -> tuple[KeyFacts, ...]:
        """The public keys."""
        return tuple(_facts(entry) for entry in self._gpg.list_keys())

    def secret_fingerprints(self) -> tuple[str, ...]:
        """The keys whose private half is here."""
        return tuple(str(entry["fingerprint"]) for entry in self._gpg.list_keys(True))

    def try_encryption(self, fingerprints: t.Sequence[str]) -> str:
        """Encrypt a few bytes to these keys; '' or why it doesn't work."""
        done = self._gpg.encrypt(
            b"hms.postgres test", list(fingerprints), always_trust=True, extra_args=[*_ANY_TIME, "--no-encrypt-to"]
        )
        if done.ok and done.data:
            return ""
        last = [line for line in str(done.stderr).splitlines() if line.startswith("gpg: ")]
        return f"{done.status or 'no answer'}{': ' + last[-1] if last else ''}"


def _facts(entry: t.Mapping[str, t.Any]) -> KeyFacts:
    details = entry.get("subkey_info") or {}
    encrypting = [details.get(keyid, {}) for keyid, caps, *_rest in entry.get("subkeys", ()) if "e" in caps]
    valid = [sub for sub in encrypting if sub.get("trust") not in ("r", "e", "i", "d")]
    ends = [_moment(sub.get("expires")) for sub in valid]
    if "e" in str(entry.get("cap", "")):
        ends.append(_moment(entry.get("expires")))
    own = _moment(entry.get("expires"))
    latest = max((end for end in ends if end is not None), default=None) if None not in ends else None
    limits = [end for end in (own, latest) if end is not None]
    return KeyFacts(
        fingerprint=str(entry["fingerprint"]),
        uids=tuple(str(uid) for uid in entry.get("uids", ())),
        state=str(entry.get("trust", "")),
        usable_for=frozenset(letter for letter in str(entry.get("cap", "")) if letter.isupper()),
        usable_until=min(limits, default=None),
        subkeys=tuple(str(sub.get("trust", "")) for sub in encrypting),
    )


def _moment(text: t.Any) -> int | None:
    return int(text) if text else None
