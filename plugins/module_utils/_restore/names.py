# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The names that databases have while they are restored and after they were replaced. PRIVATE. Pure."""

from __future__ import annotations

import datetime
import hashlib
import re

PREFIX = "hms_restore_"
_STAMP = "%Y%m%dT%H%M%SZ"
_BEFORE = re.compile(r"(?P<stem>.+)_before_(?P<stamp>\d{8}T\d{6}Z)", re.DOTALL)
_LIMIT = 63
_SUFFIX = len("_before_20261122T154500Z")


def scratch_prefix(cluster: str, database: str) -> str:
    """What the names of all scratch databases of one database begin with."""
    return PREFIX + hashlib.sha256(f"{cluster}\0{database}".encode()).hexdigest()[:10] + "_"


def scratch_name(cluster: str, database: str, identity: str) -> str:
    """The scratch database of one artifact."""
    return scratch_prefix(cluster, database) + hashlib.sha256(identity.encode()).hexdigest()[:6]


def _stem(database: str) -> str:
    """As much of a database's name as leaves room for the rest: names have 63 bytes."""
    return database.encode()[: _LIMIT - _SUFFIX].decode("utf-8", "ignore")


def before_name(database: str, moment: datetime.datetime) -> str:
    """The name under which the database that is replaced stays."""
    return f"{_stem(database)}_before_{moment.astimezone(datetime.timezone.utc):{_STAMP}}"


def before_moment(name: str, database: str) -> datetime.datetime | None:
    """When `name` was put aside as the old `database`; None when it is nothing of the kind."""
    match = _BEFORE.fullmatch(name)
    if match is None or match["stem"] != _stem(database):
        return None
    try:
        return datetime.datetime.strptime(match["stamp"], _STAMP).replace(tzinfo=datetime.timezone.utc)
    except ValueError:
        return None
