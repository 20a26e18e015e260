# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a command of many thousand lines; should it fail, what failed is kept, to be told last.

    python told_last.py run lab-failover -- molecule test --scenario-name failover
    python told_last.py tell

``run`` passes the output through and ends with the command's exit code; ``tell`` prints what the failed ones kept,
and fails when there are any. What is kept: the lines that name a failed task of Ansible with the messages below it, and
pytest's summary.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
import typing as t

KEPT = pathlib.Path(".cache/failed")
LINES, WIDTH = 24, 300
"""Of each command: so much is read by a human being, and shown whole by whatever cuts long output."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_BORDER = re.compile(r"^\s*│ ?")
_FAILED = re.compile(r"^(FAILED|ERROR) |^\s*(fatal:|failed:|\[ERROR\]|E   )|\*\*\* .*Error \d")
_MESSAGE = re.compile(r"^\s*(msg|stderr):")
_TASK = re.compile(r"^(TASK|PLAY|RUNNING HANDLER) \[")
_FOLLOWING = 4
"""Lines after one that is kept which may belong to it."""


class Kept:
    """Goes through the lines, and keeps those that tell what failed."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._task = ""
        self._failing = False
        self._more = 0

    def see(self, raw: str) -> None:
        """Look at one line."""
        line = _BORDER.sub("", _COLOUR.sub("", raw)).rstrip()[:WIDTH]
        if _TASK.match(line):
            self._task, self._failing, self._more = line, False, 0
        elif _FAILED.search(line) or (self._failing and _MESSAGE.match(line)):
            self.lines += [self._task, line] if self._task else [line]
            self._task, self._failing = "", True
            self._more = 0 if line.startswith(("ERROR ", "FAILED ")) else _FOLLOWING
        elif self._more and line.strip():
            self.lines.append(line)
            self._more -= 1
        del self.lines[:-LINES]


def run(name: str, command: t.Sequence[str]) -> int:
    """Run it, pass its output through, keep what failed."""
    place = KEPT / name
    place.unlink(missing_ok=True)
    kept = Kept()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        for line in t.cast(t.IO[str], process.stdout):
            sys.stdout.write(line)
            sys.stdout.flush()
            kept.see(line)
    if process.returncode:
        KEPT.mkdir(parents=True, exist_ok=True)
        place.write_text("\n".join([f"== {name} failed ({process.returncode})", *kept.lines, ""]), encoding="utf-8")
    return process.returncode


def tell() -> int:
    """Print what the failed ones kept."""
    found = sorted(KEPT.iterdir()) if KEPT.is_dir() else []
    for path in found:
        sys.stdout.write(path.read_text(encoding="utf-8"))
    return 1 if found else 0


def main(arguments: t.Sequence[str]) -> int:
    """The command line."""
    if arguments[:1] == ["tell"] and len(arguments) == 1:
        return tell()
    if arguments[:1] == ["run"] and arguments[2:3] == ["--"] and len(arguments) > 3:
        return run(arguments[1], arguments[3:])
    sys.stderr.write(f"{__doc__}\n")
    return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
