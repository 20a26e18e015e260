# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the restored database is to be besides its rows: as the live one is, or as the backed up one was. PRIVATE."""

from __future__ import annotations

import json
import typing as t

from .._artifact.database import DatabaseFacts
from .._errors import HmsError
from .build import Shape, read_rights
from .look import Look
from .properties import portable

_LIMIT = 16 * 1024 * 1024
_TEMPLATE = """
SELECT pg_catalog.pg_encoding_to_char(encoding), datcollate, datctype FROM pg_catalog.pg_database
WHERE datname = 'template0'
"""


def shape_of(seen: Look, database: str) -> Shape:
    """The live database's own; where there is none, that of the artifact, and then what the roles make."""
    live = seen.target.live
    if live is not None:
        rights = None if live.properties.get("acl") is None else read_rights(seen.maintenance, live.database.name)
        return Shape(live.database, portable(live.properties), rights)
    properties = portable(_kept(seen))
    encoding, collate, ctype = seen.maintenance.rows(_TEMPLATE)[0]
    found = DatabaseFacts(
        name=str(properties.get("database", "")),
        bytes=0,
        encoding=str(properties.get("encoding") or encoding),
        collate=str(properties.get("collate") or collate),
        ctype=str(properties.get("ctype") or ctype),
        provider=str(properties.get("locale_provider") or "c"),
        locale=str(properties.get("locale") or ""),
    )
    if properties.get("owner") not in seen.target.roles:
        properties.pop("owner", None)
    declared = f"{database}_owner"
    if "owner" not in properties and declared in seen.target.roles:
        properties["owner"] = declared
    return Shape(found, properties, parse_acl(properties.get("acl"), seen.target.roles))


def _kept(seen: Look) -> dict[str, t.Any]:
    """The properties that lie beside the rows in an artifact; none in old ones."""
    made = seen.artifact.manifest
    member = next((found for found in made.members if found.role == "properties"), None) if made else None
    if member is None:
        return {}
    data = bytearray()

    def sink(part: bytes) -> None:
        if len(data) > _LIMIT:
            raise HmsError(f"{member.name} is too large.", reason="artifact_damaged", phase="read")
        data.extend(part)

    seen.pourer.pour(member, what="Reading the database's properties", sink=sink)
    found = json.loads(bytes(data))
    return found if isinstance(found, dict) else {}


_LETTERS = {"C": "CREATE", "T": "TEMPORARY", "c": "CONNECT"}


def parse_acl(acl: t.Sequence[str] | None, roles: t.Collection[str]) -> tuple[tuple[str | None, str, bool], ...] | None:
    """Rights as PostgreSQL writes them (``role=CT*c/grantor``), those of roles that are there; None for the default."""
    if acl is None:
        return None
    found: list[tuple[str | None, str, bool]] = []
    for item in acl:
        grantee, letters = _item(item)
        if grantee and grantee not in roles:
            continue
        found += [
            (grantee or None, _LETTERS[letter], letters[at + 1 : at + 2] == "*")
            for at, letter in enumerate(letters)
            if letter in _LETTERS
        ]
    return tuple(found)


def _item(item: str) -> tuple[str, str]:
    """The grantee, unquoted, and the letters of one entry."""
    if item.startswith('"'):
        end = 1
        while end < len(item) and not (item[end] == '"' and item[end + 1 : end + 2] != '"'):
            end += 2 if item[end] == '"' else 1
        grantee, rest = item[1:end].replace('""', '"'), item[end + 1 :]
    else:
        grantee, _equals, rest = item.partition("=")
        rest = "=" + rest
    return grantee, rest[1:].partition("/")[0]
