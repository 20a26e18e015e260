# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Owner, settings, rights and limits: the statements that give a database what another one has. PRIVATE. Pure."""

from __future__ import annotations

import re
import typing as t

from .._postgres import quote_identifier, quote_literal

_LISTS = {
    *("local_preload_libraries", "search_path", "session_preload_libraries", "shared_preload_libraries"),
    *("temp_tablespaces", "unix_socket_directories"),
}
"""Settings whose stored value is a list of quoted names."""
_ELEMENT = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,\s][^,]*?))\s*(?:,|$)')
_MARK = re.compile(r"\n?\[hms\.postgres restored [^\n]*\]$")
_ACL = """
SELECT CASE WHEN a.grantee = 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(a.grantee) END, a.privilege_type::text,
  a.is_grantable
FROM pg_catalog.pg_database d,
  pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) a
WHERE d.datname = %s ORDER BY 1, 2, 3
"""
ACL = _ACL

_OF_A_SWAP = "hms.swapped"
"""What a swap leaves on a database tells of that database, and is not handed on to another."""

Right = tuple[t.Optional[str], str, bool]
"""Who (None for PUBLIC), what, and whether he may pass it on."""


def _elements(value: str) -> list[str]:
    return [(quoted.replace('""', '"') if quoted or not bare else bare) for quoted, bare in _ELEMENT.findall(value)]


def setting_value(name: str, value: str) -> str:
    """A stored setting as ALTER DATABASE … SET takes it."""
    if name.lower() in _LISTS:
        return ", ".join(quote_literal(element) for element in _elements(value)) or "''"
    return quote_literal(value)


def _setting(pair: str) -> tuple[str, str]:
    name, _equals, value = pair.partition("=")
    return name, value


def _setting_name(name: str) -> str:
    return ".".join(quote_identifier(part) for part in name.split("."))


def portable(properties: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """The properties that a restored database is to have, too."""
    settings = [
        {**one, "settings": [pair for pair in one.get("settings") or () if _setting(pair)[0].lower() != _OF_A_SWAP]}
        for one in properties.get("settings") or ()
    ]
    return {**properties, "settings": [one for one in settings if one["settings"]]}


def settings_statements(database: str, properties: t.Mapping[str, t.Any]) -> list[str]:
    """ALTER DATABASE … SET, ALTER ROLE … IN DATABASE … SET."""
    quoted = quote_identifier(database)
    made = [f"ALTER DATABASE {quoted} RESET ALL"]
    for one in properties.get("settings") or ():
        role = one.get("role")
        subject = f"DATABASE {quoted}" if role is None else f"ROLE {quote_identifier(role)} IN DATABASE {quoted}"
        if role is not None:
            made.append(f"ALTER {subject} RESET ALL")
        for pair in one.get("settings") or ():
            name, value = _setting(pair)
            made.append(f"ALTER {subject} SET {_setting_name(name)} TO {setting_value(name, value)}")
    return made


def rights_statements(database: str, wanted: t.Sequence[Right], found: t.Sequence[Right]) -> list[str]:
    """GRANT and REVOKE that lead from the rights that are found to those that are wanted."""
    quoted = quote_identifier(database)
    made = [
        f"REVOKE {right} ON DATABASE {quoted} FROM {_grantee(who)}"
        for who, right, grantable in found
        if (who, right, grantable) not in wanted
    ]
    made += [
        f"GRANT {right} ON DATABASE {quoted} TO {_grantee(who)}{' WITH GRANT OPTION' if grantable else ''}"
        for who, right, grantable in wanted
        if (who, right, grantable) not in found
    ]
    return made


def _grantee(who: str | None) -> str:
    return "PUBLIC" if who is None else quote_identifier(who)


def limits_statements(database: str, properties: t.Mapping[str, t.Any]) -> list[str]:
    """Connection limit and whether it is a template."""
    quoted = quote_identifier(database)
    made = [f"ALTER DATABASE {quoted} CONNECTION LIMIT {int(properties.get('connection_limit', -1))}"]
    if properties.get("is_template"):
        made.append(f"ALTER DATABASE {quoted} IS_TEMPLATE true")
    return made


def comment_with_mark(comment: str | None, mark: str) -> str:
    """A database's comment, and a last line that says where it comes from."""
    own = without_mark(comment)
    return f"{own}\n{mark}" if own else mark


def without_mark(comment: str | None) -> str:
    """The comment that people gave it."""
    return _MARK.sub("", comment or "")


def mark_of(artifact: str, record: str, moment: str) -> str:
    """The line that is written last, and makes a scratch database one that is proven."""
    return f"[hms.postgres restored {moment} from {' '.join(artifact.split())}, proven by {record}]"


def differences(wanted: t.Mapping[str, t.Any], found: t.Mapping[str, t.Any]) -> list[str]:
    """What a restored database's properties lack."""
    told = []
    for name in ("owner", "connection_limit", "is_template", "tablespace", "encoding", "collate", "ctype"):
        if name in wanted and wanted[name] != found.get(name):
            told.append(f"{name} is {found.get(name)} in place of {wanted[name]}")
    if _sorted_settings(wanted) != _sorted_settings(found):
        told.append("its settings differ")
    return told


def _sorted_settings(properties: t.Mapping[str, t.Any]) -> list[tuple[str, list[str]]]:
    return sorted(
        (one.get("role") or "", sorted(one.get("settings") or ())) for one in properties.get("settings") or ()
    )
