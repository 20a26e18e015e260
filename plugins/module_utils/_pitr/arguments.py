# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What point-in-time recovery is told, as Ansible describes it, and the work that follows from it. PRIVATE."""

from __future__ import annotations

import os
import typing as t

from .._artifact.arguments import PGBACKREST, Spec
from .._artifact.pgbackrest_settings import settings_from
from .._errors import Refused
from .._files import read_json
from .._module import Result
from .._postgres import ConnectionParams
from . import candidates, rescue, search, work
from .look import Questions
from .model import Order, Target
from .plan import check_confirm
from .see import World
from .target import parse_target

TARGETS = ("target_time", "target_lsn", "target_xid", "target_name", "target_immediate", "before_transaction_on")
LISTS: Spec = {"type": "list", "elements": "str", "default": []}
PITR: Spec = {
    "state": {
        "type": "str",
        "choices": ["recovered", "absent", "candidates", "rescued"],
        "default": "recovered",
    },
    "config_directory": {"type": "path"},
    "cluster": {"type": "str"},
    "environment": {"type": "str"},
    "database": {"type": "str"},
    "confirm": {"type": "str", "default": ""},
    "asked_by": {"type": "str", "default": ""},
    "target_time": {"type": "str"},
    "target_lsn": {"type": "str"},
    "target_xid": {"type": "str"},
    "target_name": {"type": "str"},
    "target_immediate": {"type": "bool", "default": False},
    "before_transaction_on": {"type": "str"},
    "search_since": {"type": "str", "default": ""},
    "search_until": {"type": "str", "default": ""},
    "choose": {"type": "int"},
    "inclusive": {"type": "bool"},
    "timeline": {"type": "int", "default": 0},
    "label": {"type": "str", "default": ""},
    "directory": {"type": "path"},
    "port": {"type": "int", "default": 0},
    "settings": {"type": "dict", "default": {}},
    "processes": {"type": "int", "default": 2},
    "count": LISTS,
    "newest": {"type": "dict", "default": {}},
    "queries": LISTS,
    "tables": LISTS,
    "mode": {"type": "str", "choices": ["copy", "missing_rows"], "default": "copy"},
    "flush_wal": {"type": "bool", "default": True},
    "archive_wait": {"type": "float", "default": 60.0},
    "timeout": {"type": "float", "default": 86400.0},
    "login_host": {"type": "str"},
    "login_port": {"type": "int"},
    "login_user": {"type": "str"},
    "os_user": {"type": "str"},
    "data_directory": {"type": "path"},
    "state_dir": {"type": "path"},
    **PGBACKREST,
}
_HOST_S = ("cluster", "environment", "database", "login_host", "login_port", "login_user", "os_user", "state_dir")


def _refused(message: str, next_step: str) -> Refused:
    return Refused(message, reason="bad_config", phase="wish", state="Nothing was touched.", next_step=next_step)


def merged(params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """The arguments, and what the host's ``backup.json`` says where they say nothing."""
    values = {name: value for name, value in params.items() if value is not None}
    directory = values.get("config_directory")
    if directory:
        path = os.path.join(directory, "backup.json")
        try:
            found = read_json(path)
        except ValueError as error:
            raise _refused(f"{path} is no JSON: {error}.", "Run playbooks/site.yml for this host.") from error
        if not isinstance(found, dict):
            raise _refused(f"{path} is missing.", "Run playbooks/site.yml for this host, with backup_pgbackrest: true.")
        values = {**{name: found[name] for name in (*_HOST_S, "pgbackrest") if found.get(name)}, **values}
        config = {"config": os.path.join(directory, "pgbackrest.conf")}
        values["pgbackrest"] = {
            **config,
            **{k: v for k, v in (values.get("pgbackrest") or {}).items() if v is not None},
        }
    missing = [name for name in ("cluster", "environment", "database") if not values.get(name)]
    if missing:
        raise _refused(f"{', '.join(missing)} must be given, or config_directory.", "Give them.")
    return values


def order_from(values: t.Mapping[str, t.Any]) -> Order:
    """What is asked for, out of plain data."""
    cluster = values["cluster"]
    return Order(
        cluster=cluster,
        environment=values["environment"],
        database=values["database"],
        pgbackrest=settings_from(values.get("pgbackrest") or {}, cluster=cluster),
        connection=ConnectionParams(
            host=values.get("login_host", "/var/run/postgresql"),
            port=int(values.get("login_port", 5432)),
            user=values.get("login_user", "postgres"),
        ),
        state_dir=values.get("state_dir", f"/var/lib/hms-postgres/{cluster}"),
        os_user=values.get("os_user") or "postgres",
        data_directory=values.get("data_directory", ""),
        directory=values.get("directory", ""),
        port=values["port"],
        label=values["label"],
        confirm=values["confirm"],
        by=values["asked_by"],
        processes=values["processes"],
        settings={name: str(value) for name, value in values["settings"].items()},
        flush_wal=values["flush_wal"],
        archive_wait=values["archive_wait"],
        timeout=values["timeout"],
    )


def _asked(values: t.Mapping[str, t.Any]) -> dict[str, str]:
    return {"table": values["before_transaction_on"], "since": values["search_since"], "until": values["search_until"]}


def _target(values: t.Mapping[str, t.Any], order: Order, world: World, *, check_mode: bool) -> Target:
    """The target that is given, or just before the candidate that is chosen."""
    given = parse_target(values, inclusive=values.get("inclusive"), timeline=values["timeline"])
    table = values.get("before_transaction_on")
    if (given is None) == (not table):
        raise _refused(f"One target is needed, of {', '.join(TARGETS)}.", "Give one of them.")
    if given is not None:
        return given
    found, _warnings, _segments = search.find(order, _asked(values), world, flush=not check_mode)
    number = values.get("choose")
    if number is None or not 1 <= number <= len(found):
        lines = "; ".join(f"{place}: {candidates.describe(one)}" for place, one in enumerate(found, 1))
        raise _refused(
            f"choose must be 1 to {len(found)}: {lines}." if found else f"No transaction took rows from {table} then.",
            "Look at them with state: candidates, then say which one."
            if found
            else "Widen search_since and search_until.",
        )
    chosen: candidates.Candidate = found[int(number) - 1]
    return chosen.target()


def perform(params: t.Mapping[str, t.Any], world: World, *, check_mode: bool) -> Result:
    """The module's work."""
    values = merged(params)
    order = order_from(values)
    state = values["state"]
    if state == "absent":
        return work.absent(order, world, check_mode=check_mode)
    if state == "rescued":
        return rescue.rescued(order, values["tables"], values["mode"], world, check_mode=check_mode)
    if state == "candidates":
        if not values.get("before_transaction_on"):
            raise _refused("before_transaction_on must name a table.", "Give it.")
        return search.search(order, _asked(values), world, flush=not check_mode)
    check_confirm(order, check_mode=check_mode)
    questions = Questions(tuple(values["count"]), values["newest"], tuple(values["queries"]))
    target = _target(values, order, world, check_mode=check_mode)
    return work.recovered(order, target, questions, world, check_mode=check_mode)
