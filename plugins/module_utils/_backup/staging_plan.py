# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a dump may lie on a disk for a while, and where. Pure. PRIVATE."""

from __future__ import annotations

import os
import typing as t

from .._artifact.staging import StagingFacts
from .._store.model import FolderSpec
from .._tools.compressors import default_threads
from .estimate import size
from .model import Wish


def needs_staging(wish: Wish) -> bool:
    """Whether this backup writes files before it stores them."""
    return wish.engine == "pg_dump" and wish.format == "directory" and wish.type != "schema_only"


def jobs_of(wish: Wish) -> int:
    """How many workers dump."""
    return wish.jobs or default_threads()


def staging_problems(wish: Wish, facts: StagingFacts | None, needed: int) -> t.Iterator[tuple[str, str, str]]:
    """What stands against it: rule, message, next step."""
    if wish.jobs is not None and wish.format != "directory":
        yield (
            "jobs_need_directory",
            f"Several jobs can only dump in the format directory, and this is {wish.format}.",
            "Leave jobs out, or use format directory with a staging_dir.",
        )
    if not needs_staging(wish):
        return
    if not wish.staging_dir:
        told = (
            "In the format directory pg_dump writes its files itself and can't encrypt them, so it needs a "
            "staging_dir to write them to; none is given."
        )
        step = (
            "Give staging_dir, a folder of mode 0700 on this host, best on a tmpfs or an encrypted disk. "
            "Or use format custom: one stream, encrypted before it touches a disk."
        )
        yield "staging_missing", told, step
        return
    folders = [spec.path for spec in wish.stores if isinstance(spec, FolderSpec)]
    around = [path for path in folders if _within(wish.staging_dir, path)]
    if around:
        told = f"The staging_dir {wish.staging_dir} is inside the store {around[0]}, where plaintext must never be."
        yield "staging_in_store", told, "Give a staging_dir elsewhere."
    if facts is not None and facts.problem is not None:
        yield facts.problem.reason, facts.problem.message, facts.problem.next_step
    elif facts is not None and facts.free is not None and facts.free < needed:
        told = f"The staging_dir {facts.path} has {size(facts.free)} free; the dump may need {size(needed)} there."
        yield "staging_full", told, "Make room there, or use format custom, which needs none."


def staging_warnings(wish: Wish, facts: StagingFacts | None) -> t.Iterator[str]:
    """What whoever asked for it should know."""
    if not needs_staging(wish) or facts is None:
        return
    yield (
        f"While it is made, the whole dump lies unencrypted in {facts.path}. It is removed at the end, and after a "
        "failure or a kill; after a power failure by the next run only."
    )
    if wish.verify == "deep":
        yield f"To verify it deep it is unpacked there once more, unencrypted, in {facts.path}."
    if facts.beside_server:
        yield f"{facts.path} is on the server's own disk: a dump that fills it stops the server."


def _within(path: str, folder: str) -> bool:
    path, folder = os.path.normpath(path), os.path.normpath(folder)
    return path == folder or path.startswith(folder.rstrip("/") + "/")
