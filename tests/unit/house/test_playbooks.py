# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every playbook is understood by Ansible with every inventory."""

from __future__ import annotations

import json
import pathlib
import re

import pytest

from ansible_collections.hms.postgres.tests.unit.house import repository

INVENTORY_IDS = [path.name for path in repository.INVENTORIES]


@pytest.mark.parametrize("inventory", repository.INVENTORIES, ids=INVENTORY_IDS)
def test_playbooks_pass_the_syntax_check(inventory: pathlib.Path) -> None:
    assert repository.PLAYBOOKS, "there are no playbooks"
    # One run for all: starting Ansible is what takes the time. It names the playbook that it stops at.
    done = repository.ansible(
        "ansible-playbook", "--syntax-check", "-i", str(inventory), *(str(path) for path in repository.PLAYBOOKS)
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("playbook: ") == len(repository.PLAYBOOKS)
    assert "[WARNING]" not in done.stderr + done.stdout


@pytest.mark.parametrize("inventory", repository.INVENTORIES, ids=INVENTORY_IDS)
def test_an_inventory_says_which_environment_it_is(inventory: pathlib.Path) -> None:
    done = repository.ansible("ansible-inventory", "-i", str(inventory), "--list")
    assert done.returncode == 0, done.stderr
    hosts = json.loads(done.stdout)["_meta"]["hostvars"]
    assert hosts, "no hosts"
    assert {variables.get("hms_environment") for variables in hosts.values()} == {inventory.name}


def test_the_four_environments_are_there() -> None:
    assert set(INVENTORY_IDS) == {"demo", "development", "production", "staging"}


@pytest.mark.parametrize("playbook", repository.PLAYBOOKS, ids=repository.relative)
def test_playbooks_can_be_called_by_name(playbook: pathlib.Path) -> None:
    """hms.postgres.NAME takes letters, digits and underscores only: a name with dashes has one without beside it."""
    if not re.fullmatch(r"\w+", playbook.stem):
        twin = playbook.with_name(playbook.name.replace("-", "_"))
        assert twin.exists(), f"{twin.name} is missing beside {playbook.name}"
