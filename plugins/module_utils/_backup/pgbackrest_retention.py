# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Removing backups from a pgBackRest repository, and the WAL that only they needed. PRIVATE to the collection.

What goes is decided elsewhere, for all engines alike; pgBackRest's own retention is set so high that it never acts.
"""

from __future__ import annotations

import typing as t

from .._artifact.pgbackrest_catalog import identify
from .._errors import Refused
from .._tools.pgbackrest import PgBackRest, Stanza


def order(stanza: Stanza, ids: t.Collection[str]) -> list[tuple[str, str]]:
    """The backups to remove as (id, label), those that build on others first. Raises `Refused` when one is needed.

    Ids that the repository doesn't know are passed over: they are gone already.
    """
    chosen = [backup for backup in stanza.backups if identify(backup) in ids]
    labels = {backup.label for backup in chosen}
    for backup in stanza.backups:
        needed = sorted(labels & set(backup.reference) | ({backup.prior} & labels))
        if backup.label not in labels and needed:
            raise Refused(
                f"{needed[0]} can't be removed: {backup.label}, which is kept, builds on it.",
                reason="needed",
                phase="retention",
                state="Nothing was removed.",
                next_step="Remove both or none.",
            )
    # labels of dependents are longer than, and sort after, those they build on; times say so as well
    return [(identify(backup), backup.label) for backup in sorted(chosen, key=lambda one: (one.start, one.label))[::-1]]


def remove(driver: PgBackRest, ids: t.Collection[str], *, timeout: float) -> list[str]:
    """Remove backups by id, then WAL older than the oldest full one that is left; returns the ids that are gone."""
    gone = []
    for identifier, label in order(driver.info(), ids):
        driver.expire(label=label, timeout=timeout)
        gone.append(identifier)
    fulls = sum(backup.type == "full" for backup in driver.info().backups)
    if fulls:
        driver.expire(wal_of_fulls=fulls, timeout=timeout)
    return gone
