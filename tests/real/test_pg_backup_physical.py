# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The same entry with the engine pgbackrest: lock, record, check mode and retention around a real pgBackRest."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._backup import operation
from ansible_collections.hms.postgres.plugins.module_utils._backup.manager import backup
from ansible_collections.hms.postgres.plugins.module_utils._backup.model import Retention
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._module import Result
from ansible_collections.hms.postgres.tests.real.lab import Lab
from ansible_collections.hms.postgres.tests.real.pgbackrest_site import Site, begin, make_site

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def site(module_lab: Lab) -> Site:
    """A server whose stanza is ready."""
    made = make_site(module_lab)
    begin(made)
    return made


def made_by(
    site: Site, state: pathlib.Path, type_: str = "full", *, check_mode: bool = False, **changes: t.Any
) -> Result:
    """One backup through the entry that module and job use."""
    wish = dataclasses.replace(site.wish(type_), state_dir=str(state), **changes)
    return backup(wish, check_mode=check_mode, runner=SystemRunner(), clock=SystemClock(), by="test")


def test_from_plan_to_retention(site: Site, tmp_path: pathlib.Path) -> None:
    planned = made_by(site, tmp_path, check_mode=True)
    assert planned.values["backup"] is None
    assert list(tmp_path.iterdir()) == []
    assert site.listed() == []
    first = made_by(site, tmp_path)
    assert first.values["backup"]["verification"]["ok"]
    record = json.loads(pathlib.Path(first.values["record"]).read_bytes())
    assert (record["id"], record["outcome"]["status"]) == (first.values["id"], "done")
    second = made_by(site, tmp_path, "incremental")
    assert second.values["backup"]["parent"] == first.values["id"]
    rules = {"full": Retention(keep_last=1), "incremental": Retention(keep_last=1)}
    third = made_by(site, tmp_path, retention=rules)
    assert third.values["removed"] == []
    assert any("depends on it" in one["why"] for one in third.values["kept"])
    fourth_planned = made_by(site, tmp_path, "incremental", check_mode=True, retention=rules)
    gone = {first.values["id"], second.values["id"]}
    assert {one["id"] for one in fourth_planned.values["removed"]} == gone
    fourth = made_by(site, tmp_path, "incremental", retention=rules)
    assert {one["id"] for one in fourth.values["removed"]} == gone
    assert [manifest.id for manifest in site.listed()] == [third.values["id"], fourth.values["id"]]


def test_one_at_a_time_on_a_host(site: Site, tmp_path: pathlib.Path) -> None:
    wish = dataclasses.replace(site.wish("full"), state_dir=str(tmp_path))
    with operation.alone(wish, clock=SystemClock(), by="another"), pytest.raises(HmsError) as caught:
        made_by(site, tmp_path)
    assert (caught.value.reason, "another" in caught.value.message) == ("busy", True)
