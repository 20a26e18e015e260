# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A wish from plain data: the module's arguments and the host's ``backup.json`` have the same fields. PRIVATE."""

from __future__ import annotations

import dataclasses
import typing as t

from .._errors import HmsError
from .._postgres import ConnectionParams
from .._store.model import StoreSpec
from .._store.open_store import store_spec_from
from .model import TYPES, Compression, Encryption, Engine, Retention, Type, Wish

_PLAIN = (
    "format",
    "verify",
    "globals",
    "role_passwords",
    "row_counts",
    "if_busy",
    "wait_seconds",
    "lock_timeout",
    "timeout",
)
_CONNECTION = {
    "login_host": "host",
    "login_port": "port",
    "login_user": "user",
    "login_password": "password",
    "login_passfile": "passfile",
    "ssl_mode": "sslmode",
    "ssl_root_cert": "sslrootcert",
}
_KNOWN = {
    "cluster",
    "environment",
    "database",
    "engine",
    "type",
    "compression",
    "compression_level",
    "compression_threads",
    "encryption",
    "store",
    "retention",
    "os_user",
    "state_dir",
    "pgbackrest",
    *_PLAIN,
    *_CONNECTION,
}
DEFAULT_SOCKET_DIRECTORY = "/var/run/postgresql"
DEFAULT_STATE_DIRECTORY = "/var/lib/hms-postgres/{cluster}"
_ALL_TYPES = {name for names in TYPES.values() for name in names}


def bad_config(message: str, next_step: str = "Correct it and run again.") -> HmsError:
    """What can't be a wish."""
    return HmsError(message, reason="bad_config", phase="wish", state="Nothing was touched.", next_step=next_step)


def _given(data: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What is set: a module hands None for everything that isn't."""
    return {key: value for key, value in data.items() if value is not None}


def _build(cls: type[t.Any], name: str, data: t.Any) -> t.Any:
    """A dataclass from a mapping; unknown names are refused by name."""
    if not isinstance(data, t.Mapping):
        raise bad_config(f"{name} must be a mapping, not {type(data).__name__}.")
    values = _given(data)
    unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
    if unknown:
        raise bad_config(f"{name} has no option {', '.join(unknown)}.")
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def retention_from(data: t.Any, type_: str) -> dict[str, Retention]:
    """What is kept, by type: either one mapping of rules for `type_`, or a mapping of types to rules."""
    if not data:
        return {}
    if isinstance(data, t.Mapping) and set(data) <= _ALL_TYPES:
        return {name: _build(Retention, f"retention.{name}", rules) for name, rules in _given(data).items()}
    return {type_: _build(Retention, "retention", data)}


def stores_from(data: t.Any) -> tuple[StoreSpec, ...]:
    """The stores under ``folder`` and ``s3``; at least one."""
    if not isinstance(data, t.Mapping):
        raise bad_config("store must be a mapping with folder, s3 or both.")
    values = _given(data)
    unknown = sorted(set(values) - {"folder", "s3"})
    if unknown:
        raise bad_config(f"store has no option {', '.join(unknown)}.")
    specs: list[StoreSpec] = []
    if "folder" in values:
        folder = values["folder"]
        specs.append(store_spec_from({"folder": {"path": folder} if isinstance(folder, str) else _given(folder)}))
    if "s3" in values:
        specs.append(store_spec_from({"s3": _given(values["s3"])}))
    if not specs:
        raise bad_config("store names neither a folder nor an S3 bucket.", "Say where the backup goes.")
    return tuple(specs)


def connection_from(data: t.Mapping[str, t.Any], database: str) -> ConnectionParams:
    """Where the server is; the local socket where no host is given."""
    values = {name: data[key] for key, name in _CONNECTION.items() if data.get(key) is not None}
    values.setdefault("host", DEFAULT_SOCKET_DIRECTORY)
    return ConnectionParams(dbname=database, application_name="hms.postgres backup", **values)


def encryption_from(data: t.Any) -> Encryption:
    """Who can read it; recipients and a passphrase exclude each other."""
    made: Encryption = _build(Encryption, "encryption", data or {})
    if made.recipients and (made.passphrase or made.passphrase_file):
        raise bad_config("encryption has recipients and a passphrase; only one of them can be used.")
    if made.key_files and not made.recipients:
        raise bad_config("encryption has key_files but no recipients.", "Name the recipients, by fingerprint.")
    return made


def _check_type(engine: t.Any, type_: str) -> None:
    if engine not in TYPES:
        raise bad_config(f"There is no engine {engine!r}; there are {', '.join(TYPES)}.")
    allowed = TYPES[engine]
    if type_ not in allowed:
        raise bad_config(
            f"The engine {engine} makes no {type_!r} backups; it makes {', '.join(allowed)}.",
            "Choose another type, or the other engine.",
        )


def wish_from(data: t.Mapping[str, t.Any]) -> Wish:
    """The wish; raises `HmsError` with reason ``bad_config`` on anything that can't be one."""
    values = _given(data)
    unknown = sorted(set(values) - _KNOWN)
    if unknown:
        raise bad_config(f"A backup has no option {', '.join(unknown)}.")
    engine, type_ = values.get("engine", "pg_dump"), values.get("type", "full")
    _check_type(engine, type_)
    # pgBackRest's repository stands in its own configuration
    needed = ["cluster", "environment", "database", *(["store"] if engine == "pg_dump" else [])]
    missing = [name for name in needed if not values.get(name)]
    if missing:
        raise bad_config(f"A backup needs {', '.join(missing)}.")
    os_user = values.get("os_user", "postgres")
    return Wish(
        cluster=values["cluster"],
        environment=values["environment"],
        connection=connection_from(values, values["database"]),
        stores=stores_from(values["store"]) if engine == "pg_dump" else (),
        state_dir=values.get("state_dir") or DEFAULT_STATE_DIRECTORY.format(cluster=values["cluster"]),
        engine=t.cast(Engine, engine),
        type=t.cast(Type, type_),
        os_user=os_user or None,
        compression=Compression(
            method=values.get("compression", "zstd"),
            level=values.get("compression_level"),
            threads=values.get("compression_threads"),
        ),
        encryption=encryption_from(values.get("encryption")),
        retention=retention_from(values.get("retention"), type_),
        pgbackrest=_given(values.get("pgbackrest") or {}),
        **{name: values[name] for name in _PLAIN if name in values},
    )
