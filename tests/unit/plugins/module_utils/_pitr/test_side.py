# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib
import subprocess

from ansible_collections.hms.postgres.plugins.module_utils._pitr import side


def test_who_works_in_the_data_directory_is_seen(tmp_path: pathlib.Path) -> None:
    """And the look is closed where it ends with the first one: a warning would be an error here."""
    folder = side.Folder(str(tmp_path))
    os.mkdir(folder.data)
    assert not side.lives_in(folder)
    with subprocess.Popen(["sleep", "600"], cwd=folder.data) as process:
        try:
            assert side.lives_in(folder)
        finally:
            process.kill()
    assert not side.lives_in(folder)
