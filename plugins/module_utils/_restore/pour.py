# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One pass over a member of an artifact: read, hashed, decrypted, decompressed, handed on. PRIVATE.

The stored bytes are hashed to their end whatever the programs behind think of them, so that damage is told from a
wrong key and from a statement that fails.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import tempfile
import typing as t

from .._artifact.keys import Keyring
from .._artifact.manifest import Member
from .._artifact.streams import ENCRYPTED, Digest, copy, read_stages
from .._errors import HmsError, Refused
from .._pipeline import Pipeline, Sink, Stage, Tap
from .._tools.gpg import reason_of
from .find import Artifact

_DECOMPRESSORS = ("zstd", "gunzip", "gzip", "pigz", "lz4")
_ENTRY = re.compile(r"(?:from TOC entry|Command was:|COPY failed for table) (?P<entry>[^\n]{1,200})")
_KEY = {
    "bad_passphrase": (
        "bad_passphrase",
        "the passphrase is not the one it was encrypted with",
        "Give the passphrase that was in force when the backup was made.",
    ),
    "no_secret_key": (
        "no_key",
        "none of the private keys here can decrypt it",
        "Give a file with the private key of one of its recipients (encryption.key_files).",
    ),
}


class _Patient:
    """A sink that remembers its first error, so that the stored bytes are still read to their end."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.error: HmsError | None = None

    def __call__(self, data: bytes) -> None:
        if self.error is None:
            try:
                self._sink(data)
            except HmsError as error:
                self.error = error


class Pourer:
    """Reads the members of one artifact."""

    def __init__(self, artifact: Artifact, keyring: Keyring, *, deadline: float, os_user: str | None) -> None:
        self.artifact = artifact
        self._keyring = keyring
        self.deadline = deadline
        self.os_user = os_user

    def check_key(self) -> None:
        """Whether there is anything here to open it with; whether it fits, the first member that is read shows."""
        made = self.artifact.manifest
        if made is not None:
            readable = self._keyring.can_read(made.encryption)
        else:
            closed = self.artifact.member.name.endswith(ENCRYPTED)
            readable = not closed or self._keyring.decrypt_stage() is not None
        if not readable:
            recipients = ", ".join(made.encryption.get("recipients", ())) if made else ""
            raise Refused(
                f"{self.artifact.name} is encrypted{' to ' + recipients if recipients else ''}, and there is nothing"
                " here that opens it.",
                reason="no_key",
                phase="look",
                state="Nothing was touched.",
                next_step="Give the passphrase, or a file with a private key (encryption.key_files).",
            )

    def pour(
        self, member: Member, *, what: str, last: t.Sequence[Stage | Tap] = (), sink: Sink | None = None
    ) -> Digest:
        """Send a member through `last` and to `sink`; what was stored, counted and hashed."""
        stored = Digest()
        reader = self.artifact.open(member)

        def source(size: int) -> bytes:
            data = reader.read(size)
            stored(data)
            return data

        stages = [*read_stages(member.name, self._keyring, os_user=self.os_user), *last]
        patient = _Patient(sink or _nowhere)
        failed: HmsError | None = None
        try:
            if stages:
                Pipeline(stages, deadline=self.deadline, what=what).feed(
                    source, patient if sink or not _ends_in_program(stages) else None, to_the_end=True
                )
            else:
                copy(source, patient)
        except HmsError as error:
            if error.reason != "stage_failed":
                raise
            failed = error
        finally:
            reader.close()
        self._check_stored(member, stored)
        if failed is not None:
            raise explained(failed, member.name)
        if patient.error is not None:
            raise patient.error
        return stored

    def _check_stored(self, member: Member, stored: Digest) -> None:
        if not member.sha256 or (stored.bytes, stored.sha256) == (member.bytes, member.sha256):
            return
        how = (
            f"{stored.bytes} bytes are stored, {member.bytes} were written"
            if stored.bytes != member.bytes
            else "the stored bytes are not those that its manifest tells of (SHA-256 differs)"
        )
        raise HmsError(
            f"{member.name} of {self.artifact.name} in {self.artifact.store.name} is damaged: {how}.",
            reason="artifact_damaged",
            phase="read",
            next_step="Use another copy, or another backup; verify the others: playbooks/backup_verify.yml.",
        )

    def staged(self, member: Member, folder: str) -> t.IO[bytes]:
        """A member, decrypted and decompressed, in a file without a name: it is gone when we are, however we end."""
        with contextlib.ExitStack() as unfinished:
            try:
                os.makedirs(folder, mode=0o700, exist_ok=True)
                target = unfinished.enter_context(tempfile.TemporaryFile(dir=folder))
            except OSError as error:
                raise no_room(folder, error.strerror) from error
            unfinished.callback(_close, target)

            def sink(data: bytes) -> None:
                try:
                    target.write(data)
                except OSError as error:
                    raise no_room(folder, error.strerror) from error

            if self.os_user is not None:
                os.fchown(target.fileno(), pwd.getpwnam(self.os_user).pw_uid, -1)
            self.pour(member, what="Staging the archive", sink=sink)
            try:
                target.flush()
            except OSError as error:
                raise no_room(folder, error.strerror) from error
            target.seek(0)
            unfinished.pop_all()  # whoever asked for it closes it
            return target


def _close(target: t.IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # what it still held does not fit either; nothing of it stays
        target.close()


def _nowhere(_data: bytes) -> None:
    """Nobody wants it."""


def _ends_in_program(stages: t.Sequence[Stage | Tap]) -> bool:
    return bool(stages) and stages[-1].name in ("pg_restore", "tar")


_NO_FILE = "restore with jobs: 1, which stages nothing"
_NO_FOLDER = "restore a backup in the custom format, which needs none"


def no_room(folder: str, why: str | None, *, unpacked: bool = False) -> HmsError:
    """The error for a place where what is decrypted can't lie."""
    return HmsError(
        f"The archive can't be {'unpacked' if unpacked else 'staged'} in {folder}: {why}.",
        reason="no_room",
        phase="stage",
        next_step=f"Make room there, give another work_dir, or {_NO_FOLDER if unpacked else _NO_FILE}.",
    )


def explained(error: HmsError, member: str) -> HmsError:
    """A stage's failure in the words of a restore, with what to do next."""
    tail = str(error.details.get("stderr_tail", ""))
    details = dict(error.details)
    if error.phase.startswith("gpg"):
        reason, meaning, step = _KEY.get(
            reason_of(tail), ("artifact_damaged", "it is damaged", "Use another copy, or another backup.")
        )
        return HmsError(
            f"{member} can't be decrypted: {meaning}. {error.message}",
            reason=reason,
            phase="decrypt",
            next_step=step,
            details=details,
        )
    if error.phase.partition(" ")[0] in _DECOMPRESSORS:
        return HmsError(
            f"{member} can't be decompressed: it is damaged or cut short. {error.message}",
            reason="artifact_damaged",
            phase="decompress",
            next_step="Use another copy, or another backup.",
            details=details,
        )
    entry = _ENTRY.search(tail)
    if entry is not None:
        details["failed_entry"] = entry["entry"].strip()
    return HmsError(
        error.message,
        reason="restore_failed",
        phase="load",
        next_step="Remove the cause that the message names, then run again; or use another backup.",
        details=details,
    )
