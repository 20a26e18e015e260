# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Playbooks as an operator runs them: ansible-playbook in the repository, with its configuration."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import typing as t

ROOT = pathlib.Path(__file__).resolve().parents[2]


def play(
    inventory: pathlib.Path | str,
    playbook: pathlib.Path | str,
    *options: str,
    rc: int = 0,
    seconds: float = 400.0,
    environment: t.Mapping[str, str] | None = None,
) -> str:
    """Run a playbook, named from the root of the repository; what it printed."""
    program = str(pathlib.Path(sys.executable).with_name("ansible-playbook"))
    known = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [program, "-i", str(inventory), str(playbook), *options],
        cwd=ROOT,
        env={**os.environ, **known, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == rc, printed
    return printed
