# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What docs/database-swap.md says of the rules is what the code does."""

from __future__ import annotations

import ast

from ansible_collections.hms.postgres.tests.unit.house import repository

CLUSTER = repository.ROOT / "plugins" / "module_utils" / "_cluster"
DOCUMENT = repository.ROOT / "docs" / "database-swap.md"


def calls() -> list[ast.Call]:
    """Every `Rule(...)` whose name stands there."""
    trees = [ast.parse((CLUSTER / name).read_text(encoding="utf-8")) for name in ("swap_rules.py", "swap_services.py")]
    found = [
        node
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Rule"
    ]
    return [call for call in found if isinstance(call.args[0], ast.Constant)]


def rules() -> dict[str, bool]:
    """Rule → whether it can be overridden; what names are wrong in is never."""
    found = {ast.literal_eval(call.args[0]): len(call.args) == 3 for call in calls()}
    for node in ast.walk(ast.parse((CLUSTER / "swap_names.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Tuple) and len(node.elts) == 3 and isinstance(node.elts[0], ast.Constant):
            found[str(node.elts[0].value)] = False
    return found


def test_every_rule_of_a_swap_stands_in_its_table() -> None:
    told: dict[str, bool] = {}
    for names, override in repository.rules_told(DOCUMENT):
        first_two = override == "the first two"
        told.update({name: override == "yes" or (first_two and name in names[:2]) for name in names})
    assert told == rules()
