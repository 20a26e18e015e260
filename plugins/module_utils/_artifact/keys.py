# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who can read a backup: keys and passphrases, checked before anything starts. PRIVATE to the collection.

A run has a GnuPG home of its own, in memory, which nothing outlives. With public keys the host that makes a backup
can't read it; so that it can be verified all the same, a key pair made for this run is one of the recipients, and
its private half is destroyed as soon as the verification is done.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import pwd
import stat
import time
import typing as t

from .._command import CommandRunner
from .._errors import HmsError, Refused
from .._pipeline import Pipeline, Stage
from .._tools.gpg import Gpg, GpgAgent, reason_of
from .._tools.gpg_keys import GpgKeys, KeyFacts, is_fingerprint
from .gpg_home import GpgHome
from .model import Encryption

EXPIRES_SOON = 30 * 86400
"""Seconds before its end at which a recipient's key is warned of."""
KEY_FILE_LIMIT = 4 * 1024 * 1024
PASSPHRASE_LIMIT = 1024
TEST_TIMEOUT = 120.0

_UNTOUCHED = "Nothing was touched; no backup was made."
_TEST = b"hms.postgres test\n" * 8


class Keyring:
    """What encrypts and decrypts the streams of one run. A context manager: nothing is left of it afterwards."""

    def __init__(self, method: str, *, home: GpgHome | None = None, passphrase: bytes | None = None) -> None:
        self.method = method
        self.fingerprints: tuple[str, ...] = ()
        """The recipients; the key of the verification is not one of them."""
        self.warnings: tuple[str, ...] = ()
        self.secret_fingerprints: tuple[str, ...] = ()
        self._ephemeral = ""
        self._home = home
        self._passphrase = passphrase
        self._agent: GpgAgent | None = None

    def __enter__(self) -> Keyring:
        return self

    def __exit__(self, *_reason: object) -> None:
        self.close()

    def describe(self) -> dict[str, t.Any]:
        """What a manifest says about the encryption."""
        return {"method": self.method, "recipients": list(self.fingerprints)}

    @property
    def can_decrypt(self) -> bool:
        """Whether what `encrypt_stage` writes can be read here, now."""
        return self.can_read(self.describe())

    def can_read(self, encryption: t.Mapping[str, t.Any]) -> bool:
        """Whether an artifact can be read here, by what its manifest says about its encryption."""
        method = encryption.get("method", "none")
        if method == "passphrase":
            return self._passphrase is not None
        if method == "public_key":
            known = set(self.secret_fingerprints) & set(encryption.get("recipients", ()))
            return bool(known) or (bool(self._ephemeral) and self.method == method)
        return bool(method == "none")

    def encrypt_stage(self) -> Stage | None:
        """The stage that encrypts; None where nothing is encrypted. It needs our own rights: the home is ours."""
        if self._home is None or self.method == "none":
            return None
        gpg = Gpg(self._home.path)
        if self.method == "passphrase":
            return gpg.encrypt_symmetric_stage(self._passphrase or b"")
        return gpg.encrypt_stage([*self.fingerprints, *([self._ephemeral] if self._ephemeral else [])])

    def decrypt_stage(self) -> Stage | None:
        """The stage that decrypts whatever can be decrypted here; None where there is nothing to do it with."""
        if self._home is None:
            return None
        return Gpg(self._home.path).decrypt_stage(self._passphrase)

    def destroy_private(self) -> None:
        """Destroy every private key: from here on nothing that was encrypted to public keys can be read here."""
        agent, self._agent = self._agent, None
        if agent is not None:
            agent.stop()
        if self._home is not None:
            self._home.remove_private()
        self._ephemeral = ""
        self.secret_fingerprints = ()

    def close(self) -> None:
        """Leave nothing."""
        self.destroy_private()
        if self._home is not None:
            self._home.remove()
        self._passphrase = None

    def start_agent(self, runner: CommandRunner) -> None:
        """Make private keys usable."""
        if self._home is not None and self._agent is None:
            agent = GpgAgent(self._home.path, runner)
            agent.start()
            self._agent = agent

    def make_ephemeral(self, runner: CommandRunner) -> None:
        """Make the key pair of the verification, which becomes one more recipient."""
        if self._home is not None:
            self.start_agent(runner)
            self._ephemeral = Gpg(self._home.path).make_key("hms.postgres verification of this run", runner)

    def prove(self) -> None:
        """Encrypt a few bytes as the payload will be and, where we can, read them back. Raises `Refused`."""
        encrypt = self.encrypt_stage()
        if encrypt is None:
            return
        decrypt = self.decrypt_stage() if self.can_decrypt else None
        back: list[bytes] = []
        try:
            Pipeline(
                [stage for stage in (encrypt, decrypt) if stage],
                deadline=time.monotonic() + TEST_TIMEOUT,
                what="The test of the encryption",
            ).feed(_rest_of(_TEST), back.append)
        except HmsError as error:
            tail = str(error.details.get("stderr_tail", ""))
            raise _refused(error.message, reason_of(tail) or "encryption_failed", "Read gpg's message.") from error
        if decrypt is not None and b"".join(back) != _TEST:
            raise _refused("What was encrypted for a test did not come back.", "encryption_failed", "Run it again.")


