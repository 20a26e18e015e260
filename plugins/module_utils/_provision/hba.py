# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pg_hba.conf from data: a pure function. PRIVATE to the collection."""

from __future__ import annotations

import ipaddress
import re
import typing as t

from .._errors import HmsError

LOCAL = "local"
TYPES = (LOCAL, "host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc")
METHODS = ("peer", "scram-sha-256", "cert", "reject", "ldap", "gss", "pam", "radius", "ident")
"""Methods that can be asked for. Those that are missing here (trust, password, md5) are not safe."""

ADDRESS_WORDS = ("all", "samehost", "samenet")
_HOST_NAME = re.compile(r"^\.?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$")
_PLAIN = re.compile(r"^[A-Za-z0-9_.+*/-]+$")
_WIDTHS = (8, 24, 24, 24)

Rule = t.Mapping[str, t.Any]


def _bad(message: str) -> HmsError:
    return HmsError(
        message,
        reason="bad_hba_rule",
        state="pg_hba.conf was not touched.",
        next_step="Correct postgresql_hba or postgresql_hba_extra.",
    )


def render_address(address: str) -> str:
    """An address as pg_hba.conf takes it: networks as they are, a single address with the full mask, or a name."""
    if address in ADDRESS_WORDS:
        return address
    try:
        return str(ipaddress.ip_network(address, strict=True))
    except ValueError as error:
        if not _HOST_NAME.match(address) or re.fullmatch(r"[0-9.]+", address) or "/" in address:
            raise _bad(f"{address!r} is neither an address, a network nor a host name ({error}).") from error
        return address


def _names(rule: Rule, key: str) -> str:
    values = rule.get(key) or []
    if isinstance(values, str):
        values = [values]
    if not values:
        raise _bad(f"A rule names no {key}: {dict(rule)}.")
    return ",".join(_quoted(str(value)) for value in values)


def _quoted(name: str) -> str:
    if _PLAIN.match(name):
        return name
    if '"' in name or "\n" in name or "\r" in name:
        raise _bad(f"{name!r} cannot be written into pg_hba.conf.")
    return f'"{name}"'


def _options(rule: Rule) -> list[str]:
    options: t.Mapping[str, t.Any] = rule.get("options") or {}
    return [f"{name}={_quoted(str(value))}" for name, value in options.items()]


def _line(fields: t.Sequence[str]) -> str:
    padded = [field.ljust(width) for field, width in zip(fields, _WIDTHS)]
    return " ".join([*padded, *fields[len(_WIDTHS) :]]).rstrip()


def render_rule(rule: Rule) -> list[str]:
    """The lines of one rule: its comment, then a line for each address.

    A rule for the network whose list of addresses is empty lets nobody in and has no lines.
    """
    kind, method = str(rule.get("type", "")), str(rule.get("method", ""))
    if kind not in TYPES:
        raise _bad(f"{kind!r} is no type of a rule; there are {', '.join(TYPES)}.")
    if method not in METHODS:
        raise _bad(f"{method!r} is not a method that this collection writes; there are {', '.join(METHODS)}.")
    addresses = rule.get("addresses")
    if kind == LOCAL and addresses:
        raise _bad(f"A local rule has no addresses: {dict(rule)}.")
    if kind != LOCAL and addresses is None:
        raise _bad(f"A rule names no addresses: {dict(rule)}.")
    head = [kind, _names(rule, "databases"), _names(rule, "users")]
    if kind != LOCAL and not addresses:
        return []
    comment = str(rule.get("comment") or "")
    lines = ["# " + " ".join(comment.split())] if comment else []
    targets = dict.fromkeys(render_address(str(address)) for address in addresses or [])
    return lines + [_line([*head, target, method, *_options(rule)]) for target in targets or [""]]


def render_rules(rules: t.Sequence[Rule]) -> list[str]:
    """All lines, in order: the server takes the first that fits."""
    if not rules:
        raise _bad("There is no rule at all: nobody could log in.")
    return [line for rule in rules for line in render_rule(rule)]
