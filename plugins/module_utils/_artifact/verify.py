# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stored artifacts are proven by reading them: hash, decryption, decompression, the whole archive. PRIVATE.

One pass over what the store gives back. A damaged object is told from a wrong key: the stored bytes are hashed to
their end, whatever the programs behind think of them.
"""

from __future__ import annotations

import dataclasses
import json
import time
import typing as t

from .._clock import Clock, SystemClock, iso
from .._errors import DeadlinePassed, HmsError
from .._pipeline import Pipeline, Source, Stage, Tap
from .._store.model import ObjectStore
from .._tools.gpg import reason_of
from .._tools.pg_restore import HEAD, PgRestore, parse_head
from .directory import DirectoryArchive, judge
from .keys import Keyring
from .manifest import Manifest, Member, Verification
from .streams import ENCRYPTED, Digest, copy, read_stages

TAIL = 4096
JSON_LIMIT = 64 * 1024 * 1024
_COMPLETE = {
    "globals": b"-- PostgreSQL database cluster dump complete",
    "data": b"-- PostgreSQL database dump complete",
    "schema": b"-- PostgreSQL database dump complete",
}


@dataclasses.dataclass(frozen=True)
class MemberCheck:
    """What was found out about one member.

    Attributes:
        bytes, sha256: of what is stored now.
        plain_bytes, plain_sha256: of what came out at the end; None where it was not looked at or not whole.
        entries: entries in the archive's table of contents; None for what is no archive.
        problems: what does not hold.
        partial: what could not be looked at.
    """

    bytes: int
    sha256: str
    plain_bytes: int | None = None
    plain_sha256: str | None = None
    entries: int | None = None
    problems: tuple[str, ...] = ()
    partial: str = ""


@dataclasses.dataclass(frozen=True)
class ArtifactCheck:
    """A verification and the members with what they hold filled in."""

    verification: Verification
    members: tuple[Member, ...]


class _Plain:
    """What a member holds, as it passes by: counted, hashed, its beginning and its end kept."""

    def __init__(self, *, whole: bool, archive: DirectoryArchive | None = None) -> None:
        self.digest = Digest(archive)
        self.archive = archive
        self.head = b""
        self.tail = b""
        self.content: bytearray | None = bytearray() if whole else None

    def __call__(self, data: bytes) -> None:
        self.digest(data)
        if len(self.head) < HEAD:
            self.head += data[: HEAD - len(self.head)]
        self.tail = data[-TAIL:] if len(data) >= TAIL else (self.tail + data)[-TAIL:]
        if self.content is not None and len(self.content) <= JSON_LIMIT:
            self.content += data


def verify_member(
    store: ObjectStore,
    key: str,
    member: Member,
    keyring: Keyring | None,
    *,
    pg_restore: PgRestore,
    deadline: float,
    os_user: str | None = None,
) -> MemberCheck:
    """Read a member back and prove it. With no keyring only the stored bytes of an encrypted one are looked at.

    Raises what the store raises when it can't be read, and `DeadlinePassed`; damage is a problem in the result.
    """
    stored = Digest()
    reader = store.open(key)

    def source(size: int) -> bytes:
        data = reader.read(size)
        stored(data)
        return data

    try:
        if member.name.endswith(ENCRYPTED) and keyring is None:
            copy(source, lambda _data: None)
            plain, trouble = None, ""
        else:
            archive = DirectoryArchive() if is_directory(member) else None
            plain = _Plain(whole=member.role == "properties", archive=archive)
            trouble = _read(source, plain, member, keyring or Keyring("none"), deadline, pg_restore, os_user)
    finally:
        reader.close()
    problems = _stored_problems(key, member, stored)
    if plain is None:
        return MemberCheck(stored.bytes, stored.sha256, problems=problems, partial="it is encrypted and no key is here")
    if problems or trouble or plain.archive is None:
        entries, doubts = _content(member, plain)
    else:
        entries, doubts = judge(plain.archive, pg_restore, deadline=deadline, os_user=os_user)
    # what came out of a damaged object proves nothing further
    problems += (f"{member.name}: {trouble}",) if trouble else () if problems else _doubts(member, plain, doubts)
    return MemberCheck(
        stored.bytes,
        stored.sha256,
        plain_bytes=None if problems else plain.digest.bytes,
        plain_sha256=None if problems else plain.digest.sha256,
        entries=entries,
        problems=problems,
    )


def _read(
    source: Source,
    plain: _Plain,
    member: Member,
    keyring: Keyring,
    deadline: float,
    pg_restore: PgRestore,
    os_user: str | None,
) -> str:
    """Send the stored bytes through all that reads them; '' or which program found what wrong."""
    stages = read_stages(member.name, keyring, os_user=os_user)
    what = f"Reading {member.name} back"
    try:
        if is_archive(member):
            chain: list[Stage | Tap] = [*stages, Tap("contents", plain), pg_restore.parse_stage()]
            Pipeline(chain, deadline=deadline, what=what).feed(source, to_the_end=True)
        elif stages:
            Pipeline(stages, deadline=deadline, what=what).feed(source, plain, to_the_end=True)
        else:
            copy(source, plain)
    except DeadlinePassed:
        raise
    except HmsError as error:
        if error.reason != "stage_failed":
            raise
        tail = str(error.details.get("stderr_tail", ""))
        known = reason_of(tail) if error.phase.startswith("gpg") else ""
        meaning = _MEANING.get(known, "")
        return f"{error.message}{' (' + meaning + ')' if meaning else ''}"
    return ""


_MEANING = {
    "bad_passphrase": "the passphrase is not the one it was encrypted with",
    "no_secret_key": "none of the private keys here can decrypt it",
    "corrupt": "it is damaged",
}


def is_archive(member: Member) -> bool:
    """Whether a member is an archive of pg_dump's, by its name."""
    return ".dump" in member.name


