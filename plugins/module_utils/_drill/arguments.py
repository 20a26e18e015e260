# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a drill is told, as Ansible describes it, and the order that follows. PRIVATE."""

from __future__ import annotations

import dataclasses
import functools
import socket
import typing as t

from .._artifact.arguments import CONNECTION, ENCRYPTION, NAMES, PGBACKREST, STORE, Spec
from .._artifact.model import Encryption
from .._artifact.options import bad_config, connection_from
from .._artifact.sources import Sources
from .._clock import Clock
from .._command import CommandRunner
from .._module import Result
from .._postgres import connect
from .._tools.compressors import default_threads
from .attempt import Ports
from .model import ENGINES, Application, Order, Prove, RecoverTo, Restore
from .operation import Drill

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
    "engines": {"type": "list", "elements": "str", "choices": list(ENGINES), "default": list(ENGINES)},
    "recover_to": {"type": "str", "choices": ["archive_end", "consistent"], "default": "archive_end"},
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
    "django": {
        "type": "dict",
        "options": {
            "directory": {"type": "path", "required": True},
            "os_user": {"type": "str", "required": True},
            "python": {"type": "path", "default": Application.python},
            "settings": {"type": "str", "default": ""},
            "url_variable": {"type": "str", "default": Application.url_variable},
            "environment_file": {"type": "path"},
            "database": {"type": "str"},
        },
    },
    "state_dir": {"type": "path"},
    "timeout": {"type": "float", "default": 86400.0},
    **_UNSET,
    **STORE,
    **ENCRYPTION,
    **PGBACKREST,
}


def order_from(
    params: t.Mapping[str, t.Any], *, base: t.Mapping[str, t.Any], sources: Sources, encryption: Encryption
) -> Order:
    """The order. `base` is what the host's own file says, `sources` are its stores."""
    given = {key: value for key, value in params.items() if value is not None}
    values = {**base, **given}
    jobs = int(given.get("jobs", default_threads()))
    if jobs < 1:
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
        engines=_engines(given.get("engines")),
        recover_to=_recover_to(given.get("recover_to")),
        processes=jobs,
        environment=str(given.get("environment") or sources.environment),
        allow_phi=bool(given.get("allow_phi")),
        application=_application(given.get("django"), str(values.get("database") or "")),
    )


def _engines(given: t.Iterable[str] | None) -> tuple[str, ...]:
    engines = tuple(given or ENGINES)
    unknown = sorted(set(engines) - set(ENGINES))
    if unknown:
        raise bad_config(f"engines can be {' and '.join(ENGINES)}, not {', '.join(unknown)}.")
    return engines


def _recover_to(given: t.Any) -> RecoverTo:
    if given in (None, "archive_end"):
        return "archive_end"
    if given != "consistent":
        raise bad_config(f"recover_to is {given!r}; it can be archive_end or consistent.")
    return "consistent"


def _application(given: t.Mapping[str, t.Any] | None, database: str) -> Application | None:
    """The application; it is asked about the host's own database unless it says whose it is."""
    if not given:
        return None
    values = {name: value for name, value in given.items() if value is not None}
    unknown = sorted(set(values) - {field.name for field in dataclasses.fields(Application)})
    if unknown or not values.get("directory") or not values.get("os_user"):
        raise bad_config(
            f"django has no option {', '.join(unknown)}." if unknown else "django needs directory and os_user."
        )
    return Application(**{"database": database, **{name: str(value) for name, value in values.items()}})


def _text(value: t.Any) -> str:
    return ("off", "on")[value] if isinstance(value, bool) else str(value)


def asked_of(assertions: t.Iterable[t.Mapping[str, t.Any]] | None, database: str) -> list[t.Mapping[str, t.Any]]:
    """The questions that one database is asked."""
    return [one for one in assertions or () if one.get("database") in (None, database)]


def drill(
    order: Order,
    *,
    check_mode: bool,
    runner: CommandRunner,
    clock: Clock,
    restore: Restore,
    prove: Prove,
    by: str = "module",
) -> Result:
    """Drill what is ordered; in check mode only say how."""
    connecting = functools.partial(connect, os_user=order.os_user)
    ports = Ports(runner, clock, connecting, restore, prove, socket.gethostname(), by)
    return Drill(order, ports).run(check_mode=check_mode)
