# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From a module's arguments to the order of a restore. PRIVATE."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .._artifact.model import Encryption
from .._artifact.options import CONNECTION, bad_config, connection_from
from .._artifact.sources import Sources
from .model import Assertion, Order
from .validate import text_of

_TAKEN = (
    *("strategy", "keep_failed", "again", "allow_phi", "allow_other_system", "allow_other_database"),
    *("allow_plain_sql", "backup_before", "sessions", "wait_seconds", "keep_days", "timeout"),
)
_CONNECTION = tuple(CONNECTION)
_NOT_FOR_IT = {"retention", "compression", "compression_level", "compression_threads", "if_busy"}
"""Of the host's policy: the backup before a restore is made fast, and removes nothing."""


def order_from(
    params: t.Mapping[str, t.Any],
    *,
    base: t.Mapping[str, t.Any],
    sources: Sources,
    known: t.Iterable[Encryption] = (),
) -> Order:
    """The order. `base` is what the host's own file says, `sources` and `known` are its stores and keys."""
    given = {key: value for key, value in params.items() if value is not None}
    values = {**base, **given}
    if not values.get("database"):
        raise bad_config("No database is named.", "Say which database is to come back.")
    state_dir = values.get("state_dir") or f"/var/lib/hms-postgres/{sources.cluster}"
    jobs = int(given["jobs"]) if "jobs" in given else None
    if jobs is not None and jobs < 1:
        raise bad_config("jobs is less than 1.")
    return Order(
        cluster=sources.cluster,
        environment=str(given.get("environment") or sources.environment),
        connection=dataclasses.replace(
            connection_from(values, values["database"]), application_name="hms.postgres restore"
        ),
        os_user=values.get("os_user", "postgres") or None,
        state_dir=state_dir,
        sources=sources,
        backup=str(given.get("backup") or "latest"),
        encryption=opens(given.get("encryption") or {}, known),
        assertions=tuple(_assertion(one) for one in given.get("assertions") or ()),
        masks=tuple(given.get("mask") or ()),
        confirm=str(given.get("confirm") or ""),
        force=frozenset(given.get("force") or ()),
        jobs=jobs,
        work_dir=given.get("work_dir") or os.path.join(state_dir, "restore"),
        **{name: given[name] for name in _TAKEN if name in given},
    )


def opens(given: t.Mapping[str, t.Any], known: t.Iterable[Encryption]) -> Encryption:
    """What opens backups: what was given, or a passphrase of the host's; never the keys that it encrypts to."""
    passphrase, passphrase_file = given.get("passphrase"), given.get("passphrase_file")
    keys = tuple(given.get("key_files") or ())
    if passphrase or passphrase_file or keys:
        return Encryption(key_files=keys, passphrase=passphrase, passphrase_file=passphrase_file)
    for one in known:
        if one.method == "passphrase":
            return Encryption(passphrase=one.passphrase, passphrase_file=one.passphrase_file)
    return Encryption()


def _assertion(data: t.Mapping[str, t.Any]) -> Assertion:
    return Assertion(str(data["name"]), str(data["sql"]), text_of(data.get("expect", True)))


def backup_arguments(params: t.Mapping[str, t.Any], *, base: t.Mapping[str, t.Any], order: Order) -> dict[str, t.Any]:
    """What the backup before a restore in place is told: the host's policy, or what the restore was given."""
    made = {key: value for key, value in base.items() if key not in _NOT_FOR_IT}
    if not made:
        made = {key: params[key] for key in _CONNECTION if params.get(key) is not None}
        encryption = {key: value for key, value in (params.get("encryption") or {}).items() if value}
        if encryption.get("key_files") and not encryption.get("recipients"):
            raise bad_config(
                "The backup before the restore would have to be encrypted, and only private keys are given.",
                "Give config_directory, so that the host's own policy makes it; or set backup_before to false.",
            )
        made.update(store=params.get("store"), encryption=encryption or None, os_user=params.get("os_user"))
    return {
        **{key: value for key, value in made.items() if value is not None},
        "cluster": order.cluster,
        "environment": order.environment,
        "database": order.database,
        "state_dir": order.state_dir,
        "engine": "pg_dump",
        "type": "full",
        "format": "custom",
        "verify": "read",
    }
