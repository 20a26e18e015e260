# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of everything that is driven from the controller and leaves a record there."""

from __future__ import annotations


class ModuleDocFragment:
    """`hms.postgres.recorded`"""

    DOCUMENTATION = r"""
options:
  records_directory:
    description: The folder on the controller in which the operation's record and report are written.
    type: path
    required: true
  force:
    description:
      - Rules that are overridden, by name, one by one. A refusal says its rule's name.
      - What was overridden stands in the record.
    type: list
    elements: str
    default: []
attributes:
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
  idempotent:
    description: >-
      When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
"""
