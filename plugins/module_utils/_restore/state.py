# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is remembered between runs: the scratch database that is proven, and a live one that went in place. PRIVATE."""

from __future__ import annotations

import hashlib
import json
import os
import typing as t

from .._artifact.manifest import key_part
from .._files import dump_json, read_json, remove_file, write_atomic
from .find import Artifact
from .model import Order
from .run_sql import read_mask


def state_path(order: Order) -> str:
    """The file of one database."""
    return os.path.join(order.state_dir, f"restore-{key_part(order.database)}.json")


def load(order: Order) -> dict[str, t.Any]:
    """What is remembered; nothing where it can't be understood."""
    try:
        found = read_json(state_path(order))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def save(order: Order, **values: t.Any) -> None:
    """Remember, beside what is remembered already; None forgets."""
    left = {key: value for key, value in {**load(order), **values}.items() if value is not None}
    path = state_path(order)
    if left:
        os.makedirs(order.state_dir, mode=0o755, exist_ok=True)
        write_atomic(path, dump_json(left))
    else:
        remove_file(path)


def digest(order: Order, artifact: Artifact) -> str:
    """The same for the same wish: artifact, masks by their content, assertions."""
    masks = [hashlib.sha256(read_mask(path)).hexdigest() for path in order.masks]
    asked = [[one.name, one.sql, one.expect] for one in order.assertions]
    text = json.dumps([artifact.identity, masks, asked, sorted(order.force), order.environment], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
