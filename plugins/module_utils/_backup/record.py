# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The record of a backup, written as it goes; its id is the backup's. PRIVATE."""

from __future__ import annotations

from .._artifact.step_record import RECORDS, ServerClock, StepRecord

__all__ = ["OPERATION", "RECORDS", "BackupRecord", "ServerClock"]

OPERATION = "backup"


class BackupRecord(StepRecord):
    """Journal of one backup."""

    operation = OPERATION
