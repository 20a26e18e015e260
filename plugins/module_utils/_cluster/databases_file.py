# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PgBouncer's databases file, owned by us and included by every process. PRIVATE to the collection.

It holds an entry for each database, pointing at the primary, and an entry ``hms_path_<member>``
for each member, by which the real login path bouncer → member can be tried before it is needed.
"""

from __future__ import annotations

import re
import typing as t

from .._errors import HmsError

PATH_PREFIX = "hms_path_"
_HEAD = re.compile(
    r"^;; hms\.postgres cluster=(?P<cluster>\S+) primary=(?P<primary>\S+) operation=(?P<operation>\S+)$", re.M
)


class Member(t.NamedTuple):
    """A database host as the bouncers see it."""

    name: str
    address: str
    port: int


def _checked(text: str, what: str, *, word: bool = False) -> str:
    """`text`, unless it would break the file: control characters anywhere, blanks where one word is wanted."""
    broken = any(char < " " or char == "\x7f" or (word and char.isspace()) for char in text)
    if broken or not text:
        raise _unfit(text, what)
    return text


def _unfit(text: str, what: str) -> HmsError:
    return HmsError(
        f"{text!r} cannot be {what} in PgBouncer's databases file.",
        reason="bad_name",
        state="Nothing was written.",
        next_step="Give it a plain name in the inventory: letters, digits, dot, dash and underscore.",
    )


def path_entry(member: str) -> str:
    """The name of the entry that leads to one member, whoever is primary."""
    return PATH_PREFIX + re.sub(r"[^a-z0-9_]", "_", member.lower())


def _entry(name: str, **values: t.Any) -> str:
    pairs = " ".join(f"{key}={_value(value)}" for key, value in values.items())
    return f"{_name(name)} = {pairs}"


def _name(text: str) -> str:
    """A key as PgBouncer's parser takes one. It knows no quotes there: one odd name makes the whole file unreadable."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", text):
        raise _unfit(text, "a database's name")
    return text


def _value(value: t.Any) -> str:
    text = _checked(str(value), "a value")
    if re.fullmatch(r"[A-Za-z0-9_.:/-]+", text):
        return text
    return "'" + text.replace("'", "''") + "'"


def render(
    *,
    cluster: str,
    operation: str,
    primary: str,
    databases: t.Sequence[t.Mapping[str, t.Any]],
    members: t.Sequence[Member],
) -> str:
    """The file's content. `primary` is a member's name; `databases` are ``{"name", "dbname", "options"?}``."""
    target = {member.name: member for member in members}[primary]
    for text, what in ((cluster, "a cluster's name"), (primary, "a member's name"), (operation, "an operation's id")):
        _checked(text, what, word=True)
    lines = [
        f";; hms.postgres cluster={cluster} primary={primary} operation={operation}",
        ";; Written by hms.postgres; a switchover or failover replaces it whole.",
        "[databases]",
    ]
    for database in databases:
        options = dict(database.get("options") or {})
        lines.append(
            _entry(database["name"], host=target.address, port=target.port, dbname=database["dbname"], **options)
        )
    first = databases[0]["dbname"]
    for member in members:
        lines.append(_entry(path_entry(member.name), host=member.address, port=member.port, dbname=first, pool_size=1))
    return "\n".join(lines) + "\n"


def head(content: str) -> dict[str, str] | None:
    """Cluster, primary and operation from a file's first line, or None when the file isn't ours."""
    found = _HEAD.search(content)
    return found.groupdict() if found else None
