# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Statements that give a database what another one has."""

from __future__ import annotations

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._restore.properties import (
    comment_with_mark,
    differences,
    limits_statements,
    mark_of,
    portable,
    rights_statements,
    setting_value,
    settings_statements,
    without_mark,
)
from ansible_collections.hms.postgres.plugins.module_utils._restore.shape import parse_acl


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("work_mem", "7MB", "'7MB'"),
        ("app.note", "it's \\ a, b", "E'it''s \\\\ a, b'"),
        ("search_path", '"$user", public, "We ird.""S"', "'$user', 'public', 'We ird.\"S'"),
        ("search_path", '""', "''"),
        ("temp_tablespaces", "", "''"),
    ],
)
def test_a_setting_as_sql(name: str, value: str, expected: str) -> None:
    assert setting_value(name, value) == expected


def test_settings_of_the_database_and_of_roles() -> None:
    properties = {
        "settings": [
            {"role": "clerk", "settings": ["jit=off"]},
            {"role": None, "settings": ["app.x=a=b", "hms.swapped=1"]},
        ]
    }
    assert settings_statements('a"b', portable(properties)) == [
        'ALTER DATABASE "a""b" RESET ALL',
        'ALTER ROLE "clerk" IN DATABASE "a""b" RESET ALL',
        'ALTER ROLE "clerk" IN DATABASE "a""b" SET "jit" TO \'off\'',
        'ALTER DATABASE "a""b" SET "app"."x" TO \'a=b\'',
    ]


def test_rights_lead_from_what_is_to_what_should_be() -> None:
    wanted = (("clerk", "CONNECT", True), ("o", "CREATE", False))
    found = ((None, "CONNECT", False), ("o", "CREATE", False))
    assert rights_statements("d", wanted, found) == [
        'REVOKE CONNECT ON DATABASE "d" FROM PUBLIC',
        'GRANT CONNECT ON DATABASE "d" TO "clerk" WITH GRANT OPTION',
    ]
    assert rights_statements("d", wanted, wanted) == []


def test_limits() -> None:
    assert limits_statements("d", {"connection_limit": 77}) == ['ALTER DATABASE "d" CONNECTION LIMIT 77']
    assert limits_statements("d", {"is_template": True})[-1] == 'ALTER DATABASE "d" IS_TEMPLATE true'


def test_the_mark_is_one_line_and_never_piles_up() -> None:
    mark = mark_of("a\nb", "record", "now")
    once = comment_with_mark("people's\ncomment", mark)
    assert once == f"people's\ncomment\n{mark}"
    assert comment_with_mark(once, mark) == once
    assert without_mark(once) == "people's\ncomment"
    assert comment_with_mark(None, mark) == mark
    assert without_mark(mark) == ""


def test_differences_are_told() -> None:
    one = {"owner": "a", "settings": [{"role": None, "settings": ["x=1", "y=2"]}]}
    same = {"owner": "a", "settings": [{"role": None, "settings": ["y=2", "x=1"]}]}
    assert differences(one, same) == []
    assert differences(one, {"owner": "b", "settings": []}) == ["owner is b in place of a", "its settings differ"]


def test_rights_as_postgresql_writes_them() -> None:
    acl = ["=Tc/owner", "owner=C*Tc/owner", '"we ird""="=c/owner', "gone=c/owner"]
    assert parse_acl(acl, {"owner", 'we ird"='}) == (
        (None, "TEMPORARY", False),
        (None, "CONNECT", False),
        ("owner", "CREATE", True),
        ("owner", "TEMPORARY", False),
        ("owner", "CONNECT", False),
        ('we ird"=', "CONNECT", False),
    )
    assert parse_acl(None, set()) is None
