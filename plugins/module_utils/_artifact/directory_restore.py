# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way back of a backup in the directory format: unpacked into a staging folder, restored from there. PRIVATE."""

from __future__ import annotations

import os
import typing as t

from .._errors import HmsError
from .._pipeline import Pipeline, Stage
from .._store.model import ObjectReader
from .._tools.tar import Tar
from . import directory
from .staging import Staging

MOST_JOBS = 4
"""A scratch database takes no more connections."""


def restore_files(
    reader: ObjectReader,
    stages: t.Sequence[Stage],
    restore: t.Callable[[str], Stage],
    *,
    staging: Staging,
    os_user: str | None,
    deadline: float,
) -> None:
    """Unpack what `reader` and `stages` give, and run the stage that `restore` makes for the folder.

    Raises what a pipeline raises; a disk that is too small for the files is no fault of the backup's.
    """
    what = "The restore for the verification"
    try:
        with staging:
            chain = [*stages, Tar(os_user=os_user).extract_stage(staging.path)]
            Pipeline(chain, deadline=deadline, what="Unpacking for the verification").feed(reader.read)
            stage = restore(os.path.join(staging.path, directory.NAME))
            Pipeline([stage], deadline=deadline, what=what).run()
    except HmsError as error:
        if error.phase == "tar" and "No space left on device" in error.message:
            error.reason = "staging_full"
            error.next_step = "Make room in staging_dir, or use verify read."
        raise
    finally:
        reader.close()
