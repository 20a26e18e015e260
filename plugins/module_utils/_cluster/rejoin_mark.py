# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``rewind.in_progress``: how a rewind that was killed is recognised. PRIVATE.

pg_rewind replaces files first and writes pg_control last. So an unchanged pg_control means that it didn't
finish; a changed one with a backup_label, that it did and the server was not started since.
"""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .._files import dump_json, read_json, remove_file, write_atomic
from . import dossier_keep
from .member_config import DatabaseHost
from .rejoin_model import Mark, MarkState

FILE_NAME = "rewind.in_progress"


def path(host: DatabaseHost) -> str:
    """Where the mark lies: beside the fence, not in the data directory, which pg_rewind cleans up."""
    return os.path.join(host.state_directory, FILE_NAME)


def write(host: DatabaseHost, mark: Mark) -> None:
    """Leave or renew the mark."""
    write_atomic(path(host), dump_json(dataclasses.asdict(mark)))


def remove(host: DatabaseHost) -> None:
    """The data directory is whole and about to be started."""
    remove_file(path(host))


def read_state(host: DatabaseHost) -> tuple[Mark | None, MarkState]:
    """The mark and what it means now."""
    try:
        data: t.Any = read_json(path(host))
    except ValueError:
        return None, "none"
    if not isinstance(data, dict):
        return None, "none"
    mark = Mark(**data)
    return mark, _state(host, mark)


def _state(host: DatabaseHost, mark: Mark) -> MarkState:
    data = host.instance.data_directory
    dossier = dossier_keep.read_dossier(mark.folder) or {}
    kept = next((item for item in dossier.get("files", []) if item["name"] == dossier_keep.CONTROL), None)
    if kept is None:
        return "stale"
    if dossier_keep.fingerprint(os.path.join(data, "global", "pg_control")) == kept["sha256"]:
        return "killed"
    return "finished" if os.path.exists(os.path.join(data, "backup_label")) else "stale"
