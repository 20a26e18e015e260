# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a module accepts and what its documentation says are one and the same."""

from __future__ import annotations

import functools
import importlib
import typing as t

import pytest
from ansible.module_utils import basic
from ansible.plugins.action import ActionBase

from ansible_collections.hms.postgres.tests.unit.house import repository

Options = t.Mapping[str, t.Any]


class _Captured(BaseException):
    """Raised in place of making a module; not an Exception, so that nothing catches it by the way."""

    def __init__(self, spec: Options) -> None:
        super().__init__()
        self.spec = spec


def argument_spec(module: str, monkeypatch: pytest.MonkeyPatch) -> Options:
    """The argument spec that a module, or the action plugin of its name, really uses.

    The plugin is run up to the point where it hands its spec to Ansible.
    """

    def capture(_self: object, argument_spec: Options, *_positional: object, **_named: object) -> None:
        raise _Captured(argument_spec)

    monkeypatch.setattr(basic.AnsibleModule, "__init__", capture)
    monkeypatch.setattr(ActionBase, "validate_argument_spec", capture)
    monkeypatch.setattr(ActionBase, "run", lambda *_positional, **_named: {})
    base = "ansible_collections.hms.postgres.plugins"
    if (repository.ROOT / "plugins" / "action" / f"{module}.py").exists():
        action = importlib.import_module(f"{base}.action.{module}").ActionModule
        start = functools.partial(action.run, action.__new__(action), task_vars={})
    else:
        start = importlib.import_module(f"{base}.modules.{module}").main
    with pytest.raises(_Captured) as captured:
        start()
    return captured.value.spec


def _normal(option: Options, *, nested: str) -> dict[str, t.Any]:
    choices = option.get("choices")
    return {
        "type": option.get("type", "str"),
        "elements": option.get("elements"),
        "required": bool(option.get("required", False)),
        "default": option.get("default"),
        "choices": sorted(map(str, choices)) if choices else None,
        "aliases": sorted(option.get("aliases") or ()),
        "nested": sorted(option.get(nested) or ()),
    }


def differences(spec: Options, documented: Options, path: str = "") -> list[str]:
    """Where a spec and the documentation do not agree, one sentence each."""
    found = [f"{path}{name} is accepted but not documented" for name in sorted(set(spec) - set(documented))]
    found += [f"{path}{name} is documented but not accepted" for name in sorted(set(documented) - set(spec))]
    for name in sorted(set(spec) & set(documented)):
        code, page = _normal(spec[name], nested="options"), _normal(documented[name], nested="suboptions")
        found += [
            f"{path}{name}: {key} is {code[key]!r} in the code and {page[key]!r} in the documentation"
            for key in code
            if code[key] != page[key] and key != "nested"
        ]
        if code["nested"] or page["nested"]:
            inner, shown = spec[name].get("options") or {}, documented[name].get("suboptions") or {}
            found += differences(inner, shown, f"{path}{name}.")
    return found


@pytest.mark.parametrize("module", repository.MODULES)
def test_documentation_says_what_the_code_accepts(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = argument_spec(module, monkeypatch)
    assert differences(spec, repository.documented_options(module)) == []


@pytest.mark.parametrize("module", repository.MODULES)
def test_secrets_are_not_logged(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def undeclared(spec: Options, path: str = "") -> t.Iterator[str]:
        for name, option in spec.items():
            if any(word in name for word in ("password", "passphrase", "secret", "token")) and "no_log" not in option:
                yield path + name
            yield from undeclared(option.get("options") or {}, f"{path}{name}.")

    silent = list(undeclared(argument_spec(module, monkeypatch)))
    assert silent == [], "say no_log=True, or no_log=False where it holds no secret"


def test_the_action_group_holds_every_module() -> None:
    runtime = repository.load_file(repository.ROOT / "meta" / "runtime.yml")
    assert runtime["action_groups"]["postgres"] == repository.MODULES


@pytest.mark.parametrize(
    ("spec", "documented", "expected"),
    [
        ({"a": {"type": "int"}}, {"a": {"type": "int"}}, []),
        ({"a": {}}, {}, ["a is accepted but not documented"]),
        ({}, {"a": {}}, ["a is documented but not accepted"]),
        ({"a": {"default": 1}}, {"a": {"default": 2}}, ["a: default is 1 in the code and 2 in the documentation"]),
        (
            {"a": {"type": "dict", "options": {"b": {}}}},
            {"a": {"type": "dict", "suboptions": {"b": {"required": True}}}},
            ["a.b: required is False in the code and True in the documentation"],
        ),
    ],
)
def test_a_difference_is_seen(spec: Options, documented: Options, expected: list[str]) -> None:
    assert differences(spec, documented) == expected
