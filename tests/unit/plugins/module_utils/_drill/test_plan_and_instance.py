# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a drill takes and what it makes of times and failures; and which folders it keeps its hands off."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact.model import Encryption
from ansible_collections.hms.postgres.plugins.module_utils._artifact.running import Terminated, was_ended
from ansible_collections.hms.postgres.plugins.module_utils._artifact.sources import Sources
from ansible_collections.hms.postgres.plugins.module_utils._drill import plan
from ansible_collections.hms.postgres.plugins.module_utils._drill.arguments import DRILL, asked_of, order_from
from ansible_collections.hms.postgres.plugins.module_utils._drill.instance import MARKER, Folder, settings_text
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._restore.arguments import RESTORE
from ansible_collections.hms.postgres.tests.unit.plugins.module_utils._backup.backups import ago, entry, proven

GLOBALS = """--
-- Roles
--
CREATE ROLE keeper;
ALTER ROLE keeper WITH NOSUPERUSER INHERIT NOCREATEROLE;
CREATE ROLE "odd ""clerk";
ALTER ROLE "odd ""clerk" WITH SUPERUSER INHERIT LOGIN PASSWORD 'SCRAM';
GRANT keeper TO "odd ""clerk" GRANTED BY postgres;
"""


def test_the_newest_full_one_of_each_database_that_is_not_bad() -> None:
    older, young = entry(ago(days=2)), entry(ago(days=1), verified=False)
    bad = entry(ago(hours=2), history=[proven(ago(hours=1), ok=False, level="restored")])
    others = [entry(ago(hours=1), type_="schema_only"), entry(ago(hours=1), engine="pgbackrest")]
    archive = entry(ago(days=5), database="archive")
    everything = [archive, older, young, bad, *others]
    assert plan.newest(everything, ()) == [archive, young]
    assert plan.newest(everything, ("hospital",)) == [young]
    assert plan.newest([], ()) == []


def test_roles_come_from_globals_and_manifest() -> None:
    assert plan.roles_of(GLOBALS, ["app"]) == {"app": False, "keeper": False, 'odd "clerk': True}
    assert plan.roles_of("", ()) == {}


@pytest.mark.parametrize(
    ("reason", "checks", "damage"),
    [
        ("artifact_damaged", [], True),
        ("not_an_archive", [], True),
        ("restore_failed", [], False),
        ("no_key", [], False),
        ("validation_failed", [{"name": "contents", "ok": False}], True),
        ("validation_failed", [{"name": "contents", "ok": True}, {"name": "mine", "ok": False}], False),
        ("validation_failed", [{"name": "contents", "ok": False}, {"name": "mine", "ok": False}], True),
    ],
)
def test_which_failures_are_the_backups_own(reason: str, checks: list[dict[str, t.Any]], damage: bool) -> None:
    error = HmsError("x", reason=reason, details={"validations": checks})
    assert plan.is_damage(error, {"mine"}) is damage


def test_times_at_another_size() -> None:
    assert plan.projected(40.0, 1000, 1500) == 60.0
    assert plan.projected(40.0, 1000, None) == 40.0
    assert plan.projected(40.0, 0, 1500) is None
    assert (plan.rate(1000, 4.0), plan.rate(1000, None), plan.rate(1000, 0.0)) == (250, None, None)


def test_a_failure_while_ending_is_known() -> None:
    ended = HmsError("no connection")
    ended.__context__ = Terminated(15)
    around = HmsError("the restore failed")
    around.__cause__ = ended
    assert was_ended(around)
    assert not was_ended(HmsError("x"))


def test_only_its_own_folder_is_used(tmp_path: pathlib.Path) -> None:
    folder = Folder(str(tmp_path / "drill"))
    assert not folder.check("hospital")
    (tmp_path / "drill").mkdir()
    assert not folder.check("hospital")
    (tmp_path / "drill" / MARKER).write_text(json.dumps({"cluster": "hospital"}))
    assert folder.check("hospital")
    with pytest.raises(Refused, match="holds what no drill of clinic has made"):
        folder.check("clinic")
    (tmp_path / "drill" / MARKER).write_text("{")
    with pytest.raises(Refused, match="holds what no drill"):
        folder.check("hospital")
    (tmp_path / "link").symlink_to(tmp_path / "drill")
    with pytest.raises(Refused, match="is no folder"):
        Folder(str(tmp_path / "link")).check("hospital")


@pytest.mark.parametrize("path", ["drill", "/", "/srv", "/srv/" + "x" * 100])
def test_places_that_can_not_be(path: str) -> None:
    with pytest.raises(Refused) as caught:
        Folder(path).check("hospital")
    assert (caught.value.reason, caught.value.state) == ("bad_directory", "Nothing was touched.")


def test_nobody_else_gets_to_the_server_whatever_is_set() -> None:
    text = settings_text(Folder("/srv/drill"), {"listen_addresses": "*", "work_mem": "8MB", "archive_mode": "on"})
    assert "listen_addresses = ''\n" in text
    assert "archive_mode = 'off'\n" in text
    assert "work_mem = '8MB'\n" in text
    assert "fsync" not in text


def order(**params: t.Any) -> t.Any:
    """An order from arguments."""
    return order_from(params, base={"login_port": 5433}, sources=Sources("hospital"), encryption=Encryption())


def test_what_follows_from_arguments() -> None:
    made = order(settings={"jit": False, "work_mem": "8MB"}, assertions=[{"name": "a", "sql": "SELECT 1"}], os_user="")
    assert (made.directory, made.state_dir) == (
        "/var/lib/postgresql/hms-drill-hospital",
        "/var/lib/hms-postgres/hospital",
    )
    assert (made.settings, made.assertions) == ({"jit": "off", "work_mem": "8MB"}, {"a"})
    assert (made.os_user, made.live.port) == (None, 5433)
    with pytest.raises(HmsError, match="jobs is less than 1"):
        order(jobs=0)


def test_questions_are_for_one_database_or_for_all() -> None:
    one, every = {"name": "a", "database": "hospital"}, {"name": "b", "database": None}
    assert asked_of([one, every], "hospital") == [one, every]
    assert asked_of([one, every], "archive") == [every]
    assert asked_of(None, "archive") == []


def test_what_is_handed_to_the_restore_is_called_as_there() -> None:
    for name in ("jobs", "allow_phi", "timeout", "login_host", "os_user", "encryption", "environment"):
        assert DRILL[name] == RESTORE[name]