def _rest_of(data: bytes) -> t.Callable[[int], bytes]:
    parts = [data]
    return lambda _size: parts.pop() if parts else b""


def _refused(message: str, reason: str, next_step: str) -> Refused:
    return Refused(message, reason=reason, phase="encryption", state=_UNTOUCHED, next_step=next_step)


def prepare_keyring(encryption: Encryption, *, runner: CommandRunner, ephemeral: bool) -> Keyring:
    """The keyring for making a backup, checked: every recipient's key can be encrypted to, a passphrase is there.

    With `ephemeral` what it encrypts can be read here until `Keyring.destroy_private`.
    """
    if encryption.method == "none":
        _refuse_half_a_wish(encryption)
        return Keyring("none")
    passphrase = read_passphrase(encryption) if encryption.method == "passphrase" else None
    ring = Keyring(encryption.method, home=GpgHome.make(), passphrase=passphrase)
    with contextlib.ExitStack() as undo:
        undo.callback(ring.close)
        if encryption.method == "public_key":
            _take_recipients(ring, encryption, runner)
            if ephemeral:
                ring.make_ephemeral(runner)
        ring.prove()
        undo.pop_all()
    return ring


def reading_keyring(encryption: Encryption, *, runner: CommandRunner) -> Keyring:
    """The keyring for reading backups that exist: private keys in `key_files`, a passphrase (theirs, or the backup's).

    What it lacks is no error: `Keyring.can_read` tells for each artifact.
    """
    given = encryption.passphrase or encryption.passphrase_file
    passphrase = read_passphrase(encryption) if given else None
    if not (passphrase or encryption.key_files):
        return Keyring("none")
    ring = Keyring(encryption.method, home=GpgHome.make(), passphrase=passphrase)
    with contextlib.ExitStack() as undo:
        undo.callback(ring.close)
        if encryption.key_files:
            ring.start_agent(runner)
            keys = GpgKeys(ring_home(ring))
            for path in encryption.key_files:
                keys.import_keys(_read_key_file(path))
            ring.secret_fingerprints = keys.secret_fingerprints()
        undo.pop_all()
    return ring


def ring_home(ring: Keyring) -> str:
    """The folder of a keyring that has one."""
    home = ring._home
    if home is None:
        raise HmsError("This keyring has no home.", reason="defect")
    return home.path


def _refuse_half_a_wish(encryption: Encryption) -> None:
    if encryption.key_files:
        raise _refused(
            "Key files are given but no recipients, so nothing would be encrypted.",
            "bad_config",
            "Name the recipients by fingerprint or address, or leave the key files out.",
        )


def read_passphrase(encryption: Encryption) -> bytes:
    """The passphrase, from where it was given. Raises `Refused`."""
    if encryption.passphrase and encryption.passphrase_file:
        raise _refused("A passphrase and a file with one are given.", "bad_config", "Give one of the two.")
    if encryption.passphrase:
        secret = encryption.passphrase.encode()
        source = "The passphrase that was given"
    else:
        path = encryption.passphrase_file or ""
        secret = _read_private_file(path).rstrip(b"\r\n")
        source = f"The passphrase in {path}"
    if not secret:
        raise _refused(f"{source} is empty.", "passphrase_missing", "Give a passphrase.")
    if len(secret) > PASSPHRASE_LIMIT or b"\n" in secret or b"\0" in secret:
        raise _refused(f"{source} is longer than one line.", "passphrase_unusable", "Give a passphrase of one line.")
    return secret


def _read_private_file(path: str) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _refused(
            f"The passphrase file {path} can't be read: {error.strerror}.",
            "passphrase_missing",
            "Put the passphrase there, readable by its owner only, or correct the path.",
        ) from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise _refused(f"The passphrase file {path} is no regular file.", "passphrase_missing", "Correct the path.")
        if status.st_mode & 0o077 or status.st_uid not in (0, os.geteuid()):
            raise _refused(
                f"The passphrase file {path} has mode {status.st_mode & 0o7777:04o} and belongs to user id"
                f" {status.st_uid}: others can read or change it.",
                "passphrase_exposed",
                f"Change the passphrase if others could see it, then: chown root {path}; chmod 0600 {path}",
            )
        return os.read(handle, PASSPHRASE_LIMIT + 2)
    finally:
        os.close(handle)


