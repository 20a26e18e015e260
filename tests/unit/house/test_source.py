# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rules of the house that no linter knows: headers, sizes, storeys, and reasons beside exceptions."""

from __future__ import annotations

import ast
import pathlib
import re
import typing as t

import pytest

from ansible_collections.hms.postgres.tests.unit.house import repository

FILE_LINES = 420
FUNCTION_LINES = 60
MODULE_LINES = 65

SOURCES = [path for path in repository.files("plugins/**/*.py", "tests/**/*.py") if path.stat().st_size]
PLUGINS = [path for path in SOURCES if "plugins" in path.relative_to(repository.ROOT).parts[:1]]
MODULE_UTILS = [path for path in PLUGINS if "module_utils" in path.parts]
MODULES = [path for path in PLUGINS if path.parent.name == "modules"]

# Rooms on the ground floor: any room above may use them.
COMMON = {"_store", "_tools"}
# The storey between: what a backup is and how it is read. Every capability may use it, the ground floor may not.
BETWEEN = {"_artifact"}
# What one room lends to another by name. Provisioning lays out what the operations will read, so it speaks the
# cluster's words: its facts, files and settings; never its plans, agents or coordinators.
LENT = {
    ("_provision", "_cluster"): {"databases_file", "facts", "member_config", "model", "settings"},
    ("_cluster", "_pitr"): {"server", "side"},
}
# The one place that knows AnsibleModule.
KNOWS_ANSIBLE = {"_module.py"}

_EXCEPTION = re.compile(
    r"#\s*(noqa(:\s*[A-Z]+\d+(,\s*[A-Z]+\d+)*)?|type:\s*ignore(\[[\w, -]+\])?|pylint:\s*disable=[\w-]+(,\s*[\w-]+)*"
    r"|pragma:\s*no cover|nosec)(?P<reason>.*)$"
)
_TYPE = re.compile(r"(None|str|bytes|int|float|bool|dict|list|tuple|set|object)(\[.*)?$", re.DOTALL)
_SELF_EXPLAINING = re.compile(r"if (t\.|typing\.)?TYPE_CHECKING:|if __name__ == ")


def _lines(path: pathlib.Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def unexplained(lines: t.Sequence[str]) -> list[str]:
    """The comments that silence a tool and do not say why, on the line or on the one above."""
    found = []
    for number, line in enumerate(lines):
        match = _EXCEPTION.search(line)
        above = lines[number - 1].strip() if number else ""
        if match and not (match["reason"].strip("# ") or above.startswith("#") or _SELF_EXPLAINING.search(line)):
            found.append(f"line {number + 1}: {line.strip()}")
    return found


def imports(tree: ast.Module) -> t.Iterator[tuple[int, int, str]]:
    """Each name that a file imports outside `if TYPE_CHECKING`: line, level of a relative import, dotted name."""
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, 0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = f"{node.module}." if node.module else ""
            yield from ((node.lineno, node.level, prefix + alias.name) for alias in node.names)


def runtime_unions(tree: ast.Module) -> list[int]:
    """The lines that compute `X | Y` of types when they run, which Python 3.9 cannot; in annotations it stays text."""
    text = {
        id(inner)
        for node in ast.walk(tree)
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if isinstance(annotation, ast.expr)
        for inner in ast.walk(annotation)
    }
    checked = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass")
        for inner in ast.walk(node.args[-1])
    }
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.BitOr)
        and id(node) not in text
        and (id(node) in checked or any(_TYPE.match(ast.unparse(side)) for side in (node.left, node.right)))
    ]


def foreign_room(path: pathlib.Path, level: int, name: str) -> bool:
    """Whether a relative import reaches into another room, beyond what that room lends to this one."""
    inside = path.relative_to(repository.ROOT / "plugins" / "module_utils").parts
    first, second = (*name.split("."), "")[:2]
    below = COMMON if inside[0] in COMMON | BETWEEN else COMMON | BETWEEN
    if level != len(inside) or len(inside) == 1 or first in below | {inside[0]}:
        return False
    if not (path.parents[len(inside) - 1] / first).is_dir():
        return False
    return second not in LENT.get((inside[0], first), set())


