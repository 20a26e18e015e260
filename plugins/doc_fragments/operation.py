# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of the operations that change who is primary."""

from __future__ import annotations


class ModuleDocFragment:
    """`hms.postgres.operation`"""

    DOCUMENTATION = r"""
options:
  confirm:
    description: Must be the cluster's name in production. A wrong name is refused everywhere.
    type: str
    default: ''
  hold_seconds:
    description: Seconds in which every transaction through the bouncers must have come to its end.
    type: float
    default: 3.0
  rto_seconds:
    description: The recovery time objective that the record is held against, in seconds.
    type: float
    default: 3600.0
  rpo_seconds:
    description: The recovery point objective, in seconds. A candidate that may be further behind is refused.
    type: float
    default: 300.0
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
    details:
      - Looks at every host, tries the login path from every bouncer to the candidate, and stops after the plan.
"""
