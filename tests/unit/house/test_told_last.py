# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What failed in a long run is told last, whatever came after it."""

from __future__ import annotations

import pathlib
import subprocess
import sys

TOOL = pathlib.Path(__file__).parents[2] / "gates" / "told_last.py"
PLAY = """
  │ TASK [Count]
  │ ok: [localhost] =>
  │     msg: '100 rows'
  │ TASK [Switch over]
  │ \x1b[0;31mfatal: [localhost]: FAILED! =>\x1b[0m
  │     changed: false
  │     msg: a backup is running
  │ PLAY RECAP
  │ localhost : ok=1 failed=1
"""
NOISE = "PLAY [Remove what was built]\n" + "ok: [localhost]\n" * 2000


def tool(folder: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it in a folder of its own."""
    return subprocess.run(
        [sys.executable, str(TOOL), *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def end_with(code: int, text: str) -> list[str]:
    """A command that prints and ends."""
    return [
        sys.executable,
        "-c",
        "import sys; sys.stdout.write(sys.argv[2]); sys.exit(int(sys.argv[1]))",
        str(code),
        text,
    ]


def test_the_failed_task_is_told_and_not_what_others_said(tmp_path: pathlib.Path) -> None:
    """The message, the task's name; all of the output was passed through."""
    done = tool(tmp_path, "run", "lab", "--", *end_with(3, PLAY + NOISE))

    told = tool(tmp_path, "tell")

    assert (done.returncode, done.stdout) == (3, PLAY + NOISE)
    assert told.returncode == 1
    assert told.stdout.startswith("== lab failed (3)\nTASK [Switch over]\n")
    assert "a backup is running" in told.stdout
    assert "100 rows" not in told.stdout
    assert len(told.stdout.splitlines()) < 20


def test_the_failed_tests_are_told(tmp_path: pathlib.Path) -> None:
    """Pytest's summary, and where it broke."""
    tool(
        tmp_path, "run", "real", "--", *end_with(1, "E   assert 1 == 2\nFAILED tests/real/test_x.py::test_y - assert\n")
    )

    told = tool(tmp_path, "tell").stdout

    assert "E   assert 1 == 2" in told
    assert "FAILED tests/real/test_x.py::test_y" in told


def test_nothing_is_told_when_nothing_failed(tmp_path: pathlib.Path) -> None:
    """Nor what failed before and was mended."""
    tool(tmp_path, "run", "lab", "--", *end_with(1, PLAY))
    tool(tmp_path, "run", "lab", "--", *end_with(0, PLAY))

    told = tool(tmp_path, "tell")

    assert (told.returncode, told.stdout) == (0, "")
