# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests of the house know about the repository: where things lie, and what Ansible says of them."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import re
import subprocess
import sys
import typing as t

import yaml

NAMESPACE = "hms.postgres"
ROOT = pathlib.Path(__file__).resolve().parents[3]
MODULES = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("[a-z]*.py"))
ROLES = sorted(path.name for path in (ROOT / "roles").glob("[a-z]*") if path.is_dir())
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))
INVENTORIES = sorted(path for path in (ROOT / "inventories").glob("[a-z]*") if path.is_dir())

_FENCE = re.compile(r"^```ya?ml[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
_MADE = {".git", ".cache", ".venv", ".collections", ".ansible", "build", "output", "__pycache__"}


class _Loader(yaml.SafeLoader):
    """YAML as Ansible's files use it: !vault, !unsafe and the like are values like others."""


def _any_tag(loader: yaml.SafeLoader, _suffix: str, node: yaml.Node) -> t.Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.MappingNode)
    return loader.construct_mapping(node, deep=True)


_Loader.add_multi_constructor("!", _any_tag)


def load(text: str) -> list[t.Any]:
    """The documents of a YAML text."""
    return list(yaml.load_all(text, Loader=_Loader))


def load_file(path: pathlib.Path) -> t.Any:
    """The one document of a YAML file; None where there is no file."""
    if not path.exists():
        return None
    documents = load(path.read_text(encoding="utf-8"))
    return documents[0] if documents else None


def rules_told(path: pathlib.Path) -> list[tuple[list[str], str]]:
    """The table of rules in a document: the rules of each row, and what it says of overriding them."""
    text = path.read_text(encoding="utf-8")
    table = text[text.index("| rule |") :].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return [(re.findall(r"`(\w+)`", cells[0]), cells[2]) for cells in rows if len(cells) == 4]


def files(*patterns: str) -> list[pathlib.Path]:
    """The repository's own files, without what tools made beside them."""
    found: set[pathlib.Path] = set()
    for pattern in patterns:
        found.update(path for path in ROOT.glob(pattern) if not _MADE & set(path.relative_to(ROOT).parts))
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def relative(path: pathlib.Path) -> str:
    """A file's name as one would type it at the root of the repository."""
    return str(path.relative_to(ROOT))


def yaml_blocks(path: pathlib.Path) -> list[str]:
    """The YAML examples of a Markdown file."""
    return _FENCE.findall(path.read_text(encoding="utf-8"))


def ansible(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of Ansible's programs from the checkout, as a user would."""
    return subprocess.run(
        [os.path.join(os.path.dirname(sys.executable), program), *arguments],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=100,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"},
    )


@functools.lru_cache(maxsize=1)
def documentation() -> dict[str, dict[str, t.Any]]:
    """What ansible-doc says of every module of the collection, doc fragments included, by short name."""
    if not MODULES:
        return {}
    done = ansible("ansible-doc", "--json", "--type", "module", *(f"{NAMESPACE}.{name}" for name in MODULES))
    assert done.returncode == 0, done.stderr
    # A page that can't be read is left out with a warning, which the test for that module turns into a failure.
    return {name.rpartition(".")[2]: page for name, page in json.loads(done.stdout).items()}


def documented_options(module: str) -> dict[str, t.Any]:
    """The options that a module documents."""
    page = documentation().get(module)
    assert page is not None, f"ansible-doc has no page for {NAMESPACE}.{module}: run ansible-doc {NAMESPACE}.{module}"
    options = page["doc"].get("options") or {}
    assert isinstance(options, dict)
    return options
