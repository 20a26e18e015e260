# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every example can be copied: it is YAML, and it uses modules and options that exist."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.tests.unit.house import repository

PREFIX = repository.NAMESPACE + "."
TEXTS = repository.files("*.md", "docs/**/*.md", "roles/*/*.md")
TASKS = repository.files("playbooks/**/*.yml", "roles/*/tasks/**/*.yml", "roles/*/handlers/*.yml", "molecule/**/*.yml")


def _unknown_options(given: t.Any, known: t.Mapping[str, t.Any], path: str) -> t.Iterator[str]:
    for item in given if isinstance(given, list) else [given]:
        if not isinstance(item, dict):
            continue  # a template, a scalar or nothing: Ansible itself will judge it
        names = {alias: name for name, option in known.items() for alias in [name, *(option.get("aliases") or ())]}
        for key, value in item.items():
            if key not in names:
                yield f"{path} has no option {key}"
            elif known[names[key]].get("suboptions"):
                yield from _unknown_options(value, known[names[key]]["suboptions"], f"{path}.{key}")


def _problems_of(key: str, value: t.Any) -> t.Iterator[str]:
    """What is wrong with one keyword of a task or a play, and what stands below it."""
    named = value.removeprefix(PREFIX) if isinstance(value, str) and value.startswith(PREFIX) else None
    if key.startswith(PREFIX):
        name = key.removeprefix(PREFIX)
        if name in repository.MODULES:
            yield from _unknown_options(value, repository.documented_options(name), key)
        else:
            yield f"there is no module {key}"
    elif key == "role" and named and named not in repository.ROLES:
        yield f"there is no role {value}"
    elif key.endswith("import_playbook") and named and not (repository.ROOT / "playbooks" / f"{named}.yml").exists():
        yield f"there is no playbook {value}"
    elif key.rpartition(".")[2] in ("include_role", "import_role") and isinstance(value, dict):
        yield from _problems_of("role", value.get("name"))
    else:
        yield from problems(value)


def problems(node: t.Any) -> t.Iterator[str]:
    """What is wrong with the uses of our modules, roles and playbooks anywhere below a piece of YAML."""
    if isinstance(node, list):
        for item in node:
            yield from problems(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _problems_of(str(key), value)


@pytest.mark.parametrize("module", repository.MODULES)
def test_examples_use_what_exists(module: str) -> None:
    repository.documented_options(module)  # says what is wrong where there is no page at all
    documents = repository.load(repository.documentation()[module]["examples"] or "")
    used = [task for document in documents for task in (document or []) if isinstance(task, dict)]
    assert any(PREFIX + module in task for task in used), f"no example uses {PREFIX}{module} by its full name"
    assert list(problems(documents)) == []
    assert all(task.get("name") for task in used), "every example says what it is for"


@pytest.mark.parametrize("path", TEXTS, ids=repository.relative)
def test_texts_show_what_exists(path: pathlib.Path) -> None:
    for block in repository.yaml_blocks(path):
        assert list(problems(repository.load(block))) == [], block


@pytest.mark.parametrize("path", TASKS, ids=repository.relative)
def test_tasks_use_what_exists(path: pathlib.Path) -> None:
    assert list(problems(repository.load(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[{block: [{hms.postgres.pg_wonder: {}}]}]", ["there is no module hms.postgres.pg_wonder"]),
        ("[{roles: [{role: hms.postgres.wonder}]}]", ["there is no role hms.postgres.wonder"]),
        (
            "[{ansible.builtin.include_role: {name: hms.postgres.wonder}}]",
            ["there is no role hms.postgres.wonder"],
        ),
        (
            "[{ansible.builtin.import_playbook: hms.postgres.wonder}]",
            ["there is no playbook hms.postgres.wonder"],
        ),
        ("[{name: other, ansible.builtin.debug: {msg: hms.postgres}}]", []),
    ],
)
def test_what_was_invented_is_seen(text: str, expected: list[str]) -> None:
    assert list(problems(repository.load(text))) == expected


def test_an_invented_option_is_seen() -> None:
    known = {"a": {"suboptions": {"b": {}}}, "c": {"aliases": ["d"]}}
    assert list(_unknown_options({"a": [{"x": 1}], "d": 1, "y": 2}, known, "m")) == [
        "m.a has no option x",
        "m has no option y",
    ]
