# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Manifests and verifications out of bytes that anybody may have written. PRIVATE to the collection.

Names in a manifest become keys that are removed one day, so nothing is taken that leads out of the backup's folder.
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing as t

from .._clock import parse_iso
from .manifest import MANIFEST, SCHEMA, VERIFICATION, Manifest, Member, Verification, verification_from

_SHA256 = re.compile(r"[0-9a-f]{64}")
_TEXTS = (
    *("id", "cluster", "environment", "database", "engine", "type", "format", "host", "by", "started", "ended"),
    *("parent", "expires_locked"),
)
HISTORY = 20
"""Results of later verifications that are kept of one backup."""
_MAPPINGS = ("server", "snapshot", "tools", "compression", "encryption", "contents")
_REPEATED = ("cluster", "environment", "database", "engine", "type", "format", "host", "by", "parent")
_REPEATED_MAPPINGS = ("server", "tools", "compression", "encryption")


class Pool:
    """What ten thousand manifests have in common, held once. Threads may share it."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._mappings: dict[str, t.Mapping[str, t.Any]] = {}
        self._members: dict[tuple[str, str, int], Member] = {}

    def text(self, value: str) -> str:
        """The same text, as it was seen first."""
        return self._texts.setdefault(value, value)

    def mapping(self, value: t.Mapping[str, t.Any]) -> t.Mapping[str, t.Any]:
        """The same mapping, as it was seen first."""
        return self._mappings.setdefault(repr(value), value)

    def member(self, value: Member) -> Member:
        """The member without its checksums; globals and schemas have the same size from backup to backup."""
        key = (value.role, value.name, value.bytes)
        return self._members.get(key) or self._members.setdefault(
            key, Member(self.text(value.role), self.text(value.name), value.bytes, "")
        )


def manifest_from_bytes(data: bytes) -> Manifest | str:
    """The manifest, or what is wrong with it, to be read after its key."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return "is not JSON"
    if not isinstance(document, dict):
        return "is not a manifest"
    if document.get("schema") != SCHEMA:
        return f"has the schema {str(document.get('schema'))[:20]}, which this version doesn't know"
    return _checked(document)


def manifest_from_cache(document: t.Any, pool: Pool) -> Manifest | None:
    """A manifest that `short` made, out of plain data; None when it is of no use."""
    if not isinstance(document, dict):
        return None
    found = _checked(document, whole=False)
    return None if isinstance(found, str) else _pooled(found, pool)


def _checked(document: t.Mapping[str, t.Any], *, whole: bool = True) -> Manifest | str:
    try:
        manifest = Manifest.from_dict(document)
        flaw = _flaw(manifest, whole=whole)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return f"is not a manifest ({type(error).__name__}: {str(error)[:80]})"
    return f"is not a manifest ({flaw})" if flaw else manifest


def _flaw(manifest: Manifest, *, whole: bool) -> str:
    """What in it isn't of its kind, '' when all is; raises ValueError for a time that isn't one."""
    for name in _TEXTS:
        if not isinstance(getattr(manifest, name), str):
            return f"{name} is no text"
    for name in _MAPPINGS:
        if not isinstance(getattr(manifest, name), dict):
            return f"{name} is no mapping"
    for name in (manifest.id, manifest.cluster, manifest.database, manifest.engine, manifest.type):
        if not name:
            return "a name is empty"
    for moment in (manifest.started, manifest.ended, *([manifest.expires_locked] if manifest.expires_locked else [])):
        parse_iso(moment)
    if isinstance(manifest.seconds, bool) or not isinstance(manifest.seconds, (int, float)):
        return "seconds is no number"
    return _members_flaw(manifest, whole=whole)


def _members_flaw(manifest: Manifest, *, whole: bool) -> str:
    names = [member.name for member in manifest.members]
    if len(set(names)) != len(names):
        return "two members have the same name"
    for member in manifest.members:
        values: dict[str, t.Any] = vars(member)  # whatever its annotations promise, it came out of JSON
        name, size, checksum = values["name"], values["bytes"], values["sha256"]
        if not isinstance(name, str) or not _is_name(name):
            return f"{name!r:.60} can't be a member's name"
        if not isinstance(values["role"], str):
            return f"the role of {name} is no text"
        if not isinstance(size, int) or size < 0:
            return f"the size of {name} is no number"
        if not isinstance(checksum, str) or not (_SHA256.fullmatch(checksum) if whole else checksum == ""):
            return f"the checksum of {name} is no SHA-256"
    return ""


def _is_name(name: str) -> bool:
    """Whether it is one component of a key that a member may have."""
    if not name or name in (".", "..", MANIFEST, VERIFICATION, "hold.json"):
        return False
    return "/" not in name and "\\" not in name and name.isprintable()


def short(manifest: Manifest, pool: Pool) -> Manifest:
    """What a catalog holds of it: no checksums, no id of its snapshot, no long parts of `contents`."""
    contents = {key: value for key, value in manifest.contents.items() if not isinstance(value, (dict, list, tuple))}
    snapshot = {key: value for key, value in manifest.snapshot.items() if key in ("lsn", "time")}
    return _pooled(dataclasses.replace(manifest, contents=contents, snapshot=snapshot), pool)


def _pooled(manifest: Manifest, pool: Pool) -> Manifest:
    """The same, sharing what others have too."""
    values: dict[str, t.Any] = {name: pool.text(getattr(manifest, name)) for name in _REPEATED}
    values.update({name: pool.mapping(getattr(manifest, name)) for name in _REPEATED_MAPPINGS})
    values["members"] = tuple(pool.member(member) for member in manifest.members)
    for name in ("contents", "snapshot"):
        values[name] = {pool.text(key): value for key, value in getattr(manifest, name).items()}
    return dataclasses.replace(manifest, **values)


def verifications_from(data: t.Any) -> tuple[Verification, ...]:
    """Verifications out of plain data, oldest first; what isn't one is passed over."""
    found = []
    for one in data if isinstance(data, list) else []:
        try:
            made = verification_from(one)
            if made is not None and isinstance(one["ok"], bool) and isinstance(one["level"], str):
                parse_iso(made.at)
                found.append(made)
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return tuple(sorted(found, key=lambda one: one.at))


def history_from_bytes(data: bytes) -> list[t.Any]:
    """The verifications in a ``verification.json``, as plain data; none when it can't be understood."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return []
    found = document.get("verifications") if isinstance(document, dict) else None
    return found if isinstance(found, list) else []


def history_to_bytes(identifier: str, history: t.Sequence[Verification]) -> bytes:
    """A ``verification.json``: the newest results, oldest first."""
    kept = [dataclasses.asdict(one) for one in history[-HISTORY:]]
    document = {"schema": SCHEMA, "id": identifier, "verifications": kept}
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
