# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where pgBackRest's backups are."""

from __future__ import annotations


class ModuleDocFragment:
    """`hms.postgres.pgbackrest`"""

    DOCUMENTATION = r"""
options:
  pgbackrest:
    description:
      - The pgBackRest repository. It stands in pgBackRest's own configuration, and C(backup.json) of a host says where
        that is.
    type: dict
    suboptions:
      config:
        description: The configuration file.
        type: path
      stanza:
        description: The stanza's name; by default the cluster's.
        type: str
      os_user:
        description: The operating system's user that pgBackRest runs as.
        type: str
      repo:
        description: The repository's number.
        type: int
"""
