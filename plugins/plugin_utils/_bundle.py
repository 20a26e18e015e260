# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The target-side code as one zip file: what the agents run, and what the on-host runner is. PRIVATE."""

from __future__ import annotations

import io
import os
import zipfile

PACKAGE = "hms_postgres"
_MOMENT = (2026, 1, 1, 0, 0, 0)  # a fixed one, so that equal code makes an equal file
_MAIN = f"""from {PACKAGE}._runner import main

raise SystemExit(main())
"""


def module_utils_directory() -> str:
    """Where this collection's module_utils lie."""
    return os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "module_utils")


def build(directory: str | None = None) -> bytes:
    """All of module_utils as a zip that Python runs; the same code gives the same bytes."""
    root = directory or module_utils_directory()
    names = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        names += [os.path.join(folder, name) for name in files if name.endswith(".py")]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(names):
            with open(path, "rb") as source:
                _add(archive, os.path.join(PACKAGE, os.path.relpath(path, root)), source.read())
        _add(archive, "__main__.py", _MAIN.encode())
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _MOMENT)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content)
