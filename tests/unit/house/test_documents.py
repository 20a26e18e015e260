# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The documents tell the truth: links lead somewhere, commands exist, and what is quoted from the code stands there."""

from __future__ import annotations

import ast
import functools
import pathlib
import re
import shlex
import typing as t

import pytest

from ansible_collections.hms.postgres.tests.unit.house import repository

TEXTS = repository.files("*.md", "docs/**/*.md", "roles/*/*.md")
FAILOVER = repository.ROOT / "docs" / "failover.md"
TROUBLESHOOTING = repository.ROOT / "docs" / "troubleshooting.md"
COORDINATOR = repository.files("plugins/plugin_utils/_coordinator/*.py")
CLUSTER = repository.files("plugins/module_utils/_cluster/*.py")

_FENCE = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```\s*$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
_PATH = re.compile(r"(?<![\w/.])(?:plugins|playbooks|roles|tests|inventories|molecule|docs|changelogs)/[\w./*-]*[\w/]")
_NAME = re.compile(r"(?<![\w./-])hms\.postgres\.(\w+)")
_MAKE = re.compile(r"(?:^|[;&|] *)make((?: +[^\s;&|#]+)*)")
_PLAYBOOK = re.compile(r"(?:playbooks/|hms\.postgres\.)([\w-]+)((?:(?!playbooks/|hms\.postgres\.).)*)")
_EXTRA = re.compile(r"-e +(?:'(\{.*?\})'|([\w]+)=)")
_TEMPLATE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_BARE = {"when", "that", "changed_when", "failed_when", "until"}
"""Keywords whose values Jinja evaluates without braces."""
_MADE = {"build", "tests/output"}
"""Paths that are named and made only later."""


def _outside_fences(text: str) -> str:
    return _FENCE.sub("", text)


def _anchors(path: pathlib.Path) -> set[str]:
    """The anchors that GitHub gives to a file's headings."""
    found: set[str] = set()
    for heading in _HEADING.findall(_outside_fences(path.read_text(encoding="utf-8"))):
        words = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(next(name for name in _numbered(words) if name not in found))
    return found


def _numbered(name: str) -> t.Iterator[str]:
    yield name
    yield from (f"{name}-{number}" for number in range(1, 100))


def broken_links(path: pathlib.Path) -> list[str]:
    """The relative links of a Markdown file that lead nowhere."""
    found = []
    for link in _LINK.findall(_outside_fences(path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _hash, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            found.append(link)
    return found


def commands(path: pathlib.Path) -> list[str]:
    """Everything that a reader may type: the lines of code blocks that are no other language, and code in the text."""
    text = path.read_text(encoding="utf-8")
    found = [code.replace("\\|", "|") for code in _CODE.findall(_outside_fences(text))]
    for language, block in _FENCE.findall(text):
        if language in ("", "sh", "bash", "console"):
            found += block.replace("\\\n", " ").splitlines()
    return [command.strip() for command in found]


@functools.cache
def make_targets() -> frozenset[str]:
    """What `make` can be asked for."""
    text = (repository.ROOT / "Makefile").read_text(encoding="utf-8")
    return frozenset(re.findall(r"^([a-z][\w-]*):(?!=)", text, re.MULTILINE))


def unknown_targets(command: str) -> list[str]:
    """The targets in a command line that the Makefile doesn't have."""
    found = []
    for words in _MAKE.findall(command):
        for word in _split(words):
            if "=" not in word and not word.startswith("-") and word not in make_targets():
                found.append(word)
    return found


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # quotes that are not closed before the end of what was matched
        return text.split()


def _expressions(node: t.Any, key: str = "") -> t.Iterator[str]:
    """Everything in a piece of YAML that Jinja evaluates."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _expressions(value, str(name))
    elif isinstance(node, list):
        for value in node:
            yield from _expressions(value, key)
    elif isinstance(node, str):
        yield from [node] if key in _BARE else _TEMPLATE.findall(node)


@functools.cache
def known_variables(playbook: pathlib.Path) -> frozenset[str]:
    """The names that a playbook and what it imports evaluate, and the variables of the roles that it uses."""
    text = playbook.read_text(encoding="utf-8")
    found: set[str] = set()
    for expression in _expressions(repository.load(text)):
        found.update(re.findall(r"(?<![\w.'])[a-z_]\w*", re.sub(r"'[^']*'", "''", expression)))
    for name in re.findall(r"(?:import_playbook|include_tasks): ([\w/-]+\.yml)", text):
        found |= known_variables(playbook.parent / name)
    for role in repository.ROLES:
        if f"{repository.NAMESPACE}.{role}" in text:
            found |= set(repository.load_file(repository.ROOT / "roles" / role / "defaults" / "main.yml") or {})
    return frozenset(found)


def unused_variables(command: str) -> list[str]:
    """The `-e` variables in a command line that its playbook doesn't use."""
    found: list[str] = []
    for name, options in _PLAYBOOK.findall(command):
        playbook = repository.ROOT / "playbooks" / f"{name}.yml"
        if not playbook.exists():
            continue  # a module or a role, or a name that another test complains of
        given: set[str] = set()
        for mapping, variable in _EXTRA.findall(options):
            given |= {variable} if variable else set(repository.load(mapping)[0])
        found += sorted(given - known_variables(playbook))
    return found


def missing_paths(text: str) -> list[str]:
    """The paths of the repository that a text names and that aren't there."""
    found = []
    for name in (match.rstrip(".") for match in _PATH.findall(text)):
        if name not in _MADE and not any(repository.ROOT.glob(name.rstrip("/"))):
            found.append(name)
    return found


def table(path: pathlib.Path, first: str) -> list[list[str]]:
    """The rows of all tables of a Markdown file whose first column has this heading."""
    rows: list[list[str]] = []
    inside = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
        if cells[0] == first:
            inside = True
        elif inside and set(cells[0]) - set("-: "):
            rows.append(cells)
    return rows


def names(cell: str) -> list[str]:
    """What stands in code in a cell."""
    return _CODE.findall(cell)


@functools.cache
def _tree(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _calls(path: pathlib.Path, function: str) -> t.Iterator[ast.Call]:
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function:
            yield node


def _argument(call: ast.Call, position: int, name: str) -> t.Any:
    """A constant argument of a call; None where it isn't given."""
    given = call.args[position] if position < len(call.args) else None
    given = next((keyword.value for keyword in call.keywords if keyword.arg == name), given)
    return given.value if isinstance(given, ast.Constant) else given


def refusals(*paths: pathlib.Path) -> dict[str, str]:
    """Rule → whether it may be overridden, in the table's words, from every `Refusal(...)` in these files."""
    found: dict[str, set[bool]] = {}
    for path in paths:
        for call in _calls(path, "Refusal"):
            rule = _argument(call, 0, "rule")
            overridable = _argument(call, 3, "overridable")
            assert isinstance(rule, str), (
                f"{path.name}:{call.lineno}: a rule's name is a constant, or no table can hold it"
            )
            found.setdefault(rule, set()).add(overridable is not False)
    words = {frozenset({True}): "yes", frozenset({False}): "no"}
    return {rule: words.get(frozenset(kinds), "failover only") for rule, kinds in found.items()}


def reasons(*paths: pathlib.Path) -> set[str]:
    """Every `reason="…"` in these files."""
    return {
        keyword.value.value
        for path in paths
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "reason" and isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, str)
    }


def constant(path: pathlib.Path, dotted: str) -> float:
    """The number that a module, or a class in it, gives to a name."""
    body: t.Sequence[ast.stmt] = _tree(path).body
    *classes, name = dotted.split(".")
    for wanted in classes:
        body = next(node.body for node in body if isinstance(node, ast.ClassDef) and node.name == wanted)
    for node in body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or not isinstance(node.value, ast.Constant):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if [ast.unparse(target) for target in targets] == [name]:
            return float(t.cast(float, node.value.value))
    raise AssertionError(f"{repository.relative(path)} has no number {dotted}")


@pytest.mark.parametrize("path", TEXTS, ids=repository.relative)
def test_links_lead_somewhere(path: pathlib.Path) -> None:
    assert broken_links(path) == []


@pytest.mark.parametrize("path", TEXTS, ids=repository.relative)
def test_commands_exist(path: pathlib.Path) -> None:
    wrong = [f"{word}: {command}" for command in commands(path) for word in unknown_targets(command)]
    assert wrong == []


@pytest.mark.parametrize("path", TEXTS, ids=repository.relative)
def test_variables_given_are_used(path: pathlib.Path) -> None:
    assert [f"{name}: {command}" for command in commands(path) for name in unused_variables(command)] == []


@pytest.mark.parametrize("path", TEXTS, ids=repository.relative)
def test_paths_named_are_there(path: pathlib.Path) -> None:
    assert missing_paths(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", TEXTS, ids=repository.relative)
def test_scenarios_exist(path: pathlib.Path) -> None:
    named = re.findall(r"molecule [\w-]+ (?:-s|--scenario-name) ([\w-]+)", path.read_text(encoding="utf-8"))
    assert [name for name in named if not (repository.ROOT / "molecule" / name / "molecule.yml").exists()] == []


@pytest.mark.parametrize("path", TEXTS, ids=repository.relative)
def test_names_of_ours_exist(path: pathlib.Path) -> None:
    filters = {found.stem for found in repository.files("plugins/filter/*")}
    playbooks = {found.stem for found in repository.PLAYBOOKS}
    known = {*repository.MODULES, *repository.ROLES, *filters, *playbooks}
    assert set(_NAME.findall(path.read_text(encoding="utf-8"))) - known - {"git"} == set()


@pytest.mark.parametrize("path", TEXTS, ids=repository.relative)
def test_examples_in_yaml_are_yaml(path: pathlib.Path) -> None:
    for block in repository.yaml_blocks(path):
        assert repository.load(block), block


@pytest.mark.parametrize("playbook", repository.PLAYBOOKS, ids=repository.relative)
def test_a_playbook_names_only_options_that_it_has(playbook: pathlib.Path) -> None:
    lines = [line.lstrip("# ") for line in playbook.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert [f"{name}: {line}" for line in lines for name in unused_variables(line)] == []


def test_the_table_of_rules_is_the_code() -> None:
    rows = {names(row[0])[0]: row[3] for row in table(FAILOVER, "rule")}
    assert rows == refusals(*COORDINATOR, *CLUSTER)


def test_the_table_says_where_a_rule_holds() -> None:
    assert {row[1] for row in table(FAILOVER, "rule")} == {"both", "switchover", "failover"}
    assert all(row[2] and row[4] for row in table(FAILOVER, "rule"))


def test_every_reason_of_an_operation_is_told() -> None:
    told = {name for row in table(TROUBLESHOOTING, "reason") for name in names(row[0])}
    agents = [path for path in CLUSTER if path.stem.startswith("agent")]
    rules = set(refusals(*COORDINATOR, *CLUSTER))
    # bad_id is what an agent says to a coordinator that isn't ours
    assert reasons(*COORDINATOR, *agents) - told - rules - {"bad_id"} == set()


def test_every_reason_told_exists() -> None:
    sources = repository.files("plugins/module_utils/**/*.py", "plugins/plugin_utils/**/*.py")
    words = {
        node.value
        for path in sources
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    told = {
        name
        for first in ("reason", "reason, or message")
        for row in table(TROUBLESHOOTING, first)
        for name in names(row[0])
    }
    assert told - words == set()


def test_times_are_those_of_the_code() -> None:
    rows = table(FAILOVER, "what")
    assert rows
    for _what, seconds, where in rows:
        path, name = names(where)
        assert constant(repository.ROOT / path, name) == float(seconds), where


def test_what_is_predicted_is_what_the_code_predicts() -> None:
    plan = repository.ROOT / "plugins" / "module_utils" / "_cluster" / "plan.py"
    rows = table(FAILOVER, "part")
    assert rows
    for _part, value in rows:
        number, name = t.cast("re.Match[str]", re.search(r"[\d.]+", value))[0], names(value)[0]
        scale = 1e6 if "MB" in value else 1.0
        assert constant(plan, name) == pytest.approx(float(number) * scale), value


def test_verbs_are_those_of_the_agents() -> None:
    """The steps of an operation are told in the verbs that are really sent."""
    known = {
        key.value
        for path in CLUSTER
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.FunctionDef) and node.name in ("verbs", "__init__")
        for inner in ast.walk(node)
        if isinstance(inner, ast.Dict)
        for key in inner.keys
        if isinstance(key, ast.Constant)
    }
    text = FAILOVER.read_text(encoding="utf-8")
    steps = text[text.index("## What happens in a switchover") : text.index("## Who decides")]
    rules, settings = refusals(*COORDINATOR, *CLUSTER), {"code", "standby.signal", "pg_control", "hold_seconds"}
    assert set(_CODE.findall(steps)) - known - set(rules) - settings == set()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("make demo", []),
        ("make wonder", ["wonder"]),
        ("make venv && . .venv/bin/activate", []),
        ("make clean wonder PYTHON=python3.13", ["wonder"]),
        ("make unit PYTEST_ARGS='-k plan'", []),
        ("`make`", []),
        ("to make sense", []),
    ],
)
def test_an_invented_target_is_seen(command: str, expected: list[str]) -> None:
    assert unknown_targets(command) == expected


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("ansible-playbook playbooks/switchover.yml -e candidate=db2 -e wonder=1", ["wonder"]),
        ("ansible-playbook playbooks/dr-failover.yml -e confirm=hospital", []),
        ("""playbooks/dr-failover.yml -e '{"fence_command": ["x"], "wonder": 1}'""", ["wonder"]),
        ("ansible-playbook playbooks/site.yml -e replication_allow_reclone=db2", []),
        ("ansible-playbook hms.postgres.dr_failover -e wonder=1", ["wonder"]),
        ("first playbooks/rejoin.yml -e host=db1, then playbooks/switchover.yml -e host=db1", ["host"]),
        ("-e wonder=1", []),
    ],
)
def test_an_invented_variable_is_seen(command: str, expected: list[str]) -> None:
    assert unused_variables(command) == expected


def test_a_broken_link_is_seen(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.md").write_text(
        "# One `two`, three!\n\n[x](b.md) [y](#one-two-three) [z](#four) [w](https://x.org/)\n"
    )
    assert broken_links(tmp_path / "a.md") == ["b.md", "#four"]


def test_a_missing_path_is_seen() -> None:
    assert missing_paths("see plugins/modules/pg_wonder.py, playbooks/site.yml and roles/*/README.md.") == [
        "plugins/modules/pg_wonder.py"
    ]