def _read_key_file(path: str) -> bytes:
    try:
        with open(path, "rb") as source:
            return source.read(KEY_FILE_LIMIT)
    except OSError as error:
        raise _refused(
            f"The key file {path} can't be read: {error.strerror}.", "key_file_unreadable", "Correct the path."
        ) from error


def _holds_private_key(data: bytes) -> bool:
    """Whether a key file holds a private key, armoured or not (packet 5 of OpenPGP comes first then)."""
    if b"PRIVATE KEY BLOCK-----" in data:
        return True
    first = data[0] if data else 0
    tag = first & 0x3F if first & 0x40 else (first & 0x3C) >> 2
    return bool(first & 0x80) and tag == 5


def _take_recipients(ring: Keyring, encryption: Encryption, runner: CommandRunner) -> None:
    keys = GpgKeys(ring_home(ring))
    for recipient in encryption.recipients:
        if "@" not in recipient and not is_fingerprint(recipient):
            raise _refused(
                f"The recipient {recipient!r} is neither a whole fingerprint nor a mail address.",
                "bad_config",
                "Give the 40 digits that gpg --list-keys shows; a short id can be forged.",
            )
    for path in encryption.key_files:
        data = _read_key_file(path)
        if _holds_private_key(data):
            raise _refused(
                f"The key file {path} holds a private key, which would let this host read its backups.",
                "private_key_given",
                "Put the public half there: gpg --armor --export FINGERPRINT",
            )
        if not keys.import_keys(data):
            raise _refused(f"The key file {path} holds no key.", "key_file_unreadable", "Export the key again.")
    where = "the key files" if encryption.key_files else "the keyring of the account that runs this"
    if not encryption.key_files:
        _borrow(keys, encryption.recipients, runner)
    found, warnings = choose_keys(keys.public(), encryption.recipients, where=where, now=time.time())
    ring.fingerprints = tuple(key.fingerprint for key in found)
    ring.warnings = warnings
    trouble = keys.try_encryption(ring.fingerprints)
    if trouble:
        raise _refused(f"Encrypting to the recipients fails: {trouble}.", "encryption_failed", "Look at their keys.")


def _borrow(keys: GpgKeys, recipients: t.Sequence[str], runner: CommandRunner) -> None:
    """Copy the recipients' public keys out of our account's own keyring."""
    account = os.path.join(pwd.getpwuid(os.geteuid()).pw_dir, ".gnupg")
    if os.path.isdir(account):
        keys.import_keys(Gpg(account).export(recipients, runner).encode())


def choose_keys(
    keys: t.Sequence[KeyFacts], recipients: t.Sequence[str], *, where: str, now: float
) -> tuple[tuple[KeyFacts, ...], tuple[str, ...]]:
    """One usable key for every recipient, and warnings. Raises `Refused` naming the recipient."""
    chosen: dict[str, KeyFacts] = {}
    warnings: list[str] = []
    for recipient in recipients:
        matching = [key for key in keys if key.answers_to(recipient)]
        if not matching:
            raise _refused(
                f"There is no public key of the recipient {recipient} in {where}.",
                "recipient_unknown",
                "Add the file with its public key to the key files, or correct the recipient.",
            )
        if len(matching) > 1:
            listed = ", ".join(key.fingerprint for key in matching)
            raise _refused(
                f"The recipient {recipient} has several keys: {listed}.",
                "recipient_ambiguous",
                "Name the recipient by fingerprint.",
            )
        key = matching[0]
        if not key.can_encrypt:
            raise _unusable(recipient, key)
        chosen[key.fingerprint] = key
        if key.usable_until is not None and key.usable_until - now < EXPIRES_SOON:
            warnings.append(f"The key of the recipient {recipient} expires on {_day(key.usable_until)}.")
    return tuple(chosen.values()), tuple(warnings)


def _unusable(recipient: str, key: KeyFacts) -> Refused:
    letters = {key.state} | set(key.subkeys)
    if key.state == "r" or ("r" in letters and "e" not in letters):
        reason, how = "recipient_revoked", "was revoked"
    elif "e" in letters:
        reason, how = "recipient_expired", "has expired"
    elif not key.subkeys:
        reason, how = "recipient_cannot_encrypt", "was not made for encryption"
    else:
        reason, how = "recipient_unusable", "is disabled or invalid"
    return _refused(
        f"Nothing can be encrypted to the recipient {recipient}: the key {key.fingerprint} {how}.",
        reason,
        "Get a key that is valid, or name another recipient. A backup that nobody can read is none.",
    )


def _day(moment: int) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).strftime("%Y-%m-%d")
