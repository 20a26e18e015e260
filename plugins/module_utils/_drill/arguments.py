# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a drill is told, as Ansible describes it, and the order that follows. PRIVATE."""

from __future__ import annotations

import functools
import socket
import typing as t

from .._artifact.arguments import CONNECTION, ENCRYPTION, NAMES, STORE, Spec
from .._artifact.model import Encryption
from .._artifact.options import bad_config, connection_from
from .._artifact.sources import Sources
from .._clock import Clock
from .._command import CommandRunner
from .._module import Result
from .._postgres import connect
from .model import Order, Restore
from .operation import Drill, Ports

DIRECTORY = "/var/lib/postgresql/hms-drill-{cluster}"
# what isn't given comes from the host's own file, so nothing has a default here
_UNSET: Spec = {
    name: {key: value for key, value in spec.items() if key != "default"} for name, spec in CONNECTION.items()
}
DRILL: Spec = {
    "config_directory": {"type": "path"},
    "cluster": {"type": "str"},
    "environment": {"type": "str"},
    "databases": NAMES,
    "jobs": {"type": "int"},
    "assertions": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "database": {"type": "str"},
            "sql": {"type": "str", "required": True},
            "expect": {"type": "raw", "default": True},
        },
    },
    "allow_phi": {"type": "bool", "default": False},
    "directory": {"type": "path"},
    "settings": {"type": "dict", "default": {}},
    "state_dir": {"type": "path"},
    "timeout": {"type": "float", "default": 86400.0},
    **_UNSET,
    **STORE,
    **ENCRYPTION,
}


def order_from(
    params: t.Mapping[str, t.Any], *, base: t.Mapping[str, t.Any], sources: Sources, encryption: Encryption
) -> Order:
    """The order. `base` is what the host's own file says, `sources` are its stores."""
    given = {key: value for key, value in params.items() if value is not None}
    values = {**base, **given}
    if int(given.get("jobs", 1)) < 1:
        raise bad_config("jobs is less than 1.")
    return Order(
        sources=sources,
        encryption=encryption,
        live=connection_from(values, "postgres"),
        os_user=values.get("os_user", "postgres") or None,
        state_dir=values.get("state_dir") or f"/var/lib/hms-postgres/{sources.cluster}",
        directory=given.get("directory") or DIRECTORY.format(cluster=sources.cluster),
        databases=tuple(given.get("databases") or ()),
        settings={str(name): _text(value) for name, value in (given.get("settings") or {}).items()},
        assertions=frozenset(str(one["name"]) for one in given.get("assertions") or ()),
        timeout=float(given.get("timeout", Order.timeout)),
    )


def _text(value: t.Any) -> str:
    return ("off", "on")[value] if isinstance(value, bool) else str(value)


def asked_of(assertions: t.Iterable[t.Mapping[str, t.Any]] | None, database: str) -> list[t.Mapping[str, t.Any]]:
    """The questions that one database is asked."""
    return [one for one in assertions or () if one.get("database") in (None, database)]


def drill(
    order: Order, *, check_mode: bool, runner: CommandRunner, clock: Clock, restore: Restore, by: str = "module"
) -> Result:
    """Drill what is ordered; in check mode only say how."""
    connecting = functools.partial(connect, os_user=order.os_user)
    return Drill(order, Ports(runner, clock, connecting, restore, socket.gethostname(), by)).run(check_mode=check_mode)
