# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The manifest: what makes an artifact a backup. Written last; what has none is debris. PRIVATE to the collection.

Keys, under the store's own prefix::

    <cluster>/<database>/<id>/<member>             data.dump.zst.gpg, schema.dump.zst.gpg, globals.sql.zst.gpg
    <cluster>/<database>/<id>/manifest.json        complete from here on
    <cluster>/<database>/<id>/verification.json    the newest result of a later verification; replaced by the next
    <cluster>/<database>/catalog.jsonl.gz          a cache of the manifests: never the truth, rebuilt when it disagrees

A database's name is percent-encoded in keys (`key_part`), so that any name is one path component.
"""

from __future__ import annotations

import dataclasses
import typing as t
import urllib.parse

SCHEMA = 1
MANIFEST = "manifest.json"
VERIFICATION = "verification.json"
CATALOG = "catalog.jsonl.gz"


def key_part(name: str) -> str:
    """A name as one component of a key: percent-encoded, and never ``.`` or ``..``."""
    quoted = urllib.parse.quote(name, safe="")
    return quoted.replace(".", "%2E") if quoted.strip(".") == "" else quoted


def name_of(part: str) -> str:
    """The inverse of `key_part`."""
    return urllib.parse.unquote(part)


@dataclasses.dataclass(frozen=True)
class Member:
    """One object of an artifact.

    Attributes:
        role: data, schema, globals or properties.
        name: the last part of its key; its suffixes tell how to read it.
        bytes: as stored.
        sha256: of what is stored, in hex.
        plain_bytes, plain_sha256: of what the dump program wrote, as the verification read it back; None if it didn't.
    """

    role: str
    name: str
    bytes: int
    sha256: str
    plain_bytes: int | None = None
    plain_sha256: str | None = None


@dataclasses.dataclass(frozen=True)
class Verification:
    """What was proven about an artifact, and when.

    Attributes:
        level: read (hash, decryption, decompression, full parse) or deep (restored, counts compared).
        ok: whether it held.
        at: ISO time, UTC.
        seconds: how long it took.
        entries: entries in the archive's table of contents.
        problems: what did not hold, for the reader on call.
        partial: what could not be looked at (e.g. decryption: the host has no private key), '' when all was.
    """

    level: str
    ok: bool
    at: str
    seconds: float
    entries: int | None = None
    problems: tuple[str, ...] = ()
    partial: str = ""
    rows_compared: int | None = None


@dataclasses.dataclass(frozen=True)
class Manifest:
    """One complete backup, of whichever engine.

    Attributes:
        id: a record's id (`_record.new_id("backup", …)`); sorts by time.
        started, ended: ISO times in UTC by the database server's clock.
        seconds: by our own monotonic clock, verification not counted.
        server: version_num, system_identifier, timeline, encoding, collate, ctype, is_standby, host.
        snapshot: lsn, time, id; what the dump shows is the database at that moment.
        tools: versions of the programs.
        compression: method, level, threads; encryption: method, recipients (fingerprints).
        contents: database_bytes, tables, large_objects, extensions, roles, tablespaces, rows (by qualified name),
            migrations (Django's newest per application) as far as they were looked up.
        parent: the id it depends on ('' for none); chain for pgBackRest.
        expires_locked: until when the store's object lock holds it, '' for none.
    """

    id: str
    cluster: str
    environment: str
    database: str
    engine: str
    type: str
    format: str
    host: str
    by: str
    started: str
    ended: str
    seconds: float
    members: tuple[Member, ...]
    server: t.Mapping[str, t.Any]
    snapshot: t.Mapping[str, t.Any]
    tools: t.Mapping[str, str]
    compression: t.Mapping[str, t.Any]
    encryption: t.Mapping[str, t.Any]
    contents: t.Mapping[str, t.Any]
    verification: Verification | None = None
    parent: str = ""
    expires_locked: str = ""
    schema: int = SCHEMA

    @property
    def bytes(self) -> int:
        """Bytes stored."""
        return sum(member.bytes for member in self.members)

    @property
    def folder(self) -> str:
        """Its key without the last part."""
        return f"{key_part(self.cluster)}/{key_part(self.database)}/{self.id}"

    def key(self, name: str) -> str:
        """The key of a member, of the manifest or of the verification."""
        return f"{self.folder}/{name}"

    def as_dict(self) -> dict[str, t.Any]:
        """As plain data, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: t.Mapping[str, t.Any]) -> Manifest:
        """The inverse of `as_dict`; raises KeyError, TypeError or ValueError on anything else.

        Keys that a later version added are passed over; a later schema is not.
        """
        if data["schema"] != SCHEMA:
            raise ValueError(f"manifest schema {data['schema']!r} is not {SCHEMA}")
        known = {field.name for field in dataclasses.fields(cls)}
        values = {key: value for key, value in data.items() if key in known}
        values["members"] = tuple(Member(**member) for member in data["members"])
        values["verification"] = verification_from(data.get("verification"))
        return cls(**values)


def verification_from(data: t.Mapping[str, t.Any] | None) -> Verification | None:
    """A verification from plain data."""
    return None if data is None else Verification(**{**data, "problems": tuple(data["problems"])})
