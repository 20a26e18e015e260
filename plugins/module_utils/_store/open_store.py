# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stores from plain data, the same for the module's arguments and the host's ``backup.json``. PRIVATE."""

from __future__ import annotations

import dataclasses
import re
import typing as t
import urllib.parse

from .._errors import HmsError
from .model import FolderSpec, ObjectStore, S3Spec, StoreSpec

_CHOICES: dict[str, tuple[str, ...]] = {
    "addressing_style": ("auto", "path", "virtual"),
    "sse": ("AES256", "aws:kms"),
    "object_lock": ("GOVERNANCE", "COMPLIANCE"),
    "checksum": ("auto", "sha256", "md5"),
}
_NUMBERS: dict[str, type[float] | type[int]] = {"connect_timeout": float, "read_timeout": float, "attempts": int}
_S3_FIELDS = {field.name for field in dataclasses.fields(S3Spec)}
_BUCKET = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{1,62}$")


def _bad(message: str, next_step: str = "Correct the store's settings.") -> HmsError:
    return HmsError(message, reason="bad_config", state="Nothing was touched.", next_step=next_step)


def _given(value: t.Any, where: str) -> dict[str, t.Any]:
    """The keys that hold something: an Ansible argument that was not given is None."""
    if not isinstance(value, t.Mapping):
        raise _bad(f"{where} has to be a mapping, not {type(value).__name__}.")
    return {str(key): item for key, item in value.items() if item is not None}


def _text(key: str, value: t.Any) -> str:
    if not isinstance(value, str) or not value:
        raise _bad(f"{key} of a store has to be a text that is not empty.")
    return value


def _folder(value: t.Any) -> FolderSpec:
    given = {"path": value} if isinstance(value, str) else _given(value, "store.folder")
    if set(given) != {"path"}:
        raise _bad(f"A folder as a store has one setting, path, not {', '.join(sorted(given)) or 'none'}.")
    path = _text("path", given["path"])
    if not path.startswith("/") or path.strip("/") == "":
        raise _bad(f"The folder {path!r} of a store has to be an absolute path, and not the root.")
    return FolderSpec(path=path)


def _number(key: str, value: t.Any) -> float | int:
    try:
        number = _NUMBERS[key](value)
    except (TypeError, ValueError):
        number = 0
    if isinstance(value, bool) or number <= 0:
        raise _bad(f"{key} of an S3 store has to be a number above 0, not {value!r}.")
    return number


def _s3_values(given: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    values: dict[str, t.Any] = {}
    for key, value in given.items():
        if key in _NUMBERS:
            values[key] = _number(key, value)
        elif key == "prefix":
            values[key] = _prefix(value)
        else:
            values[key] = _text(key, value)
        if key in _CHOICES and values[key] not in _CHOICES[key]:
            raise _bad(f"{key} of an S3 store has to be one of {', '.join(_CHOICES[key])}, not {value!r}.")
    return values


def _prefix(value: t.Any) -> str:
    prefix = str(value).strip("/")
    if any(part in ("", ".", "..") for part in prefix.split("/")) and prefix:
        raise _bad(f"The prefix {value!r} of an S3 store holds an empty part, . or ..")
    return prefix


def _endpoint(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        # not shown: somebody may have written credentials into it
        raise _bad(
            "endpoint_url of an S3 store has to look like https://host:port.",
            "Give credentials as access_key_id and secret_access_key, never in the URL.",
        )


def _s3(value: t.Any) -> S3Spec:
    given = _given(value, "store.s3")
    unknown = sorted(set(given) - _S3_FIELDS)
    if unknown:
        raise _bad(f"An S3 store has no setting {', '.join(unknown)}; there are {', '.join(sorted(_S3_FIELDS))}.")
    values = _s3_values(given)
    if not _BUCKET.match(values.get("bucket", "")):
        raise _bad(f"An S3 store needs the name of a bucket, not {values.get('bucket')!r}.")
    if bool(values.get("access_key_id")) != bool(values.get("secret_access_key")):
        raise _bad("access_key_id and secret_access_key of an S3 store go together; one of them is missing.")
    if values.get("session_token") and not values.get("access_key_id"):
        raise _bad("session_token of an S3 store needs access_key_id and secret_access_key beside it.")
    if "endpoint_url" in values:
        _endpoint(values["endpoint_url"])
    if "kms_key_id" in values and values.setdefault("sse", "aws:kms") != "aws:kms":
        raise _bad("kms_key_id of an S3 store needs sse: aws:kms.")
    return S3Spec(**values)


def store_specs_from(value: t.Any) -> tuple[StoreSpec, ...]:
    """Every store that is named: ``{folder: …}``, ``{s3: {…}}``, both in one mapping, or a list of such mappings."""
    if isinstance(value, (list, tuple)):
        specs = tuple(spec for item in value for spec in store_specs_from(item))
    else:
        given = _given(value, "store")
        unknown = sorted(set(given) - {"folder", "s3"})
        if unknown:
            raise _bad(f"A store is a folder or s3, not {', '.join(unknown)}.")
        specs = tuple(
            _folder(given[kind]) if kind == "folder" else _s3(given[kind]) for kind in ("folder", "s3") if kind in given
        )
    if not specs:
        raise _bad("No store is named.", "Name a folder, or an S3 bucket, or both.")
    if len(set(specs)) != len(specs):
        raise _bad("The same store is named twice.")
    return specs


def store_spec_from(value: t.Mapping[str, t.Any]) -> StoreSpec:
    """The one store that is named."""
    specs = store_specs_from(value)
    if len(specs) != 1:
        raise _bad(f"One store was expected here, not {len(specs)}.")
    return specs[0]


def open_store(spec: StoreSpec) -> ObjectStore:
    """The store; nothing is connected, looked at or imported before it is used."""
    if isinstance(spec, FolderSpec):
        from .folder import FolderStore

        return FolderStore(spec)
    from .s3 import S3Store

    return S3Store(spec)
