# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A role's defaults, its argument specs and the table in its README say the same."""

from __future__ import annotations

import re
import typing as t

import pytest
import yaml

from ansible_collections.hms.postgres.tests.unit.house import repository

_NONE = "(nothing)"
_CELL = re.compile(r"(?<!\\)\|")


def specs(role: str) -> dict[str, dict[str, t.Any]]:
    """The entry points of a role, each with its options."""
    meta = repository.load_file(repository.ROOT / "roles" / role / "meta" / "argument_specs.yml")
    assert meta, f"roles/{role}/meta/argument_specs.yml is missing"
    return {name: entry.get("options") or {} for name, entry in meta["argument_specs"].items()}


def options(role: str) -> dict[str, t.Any]:
    """All options of a role, whichever entry point takes them."""
    return {name: option for entry in specs(role).values() for name, option in entry.items()}


def defaults(role: str) -> dict[str, t.Any]:
    """What defaults/main.yml sets."""
    return repository.load_file(repository.ROOT / "roles" / role / "defaults" / "main.yml") or {}


def table(role: str) -> dict[str, dict[str, str]]:
    """The rows of the README's tables of variables: variable → column → text."""
    readme = repository.ROOT / "roles" / role / "README.md"
    assert readme.exists(), f"roles/{role}/README.md is missing"
    rows: dict[str, dict[str, str]] = {}
    header: list[str] = []
    for line in readme.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in _CELL.split(line.strip().strip("|"))] if line.startswith("|") else []
        if not cells:
            header = []
        elif not header:
            header = [cell.lower() for cell in cells]
        elif header[0] == "variable" and not set(cells[0]) <= set("-: "):
            name = cells[0].strip("`")
            assert name not in rows, f"{name} stands in the README twice"
            rows[name] = dict(zip(header, cells))
    return rows


def shown(value: t.Any) -> str:
    """A default as the README writes it, in backticks: YAML on one line."""
    if isinstance(value, str) and value:
        return value
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return '""' if value == "" else text.removesuffix("\n").removesuffix("...").strip()


def may_be_told_in_words(option: t.Mapping[str, t.Any], default: t.Any) -> bool:
    """Whether the specs may leave a default out: what a template works out has no type before it runs, except text."""
    return "{{" in str(default) and option.get("type", "str") not in ("str", "path")


@pytest.mark.parametrize("role", repository.ROLES)
def test_every_default_is_specified(role: str) -> None:
    assert set(defaults(role)) - set(options(role)) == set(), "in defaults/main.yml, not in meta/argument_specs.yml"


@pytest.mark.parametrize("role", repository.ROLES)
def test_defaults_equal_the_specs(role: str) -> None:
    wrong = []
    for entry, taken in specs(role).items():
        for name, option in taken.items():
            default = defaults(role).get(name, _NONE)
            stated = option.get("default", _NONE)
            if stated is _NONE and default is not _NONE and may_be_told_in_words(option, default):
                continue
            if stated is not default and stated != default:
                wrong.append(f"{entry}: {name} is {stated!r} in the specs, {default!r} in defaults/main.yml")
            if default is not _NONE and option.get("required"):
                wrong.append(f"{entry}: {name} is required and has a default")
    assert wrong == []


@pytest.mark.parametrize("role", repository.ROLES)
def test_readme_lists_every_variable(role: str) -> None:
    assert set(table(role)) == set(options(role))


@pytest.mark.parametrize("role", repository.ROLES)
def test_readme_shows_the_defaults(role: str) -> None:
    wrong = []
    for name, row in table(role).items():
        option = options(role).get(name, {})
        missing = "required" if option.get("required") else ""
        expected = shown(defaults(role)[name]) if name in defaults(role) else missing
        said = row.get("default", "").replace("\\|", "|").strip("`")
        # What does not fit into a cell, and what is worked out from other variables, is told in words.
        in_words = len(expected) > 60 or "{{" in expected or isinstance(defaults(role).get(name), (list, dict))
        if said != expected and not (in_words and said):
            wrong.append(f"{name}: the README says {said!r}, the specs say {expected!r}")
    assert wrong == []


@pytest.mark.parametrize("role", repository.ROLES)
def test_variables_carry_the_roles_name(role: str) -> None:
    foreign = [name for name in options(role) if not name.startswith((f"{role}_", "hms_"))]
    assert foreign == []


@pytest.mark.parametrize("role", repository.ROLES)
def test_every_entry_point_has_tasks_and_words(role: str) -> None:
    meta = repository.load_file(repository.ROOT / "roles" / role / "meta" / "argument_specs.yml")
    for name, entry in meta["argument_specs"].items():
        assert (repository.ROOT / "roles" / role / "tasks" / f"{name}.yml").exists(), f"tasks/{name}.yml is missing"
        assert entry.get("short_description"), f"{name} has no short_description"
        silent = [option for option, detail in (entry.get("options") or {}).items() if not detail.get("description")]
        assert silent == [], "options without a description"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5432, "5432"),
        (True, "true"),
        ("main", "main"),
        ("", '""'),
        (None, "null"),
        ([], "[]"),
        ({"a": 1}, "{a: 1}"),
    ],
)
def test_defaults_are_shown_as_yaml(value: t.Any, expected: str) -> None:
    assert shown(value) == expected