def is_directory(member: Member) -> bool:
    """Whether a member is a folder of pg_dump's as a tar stream, by its name."""
    return ".tar" in member.name


def _stored_problems(key: str, member: Member, stored: Digest) -> tuple[str, ...]:
    if stored.bytes != member.bytes:
        return (f"{member.name}: {stored.bytes} bytes are stored as {key}, {member.bytes} were written",)
    if stored.sha256 != member.sha256:
        return (f"{member.name}: the bytes stored as {key} are not those that were written (SHA-256 differs)",)
    return ()


def _content(member: Member, plain: _Plain) -> tuple[int | None, tuple[str, ...]]:
    """The archive's number of entries, and what is wrong with the beginning or the end of the content."""
    if plain.archive is not None:
        return None, ()
    if is_archive(member):
        try:
            return parse_head(plain.head).entries, ()
        except ValueError as error:
            return None, (f"{error}",)
    if plain.content is not None:
        try:
            json.loads(bytes(plain.content))
        except ValueError as error:
            return None, (f"it is no JSON: {error}",)
        return None, ()
    if _COMPLETE[member.role] not in plain.tail:
        return None, ("the line at its end that says it is complete is missing",)
    return None, ()


def _doubts(member: Member, plain: _Plain, doubts: t.Sequence[str]) -> tuple[str, ...]:
    found = [f"{member.name}: {doubt}" for doubt in doubts]
    if member.plain_sha256 not in (None, plain.digest.sha256):
        found.append(f"{member.name}: its content is not what was dumped (SHA-256 differs)")
    return tuple(found)


def verify_artifact(
    store: ObjectStore,
    manifest: Manifest,
    keyring: Keyring | None,
    *,
    pg_restore: PgRestore,
    deadline: float,
    level: str = "read",
    clock: Clock | None = None,
    os_user: str | None = None,
) -> ArtifactCheck:
    """Prove every member of an artifact in one store. Without a key that fits, the stored bytes alone are proven."""
    clock = clock or SystemClock()
    started = time.monotonic()
    readable = keyring if keyring is not None and keyring.can_read(manifest.encryption) else None
    checks: list[MemberCheck] = []
    problems: list[str] = []
    for member in manifest.members:
        try:
            check = verify_member(
                store,
                manifest.key(member.name),
                member,
                readable,
                deadline=deadline,
                pg_restore=pg_restore,
                os_user=os_user,
            )
        except DeadlinePassed:
            raise
        except HmsError as error:
            check = MemberCheck(0, "", problems=(f"{member.name}: {error.message}",))
        checks.append(check)
        problems += check.problems
    partial = [f"{member.name}: {check.partial}" for member, check in zip(manifest.members, checks) if check.partial]
    entries = [check.entries for member, check in zip(manifest.members, checks) if member.role == "data"]
    verification = Verification(
        level=level,
        ok=not problems,
        at=iso(clock.now()),
        seconds=round(time.monotonic() - started, 3),
        entries=entries[0] if entries else None,
        problems=tuple(problems),
        partial="; ".join(partial),
    )
    return ArtifactCheck(verification, tuple(map(_filled, manifest.members, checks)))


def _filled(member: Member, check: MemberCheck) -> Member:
    if check.plain_sha256 is None:
        return member
    return dataclasses.replace(member, plain_bytes=check.plain_bytes, plain_sha256=check.plain_sha256)
