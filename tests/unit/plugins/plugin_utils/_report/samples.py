# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Records for the tests: five as operations leave them, and alterations of them."""

from __future__ import annotations

import copy
import json
import pathlib
import typing as t

from ansible_collections.hms.postgres.plugins.plugin_utils._report.model import Record
from ansible_collections.hms.postgres.plugins.plugin_utils._report.parse import parse_record

FOLDER = pathlib.Path(__file__).with_name("fixtures")
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def load(name: str) -> dict[str, t.Any]:
    """A record of the fixtures."""
    found = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def altered(name: str, **changes: t.Any) -> dict[str, t.Any]:
    """A record of the fixtures with other values; `outcome__status` reaches inside, None takes a key away."""
    found = copy.deepcopy(load(name))
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = found
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    return found


def record(name: str, **changes: t.Any) -> Record:
    """The same, as the renderers see it."""
    return parse_record(altered(name, **changes))