def misplaced_imports(path: pathlib.Path, tree: ast.Module) -> list[str]:
    """What a file of module_utils imports although it stands on a storey that it may not know."""
    depth = len(path.relative_to(repository.ROOT / "plugins" / "module_utils").parts)
    found = []
    for line, level, name in imports(tree):
        first = name.split(".")[0]
        if first == "ansible_collections":
            found.append(f"line {line}: {name}: inside module_utils imports are relative, for the zipapp")
        if first == "ansible" and path.name not in KNOWS_ANSIBLE:
            found.append(f"line {line}: {name}: only _module.py knows Ansible")
        if level > depth:
            found.append(f"line {line}: {name}: a relative import that leaves module_utils")
        if foreign_room(path, level, name):
            found.append(f"line {line}: {name}: a room does not use another room's insides; move what both need down")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=repository.relative)
def test_the_licence_stands_at_the_top(path: pathlib.Path) -> None:
    assert "GNU General Public License v3.0" in "\n".join(_lines(path)[:6])


@pytest.mark.parametrize("path", SOURCES, ids=repository.relative)
def test_exceptions_have_their_reason_beside_them(path: pathlib.Path) -> None:
    assert unexplained(_lines(path)) == []


@pytest.mark.parametrize("path", PLUGINS, ids=repository.relative)
def test_rooms_stay_small(path: pathlib.Path) -> None:
    assert len(_lines(path)) <= FILE_LINES
    tree = ast.parse(path.read_text(encoding="utf-8"))
    long = [
        f"{node.name} has {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES
        and node.end_lineno
    ]
    assert long == []


@pytest.mark.parametrize("path", MODULES, ids=repository.relative)
def test_a_module_is_its_documentation_and_a_main(path: pathlib.Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    returns = [
        node.end_lineno or 0
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "RETURN"
    ]
    assert returns, "a module documents what it returns"
    assert len(_lines(path)) - returns[0] <= MODULE_LINES


@pytest.mark.parametrize("path", MODULE_UTILS, ids=repository.relative)
def test_storeys_are_kept(path: pathlib.Path) -> None:
    assert misplaced_imports(path, ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", [*MODULE_UTILS, *MODULES], ids=repository.relative)
def test_the_oldest_python_can_run_it(path: pathlib.Path) -> None:
    """What ruff and vermin don't see of what came after Python 3.9."""
    assert runtime_unions(ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", MODULE_UTILS, ids=repository.relative)
def test_what_is_private_is_named_so(path: pathlib.Path) -> None:
    first = path.relative_to(repository.ROOT / "plugins" / "module_utils").parts[0]
    assert first.startswith("_")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from .._other.plan import Plan", 1),
        ("from .._tools.service import Service", 0),
        ("from .._artifact.manifest import Manifest", 0),
        ("from .._other import plan", 1),
        ("from .._errors import HmsError", 0),
        ("from .facts import read", 0),
        ("import ansible.module_utils.basic", 1),
        ("from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError", 1),
        ("from ...modules import pg_x", 1),
        ("import typing as t\nif t.TYPE_CHECKING:\n    from ansible.module_utils.basic import AnsibleModule", 0),
    ],
)
def test_a_misplaced_import_is_seen(
    text: str, expected: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "ROOT", tmp_path)
    path = tmp_path / "plugins" / "module_utils" / "_room" / "plan.py"
    for room in ("_room", "_other", "_tools", "_artifact"):
        (path.parents[1] / room).mkdir(parents=True)
    assert len(misplaced_imports(path, ast.parse(text))) == expected


def test_the_ground_floor_knows_no_storey_above(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "ROOT", tmp_path)
    path = tmp_path / "plugins" / "module_utils" / "_tools" / "gpg.py"
    (path.parents[1] / "_artifact").mkdir(parents=True)
    assert len(misplaced_imports(path, ast.parse("from .._artifact.manifest import Manifest"))) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def f(x: int | None = None) -> str | None:\n    y: int | None = x", []),
        ("Wish = str | None", [1]),
        ("isinstance(x, Mapping | Sequence)", [1]),
        ("t.cast(dict[str, int] | None, x)", [1]),
        ("flags = re.I | re.M", []),
    ],
)
def test_a_union_at_run_time_is_seen(text: str, expected: list[int]) -> None:
    assert runtime_unions(ast.parse(text)) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("x = 1  # {}: E501", 1),
        ("x = 1  # {}: E501  # a URL can't be broken", 0),
        ("x = 1  # {}: E501, F401 a URL can't be broken", 0),
        ("x = y", 0),
    ],
)
def test_a_silenced_tool_is_seen(line: str, expected: int) -> None:
    assert len(unexplained(["", line.format("noqa")])) == expected
