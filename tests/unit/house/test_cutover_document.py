# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What docs/pitr-cutover.md says of the rules is what the code does."""

from __future__ import annotations

import ast
import pathlib

from ansible_collections.hms.postgres.tests.unit.house import repository

CLUSTER = repository.ROOT / "plugins" / "module_utils" / "_cluster"
DOCUMENT = repository.ROOT / "docs" / "pitr-cutover.md"
SHARED = {"one_primary", "quiet", "poolers", "consent"}
"""What a cutover takes from the rules of a switchover."""


def calls(path: pathlib.Path, name: str, functions: set[str]) -> dict[str, bool]:
    """Rule → whether it can be overridden, of every `Rule(...)` in these functions; in all where none is named."""
    found = {}
    for function in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(function, ast.FunctionDef) or (functions and function.name not in functions):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == name and isinstance(node.args[0], ast.Constant):
                found[str(node.args[0].value)] = len(node.args) == 3
    return found


def test_every_rule_of_a_cutover_stands_in_its_table() -> None:
    told = {name: override == "yes" for names, override in repository.rules_told(DOCUMENT) for name in names}
    shared = calls(CLUSTER / "rules.py", "Refusal", SHARED)
    assert told == {**shared, **calls(CLUSTER / "cutover_rules.py", "Rule", set())}
