# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A wish from plain data: the module's arguments and the host's ``backup.json`` have the same fields. PRIVATE."""

from __future__ import annotations

import typing as t

from .._artifact.model import Compression
from .._artifact.options import CONNECTION, bad_config, build, connection_from, encryption_from, given, stores_from
from .model import TYPES, Engine, Retention, Type, Wish

_PLAIN = (
    "format",
    "jobs",
    "staging_dir",
    "verify",
    "globals",
    "role_passwords",
    "row_counts",
    "if_busy",
    "wait_seconds",
    "lock_timeout",
    "timeout",
)
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
    *CONNECTION,
}
DEFAULT_STATE_DIRECTORY = "/var/lib/hms-postgres/{cluster}"
MOST_JOBS = 64
_ALL_TYPES = {name for names in TYPES.values() for name in names}


def retention_from(data: t.Any, type_: str) -> dict[str, Retention]:
    """What is kept, by type: either one mapping of rules for `type_`, or a mapping of types to rules."""
    if not data:
        return {}
    if isinstance(data, t.Mapping) and set(data) <= _ALL_TYPES:
        return {name: build(Retention, f"retention.{name}", rules) for name, rules in given(data).items()}
    return {type_: build(Retention, "retention", data)}


def _check_type(engine: t.Any, type_: str) -> None:
    if engine not in TYPES:
        raise bad_config(f"There is no engine {engine!r}; there are {', '.join(TYPES)}.")
    allowed = TYPES[engine]
    if type_ not in allowed:
        raise bad_config(
            f"The engine {engine} makes no {type_!r} backups; it makes {', '.join(allowed)}.",
            "Choose another type, or the other engine.",
        )


def _check_directory(values: t.Mapping[str, t.Any]) -> None:
    jobs, staging = values.get("jobs"), values.get("staging_dir")
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or not 1 <= jobs <= MOST_JOBS):
        raise bad_config(f"jobs is {jobs!r}; it is a whole number from 1 to {MOST_JOBS}.")
    if staging is not None and not (isinstance(staging, str) and staging.startswith("/")):
        raise bad_config(f"staging_dir is {staging!r}; it is the absolute path of a folder.")


def wish_from(data: t.Mapping[str, t.Any]) -> Wish:
    """The wish; raises `HmsError` with reason ``bad_config`` on anything that can't be one."""
    values = given(data)
    unknown = sorted(set(values) - _KNOWN)
    if unknown:
        raise bad_config(f"A backup has no option {', '.join(unknown)}.")
    engine, type_ = values.get("engine", "pg_dump"), values.get("type", "full")
    _check_type(engine, type_)
    _check_directory(values)
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
        pgbackrest=given(values.get("pgbackrest") or {}),
        **{name: values[name] for name in _PLAIN if name in values},
    )
