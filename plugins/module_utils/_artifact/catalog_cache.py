# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cache of a database's manifests: one object of compressed lines, read and written line by line. PRIVATE.

The first line names the schema, each other one is what is known of one object: ``k`` its key below the database's
folder, ``t`` its tag when it was read, and ``m`` (a manifest, shortened), ``p`` (what is wrong with it) or ``v`` (a
backup's later verifications). A line counts only while the store lists that key with that tag, so nothing here can
show a backup that isn't there or hide one that is. A cache with a flaw anywhere is of no use and is made anew.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import typing as t
import zlib

from .._errors import HmsError
from .._store.model import ObjectStore
from .catalog_parse import Pool, manifest_from_cache, verifications_from
from .manifest import CATALOG, Manifest, Verification

SCHEMA = 2
STORED_LIMIT = 64 * 1024 * 1024
PLAIN_LIMIT = 1024 * 1024 * 1024
LINE_LIMIT = 1024 * 1024

Known = t.Union[Manifest, str, tuple[Verification, ...]]
"""What was found in one object: a manifest, what is wrong with it, or verifications."""


class Useless(Exception):
    """A cache that can't be used."""


def read(store: ObjectStore, part: str, tags: t.Mapping[str, str], pool: Pool) -> tuple[dict[str, Known], bool]:
    """What the cache of one database (``cluster/database``) knows of the objects with these tags, by key.

    The second value is whether the cache holds that and nothing else: then it need not be written.
    """
    found: dict[str, Known] = {}
    lines = 0
    try:
        data = store.get(f"{part}/{CATALOG}", limit=STORED_LIMIT)
        for line in _lines(data):
            lines += 1
            key = f"{part}/{line['k']}"
            if tags.get(key) == line["t"] and (known := _known(line, pool)) is not None:
                found[key] = known
    except (HmsError, Useless, OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, RecursionError):
        return {}, False
    return found, lines == len(found)


def _lines(data: bytes) -> t.Iterator[dict[str, t.Any]]:
    """The lines after the first; raises where anything isn't as it was written."""
    left = PLAIN_LIMIT
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as plain:
        head = json.loads(plain.readline(LINE_LIMIT))
        if head != {"schema": SCHEMA}:
            raise Useless
        while text := plain.readline(LINE_LIMIT):
            left -= len(text)
            if left < 0 or not text.endswith(b"\n"):
                raise Useless
            yield json.loads(text)


def _known(line: t.Mapping[str, t.Any], pool: Pool) -> Known | None:
    if "v" in line:
        return verifications_from(line["v"])
    if "p" in line:
        return str(line["p"])
    return manifest_from_cache(line.get("m"), pool)


def write(store: ObjectStore, part: str, known: t.Iterable[tuple[str, str, Known]]) -> None:
    """Write the cache of one database from keys, tags and what is known; who may not write just stays slow."""
    stored = io.BytesIO()
    with gzip.GzipFile(fileobj=stored, mode="wb", compresslevel=6, mtime=0) as plain:
        plain.write(_text({"schema": SCHEMA}))
        for key, tag, value in known:
            plain.write(_text({"k": key[len(part) + 1 :], "t": tag, **_plain(value)}))
    try:
        store.put(f"{part}/{CATALOG}", stored.getvalue(), replace=True)
    except HmsError:
        return


def _plain(value: Known) -> dict[str, t.Any]:
    if isinstance(value, Manifest):
        return {"m": value.as_dict()}
    if isinstance(value, str):
        return {"p": value}
    return {"v": [dataclasses.asdict(one) for one in value]}


def _text(line: t.Mapping[str, t.Any]) -> bytes:
    return json.dumps(line, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
