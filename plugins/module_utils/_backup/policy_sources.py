# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a host's backups are to be found, as its ``backup.json`` says. PRIVATE."""

from __future__ import annotations

import typing as t

from .._artifact import pgbackrest_settings
from .._artifact.model import Encryption
from .._artifact.options import bad_config, encryption_from
from .._artifact.sources import Sources, of_params
from .policy import Job, Policy, load


def of_policy(policy: Policy, database: str | None = None) -> Sources:
    """Everything that the jobs of a host write to, and what its file names beside them."""
    wishes = [job.wish for job in policy.jobs]
    if policy.base.get("database") and (policy.base.get("store") or policy.base.get("engine") == "pgbackrest"):
        wishes.append(policy.wish())
    if not wishes:
        raise bad_config("The policy has no job and names no store.", "Run playbooks/site.yml for this host.")
    specs = dict.fromkeys(spec for wish in wishes for spec in wish.stores)
    physical = dict.fromkeys(
        (pgbackrest_settings.settings_from(wish.pgbackrest, cluster=wish.cluster), wish.database)
        for wish in wishes
        if wish.engine == "pgbackrest"
    )
    return Sources(
        wishes[0].cluster,
        wishes[0].environment,
        database,
        tuple(specs),
        tuple(physical),
    )


def host_of(params: t.Mapping[str, t.Any]) -> tuple[t.Mapping[str, t.Any], Sources, list[Encryption]]:
    """For bringing backups back: what the host's own file says, its stores, and what it has to open them with."""
    if not params.get("config_directory"):
        return {}, of_params(params), []
    policy = load(params["config_directory"])
    return policy.base, of_policy(policy), encryptions_of(policy)


def encryptions_of(policy: Policy) -> list[Encryption]:
    """How a host encrypts: what its file says for all jobs, then each job."""
    return [encryption_from(policy.base.get("encryption")), *(job.wish.encryption for job in policy.jobs)]


def jobs_of(policy: Policy, database: str | None = None) -> tuple[Job, ...]:
    """The schedule, of one database or of all."""
    return tuple(job for job in policy.jobs if database in (None, job.wish.database))
