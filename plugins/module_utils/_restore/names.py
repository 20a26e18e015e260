# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The names that databases have while they are restored and after they were replaced. PRIVATE. Pure."""

from __future__ import annotations

import datetime
import hashlib

from .._tools.database_rename import kept_name, stamp_of

PREFIX = "hms_restore_"
_STAMP = "%Y%m%dT%H%M%SZ"


def scratch_prefix(cluster: str, database: str) -> str:
    """What the names of all scratch databases of one database begin with."""
    return PREFIX + hashlib.sha256(f"{cluster}\0{database}".encode()).hexdigest()[:10] + "_"


def scratch_name(cluster: str, database: str, identity: str) -> str:
    """The scratch database of one artifact."""
    return scratch_prefix(cluster, database) + hashlib.sha256(identity.encode()).hexdigest()[:6]


def before_name(database: str, moment: datetime.datetime) -> str:
    """The name under which the database that is replaced stays."""
    return kept_name(database, "before", f"{moment.astimezone(datetime.timezone.utc):{_STAMP}}")


def put_aside(name: str, database: str) -> datetime.datetime | None:
    """When `name` was put aside as the old `database`, by a swap or its way back; None when it was not."""
    stamp = stamp_of(name, database, "before") or stamp_of(name, database, "after")
    try:
        return datetime.datetime.strptime(stamp, _STAMP).replace(tzinfo=datetime.timezone.utc)
    except ValueError:
        return None
