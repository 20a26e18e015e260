# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stores, keys and connections from plain data: modules and ``backup.json`` name them alike. PRIVATE."""

from __future__ import annotations

import dataclasses
import typing as t

from .._errors import HmsError
from .._postgres import ConnectionParams
from .._store.model import StoreSpec
from .._store.open_store import store_spec_from
from .model import Encryption

CONNECTION = {
    "login_host": "host",
    "login_port": "port",
    "login_user": "user",
    "login_password": "password",
    "login_passfile": "passfile",
    "ssl_mode": "sslmode",
    "ssl_root_cert": "sslrootcert",
}
DEFAULT_SOCKET_DIRECTORY = "/var/run/postgresql"


def bad_config(message: str, next_step: str = "Correct it and run again.") -> HmsError:
    """What can't be an order."""
    return HmsError(message, reason="bad_config", phase="wish", state="Nothing was touched.", next_step=next_step)


def given(data: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What is set: a module hands None for everything that isn't."""
    return {key: value for key, value in data.items() if value is not None}


def build(cls: type[t.Any], name: str, data: t.Any) -> t.Any:
    """A dataclass from a mapping; unknown names are refused by name."""
    if not isinstance(data, t.Mapping):
        raise bad_config(f"{name} must be a mapping, not {type(data).__name__}.")
    values = given(data)
    unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
    if unknown:
        raise bad_config(f"{name} has no option {', '.join(unknown)}.")
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def stores_from(data: t.Any) -> tuple[StoreSpec, ...]:
    """The stores under ``folder`` and ``s3``; at least one."""
    if not isinstance(data, t.Mapping):
        raise bad_config("store must be a mapping with folder, s3 or both.")
    values = given(data)
    unknown = sorted(set(values) - {"folder", "s3"})
    if unknown:
        raise bad_config(f"store has no option {', '.join(unknown)}.")
    specs: list[StoreSpec] = []
    if "folder" in values:
        folder = values["folder"]
        specs.append(store_spec_from({"folder": {"path": folder} if isinstance(folder, str) else given(folder)}))
    if "s3" in values:
        specs.append(store_spec_from({"s3": given(values["s3"])}))
    if not specs:
        raise bad_config("store names neither a folder nor an S3 bucket.", "Say where the backup goes.")
    return tuple(specs)


def connection_from(data: t.Mapping[str, t.Any], database: str) -> ConnectionParams:
    """Where the server is; the local socket where no host is given."""
    values = {name: data[key] for key, name in CONNECTION.items() if data.get(key) is not None}
    values.setdefault("host", DEFAULT_SOCKET_DIRECTORY)
    return ConnectionParams(dbname=database, application_name="hms.postgres backup", **values)


def encryption_from(data: t.Any) -> Encryption:
    """Who can read it; recipients and a passphrase exclude each other."""
    made: Encryption = build(Encryption, "encryption", data or {})
    if made.recipients and (made.passphrase or made.passphrase_file):
        raise bad_config("encryption has recipients and a passphrase; only one of them can be used.")
    if made.key_files and not made.recipients:
        raise bad_config("encryption has key_files but no recipients.", "Name the recipients, by fingerprint.")
    return made
