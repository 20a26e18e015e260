# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pgBackRest's configuration file, as the role backup writes it. PRIVATE to the collection.

What is fixed here is fixed for a reason: compression that doesn't take half an hour, bundles because a bucket is slow
with many small files, no block-incremental backups while restores of them are not proven, no archive-push-queue-max
because it throws WAL away and calls that success, and a retention that never acts, because ours does.
"""

from __future__ import annotations

import re
import typing as t
import urllib.parse

from .._errors import HmsError
from .._store.model import FolderSpec, S3Spec
from .._store.open_store import store_spec_from
from .._tools.pgbackrest import NO_EXPIRY

CIPHER = "aes-256-cbc"
ARCHIVE_PUSH_SECONDS = 20
"""How long the server's archiver waits for one segment before it tries again; a shutdown waits for it as well."""

_NEEDED = (
    *("stanza", "repositories", "data_directory", "port", "socket_directory"),
    *("log_directory", "lock_directory", "spool_directory"),
)
_OPTIONAL: dict[str, t.Any] = {"passphrase": "", "process_max": 2, "compress_level": 3, "options": {}}
_OPTION = re.compile(r"[a-z][a-z0-9-]*")
_STANZA = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_FORBIDDEN = {
    "archive-push-queue-max": "it throws WAL away when the queue is full, and backups can't be restored then",
    "expire-auto": "what is removed is for the retention of the jobs to say",
}
_FORBIDDEN_ENDS = {
    "-block": "restores of block-incremental backups are not proven",
    "-cipher-pass": "it is set by passphrase",
}
_UNKNOWN_TO_PGBACKREST = ("storage_class", "object_lock", "session_token", "profile", "sse")


def _bad(message: str) -> HmsError:
    return HmsError(
        message, reason="bad_config", phase="wish", state="Nothing was touched.", next_step="Correct the variables."
    )


def _value(name: str, value: t.Any) -> str:
    """A value as the file takes it."""
    text = ("y" if value else "n") if isinstance(value, bool) else str(value)
    if not text or text != text.strip() or any(ord(character) < 32 for character in text):
        # not shown: it may be a secret
        raise _bad(f"{name} of pgBackRest is empty, has spaces at an end, or is longer than a line.")
    return text


def _s3(spec: S3Spec) -> dict[str, t.Any]:
    for name in _UNKNOWN_TO_PGBACKREST:
        if getattr(spec, name) and not (name == "sse" and spec.kms_key_id):
            raise _bad(f"pgBackRest has no {name} for a bucket.")
    endpoint = urllib.parse.urlsplit(spec.endpoint_url or f"https://s3.{spec.region}.amazonaws.com")
    if endpoint.scheme != "https":
        raise _bad("pgBackRest speaks to a bucket by TLS only: endpoint_url has to begin with https://.")
    if not spec.region:
        raise _bad("pgBackRest needs the region of a bucket; where the store knows none, any name will do.")
    found = {
        "type": "s3",
        "path": "/" + spec.prefix,
        "s3-bucket": spec.bucket,
        "s3-endpoint": endpoint.hostname,
        "s3-region": spec.region,
        "s3-uri-style": "path" if spec.addressing_style == "path" else "host",
        "storage-port": endpoint.port,
        "storage-ca-file": spec.ca_bundle,
        "s3-kms-key-id": spec.kms_key_id,
        "s3-key": spec.access_key_id,
        "s3-key-secret": spec.secret_access_key,
        # without keys the instance's own role is asked
        "s3-key-type": None if spec.access_key_id else "auto",
    }
    return {name: value for name, value in found.items() if value is not None}


def _repository(data: t.Any, passphrase: str) -> dict[str, t.Any]:
    spec = store_spec_from(data)
    found: dict[str, t.Any] = {"path": spec.path} if isinstance(spec, FolderSpec) else _s3(spec)
    found["retention-full"] = NO_EXPIRY
    found["bundle"] = True
    if passphrase:
        found.update({"cipher-type": CIPHER, "cipher-pass": passphrase})
    return found


def _options(given: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    for name in given:
        if not _OPTION.fullmatch(str(name)):
            raise _bad(f"{name!r} is no option of pgBackRest.")
        reason = _FORBIDDEN.get(name) or next((why for end, why in _FORBIDDEN_ENDS.items() if name.endswith(end)), "")
        if reason:
            raise _bad(f"{name} can't be set: {reason}.")
    return dict(given)


def sections(data: t.Mapping[str, t.Any]) -> dict[str, dict[str, t.Any]]:
    """The file's sections from what the role knows; raises `HmsError` with reason ``bad_config``."""
    unknown = sorted(set(data) - set(_NEEDED) - set(_OPTIONAL))
    missing = [name for name in _NEEDED if not data.get(name)]
    if unknown or missing:
        raise _bad(
            f"pgBackRest's configuration has no {', '.join(unknown)}." if unknown else f"{missing[0]} is missing."
        )
    known = {**_OPTIONAL, **data}
    if not _STANZA.fullmatch(str(known["stanza"])):
        raise _bad(f"{known['stanza']!r} can't be a stanza's name.")
    common: dict[str, t.Any] = {
        "compress-type": "zst",
        "compress-level": known["compress_level"],
        "process-max": known["process_max"],
        "start-fast": True,
        "archive-async": True,
        "expire-auto": False,
        "log-path": known["log_directory"],
        "log-level-file": "info",
        "lock-path": known["lock_directory"],
        "spool-path": known["spool_directory"],
    }
    for number, repository in enumerate(known["repositories"], 1):
        found = _repository(repository, known["passphrase"])
        common.update({f"repo{number}-{name}": value for name, value in found.items()})
    common.update(_options(known["options"]))
    return {
        "global": common,
        "global:archive-push": {"archive-timeout": ARCHIVE_PUSH_SECONDS},
        "global:restore": {"delta": True},
        str(known["stanza"]): {
            "pg1-path": known["data_directory"],
            "pg1-port": known["port"],
            "pg1-socket-path": known["socket_directory"],
        },
    }


def render(data: t.Mapping[str, t.Any]) -> str:
    """The file."""
    blocks = []
    for name, options in sections(data).items():
        lines = [f"{option}={_value(option, value)}" for option, value in options.items()]
        blocks.append("\n".join([f"[{name}]", *lines]))
    return "\n\n".join(blocks) + "\n"
