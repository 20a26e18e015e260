# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every example in the documentation of a module is run by tests/real/test_examples.py."""

from __future__ import annotations

import re

import pytest
import yaml

from ansible_collections.hms.postgres.tests.real.examples_site import (
    SCENES,
    Example,
    examples_of,
    replaced,
    tasks_of,
)
from ansible_collections.hms.postgres.tests.unit.house import repository

ALL = [example for scene in SCENES.values() for example in scene]


@pytest.mark.parametrize("module", repository.MODULES)
def test_every_example_of_a_module_is_run(module: str) -> None:
    tasks = yaml.safe_load(examples_of(module))
    run: set[int] = set()
    for example in ALL:
        if example.module == module:
            run |= set(example.only or range(len(tasks)))
    assert run == set(range(len(tasks))), f"tests/real/examples_site.py runs {sorted(run)} of {len(tasks)} examples"


@pytest.mark.parametrize("example", ALL, ids=[example.name for example in ALL])
def test_what_is_run_is_what_is_documented(example: Example) -> None:
    assert len(tasks_of(example)) == len(example.changed)


def test_every_scene_is_played() -> None:
    text = (repository.ROOT / "tests" / "real" / "test_examples.py").read_text(encoding="utf-8")
    assert set(re.findall(r'examples_site\.play\("(\w+)"', text)) == set(SCENES)


def test_only_names_are_replaced() -> None:
    rules = {"/srv/x": "{{ x }}", "port: 1": "{{ p }}"}
    assert replaced([{"port": 1, "a": "/srv/x/y", "b": 1, "c": ["port: 1"]}], rules) == [
        {"port": "{{ p }}", "a": "{{ x }}/y", "b": 1, "c": ["{{ p }}"]}
    ]
