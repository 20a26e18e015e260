# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A dump on its way into a store, compressed and encrypted, and the way back. PRIVATE to the collection.

Nothing lies on a disk in between, and nothing is committed here: who asked for the stream does that when he likes what
came of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import typing as t

from .._pipeline import CHUNK, Pipeline, Source, Stage, StageResult
from .._tools import compressors
from .keys import Keyring
from .model import Compression, Encryption

ENCRYPTED = ".gpg"


class Writer(t.Protocol):
    """As much of an object's writer as a stream needs: one store's, or several at once."""

    def write(self, data: bytes) -> None:
        """Add bytes."""


@dataclasses.dataclass(frozen=True)
class StreamResult:
    """What was handed to the writer."""

    bytes: int
    sha256: str
    stages: tuple[StageResult, ...] = ()


class Digest:
    """A sink that counts and hashes what passes, and hands it on."""

    def __init__(self, onward: t.Callable[[bytes], t.Any] | None = None) -> None:
        self.bytes = 0
        self._hash = hashlib.sha256()
        self._onward = onward

    def __call__(self, data: bytes) -> None:
        self.bytes += len(data)
        self._hash.update(data)
        if self._onward is not None:
            self._onward(data)

    @property
    def sha256(self) -> str:
        """The hash of what passed so far, in hex."""
        return self._hash.hexdigest()


def suffix(compression: Compression, encryption: Encryption) -> str:
    """The end of a member's name: ``.zst.gpg``."""
    return compressors.SUFFIXES[compression.method] + ("" if encryption.method == "none" else ENCRYPTED)


def store_stream(
    source: Stage | Source,
    *,
    compression: Compression,
    keyring: Keyring,
    writer: Writer,
    deadline: float,
    os_user: str | None = None,
    what: str = "The backup",
    state: str = "",
) -> StreamResult:
    """Write what a program, or a function, gives through compression and encryption to `writer`; commits nothing.

    Raises what the writer raises, `ToolFailed` with the reason ``stage_failed`` and the stage that is to blame as its
    phase, or `DeadlinePassed`. After any of them the writer holds a part and is to be aborted.
    """
    digest = Digest(writer.write)
    stages = [
        *([source] if isinstance(source, Stage) else []),
        *_there(
            compressors.compress_stage(
                compression.method, level=compression.level, threads=compression.threads, os_user=os_user
            ),
            keyring.encrypt_stage(),
        ),
    ]
    pipeline = Pipeline(stages, deadline=deadline, what=what, state=state)
    results: list[StageResult] = []
    if isinstance(source, Stage):
        results = pipeline.read(digest)
    elif stages:
        results = pipeline.feed(source, digest)
    else:
        copy(source, digest)
    return StreamResult(digest.bytes, digest.sha256, tuple(results))


def copy(source: Source, sink: t.Callable[[bytes], t.Any]) -> None:
    """Move bytes without any program."""
    while True:
        data = source(CHUNK)
        if not data:
            return
        sink(data)


def store_bytes(
    data: bytes,
    *,
    compression: Compression,
    keyring: Keyring,
    writer: Writer,
    deadline: float,
    os_user: str | None = None,
) -> StreamResult:
    """The same for something small that we hold already."""
    source = source_of(data)
    return store_stream(
        source, compression=compression, keyring=keyring, writer=writer, deadline=deadline, os_user=os_user
    )


def source_of(data: bytes) -> Source:
    """A source that gives these bytes."""
    left = [data]
    return lambda _size: left.pop() if left else b""


def read_stages(name: str, keyring: Keyring, *, os_user: str | None = None) -> list[Stage]:
    """The stages that give back what a member holds, by its name: decryption, decompression."""
    decrypt = keyring.decrypt_stage() if name.endswith(ENCRYPTED) else None
    return _there(decrypt, compressors.decompress_stage(compressors.method_of(name), os_user=os_user))


def _there(*stages: Stage | None) -> list[Stage]:
    return [stage for stage in stages if stage is not None]
