# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lay a copy of the collection where Ansible's tools want it: TARGET/ansible_collections/hms/postgres.

ansible-test, ansible-lint, antsibull and galaxy-importer all want that path, and the
checkout may be called anything. What is copied is what git knows or would take
(tracked, and untracked but not ignored). Files that did not change keep their times, so
that the tools' caches stay warm; files that are gone from the checkout go from the copy.

Usage: stage.py CHECKOUT TARGET        prints the copy's path
"""

from __future__ import annotations

import filecmp
import os
import pathlib
import shutil
import subprocess
import sys

# Not part of the collection as Ansible sees it; .collections would make the copy hold itself.
LEFT_OUT = (".ci/", ".collections/")


def wanted_files(checkout: pathlib.Path) -> set[str]:
    """The files of the checkout that belong in the copy, relative to it."""
    listed = subprocess.run(
        ["git", "-C", str(checkout), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    names = {name for name in listed.split("\0") if name and not name.startswith(LEFT_OUT)}
    return {name for name in names if os.path.lexists(checkout / name)}


def present_files(copy: pathlib.Path) -> set[str]:
    """The files that an earlier run left in the copy, relative to it."""
    found: set[str] = set()
    for folder, folders, files in os.walk(copy):
        if pathlib.Path(folder) == copy:
            folders[:] = [name for name in folders if name not in (".git", ".ansible")]
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        found.update(os.path.relpath(os.path.join(folder, name), copy) for name in [*files, *links])
    return found


def is_same(source: pathlib.Path, target: pathlib.Path) -> bool:
    """Whether the copy of one file is current."""
    if not os.path.lexists(target) or source.is_symlink() != target.is_symlink():
        return False
    if source.is_symlink():
        return os.readlink(source) == os.readlink(target)
    return source.stat().st_mode == target.stat().st_mode and filecmp.cmp(source, target, shallow=True)


def lay(checkout: pathlib.Path, copy: pathlib.Path) -> None:
    """Make the copy equal to the checkout."""
    copy.mkdir(parents=True, exist_ok=True)
    # The tools ask git what belongs to the collection; without this they would ask the checkout's git.
    if not (copy / ".git").is_dir():
        subprocess.run(["git", "-C", str(copy), "init", "--quiet"], check=True)
    wanted = wanted_files(checkout)
    for name in present_files(copy) - wanted:
        (copy / name).unlink()
    for name in sorted(wanted):
        source, target = checkout / name, copy / name
        if is_same(source, target):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)
    for folder, _folders, _files in os.walk(copy, topdown=False):
        inside = pathlib.Path(folder).relative_to(copy).parts
        if inside and inside[0] not in (".git", ".ansible") and not os.listdir(folder):
            os.rmdir(folder)


def main(arguments: list[str]) -> int:
    """Run the command line."""
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    copy = pathlib.Path(arguments[1]).absolute() / "ansible_collections" / "hms" / "postgres"
    lay(pathlib.Path(arguments[0]).absolute(), copy)
    print(copy)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
