# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a command and takes its controller away in the middle: SIGKILL to it and to all that it started.

    python3 interrupt.py --records DIR --step promote --result ok -- ansible-playbook ...

The moment is read from the operation's own journal, as it grows. Ansible's workers live in sessions of their own,
so the whole tree of processes is ended, as when the machine loses its power. Exit code 0 when it was killed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import typing as t

POLL = 0.001
LAST_LINES = 60


def parents() -> dict[int, int]:
    """Each process's parent."""
    found: dict[int, int] = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def descendants(root: int) -> list[int]:
    """All processes below `root`, nearest first."""
    tree = parents()
    found = [root]
    for pid in found:
        found.extend(child for child, parent in tree.items() if parent == pid)
    return found[1:]


def kill_all(doomed: t.Iterable[int]) -> None:
    """None of them can say good-bye."""
    for pid in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_tree(root: int, known: list[int]) -> int:
    """End a process and all below it: at once those that are known, then whoever is left. Returns how many."""
    kill_all(known)
    rest = [*descendants(root), root]
    kill_all(rest)
    return len({*known, *rest})


class Journals:
    """The journals that appear in a folder after this was made."""

    def __init__(self, directory: str) -> None:
        self._directory = pathlib.Path(directory)
        self._old = set(self._files())
        self._read: dict[pathlib.Path, int] = {}

    def _files(self) -> list[pathlib.Path]:
        return list(self._directory.glob("*.jsonl")) if self._directory.is_dir() else []

    def new_steps(self) -> t.Iterator[dict[str, t.Any]]:
        """Steps written since the last call."""
        for path in self._files():
            if path in self._old:
                continue
            with path.open("rb") as lines:
                lines.seek(self._read.get(path, 0))
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    self._read[path] = self._read.get(path, 0) + len(line)
                    step = json.loads(line).get("step")
                    if step:
                        yield step


def wait_and_kill(command: list[str], arguments: argparse.Namespace) -> dict[str, t.Any]:
    """Run until the moment comes."""
    journals = Journals(arguments.records)
    deadline = time.monotonic() + arguments.timeout
    seen: list[str] = []
    known: list[int] = []
    with open(arguments.log, "wb") as log, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process:
        while process.poll() is None and time.monotonic() < deadline:
            calm = False
            for step in journals.new_steps():
                seen.append(f"{step['id']}@{step['host']}:{step['result']}")
                if step["id"] == arguments.step and step["result"] == arguments.result:
                    return {"killed": True, "processes": kill_tree(process.pid, known), "seen": seen}
                calm = step["phase"] != "critical"
            if calm:
                known = descendants(process.pid)  # what must die is found before there is haste, and only then
            time.sleep(POLL)
        if process.poll() is None:
            kill_tree(process.pid, known)
    return {"killed": False, "rc": process.returncode, "seen": seen, "log": arguments.log}


def last_words(log: str) -> str:
    """What the command said at its end: why the moment never came."""
    return "\n".join(pathlib.Path(log).read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:])


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", required=True)
    parser.add_argument("--step", required=True)
    parser.add_argument("--result", default="ok")
    parser.add_argument("--log", required=True)
    parser.add_argument("--timeout", type=float, default=300.0)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    result = wait_and_kill(command, arguments)
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    if not result["killed"]:
        sys.stderr.write(last_words(arguments.log) + "\n")
    return 0 if result["killed"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
