# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import pathlib

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact.pgbackrest_settings import Settings
from ansible_collections.hms.postgres.plugins.module_utils._errors import Refused
from ansible_collections.hms.postgres.plugins.module_utils._pitr.model import Marker, Order, Position, Side, Target
from ansible_collections.hms.postgres.plugins.module_utils._pitr.plan import check_confirm, check_ours, plan
from ansible_collections.hms.postgres.plugins.module_utils._pitr.side import Folder, marker_data, marker_from, remove
from ansible_collections.hms.postgres.plugins.module_utils._postgres import ConnectionParams

ORDER = Order("hospital", "production", "hospital", Settings("/c", "hospital"), ConnectionParams("/run"), "/state")
THERE, LATER, EARLIER = (Target("lsn", f"0/{number}000000") for number in (5, 6, 4))
MARKER = Marker("hospital", "77", "F", THERE, "recovered", 150000, 5499)
PAUSED = Position(True, 0x5000000, 1, "")
STANDS = Side("/side", "ours", MARKER, True, PAUSED)


@pytest.mark.parametrize(
    ("side", "target", "expected"),
    [
        (Side("/side", "absent"), THERE, "restore"),
        (Side("/side", "empty"), THERE, "restore"),
        (STANDS, THERE, ""),
        (STANDS, LATER, "advance"),
        (STANDS, EARLIER, "restore"),
        (dataclasses.replace(STANDS, running=False, position=None), THERE, "start"),
        (dataclasses.replace(STANDS, running=False, position=None), LATER, "restore"),
        (dataclasses.replace(STANDS, position=None), THERE, "wait"),
        (dataclasses.replace(STANDS, marker=dataclasses.replace(MARKER, stage="recovering")), THERE, "wait"),
        (dataclasses.replace(STANDS, marker=dataclasses.replace(MARKER, stage="recovering")), LATER, "restore"),
        (dataclasses.replace(STANDS, marker=dataclasses.replace(MARKER, stage="restoring")), THERE, "restore"),
        (dataclasses.replace(STANDS, marker=dataclasses.replace(MARKER, stage="promoted")), THERE, "restore"),
        (dataclasses.replace(STANDS, marker=dataclasses.replace(MARKER, port=1)), THERE, "restore"),
    ],
)
def test_the_shortest_way(side: Side, target: Target, expected: str) -> None:
    actions = plan(target, "F", side, port=5499, located=None)
    assert [action.what for action in actions] == ([expected] if expected else [])
    assert all(action.why for action in actions)


def test_another_backup_is_restored_where_it_is_named() -> None:
    assert plan(THERE, "F", STANDS, port=5499, located=None, wanted="F") == []
    (action,) = plan(THERE, "G", STANDS, port=5499, located=None, wanted="G")
    assert action.what == "restore"


def test_production_asks_for_the_cluster_s_name() -> None:
    check_confirm(ORDER, check_mode=True)
    check_confirm(dataclasses.replace(ORDER, confirm="hospital"), check_mode=False)
    check_confirm(dataclasses.replace(ORDER, environment="demo"), check_mode=False)
    for confirm, reason in (("", "no_confirm"), ("other", "wrong_confirm")):
        with pytest.raises(Refused) as refused:
            check_confirm(dataclasses.replace(ORDER, confirm=confirm), check_mode=False)
        assert refused.value.reason == reason


@pytest.mark.parametrize(
    "side", [Side("/side", "foreign"), Side("/side", "ours", dataclasses.replace(MARKER, system_identifier="78"))]
)
def test_what_is_not_ours_is_refused(side: Side) -> None:
    with pytest.raises(Refused) as refused:
        check_ours(side, ORDER, "77")
    assert refused.value.reason == "foreign_directory"
    check_ours(STANDS, ORDER, "77")


def test_a_marker_survives_the_disk() -> None:
    assert marker_from(marker_data(MARKER)) == MARKER
    assert marker_from({"cluster": "hospital"}) is None
    assert marker_from([]) is None


def test_what_a_killed_run_was_about_to_write_goes_with_the_directory(tmp_path: pathlib.Path) -> None:
    folder = Folder(str(tmp_path / "side"))
    (tmp_path / "side" / "data").mkdir(parents=True)
    for name in (".hms-half", "log", "hms-pitr.json"):
        (tmp_path / "side" / name).touch()
    assert remove(folder) == []
    assert not (tmp_path / "side").exists()
    (tmp_path / "side").mkdir()
    (tmp_path / "side" / "theirs").touch()
    assert remove(folder) == ["theirs"]
    assert (tmp_path / "side" / "theirs").exists()
